#include "data/sample_table.h"

#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace semvq {
namespace {

constexpr absl::string_view kSeparator("\0", 1);

std::string FolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

int SampleTable::AddFile(const std::string& path,
                         const std::string& image_root) {
  files_.push_back({path, image_root.empty() ? FolderOf(path) : image_root});
  return static_cast<int>(files_.size()) - 1;
}

SampleTable::Slice SampleTable::Keep(absl::string_view s) {
  const Slice slice{arena_.size(), static_cast<uint32_t>(s.size())};
  arena_.append(s.data(), s.size());
  return slice;
}

void SampleTable::Add(const Record& record) {
  Entry entry;
  entry.file = static_cast<uint32_t>(record.file);
  entry.number = record.number;
  entry.images = Keep(absl::StrJoin(record.images, kSeparator));
  entry.image_id =
      record.image_id.empty() ? entry.images : Keep(record.image_id);
  entry.text_begin = lines_.size();
  entry.text_count = static_cast<uint32_t>(record.texts.size());
  for (const Text& text : record.texts) {
    Line line;
    line.id = Keep(text.id);
    line.text = Keep(text.text);
    line.answer_begin = answers_.size();
    line.answer_count = static_cast<uint32_t>(text.answers.size());
    line.annotators = text.annotators;
    for (const auto& [answer, share] : text.answers) {
      answers_.push_back({Keep(answer), share});
    }
    lines_.push_back(line);
  }
  entries_.push_back(entry);
}

void SampleTable::AddBad(int file, int64_t number, const absl::Status& error) {
  Entry entry;
  entry.file = static_cast<uint32_t>(file);
  entry.number = number;
  entry.error = static_cast<int64_t>(errors_.size());
  errors_.emplace_back(error.message());
  entries_.push_back(entry);
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
  const uint32_t n = static_cast<uint32_t>(entries_.size());
  std::vector<uint32_t> sample_of(n);
  absl::flat_hash_map<std::pair<absl::string_view, absl::string_view>, uint32_t>
      groups;
  uint32_t samples = 0;
  for (uint32_t i = 0; i < n; ++i) {
    sample_of[i] = samples;
    if (group_ && entries_[i].error < 0) {
      // The same relative path in two files is one image only under one root.
      sample_of[i] = groups
                         .try_emplace({files_[entries_[i].file].root,
                                       View(entries_[i].images)},
                                      samples)
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
  return absl::OkStatus();
}

absl::StatusOr<Sample> SampleTable::Read(int64_t index) const {
  if (index < 0 || index >= size()) {
    return absl::OutOfRangeError(
        absl::StrCat("sample ", index, " of ", size(), " does not exist"));
  }
  const Entry& first = entries_[order_[starts_[index]]];
  Sample sample;
  sample.where = Where(static_cast<int>(first.file), first.number);
  if (first.error >= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(sample.where, ": ", errors_[first.error]));
  }
  sample.image_id = std::string(View(first.image_id));
  std::replace(sample.image_id.begin(), sample.image_id.end(), '\0', ' ');
  for (absl::string_view name :
       absl::StrSplit(View(first.images), absl::ByChar('\0'))) {
    sample.image_paths.push_back(
        !name.empty() && name[0] == '/'
            ? std::string(name)
            : absl::StrCat(files_[first.file].root, "/", name));
  }
  for (uint32_t at = starts_[index]; at < starts_[index + 1]; ++at) {
    const Entry& entry = entries_[order_[at]];
    for (uint64_t t = entry.text_begin; t < entry.text_begin + entry.text_count;
         ++t) {
      const Line& line = lines_[t];
      TextRecord record;
      record.id = std::string(View(line.id));
      record.text = std::string(View(line.text));
      record.annotators = line.annotators;
      for (uint64_t a = line.answer_begin;
           a < line.answer_begin + line.answer_count; ++a) {
        record.answers.emplace_back(std::string(View(answers_[a].text)),
                                    answers_[a].share);
      }
      sample.texts.push_back(std::move(record));
    }
  }
  return sample;
}

}  // namespace semvq
