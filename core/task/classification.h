// A task whose answer is one of a few labels, read off the fused [CLS] by a
// small classifier: ALBEF's heads for NLVR2 and visual entailment.
#ifndef SEMVQ_CORE_TASK_CLASSIFICATION_H_
#define SEMVQ_CORE_TASK_CLASSIFICATION_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/eval/confusion.h"
#include "core/plugin/contract.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/task/label_set.h"

namespace semvq {

class Linear;

// at::Tensor [P, classes]: tasks that classify a text with its images.
inline constexpr char kClassLogits[] = "class_logits";

struct ClassificationOptions {
  std::string instance;  // The task's own.
  std::string fusion;    // Whose fused [CLS] is classified.
  // The instance of the task whose classifier answers; empty: this one's own.
  // One that borrows its classifier has no parameters and is only evaluated.
  std::string classifier;
  int64_t hidden = 0;       // Width of the hidden layer; 0: the fusion's.
  int64_t image_slots = 1;  // That every sample must have.
  // Share of the teacher's prediction in the target, reached linearly from 0
  // over so many optimizer steps; without a teacher targets are hard.
  double alpha = 0;
  int64_t alpha_ramp_steps = 0;
  // Stream of training texts, from which the baselines without an image are
  // counted; empty: not reported.
  std::string baseline_stream;
};

// Of a config with the fields fusion, classifier, hidden, alpha,
// alpha_ramp_steps and baseline_stream.
template <class Config>
ClassificationOptions ReadClassification(const Config& config,
                                         std::string instance) {
  ClassificationOptions options;
  options.instance = std::move(instance);
  options.fusion = config.fusion();
  options.classifier = config.classifier();
  options.hidden = config.hidden();
  options.alpha = config.alpha();
  options.alpha_ramp_steps = config.alpha_ramp_steps();
  options.baseline_stream = config.baseline_stream();
  return options;
}

void CheckClassification(const ClassificationOptions& options,
                         FieldErrors* errors);
Contract ClassificationContract(const ClassificationOptions& options,
                                const LabelSet& labels);

// Parameters, unless the classifier is borrowed: dense, classifier:
// classifier(relu(dense([CLS]))) [ALBEF]. Provides kClassLogits.
class ClassificationTask : public Task {
 public:
  // `dim`: of the fused tokens.
  ClassificationTask(ClassificationOptions options, LabelSet labels,
                     int64_t dim);

  bool can_fine_tune() const override { return classifier_ != nullptr; }
  std::any ComputeView(const ViewKey& key, Forward& forward) override;
  // Cross-entropy, with the teacher's share in the target. Texts without a
  // label (as in --mode=plan) and ignored ones have no weight; an unknown label
  // throws c10::Error.
  ObjectiveOutput Compute(Forward& forward) override;
  // Accuracy over all labelled texts of the stream, accuracy of each class,
  // baselines. Writes <instance>_result.json:
  //   {"labels": [...], "examples": n, "skipped": bad samples left out,
  //    "ignored": texts left out, "accuracy": share, "confusion": [[...]],
  //    ..., "predictions": [{"id", "image", "text", "label", "prediction"}]}
  // where rows of the confusion matrix are true classes, columns predicted
  // ones. A text without a label, or with an unknown one, is an error.
  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 protected:
  struct Example {
    std::string id, image, text;  // TextRecord's id; the image's id.
    int64_t label = 0, predicted = 0;
  };
  // Numbers for the result file, by name.
  using Extras = std::vector<std::pair<std::string, double>>;

  // What a task measures or writes beside. Metrics come after the accuracy,
  // before the classes' own.
  virtual absl::Status Report(const std::vector<Example>& /*examples*/,
                              EvalContext& /*context*/, TaskResult* /*result*/,
                              Extras* /*extras*/) {
    return absl::OkStatus();
  }

  const ClassificationOptions& options() const { return options_; }
  const LabelSet& labels() const { return labels_; }

 private:
  // The class of each text.
  absl::StatusOr<BatchOutcome> Classify(const Batch& batch,
                                        EvalContext& context) const;
  absl::Status Take(const Batch& batch, const BatchOutcome& outcome,
                    std::vector<Example>* examples, int64_t* ignored) const;
  absl::Status AddBaselines(EvalContext& context,
                            const std::vector<Example>& examples,
                            TaskResult* result) const;
  std::string ResultJson(const std::vector<Example>& examples,
                         const ConfusionMatrix& confusion, int64_t skipped,
                         int64_t ignored, const Extras& extras) const;

  const ClassificationOptions options_;
  const LabelSet labels_;
  std::shared_ptr<Linear> dense_, classifier_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_TASK_CLASSIFICATION_H_
