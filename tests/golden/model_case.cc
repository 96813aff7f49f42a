#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/config/load.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "tests/golden/cases.h"
#include "trainer/losses.h"
#include "trainer/model.h"
#include "trainer/trainer.h"

namespace semvq {
namespace {

// Every kind of plugin of the paper's composition, with teacher and queues.
// tests/parity/reference/model.py holds the same sizes.
constexpr char kTinyExperiment[] = R"pb(
  name: "tiny_model"
  seed: 11
  device: CPU
  data {
    streams {
      name: "pairs"
      source {
        [type.googleapis.com/semvq.AlbefJsonConfig] { path: "unused.json" }
      }
      transform { size: 16 }
    }
  }
  text {
    wordpiece { vocab: "unused.txt" }
    max_tokens: 8
  }
  encoders {
    name: "image"
    config {
      [type.googleapis.com/semvq.VitConfig] {
        patch_size: 4
        dim: 16
        depth: 2
        heads: 2
        mlp_ratio: 2
        image_size: 16
      }
    }
  }
  encoders {
    name: "text"
    config {
      [type.googleapis.com/semvq.BertTextConfig] {
        dim: 24
        layers: 1
        heads: 3
        intermediate: 32
        max_positions: 10
        dropout: 0
        attention_dropout: 0
      }
    }
  }
  encoders {
    name: "fusion"
    config {
      [type.googleapis.com/semvq.CrossFusionConfig] {
        layers: 2
        heads: 3
        intermediate: 32
        dropout: 0
        attention_dropout: 0
      }
    }
  }
  quantizers {
    name: "codebook"
    dim: 8
    config {
      [type.googleapis.com/semvq.VqEmaConfig] {
        num_codes: 12
        decay: 0.9
        decay_warmup: false
        codebook { init: RANDOM revive_after: 0 reservoir: 16 }
      }
    }
    loss_weights { name: "commitment" weight: 0.25 }
  }
  visual_tokens { mode: QUANTIZED }
  objectives {
    name: "itc"
    config {
      [type.googleapis.com/semvq.ItcConfig] { dim: 12 queue_size: 10 }
    }
  }
  objectives {
    name: "itm"
    config {
      [type.googleapis.com/semvq.ItmConfig] {}
    }
  }
  objectives {
    name: "mlm"
    config {
      [type.googleapis.com/semvq.MlmConfig] { mask_probability: 0.3 }
    }
  }
  objectives {
    name: "mim"
    weight: 0.5
    config {
      [type.googleapis.com/semvq.MimConfig] {}
    }
  }
  objectives {
    name: "reconstruction"
    config {
      [type.googleapis.com/
       semvq.ReconstructionConfig] { patch_size: 4 dim: 12 depth: 1 heads: 2 }
    }
  }
  teacher { enabled: true momentum: 0.9 }
  optimizer { lr: 2e-3 clip_norm: 2.0 }
  schedule { warmup_steps: 5 warmup_lr: 1e-4 min_lr: 1e-4 }
  trainer { stream: "pairs" steps: 20 batch_size: 6 }
)pb";
// What the configs offer in place of the composition above.
constexpr char kAlternatives[] = R"pb(
  quantizers {
    name: "codebook"
    config {
      [type.googleapis.com/semvq.VqEmaConfig] {
        codebook { metric: COSINE estimator: ROTATION }
      }
    }
  }
  visual_tokens { mode: GATED }
  objectives {
    name: "itc"
    config {
      [type.googleapis.com/semvq.ItcConfig] { pool: MEAN }
    }
  }
  objectives {
    name: "mim"
    config {
      [type.googleapis.com/semvq.MimConfig] {
        predict_from: FUSED
        fusion_layers: 1
        fusion_heads: 2
        targets: TEACHER
      }
    }
  }
  objectives {
    name: "reconstruction"
    config {
      [type.googleapis.com/semvq.ReconstructionConfig] {
        loss: L1
        normalize_patches: true
        stop_text_gradient: true
      }
    }
  }
)pb";
constexpr int64_t kVocabulary = 30;

struct Stage {
  Experiment experiment;
  ContractBook book;
  std::unique_ptr<Tokenizer> tokenizer;
};

absl::StatusOr<Stage> LoadTinyStage(bool alternatives) {
  std::vector<SourceText> sources = {{"tiny_model", kTinyExperiment}};
  if (alternatives) sources.push_back({"alternatives", kAlternatives});
  const LoadResult loaded = LoadExperiment(sources);
  const std::vector<ConfigError> errors = CheckExperiment(loaded);
  if (!errors.empty()) {
    return absl::InvalidArgumentError(FormatReport(errors));
  }
  Stage stage;
  stage.experiment =
      ResolveStages(loaded.experiment, loaded.provenance).stages[0].experiment;
  auto book = BuildContracts(stage.experiment);
  if (!book.ok()) return book.status();
  stage.book = *std::move(book);
  auto tokenizer = SizedTokenizer(kVocabulary);
  if (!tokenizer.ok()) return tokenizer.status();
  stage.tokenizer = *std::move(tokenizer);
  return stage;
}

// Every parameter must be given, every tensor given must be one of the model's,
// so that a name or shape that Python has otherwise is found.
absl::Status Fill(const Tensors& in, const std::string& prefix, Model& model) {
  c10::NoGradGuard no_grad;
  std::set<std::string> known;
  std::vector<std::string> errors;
  const auto copy = [&](const std::string& name, at::Tensor target,
                        bool wanted) {
    known.insert(name);
    if (in.count(prefix + name) == 0) {
      if (wanted) errors.push_back(absl::StrCat(prefix, name, " is missing"));
      return;
    }
    const at::Tensor value = *Input(in, prefix + name);
    if (value.sizes() == target.sizes()) {
      target.copy_(value);
      return;
    }
    std::ostringstream sizes;
    sizes << value.sizes() << ", expected " << target.sizes();
    errors.push_back(absl::StrCat(prefix, name, ": got ", sizes.str()));
  };
  for (const auto& p : model.named_parameters()) copy(p.key(), p.value(), true);
  for (const auto& b : model.named_buffers()) copy(b.key(), b.value(), false);
  for (const auto& [key, tensor] : in) {
    absl::string_view name = key;
    if (absl::ConsumePrefix(&name, prefix) &&
        known.count(std::string(name)) == 0) {
      errors.push_back(absl::StrCat(key, " is no tensor of the model"));
    }
  }
  return errors.empty()
             ? absl::OkStatus()
             : absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
}

// Batch number `step` of the inputs; without a leading dimension if negative.
absl::StatusOr<Batch> BatchOf(const Tensors& in, int64_t step) {
  std::map<std::string, at::Tensor> found;
  for (const char* name :
       {"images", "text_ids", "text_mask", "text_to_image", "ids"}) {
    auto tensor = Input(in, name);
    if (!tensor.ok()) return tensor.status();
    found[name] = step < 0 ? *tensor : (*tensor)[step];
  }
  Batch batch;
  batch.images = found["images"];
  batch.text_ids = found["text_ids"];
  batch.text_mask = found["text_mask"].to(at::kBool);
  batch.text_to_image = found["text_to_image"];
  batch.texts.resize(batch.text_ids.size(0));
  const int64_t images = batch.num_images();
  for (int64_t i = 0; i < images; ++i) {
    batch.image_ids.push_back(absl::StrCat(found["ids"][i].item<int64_t>()));
    batch.sample_numbers.push_back(std::max<int64_t>(step, 0) * images + i);
  }
  return batch;
}

const ViewKey kPairs = {"itm", kPairing, Variant{}, 0, ""};

// Puts the choices that `in` holds in place of those that would be drawn.
void SetChoices(const Tensors& in, const Batch& batch, Forward& forward) {
  if (in.count("choice/text_positions") > 0) {
    TextMask mask;
    mask.ids = in.at("choice/text_ids");
    mask.positions = in.at("choice/text_positions");
    mask.targets = in.at("choice/text_targets");
    mask.valid = in.at("choice/text_valid").to(at::kBool);
    forward.Set(TextKey("mlm", kTextMask), mask);
  }
  if (in.count("choice/image_positions") > 0) {
    ImageMask mask;
    mask.positions = in.at("choice/image_positions");
    mask.mask = at::zeros({batch.num_images(), 16}, at::kBool)
                    .scatter_(1, mask.positions, true);
    forward.Set(ImageKey("mim", kImageMask), mask);
  }
  if (in.count("choice/pair_texts") > 0) {
    forward.Set(kPairs, Pairing{in.at("choice/pair_texts"),
                                in.at("choice/pair_images")});
  }
}

// What a reimplementation cannot draw for itself, and the codes.
void GetChoices(Forward& forward, const std::string& prefix, Tensors* out) {
  const TextMask& text = forward.Get<TextMask>(TextKey("mlm", kTextMask));
  (*out)[prefix + "choice/text_ids"] = text.ids;
  (*out)[prefix + "choice/text_positions"] = text.positions;
  (*out)[prefix + "choice/text_targets"] = text.targets;
  (*out)[prefix + "choice/text_valid"] = text.valid;
  (*out)[prefix + "choice/image_positions"] =
      forward.Get<ImageMask>(ImageKey("mim", kImageMask)).positions;
  const Pairing& pairs = forward.Get<Pairing>(kPairs);
  (*out)[prefix + "choice/pair_texts"] = pairs.text_index;
  (*out)[prefix + "choice/pair_images"] = pairs.image_index;
  Variant teacher;
  teacher.teacher = true;
  const auto codes = [&forward](const Variant& variant) {
    return forward
        .Get<QuantizedTokens>(ImageKey("codebook", kQuantized, variant))
        .quantized.codes;
  };
  (*out)[prefix + "codes"] = codes({});
  (*out)[prefix + "teacher_codes"] = codes(teacher);
}

}  // namespace

absl::StatusOr<Tensors> RunModelStep(const Tensors& in) {
  at::set_num_threads(1);
  auto stage = LoadTinyStage(in.count("alternatives") > 0);
  if (!stage.ok()) return stage.status();
  auto student =
      Model::Compose(stage->experiment, stage->book, stage->tokenizer.get());
  auto teacher =
      Model::Compose(stage->experiment, stage->book, stage->tokenizer.get());
  if (!student.ok()) return student.status();
  if (!teacher.ok()) return teacher.status();
  (*student)->to(at::kDouble);
  (*teacher)->to(at::kDouble);
  absl::Status status = Fill(in, "param/", **student);
  if (status.ok()) status = Fill(in, "teacher/", **teacher);
  if (!status.ok()) return status;
  for (at::Tensor& p : (*teacher)->parameters()) p.requires_grad_(false);
  auto given = BatchOf(in, -1);
  if (!given.ok()) return given.status();
  const Batch batch = given->To(at::kCPU, at::kDouble);

  Forward forward(batch, (*student)->providers(), &(*teacher)->providers(),
                  {/*training=*/true, stage->experiment.seed(), /*step=*/0});
  SetChoices(in, batch, forward);
  const Losses losses = ComputeLosses(**student, forward);
  losses.total.backward();
  Tensors out;
  GetChoices(forward, "", &out);
  out["total"] = losses.total.detach();
  for (const auto& [name, loss] : losses.named) out["loss/" + name] = loss;
  for (const auto& p : (*student)->named_parameters()) {
    out["grad/" + p.key()] = p.value().grad().defined()
                                 ? p.value().grad()
                                 : at::zeros_like(p.value());
  }
  return out;
}

absl::StatusOr<Tensors> RunModelCurve(const Tensors& in) {
  at::set_num_threads(1);
  auto stage = LoadTinyStage(/*alternatives=*/false);
  if (!stage.ok()) return stage.status();
  StageSetup setup;
  setup.name = "train";
  setup.experiment = stage->experiment;
  setup.book = stage->book;
  setup.tokenizer = stage->tokenizer.get();
  setup.random_data = true;
  auto trainer = Trainer::Create(setup);
  if (!trainer.ok()) return trainer.status();
  Model& model = (*trainer)->model();
  if (absl::Status status = Fill(in, "param/", model); !status.ok()) {
    return status;
  }
  (*trainer)->SyncTeacher();

  Tensors out;
  for (int64_t step = 0; step < (*trainer)->total_steps(); ++step) {
    auto given = BatchOf(in, step);
    if (!given.ok()) return given.status();
    const Batch batch = given->To(at::kCPU, at::kFloat);
    const std::string prefix = absl::StrCat(step, "/");
    {
      // The choices of the step to come, by a pass that leaves no trace.
      c10::NoGradGuard no_grad;
      Forward forward(batch, model.providers(), (*trainer)->teacher(),
                      {/*training=*/false, setup.experiment.seed(), step});
      GetChoices(forward, prefix, &out);
    }
    auto report = (*trainer)->Step({batch});
    if (!report.ok()) return report.status();
    TORCH_CHECK(report->nonfinite.empty(), "step ", step, ": ",
                report->nonfinite, " is not finite");
    for (const auto& [name, value] : report->values) {
      out[prefix + name] = value.detach().to(at::kFloat).clone();
    }
  }
  for (const auto& p : model.named_parameters()) {
    out["param/" + p.key()] = p.value().detach().clone();
  }
  return out;
}

}  // namespace semvq
