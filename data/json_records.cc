#include "data/json_records.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

constexpr int kEnd = -1;

// Bytes of a file, one by one, through a buffer.
class ByteReader {
 public:
  ~ByteReader() {
    if (fd_ >= 0) close(fd_);
  }

  absl::Status Open(const std::string& path) {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) {
      return absl::NotFoundError(absl::StrCat("the data file ", path,
                                              " does not exist (",
                                              std::strerror(errno), ")"));
    }
    if (S_ISDIR(info.st_mode)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": got a folder, expected a file"));
    }
    fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd_ < 0) {
      return absl::PermissionDeniedError(
          absl::StrCat(path, ": the file is there but cannot be read (",
                       std::strerror(errno), "); check its rights"));
    }
    buffer_.resize(size_t{1} << 18);
    return absl::OkStatus();
  }

  int Peek() {
    return at_ < size_ || Fill() ? static_cast<unsigned char>(buffer_[at_])
                                 : kEnd;
  }
  int Get() {
    const int byte = Peek();
    if (byte != kEnd) ++at_;
    return byte;
  }
  int PeekAfterSpace() {
    int byte;
    while ((byte = Peek()) == ' ' || byte == '\n' || byte == '\t' ||
           byte == '\r') {
      ++at_;
    }
    return byte;
  }
  int64_t offset() const { return before_ + static_cast<int64_t>(at_); }
  // errno of a read that failed, or 0.
  int error() const { return error_; }

 private:
  bool Fill() {
    if (error_ != 0) return false;
    ssize_t n;
    do {
      n = read(fd_, buffer_.data(), buffer_.size());
    } while (n < 0 && errno == EINTR);
    if (n < 0) error_ = errno;
    if (n <= 0) return false;
    before_ += static_cast<int64_t>(size_);
    at_ = 0;
    size_ = static_cast<size_t>(n);
    return true;
  }

  int fd_ = -1, error_ = 0;
  std::string buffer_;
  size_t at_ = 0, size_ = 0;
  int64_t before_ = 0;
};

// Finds where values begin and end; what is in them is for simdjson.
class Scanner {
 public:
  explicit Scanner(ByteReader* bytes) : bytes_(*bytes) {}

  // Reads one value and appends its text to `text` unless that is null. False
  // when the file ends within it, or no value begins here.
  bool Value(std::string* text) {
    const int first = bytes_.PeekAfterSpace();
    if (first == '"') return String(text);
    if (first != '{' && first != '[') return Scalar(text);
    int depth = 0;
    for (;;) {
      const int byte = bytes_.Peek();
      if (byte == kEnd) return false;
      if (byte == '"') {
        if (!String(text)) return false;
        continue;
      }
      Take(text);
      if (byte == '{' || byte == '[') ++depth;
      if ((byte == '}' || byte == ']') && --depth == 0) return true;
    }
  }

 private:
  void Take(std::string* text) {
    const int byte = bytes_.Get();
    if (text != nullptr) text->push_back(static_cast<char>(byte));
  }
  bool String(std::string* text) {
    Take(text);
    for (;;) {
      const int byte = bytes_.Peek();
      if (byte == kEnd) return false;
      Take(text);
      if (byte == '"') return true;
      if (byte == '\\') {
        if (bytes_.Peek() == kEnd) return false;
        Take(text);
      }
    }
  }
  bool Scalar(std::string* text) {
    bool any = false;
    for (int byte; (byte = bytes_.Peek()) != kEnd; any = true) {
      if (byte == ',' || byte == ']' || byte == '}' || byte == ':' ||
          byte <= ' ') {
        break;
      }
      Take(text);
    }
    return any;
  }

  ByteReader& bytes_;
};

// A parser and the text of the record it is at.
class Parser {
 public:
  std::string text;
  simdjson::error_code Parse(dom::element* value) {
    text.reserve(text.size() + simdjson::SIMDJSON_PADDING);
    return parser_.parse(text.data(), text.size(), false).get(*value);
  }

 private:
  dom::parser parser_;
};

absl::Status CutOff(const std::string& path, const ByteReader& bytes,
                    absl::string_view wanted) {
  if (bytes.error() != 0) {
    return absl::DataLossError(absl::StrCat(path, ": reading stopped at byte ",
                                            bytes.offset(), ": ",
                                            std::strerror(bytes.error())));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": not valid JSON or cut off at byte ", bytes.offset(),
                   "; expected ", wanted, "; is the download complete?"));
}

std::string Looks(const std::string& path) {
  const std::string guess = GuessFormat(path);
  return guess.empty() ? "" : absl::StrCat("; it looks like ", guess);
}

absl::Status NotThisFormat(const std::string& path, absl::string_view got,
                           const JsonFileFormat& format) {
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": got ", got, ", expected ", format.wanted, Looks(path)));
}

const absl::Status& NotUtf8() {
  static const absl::Status* status =
      new absl::Status(absl::StatusCode::kInvalidArgument,
                       "got bytes that are not UTF-8, expected UTF-8 text; "
                       "convert the file");
  return *status;
}

// The elements of a list whose '[' comes next.
absl::Status ReadList(const std::string& path, const JsonFileFormat& format,
                      int list, ByteReader* bytes, Parser* parser,
                      const VisitRecord& visit) {
  Scanner scanner(bytes);
  bytes->Get();
  JsonRecord record;
  record.list = list;
  if (bytes->PeekAfterSpace() == ']') {
    bytes->Get();
    return absl::OkStatus();
  }
  for (;; ++record.number) {
    parser->text.clear();
    if (!scanner.Value(&parser->text))
      return CutOff(path, *bytes, format.wanted);
    const simdjson::error_code error = parser->Parse(&record.value);
    record.error = absl::OkStatus();
    if (error == simdjson::UTF8_ERROR) {
      record.error = NotUtf8();
    } else if (error != simdjson::SUCCESS) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": not valid JSON (", simdjson::error_message(error),
          ") in record ", record.number, ", which ends at byte ",
          bytes->offset(), "; expected ", format.wanted));
    }
    const absl::Status status = visit(record);
    if (!status.ok()) return status;
    const int next = bytes->PeekAfterSpace();
    if (next != ',' && next != ']') return CutOff(path, *bytes, format.wanted);
    bytes->Get();
    if (next == ']') return absl::OkStatus();
  }
}

absl::Status ReadLists(const std::string& path, const JsonFileFormat& format,
                       ByteReader* bytes, const VisitRecord& visit) {
  const int first = bytes->PeekAfterSpace();
  if (first == kEnd && bytes->error() == 0) {
    return NotThisFormat(path, "an empty file", format);
  }
  if (first != '{') {
    return NotThisFormat(path, first == '[' ? "a list" : "no JSON object",
                         format);
  }
  Scanner scanner(bytes);
  Parser parser;
  std::vector<bool> seen(format.lists.size(), false);
  bytes->Get();
  int next = bytes->PeekAfterSpace();
  if (next == '}') bytes->Get();
  while (next != '}') {
    parser.text.clear();
    dom::element key;
    std::string_view name;
    if (bytes->PeekAfterSpace() != '"' || !scanner.Value(&parser.text) ||
        parser.Parse(&key) != simdjson::SUCCESS ||
        key.get(name) != simdjson::SUCCESS || bytes->PeekAfterSpace() != ':') {
      return CutOff(path, *bytes, format.wanted);
    }
    bytes->Get();
    const auto list =
        std::find(format.lists.begin(), format.lists.end(), name) -
        format.lists.begin();
    const int value = bytes->PeekAfterSpace();
    if (list == static_cast<ptrdiff_t>(format.lists.size())) {
      if (!scanner.Value(nullptr)) return CutOff(path, *bytes, format.wanted);
    } else if (value != '[') {
      return NotThisFormat(
          path, absl::StrCat("no list at \"", format.lists[list], "\""),
          format);
    } else {
      seen[list] = true;
      const absl::Status status =
          ReadList(path, format, static_cast<int>(list), bytes, &parser, visit);
      if (!status.ok()) return status;
    }
    next = bytes->PeekAfterSpace();
    if (next != ',' && next != '}') return CutOff(path, *bytes, format.wanted);
    bytes->Get();
  }
  if (bytes->PeekAfterSpace() != kEnd || bytes->error() != 0) {
    return bytes->error() == 0
               ? NotThisFormat(path, "more than one JSON value", format)
               : CutOff(path, *bytes, format.wanted);
  }
  for (size_t i = 0; i < seen.size(); ++i) {
    if (!seen[i]) {
      return NotThisFormat(
          path, absl::StrCat("no list \"", format.lists[i], "\""), format);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadLines(const std::string& path, const JsonFileFormat& format,
                       ByteReader* bytes, const VisitRecord& visit) {
  Parser parser;
  int64_t records = 0;
  JsonRecord record;
  for (bool more = true; more;) {
    parser.text.clear();
    int byte;
    while ((byte = bytes->Get()) != kEnd && byte != '\n') {
      parser.text.push_back(static_cast<char>(byte));
    }
    more = byte != kEnd;
    ++record.number;
    if (absl::StripAsciiWhitespace(parser.text).empty()) continue;
    const simdjson::error_code error = parser.Parse(&record.value);
    record.error = absl::OkStatus();
    if (error == simdjson::UTF8_ERROR) {
      record.error = NotUtf8();
    } else if (error != simdjson::SUCCESS) {
      // A last line without its end is a file that was cut off, and a first
      // one that is no JSON is another format; neither is one bad record.
      if (!more) return CutOff(path, *bytes, format.wanted);
      if (records == 0) {
        return NotThisFormat(path, "a first line that is no JSON", format);
      }
      record.error = absl::InvalidArgumentError(absl::StrCat(
          "not valid JSON (", simdjson::error_message(error), ")"));
    } else if (records == 0 && !record.value.is_object()) {
      return NotThisFormat(
          path, absl::StrCat(JsonTypeName(record.value), " in the first line"),
          format);
    }
    ++records;
    const absl::Status status = visit(record);
    if (!status.ok()) return status;
  }
  if (bytes->error() != 0) return CutOff(path, *bytes, format.wanted);
  if (records == 0) return NotThisFormat(path, "an empty file", format);
  return absl::OkStatus();
}

// What one record looks like.
using Keys = std::set<std::string>;

Keys KeysOf(dom::element value) {
  Keys keys;
  dom::object object;
  if (value.get(object) != simdjson::SUCCESS) return keys;
  for (const auto field : object) keys.emplace(field.key);
  return keys;
}

bool Has(const Keys& keys, std::initializer_list<const char*> wanted) {
  return std::all_of(wanted.begin(), wanted.end(),
                     [&](const char* key) { return keys.count(key) != 0; });
}

std::string GuessLine(const Keys& keys) {
  if (Has(keys, {"identifier", "sentence"})) {
    return "NLVR2 .jsonl (semvq.Nlvr2JsonlConfig)";
  }
  if (Has(keys, {"sentence2"}) || Has(keys, {"gold_label"})) {
    const bool images =
        Has(keys, {"Flickr30K_ID"}) || Has(keys, {"Flikr30kID"});
    return images ? "SNLI-VE .jsonl (semvq.SnliVeJsonlConfig)"
                  : "SNLI .jsonl, which has no images";
  }
  return "";
}

std::string GuessListRecord(const Keys& keys) {
  if (Has(keys, {"question_id", "answer"}) && keys.size() == 2) {
    return "a VQA result file, which has no questions";
  }
  if (Has(keys, {"image_id", "caption"}) && keys.size() == 2) {
    return "a COCO caption result file, which has no images";
  }
  if (Has(keys, {"image"}) || Has(keys, {"images"})) {
    for (const char* text : {"caption", "question", "sentence", "text"}) {
      if (keys.count(text) != 0) {
        return "an ALBEF JSON list (semvq.AlbefJsonConfig)";
      }
    }
  }
  if (Has(keys, {"ref_id", "box"})) return "a list of grounding boxes";
  const std::string line = GuessLine(keys);
  return line.empty() ? "" : absl::StrCat(line, ", but as one JSON list");
}

// By the lists of the top object and the keys of their first records.
std::string GuessObject(const std::map<std::string, Keys>& lists) {
  const auto first = [&](const char* list) {
    const auto it = lists.find(list);
    return it == lists.end() ? Keys() : it->second;
  };
  const Keys images = first("images"), annotations = first("annotations");
  if (lists.count("questions") != 0) {
    return "VQA v2 questions (semvq.VqaV2Config, field questions)";
  }
  if (Has(images, {"sentences"}) || Has(images, {"sentids"})) {
    return "Karpathy's dataset_*.json (semvq.KarpathyJsonConfig)";
  }
  if (Has(annotations, {"answers"}) || Has(annotations, {"question_id"})) {
    return "VQA v2 annotations (semvq.VqaV2Config, field annotations)";
  }
  if (Has(annotations, {"caption"})) {
    return "COCO captions (semvq.CocoCaptionsConfig)";
  }
  if (Has(annotations, {"bbox"})) {
    return "COCO instances, which have no captions";
  }
  if (lists.count("images") != 0 && lists.count("annotations") == 0) {
    return "a COCO image list without captions (a test split?)";
  }
  return "";
}

std::string GuessBytes(absl::string_view head) {
  if (absl::StartsWith(head, "PK\x03\x04")) return "a zip archive; unpack it";
  if (absl::StartsWith(head, "\x1f\x8b")) return "a gzip file; unpack it";
  if (absl::StartsWith(head, "\x89PNG") || absl::StartsWith(head, "\xff\xd8")) {
    return "a picture";
  }
  if (absl::StartsWith(absl::StripLeadingAsciiWhitespace(head), "<")) {
    return "a web page; did the download fail?";
  }
  if (absl::StartsWith(head, "version https://git-lfs")) {
    return "a Git LFS pointer; fetch the file itself";
  }
  return "";
}

// By the first line, when it is a whole record: then the file is .jsonl.
std::string GuessFirstLine(const std::string& path) {
  constexpr size_t kMaxLine = size_t{1} << 20;
  ByteReader bytes;
  if (!bytes.Open(path).ok()) return "";
  Parser parser;
  int byte;
  while ((byte = bytes.Get()) != kEnd && byte != '\n') {
    parser.text.push_back(static_cast<char>(byte));
    if (parser.text.size() > kMaxLine) return "";
  }
  dom::element value;
  if (parser.Parse(&value) != simdjson::SUCCESS) return "";
  const Keys keys = KeysOf(value);
  const std::string line = GuessLine(keys);
  if (!line.empty()) return line;
  const bool more = bytes.PeekAfterSpace() == '{';
  const std::string record = more ? GuessListRecord(keys) : "";
  return record.empty() ? "" : absl::StrCat(record, ", but one record a line");
}

}  // namespace

absl::string_view JsonTypeName(dom::element element) {
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

absl::Status ReadJsonRecords(const std::string& path,
                             const JsonFileFormat& format,
                             const VisitRecord& visit) {
  ByteReader bytes;
  const absl::Status opened = bytes.Open(path);
  if (!opened.ok()) {
    return absl::Status(opened.code(),
                        absl::StrCat(opened.message(), ". Wanted there: ",
                                     format.wanted, " (", format.field, ")"));
  }
  return format.kind == JsonFileFormat::kLines
             ? ReadLines(path, format, &bytes, visit)
             : ReadLists(path, format, &bytes, visit);
}

absl::StatusOr<std::string> ReadTopLevelString(const std::string& path,
                                               absl::string_view key) {
  ByteReader bytes;
  const absl::Status opened = bytes.Open(path);
  if (!opened.ok()) return opened;
  Scanner scanner(&bytes);
  Parser parser;
  dom::element value;
  std::string_view text;
  if (bytes.PeekAfterSpace() != '{') return std::string();
  int next = ',';
  while (next == ',') {
    bytes.Get();  // '{' or ','
    parser.text.clear();
    if (bytes.PeekAfterSpace() != '"' || !scanner.Value(&parser.text) ||
        parser.Parse(&value) != simdjson::SUCCESS ||
        value.get(text) != simdjson::SUCCESS || bytes.PeekAfterSpace() != ':') {
      break;
    }
    bytes.Get();
    if (text == std::string_view(key.data(), key.size())) {
      parser.text.clear();
      if (!scanner.Value(&parser.text) ||
          parser.Parse(&value) != simdjson::SUCCESS ||
          value.get(text) != simdjson::SUCCESS) {
        break;
      }
      return std::string(text);
    }
    if (!scanner.Value(nullptr)) break;
    next = bytes.PeekAfterSpace();
  }
  return std::string();
}

std::string GuessFormat(const std::string& path) {
  ByteReader bytes;
  if (!bytes.Open(path).ok()) return "";
  std::string head;
  for (int byte; head.size() < 64 && (byte = bytes.Get()) != kEnd;) {
    head.push_back(static_cast<char>(byte));
  }
  const std::string known = GuessBytes(head);
  if (!known.empty()) return known;
  const absl::string_view start = absl::StripLeadingAsciiWhitespace(head);
  if (absl::StartsWith(start, "{")) {
    const std::string line = GuessFirstLine(path);
    if (!line.empty()) return line;
  }
  // The first records of the lists that some format has, as far as the file
  // goes: one that is cut off still shows what it was.
  std::map<std::string, Keys> lists;
  JsonFileFormat any;
  ByteReader again;
  if (!again.Open(path).ok()) return "";
  if (absl::StartsWith(start, "[")) {
    Keys keys;
    Parser parser;
    again.PeekAfterSpace();
    const absl::Status stop =
        ReadList(path, any, 0, &again, &parser, [&](const JsonRecord& record) {
          if (record.error.ok()) keys = KeysOf(record.value);
          return absl::CancelledError();
        });
    return stop.ok() ? "" : GuessListRecord(keys);
  }
  if (again.PeekAfterSpace() != '{') return "";
  Scanner scanner(&again);
  int next = ',';
  while (next == ',') {
    again.Get();
    Parser parser;
    dom::element key;
    std::string_view name;
    if (again.PeekAfterSpace() != '"' || !scanner.Value(&parser.text) ||
        parser.Parse(&key) != simdjson::SUCCESS ||
        key.get(name) != simdjson::SUCCESS || again.PeekAfterSpace() != ':') {
      break;
    }
    again.Get();
    if (again.PeekAfterSpace() == '[') {
      Keys& keys = lists[std::string(name)];
      again.Get();
      bool whole = true;
      while (again.PeekAfterSpace() != ']' && whole) {
        parser.text.clear();
        whole = scanner.Value(keys.empty() ? &parser.text : nullptr);
        dom::element value;
        if (whole && keys.empty() &&
            parser.Parse(&value) == simdjson::SUCCESS) {
          keys = KeysOf(value);
        }
        if (whole && again.PeekAfterSpace() == ',') again.Get();
      }
      if (!whole) break;
      again.Get();
    } else if (!scanner.Value(nullptr)) {
      break;
    }
    next = again.PeekAfterSpace();
  }
  return GuessObject(lists);
}

absl::Status NoUsableRecord(const std::string& path,
                            const JsonFileFormat& format, int64_t records,
                            const absl::Status& first) {
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": none of its ", records, " records can be used; the first: ",
      first.message(), "; expected ", format.wanted, Looks(path)));
}

absl::StatusOr<std::string> JsonText(dom::object record,
                                     absl::string_view key) {
  dom::element value;
  if (record.at_key(std::string_view(key.data(), key.size())).get(value) !=
      simdjson::SUCCESS) {
    return absl::NotFoundError(
        absl::StrCat("the key \"", key, "\" is missing"));
  }
  if (value.is_int64()) return absl::StrCat(int64_t{value.get_int64()});
  if (value.is_uint64()) return absl::StrCat(uint64_t{value.get_uint64()});
  std::string_view text;
  if (value.get(text) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got ", JsonTypeName(value),
                     ", expected a string or an integer"));
  }
  return std::string(text);
}

absl::StatusOr<std::string> JsonWords(dom::object record,
                                      absl::string_view key) {
  absl::StatusOr<std::string> text = JsonText(record, key);
  if (text.ok() && absl::StripAsciiWhitespace(*text).empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", key, "\": got an empty text, expected words"));
  }
  return text;
}

absl::StatusOr<dom::object> JsonObject(const JsonRecord& record) {
  if (!record.error.ok()) return record.error;
  dom::object object;
  if (record.value.get(object) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(
        "got ", JsonTypeName(record.value), ", expected an object {...}"));
  }
  return object;
}

void CheckNames(absl::string_view field, const std::vector<std::string>& names,
                std::vector<std::string>* errors) {
  for (auto it = names.begin(); it != names.end(); ++it) {
    if (it->empty()) {
      errors->push_back(absl::StrCat(field, ": got an empty name"));
    } else if (std::find(names.begin(), it, *it) != it) {
      errors->push_back(absl::StrCat(field, ": ", *it, " is given twice"));
    }
  }
}

void CheckImageRoot(bool set, absl::string_view root,
                    std::vector<std::string>* errors) {
  if (set && root.empty()) {
    errors->push_back(
        "image_root: got an empty name; leave it out to mean the folder of "
        "each file");
  }
}

bool JsonHas(dom::object record, absl::string_view key) {
  dom::element value;
  return record.at_key(std::string_view(key.data(), key.size())).get(value) ==
             simdjson::SUCCESS &&
         !value.is_null();
}

}  // namespace semvq
