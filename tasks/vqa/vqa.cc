#include "tasks/vqa/vqa.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/eval/vqa_accuracy.h"
#include "core/forward/types.h"
#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/util/file.h"
#include "core/util/json.h"

namespace semvq {
namespace {

using AnswerCounts = std::map<std::string, double>;

std::string MostFrequent(const AnswerCounts& counts) {
  const auto best = std::max_element(
      counts.begin(), counts.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  return best == counts.end() ? "" : best->first;
}

class Vqa : public Task {
 public:
  Vqa(const VqaConfig& config, std::string instance,
      std::vector<std::string> answers, int64_t dim)
      : config_(config),
        instance_(std::move(instance)),
        answers_(std::move(answers)) {
    for (size_t i = 0; i < answers_.size(); ++i) {
      index_[answers_[i]] = static_cast<int64_t>(i);
    }
    const int64_t hidden = config.hidden() > 0 ? config.hidden() : 2 * dim;
    dense_ = register_module("dense", std::make_shared<Linear>(dim, hidden));
    norm_ = register_module("norm", std::make_shared<LayerNorm>(hidden, 1e-12));
    classifier_ = register_module(
        "classifier", std::make_shared<Linear>(
                          hidden, static_cast<int64_t>(answers_.size())));
  }

  bool can_fine_tune() const override { return true; }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view != kAnswerLogits) return Task::ComputeView(key, forward);
    ViewKey fused = key;
    fused.instance = config_.fusion();
    fused.view = kFused;
    const at::Tensor cls =
        forward.Get<Tokens>(fused).values.select(/*dim=*/1, 0);
    return classifier_->Forward(norm_->Forward(at::gelu(dense_->Forward(cls))));
  }

  // Cross-entropy against the annotators' shares. Questions none of whose
  // answers is in the list have no weight.
  ObjectiveOutput Compute(Forward& forward) override {
    const at::Tensor logits =
        Upcast(forward.Get<at::Tensor>(FusedKey(instance_, kAnswerLogits)));
    at::Tensor target = at::zeros(logits.sizes(), at::kFloat);
    auto table = target.accessor<float, 2>();
    const std::vector<TextRecord>& texts = forward.batch().texts;
    for (size_t t = 0; t < texts.size(); ++t) {
      for (const auto& [answer, share] : texts[t].answers) {
        auto found = index_.find(answer);
        if (found != index_.end()) {
          table[static_cast<int64_t>(t)][found->second] += share;
        }
      }
    }
    target = target.to(logits.device(), logits.scalar_type());
    const at::Tensor mass = target.sum(1);
    ObjectiveOutput output;
    output.losses = {
        {"answer",
         SoftCrossEntropy(logits, target / mass.clamp_min(1e-6).unsqueeze(1),
                          (mass > 0).to(logits.scalar_type()))}};
    c10::NoGradGuard no_grad;
    output.metrics = {
        {"accuracy",
         at::gather(target, 1, logits.argmax(1, true)).squeeze(1).mean()}};
    return output;
  }

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  absl::Status AddBaselines(EvalContext& context,
                            const std::vector<TextRecord>& questions,
                            TaskResult& result) const;

  VqaConfig config_;
  std::string instance_;
  std::vector<std::string> answers_;
  std::unordered_map<std::string, int64_t> index_;
  std::shared_ptr<Linear> dense_, classifier_;
  std::shared_ptr<LayerNorm> norm_;
};

absl::StatusOr<TaskResult> Vqa::Evaluate(EvalContext& context) {
  std::vector<TextRecord> questions;
  double correct = 0;
  int64_t unlisted = 0;
  std::string json = "[";
  absl::Status status = context.ForEachBatch([&](const Batch& batch) {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const at::Tensor best =
        forward->Get<at::Tensor>(FusedKey(instance_, kAnswerLogits))
            .argmax(1)
            .to(at::kCPU);
    for (int64_t t = 0; t < batch.num_texts(); ++t) {
      const TextRecord& question = batch.texts[t];
      if (question.answers.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("task ", instance_, ": question \"", question.text,
                         "\" (question_id \"", question.id,
                         "\") has no answer to compare with; evaluate a split "
                         "with answers"));
      }
      const std::string& answer = answers_[best[t].item<int64_t>()];
      correct += VqaAccuracy(answer, question);
      unlisted += std::none_of(
          question.answers.begin(), question.answers.end(),
          [this](const auto& a) { return index_.count(a.first) > 0; });
      absl::StrAppend(&json, questions.empty() ? "\n" : ",\n",
                      "{\"question_id\": ", JsonNumberOrString(question.id),
                      ", \"answer\": ", JsonString(answer), "}");
      questions.push_back(question);
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (questions.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("task ", instance_, ": the stream holds no question"));
  }
  json += "\n]\n";
  TaskResult result;
  const std::string path = JoinPath(context.output_folder(),
                                    absl::StrCat(instance_, "_result.json"));
  status = AtomicWriteFile(path, json);
  if (!status.ok()) return status;
  result.files.push_back(path);

  TaskMetric accuracy;
  accuracy.name = "accuracy";
  accuracy.value = 100 * correct / static_cast<double>(questions.size());
  accuracy.chance = 100.0 / static_cast<double>(answers_.size());
  accuracy.unit = "%";
  accuracy.headline = true;
  result.metrics.push_back(accuracy);
  result.note = absl::StrCat(questions.size(), " questions, ", answers_.size(),
                             " answers");
  if (unlisted > 0) {
    absl::StrAppend(&result.note, "; ", unlisted,
                    " questions have no answer in the list");
  }
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  if (!config_.baseline_stream().empty()) {
    status = AddBaselines(context, questions, result);
    if (!status.ok()) return status;
  }
  return result;
}

absl::Status Vqa::AddBaselines(EvalContext& context,
                               const std::vector<TextRecord>& questions,
                               TaskResult& result) const {
  AnswerCounts all;
  std::map<std::string, AnswerCounts> by_text;
  absl::Status status = context.ForEachText(
      config_.baseline_stream(), [&](const TextRecord& question) {
        for (const auto& [answer, share] : question.answers) {
          all[answer] += share;
          by_text[question.text][answer] += share;
        }
      });
  if (!status.ok()) return status;
  const std::string majority = MostFrequent(all);
  double of_majority = 0, of_text = 0;
  for (const TextRecord& question : questions) {
    of_majority += VqaAccuracy(majority, question);
    auto found = by_text.find(question.text);
    of_text += VqaAccuracy(
        found == by_text.end() ? majority : MostFrequent(found->second),
        question);
  }
  const double n = static_cast<double>(questions.size());
  for (const auto& [name, value] :
       {std::pair<const char*, double>{"majority answer", of_majority},
        {"best answer per question text", of_text}}) {
    TaskMetric metric;
    metric.name = absl::StrCat("baseline: ", name);
    metric.value = 100 * value / n;
    metric.chance = std::nan("");
    metric.unit = "%";
    metric.headline = true;
    result.metrics.push_back(metric);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateVqa(const VqaConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("fusion", config.fusion());
  errors.Require(!config.answer_list().empty(), "answer_list", "nothing",
                 "the path of a JSON list of answers");
  errors.Require(config.hidden() >= 0, "hidden", config.hidden(), "0 or more");
  constexpr int64_t kMaxAnswers = 10'000'000;
  errors.Require(config.expected_answers() >= 0 &&
                     config.expected_answers() <= kMaxAnswers &&
                     config.expected_answers() != 1,
                 "expected_answers", config.expected_answers(),
                 "0 (any) or 2 to 10000000");
  return errors.status();
}

Contract VqaContract(const std::string& /*instance*/, const VqaConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image", "text", "answers"};
  contract.needs = {{"fusion", config.fusion(), kFused}};
  contract.provides = {{kAnswerLogits, 0}};
  contract.files = {
      {"answer_list", config.answer_list(), "JSON list of answer strings"}};
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeVqa(const VqaConfig& config,
                                              const PluginContext& context) {
  absl::StatusOr<std::vector<std::string>> answers =
      ReadJsonStringList(config.answer_list());
  if (absl::IsNotFound(answers.status()) && context.planning &&
      config.expected_answers() > 0) {
    // Nobody reads them: random batches have no answers.
    answers = std::vector<std::string>();
    for (int64_t i = 0; i < config.expected_answers(); ++i)
      answers->push_back(absl::StrCat(i));
  }
  if (!answers.ok()) return answers.status();
  if (config.expected_answers() > 0 &&
      static_cast<int64_t>(answers->size()) != config.expected_answers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("answer_list ", config.answer_list(), " holds ",
                     answers->size(), " answers, expected_answers is ",
                     config.expected_answers(), "; correct one of them"));
  }
  if (answers->size() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("answer_list ", config.answer_list(), " holds ",
                     answers->size(), " answers, expected at least 2"));
  }
  std::set<std::string> seen;
  for (const std::string& answer : *answers) {
    if (seen.insert(answer).second) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("answer_list ", config.answer_list(), " holds \"", answer,
                     "\" twice, expected distinct answers: remove one"));
  }
  return std::shared_ptr<Task>(
      std::make_shared<Vqa>(config, context.instance, *std::move(answers),
                            context.book->Dim(config.fusion(), kFused)));
}

}  // namespace semvq
