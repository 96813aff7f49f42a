#include "core/forward/testing_eval.h"

#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/util/file.h"
#include "gtest/gtest.h"

namespace semvq {

FakeEvalContext::FakeEvalContext(std::vector<Batch> batches) {
  streams[""] = std::move(batches);
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  folder = JoinPath(testing::TempDir(),
                    absl::StrCat(test->test_suite_name(), ".", test->name()));
  absl::Status status = RemoveTree(folder);
  status.Update(MakeDirectories(folder));
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

FakeProvider& FakeEvalContext::Provide(const std::string& instance,
                                       FakeProvider::Function function) {
  owned_.push_back(std::make_unique<FakeProvider>(std::move(function)));
  providers[instance] = owned_.back().get();
  return *owned_.back();
}

absl::Status FakeEvalContext::ForEachBatch(
    const std::function<absl::Status(const Batch&)>& visit) {
  return ForEachBatch("", visit);
}

absl::Status FakeEvalContext::ForEachBatch(
    const std::string& stream,
    const std::function<absl::Status(const Batch&)>& visit) {
  auto found = streams.find(stream);
  if (found == streams.end()) {
    return absl::NotFoundError(absl::StrCat("no stream \"", stream, "\""));
  }
  for (const Batch& batch : found->second) {
    absl::Status status = visit(batch);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status FakeEvalContext::ForEachText(
    const std::string& stream,
    const std::function<void(const TextRecord&)>& visit) {
  return ForEachBatch(stream, [&visit](const Batch& batch) {
    for (const TextRecord& text : batch.texts) visit(text);
    return absl::OkStatus();
  });
}

std::unique_ptr<Forward> FakeEvalContext::MakeForward(const Batch& batch) {
  ++forwards_made;
  return std::make_unique<Forward>(batch, providers, nullptr,
                                   ForwardOptions{false, seed(), 0});
}

const TaskMetric& MetricOf(const TaskResult& result, const std::string& name) {
  for (const TaskMetric& metric : result.metrics) {
    if (metric.name == name) return metric;
  }
  throw std::out_of_range("no metric named " + name);
}

}  // namespace semvq
