#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/text/bert_words.h"
#include "core/text/caption.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/hash.h"

namespace semvq {
namespace {

constexpr absl::string_view kContinuation = "##";

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
    ForEachBertWord(text, options_.uncased,
                    [&](const BertWord& word) { EncodeWord(word, &out); });
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
  // Greedy, longest entry first. A word with a part that has no entry is unk
  // as a whole.
  void EncodeWord(const BertWord& word, std::vector<int64_t>* out) const {
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
