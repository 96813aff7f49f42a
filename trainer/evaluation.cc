#include "trainer/evaluation.h"

#include <sys/resource.h>
#include <time.h>
#include <torch/types.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/distributed/agree.h"
#include "core/metrics/progress.h"
#include "core/util/file.h"
#include "data/loader.h"
#include "google/protobuf/text_format.h"
#include "trainer/batch_share.h"
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

// A stream that is passed over: its batches, and how far that has come.
class StreamEvalContext::Pass {
 public:
  // Reads the batches of rank `rank` of `ranks`.
  static absl::StatusOr<std::unique_ptr<Pass>> Start(
      const StreamEvalContext& context, const std::string& stream, int64_t rank,
      int64_t ranks) {
    const StageSetup& setup = context.setup_;
    const Experiment& e = setup.experiment;
    auto config =
        Streams::Find(e, stream.empty() ? context.config_.stream() : stream);
    if (!config.ok()) return config.status();
    auto source = setup.streams->Open(e, (*config)->name());
    if (!source.ok()) return source.status();
    LoaderOptions options;
    options.batch_size = context.config_.batch_size();
    options.seed = e.seed();
    options.max_tokens = e.text().max_tokens();
    options.max_words = e.text().max_words();
    options.training = false;
    options.rank = rank;
    options.ranks = ranks;
    auto loader =
        Loader::Create(**config, *source, setup.tokenizer, e.data(), options);
    if (!loader.ok()) return loader.status();
    auto pass = std::make_unique<Pass>(setup);
    pass->loader_ = *std::move(loader);
    pass->stream_ = *config;
    ProgressLine::Options shown;
    shown.label = context.config_.name();
    shown.unit = "image";
    shown.total_steps = pass->loader_->size();
    shown.show_ends = false;
    if (setup.rank() == 0) pass->progress_.emplace(shown);
    return pass;
  }

  explicit Pass(const StageSetup& setup) : setup_(setup) {}

  // On the run's device. OutOfRange at the end, Cancelled when the process was
  // asked to stop.
  absl::StatusOr<Batch> Next() {
    if (setup_.stop_signal != nullptr && *setup_.stop_signal != 0) {
      return absl::CancelledError(
          "stopped by a signal; the training is saved, and the same command "
          "evaluates again");
    }
    absl::StatusOr<Batch> batch = loader_->Next();
    if (!batch.ok()) return batch.status();
    return batch->To(setup_.device, setup_.dtype);
  }

  // Shows that the samples before number `next` are done.
  void Done(int64_t next) {
    if (!progress_.has_value()) return;
    const double wait = loader_->wait_seconds() - waited_;
    waited_ += wait;
    progress_->Update(next, std::nullopt, wait);
  }

  const Loader& loader() const { return *loader_; }
  const DataStream& stream() const { return *stream_; }

 private:
  const StageSetup& setup_;
  std::unique_ptr<Loader> loader_;
  const DataStream* stream_ = nullptr;
  std::optional<ProgressLine> progress_;  // Rank 0's.
  double waited_ = 0;
};

absl::Status StreamEvalContext::ForEachBatch(
    const std::function<absl::Status(const Batch&)>& visit) {
  return ForEachBatch(config_.stream(), visit);
}

absl::Status StreamEvalContext::ForEachBatch(
    const std::string& stream,
    const std::function<absl::Status(const Batch&)>& visit) {
  auto pass = Pass::Start(*this, stream, 0, 1);
  if (!pass.ok()) return pass.status();
  while (true) {
    absl::StatusOr<Batch> batch = (*pass)->Next();
    if (absl::IsOutOfRange(batch.status())) break;
    if (!batch.ok()) return batch.status();
    absl::Status status = visit(*batch);
    if (!status.ok()) return status;
    (*pass)->Done(batch->sample_numbers.back() + 1);
  }
  skipped_ = static_cast<int64_t>((*pass)->loader().bad_samples().size());
  return absl::OkStatus();
}

// In rounds of one batch a rank, of which the ranks tell each other before the
// next. So all have seen the same when one of them cannot go on, and what waits
// to be taken is never more than a round.
absl::Status StreamEvalContext::ShareBatches(const std::string& stream,
                                             const Compute& compute,
                                             const Take& take) {
  if (setup_.group == nullptr)
    return EvalContext::ShareBatches(stream, compute, take);
  const int64_t rank = setup_.rank(), ranks = setup_.ranks();
  absl::StatusOr<std::unique_ptr<Pass>> started =
      Pass::Start(*this, stream, rank, ranks);
  absl::Status status = AgreeOnStatus(started.status(), setup_.group);
  if (!status.ok()) return status;
  Pass& pass = **started;

  const int64_t batch_size = config_.batch_size();
  const int64_t round_size = batch_size * ranks;
  const int64_t rounds = (pass.loader().size() + round_size - 1) / round_size;
  std::optional<Batch> batch;  // The next one of this rank.
  bool more = true;
  absl::Status taken;          // On this rank.
  std::vector<BadSample> bad;  // Of all ranks.
  size_t told = 0;             // Of this rank's bad samples.
  int64_t read = 0;
  // The last round has no batches: it tells how the ranks took those before.
  for (int64_t round = 0; round <= rounds; ++round) {
    RoundShare share;
    const auto fail = [&share](const absl::Status& error) {
      share.set_error_code(static_cast<int>(error.code()));
      share.set_error(std::string(error.message()));
    };
    if (!taken.ok()) {
      fail(taken);
      batch.reset();
    } else if (!batch.has_value() && more) {
      absl::StatusOr<Batch> next = pass.Next();
      more = next.ok();
      if (next.ok()) {
        batch = *std::move(next);
      } else if (!absl::IsOutOfRange(next.status())) {
        fail(next.status());
      }
    }
    // A batch of which no sample is good is never met.
    if (batch.has_value() &&
        batch->sample_numbers[0] / batch_size == round * ranks + rank) {
      absl::StatusOr<BatchOutcome> outcome = compute(*batch);
      if (outcome.ok()) {
        *share.mutable_batch() = PackBatch(*batch, *outcome);
      } else {
        fail(outcome.status());
      }
      batch.reset();
    }
    const std::vector<BadSample>& own = pass.loader().bad_samples();
    for (; told < own.size(); ++told) {
      share.add_bad_samples(own[told].index);
      share.add_bad_reasons(own[told].what);
    }
    share.set_samples_read(pass.loader().samples_read());

    read = 0;
    for (const std::string& text :
         setup_.group->AllGatherText(share.SerializeAsString())) {
      RoundShare of_rank;
      if (!of_rank.ParseFromString(text)) {
        return absl::InternalError("a rank's message cannot be read");
      }
      if (of_rank.has_error_code()) {
        return absl::Status(static_cast<absl::StatusCode>(of_rank.error_code()),
                            of_rank.error());
      }
      for (int i = 0; i < of_rank.bad_samples_size(); ++i)
        bad.push_back({of_rank.bad_samples(i), of_rank.bad_reasons(i)});
      read += of_rank.samples_read();
      if (!of_rank.has_batch() || !taken.ok()) continue;
      auto unpacked = UnpackBatch(of_rank.batch(), setup_.device);
      if (!unpacked.ok()) return unpacked.status();
      taken = take(unpacked->first, std::move(unpacked->second));
    }
    pass.Done(std::min((round + 1) * round_size, pass.loader().size()));
  }
  skipped_ = static_cast<int64_t>(bad.size());
  return CheckBadSamples(pass.stream().name(), setup_.experiment.data(), bad,
                         read, /*all_read=*/true);
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
