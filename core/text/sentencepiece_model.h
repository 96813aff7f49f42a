#ifndef SEMVQ_CORE_TEXT_SENTENCEPIECE_MODEL_H_
#define SEMVQ_CORE_TEXT_SENTENCEPIECE_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace semvq {

// The sentencepiece library in the standard library's types. Only for this
// package: see the BUILD file for the reason. An empty error string is success.
class SentencePieceModel {
 public:
  virtual ~SentencePieceModel() = default;

  virtual std::vector<int> Encode(std::string_view text) const = 0;
  virtual std::string Decode(const std::vector<int>& ids) const = 0;
  virtual std::string Piece(int id) const = 0;
  virtual int size() const = 0;
  virtual int pad_id() const = 0;
  virtual int unk_id() const = 0;
  virtual int bos_id() const = 0;
  virtual int eos_id() const = 0;
  // -1 when there is no such piece.
  virtual int PieceToId(std::string_view piece) const = 0;

  // Null, and the reason in `error`, if `serialized` is no model.
  static std::unique_ptr<SentencePieceModel> Load(std::string_view serialized,
                                                  std::string* error);
};

struct SentencePieceTraining {
  bool bpe = false;
  int64_t vocab_size = 0;
  double character_coverage = 1;
  uint32_t seed = 0;
};

// Returns the serialized model; empty, and the reason in `error`, on failure.
std::string TrainSentencePieceModel(const std::vector<std::string>& sentences,
                                    const SentencePieceTraining& training,
                                    std::string* error);

}  // namespace semvq

#endif  // SEMVQ_CORE_TEXT_SENTENCEPIECE_MODEL_H_
