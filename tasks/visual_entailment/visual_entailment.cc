#include "tasks/visual_entailment/visual_entailment.h"

#include "core/forward/views.h"
#include "core/plugin/field_errors.h"
#include "core/task/classification.h"

namespace semvq {
namespace {

// In ALBEF's order of classes, so that its classifier may be read. "-" is
// SNLI's mark of an example without a majority.
LabelSet EntailmentLabels() {
  return LabelSet({"contradiction", "neutral", "entailment"}, "-");
}

}  // namespace

absl::Status ValidateVisualEntailment(const VisualEntailmentConfig& config) {
  FieldErrors errors;
  CheckClassification(ReadClassification(config, ""), &errors);
  return errors.status();
}

Contract VisualEntailmentContract(const std::string& instance,
                                  const VisualEntailmentConfig& config,
                                  const ContractBook& /*book*/) {
  return ClassificationContract(ReadClassification(config, instance),
                                EntailmentLabels());
}

absl::StatusOr<std::shared_ptr<Task>> MakeVisualEntailment(
    const VisualEntailmentConfig& config, const PluginContext& context) {
  return std::shared_ptr<Task>(std::make_shared<ClassificationTask>(
      ReadClassification(config, context.instance), EntailmentLabels(),
      context.book->Dim(config.fusion(), kFused)));
}

}  // namespace semvq
