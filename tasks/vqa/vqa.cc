#include "tasks/vqa/vqa.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/eval/vqa_accuracy.h"
#include "core/eval/vqa_official.h"
#include "core/forward/types.h"
#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/objective/text_loss.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "tasks/vqa/answer_decoder.h"

namespace semvq {
namespace {

using AnswerCounts = std::map<std::string, double>;

std::string MostFrequent(const AnswerCounts& counts) {
  const auto best = std::max_element(
      counts.begin(), counts.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  return best == counts.end() ? "" : best->first;
}

// Every answer of the record as often as an annotator gave it.
std::vector<std::string> AllSaid(const TextRecord& question) {
  std::vector<std::string> said;
  for (const auto& [answer, share] : question.answers) {
    said.insert(said.end(), std::lround(share * question.annotators), answer);
  }
  return said;
}

class Vqa : public Task {
 public:
  // `decoder`: null for a classifier.
  Vqa(const VqaConfig& config, std::string instance,
      std::vector<std::string> answers, int64_t dim,
      std::shared_ptr<AnswerDecoder> decoder)
      : config_(config),
        instance_(std::move(instance)),
        head_(config.answered_by().empty() ? instance_ : config.answered_by()),
        answers_(std::move(answers)),
        decoder_(std::move(decoder)) {
    for (size_t i = 0; i < answers_.size(); ++i) {
      index_[answers_[i]] = static_cast<int64_t>(i);
    }
    if (head_ != instance_) return;
    if (decoder_ != nullptr) {
      register_module("decoder", decoder_->module());
      return;
    }
    const int64_t hidden = config.hidden() > 0 ? config.hidden() : 2 * dim;
    dense_ = register_module("dense", std::make_shared<Linear>(dim, hidden));
    norm_ = register_module("norm", std::make_shared<LayerNorm>(hidden, 1e-12));
    classifier_ = register_module(
        "classifier", std::make_shared<Linear>(
                          hidden, static_cast<int64_t>(answers_.size())));
  }

  bool can_fine_tune() const override { return head_ == instance_; }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    const bool tokens = decoder_ != nullptr && key.view == kAnswerTokenLogits;
    if (key.view != kAnswerLogits && !tokens)
      return Task::ComputeView(key, forward);
    ViewKey fused_key = key;
    fused_key.instance = config_.fusion();
    fused_key.view = kFused;
    const Tokens& fused = forward.Get<Tokens>(fused_key);
    if (tokens) return decoder_->Logits(fused, decoder_->Rows(forward.batch()));
    if (decoder_ != nullptr) return decoder_->Rank(fused);
    const at::Tensor cls = fused.values.select(/*dim=*/1, 0);
    return classifier_->Forward(norm_->Forward(at::gelu(dense_->Forward(cls))));
  }

  ObjectiveOutput Compute(Forward& forward) override {
    return decoder_ != nullptr ? ComputeDecoder(forward)
                               : ComputeClassifier(forward);
  }

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  ObjectiveOutput ComputeClassifier(Forward& forward);
  ObjectiveOutput ComputeDecoder(Forward& forward);

  // In [0, 1]; by the annotations where there are some.
  double Accuracy(const std::string& answer, const TextRecord& question) const {
    if (annotations_.has_value()) {
      return OfficialVqaAccuracy(answer,
                                 annotations_->Find(question.id)->answers);
    }
    return config_.official_normalization()
               ? OfficialVqaAccuracy(answer, AllSaid(question))
               : VqaAccuracy(answer, question);
  }

  // Whether the list has an answer that somebody gave.
  bool Listed(const TextRecord& question) const {
    if (annotations_.has_value()) {
      const auto& said = annotations_->Find(question.id)->answers;
      return std::any_of(said.begin(), said.end(), [this](const auto& a) {
        const std::string stripped = StripVqaAnswer(a);
        return index_.count(stripped) > 0 ||
               index_.count(NormalizeVqaAnswer(stripped)) > 0;
      });
    }
    return std::any_of(
        question.answers.begin(), question.answers.end(),
        [this](const auto& a) { return index_.count(a.first) > 0; });
  }

  // What is wrong with asking this question, whose predecessors are `ids`.
  absl::Status CheckQuestion(const TextRecord& question,
                             std::set<std::string>& ids) const;
  // Of the annotations, some of which no question was asked for.
  absl::Status CheckCoverage(const EvalContext& context,
                             const std::set<std::string>& asked,
                             TaskResult& result) const;
  void AddAccuracy(const std::vector<TextRecord>& questions,
                   const std::vector<std::string>& given,
                   TaskResult& result) const;
  absl::Status AddBaselines(EvalContext& context,
                            const std::vector<TextRecord>& questions,
                            TaskResult& result) const;

  VqaConfig config_;
  std::string instance_, head_;  // head_: the instance whose head answers.
  std::vector<std::string> answers_;
  std::unordered_map<std::string, int64_t> index_;
  std::shared_ptr<AnswerDecoder> decoder_;
  std::shared_ptr<Linear> dense_, classifier_;
  std::shared_ptr<LayerNorm> norm_;
  std::optional<VqaAnnotations> annotations_;  // Read by Evaluate.
};

// Cross-entropy against the annotators' shares. Questions none of whose
// answers is in the list have no weight.
ObjectiveOutput Vqa::ComputeClassifier(Forward& forward) {
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
                        (mass > 0).to(logits.scalar_type()), forward.group())}};
  c10::NoGradGuard no_grad;
  output.metrics = {
      {"accuracy",
       at::gather(target, 1, logits.argmax(1, true)).squeeze(1).mean()}};
  return output;
}

// Sum over the answers' tokens, weighed by the answers' shares, a question
// [ALBEF].
ObjectiveOutput Vqa::ComputeDecoder(Forward& forward) {
  const AnswerRows rows = decoder_->Rows(forward.batch());
  const at::Tensor& logits =
      forward.Get<at::Tensor>(FusedKey(instance_, kAnswerTokenLogits));
  const double alpha =
      forward.has_teacher()
          ? LinearRamp(config_.alpha(), config_.alpha_ramp_steps(),
                       forward.step())
          : 0.0;
  at::Tensor soft;
  if (alpha > 0) {
    Variant teacher;
    teacher.teacher = true;
    soft = forward.Get<at::Tensor>(
        FusedKey(instance_, kAnswerTokenLogits, teacher));
  }
  const at::Tensor answers =
      TokenLosses(logits, rows.targets, /*label_smoothing=*/0.0, soft, alpha)
          .sum(1);
  ObjectiveOutput output;
  output.losses = {
      {"answer",
       MeanOverCount((answers * rows.weight.to(answers.scalar_type())).sum(),
                     at::full({}, rows.answered, rows.targets.options()),
                     forward.group())}};
  output.metrics = {{"token_top1", Top1(logits, rows.targets)}};
  return output;
}

absl::Status Vqa::CheckQuestion(const TextRecord& question,
                                std::set<std::string>& ids) const {
  const auto error = [&](const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrCat("task ", instance_, ": question \"", question.text,
                     "\" (question_id \"", question.id, "\") ", what));
  };
  if (!question.id.empty() && !ids.insert(question.id).second) {
    return error(
        "comes twice in the stream; every question_id must be asked once");
  }
  if (config_.predict_only()) {
    return question.id.empty() ? error("has no id to write the answer for")
                               : absl::OkStatus();
  }
  if (annotations_.has_value()) {
    if (annotations_->Find(question.id) != nullptr) return absl::OkStatus();
    return error(
        absl::StrCat("is not in ", config_.annotations(),
                     "; evaluate the split that the annotations are of"));
  }
  if (!question.answers.empty()) return absl::OkStatus();
  return error(
      "has no answer to compare with; evaluate a split with answers, or set "
      "predict_only to write answers for a server");
}

absl::Status Vqa::CheckCoverage(const EvalContext& context,
                                const std::set<std::string>& asked,
                                TaskResult& result) const {
  int64_t missing = 0;
  std::string first;
  for (const auto& [id, annotation] : annotations_->all()) {
    if (asked.count(id) > 0) continue;
    if (missing++ == 0) first = id;
  }
  if (missing == 0) return absl::OkStatus();
  const std::string what =
      absl::StrCat(missing, " of ", annotations_->all().size(),
                   " annotations have no question in the stream");
  if (config_.partial()) {
    absl::StrAppend(&result.note, "; ", what, " and are left out");
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "task ", instance_, ": ", what, " (", context.skipped(),
      " bad samples were skipped), the first is question_id ", first, " of ",
      config_.annotations(),
      "; complete the stream, or set partial to score the others alone"));
}

void Vqa::AddAccuracy(const std::vector<TextRecord>& questions,
                      const std::vector<std::string>& given,
                      TaskResult& result) const {
  struct Sum {
    double correct = 0;
    int64_t count = 0;
  };
  Sum all;
  std::map<std::string, Sum> by_answer_type, by_question_type;
  int64_t unlisted = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    const double correct = Accuracy(given[i], questions[i]);
    std::vector<Sum*> sums = {&all};
    if (annotations_.has_value()) {
      const VqaAnnotation& annotation = *annotations_->Find(questions[i].id);
      sums.push_back(&by_answer_type[annotation.answer_type]);
      sums.push_back(&by_question_type[annotation.question_type]);
    }
    for (Sum* sum : sums) {
      sum->correct += correct;
      ++sum->count;
    }
    unlisted += !Listed(questions[i]);
  }
  const auto add = [&](const std::string& name, const Sum& sum, double chance,
                       bool headline) {
    TaskMetric metric;
    metric.name = name;
    metric.value = 100 * sum.correct / static_cast<double>(sum.count);
    metric.chance = chance;
    metric.unit = "%";
    metric.headline = headline;
    result.metrics.push_back(metric);
  };
  add("accuracy", all, 100.0 / static_cast<double>(answers_.size()), true);
  for (const auto& [type, sum] : by_answer_type)
    add(absl::StrCat("accuracy, ", type), sum, std::nan(""), true);
  for (const auto& [type, sum] : by_question_type)
    add(absl::StrCat("accuracy, \"", type, "\" questions"), sum, std::nan(""),
        false);
  if (unlisted > 0) {
    absl::StrAppend(&result.note, "; ", unlisted,
                    " questions have no answer in the list");
  }
}

absl::StatusOr<TaskResult> Vqa::Evaluate(EvalContext& context) {
  if (!config_.annotations().empty() && !annotations_.has_value()) {
    auto annotations = VqaAnnotations::Load(config_.annotations());
    if (!annotations.ok()) return annotations.status();
    annotations_ = *std::move(annotations);
  }
  std::vector<TextRecord> questions;
  std::vector<std::string> given;
  std::set<std::string> ids;
  std::string json = "[";
  const auto compute = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const at::Tensor& logits =
        forward->Get<at::Tensor>(FusedKey(head_, kAnswerLogits));
    if (logits.size(1) != static_cast<int64_t>(answers_.size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "task ", instance_, ": answer_list holds ", answers_.size(),
          " answers, that of \"", head_, "\" (answered_by) ", logits.size(1),
          "; give both the same"));
    }
    return BatchOutcome{{logits.argmax(1).to(at::kCPU)}, {}};
  };
  const auto take = [&](const Batch& batch, const BatchOutcome& outcome) {
    const at::Tensor& best = outcome.tensors[0];
    for (int64_t t = 0; t < batch.num_texts(); ++t) {
      const TextRecord& question = batch.texts[t];
      if (absl::Status s = CheckQuestion(question, ids); !s.ok()) return s;
      given.push_back(answers_[best[t].item<int64_t>()]);
      absl::StrAppend(&json, questions.empty() ? "\n" : ",\n",
                      "{\"question_id\": ", JsonNumberOrString(question.id),
                      ", \"answer\": ", JsonString(given.back()), "}");
      questions.push_back(question);
    }
    return absl::OkStatus();
  };
  absl::Status status = context.ShareBatches("", compute, take);
  if (!status.ok()) return status;
  if (questions.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("task ", instance_, ": the stream holds no question"));
  }
  TaskResult result;
  result.note = absl::StrCat(questions.size(), " questions, ", answers_.size(),
                             " answers");
  if (annotations_.has_value()) {
    status = CheckCoverage(context, ids, result);
    if (!status.ok()) return status;
  }
  json += "\n]\n";
  const std::string path = JoinPath(context.output_folder(),
                                    absl::StrCat(instance_, "_result.json"));
  status = AtomicWriteFile(path, json);
  if (!status.ok()) return status;
  result.files.push_back(path);

  if (config_.predict_only()) {
    TaskMetric count;
    count.name = "questions answered";
    count.value = static_cast<double>(questions.size());
    count.chance = std::nan("");
    count.headline = true;
    result.metrics.push_back(count);
  } else {
    AddAccuracy(questions, given, result);
  }
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  if (!config_.baseline_stream().empty() && !config_.predict_only()) {
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
    of_majority += Accuracy(majority, question);
    auto found = by_text.find(question.text);
    of_text += Accuracy(
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
  ValidateTextDecoder(config.decoder(), &errors);
  errors.RequirePositive("rank_top_k", config.rank_top_k());
  errors.RequirePositive("rank_batch_size", config.rank_batch_size());
  errors.Require(config.alpha() >= 0 && config.alpha() <= 1, "alpha",
                 config.alpha(), "a share in [0, 1]");
  errors.RequireNotNegative("alpha_ramp_steps", config.alpha_ramp_steps());
  errors.Require(!config.predict_only() || config.annotations().empty(),
                 "predict_only", "true together with annotations",
                 "one of them: predict_only compares nothing");
  return errors.status();
}

Contract VqaContract(const std::string& /*instance*/, const VqaConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image", "text"};
  if (!config.predict_only()) contract.batch_keys.push_back("answers");
  if (!config.answered_by().empty()) {
    contract.needs = {{"answered_by", config.answered_by(), kAnswerLogits}};
  } else {
    contract.needs = {{"fusion", config.fusion(), kFused}};
    contract.provides = {{kAnswerLogits, 0}};
  }
  if (config.answered_by().empty() && config.head() == VqaConfig::DECODER)
    contract.provides.push_back({kAnswerTokenLogits, 0});
  contract.files = {
      {"answer_list", config.answer_list(), "JSON list of answer strings"}};
  if (!config.annotations().empty()) {
    contract.files.push_back({"annotations", config.annotations(),
                              "VQA v2's annotations file (JSON)"});
  }
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
  const int64_t dim = context.book->Dim(config.fusion(), kFused);
  std::shared_ptr<AnswerDecoder> decoder;
  if (config.head() == VqaConfig::DECODER && config.answered_by().empty()) {
    auto made = AnswerDecoder::Make(config, context, dim, *answers);
    if (!made.ok()) return made.status();
    decoder = *std::move(made);
  }
  return std::shared_ptr<Task>(std::make_shared<Vqa>(
      config, context.instance, *std::move(answers), dim, std::move(decoder)));
}

}  // namespace semvq
