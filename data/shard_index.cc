#include "data/shard_index.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/util/file.h"

namespace semvq {
namespace {

constexpr absl::string_view kMagic = "semvq-shard-index 1";
constexpr size_t kBlock = 512;
constexpr size_t kMaxName = 4096;
constexpr size_t kReadBytes = 16384;  // Headers are far apart.

bool IsImage(absl::string_view extension) {
  // "0.jpg", "1.jpg": of several images.
  const size_t dot = extension.find('.');
  if (dot != absl::string_view::npos && dot > 0 && dot <= 2 &&
      std::all_of(extension.begin(), extension.begin() + dot,
                  absl::ascii_isdigit)) {
    extension.remove_prefix(dot + 1);
  }
  return extension == "jpg" || extension == "jpeg" || extension == "png" ||
         extension == "webp";
}

bool IsUsed(absl::string_view extension) {
  return IsImage(extension) || extension == "txt" || extension == "json";
}

// "a/b/0001.jpg" to "a/b/0001" and "jpg".
std::pair<std::string, std::string> SplitName(absl::string_view name) {
  while (absl::ConsumePrefix(&name, "./")) {
  }
  const size_t slash = name.rfind('/');
  const size_t dot =
      name.find('.', slash == absl::string_view::npos ? 0 : slash + 1);
  if (dot == absl::string_view::npos) return {std::string(name), ""};
  return {std::string(name.substr(0, dot)),
          absl::AsciiStrToLower(name.substr(dot + 1))};
}

bool LeavesTheShard(absl::string_view name) {
  if (absl::StartsWith(name, "/")) return true;
  for (const absl::string_view part : absl::StrSplit(name, '/')) {
    if (part == "..") return true;
  }
  return false;
}

// What makes an entry unusable, apart from its content.
std::string ProblemOf(archive_entry* entry, absl::string_view name) {
  if (LeavesTheShard(name)) return "names a place outside of the shard";
  if (archive_entry_hardlink(entry) != nullptr)
    return "is a hard link, and links are not followed (tar "
           "--hard-dereference makes none)";
  if (archive_entry_filetype(entry) == AE_IFLNK)
    return "is a symbolic link, and links are not followed (tar --dereference "
           "makes none)";
  if (archive_entry_filetype(entry) != AE_IFREG) return "is no regular file";
  if (archive_entry_sparse_count(entry) > 0) return "is a sparse file";
  return "";
}

std::string NameOf(archive_entry* entry) {
  const char* name = archive_entry_pathname(entry);
  if (name == nullptr) name = archive_entry_pathname_utf8(entry);
  return name == nullptr ? "" : name;
}

// One sample as a line: the key, then each member as extension:offset:size, or
// '!' with a problem; separated by tabs.
class Lines {
 public:
  void Add(const std::string& key, const std::string& member) {
    if (key != key_ || samples_ == 0) {
      if (samples_ > 0) text_.push_back('\n');
      key_ = key;
      ++samples_;
      absl::StrAppend(&text_, absl::Utf8SafeCEscape(key));
    }
    absl::StrAppend(&text_, "\t", member);
  }
  int64_t samples() const { return samples_; }
  const std::string& text() const { return text_; }

 private:
  std::string text_, key_;
  int64_t samples_ = 0;
};

struct CloseArchive {
  void operator()(archive* a) const { archive_read_free(a); }
};

// Where an entry's content is shows when the next header is found.
struct Entry {
  std::string key, extension, problem;
  int64_t size = 0;
};

// Reads up to the end or to what is damaged; returns what that is.
std::string ScanHeaders(archive* tar, int64_t shard_bytes, Lines* lines) {
  Entry last;
  bool any = false;
  int64_t last_at = -1;
  const auto finish = [&](int64_t next_header) {
    if (!any || !IsUsed(last.extension)) return;
    if (!last.problem.empty()) {
      lines->Add(last.key, absl::StrCat("!the member .", last.extension, " ",
                                        last.problem));
      return;
    }
    const auto blocks = (last.size + static_cast<int64_t>(kBlock) - 1) / kBlock;
    lines->Add(last.key,
               absl::StrCat(last.extension, ":",
                            next_header - static_cast<int64_t>(blocks * kBlock),
                            ":", last.size));
  };
  for (;;) {
    archive_entry* entry = nullptr;
    const int result = archive_read_next_header(tar, &entry);
    const int64_t at = archive_read_header_position(tar);
    if (any && (at > shard_bytes || at <= last_at)) {
      return absl::StrCat("it is cut off at byte ", shard_bytes, ", within ",
                          last.key, ".", last.extension);
    }
    finish(at);
    last_at = at;
    if (result == ARCHIVE_EOF) {
      return at >= shard_bytes
                 ? absl::StrCat("it is cut off at byte ", shard_bytes,
                                ": a tar file's end marker is not there")
                 : "";
    }
    if (result != ARCHIVE_OK && result != ARCHIVE_WARN) {
      const char* reason = archive_error_string(tar);
      return absl::StrCat("it is no tar file, or damaged, at byte ", at, " (",
                          reason == nullptr ? "unknown error" : reason, ")");
    }
    const std::string name = NameOf(entry);
    if (name.size() > kMaxName) {
      return absl::StrCat("it is damaged at byte ", at, ": a name of ",
                          name.size(), " bytes");
    }
    std::tie(last.key, last.extension) = SplitName(name);
    last.problem = ProblemOf(entry, name);
    last.size = archive_entry_size(entry);
    any = true;
  }
}

}  // namespace

std::string IndexPath(const std::string& shard) {
  return absl::StrCat(shard, ".idx");
}

absl::StatusOr<ShardIndex> ShardIndex::Scan(const std::string& path) {
  absl::StatusOr<int64_t> bytes = FileSize(path);
  if (!bytes.ok()) return bytes.status();
  const std::unique_ptr<archive, CloseArchive> tar(archive_read_new());
  // Neither compression nor other formats: a shard is read as it is.
  archive_read_support_format_tar(tar.get());
  archive_read_support_filter_none(tar.get());
  Lines lines;
  std::string damage;
  if (archive_read_open_filename(tar.get(), path.c_str(), kReadBytes) !=
      ARCHIVE_OK) {
    damage = absl::StrCat("it is no tar file, or cannot be read (",
                          archive_error_string(tar.get()), ")");
  } else {
    damage = ScanHeaders(tar.get(), *bytes, &lines);
  }
  std::string text = absl::StrCat(kMagic, "\t", *bytes, "\t", lines.samples(),
                                  "\t", absl::Utf8SafeCEscape(damage), "\n");
  if (lines.samples() > 0) absl::StrAppend(&text, lines.text(), "\n");
  return Parse(std::move(text));
}

absl::StatusOr<ShardIndex> ShardIndex::Parse(std::string text) {
  const auto bad = [](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("not an index of a shard, or damaged: ", what,
                     "; remove it, and it is made anew"));
  };
  ShardIndex index;
  index.text_ = std::move(text);
  const absl::string_view all = index.text_;
  if (all.size() > std::numeric_limits<uint32_t>::max())
    return bad("longer than 4 GiB");
  if (all.empty() || all.back() != '\n') return bad("it is cut off");
  const size_t first = all.find('\n');
  const std::vector<std::string> head =
      absl::StrSplit(all.substr(0, first), '\t');
  int64_t samples = 0;
  if (head.size() != 4 || head[0] != kMagic ||
      !absl::SimpleAtoi(head[1], &index.shard_bytes_) ||
      !absl::SimpleAtoi(head[2], &samples) ||
      !absl::CUnescape(head[3], &index.damage_)) {
    return bad(absl::StrCat("it does not begin with '", kMagic, "'"));
  }
  for (size_t at = first + 1; at < all.size(); at = all.find('\n', at) + 1)
    index.lines_.push_back(static_cast<uint32_t>(at));
  if (index.size() != samples) {
    return bad(absl::StrCat("it has ", index.size(), " samples of ", samples));
  }
  for (int64_t i = 0; i < index.size(); ++i) {
    const ShardSample sample = index.Get(i);
    for (const ShardMember& member : sample.members) {
      if (member.offset < static_cast<int64_t>(kBlock) || member.size < 0 ||
          member.offset > index.shard_bytes_ ||
          member.size > index.shard_bytes_ - member.offset) {
        return bad(absl::StrCat("a member of ", sample.key,
                                " lies outside of the shard"));
      }
    }
  }
  return index;
}

absl::string_view ShardIndex::Line(int64_t index) const {
  const size_t begin = lines_[index];
  const size_t end = index + 1 < size() ? lines_[index + 1] : text_.size();
  return absl::string_view(text_).substr(begin, end - begin - 1);
}

ShardSample ShardIndex::Get(int64_t index) const {
  ShardSample sample;
  bool first = true;
  for (const absl::string_view field : absl::StrSplit(Line(index), '\t')) {
    if (first) {
      first = false;
      if (!absl::CUnescape(field, &sample.key)) sample.key = std::string(field);
      continue;
    }
    if (absl::StartsWith(field, "!")) {
      sample.problem = std::string(field.substr(1));
      continue;
    }
    const std::vector<absl::string_view> parts = absl::StrSplit(field, ':');
    ShardMember member;
    if (parts.size() != 3 || !absl::SimpleAtoi(parts[1], &member.offset) ||
        !absl::SimpleAtoi(parts[2], &member.size)) {
      member.offset = -1;  // Parse() refuses it.
    }
    member.extension = std::string(parts[0]);
    sample.members.push_back(std::move(member));
  }
  return sample;
}

bool IsHeaderOf(absl::string_view header, int64_t size) {
  if (header.size() != kBlock) return false;
  const auto octal = [&](size_t at, size_t length) {
    int64_t value = 0;
    for (size_t i = at; i < at + length; ++i) {
      if (header[i] >= '0' && header[i] <= '7')
        value = value * 8 + (header[i] - '0');
    }
    return value;
  };
  int64_t sum = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(header[i]);
  }
  return octal(148, 8) == sum && octal(124, 12) == size;
}

}  // namespace semvq
