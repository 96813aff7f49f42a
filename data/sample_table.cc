#include "data/sample_table.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "data/image_bytes.h"

namespace semvq {
namespace {

constexpr absl::string_view kSeparator("\0", 1);
constexpr size_t kBlockBytes = size_t{1} << 20;

std::string FolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Seven bits a byte, the lowest first; the last byte has no high bit.
void PutNumber(uint64_t value, std::string* out) {
  for (; value >= 128; value >>= 7)
    out->push_back(static_cast<char>(value | 128));
  out->push_back(static_cast<char>(value));
}

void PutString(absl::string_view s, std::string* out) {
  PutNumber(s.size(), out);
  out->append(s.data(), s.size());
}

// Reads what was put, in the same order.
class Unpacker {
 public:
  explicit Unpacker(const char* at) : at_(at) {}
  uint64_t Number() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(*at_++);
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
  }
  absl::string_view String() {
    const size_t size = Number();
    at_ += size;
    return {at_ - size, size};
  }
  float Float() {
    float value;
    std::memcpy(&value, at_, sizeof(value));
    at_ += sizeof(value);
    return value;
  }

 private:
  const char* at_;
};

}  // namespace

// What a record has before its texts.
struct SampleTable::Decoded {
  int file;
  int64_t number;
  absl::string_view error;     // Of a bad one; then that is all.
  absl::string_view image_id;  // Empty: the images.
  absl::string_view images;    // Joined by '\0'.
  uint64_t texts;
  Unpacker rest;
};

int SampleTable::AddFile(const std::string& path,
                         const std::string& image_root) {
  files_.push_back({path, image_root.empty() ? FolderOf(path) : image_root});
  return static_cast<int>(files_.size()) - 1;
}

void SampleTable::Keep(const std::string& packed,
                       const std::string& batch_group) {
  if (batch_group_size_ > 1) {
    const uint32_t next =
        static_cast<uint32_t>(batch_group_numbers_.size()) + lonely_;
    lonely_ += batch_group.empty();
    batch_groups_->push_back(
        batch_group.empty()
            ? next
            : batch_group_numbers_.try_emplace(batch_group, next)
                  .first->second);
  }
  if (packed.size() > left_) {
    const size_t size = std::max(kBlockBytes, packed.size());
    blocks_.push_back(std::unique_ptr<char[]>(new char[size]));
    next_ = blocks_.back().get();
    left_ = size;
  }
  std::memcpy(next_, packed.data(), packed.size());
  entries_.push_back(next_);
  next_ += packed.size();
  left_ -= packed.size();
}

void SampleTable::Add(const Record& record) {
  std::string& out = scratch_;
  out.clear();
  PutNumber(static_cast<uint64_t>(record.file), &out);
  PutNumber(static_cast<uint64_t>(record.number), &out);
  PutString("", &out);
  PutString(record.image_id, &out);
  PutString(record.images.size() == 1
                ? record.images[0]
                : absl::StrJoin(record.images, kSeparator),
            &out);
  PutNumber(record.texts.size(), &out);
  for (const Text& text : record.texts) {
    PutString(text.id, &out);
    PutString(text.text, &out);
    PutNumber(static_cast<uint64_t>(text.annotators), &out);
    PutNumber(text.answers.size(), &out);
    for (const auto& [answer, share] : text.answers) {
      PutString(answer, &out);
      out.append(reinterpret_cast<const char*>(&share), sizeof(share));
    }
  }
  Keep(out, record.batch_group);
}

void SampleTable::AddBad(int file, int64_t number, const absl::Status& error) {
  scratch_.clear();
  PutNumber(static_cast<uint64_t>(file), &scratch_);
  PutNumber(static_cast<uint64_t>(number), &scratch_);
  PutString(error.message().empty() ? "unusable" : error.message(), &scratch_);
  Keep(scratch_, "");
  ++bad_;
}

SampleTable::Decoded SampleTable::Decode(const char* entry) const {
  Unpacker in(entry);
  Decoded decoded{0, 0, "", "", "", 0, in};
  decoded.file = static_cast<int>(in.Number());
  decoded.number = static_cast<int64_t>(in.Number());
  decoded.error = in.String();
  if (!decoded.error.empty()) return decoded;
  decoded.image_id = in.String();
  decoded.images = in.String();
  decoded.texts = in.Number();
  decoded.rest = in;
  return decoded;
}

std::string SampleTable::Where(int file, int64_t number) const {
  return absl::StrCat(files_[file].path, ": ", unit_, " ", number);
}

absl::Status SampleTable::Finish() {
  if (entries_.size() >= std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat(files_[0].path, ": got ", entries_.size(),
                     " records, expected fewer "
                     "than 2^32; split the data"));
  }
  std::string().swap(scratch_);
  if (!group_) return absl::OkStatus();
  const uint32_t n = static_cast<uint32_t>(entries_.size());
  std::vector<uint32_t> sample_of(n);
  absl::flat_hash_map<std::pair<absl::string_view, absl::string_view>, uint32_t>
      groups;
  uint32_t samples = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const Decoded record = Decode(entries_[i]);
    sample_of[i] = samples;
    if (record.error.empty()) {
      // The same relative path in two files is one image only under one root.
      sample_of[i] =
          groups.try_emplace({files_[record.file].root, record.images}, samples)
              .first->second;
    }
    if (sample_of[i] == samples) ++samples;
  }
  starts_.assign(size_t{samples} + 1, 0);
  for (uint32_t s : sample_of) ++starts_[s + 1];
  for (uint32_t s = 0; s < samples; ++s) starts_[s + 1] += starts_[s];
  std::vector<uint32_t> next(starts_.begin(), starts_.end() - 1);
  order_.resize(n);
  for (uint32_t i = 0; i < n; ++i) order_[next[sample_of[i]]++] = i;
  if (batch_group_size_ > 1) {
    // That of its first record, which stands no later than its number.
    for (uint32_t s = 0; s < samples; ++s)
      (*batch_groups_)[s] = (*batch_groups_)[order_[starts_[s]]];
    batch_groups_->resize(samples);
  }
  return absl::OkStatus();
}

std::vector<SourcePart> SampleTable::Parts() const {
  SourcePart all;
  all.size = size();
  if (batch_group_size_ > 1) {
    all.groups = batch_groups_;
    all.group_size = batch_group_size_;
  }
  return {all};
}

absl::StatusOr<Sample> SampleTable::Read(int64_t index) const {
  if (index < 0 || index >= size()) {
    return absl::OutOfRangeError(
        absl::StrCat("sample ", index, " of ", size(), " does not exist"));
  }
  const int64_t begin = group_ ? starts_[index] : index,
                end = group_ ? starts_[index + 1] : index + 1;
  Sample sample;
  for (int64_t at = begin; at < end; ++at) {
    Decoded record = Decode(entries_[group_ ? order_[at] : at]);
    if (at == begin) {
      sample.where = Where(record.file, record.number);
      if (!record.error.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(sample.where, ": ", record.error));
      }
      sample.image_id = std::string(record.image_id.empty() ? record.images
                                                            : record.image_id);
      std::replace(sample.image_id.begin(), sample.image_id.end(), '\0', ' ');
      for (absl::string_view name :
           absl::StrSplit(record.images, absl::ByChar('\0'))) {
        absl::StatusOr<std::string> path =
            ImagePath(files_[record.file].root, name);
        if (!path.ok()) {
          return absl::InvalidArgumentError(
              absl::StrCat(sample.where, ": ", path.status().message()));
        }
        sample.image_paths.push_back(*std::move(path));
      }
    }
    for (uint64_t t = 0; t < record.texts; ++t) {
      TextRecord text;
      text.id = std::string(record.rest.String());
      text.text = std::string(record.rest.String());
      text.annotators = static_cast<int>(record.rest.Number());
      for (uint64_t a = record.rest.Number(); a > 0; --a) {
        std::string answer(record.rest.String());
        text.answers.emplace_back(std::move(answer), record.rest.Float());
      }
      sample.texts.push_back(std::move(text));
    }
  }
  return sample;
}

}  // namespace semvq
