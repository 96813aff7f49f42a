#include "tasks/nlvr2/nlvr2.h"

#include <cmath>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/views.h"
#include "core/plugin/field_errors.h"
#include "core/task/classification.h"
#include "core/util/file.h"
#include "tasks/nlvr2/consistency.h"

namespace semvq {
namespace {

// ALBEF's classes: 0 and 1, spelt as the official files spell them.
LabelSet Nlvr2Labels() { return LabelSet({"False", "True"}); }

class Nlvr2 : public ClassificationTask {
 public:
  Nlvr2(ClassificationOptions options, int64_t dim)
      : ClassificationTask(std::move(options), Nlvr2Labels(), dim) {}

 protected:
  absl::Status Report(const std::vector<Example>& examples,
                      EvalContext& context, TaskResult* result,
                      Extras* extras) override {
    std::vector<JudgedStatement> judged;
    for (const Example& e : examples)
      judged.push_back({e.id, e.image, e.text, e.label == e.predicted});
    absl::StatusOr<Consistency> consistency = MeasureConsistency(judged);
    if (!consistency.ok()) return consistency.status();

    TaskMetric metric;
    metric.name = "consistency";
    metric.value = 100 * consistency->share();
    metric.chance = 100 * consistency->chance;
    metric.unit = "%";
    metric.headline = true;
    result->metrics.push_back(metric);
    metric = TaskMetric();
    metric.name = "statements";
    metric.value = static_cast<double>(consistency->statements);
    metric.chance = std::nan("");
    result->metrics.push_back(metric);
    *extras = {{"consistency", consistency->share()},
               {"statements", static_cast<double>(consistency->statements)}};
    if (!consistency->official) {
      absl::StrAppend(&result->note,
                      "; statements told by image set and text, for the "
                      "records have no identifiers");
      return absl::OkStatus();
    }
    return WriteCsv(examples, context, result);
  }

 private:
  // As the official script reads it.
  absl::Status WriteCsv(const std::vector<Example>& examples,
                        EvalContext& context, TaskResult* result) const {
    std::string csv;
    for (const Example& e : examples) {
      if (absl::StrContains(e.id, ',') || absl::StrContains(e.id, '\n')) {
        return absl::InvalidArgumentError(absl::StrCat(
            "got the identifier \"", e.id,
            "\", expected none with a comma, which the official CSV cannot "
            "hold"));
      }
      absl::StrAppend(&csv, e.id, ",", labels().name(e.predicted), "\n");
    }
    const std::string path =
        JoinPath(context.output_folder(),
                 absl::StrCat(options().instance, "_predictions.csv"));
    absl::Status status = AtomicWriteFile(path, csv);
    if (status.ok()) result->files.push_back(path);
    return status;
  }
};

ClassificationOptions Options(const Nlvr2Config& config,
                              const std::string& instance) {
  ClassificationOptions options = ReadClassification(config, instance);
  options.image_slots = 2;
  return options;
}

}  // namespace

absl::Status ValidateNlvr2(const Nlvr2Config& config) {
  FieldErrors errors;
  CheckClassification(Options(config, ""), &errors);
  return errors.status();
}

Contract Nlvr2Contract(const std::string& instance, const Nlvr2Config& config,
                       const ContractBook& /*book*/) {
  return ClassificationContract(Options(config, instance), Nlvr2Labels());
}

absl::StatusOr<std::shared_ptr<Task>> MakeNlvr2(const Nlvr2Config& config,
                                                const PluginContext& context) {
  return std::shared_ptr<Task>(
      std::make_shared<Nlvr2>(Options(config, context.instance),
                              context.book->Dim(config.fusion(), kFused)));
}

}  // namespace semvq
