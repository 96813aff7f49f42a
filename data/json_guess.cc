// Which format a file looks like, for the messages about files of another one.
#include <algorithm>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "data/json_records.h"
#include "data/json_scanner.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

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
  RecordParser parser;
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
  ByteReader again;
  if (!again.Open(path).ok()) return "";
  if (absl::StartsWith(start, "[")) {
    RecordParser parser;
    dom::element first;
    again.PeekAfterSpace();
    again.Get();
    const bool parsed = Scanner(&again).Value(&parser.text) &&
                        parser.Parse(&first) == simdjson::SUCCESS;
    return parsed ? GuessListRecord(KeysOf(first)) : "";
  }
  if (again.PeekAfterSpace() != '{') return "";
  Scanner scanner(&again);
  int next = ',';
  while (next == ',') {
    again.Get();
    RecordParser parser;
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

}  // namespace semvq
