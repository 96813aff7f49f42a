#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/text/caption.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/hash.h"

namespace semvq {
namespace {

constexpr absl::string_view kContinuation = "##";

enum class CharClass { kLetter, kSpace, kSplit, kDropped };

bool IsCjkIdeograph(utf8proc_int32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B820 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

// BERT's classes: every ASCII symbol counts as punctuation; control, format and
// private characters vanish. Unassigned ones stay, so that a character newer
// than the Unicode tables at hand becomes unk and is not lost unseen.
CharClass Classify(utf8proc_int32_t c) {
  if (c < 0x80) {
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      return CharClass::kSpace;
    }
    if (c < 0x20 || c == 0x7f) return CharClass::kDropped;
    return absl::ascii_ispunct(c) ? CharClass::kSplit : CharClass::kLetter;
  }
  if (c == 0xFFFD) return CharClass::kDropped;
  if (IsCjkIdeograph(c)) return CharClass::kSplit;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
      return CharClass::kDropped;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return CharClass::kSpace;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return CharClass::kSplit;
    default:
      return CharClass::kLetter;
  }
}

// A word under construction, with the offset of every character's first byte.
struct Word {
  std::string text;
  std::vector<int32_t> starts;

  void Append(utf8proc_int32_t c) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t size = utf8proc_encode_char(c, bytes);
    starts.push_back(static_cast<int32_t>(text.size()));
    text.append(reinterpret_cast<const char*>(bytes), size);
  }
  void Clear() {
    text.clear();
    starts.clear();
  }
};

class WordPieceTokenizer final : public Tokenizer {
 public:
  WordPieceTokenizer(const SpecialIds& special, std::vector<std::string> pieces,
                     absl::flat_hash_map<std::string, int64_t> ids,
                     const WordPieceOptions& options)
      : Tokenizer(special),
        pieces_(std::move(pieces)),
        ids_(std::move(ids)),
        options_(options) {
    Sha256 hash;
    hash.Update(absl::StrCat("wordpiece 1 uncased=", options.uncased,
                             " max_chars=", options.max_chars_per_word, "\n"));
    for (const std::string& piece : pieces_) {
      longest_ = std::max(longest_, piece.size());
      hash.Update(piece);
      hash.Update("\n");
    }
    fingerprint_ = hash.FinishHex();
  }

  std::vector<int64_t> Encode(absl::string_view text) const override {
    std::vector<int64_t> out;
    Word word;
    auto flush = [&] {
      if (!word.text.empty()) EncodeWord(word, &out);
      word.Clear();
    };
    // What is left after lower-casing and decomposition: a letter, a symbol
    // that is a word of its own, or nothing.
    auto add = [&](utf8proc_int32_t c) {
      if (Classify(c) == CharClass::kSplit) {
        flush();
        word.Append(c);
        flush();
      } else {
        word.Append(c);
      }
    };
    while (!text.empty()) {
      utf8proc_int32_t c = 0;
      utf8proc_ssize_t used = utf8proc_iterate(
          reinterpret_cast<const utf8proc_uint8_t*>(text.data()), text.size(),
          &c);
      if (used <= 0) {
        text.remove_prefix(1);
        continue;
      }
      text.remove_prefix(used);
      switch (Classify(c)) {
        case CharClass::kDropped:
          break;
        case CharClass::kSpace:
          flush();
          break;
        case CharClass::kSplit:
        case CharClass::kLetter:
          // An ideograph stands alone even where it decomposes.
          if (IsCjkIdeograph(c)) flush();
          Fold(c, add);
          if (IsCjkIdeograph(c)) flush();
          break;
      }
    }
    flush();
    return out;
  }

  std::string Decode(absl::Span<const int64_t> ids) const override {
    std::string out;
    for (int64_t id : ids) {
      if (id == pad_id() || id == cls_id() || id == sep_id() ||
          id == mask_id()) {
        continue;
      }
      const bool known = id >= 0 && id < vocab_size();
      absl::string_view piece = pieces_[known ? id : unk_id()];
      if (piece.size() > kContinuation.size() &&
          piece.substr(0, kContinuation.size()) == kContinuation) {
        piece.remove_prefix(kContinuation.size());
      } else if (!out.empty()) {
        out.push_back(' ');
      }
      absl::StrAppend(&out, piece);
    }
    return out;
  }

  std::string Piece(int64_t id) const override {
    return id >= 0 && id < vocab_size() ? pieces_[id] : std::string();
  }

  int64_t vocab_size() const override { return pieces_.size(); }
  std::string fingerprint() const override { return fingerprint_; }

 private:
  // Calls add(code point) for the lower-case, accent-free form of c.
  template <typename Add>
  void Fold(utf8proc_int32_t c, const Add& add) const {
    if (c < 0x80) {
      add(options_.uncased ? absl::ascii_tolower(c) : c);
      return;
    }
    if (!options_.uncased) {
      add(c);
      return;
    }
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        utf8proc_tolower(c), parts, 32, UTF8PROC_DECOMPOSE, &boundary);
    for (utf8proc_ssize_t i = 0; i < count && i < 32; ++i) {
      if (utf8proc_category(parts[i]) != UTF8PROC_CATEGORY_MN) add(parts[i]);
    }
  }

  // Greedy, longest entry first. A word with a part that has no entry is unk
  // as a whole.
  void EncodeWord(const Word& word, std::vector<int64_t>* out) const {
    const int64_t chars = word.starts.size();
    if (chars > options_.max_chars_per_word) {
      out->push_back(unk_id());
      return;
    }
    const size_t first_output = out->size();
    const absl::string_view text = word.text;
    std::string key;
    int64_t begin = 0;
    while (begin < chars) {
      const size_t from = word.starts[begin];
      key.assign(begin > 0 ? kContinuation.data() : "",
                 begin > 0 ? kContinuation.size() : 0);
      const size_t prefix = key.size();
      key.append(text.data() + from, std::min(text.size() - from, longest_));
      int64_t end = chars;
      for (; end > begin; --end) {
        const size_t stop =
            end == chars ? text.size() : static_cast<size_t>(word.starts[end]);
        if (prefix + (stop - from) > longest_) continue;
        key.resize(prefix + (stop - from));
        const auto found = ids_.find(key);
        if (found != ids_.end()) {
          out->push_back(found->second);
          break;
        }
      }
      if (end == begin) {
        out->resize(first_output);
        out->push_back(unk_id());
        return;
      }
      begin = end;
    }
  }

  std::vector<std::string> pieces_;
  absl::flat_hash_map<std::string, int64_t>
      ids_;  // entries that text may match
  WordPieceOptions options_;
  size_t longest_ = 0;  // bytes
  std::string fingerprint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadWordPiece(
    const std::string& vocab_path, const WordPieceOptions& options) {
  if (options.max_chars_per_word < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_chars_per_word is ",
                                                   options.max_chars_per_word,
                                                   ", expected at least 1"));
  }
  absl::StatusOr<std::string> file = ReadFile(vocab_path);
  if (!file.ok()) return file.status();
  if (absl::Status s = ValidateUtf8(*file); !s.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(vocab_path, ": ", s.message()));
  }
  std::vector<std::string> pieces = absl::StrSplit(*file, '\n');
  if (!pieces.empty() && pieces.back().empty()) pieces.pop_back();
  absl::flat_hash_map<std::string, int64_t> ids;
  ids.reserve(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].empty() && pieces[i].back() == '\r') pieces[i].pop_back();
    if (pieces[i].empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          vocab_path, ":", i + 1, ": empty line, expected one entry a line"));
    }
    const auto [at, inserted] = ids.emplace(pieces[i], i);
    if (!inserted) {
      return absl::InvalidArgumentError(
          absl::StrCat(vocab_path, ":", i + 1, ": \"", pieces[i],
                       "\" is there already, in line ", at->second + 1));
    }
  }
  SpecialIds special;
  const std::pair<const char*, int64_t*> wanted[] = {{"[PAD]", &special.pad},
                                                     {"[UNK]", &special.unk},
                                                     {"[CLS]", &special.cls},
                                                     {"[SEP]", &special.sep},
                                                     {"[MASK]", &special.mask}};
  for (const auto& [name, id] : wanted) {
    const auto found = ids.find(name);
    if (found == ids.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          vocab_path, ": no entry ", name, " among ", pieces.size(),
          "; expected a BERT vocabulary, one entry a line"));
    }
    *id = found->second;
    ids.erase(found);
  }
  return std::make_unique<WordPieceTokenizer>(special, std::move(pieces),
                                              std::move(ids), options);
}

}  // namespace semvq
