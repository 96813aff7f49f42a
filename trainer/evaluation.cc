#include "trainer/evaluation.h"

#include <sys/resource.h>
#include <time.h>
#include <torch/types.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/metrics/progress.h"
#include "core/util/file.h"
#include "data/loader.h"
#include "google/protobuf/text_format.h"
#include "trainer/trainer.h"

namespace semvq {

StreamEvalContext::StreamEvalContext(const StageSetup& setup, Model& model,
                                     const TaskConfig& config)
    : setup_(setup), model_(model), config_(config), folder_(setup.folder) {
  if (setup.rank() == 0) return;
  folder_ = JoinPath(setup.folder, absl::StrCat(".rank", setup.rank()));
  absl::Status status = RemoveTree(folder_);
  status.Update(MakeDirectories(folder_));
  TORCH_CHECK(status.ok(), std::string(status.message()));
}

StreamEvalContext::~StreamEvalContext() {
  if (folder_ != setup_.folder) RemoveTree(folder_).IgnoreError();
}

absl::Status StreamEvalContext::ForEachBatch(
    const std::function<absl::Status(const Batch&)>& visit) {
  return ForEachBatch(config_.stream(), visit);
}

absl::Status StreamEvalContext::ForEachBatch(
    const std::string& stream,
    const std::function<absl::Status(const Batch&)>& visit) {
  const Experiment& e = setup_.experiment;
  auto config = Streams::Find(e, stream);
  if (!config.ok()) return config.status();
  auto source = setup_.streams->Open(e, stream);
  if (!source.ok()) return source.status();
  LoaderOptions options;
  options.batch_size = config_.batch_size();
  options.seed = e.seed();
  options.max_tokens = e.text().max_tokens();
  options.max_words = e.text().max_words();
  options.training = false;
  auto loader =
      Loader::Create(**config, *source, setup_.tokenizer, e.data(), options);
  if (!loader.ok()) return loader.status();
  ProgressLine::Options shown;
  shown.label = config_.name();
  shown.unit = "image";
  shown.total_steps = (*loader)->size();
  shown.show_ends = false;
  std::optional<ProgressLine> progress;  // Rank 0's.
  if (setup_.rank() == 0) progress.emplace(shown);
  double waited = 0;
  while (true) {
    if (setup_.stop_signal != nullptr && *setup_.stop_signal != 0) {
      return absl::CancelledError(
          "stopped by a signal; the training is saved, and the same command "
          "evaluates again");
    }
    absl::StatusOr<Batch> batch = (*loader)->Next();
    if (absl::IsOutOfRange(batch.status())) break;
    if (!batch.ok()) return batch.status();
    absl::Status status = visit(batch->To(setup_.device, setup_.dtype));
    if (!status.ok()) return status;
    const double wait = (*loader)->wait_seconds() - waited;
    waited += wait;
    if (progress.has_value())
      progress->Update(batch->sample_numbers.back() + 1, std::nullopt, wait);
  }
  skipped_ = static_cast<int64_t>((*loader)->bad_samples().size());
  return absl::OkStatus();
}

absl::Status StreamEvalContext::ForEachText(
    const std::string& stream,
    const std::function<void(const TextRecord&)>& visit) {
  auto source = setup_.streams->Open(setup_.experiment, stream);
  if (!source.ok()) return source.status();
  for (int64_t i = 0; i < (*source)->size(); ++i) {
    absl::StatusOr<Sample> sample = (*source)->Read(i);
    if (!sample.ok()) continue;  // Counted where the stream is trained on.
    for (const TextRecord& text : sample->texts) visit(text);
  }
  return absl::OkStatus();
}

std::unique_ptr<Forward> StreamEvalContext::MakeForward(const Batch& batch) {
  return std::make_unique<Forward>(
      batch, model_.providers(), nullptr,
      ForwardOptions{/*training=*/false, setup_.experiment.seed(), 0});
}

uint64_t StreamEvalContext::seed() const { return setup_.experiment.seed(); }

FinishedTasks::FinishedTasks(std::string folder, const std::string& config_hash,
                             int64_t steps)
    : folder_(std::move(folder)) {
  const absl::StatusOr<std::string> text = ReadFile(Path(folder_));
  // What cannot be read is evaluated again.
  if (!text.ok() ||
      !google::protobuf::TextFormat::ParseFromString(*text, &record_) ||
      record_.config_hash() != config_hash || record_.steps() != steps) {
    record_.Clear();
    record_.set_config_hash(config_hash);
    record_.set_steps(steps);
  }
}

std::string FinishedTasks::Path(const std::string& folder) {
  return JoinPath(folder, "evaluated.pbtxt");
}

const TaskSummary* FinishedTasks::Find(const std::string& task) const {
  for (const TaskSummary& found : record_.tasks()) {
    if (found.name() != task) continue;
    for (const std::string& file : found.files()) {
      if (!PathExists(JoinPath(folder_, file))) return nullptr;
    }
    return &found;
  }
  return nullptr;
}

absl::Status FinishedTasks::Add(const TaskSummary& task, double seconds) {
  StageResult others = record_;
  others.clear_tasks();
  for (const TaskSummary& other : record_.tasks()) {
    if (other.name() != task.name()) *others.add_tasks() = other;
  }
  *others.add_tasks() = task;
  others.set_eval_seconds(record_.eval_seconds() + seconds);
  record_ = std::move(others);
  std::string text;
  google::protobuf::TextFormat::PrintToString(record_, &text);
  return AtomicWriteFile(Path(folder_), text);
}

TaskSummary ToSummary(const std::string& name, const TaskResult& result) {
  TaskSummary summary;
  summary.set_name(name);
  summary.set_note(result.note);
  for (const TaskMetric& metric : result.metrics) {
    Metric* out = summary.add_metrics();
    out->set_name(metric.name);
    out->set_value(metric.value);
    if (!std::isnan(metric.chance)) out->set_chance(metric.chance);
    out->set_unit(metric.unit);
    out->set_headline(metric.headline);
  }
  for (const std::string& file : result.files) {
    summary.add_files(BaseName(file));
  }
  return summary;
}

double ProcessAgeMs() {
  // Files in /proc have no size, so they are read as streams.
  std::ifstream file("/proc/self/stat");
  const std::string stat((std::istreambuf_iterator<char>(file)), {});
  // Field 22 counts from the state, field 3, which follows the last ')'.
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  const std::vector<std::string> fields = absl::StrSplit(
      absl::string_view(stat).substr(name_end + 1), ' ', absl::SkipEmpty());
  double ticks = 0;
  if (fields.size() < 20 || !absl::SimpleAtod(fields[19], &ticks)) return 0;
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return 1e3 * (static_cast<double>(now.tv_sec) +
                1e-9 * static_cast<double>(now.tv_nsec) -
                ticks / static_cast<double>(sysconf(_SC_CLK_TCK)));
}

int64_t PeakMemoryBytes() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace semvq
