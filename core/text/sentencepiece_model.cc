#include "core/text/sentencepiece_model.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

namespace semvq {
namespace {

class Model final : public SentencePieceModel {
 public:
  std::vector<int> Encode(std::string_view text) const override {
    std::vector<int> ids;
    processor.Encode(text, &ids).IgnoreError();
    return ids;
  }
  std::string Decode(const std::vector<int>& ids) const override {
    std::string text;
    processor.Decode(ids, &text).IgnoreError();
    return text;
  }
  std::string Piece(int id) const override { return processor.IdToPiece(id); }
  int size() const override { return processor.GetPieceSize(); }
  int pad_id() const override { return processor.pad_id(); }
  int unk_id() const override { return processor.unk_id(); }
  int bos_id() const override { return processor.bos_id(); }
  int eos_id() const override { return processor.eos_id(); }
  int PieceToId(std::string_view piece) const override {
    const int id = processor.PieceToId(piece);
    return processor.IdToPiece(id) == piece ? id : -1;
  }

  sentencepiece::SentencePieceProcessor processor;
};

class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& all) : all_(all) {}
  bool done() const override { return next_ >= all_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return all_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& all_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<SentencePieceModel> SentencePieceModel::Load(
    std::string_view serialized, std::string* error) {
  auto model = std::make_unique<Model>();
  const auto status = model->processor.LoadFromSerializedProto(serialized);
  if (!status.ok()) {
    *error = status.ToString();
    return nullptr;
  }
  if (model->size() == 0) {
    *error = "the model has no pieces";
    return nullptr;
  }
  return model;
}

std::string TrainSentencePieceModel(const std::vector<std::string>& sentences,
                                    const SentencePieceTraining& training,
                                    std::string* error) {
  size_t longest = 4192;  // the library's default
  for (const std::string& s : sentences) longest = std::max(longest, s.size());
  const std::unordered_map<std::string, std::string> arguments = {
      {"minloglevel", "2"},
      {"model_type", training.bpe ? "bpe" : "unigram"},
      {"vocab_size", std::to_string(training.vocab_size)},
      {"hard_vocab_limit", "false"},
      {"character_coverage", std::to_string(training.character_coverage)},
      {"normalization_rule_name", "nmt_nfkc_cf"},
      {"max_sentence_length", std::to_string(longest + 1)},
      {"pad_id", "0"},
      {"unk_id", "1"},
      {"bos_id", "2"},
      {"eos_id", "3"},
      {"pad_piece", "[PAD]"},
      {"unk_piece", "[UNK]"},
      {"bos_piece", "[CLS]"},
      {"eos_piece", "[SEP]"},
      {"unk_surface", " [UNK] "},
      {"control_symbols", "[MASK]"},
      // The same bytes every time: one thread and the order as given.
      {"num_threads", "1"},
      {"shuffle_input_sentence", "false"},
      {"input_sentence_size", "0"},
  };
  sentencepiece::SetRandomGeneratorSeed(training.seed);
  Sentences iterator(sentences);
  std::string serialized;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      arguments, &iterator, &serialized);
  if (!status.ok()) {
    *error = status.ToString();
    return "";
  }
  return serialized;
}

}  // namespace semvq
