// A composed experiment: every plugin instance built, its views wired.
#ifndef SEMVQ_TRAINER_MODEL_H_
#define SEMVQ_TRAINER_MODEL_H_

#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/forward/forward.h"
#include "core/forward/providers.h"
#include "core/plugin/contract.h"
#include "core/plugin/objective.h"
#include "core/plugin/quantizer.h"
#include "core/plugin/task.h"
#include "protos/experiment.pb.h"

namespace semvq {

class Tokenizer;

// Parameters and buffers are named <instance>.<name in the plugin>.
class Model : public torch::nn::Module {
 public:
  struct QuantizerEntry {
    std::string name;
    std::shared_ptr<QuantizerViews> views;
    QuantizerConfig config;
    // Weight of one of the quantizer's own losses.
    double LossWeight(const std::string& loss) const;
  };
  struct ObjectiveEntry {
    std::string name;
    std::shared_ptr<Objective> objective;
    ObjectiveConfig config;
    // The objective's weight at an optimizer step.
    double Weight(int64_t step) const;
  };
  struct TaskEntry {
    std::string name;
    std::shared_ptr<Task> task;
    TaskConfig config;
  };

  // `experiment` is one validated stage and `book` its contracts. Parameters
  // are initialised from the seed and the instance's name alone, so that adding
  // an objective changes no other's start. `planning`: see PluginContext.
  static absl::StatusOr<std::shared_ptr<Model>> Compose(
      const Experiment& experiment, const ContractBook& book,
      const Tokenizer* tokenizer, bool planning = false);

  const Providers& providers() const { return providers_; }
  std::vector<QuantizerEntry>& quantizers() { return quantizers_; }
  std::vector<ObjectiveEntry>& objectives() { return objectives_; }
  std::vector<TaskEntry>& tasks() { return tasks_; }

  // Frozen encoders stay in evaluation mode.
  void train(bool on = true) override;

  // Names of the image and text encoders: where the objectives' shares of the
  // gradient are measured.
  const std::vector<std::string>& encoders() const { return encoders_; }

 private:
  void Freeze(const std::string& encoder);

  std::vector<std::string> encoders_;
  std::vector<std::shared_ptr<torch::nn::Module>> frozen_;
  std::vector<std::unique_ptr<ViewProvider>> adapters_;
  std::vector<QuantizerEntry> quantizers_;
  std::vector<ObjectiveEntry> objectives_;
  std::vector<TaskEntry> tasks_;
  Providers providers_;
};

// Copies parameters and buffers of `from` into `to`, which has the same
// composition.
void CopyState(const torch::nn::Module& from, torch::nn::Module& to);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_MODEL_H_
