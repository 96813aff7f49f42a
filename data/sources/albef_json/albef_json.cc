#include "data/sources/albef_json/albef_json.h"

#include <simdjson.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

constexpr char kFormat[] =
    "a JSON list of records such as {\"image\": \"a.jpg\", \"caption\": \"a "
    "cat\"} or "
    "{\"image\": \"a.jpg\", \"question\": \"what is it?\", \"answer\": \"a "
    "cat\"}";
constexpr const char* kTextKeys[] = {"caption", "question", "sentence", "text"};
// Stands for bytes that were not UTF-8: a noncharacter, which no text may hold
// (Unicode 23.7).
constexpr absl::string_view kNotUtf8 = "\xEF\xB7\x90";

absl::string_view TypeName(dom::element element) {
  switch (element.type()) {
    case dom::element_type::ARRAY:
      return "a list";
    case dom::element_type::OBJECT:
      return "an object";
    case dom::element_type::STRING:
      return "a string";
    case dom::element_type::BOOL:
      return "true or false";
    case dom::element_type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

// Length of the well-formed UTF-8 sequence at the start of `s` (RFC 3629), 0
// when there is none.
size_t Utf8Length(absl::string_view s) {
  const auto byte = [s](size_t i) {
    return i < s.size() ? static_cast<unsigned char>(s[i]) : 0;
  };
  const auto tail = [&byte](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const int b0 = byte(0), b1 = byte(1);
  if (b0 < 0x80) return 1;
  if (b0 >= 0xC2 && b0 <= 0xDF && tail(1)) return 2;
  if (b0 >= 0xE0 && b0 <= 0xEF && tail(1) && tail(2)) {
    return (b0 == 0xE0 && b1 < 0xA0) || (b0 == 0xED && b1 > 0x9F) ? 0 : 3;
  }
  if (b0 >= 0xF0 && b0 <= 0xF4 && tail(1) && tail(2) && tail(3)) {
    return (b0 == 0xF0 && b1 < 0x90) || (b0 == 0xF4 && b1 > 0x8F) ? 0 : 4;
  }
  return 0;
}

// simdjson refuses a whole file for one bad byte. Marking the bytes lets the
// other records be used.
std::string MarkInvalidUtf8(absl::string_view s) {
  std::string marked;
  marked.reserve(s.size() + 64);
  for (size_t i = 0; i < s.size();) {
    const size_t length = Utf8Length(s.substr(i));
    if (length == 0) {
      marked.append(kNotUtf8.data(), kNotUtf8.size());
      ++i;
    } else {
      marked.append(s.data() + i, length);
      i += length;
    }
  }
  return marked;
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Part of the arena.
struct Slice {
  uint64_t begin = 0;
  uint32_t size = 0;
};

// The answers to one question while it is parsed.
struct Answers {
  std::vector<std::pair<absl::string_view, float>> weighted;
  int annotators = 1;
};

struct Answer {
  Slice text;
  float weight = 0;
};

struct Text {
  Slice id, text;
  uint32_t answer_begin = 0, answer_count = 0;
  int annotators = 1;
};

struct Entry {
  Slice image_id;
  Slice images;  // Paths, joined by '\0'.
  uint32_t file = 0, record = 0;
  uint32_t text_begin = 0, text_count = 0;
  int64_t error = -1;  // Index into errors_.
};

// Millions of records stay in memory, so strings lie in one arena and structs
// are flat.
class AlbefJsonSource : public DataSource {
 public:
  explicit AlbefJsonSource(const AlbefJsonConfig& config) : config_(config) {}

  absl::Status AddFile(const std::string& path);
  void Finish();

  int64_t size() const override {
    return static_cast<int64_t>(starts_.size()) - 1;
  }
  absl::StatusOr<Sample> Read(int64_t index) const override;

 private:
  absl::Status ParseRecord(dom::element record, Entry* entry);
  absl::Status ParseImages(dom::object record, Entry* entry);
  absl::Status ParseAnswers(dom::object record, Answers* answers) const;
  absl::Status AddText(dom::element value, absl::string_view key,
                       absl::string_view id, const Answers& answers);
  // The string, or for an integer its digits. `what` completes "expected ...";
  // numbers are refused without `numbers`.
  absl::StatusOr<absl::string_view> String(dom::element value,
                                           absl::string_view key,
                                           absl::string_view what,
                                           std::string* digits = nullptr) const;
  Slice Keep(absl::string_view s) {
    const Slice slice{arena_.size(), static_cast<uint32_t>(s.size())};
    arena_.append(s.data(), s.size());
    return slice;
  }
  absl::string_view View(Slice s) const {
    return absl::string_view(arena_).substr(s.begin, s.size);
  }
  std::string Where(const Entry& e) const {
    return absl::StrCat(config_.path(static_cast<int>(e.file)), ": record ",
                        e.record);
  }

  const AlbefJsonConfig config_;
  bool marked_ = false;  // The file being read holds kNotUtf8 marks.
  std::string arena_;
  std::vector<Entry> entries_;
  std::vector<Text> texts_;
  std::vector<Answer> answers_;
  std::vector<std::string> errors_;
  // Sample i is the entries order_[starts_[i] .. starts_[i+1]).
  std::vector<uint32_t> starts_{0}, order_;
};

absl::StatusOr<absl::string_view> AlbefJsonSource::String(
    dom::element value, absl::string_view key, absl::string_view what,
    std::string* digits) const {
  if (digits != nullptr && (value.is_int64() || value.is_uint64())) {
    *digits = value.is_int64() ? absl::StrCat(int64_t{value.get_int64()})
                               : absl::StrCat(uint64_t{value.get_uint64()});
    return absl::string_view(*digits);
  }
  if (!value.is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", key, "\": got ", TypeName(value), ", expected ", what));
  }
  const auto raw = std::string_view(value.get_string());
  const absl::string_view s(raw.data(), raw.size());
  if (s.size() > UINT32_MAX)
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": longer than 4 GiB"));
  if (marked_ && absl::StrContains(s, kNotUtf8)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key,
                     "\": got bytes that are not UTF-8, expected UTF-8 text; "
                     "convert the file"));
  }
  return s;
}

absl::Status AlbefJsonSource::ParseImages(dom::object record, Entry* entry) {
  dom::element value;
  absl::string_view key = "image";
  if (record.at_key("images").get(value) == simdjson::SUCCESS) {
    key = "images";
  } else if (record.at_key("image").get(value) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        "the key \"image\" is missing; expected the path of an image file");
  }
  std::vector<dom::element> paths;
  if (value.is_array()) {
    for (dom::element path : value.get_array()) paths.push_back(path);
    if (paths.empty())
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key, "\": got an empty list"));
  } else {
    paths.push_back(value);
  }
  std::vector<absl::string_view> names;
  for (dom::element path : paths) {
    absl::StatusOr<absl::string_view> name =
        String(path, key, "the path of an image file");
    if (!name.ok()) return name.status();
    if (name->empty() || absl::StrContains(*name, '\0')) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key, "\": got \"", absl::CHexEscape(*name),
                       "\", expected the path of an image file"));
    }
    names.push_back(*name);
  }
  entry->images = Keep(absl::StrJoin(names, absl::string_view("\0", 1)));
  entry->image_id = entry->images;
  if (record.at_key("image_id").get(value) == simdjson::SUCCESS) {
    std::string digits;
    absl::StatusOr<absl::string_view> id =
        String(value, "image_id", "a string or an integer", &digits);
    if (!id.ok()) return id.status();
    entry->image_id = Keep(*id);
  }
  return absl::OkStatus();
}

absl::Status AlbefJsonSource::ParseAnswers(dom::object record,
                                           Answers* answers) const {
  dom::element value;
  absl::string_view key;
  for (const char* candidate : {"answer", "answers", "label"}) {
    if (record.at_key(candidate).get(value) != simdjson::SUCCESS) continue;
    key = candidate;
    break;
  }
  if (key.empty()) return absl::OkStatus();  // Test records have none.
  if (value.is_bool()) {
    answers->weighted.emplace_back(bool{value.get_bool()} ? "true" : "false",
                                   1.0f);
    return absl::OkStatus();
  }
  std::vector<dom::element> values;
  if (value.is_array()) {
    for (dom::element v : value.get_array()) values.push_back(v);
    if (values.empty())
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key, "\": got an empty list"));
  } else {
    values.push_back(value);
  }
  std::vector<float> weights(values.size(),
                             1.0f / static_cast<float>(values.size()));
  answers->annotators = static_cast<int>(values.size());
  dom::element given;
  if (record.at_key("weights").get(given) == simdjson::SUCCESS) {
    dom::array list;
    if (given.get(list) != simdjson::SUCCESS || list.size() != values.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"weights\": got ",
          given.is_array() ? absl::StrCat(list.size(), " numbers")
                           : TypeName(given),
          ", expected ", values.size(), ", one for each of \"", key, "\""));
    }
    answers->annotators = 1;  // Not known.
    size_t i = 0;
    for (dom::element w : list) {
      double weight = 0;
      if (w.get(weight) != simdjson::SUCCESS || !std::isfinite(weight) ||
          weight < 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            "\"weights\": element ", i, ": got ", simdjson::minify(w),
            ", expected a number of at least 0"));
      }
      weights[i++] = static_cast<float>(weight);
    }
  }
  for (size_t i = 0; i < values.size(); ++i) {
    absl::StatusOr<absl::string_view> answer =
        String(values[i], key, "a string or a list of strings");
    if (!answer.ok()) return answer.status();
    auto& known = answers->weighted;
    size_t j = 0;
    while (j < known.size() && known[j].first != *answer) ++j;
    if (j == known.size()) known.emplace_back(*answer, 0.0f);
    known[j].second += weights[i];
  }
  return absl::OkStatus();
}

absl::Status AlbefJsonSource::AddText(dom::element value, absl::string_view key,
                                      absl::string_view id,
                                      const Answers& answers) {
  absl::StatusOr<absl::string_view> s =
      String(value, key, "a string or a list of strings");
  if (!s.ok()) return s.status();
  if (absl::StripAsciiWhitespace(*s).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got an empty text, expected words"));
  }
  Text text;
  text.id = Keep(id);
  text.text = Keep(*s);
  text.answer_begin = static_cast<uint32_t>(answers_.size());
  text.answer_count = static_cast<uint32_t>(answers.weighted.size());
  text.annotators = answers.annotators;
  for (const auto& [answer, weight] : answers.weighted)
    answers_.push_back({Keep(answer), weight});
  texts_.push_back(text);
  return absl::OkStatus();
}

absl::Status AlbefJsonSource::ParseRecord(dom::element element, Entry* entry) {
  dom::object record;
  if (element.get(record) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", TypeName(element), ", expected an object {...}"));
  }
  absl::Status status = ParseImages(record, entry);
  if (!status.ok()) return status;

  dom::element value, found;
  std::vector<absl::string_view> keys;
  for (const char* key : kTextKeys) {
    if (record.at_key(key).get(found) != simdjson::SUCCESS) continue;
    keys.push_back(key);
    value = found;
  }
  if (keys.empty()) {
    return absl::InvalidArgumentError(
        "the key \"caption\" (or \"question\", \"sentence\", \"text\") is "
        "missing");
  }
  if (keys.size() > 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got the keys \"", absl::StrJoin(keys, "\" and \""),
        "\", expected one of them, for it is not clear which is the text"));
  }
  std::string digits;
  absl::string_view id;
  for (const char* key : {"question_id", "ref_id", "caption_id"}) {
    if (record.at_key(key).get(found) != simdjson::SUCCESS) continue;
    absl::StatusOr<absl::string_view> got =
        String(found, key, "a string or an integer", &digits);
    if (!got.ok()) return got.status();
    id = *got;
    break;
  }
  Answers answers;
  if (keys[0] != "caption") {
    status = ParseAnswers(record, &answers);
    if (!status.ok()) return status;
  }
  entry->text_begin = static_cast<uint32_t>(texts_.size());
  if (value.is_array()) {
    for (dom::element v : value.get_array()) {
      status = AddText(v, keys[0], id, answers);
      if (!status.ok()) return status;
    }
    if (texts_.size() == entry->text_begin) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"", keys[0], "\": got an empty list, expected a text"));
    }
  } else {
    status = AddText(value, keys[0], id, answers);
    if (!status.ok()) return status;
  }
  entry->text_count = static_cast<uint32_t>(texts_.size()) - entry->text_begin;
  return absl::OkStatus();
}

absl::Status AlbefJsonSource::AddFile(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat(
        "the data file ", path, " does not exist. Wanted there: ", kFormat,
        ", with image paths relative to ",
        config_.has_image_root() ? config_.image_root() : FolderOf(path),
        ". To see SemVQ run without it: ./setup.sh fetches small real data, "
        "then use --config=quickstart.pbtxt"));
  }
  if (S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got a folder, expected a file: ", kFormat));
  }
  simdjson::padded_string content;
  if (simdjson::padded_string::load(path).get(content) != simdjson::SUCCESS) {
    return absl::PermissionDeniedError(absl::StrCat(
        path, ": the file is there but cannot be read; check its rights"));
  }
  dom::parser parser;
  dom::element root;
  simdjson::error_code error = parser.parse(content).get(root);
  marked_ = error == simdjson::UTF8_ERROR;
  if (marked_) {
    content = simdjson::padded_string(
        MarkInvalidUtf8(absl::string_view(content.data(), content.size())));
    error = parser.parse(content).get(root);
  }
  if (error != simdjson::SUCCESS) {
    const absl::string_view all(content.data(), content.size());
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": not valid JSON (", simdjson::error_message(error),
        ") or cut off: ", all.size(), " bytes, the end is '",
        absl::CHexEscape(
            all.substr(all.size() - std::min<size_t>(all.size(), 24))),
        "'. Expected ", kFormat));
  }
  dom::array list;
  if (root.get(list) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", TypeName(root), ", expected ", kFormat));
  }
  Entry entry;
  for (const std::string& known : config_.path()) {
    if (known == path) break;
    ++entry.file;
  }
  for (dom::element record : list) {
    Entry e = entry;
    const absl::Status status = ParseRecord(record, &e);
    if (!status.ok()) {
      e.error = static_cast<int64_t>(errors_.size());
      errors_.emplace_back(status.message());
    }
    entries_.push_back(e);
    ++entry.record;
  }
  if (entry.record == 0)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the list is empty; expected ", kFormat));
  return absl::OkStatus();
}

void AlbefJsonSource::Finish() {
  const uint32_t n = static_cast<uint32_t>(entries_.size());
  std::vector<uint32_t> sample_of(n);
  absl::flat_hash_map<std::pair<uint32_t, absl::string_view>, uint32_t> groups;
  uint32_t samples = 0;
  for (uint32_t i = 0; i < n; ++i) {
    sample_of[i] = samples;
    if (config_.group_by_image() && entries_[i].error < 0) {
      // The same relative path in two files is one image only under one root.
      const uint32_t root = config_.has_image_root() ? 0 : entries_[i].file;
      sample_of[i] =
          groups.try_emplace({root, View(entries_[i].images)}, samples)
              .first->second;
    }
    if (sample_of[i] == samples) ++samples;
  }
  starts_.assign(samples + 1, 0);
  for (uint32_t s : sample_of) ++starts_[s + 1];
  for (uint32_t s = 0; s < samples; ++s) starts_[s + 1] += starts_[s];
  std::vector<uint32_t> next(starts_.begin(), starts_.end() - 1);
  order_.resize(n);
  for (uint32_t i = 0; i < n; ++i) order_[next[sample_of[i]]++] = i;
}

absl::StatusOr<Sample> AlbefJsonSource::Read(int64_t index) const {
  if (index < 0 || index >= size()) {
    return absl::OutOfRangeError(
        absl::StrCat("sample ", index, " of ", size(), " does not exist"));
  }
  const Entry& first = entries_[order_[starts_[index]]];
  Sample sample;
  sample.where = Where(first);
  if (first.error >= 0)
    return absl::InvalidArgumentError(
        absl::StrCat(sample.where, ": ", errors_[first.error]));
  sample.image_id = std::string(View(first.image_id));
  if (first.image_id.begin == first.images.begin)
    std::replace(sample.image_id.begin(), sample.image_id.end(), '\0', ' ');
  const std::string root =
      config_.has_image_root()
          ? config_.image_root()
          : FolderOf(config_.path(static_cast<int>(first.file)));
  for (absl::string_view name : absl::StrSplit(View(first.images), '\0')) {
    sample.image_paths.push_back(
        name[0] == '/' ? std::string(name) : absl::StrCat(root, "/", name));
  }
  for (uint32_t at = starts_[index]; at < starts_[index + 1]; ++at) {
    const Entry& entry = entries_[order_[at]];
    for (uint32_t t = entry.text_begin; t < entry.text_begin + entry.text_count;
         ++t) {
      TextRecord record;
      record.id = std::string(View(texts_[t].id));
      record.text = std::string(View(texts_[t].text));
      record.annotators = texts_[t].annotators;
      for (uint32_t a = texts_[t].answer_begin;
           a < texts_[t].answer_begin + texts_[t].answer_count; ++a) {
        record.answers.emplace_back(std::string(View(answers_[a].text)),
                                    answers_[a].weight);
      }
      sample.texts.push_back(std::move(record));
    }
  }
  return sample;
}

}  // namespace

absl::Status ValidateAlbefJson(const AlbefJsonConfig& config) {
  std::vector<std::string> errors;
  if (config.path().empty())
    errors.push_back(absl::StrCat("path: none given; expected ", kFormat));
  for (int i = 0; i < config.path_size(); ++i) {
    if (config.path(i).empty())
      errors.push_back("path: got an empty name, expected a JSON file");
    for (int j = 0; j < i; ++j) {
      if (config.path(i) == config.path(j))
        errors.push_back(
            absl::StrCat("path: ", config.path(i), " is given twice"));
    }
  }
  if (config.has_image_root() && config.image_root().empty()) {
    errors.push_back(
        "image_root: got an empty name; leave it out to mean the folder of "
        "each JSON file");
  }
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

Contract AlbefJsonContract(const std::string&, const AlbefJsonConfig& config,
                           const ContractBook&) {
  Contract contract;
  for (const std::string& path : config.path()) {
    contract.files.push_back(
        {"path", path,
         absl::StrCat(kFormat, "; image paths are relative to ",
                      config.has_image_root() ? config.image_root()
                                              : "the folder of the list")});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeAlbefJson(
    const AlbefJsonConfig& config, const PluginContext&) {
  auto source = std::make_shared<AlbefJsonSource>(config);
  for (const std::string& path : config.path()) {
    const absl::Status status = source->AddFile(path);
    if (!status.ok()) return status;
  }
  source->Finish();
  return source;
}

}  // namespace semvq
