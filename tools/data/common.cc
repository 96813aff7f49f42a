#include "tools/data/common.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace semvq::tools {
namespace {

template <typename Record, typename ToLine>
std::string RecordList(const std::vector<Record>& records, ToLine to_line) {
  if (records.empty()) return "[]\n";
  return absl::StrCat("[\n",
                      absl::StrJoin(records, ",\n",
                                    [&](std::string* out, const Record& r) {
                                      absl::StrAppend(out, to_line(r));
                                    }),
                      "\n]\n");
}

std::string InlineList(const std::vector<std::string>& values) {
  return absl::StrCat(
      "[",
      absl::StrJoin(values, ", ",
                    [](std::string* out, const std::string& value) {
                      absl::StrAppend(out, JsonString(value));
                    }),
      "]");
}

absl::Status FileError(absl::string_view doing, const std::string& path) {
  const int error = errno;
  std::string next = "check the permissions of the folder";
  if (error == ENOSPC || error == EDQUOT) {
    next = "free some space (about 150 MB are needed) or choose another --out";
  }
  return absl::InternalError(absl::StrCat("cannot ", doing, " ", path, ": ",
                                          std::strerror(error), "; ", next));
}

}  // namespace

std::string Sha256Hex(absl::string_view bytes) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         digest);
  return absl::BytesToHexString(absl::string_view(
      reinterpret_cast<const char*>(digest), SHA256_DIGEST_LENGTH));
}

double HashFraction(absl::string_view text) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         digest);
  uint64_t head = 0;
  for (int i = 0; i < 8; ++i) head = head << 8 | digest[i];
  // A double holds 53 bits: dropping the rest keeps the fraction below 1.
  return static_cast<double>(head >> 11) * 0x1.0p-53;
}

std::string JsonString(absl::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppend(&out, absl::StrFormat("\\u%04x", c));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

std::string PairsJson(const std::vector<Pair>& pairs) {
  return RecordList(pairs, [](const Pair& pair) {
    std::string line =
        absl::StrCat("{\"image\": ", JsonString(pair.image),
                     ", \"caption\": ", JsonString(pair.caption),
                     ", \"image_id\": ", JsonString(pair.image_id),
                     ", \"concept\": ", JsonString(pair.concept_name),
                     ", \"source\": ", JsonString(pair.source));
    if (!pair.keywords.empty()) {
      absl::StrAppend(&line, ", \"keywords\": ", InlineList(pair.keywords));
    }
    return line + "}";
  });
}

std::string VqaJson(const std::vector<VqaRecord>& records) {
  return RecordList(records, [](const VqaRecord& record) {
    return absl::StrCat("{\"image\": ", JsonString(record.image),
                        ", \"image_id\": ", JsonString(record.image_id),
                        ", \"question\": ", JsonString(record.question),
                        ", \"answer\": ", JsonString(record.answer),
                        ", \"question_id\": ", record.question_id,
                        ", \"dataset\": \"easy_vqa\"}");
  });
}

std::string StringListJson(const std::vector<std::string>& values) {
  return InlineList(values) + "\n";
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT) {
      return absl::NotFoundError(absl::StrCat(path, " does not exist"));
    }
    return FileError("open", path);
  }
  std::string bytes;
  char buffer[1 << 16];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) bytes.append(buffer, n);
  if (n < 0) {
    absl::Status status = FileError("read", path);
    close(fd);
    return status;
  }
  close(fd);
  return bytes;
}

absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view bytes, bool durable) {
  const std::string temporary = path + ".partial";
  int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0 && errno == ENOENT) {
    std::error_code error;
    std::filesystem::create_directories(
        std::filesystem::path(path).parent_path(), error);
    fd =
        open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  }
  if (fd < 0) return FileError("create", temporary);
  absl::Status status;
  while (!bytes.empty() && status.ok()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) status = FileError("write", temporary);
    if (n > 0) bytes.remove_prefix(n);
  }
  if (status.ok() && durable && fsync(fd) != 0) {
    status = FileError("flush", temporary);
  }
  if (close(fd) != 0 && status.ok()) status = FileError("close", temporary);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = FileError("rename to", path);
  }
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

absl::Status OutputFolder::Write(const std::string& path,
                                 absl::string_view bytes, bool durable) {
  if (files_.count(path) != 0) {
    return absl::InternalError(
        absl::StrCat(path,
                     " would be written twice: two records of the input "
                     "share a name"));
  }
  absl::Status status =
      WriteFileAtomically(absl::StrCat(root_, "/", path), bytes, durable);
  if (!status.ok()) return status;
  files_[path] = Sha256Hex(bytes);
  sizes_[path] = static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status OutputFolder::Link(const std::string& existing,
                                const std::string& path) {
  const auto known = files_.find(existing);
  if (known == files_.end() || files_.count(path) != 0) {
    return absl::InternalError(absl::StrCat(
        "cannot link ", path, " to ", existing, ": ",
        known == files_.end() ? "that was not written" : "it is there"));
  }
  const std::string from = absl::StrCat(root_, "/", existing),
                    to = absl::StrCat(root_, "/", path),
                    temporary = to + ".partial";
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(to).parent_path(),
                                      error);
  unlink(temporary.c_str());
  if (link(from.c_str(), temporary.c_str()) == 0) {
    // rename() of two names of one file does nothing, and leaves both.
    unlink(to.c_str());
    if (rename(temporary.c_str(), to.c_str()) != 0) {
      return FileError("rename to", to);
    }
    files_[path] = known->second;
    sizes_[path] = 0;
    return absl::OkStatus();
  }
  auto bytes = ReadFile(from);
  if (!bytes.ok()) return bytes.status();
  return Write(path, *bytes);
}

int64_t OutputFolder::BytesUnder(absl::string_view prefix) const {
  int64_t bytes = 0;
  for (const auto& [path, size] : sizes_) {
    if (absl::StartsWith(path, prefix)) {
      bytes += size;
    }
  }
  return bytes;
}

std::string DebianVersion(absl::string_view package,
                          const std::string& status_file) {
  std::ifstream in(status_file);
  const std::string wanted = absl::StrCat("Package: ", package);
  const absl::string_view key = "Version: ";
  std::string line;
  bool inside = false;
  while (std::getline(in, line)) {
    if (line.empty()) {
      inside = false;
    } else if (line == wanted) {
      inside = true;
    } else if (inside && absl::StartsWith(line, key)) {
      return line.substr(key.size());
    }
  }
  return "unknown";
}

}  // namespace semvq::tools
