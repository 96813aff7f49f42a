#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/text/caption.h"
#include "core/text/sentencepiece_model.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/hash.h"

namespace semvq {
namespace {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const SpecialIds& special,
                         std::unique_ptr<SentencePieceModel> model,
                         std::string fingerprint)
      : Tokenizer(special),
        model_(std::move(model)),
        fingerprint_(std::move(fingerprint)) {}

  std::vector<int64_t> Encode(absl::string_view text) const override {
    const std::vector<int> ids =
        model_->Encode(std::string_view(text.data(), text.size()));
    return std::vector<int64_t>(ids.begin(), ids.end());
  }

  std::string Decode(absl::Span<const int64_t> ids) const override {
    std::vector<int> kept;
    kept.reserve(ids.size());
    for (int64_t id : ids) {
      if (id == pad_id() || id == cls_id() || id == sep_id() ||
          id == mask_id()) {
        continue;
      }
      const bool known = id >= 0 && id < vocab_size();
      kept.push_back(static_cast<int>(known ? id : unk_id()));
    }
    return model_->Decode(kept);
  }

  std::string Piece(int64_t id) const override {
    if (id < 0 || id >= vocab_size()) return "";
    return model_->Piece(static_cast<int>(id));
  }

  int64_t vocab_size() const override { return model_->size(); }
  std::string fingerprint() const override { return fingerprint_; }

 private:
  std::unique_ptr<SentencePieceModel> model_;
  std::string fingerprint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadSentencePiece(
    const std::string& model_path) {
  absl::StatusOr<std::string> file = ReadFile(model_path);
  if (!file.ok()) return file.status();
  std::string error;
  auto model = SentencePieceModel::Load(*file, &error);
  if (model == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(model_path, ": expected a sentencepiece model: ", error));
  }
  auto find = [&](std::initializer_list<const char*> names, int otherwise) {
    for (const char* name : names) {
      const int id = model->PieceToId(name);
      if (id >= 0) return id;
    }
    return otherwise;
  };
  SpecialIds special;
  special.pad = find({"[PAD]"}, model->pad_id());
  special.unk = model->unk_id();
  special.cls = find({"[CLS]"}, model->bos_id());
  special.sep = find({"[SEP]"}, model->eos_id());
  special.mask = find({"[MASK]", "<mask>"}, -1);
  const std::pair<const char*, int64_t> wanted[] = {{"pad", special.pad},
                                                    {"unk", special.unk},
                                                    {"cls", special.cls},
                                                    {"sep", special.sep},
                                                    {"mask", special.mask}};
  for (const auto& [name, id] : wanted) {
    if (id >= 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        model_path, ": the model has no ", name,
        " token; train one with the symbols [PAD] [UNK] [CLS] [SEP] [MASK]"));
  }
  return std::make_unique<SentencePieceTokenizer>(special, std::move(model),
                                                  Sha256Hex(*file));
}

absl::Status TrainSentencePiece(absl::Span<const std::string> captions,
                                const SentencePieceOptions& options,
                                const std::string& model_path) {
  constexpr int64_t kSpecials = 5;
  if (options.vocab_size <= kSpecials ||
      options.vocab_size > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "vocab_size is ", options.vocab_size, ", expected more than the ",
        kSpecials, " special tokens and at most 2147483647"));
  }
  if (!(options.character_coverage > 0 && options.character_coverage <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("character_coverage is ", options.character_coverage,
                     ", expected a number in (0, 1]"));
  }
  std::vector<std::string> sentences;
  for (size_t i = 0; i < captions.size(); ++i) {
    if (absl::Status s = ValidateUtf8(captions[i]); !s.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("caption ", i, ": ", s.message()));
    }
    if (captions[i].find_first_not_of(" \t\r\n") != std::string::npos) {
      sentences.push_back(captions[i]);
    }
  }
  if (sentences.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot train a tokenizer on ", captions.size(),
                     " captions: none has any text"));
  }
  SentencePieceTraining training;
  training.bpe = options.model == SentencePieceOptions::Model::kBpe;
  training.vocab_size = options.vocab_size;
  training.character_coverage = options.character_coverage;
  // The library keeps the largest seed for "random".
  training.seed = options.seed & 0x7fffffffu;
  std::string error;
  const std::string model =
      TrainSentencePieceModel(sentences, training, &error);
  if (model.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot train a tokenizer of ", options.vocab_size, " entries on ",
        sentences.size(), " captions: ", error,
        "; every kept character needs an entry, so raise vocab_size or lower "
        "character_coverage"));
  }
  return AtomicWriteFile(model_path, model);
}

}  // namespace semvq
