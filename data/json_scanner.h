// The bytes of a JSON file, and where its values begin and end. Only for
// json_records.cc and json_guess.cc.
#ifndef SEMVQ_DATA_JSON_SCANNER_H_
#define SEMVQ_DATA_JSON_SCANNER_H_

#include <simdjson.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "data/json_records.h"

namespace semvq {

// What Peek() and Get() give at the end of the file.
inline constexpr int kEnd = -1;

// Bytes of a file, one by one, through a buffer.
class ByteReader {
 public:
  ByteReader() = default;
  ~ByteReader();
  ByteReader(const ByteReader&) = delete;
  ByteReader& operator=(const ByteReader&) = delete;

  // NotFound, InvalidArgument (a folder) or PermissionDenied, naming the path.
  absl::Status Open(const std::string& path);

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
  // Appends what is buffered, up to and with the first quote or backslash, and
  // returns the last byte. Not at the end of the file.
  int TakeUntilQuote(std::string* text) {
    const char* const begin = buffer_.data() + at_;
    const char* const end = buffer_.data() + size_;
    const char* p = begin;
    while (p < end && *p != '"' && *p != '\\') ++p;
    if (p < end) ++p;
    at_ += static_cast<size_t>(p - begin);
    if (text != nullptr) text->append(begin, p);
    return static_cast<unsigned char>(p[-1]);
  }
  int64_t offset() const { return before_ + static_cast<int64_t>(at_); }
  // errno of a read that failed, or 0.
  int error() const { return error_; }

 private:
  bool Fill();

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
  // when the file ends within it, no value begins here, or `text` reaches
  // kMaxRecordBytes.
  bool Value(std::string* text) {
    const int first = bytes_.PeekAfterSpace();
    if (first == '"') return String(text);
    if (first != '{' && first != '[') return Scalar(text);
    int depth = 0;
    for (;;) {
      const int byte = bytes_.Peek();
      if (byte == kEnd || IsFull(text)) return false;
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
  static bool IsFull(const std::string* text) {
    return text != nullptr && text->size() >= kMaxRecordBytes;
  }
  // Whole runs at a time: most of a file is in its strings.
  bool String(std::string* text) {
    Take(text);
    for (;;) {
      if (bytes_.Peek() == kEnd || IsFull(text)) return false;
      const int byte = bytes_.TakeUntilQuote(text);
      if (byte == '"') return !IsFull(text);
      if (byte == '\\') {
        if (bytes_.Peek() == kEnd) return false;
        Take(text);
      }
    }
  }
  bool Scalar(std::string* text) {
    bool any = false;
    for (int byte; (byte = bytes_.Peek()) != kEnd; any = true) {
      if (IsFull(text)) return false;
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
class RecordParser {
 public:
  std::string text;
  simdjson::error_code Parse(simdjson::dom::element* value) {
    text.reserve(text.size() + simdjson::SIMDJSON_PADDING);
    return parser_.parse(text.data(), text.size(), false).get(*value);
  }

 private:
  simdjson::dom::parser parser_;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_JSON_SCANNER_H_
