#include "trainer/trainer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/checkpoint/checkpoint.h"
#include "core/distributed/agree.h"
#include "core/random/stream.h"
#include "core/util/file.h"
#include "google/protobuf/text_format.h"
#include "trainer/autocast.h"
#include "trainer/code_use.h"
#include "trainer/evaluation.h"
#include "trainer/version.h"

namespace semvq {
namespace {

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

NamedTensors NamedParameters(const torch::nn::Module& module) {
  NamedTensors list;
  for (const auto& p : module.named_parameters()) {
    list.emplace_back(p.key(), p.value());
  }
  return list;
}

NamedTensors ModuleState(const torch::nn::Module& module) {
  NamedTensors state = NamedParameters(module);
  for (const auto& b : module.named_buffers()) {
    state.emplace_back(b.key(), b.value());
  }
  return state;
}

void MoveTo(const StageSetup& setup, torch::nn::Module& module) {
  module.to(setup.device);
  // Integer buffers are cast too, which their owners bear.
  if (setup.dtype != at::kFloat) module.to(setup.dtype);
}

absl::Status LoadModuleState(const NamedTensors& from,
                             torch::nn::Module& module) {
  c10::NoGradGuard no_grad;
  const std::map<std::string, at::Tensor> by_name(from.begin(), from.end());
  for (auto& [name, target] : ModuleState(module)) {
    auto found = by_name.find(name);
    if (found == by_name.end() || found->second.sizes() != target.sizes()) {
      return absl::DataLossError(absl::StrCat(
          "the checkpoint's tensor ", name,
          found == by_name.end() ? " is missing" : " has another shape",
          "; it was made by another version or config; start anew with "
          "--fresh"));
    }
    at::Tensor destination = target;
    destination.copy_(found->second);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(StageSetup setup) {
  std::unique_ptr<Trainer> trainer(new Trainer(std::move(setup)));
  const StageSetup& s = trainer->setup_;
  auto model = Model::Compose(s.experiment, s.book, s.tokenizer, s.random_data);
  if (!model.ok()) return model.status();
  trainer->model_ = *model;
  MoveTo(s, *trainer->model_);
  const bool trains = s.experiment.trainer().has_stream();
  if (s.experiment.teacher().enabled() && trains) {
    auto teacher =
        Model::Compose(s.experiment, s.book, s.tokenizer, s.random_data);
    if (!teacher.ok()) return teacher.status();
    trainer->teacher_ = *teacher;
    MoveTo(s, *trainer->teacher_);
    for (at::Tensor& p : trainer->teacher_->parameters()) {
      p.requires_grad_(false);
    }
    CopyState(*trainer->model_, *trainer->teacher_);
  }
  if (trains) {
    absl::Status status = trainer->BuildOptimizer();
    if (status.ok() && !s.random_data) status = trainer->OpenLoader();
    if (!status.ok()) return status;
    if (s.random_data) trainer->total_steps_ = s.experiment.trainer().steps();
  }
  return trainer;
}

absl::Status Trainer::BuildOptimizer() {
  auto optimizer = AdamW::Create(setup_.experiment.optimizer(),
                                 NamedParameters(*model_), setup_.group);
  if (!optimizer.ok()) return optimizer.status();
  optimizer_ = std::make_unique<AdamW>(*std::move(optimizer));
  return absl::OkStatus();
}

absl::Status Trainer::OpenLoader() {
  const Experiment& e = setup_.experiment;
  auto stream = Streams::Find(e, e.trainer().stream());
  if (!stream.ok()) return stream.status();
  auto source = setup_.streams->Open(e, e.trainer().stream());
  if (!source.ok()) return source.status();
  LoaderOptions options;
  options.batch_size = e.trainer().batch_size();
  options.seed = e.seed();
  options.max_tokens = e.text().max_tokens();
  options.max_words = e.text().max_words();
  options.training = true;
  options.start_sample = samples_;
  options.rank = setup_.rank();
  options.ranks = setup_.ranks();
  auto loader =
      Loader::Create(**stream, *source, setup_.tokenizer, e.data(), options);
  if (!loader.ok()) return loader.status();
  loader_ = *std::move(loader);
  if (e.trainer().has_steps()) {
    total_steps_ = e.trainer().steps();
  } else {
    // What is left is counted in samples: earlier steps may have been those of
    // another number of ranks.
    const double left =
        e.trainer().epochs() * static_cast<double>(loader_->size()) -
        static_cast<double>(samples_);
    total_steps_ =
        step_ + static_cast<int64_t>(std::ceil(
                    left / static_cast<double>(SamplesPerMicroStep() *
                                               e.trainer().accumulation())));
  }
  return absl::OkStatus();
}

int64_t Trainer::SamplesPerMicroStep() const {
  return setup_.experiment.trainer().batch_size() * setup_.ranks();
}

// As rank 0 sees it: a file system may show others another one.
absl::StatusOr<std::string> Trainer::NewestCheckpoint() const {
  absl::StatusOr<std::string> newest = std::string();
  if (setup_.rank() == 0) {
    std::vector<std::string> skipped;
    newest =
        FindLatestCheckpoint(JoinPath(setup_.folder, "checkpoints"), &skipped);
    if (absl::IsNotFound(newest.status())) {
      if (skipped.empty()) {
        newest = std::string();
      } else {
        // Starting over in silence would throw the training away.
        newest = absl::DataLossError(absl::StrCat(
            newest.status().message(),
            "; restore one, or start this stage anew with --fresh=",
            setup_.name));
      }
    } else if (newest.ok()) {
      for (const std::string& why : skipped) {
        std::fprintf(stderr, "passing over a checkpoint: %s\n", why.c_str());
      }
    }
  }
  absl::Status status = AgreeOnStatus(newest.status(), setup_.group);
  if (!status.ok()) return status;
  return setup_.group == nullptr ? *newest
                                 : setup_.group->BroadcastText(*newest);
}

absl::StatusOr<bool> Trainer::Resume() {
  const absl::StatusOr<std::string> newest = NewestCheckpoint();
  if (!newest.ok()) return newest.status();
  if (newest->empty()) return false;
  absl::Status status = Load(*newest);
  if (status.ok() && loader_ != nullptr) status = OpenLoader();
  status = AgreeOnStatus(status, setup_.group);
  if (!status.ok()) return status;
  return true;
}

absl::Status Trainer::Load(const std::string& checkpoint) {
  auto contents = LoadCheckpoint(checkpoint);
  if (!contents.ok()) return contents.status();
  if (contents->config_hash != setup_.config_hash) {
    return absl::FailedPreconditionError(absl::StrCat(
        checkpoint, " was made by another experiment (config hash ",
        contents->config_hash, ", this one has ", setup_.config_hash,
        "); choose another checkpoint { folder }, or start this stage anew "
        "with --fresh=",
        setup_.name));
  }
  absl::Status status = LoadModuleState(contents->sections["model"], *model_);
  if (status.ok() && teacher_ != nullptr) {
    status = LoadModuleState(contents->sections["teacher"], *teacher_);
  }
  if (status.ok() && optimizer_ != nullptr) {
    status = optimizer_->LoadState(contents->sections["optimizer"]);
  }
  if (!status.ok()) return status;
  means_.LoadState(contents->sections["means"]);
  step_ = contents->step;
  const auto number = [&contents](const char* key) {
    return std::strtod(contents->state[key].c_str(), nullptr);
  };
  // Older checkpoints do not say how far the data were read: all their steps
  // were of one size.
  samples_ = contents->state.count("samples") > 0
                 ? static_cast<int64_t>(number("samples"))
                 : step_ * SamplesPerMicroStep() *
                       setup_.experiment.trainer().accumulation();
  nonfinite_steps_ = static_cast<int64_t>(number("nonfinite_steps"));
  nonfinite_in_a_row_ = static_cast<int64_t>(number("nonfinite_in_a_row"));
  train_seconds_ = number("train_seconds");
  wait_seconds_ = number("wait_seconds");
  first_step_ms_ = number("first_step_ms");
  loss_spikes_ = static_cast<int64_t>(number("loss_spikes"));
  rollbacks_ = static_cast<int64_t>(number("rollbacks"));
  if (!watch_.LoadState(contents->state["loss_watch"])) {
    return absl::DataLossError(
        absl::StrCat(checkpoint, ": its state \"loss_watch\" is damaged"));
  }
  bad_samples_ =
      absl::StrSplit(contents->state["bad_samples"], '\n', absl::SkipEmpty());
  bad_samples_noted_ = 0;
  codes_.Clear();
  if (!google::protobuf::TextFormat::ParseFromString(contents->state["codes"],
                                                     &codes_)) {
    return absl::DataLossError(
        absl::StrCat(checkpoint, ": its state \"codes\" is damaged"));
  }
  return absl::OkStatus();
}

void Trainer::ShareRecords() {
  if (setup_.group == nullptr) return;
  means_.Share(setup_.group);
  for (const std::string& names :
       setup_.group->AllGatherText(absl::StrJoin(bad_samples_, "\n"))) {
    for (absl::string_view name :
         absl::StrSplit(names, '\n', absl::SkipEmpty())) {
      bad_samples_.emplace(name);
    }
  }
}

absl::Status Trainer::Save() {
  ActivityScope scope(setup_.activity, "saving a checkpoint");
  ShareRecords();
  CheckpointContents contents;
  contents.step = step_;
  contents.semvq_version = kVersion;
  contents.config_text = setup_.config_text;
  contents.config_hash = setup_.config_hash;
  contents.sections["model"] = ModuleState(*model_);
  if (teacher_ != nullptr)
    contents.sections["teacher"] = ModuleState(*teacher_);
  if (optimizer_ != nullptr)
    contents.sections["optimizer"] = optimizer_->State();
  contents.sections["means"] = means_.State();
  contents.state["samples"] = absl::StrCat(samples_);
  contents.state["nonfinite_steps"] = absl::StrCat(nonfinite_steps_);
  contents.state["nonfinite_in_a_row"] = absl::StrCat(nonfinite_in_a_row_);
  contents.state["train_seconds"] = absl::StrCat(train_seconds_);
  contents.state["wait_seconds"] = absl::StrCat(wait_seconds_);
  contents.state["first_step_ms"] = absl::StrCat(first_step_ms_);
  contents.state["loss_spikes"] = absl::StrCat(loss_spikes_);
  contents.state["rollbacks"] = absl::StrCat(rollbacks_);
  contents.state["loss_watch"] = watch_.State();
  contents.state["bad_samples"] = absl::StrJoin(bad_samples_, "\n");
  contents.state["codes"] = codes_.ShortDebugString();
  RetentionPolicy retention;
  retention.keep_last = setup_.experiment.checkpoint().keep();
  absl::Status status;
  if (setup_.rank() == 0) {
    status = SaveCheckpoint(JoinPath(setup_.folder, "checkpoints"), contents,
                            retention)
                 .status();
    if (status.ok()) status = WriteBadSamples();
  }
  return AgreeOnStatus(status, setup_.group);
}

void Trainer::BroadcastModels() {
  if (setup_.group == nullptr) return;
  for (const auto& model : {model_, teacher_}) {
    if (model == nullptr) continue;
    std::vector<at::Tensor> state;
    for (const auto& [name, tensor] : ModuleState(*model))
      state.push_back(tensor);
    setup_.group->BroadcastInto(state, /*root=*/0);
  }
}

void Trainer::JoinRanks() {
  if (setup_.group == nullptr || reducer_ != nullptr) return;
  BroadcastModels();
  NamedTensors trained;
  for (const auto& [name, parameter] : NamedParameters(*model_)) {
    if (parameter.requires_grad()) trained.emplace_back(name, parameter);
  }
  GradientReducerOptions options;
  options.bf16 = setup_.experiment.trainer().bf16_gradients();
  options.scatter = setup_.experiment.optimizer().zero();
  options.varying_graph =
      std::any_of(setup_.book.all().begin(), setup_.book.all().end(),
                  [](const auto& entry) { return entry.second.varying_graph; });
  reducer_ = std::make_unique<GradientReducer>(trained, setup_.group, options);
}

absl::StatusOr<Trainer::StepReport> Trainer::Step(
    const std::vector<Batch>& micro_batches) {
  const Experiment& e = setup_.experiment;
  const double share = 1.0 / static_cast<double>(micro_batches.size());
  const int64_t shares_every = e.logging().gradient_share_every();
  StepReport report;
  NamedTensors checked;  // That the step depends on.
  // The backward's sums are not collectives of the communicator.
  ActivityScope scope(setup_.activity, "training step",
                      ActivityScope::Waits::kForAllRanks);
  JoinRanks();
  model_->train();
  if (teacher_ != nullptr) teacher_->train();
  optimizer_->ZeroGrad();
  for (size_t micro = 0; micro < micro_batches.size(); ++micro) {
    // Dropout and all else that draws from the default generators: by the place
    // of the micro-batch among those of the step.
    at::manual_seed(StreamKey(e.seed(), "step", step_,
                              micro * setup_.ranks() + setup_.rank()));
    const Batch batch = micro_batches[micro].To(setup_.device, setup_.dtype);
    Forward forward(batch, model_->providers(),
                    teacher_ == nullptr ? nullptr : &teacher_->providers(),
                    {/*training=*/true, e.seed(), step_, setup_.group});
    Losses losses;
    {
      Autocast autocast(e.trainer().bf16(), setup_.device.type());
      losses = ComputeLosses(*model_, forward);
    }
    if (!losses.total.defined()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "stage ", setup_.name,
          " trains on a stream but has nothing to optimise; give it an "
          "objective, or a task with fine_tune: true"));
    }
    // Not in the first step, which people wait for.
    if (shares_every > 0 && micro == 0 && (step_ + 1) % shares_every == 0) {
      const NamedTensors shares = GradientShares(*model_, losses);
      report.values.insert(report.values.end(), shares.begin(), shares.end());
    }
    if (reducer_ != nullptr && micro + 1 == micro_batches.size()) {
      reducer_->Backward(losses.total * share);
    } else {
      (losses.total * share).backward();
    }
    checked.insert(checked.end(), losses.named.begin(), losses.named.end());
    report.values.emplace_back("loss", losses.total.detach());
    for (const NamedTensors* values : {&losses.named, &losses.metrics}) {
      report.values.insert(report.values.end(), values->begin(), values->end());
    }
  }
  const at::Tensor norm = optimizer_->ClipGradients();
  checked.emplace_back("the gradient's norm", norm);
  StepVerdict verdict = Agree(checked, stop_asked(), setup_.group);
  report.nonfinite = std::move(verdict.nonfinite);
  report.stop = verdict.stop;
  if (!report.nonfinite.empty() && setup_.debug_nonfinite) {
    report.first_nonfinite = DebugNonFinite(micro_batches);
  }
  if (report.nonfinite.empty()) {
    const double lr =
        LearningRate(e.optimizer(), e.schedule(), step_, total_steps_);
    optimizer_->Step(lr);
    ++step_;
    absl::Status status = AfterStep();
    if (!status.ok()) return status;
    report.values.emplace_back("gradient_norm", norm);
    report.values.emplace_back("lr", torch::tensor(lr));
  } else {
    report.bad_features = BadFeatures(report.values);
    ++step_;
  }
  return report;
}

std::string Trainer::BadFeatures(const NamedTensors& values) const {
  std::string found;
  for (const Model::QuantizerEntry& entry : model_->quantizers()) {
    double count = 0;
    for (const auto& [name, value] : values) {
      if (name == absl::StrCat(entry.name, "/nonfinite"))
        count += value.item<double>();
    }
    if (count == 0) continue;
    absl::StrAppend(&found, found.empty() ? "" : ", ", "quantizer \"",
                    entry.name, "\" got ", count,
                    " features that are not finite");
  }
  return found;
}

absl::Status Trainer::AfterStep() {
  for (Model::QuantizerEntry& entry : model_->quantizers()) {
    QuantizeContext context;
    context.mode = QuantizeMode::kTrain;
    context.seed = setup_.experiment.seed();
    context.step = step_;
    context.frozen = entry.config.frozen();
    context.group = setup_.group;
    absl::Status status = entry.views->quantizer().AfterStep(context);
    if (!status.ok()) {
      return absl::Status(
          status.code(),
          absl::StrCat("quantizer \"", entry.name, "\": ", status.message()));
    }
  }
  for (Model::ObjectiveEntry& entry : model_->objectives()) {
    entry.objective->AfterStep();
  }
  UpdateTeacher();
  return absl::OkStatus();
}

void Trainer::SyncTeacher() {
  if (teacher_ != nullptr) CopyState(*model_, *teacher_);
}

void Trainer::UpdateTeacher() {
  if (teacher_ == nullptr) return;
  c10::NoGradGuard no_grad;
  const double momentum = setup_.experiment.teacher().momentum();
  at::_foreach_lerp_(teacher_->parameters(), model_->parameters(),
                     1 - momentum);
  // Codebooks and other buffers are taken over as they are.
  const std::vector<at::Tensor> from = model_->buffers();
  std::vector<at::Tensor> to = teacher_->buffers();
  for (size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
}

absl::Status Trainer::OpenLog() {
  if (setup_.rank() != 0) return absl::OkStatus();
  StageLogOptions options;
  options.folder = setup_.folder;
  options.name = setup_.name;
  options.start_step = step_;
  options.total_steps = total_steps_;
  options.tensorboard = setup_.experiment.logging().tensorboard();
  auto log = StageLog::Create(options);
  if (!log.ok()) return log.status();
  log_ = *std::move(log);
  return absl::OkStatus();
}

// What all ranks have logged since the last record.
absl::Status Trainer::Record(std::optional<double>* loss) {
  if (setup_.group != nullptr) means_.Share(setup_.group);
  const std::map<std::string, double> means = means_.Take();
  auto found = means.find("loss");
  if (found != means.end()) *loss = found->second;
  if (log_ == nullptr) return absl::OkStatus();
  absl::Status status = log_->Record(step_, means);
  return status.ok() ? LogCodes() : status;
}

absl::Status Trainer::Train() {
  if (optimizer_ == nullptr || step_ >= total_steps_) return absl::OkStatus();
  const Experiment& e = setup_.experiment;
  absl::Status status = AgreeOnStatus(OpenLog(), setup_.group);
  if (!status.ok()) return status;

  const double seconds_before = train_seconds_, start = Now();
  double wait_before = wait_seconds_;
  // Of the last record: reading the loss of every step would wait for it.
  std::optional<double> loss;
  double waited_so_far = 0;
  while (step_ < total_steps_) {
    std::vector<Batch> batches;
    for (int micro = 0; micro < e.trainer().accumulation(); ++micro) {
      ActivityScope scope(setup_.activity, "waiting for data");
      absl::StatusOr<Batch> batch = loader_->Next();
      if (!batch.ok()) return StopWithoutData(batch.status());
      batches.push_back(*std::move(batch));
    }
    samples_ += SamplesPerMicroStep() * e.trainer().accumulation();
    absl::StatusOr<StepReport> report = Step(batches);
    if (!report.ok()) return report.status();
    if (setup_.activity != nullptr) setup_.activity->SetStep(step_);
    absl::StatusOr<bool> went_back = false;
    if (report->nonfinite.empty()) {
      nonfinite_in_a_row_ = 0;
      means_.Add(report->values);
      watch_.Add(step_, report->values);
    } else {
      went_back = AnswerNonFinite(*report);
    }
    train_seconds_ = seconds_before + Now() - start;
    wait_seconds_ = wait_before + loader_->wait_seconds();
    if (first_step_ms_ == 0) first_step_ms_ = ProcessAgeMs();
    NoteBadSamples();

    const double waited = loader_->wait_seconds() - waited_so_far;
    waited_so_far += waited;
    if (went_back.ok() && !*went_back &&
        (step_ % e.logging().every() == 0 || step_ == total_steps_)) {
      status = AgreeOnStatus(Record(&loss), setup_.group);
      if (!status.ok()) return status;
      went_back = AnswerSpike();
    }
    if (!went_back.ok()) return went_back.status();
    if (*went_back) {  // With a new loader and a new log.
      wait_before = wait_seconds_;
      waited_so_far = 0;
      loss.reset();
      continue;
    }
    if (log_ != nullptr) log_->Progress(step_, loss, waited);
    // Ranks stop together, after the step in which one was asked to.
    const bool stop = setup_.group == nullptr ? stop_asked() : report->stop;
    const bool due =
        e.checkpoint().every() > 0 && step_ % e.checkpoint().every() == 0;
    if (stop || due || step_ == total_steps_) {
      status = Save();
      if (!status.ok()) return status;
    }
    if (stop && step_ < total_steps_) {
      if (log_ != nullptr) log_->Close();
      return absl::CancelledError(absl::StrCat(
          "stopped by a signal in stage ", setup_.name, " at step ", step_,
          " of ", total_steps_, ", saved; the same command goes on from here"));
    }
  }
  if (log_ != nullptr) log_->Close();
  return absl::OkStatus();
}

absl::Status Trainer::LogCodes() {
  codes_.clear_codes();
  for (Model::QuantizerEntry& entry : model_->quantizers()) {
    for (const CodeVectors& codes :
         CodeVectorsOf(entry.name, entry.views->quantizer().CodeValues())) {
      *codes_.add_codes() = Summarise(codes, step_);
      absl::Status status = log_->Codes(step_, codes);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

void Trainer::NoteBadSamples() {
  const std::vector<BadSample>& bad = loader_->bad_samples();
  for (; bad_samples_noted_ < bad.size(); ++bad_samples_noted_) {
    bad_samples_.insert(bad[bad_samples_noted_].what);
  }
}

absl::Status Trainer::WriteBadSamples() const {
  if (bad_samples_.empty()) return absl::OkStatus();
  return AtomicWriteFile(JoinPath(setup_.folder, "bad_samples.txt"),
                         absl::StrCat(absl::StrJoin(bad_samples_, "\n"), "\n"));
}

// Whether rank 0 knows the task's result.
bool Trainer::FindFinished(const FinishedTasks* finished,
                           const std::string& task, TaskSummary* summary) {
  const TaskSummary* known = finished == nullptr || setup_.rank() != 0
                                 ? nullptr
                                 : finished->Find(task);
  std::string text = known == nullptr ? "" : known->SerializeAsString();
  if (setup_.group != nullptr) text = setup_.group->BroadcastText(text);
  if (text.empty()) return false;
  if (known != nullptr) {
    std::printf("task %s: evaluated before the last stop (%s)\n", task.c_str(),
                FinishedTasks::Path(setup_.folder).c_str());
    std::fflush(stdout);
  }
  return summary->ParseFromString(text);
}

absl::StatusOr<StageResult> Trainer::Evaluate(FinishedTasks* finished) {
  StageResult result;
  result.set_stage(setup_.name);
  result.set_config_hash(setup_.config_hash);
  result.set_steps(step_);
  result.set_train_seconds(train_seconds_);
  result.set_data_wait_share(wait_seconds_ / std::max(train_seconds_, 1e-9));
  result.set_nonfinite_steps(nonfinite_steps_);
  if (loss_spikes_ > 0) result.set_loss_spikes(loss_spikes_);
  if (rollbacks_ > 0) result.set_rollbacks(rollbacks_);
  result.set_bad_samples(static_cast<int64_t>(bad_samples_.size()));
  result.set_first_step_ms(first_step_ms_);
  for (LoggedValue& value : means_.Summary()) {
    *result.add_values() = std::move(value);
  }

  const double before = finished == nullptr ? 0 : finished->seconds();
  *result.mutable_codes() = codes_.codes();

  const double start = Now();
  BroadcastModels();  // Averages of batch norms are a rank's own.
  model_->eval();
  c10::NoGradGuard no_grad;
  Autocast autocast(setup_.experiment.trainer().bf16(), setup_.device.type());
  for (Model::TaskEntry& entry : model_->tasks()) {
    if (!entry.config.evaluate()) continue;
    if (FindFinished(finished, entry.name, result.add_tasks())) continue;
    const double task_start = Now();
    StreamEvalContext context(setup_, *model_, entry.config);
    absl::StatusOr<TaskResult> task = entry.task->Evaluate(context);
    absl::Status status = AgreeOnStatus(task.status(), setup_.group);
    if (!status.ok()) {
      return absl::Status(
          status.code(),
          absl::StrCat("task \"", entry.name, "\": ", status.message()));
    }
    *result.mutable_tasks()->rbegin() = ToSummary(entry.name, *task);
    if (finished != nullptr && setup_.rank() == 0) {
      status = finished->Add(*result.tasks().rbegin(), Now() - task_start);
    }
    status = AgreeOnStatus(status, setup_.group);
    if (!status.ok()) return status;
  }
  result.set_eval_seconds(before + Now() - start);
  result.set_peak_memory(PeakMemoryBytes());
  return result;
}

}  // namespace semvq
