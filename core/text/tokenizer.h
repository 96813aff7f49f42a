#ifndef SEMVQ_CORE_TEXT_TOKENIZER_H_
#define SEMVQ_CORE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace semvq {

// Ids of the tokens that models give a meaning to. They are distinct, and text
// never encodes to any of them but `unk`.
struct SpecialIds {
  int64_t pad = -1;
  int64_t unk = -1;
  int64_t cls = -1;
  int64_t sep = -1;
  int64_t mask = -1;
};

// Text to token ids and back. Immutable: threads may share one.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids in [0, vocab_size()), without special tokens added. `text` should be
  // UTF-8 (see ValidateUtf8); bytes that are not become nothing or `unk`.
  virtual std::vector<int64_t> Encode(absl::string_view text) const = 0;

  // Readable text. pad, cls, sep and mask are left out; ids outside the
  // vocabulary read as unk.
  virtual std::string Decode(absl::Span<const int64_t> ids) const = 0;

  // The vocabulary entry of an id as the model spells it ("##ing", "▁dog");
  // empty outside the vocabulary.
  virtual std::string Piece(int64_t id) const = 0;

  virtual int64_t vocab_size() const = 0;

  // SHA-256 of all that decides how text is encoded. A checkpoint keeps it: ids
  // mean nothing under another tokenizer.
  virtual std::string fingerprint() const = 0;

  const SpecialIds& special() const { return special_; }
  int64_t pad_id() const { return special_.pad; }
  int64_t unk_id() const { return special_.unk; }
  int64_t cls_id() const { return special_.cls; }
  int64_t sep_id() const { return special_.sep; }
  int64_t mask_id() const { return special_.mask; }

 protected:
  explicit Tokenizer(const SpecialIds& special) : special_(special) {}

 private:
  SpecialIds special_;
};

struct WordPieceOptions {
  // Lower-cases and drops accents, as BERT's uncased vocabularies need.
  bool uncased = true;
  // Longer words become one unk.
  int64_t max_chars_per_word = 100;
};

// BERT's tokenizer (Devlin et al., 2019) on a vocabulary file with one entry a
// line, [PAD], [UNK], [CLS], [SEP] and [MASK] among them. Text is cleaned,
// split at white space, punctuation and CJK characters, and each word is cut
// greedily into the longest entries. NotFound without the file,
// InvalidArgument with the line for duplicate, empty or malformed entries.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadWordPiece(
    const std::string& vocab_path, const WordPieceOptions& options = {});

// A sentencepiece model: one of TrainSentencePiece, or any other that defines
// pad, unk, bos or "[CLS]", eos or "[SEP]", and "[MASK]" or "<mask>".
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePiece(
    const std::string& model_path);

struct SentencePieceOptions {
  enum class Model { kUnigram, kBpe };
  Model model = Model::kUnigram;
  // Special tokens included. Where the text cannot give so many entries, the
  // model has fewer.
  int64_t vocab_size = 8000;
  // Share of all characters that get an entry; rarer ones become unk.
  double character_coverage = 0.9995;
  uint32_t seed = 0;
};

// Trains a model on `captions` (UTF-8, one sentence each; empty ones are
// ignored) and writes it to `model_path` atomically. Special ids: [PAD] 0,
// [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4. The same captions in the same order and
// the same options give the same bytes.
absl::Status TrainSentencePiece(absl::Span<const std::string> captions,
                                const SentencePieceOptions& options,
                                const std::string& model_path);

// Token ids of a batch at one static length.
struct PaddedTokens {
  int64_t batch = 0;          // B
  int64_t length = 0;         // T
  std::vector<int64_t> ids;   // [B*T] row-major: [CLS] tokens [SEP] [PAD]...
  std::vector<int64_t> mask;  // [B*T]: 1 for a token, 0 for padding
  int64_t truncated = 0;      // texts that lost tokens
};

// Encodes `texts` to rows of `max_tokens` (at least 2), special tokens counted.
// InvalidArgument with the index of a text that is not UTF-8.
absl::StatusOr<PaddedTokens> EncodePadded(const Tokenizer& tokenizer,
                                          absl::Span<const std::string> texts,
                                          int64_t max_tokens);

}  // namespace semvq

#endif  // SEMVQ_CORE_TEXT_TOKENIZER_H_
