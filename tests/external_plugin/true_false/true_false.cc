// True-or-false statements about one image: docs/adding_a_task.md walks
// through this file.
#include <torch/types.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/forward/types.h"
#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/registry.h"
#include "core/plugin/task.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "true_false/true_false.pb.h"

namespace mine {
namespace {

constexpr char kTruthLogits[] = "truth_logits";  // at::Tensor [T, 2]

class TrueFalse : public semvq::Task {
 public:
  TrueFalse(const TrueFalseConfig& config, std::string instance, int64_t dim)
      : config_(config), instance_(std::move(instance)) {
    head_ = register_module("head", std::make_shared<semvq::Linear>(dim, 2));
  }

  // The head reads what the fusion encoder makes of the statement's [CLS].
  std::any ComputeView(const semvq::ViewKey& key,
                       semvq::Forward& forward) override {
    if (key.view != kTruthLogits) return Task::ComputeView(key, forward);
    semvq::ViewKey fused = key;
    fused.instance = config_.fusion();
    fused.view = semvq::kFused;
    return head_->Forward(
        forward.Get<semvq::Tokens>(fused).values.select(1, 0));
  }

  bool can_fine_tune() const override { return true; }

  semvq::ObjectiveOutput Compute(semvq::Forward& forward) override {
    std::vector<int64_t> labels;
    for (const semvq::TextRecord& text : forward.batch().texts) {
      labels.push_back(LabelOf(text));
    }
    const at::Tensor logits = semvq::Upcast(
        forward.Get<at::Tensor>(semvq::FusedKey(instance_, kTruthLogits)));
    // Rows with label -1 have no loss.
    const at::Tensor targets =
        torch::tensor(labels, at::kLong).to(logits.device());
    semvq::ObjectiveOutput out;
    out.losses = {{"truth", semvq::CrossEntropyAt(logits, targets)}};
    out.metrics = {{"accuracy", semvq::Top1(logits, targets)}};
    return out;
  }

  absl::StatusOr<semvq::TaskResult> Evaluate(
      semvq::EvalContext& context) override {
    int64_t statements = 0, unlabelled = 0, correct = 0, truths = 0;
    std::vector<std::string> rows;
    // With several ranks on one of them.
    const auto judge =
        [&](const semvq::Batch& batch) -> absl::StatusOr<semvq::BatchOutcome> {
      std::unique_ptr<semvq::Forward> forward = context.MakeForward(batch);
      const at::Tensor answers =
          forward->Get<at::Tensor>(semvq::FusedKey(instance_, kTruthLogits))
              .argmax(1)
              .to(at::kCPU);
      return semvq::BatchOutcome{{answers}, {}};
    };
    // On all.
    const auto count = [&](const semvq::Batch& batch,
                           const semvq::BatchOutcome& outcome) {
      const at::Tensor& answers = outcome.tensors[0];
      for (int64_t t = 0; t < batch.num_texts(); ++t) {
        const semvq::TextRecord& text = batch.texts[t];
        const int64_t answer = answers[t].item<int64_t>();
        rows.push_back(absl::StrCat(
            "{\"sentence\": ", semvq::JsonString(text.text),
            ", \"prediction\": ", answer == 1 ? "true" : "false", "}"));
        const int64_t label = LabelOf(text);
        if (label < 0) {
          ++unlabelled;
          continue;
        }
        ++statements;
        correct += answer == label;
        truths += label;
      }
      return absl::OkStatus();
    };
    absl::Status status = context.ShareBatches("", judge, count);
    if (!status.ok()) return status;
    if (statements == 0) {
      return absl::FailedPreconditionError(absl::StrCat(
          "task ", instance_, ": got ", unlabelled,
          " statements without a label, expected some with \"",
          config_.true_label(), "\" or \"", config_.false_label(),
          "\"; evaluate another split, or set true_label and false_label"));
    }

    semvq::TaskResult result;
    semvq::TaskMetric accuracy;
    accuracy.name = "accuracy";
    accuracy.value =
        100.0 * static_cast<double>(correct) / static_cast<double>(statements);
    // Who looks at nothing answers what is right more often.
    accuracy.chance =
        100.0 * static_cast<double>(std::max(truths, statements - truths)) /
        static_cast<double>(statements);
    accuracy.unit = "%";
    accuracy.headline = true;
    result.metrics = {accuracy};
    result.note = absl::StrCat(statements, " statements; chance: always the ",
                               "more frequent label");
    if (unlabelled > 0) {
      absl::StrAppend(&result.note, "; ", unlabelled, " have no label");
    }
    if (context.skipped() > 0) {
      absl::StrAppend(&result.note, "; ", context.skipped(),
                      " bad samples are left out");
    }
    const std::string path =
        semvq::JoinPath(context.output_folder(), instance_ + "_result.json");
    status = semvq::AtomicWriteFile(
        path, absl::StrCat("[\n", absl::StrJoin(rows, ",\n"), "\n]\n"));
    if (!status.ok()) return status;
    result.files = {path};
    return result;
  }

 private:
  // 1: true, 0: false, -1: not known.
  int64_t LabelOf(const semvq::TextRecord& text) const {
    if (text.answers.size() != 1) return -1;
    const std::string& label = text.answers[0].first;
    return label == config_.true_label()    ? 1
           : label == config_.false_label() ? 0
                                            : -1;
  }

  const TrueFalseConfig config_;
  const std::string instance_;
  std::shared_ptr<semvq::Linear> head_;
};

absl::Status Validate(const TrueFalseConfig& config) {
  semvq::FieldErrors errors;
  errors.RequireInstance("fusion", config.fusion());
  errors.Require(config.true_label() != config.false_label(), "false_label",
                 config.false_label(), "another word than true_label");
  return errors.status();
}

semvq::Contract DeclareContract(const std::string& /*instance*/,
                                const TrueFalseConfig& config,
                                const semvq::ContractBook& /*book*/) {
  semvq::Contract contract;
  contract.batch_keys = {"image", "text", "answers"};
  contract.needs = {{"fusion", config.fusion(), semvq::kFused, 0, false,
                     "it judges the fused [CLS]"}};
  contract.provides = {{kTruthLogits, 2}};
  return contract;
}

absl::StatusOr<std::shared_ptr<semvq::Task>> Make(
    const TrueFalseConfig& config, const semvq::PluginContext& context) {
  return std::shared_ptr<semvq::Task>(std::make_shared<TrueFalse>(
      config, context.instance,
      context.book->Dim(config.fusion(), semvq::kFused)));
}

}  // namespace

using semvq::Task;
SEMVQ_REGISTER(Task, TrueFalseConfig, Make, Validate, DeclareContract);

}  // namespace mine
