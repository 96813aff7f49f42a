#include "trainer/stage_log.h"

#include <torch/types.h>

#include "absl/types/span.h"
#include "core/metrics/metric_log.h"
#include "core/metrics/progress.h"
#include "core/metrics/tensorboard.h"
#include "core/util/file.h"

namespace semvq {

void IntervalMeans::Add(const NamedTensors& values) {
  for (const auto& [name, value] : values) {
    Sum& sum = sums_[name];
    const at::Tensor v = value.detach().to(at::kDouble);
    sum.sum = sum.sum.defined() ? sum.sum + v : v;
    ++sum.count;
  }
}

void IntervalMeans::Share(Communicator* group) {
  if (sums_.empty()) return;
  std::vector<at::Tensor> sums;
  for (const auto& [name, sum] : sums_) sums.push_back(sum.sum.cpu());
  const at::Tensor means =
      group->AllReduceSum(at::stack(sums)) / static_cast<double>(group->size());
  int64_t i = 0;
  for (auto& [name, sum] : sums_) sum.sum = means[i++];
}

std::map<std::string, double> IntervalMeans::Take() {
  std::map<std::string, double> means;
  for (const auto& [name, sum] : sums_) {
    means[name] = sum.sum.item<double>() / static_cast<double>(sum.count);
  }
  sums_.clear();
  for (const auto& [name, mean] : means) {
    first_.emplace(name, mean);
    last_[name] = mean;
  }
  return means;
}

NamedTensors IntervalMeans::State() const {
  NamedTensors state;
  for (const auto& [name, sum] : sums_) {
    state.emplace_back("sum/" + name, sum.sum.to(at::kCPU));
    state.emplace_back("count/" + name, torch::tensor(sum.count));
  }
  for (const auto& [name, value] : first_) {
    state.emplace_back("first/" + name, torch::tensor(value, at::kDouble));
  }
  for (const auto& [name, value] : last_) {
    state.emplace_back("last/" + name, torch::tensor(value, at::kDouble));
  }
  return state;
}

void IntervalMeans::LoadState(const NamedTensors& state) {
  *this = IntervalMeans();
  for (const auto& [key, value] : state) {
    const size_t slash = key.find('/');
    const std::string kind = key.substr(0, slash), name = key.substr(slash + 1);
    if (kind == "sum") sums_[name].sum = value;
    if (kind == "count") sums_[name].count = value.item<int64_t>();
    if (kind == "first") first_[name] = value.item<double>();
    if (kind == "last") last_[name] = value.item<double>();
  }
}

std::vector<LoggedValue> IntervalMeans::Summary() const {
  std::vector<LoggedValue> summary;
  for (const auto& [name, first] : first_) {
    LoggedValue value;
    value.set_name(name);
    value.set_first(first);
    value.set_last(last_.at(name));
    summary.push_back(std::move(value));
  }
  return summary;
}

struct StageLog::Impl {
  std::unique_ptr<MetricLogger> jsonl;
  std::unique_ptr<TensorBoardWriter> tensorboard;
  std::unique_ptr<ProgressLine> progress;
};

StageLog::StageLog() : impl_(std::make_unique<Impl>()) {}
StageLog::~StageLog() = default;

absl::StatusOr<std::unique_ptr<StageLog>> StageLog::Create(
    const StageLogOptions& options) {
  std::unique_ptr<StageLog> log(new StageLog);
  const std::string path = JoinPath(options.folder, "metrics.jsonl");
  auto jsonl = options.start_step > 0
                   ? MetricLogger::Resume(path, options.start_step)
                   : MetricLogger::Create(path);
  if (!jsonl.ok()) return jsonl.status();
  log->impl_->jsonl = *std::move(jsonl);
  if (options.tensorboard) {
    auto writer = TensorBoardWriter::Create(
        JoinPath(options.folder, "tensorboard"),
        options.start_step > 0 ? options.start_step + 1 : 0);
    if (!writer.ok()) return writer.status();
    log->impl_->tensorboard = *std::move(writer);
  }
  ProgressLine::Options progress;
  progress.first_step = options.start_step;
  progress.total_steps = options.total_steps;
  progress.label = options.name;
  log->impl_->progress = std::make_unique<ProgressLine>(progress);
  return log;
}

absl::Status StageLog::Record(int64_t step,
                              const std::map<std::string, double>& means) {
  const MetricValues values(means.begin(), means.end());
  absl::Status status = impl_->jsonl->Log(step, values);
  if (!status.ok() || impl_->tensorboard == nullptr) return status;
  return impl_->tensorboard->Scalars(step, values);
}

absl::Status StageLog::Codes(int64_t step, const CodeVectors& codes) {
  TensorBoardWriter* writer = impl_->tensorboard.get();
  if (writer == nullptr) return absl::OkStatus();
  const auto values = [](const at::Tensor& t) {
    return absl::MakeConstSpan(t.data_ptr<float>(), t.numel());
  };
  absl::Status status;
  if (codes.counts.defined()) {
    status = writer->IndexHistogramOf(step, codes.name + "/codes",
                                      values(codes.counts));
    status.Update(writer->HistogramOf(step, codes.name + "/code_counts",
                                      values(codes.counts)));
  }
  if (codes.age.defined()) {
    status.Update(
        writer->HistogramOf(step, codes.name + "/code_age", values(codes.age)));
  }
  return status;
}

void StageLog::Progress(int64_t step, std::optional<double> loss,
                        double wait_seconds) {
  impl_->progress->Update(step, loss, wait_seconds);
}

void StageLog::Print(const std::string& text) { impl_->progress->Print(text); }

void StageLog::Close() { impl_->progress->Finish(); }

}  // namespace semvq
