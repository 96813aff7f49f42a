#include "data/shard_writer.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "core/util/file.h"

namespace semvq {

absl::StatusOr<std::unique_ptr<ShardWriter>> ShardWriter::Create(
    const std::string& path) {
  const int fd =
      open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return FileError(errno, "cannot create", path);
  archive* tar = archive_write_new();
  archive_write_set_format_pax_restricted(tar);
  archive_write_add_filter_none(tar);
  std::unique_ptr<ShardWriter> writer(new ShardWriter(path, fd, tar));
  if (archive_write_open_fd(tar, fd) != ARCHIVE_OK)
    return writer->Error("cannot open");
  return writer;
}

ShardWriter::~ShardWriter() {
  if (tar_ != nullptr) archive_write_free(tar_);
  if (fd_ >= 0) close(fd_);
}

absl::Status ShardWriter::Error(absl::string_view what) const {
  return FileError(archive_errno(tar_), what, path_);
}

absl::Status ShardWriter::Add(const std::string& name,
                              absl::string_view content) {
  archive_entry* entry = archive_entry_new();
  archive_entry_set_pathname(entry, name.c_str());
  archive_entry_set_size(entry, static_cast<int64_t>(content.size()));
  archive_entry_set_filetype(entry, AE_IFREG);
  archive_entry_set_perm(entry, 0644);
  const int header = archive_write_header(tar_, entry);
  archive_entry_free(entry);
  // A warning: the name is not of this locale's characters. It is kept.
  if (header != ARCHIVE_OK && header != ARCHIVE_WARN)
    return Error("cannot write to");
  if (archive_write_data(tar_, content.data(), content.size()) !=
      static_cast<la_ssize_t>(content.size())) {
    return Error("cannot write to");
  }
  return absl::OkStatus();
}

absl::Status ShardWriter::Finish() {
  if (archive_write_close(tar_) != ARCHIVE_OK) return Error("cannot end");
  if (fsync(fd_) != 0) return FileError(errno, "cannot flush", path_);
  const int fd = fd_;
  fd_ = -1;
  if (close(fd) != 0) return FileError(errno, "cannot close", path_);
  return absl::OkStatus();
}

}  // namespace semvq
