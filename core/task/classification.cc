#include "core/task/classification.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/forward/types.h"
#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/util/file.h"
#include "core/util/json.h"

namespace semvq {
namespace {

// The shortest text that reads back as the same number.
std::string JsonNumber(double value) {
  if (!std::isfinite(value)) return "null";
  std::string text;
  for (int digits = 15; digits <= 17; ++digits) {
    text = absl::StrFormat("%.*g", digits, value);
    if (std::strtod(text.c_str(), nullptr) == value) break;
  }
  return text;
}

TaskMetric Percent(std::string name, double share, double chance,
                   bool headline) {
  TaskMetric metric;
  metric.name = std::move(name);
  metric.value = 100 * share;
  metric.chance = 100 * chance;
  metric.unit = "%";
  metric.headline = headline;
  return metric;
}

TaskMetric Count(std::string name, int64_t count) {
  TaskMetric metric;
  metric.name = std::move(name);
  metric.value = static_cast<double>(count);
  metric.chance = std::nan("");
  return metric;
}

// The first of those that occur most often.
int64_t MostFrequent(const std::vector<int64_t>& counts) {
  return std::max_element(counts.begin(), counts.end()) - counts.begin();
}

}  // namespace

void CheckClassification(const ClassificationOptions& options,
                         FieldErrors* errors) {
  errors->RequireInstance("fusion", options.fusion);
  errors->RequireNotNegative("hidden", options.hidden);
  errors->Require(options.alpha >= 0 && options.alpha <= 1, "alpha",
                  options.alpha, "a share in [0, 1]");
  errors->RequireNotNegative("alpha_ramp_steps", options.alpha_ramp_steps);
}

Contract ClassificationContract(const ClassificationOptions& options,
                                const LabelSet& labels) {
  Contract contract;
  contract.batch_keys = {options.image_slots == 1
                             ? "image"
                             : absl::StrCat("images:", options.image_slots),
                         "text", "answers"};
  if (options.classifier.empty()) {
    contract.needs = {{"fusion", options.fusion, kFused, 0, false,
                       "it classifies the fused [CLS]"}};
    contract.provides = {{kClassLogits, labels.size()}};
  } else {
    contract.needs = {{"classifier", options.classifier, kClassLogits,
                       labels.size(), false, "its classifier answers"}};
  }
  return contract;
}

ClassificationTask::ClassificationTask(ClassificationOptions options,
                                       LabelSet labels, int64_t dim)
    : options_(std::move(options)), labels_(std::move(labels)) {
  if (!options_.classifier.empty()) return;
  const int64_t hidden = options_.hidden > 0 ? options_.hidden : dim;
  dense_ = register_module("dense", std::make_shared<Linear>(dim, hidden));
  classifier_ = register_module(
      "classifier", std::make_shared<Linear>(hidden, labels_.size()));
}

std::any ClassificationTask::ComputeView(const ViewKey& key, Forward& forward) {
  if (key.view != kClassLogits || classifier_ == nullptr)
    return Task::ComputeView(key, forward);
  // The label is about all image slots, whichever is asked for.
  const ViewKey fused =
      FusedKey(options_.fusion, kFused, key.variant, key.pairing);
  const at::Tensor cls = forward.Get<Tokens>(fused).values.select(/*dim=*/1, 0);
  return classifier_->Forward(at::relu(dense_->Forward(cls)));
}

ObjectiveOutput ClassificationTask::Compute(Forward& forward) {
  const std::vector<TextRecord>& texts = forward.batch().texts;
  at::Tensor targets = at::full({static_cast<int64_t>(texts.size())},
                                LabelSet::kIgnored, at::kLong);
  auto target = targets.accessor<int64_t, 1>();
  for (size_t t = 0; t < texts.size(); ++t) {
    if (texts[t].answers.empty()) continue;
    const absl::StatusOr<int64_t> label = labels_.ClassOf(texts[t]);
    TORCH_CHECK(label.ok(), "task ", options_.instance, ": ",
                std::string(label.status().message()));
    target[static_cast<int64_t>(t)] = *label;
  }
  const at::Tensor& logits =
      forward.Get<at::Tensor>(FusedKey(options_.instance, kClassLogits));
  targets = targets.to(logits.device(), /*non_blocking=*/true);

  const double alpha =
      forward.has_teacher()
          ? LinearRamp(options_.alpha, options_.alpha_ramp_steps,
                       forward.step())
          : 0.0;
  at::Tensor soft;
  if (alpha > 0) {
    Variant teacher;
    teacher.teacher = true;
    soft = forward.Get<at::Tensor>(
        FusedKey(options_.instance, kClassLogits, teacher));
  }
  const at::Tensor count = CountTargets(targets, forward.group());
  ObjectiveOutput output;
  output.losses = {
      {"label", CrossEntropyAt(logits, targets, soft, alpha, count)}};
  output.metrics = {{"accuracy", Top1(logits, targets, count)}};
  return output;
}

absl::StatusOr<BatchOutcome> ClassificationTask::Classify(
    const Batch& batch, EvalContext& context) const {
  if (batch.images.size(1) != options_.image_slots) {
    return absl::InvalidArgumentError(absl::StrCat(
        "its samples have ", batch.images.size(1), " images, expected ",
        options_.image_slots, "; evaluate a stream of this task's records"));
  }
  std::unique_ptr<Forward> forward = context.MakeForward(batch);
  const at::Tensor logits = forward->Get<at::Tensor>(FusedKey(
      options_.classifier.empty() ? options_.instance : options_.classifier,
      kClassLogits));
  if (!at::isfinite(logits).all().item<bool>()) {
    return absl::FailedPreconditionError(
        "the model's logits are not finite numbers; the training has failed");
  }
  return BatchOutcome{{logits.argmax(1).to(at::kCPU)}, {}};
}

absl::Status ClassificationTask::Take(const Batch& batch,
                                      const BatchOutcome& outcome,
                                      std::vector<Example>* examples,
                                      int64_t* ignored) const {
  const at::Tensor& best = outcome.tensors[0];
  const at::Tensor images = batch.text_to_image.to(at::kCPU);
  for (int64_t t = 0; t < batch.num_texts(); ++t) {
    const TextRecord& text = batch.texts[t];
    const absl::StatusOr<int64_t> label = labels_.ClassOf(text);
    if (!label.ok()) return label.status();
    if (*label == LabelSet::kIgnored) {
      ++*ignored;
      continue;
    }
    examples->push_back({text.id, batch.image_ids[images[t].item<int64_t>()],
                         text.text, *label, best[t].item<int64_t>()});
  }
  return absl::OkStatus();
}

absl::StatusOr<TaskResult> ClassificationTask::Evaluate(EvalContext& context) {
  const auto fail = [this](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("task ", options_.instance,
                                                    ": ", status.message()));
  };
  std::vector<Example> examples;
  int64_t ignored = 0;
  absl::Status status = context.ShareBatches(
      "", [&](const Batch& batch) { return Classify(batch, context); },
      [&](const Batch& batch, const BatchOutcome& outcome) {
        return Take(batch, outcome, &examples, &ignored);
      });
  if (!status.ok()) return fail(status);
  // Before another stream is read.
  const int64_t skipped = context.skipped();
  if (examples.empty()) {
    return fail(absl::FailedPreconditionError(
        ignored > 0 ? "the stream holds no text with a label"
                    : "the stream holds no text"));
  }
  ConfusionMatrix confusion(labels_.size());
  for (const Example& e : examples) confusion.Add(e.label, e.predicted);

  TaskResult result;
  const double chance = 1.0 / static_cast<double>(labels_.size());
  result.metrics.push_back(
      Percent("accuracy", confusion.Accuracy(), chance, true));
  result.note =
      absl::StrCat(examples.size(), " examples, ", labels_.size(), " labels");
  if (ignored > 0) {
    absl::StrAppend(&result.note, "; ", ignored,
                    " without an agreed label are left out");
  }
  if (skipped > 0) {
    absl::StrAppend(&result.note, "; ", skipped, " bad samples are left out");
  }
  Extras extras;
  status = Report(examples, context, &result, &extras);
  if (!status.ok()) return fail(status);
  for (int64_t i = 0; i < labels_.size(); ++i) {
    const std::string& name = labels_.name(i);
    if (confusion.support(i) > 0) {
      result.metrics.push_back(Percent(absl::StrCat("accuracy: ", name),
                                       confusion.Recall(i), chance, false));
    }
    result.metrics.push_back(
        Count(absl::StrCat("examples: ", name), confusion.support(i)));
  }
  result.metrics.push_back(Count("left out", skipped + ignored));
  if (!options_.baseline_stream.empty()) {
    status = AddBaselines(context, examples, &result);
    if (!status.ok()) return fail(status);
  }
  const std::string path = JoinPath(
      context.output_folder(), absl::StrCat(options_.instance, "_result.json"));
  status = AtomicWriteFile(
      path, ResultJson(examples, confusion, skipped, ignored, extras));
  if (!status.ok()) return fail(status);
  result.files.push_back(path);
  return result;
}

absl::Status ClassificationTask::AddBaselines(
    EvalContext& context, const std::vector<Example>& examples,
    TaskResult* result) const {
  std::vector<int64_t> all(labels_.size(), 0);
  std::map<std::string, std::vector<int64_t>> by_text;
  absl::Status bad = absl::OkStatus();
  absl::Status status = context.ForEachText(
      options_.baseline_stream, [&](const TextRecord& text) {
        const absl::StatusOr<int64_t> label = labels_.ClassOf(text);
        if (!label.ok()) bad.Update(label.status());
        if (!label.ok() || *label == LabelSet::kIgnored) return;
        ++all[*label];
        ++by_text.try_emplace(text.text, labels_.size(), 0)
              .first->second[*label];
      });
  status.Update(bad);
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("baseline_stream \"",
                                                    options_.baseline_stream,
                                                    "\": ", status.message()));
  }
  const int64_t majority = MostFrequent(all);
  int64_t of_majority = 0, of_text = 0;
  for (const Example& e : examples) {
    of_majority += e.label == majority;
    const auto found = by_text.find(e.text);
    of_text +=
        e.label ==
        (found == by_text.end() ? majority : MostFrequent(found->second));
  }
  const double n = static_cast<double>(examples.size());
  const double none = std::nan("");
  result->metrics.push_back(Percent("baseline: majority label",
                                    static_cast<double>(of_majority) / n, none,
                                    true));
  result->metrics.push_back(Percent("baseline: best label per text",
                                    static_cast<double>(of_text) / n, none,
                                    true));
  return absl::OkStatus();
}

std::string ClassificationTask::ResultJson(const std::vector<Example>& examples,
                                           const ConfusionMatrix& confusion,
                                           int64_t skipped, int64_t ignored,
                                           const Extras& extras) const {
  const auto quoted = [](std::string* out, const std::string& name) {
    out->append(JsonString(name));
  };
  std::string json = absl::StrCat(
      "{\n\"labels\": [", absl::StrJoin(labels_.names(), ", ", quoted),
      "],\n\"examples\": ", examples.size(), ",\n\"skipped\": ", skipped,
      ",\n\"ignored\": ", ignored,
      ",\n\"accuracy\": ", JsonNumber(confusion.Accuracy()));
  for (const auto& [name, value] : extras) {
    absl::StrAppend(&json, ",\n", JsonString(name), ": ", JsonNumber(value));
  }
  absl::StrAppend(&json, ",\n\"confusion\": [");
  for (int64_t truth = 0; truth < confusion.classes(); ++truth) {
    absl::StrAppend(&json, truth == 0 ? "[" : ", [");
    for (int64_t predicted = 0; predicted < confusion.classes(); ++predicted) {
      absl::StrAppend(&json, predicted == 0 ? "" : ", ",
                      confusion.count(truth, predicted));
    }
    absl::StrAppend(&json, "]");
  }
  absl::StrAppend(&json, "],\n\"predictions\": [");
  for (size_t i = 0; i < examples.size(); ++i) {
    const Example& e = examples[i];
    absl::StrAppend(&json, i == 0 ? "\n" : ",\n", "{\"id\": ", JsonString(e.id),
                    ", \"image\": ", JsonString(e.image),
                    ", \"text\": ", JsonString(e.text),
                    ", \"label\": ", JsonString(labels_.name(e.label)),
                    ", \"prediction\": ", JsonString(labels_.name(e.predicted)),
                    "}");
  }
  return json + "\n]\n}\n";
}

}  // namespace semvq
