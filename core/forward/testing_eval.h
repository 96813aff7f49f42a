// What tests of tasks evaluate on: given batches, and a real Forward over
// providers that the test makes up.
#ifndef SEMVQ_CORE_FORWARD_TESTING_EVAL_H_
#define SEMVQ_CORE_FORWARD_TESTING_EVAL_H_

#include <any>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/forward/forward.h"
#include "core/plugin/task.h"

namespace semvq {

// Computes views by a function and remembers what it was asked for.
class FakeProvider : public ViewProvider {
 public:
  using Function = std::function<std::any(const ViewKey&, Forward&)>;
  explicit FakeProvider(Function function) : function_(std::move(function)) {}

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    asked.push_back(key);
    return function_(key, forward);
  }

  std::vector<ViewKey> asked;

 private:
  Function function_;
};

// Serves `streams`; the task's own is "". Result files go to a fresh folder
// named after the running test.
class FakeEvalContext : public EvalContext {
 public:
  explicit FakeEvalContext(std::vector<Batch> batches = {});

  // Adds a provider that the context owns, in place of any of that name.
  FakeProvider& Provide(const std::string& instance,
                        FakeProvider::Function function);

  absl::Status ForEachBatch(
      const std::function<absl::Status(const Batch&)>& visit) override;
  absl::Status ForEachBatch(
      const std::string& stream,
      const std::function<absl::Status(const Batch&)>& visit) override;
  absl::Status ForEachText(
      const std::string& stream,
      const std::function<void(const TextRecord&)>& visit) override;
  std::unique_ptr<Forward> MakeForward(const Batch& batch) override;
  int64_t skipped() const override { return skipped_samples; }
  std::string output_folder() const override { return folder; }
  uint64_t seed() const override { return 11; }

  std::map<std::string, std::vector<Batch>> streams;
  Providers providers;
  std::string folder;
  int64_t skipped_samples = 0;
  int64_t forwards_made = 0;

 private:
  std::vector<std::unique_ptr<FakeProvider>> owned_;
};

// The metric of that name; throws std::out_of_range when there is none.
const TaskMetric& MetricOf(const TaskResult& result, const std::string& name);

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_TESTING_EVAL_H_
