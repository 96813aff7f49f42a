#include "trainer/experiment_run.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/config/merge.h"
#include "core/config/names.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "data/image_bytes.h"
#include "google/protobuf/text_format.h"
#include "trainer/evaluation.h"
#include "trainer/init_from.h"
#include "trainer/made_tokenizer.h"
#include "trainer/out_of_memory.h"
#include "trainer/plan.h"
#include "trainer/report.h"
#include "trainer/version.h"

namespace semvq {
namespace {

constexpr char kHashFile[] = "config_hash";
constexpr char kResultFile[] = "result.pbtxt";

absl::Status WriteText(const std::string& path,
                       const google::protobuf::Message& message) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(message, &text);
  return AtomicWriteFile(path, text);
}

absl::StatusOr<StageResult> ReadResult(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  StageResult result;
  if (!google::protobuf::TextFormat::ParseFromString(*text, &result)) {
    return absl::DataLossError(absl::StrCat(
        path, " cannot be read; delete it, and the stage is evaluated again"));
  }
  return result;
}

}  // namespace

absl::StatusOr<std::vector<bool>> ChooseStages(
    const std::vector<ResolvedStage>& stages, const Flags& flags) {
  std::vector<std::string> names;
  for (const ResolvedStage& stage : stages) names.push_back(stage.name);
  const auto check = [&names](absl::string_view flag, const std::string& name) {
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        flag, ": no stage \"", name, "\"", DidYouMean(name, names)));
  };
  for (const std::string& name : flags.fresh) {
    if (name == "all") continue;
    absl::Status status = check("--fresh", name);
    if (!status.ok()) return status;
  }
  if (flags.stages.empty()) return std::vector<bool>(stages.size(), true);
  std::set<std::string> wanted;
  for (const std::string& name : flags.stages) {
    absl::Status status = check("--stages", name);
    if (!status.ok()) return status;
    wanted.insert(name);
  }
  // From the last one: a stage starts from an earlier one.
  std::vector<bool> chosen(stages.size());
  for (size_t i = stages.size(); i-- > 0;) {
    chosen[i] = wanted.count(stages[i].name) > 0;
    const InitFrom& init = stages[i].experiment.init_from();
    if (chosen[i] && flags.mode == Flags::RunMode::kTrain && init.has_stage()) {
      wanted.insert(init.stage());
    }
  }
  return chosen;
}

ExperimentRun::ExperimentRun(const Experiment& experiment,
                             std::vector<ResolvedStage> stages,
                             std::vector<bool> chosen, const Flags& flags,
                             std::string working_folder,
                             const std::atomic<int>* stop_signal,
                             RankSession* ranks)
    : experiment_(experiment),
      stages_(std::move(stages)),
      chosen_(std::move(chosen)),
      flags_(flags),
      working_folder_(std::move(working_folder)),
      stop_signal_(stop_signal),
      ranks_(ranks) {
  for (const ResolvedStage& stage : stages_) {
    Experiment expanded = stage.experiment;
    // Undefined variables were reported when the stages were checked.
    ExpandVariables(stage.provenance, &expanded);
    std::string hash = ConfigHash(stage.experiment);
    // A stage's start is part of what it computes.
    for (size_t i = 0; i < hashes_.size(); ++i) {
      if (stages_[i].name == expanded.init_from().stage()) {
        hash = Sha256Hex(absl::StrCat(hash, hashes_[i])).substr(0, 16);
      }
    }
    expanded_.push_back(std::move(expanded));
    hashes_.push_back(std::move(hash));
  }
  const Experiment& e = expanded_.front();
  folder_ = JoinPath(working_folder_, e.checkpoint().folder().empty()
                                          ? absl::StrCat("runs/", e.name())
                                          : e.checkpoint().folder());
}

void ExperimentRun::Barrier() {
  if (ranks_ == nullptr) return;
  ActivityScope scope(&ranks_->activity(), "waiting for all ranks");
  group()->Barrier();
}

bool ExperimentRun::AsRankZero(bool mine) {
  if (ranks_ == nullptr) return mine;
  return group()->BroadcastText(mine ? "yes" : "") == "yes";
}

std::string ExperimentRun::StageFolder(const std::string& stage) const {
  return JoinPath(reused_.count(stage) > 0 ? reuse_folder_ : folder_, stage);
}

bool ExperimentRun::IsFresh(const std::string& stage) const {
  return std::any_of(
      flags_.fresh.begin(), flags_.fresh.end(),
      [&stage](const std::string& f) { return f == "all" || f == stage; });
}

absl::StatusOr<InitFrom> ExperimentRun::ResolveInit(
    const Experiment& stage) const {
  return ResolveInitFrom(stage.init_from(), working_folder_,
                         ConfigFolders(ProgramPath()));
}

absl::Status ExperimentRun::CheckFiles() {
  std::vector<std::string> lines;
  std::set<std::string> seen;
  const auto check = [&](const std::string& where, const NeededFile& file) {
    const std::string path = JoinPath(working_folder_, file.path);
    if (file.path.empty() || PathExists(path) || !seen.insert(path).second) {
      return;
    }
    lines.push_back(absl::StrCat("  ", path, "\n      wanted by ", where, ".",
                                 file.field, ": ", file.format));
  };
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (!chosen_[i]) continue;
    const Experiment& e = expanded_[i];
    const auto of_plugin = [&](const std::string& where,
                               const google::protobuf::Any& any) {
      const PluginType* type = PluginTypeOf(any);
      auto config = UnpackConfig(any);
      if (type == nullptr || !config.ok()) return;
      for (const NeededFile& f :
           type->contract(where, **config, ContractBook()).files) {
        check(where, f);
      }
    };
    for (const DataStream& stream : e.data().streams()) {
      of_plugin(absl::StrCat("data.streams[\"", stream.name(), "\"].source"),
                stream.source());
    }
    for (const TaskConfig& task : e.tasks()) {
      of_plugin(absl::StrCat("tasks[\"", task.name(), "\"].config"),
                task.config());
    }
    check("text.wordpiece", {"vocab", e.text().wordpiece().vocab(),
                             "BERT vocabulary, one token a line"});
    check("text.sentencepiece",
          {"model", e.text().sentencepiece().model(), "sentencepiece model"});
    check("init_from", {"path", e.init_from().path(),
                        "checkpoint folder or .safetensors file"});
    for (const WeightsImport& import : e.init_from().weights()) {
      check(absl::StrCat("init_from.weights[\"", import.name(), "\"]"),
            {"path", import.path(),
             "pretrained weights, .safetensors (docs/pretrained_weights.md)"});
    }
    if (auto init = ResolveInit(e); !init.ok()) return init.status();
  }
  if (lines.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(
      "the experiment wants ", lines.size(),
      lines.size() == 1 ? " file that is" : " files that are", " not there:\n",
      absl::StrJoin(lines, "\n"),
      "\nPut them there or change the paths (variables such as ${SEMVQ_DATA} "
      "come from the environment). docs/data.md describes the formats. "
      "./setup.sh prepares the data of --config=quickstart.pbtxt, which runs "
      "as it is."));
}

absl::Status ExperimentRun::ChooseDevice() {
  const Experiment& e = expanded_.front();
  const bool has_cuda = at::globalContext().hasCUDA();
  if (e.device() == CUDA && !has_cuda) {
    return absl::FailedPreconditionError(
        "device: CUDA, but this build or machine has no CUDA device; build "
        "with --config=cuda, or set device: AUTO");
  }
  device_ = at::kCPU;
  if (e.device() != CPU && has_cuda) {
    // A launcher may show each rank its own device alone.
    const int64_t devices = at::detail::getCUDAHooks().deviceCount();
    const int64_t index =
        ranks_ == nullptr || devices == 1 ? 0 : ranks_->launch().local_rank;
    if (index >= devices) {
      return absl::FailedPreconditionError(absl::StrCat(
          "this is rank ", index, " of its machine (from 0), which has ",
          devices, " CUDA devices; start one process for each"));
    }
    device_ = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
  }
  if (e.trainer().threads() > 0) at::set_num_threads(e.trainer().threads());
  return absl::OkStatus();
}

absl::Status ExperimentRun::FindReused() {
  if (flags_.reuse.empty()) return absl::OkStatus();
  reuse_folder_ = JoinPath(working_folder_, flags_.reuse);
  std::vector<std::string> lines;
  for (size_t i = 0; i < stages_.size(); ++i) {
    const std::string& name = stages_[i].name;
    if (!chosen_[i] || IsFresh(name)) continue;
    const std::string folder = JoinPath(reuse_folder_, name);
    const absl::StatusOr<std::string> hash =
        ReadFile(JoinPath(folder, kHashFile));
    if (!hash.ok()) {
      lines.push_back(absl::StrCat("  ", name, ": not there"));
    } else if (*hash != hashes_[i]) {
      lines.push_back(absl::StrCat("  ", name, ": config hash ", *hash,
                                   " there, ", hashes_[i], " here"));
    } else if (!PathExists(JoinPath(folder, kResultFile))) {
      lines.push_back(absl::StrCat("  ", name, ": not finished"));
    } else {
      reused_.insert(name);
    }
  }
  if (!reused_.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat(
      "--reuse: ", reuse_folder_, " has no stage of this experiment done:\n",
      absl::StrJoin(lines, "\n"),
      "\nGive the folder of a run whose earlier stages are the same "
      "(experiment.pbtxt there says what it ran), or leave --reuse out."));
}

absl::Status ExperimentRun::CheckRanks() {
  absl::StatusOr<std::string> program = Sha256File("/proc/self/exe");
  if (!program.ok()) return program.status();
  RankFacts facts = {
      {"program", absl::StrCat("version ", kVersion, ", SHA-256 ",
                               program->substr(0, 16))},
      {"flags", absl::StrCat("--mode ", static_cast<int>(flags_.mode),
                             " --stages=", absl::StrJoin(flags_.stages, ","),
                             " --fresh=", absl::StrJoin(flags_.fresh, ","),
                             " --reuse=", flags_.reuse)},
      {"kind of device", device_.is_cuda() ? "CUDA" : "CPU"}};
  for (size_t i = 0; i < stages_.size(); ++i) {
    facts.emplace_back(absl::StrCat("config hash of stage ", stages_[i].name),
                       hashes_[i]);
    // What the hash leaves out and all the same says when ranks meet.
    CheckpointConfig checkpoint = expanded_[i].checkpoint();
    checkpoint.clear_folder();
    facts.emplace_back(
        absl::StrCat("checkpoint and logging of stage ", stages_[i].name),
        absl::StrCat(checkpoint.ShortDebugString(), " ",
                     expanded_[i].logging().ShortDebugString(),
                     " max_nonfinite_steps: ",
                     expanded_[i].trainer().max_nonfinite_steps()));
  }
  return ranks_->CheckAlike("the experiment", facts);
}

absl::Status ExperimentRun::Prepare() {
  absl::Status status = ChooseDevice();
  if (status.ok() && ranks_ != nullptr) status = CheckRanks();
  if (status.ok() && ranks_ != nullptr) status = ranks_->MakeGroup(device_);
  if (status.ok()) status = FindReused();
  if (status.ok() && rank() == 0) status = PrepareFolder();
  if (!status.ok()) return status;
  Barrier();
  if (rank() != 0) status = CheckFolder();
  if (!status.ok()) return status;
  return PrepareTokenizer();
}

absl::Status ExperimentRun::CheckFolder() const {
  // Network file systems may show with a delay what is new.
  constexpr int kPolls = 300;
  constexpr absl::Duration kPoll = absl::Milliseconds(100);
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (!chosen_[i]) continue;
    const std::string path = JoinPath(StageFolder(stages_[i].name), kHashFile);
    int polls = 0;
    while (true) {
      absl::StatusOr<std::string> found = ReadFile(path);
      if (found.ok() && *found == hashes_[i]) break;
      if (++polls > kPolls) {
        return absl::FailedPreconditionError(absl::StrCat(
            "rank ", rank(), " does not find in ", path,
            " what rank 0 wrote there; the run folder must be on a file "
            "system that all ranks share (checkpoint { folder })"));
      }
      absl::SleepFor(kPoll);
    }
  }
  return absl::OkStatus();
}

absl::Status ExperimentRun::PrepareFolder() {
  absl::Status status = MakeDirectories(folder_);
  if (!status.ok()) {
    return absl::Status(
        status.code(),
        absl::StrCat("the run folder cannot be made: ", status.message(),
                     "; choose another with --merge='checkpoint { folder: "
                     "\"...\" }'"));
  }
  // All are checked before any is touched.
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (!chosen_[i]) continue;
    const std::string stage_folder = StageFolder(stages_[i].name);
    absl::StatusOr<std::string> found =
        ReadFile(JoinPath(stage_folder, kHashFile));
    if (IsFresh(stages_[i].name) || !found.ok() || *found == hashes_[i]) {
      continue;
    }
    return absl::FailedPreconditionError(absl::StrCat(
        stage_folder, " holds another experiment (config hash ", *found,
        ", this one has ", hashes_[i], "; its experiment is in ", folder_,
        "/experiment.pbtxt). Choose another folder with --merge='checkpoint { "
        "folder: \"...\" }', or delete this stage's results with --fresh=",
        stages_[i].name));
  }
  bool all_fresh = true;
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (reused_.count(stages_[i].name) > 0) continue;
    const std::string stage_folder = StageFolder(stages_[i].name);
    if (!chosen_[i]) {
      all_fresh = all_fresh && !PathExists(stage_folder);
      continue;
    }
    if (IsFresh(stages_[i].name)) {
      status = RemoveTree(stage_folder);
      if (!status.ok()) return status;
    } else {
      all_fresh = false;
    }
    status = MakeDirectories(stage_folder);
    if (status.ok()) {
      status = AtomicWriteFile(JoinPath(stage_folder, kHashFile), hashes_[i]);
    }
    if (!status.ok()) return status;
  }
  // The tokenizer belongs to the stages: another `text` changes all their
  // hashes, and so starts them all anew.
  if (all_fresh) {
    for (const char* made : {kMadeSentencePiece, kMadeVocabulary}) {
      status = RemoveTree(JoinPath(folder_, made));
      if (!status.ok()) return status;
    }
  }
  return AtomicWriteFile(JoinPath(folder_, "experiment.pbtxt"),
                         PrintExperiment(experiment_));
}

// One tokenizer serves the run: parameters of the text encoder mean nothing
// under another one.
absl::Status ExperimentRun::PrepareTokenizer() {
  const TextConfig& text = expanded_.front().text();
  for (const Experiment& e : expanded_) {
    if (e.text().sentencepiece().SerializeAsString() !=
            text.sentencepiece().SerializeAsString() ||
        e.text().wordpiece().SerializeAsString() !=
            text.wordpiece().SerializeAsString()) {
      return absl::InvalidArgumentError(
          "stages differ in their tokenizer (text { ... }); a run has one");
    }
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer;
  if (!text.has_wordpiece() && !text.has_sentencepiece())
    return absl::OkStatus();
  const std::string made = MadeTokenizerName(text);
  if (made.empty()) {
    tokenizer = LoadTokenizer(
        text, JoinPath(working_folder_, text.has_wordpiece()
                                            ? text.wordpiece().vocab()
                                            : text.sentencepiece().model()));
  } else {
    const std::string path = JoinPath(folder_, made);
    if (rank() == 0 && !PathExists(path) && !reused_.empty()) {
      // What the reused stages were trained with.
      absl::StatusOr<std::string> model =
          ReadFile(JoinPath(reuse_folder_, made));
      if (!model.ok()) return model.status();
      absl::Status status = AtomicWriteFile(path, *model);
      if (!status.ok()) return status;
    }
    if (rank() == 0 && !PathExists(path)) {
      absl::Status status = MakeTokenizer(expanded_.front(), streams_, path);
      if (!status.ok()) return status;
    }
    Barrier();
    tokenizer = LoadTokenizer(text, path);
  }
  if (!tokenizer.ok()) return tokenizer.status();
  tokenizer_ = *std::move(tokenizer);
  return absl::OkStatus();
}

absl::Status ExperimentRun::CheckData(const Experiment& stage) {
  std::set<std::string> names;
  if (stage.trainer().has_stream()) names.insert(stage.trainer().stream());
  for (const TaskConfig& task : stage.tasks()) names.insert(task.stream());
  RankFacts facts;
  for (const std::string& name : names) {
    if (name.empty()) continue;
    auto source = streams_.Open(stage, name);
    if (!source.ok()) return source.status();
    const int64_t size = (*source)->size();
    // A few of them, pictures and all, tell another file, or another order.
    Sha256 samples;
    for (const int64_t i : {int64_t{0}, size / 3, size - size / 3, size - 1}) {
      if (i < 0 || i >= size) continue;
      absl::StatusOr<Sample> sample = (*source)->Read(i);
      if (!sample.ok()) continue;  // Counted where it is trained on.
      samples.Update(absl::StrCat(i, "\n", sample->image_id, "\n"));
      for (const TextRecord& text : sample->texts) {
        samples.Update(absl::StrCat(text.text, "\n"));
      }
      for (size_t slot = 0; slot < sample->image_paths.size(); ++slot) {
        absl::StatusOr<std::string> image =
            ReadSampleImage(*sample, slot, kMaxImageBytes);
        samples.Update(absl::StrCat(image.ok(), "\n"));
        if (image.ok()) samples.Update(*image);
      }
    }
    facts.emplace_back(absl::StrCat("stream ", name),
                       absl::StrCat(size, " samples, hash of some of them ",
                                    samples.FinishHex().substr(0, 16)));
  }
  return ranks_->CheckAlike("their data", facts);
}

absl::StatusOr<StageSetup> ExperimentRun::Setup(size_t index) {
  StageSetup setup;
  setup.name = stages_[index].name;
  setup.experiment = expanded_[index];
  setup.config_text = PrintExperiment(stages_[index].experiment);
  setup.config_hash = hashes_[index];
  absl::StatusOr<ContractBook> book = BuildContracts(stages_[index].experiment);
  if (!book.ok()) return book.status();
  setup.book = *std::move(book);
  setup.tokenizer = tokenizer_.get();
  setup.streams = &streams_;
  setup.device = device_;
  setup.group = group();
  setup.activity = ranks_ == nullptr ? nullptr : &ranks_->activity();
  setup.folder = StageFolder(setup.name);
  setup.stop_signal = stop_signal_;
  setup.debug_nonfinite = flags_.debug_nonfinite;
  return setup;
}

absl::Status ExperimentRun::RunStage(size_t index) {
  absl::StatusOr<StageSetup> setup = Setup(index);
  if (!setup.ok()) return setup.status();
  const std::string result_path = JoinPath(setup->folder, kResultFile);
  const bool eval_only = flags_.mode == Flags::RunMode::kEval;
  if (AsRankZero(!eval_only && PathExists(result_path))) {
    if (rank() != 0) return absl::OkStatus();  // It reports.
    absl::StatusOr<StageResult> result = ReadResult(result_path);
    if (!result.ok()) return result.status();
    std::printf("stage %s: done before (%s)\n", setup->name.c_str(),
                result_path.c_str());
    results_.push_back(*std::move(result));
    return absl::OkStatus();
  }
  if (ranks_ != nullptr) {
    absl::Status status = CheckData(setup->experiment);
    if (!status.ok()) return status;
  }
  const absl::StatusOr<InitFrom> init = ResolveInit(setup->experiment);
  if (!init.ok()) return init.status();
  absl::StatusOr<std::unique_ptr<Trainer>> trainer =
      Trainer::Create(*std::move(setup));
  if (!trainer.ok()) return trainer.status();
  absl::StatusOr<bool> resumed = (*trainer)->Resume();
  if (!resumed.ok()) return resumed.status();
  if (*resumed) {
    std::printf("stage %s: goes on at step %lld of %lld\n",
                stages_[index].name.c_str(),
                static_cast<long long>((*trainer)->step()),
                static_cast<long long>((*trainer)->total_steps()));
  } else if (eval_only && (*trainer)->total_steps() > 0) {
    return absl::NotFoundError(
        absl::StrCat("stage ", stages_[index].name, " has no checkpoint in ",
                     folder_, " to evaluate; run --mode=train first"));
  } else if (init->has_stage() || init->has_path() ||
             init->weights_size() > 0) {
    const std::string path =
        init->has_stage() ? JoinPath(StageFolder(init->stage()), "checkpoints")
                          : init->path();
    absl::StatusOr<InitReport> report =
        InitParameters(*init, path, (*trainer)->model());
    if (!report.ok()) return report.status();
    std::printf("%s\n", ToString(*report).c_str());
    (*trainer)->SyncTeacher();
  }
  std::fflush(stdout);
  if (!eval_only) {
    absl::Status status;
    std::string out_of_memory;
    try {
      status = (*trainer)->Train();
    } catch (const std::exception& error) {
      if (!IsOutOfMemory(error)) throw;
      out_of_memory = error.what();
    }
    if (!out_of_memory.empty()) {
      const int64_t step = (*trainer)->step();
      trainer->reset();
      absl::StatusOr<StageSetup> again = Setup(index);
      if (!again.ok()) return again.status();
      return absl::ResourceExhaustedError(
          absl::StrCat("after ", step,
                       " steps: ", ExplainOutOfMemory(*again, out_of_memory)));
    }
    if (!status.ok()) return status;
  }
  FinishedTasks finished(StageFolder(stages_[index].name), hashes_[index],
                         (*trainer)->step());
  absl::StatusOr<StageResult> result = (*trainer)->Evaluate(&finished);
  if (!result.ok()) return result.status();
  if (rank() == 0) {
    absl::Status status = WriteText(result_path, *result);
    // What the result now holds; --mode=eval evaluates all again.
    status.Update(
        RemoveTree(FinishedTasks::Path(StageFolder(stages_[index].name))));
    if (!status.ok()) return status;
  }
  Barrier();  // The next stage reads what this one left.
  results_.push_back(*std::move(result));
  return absl::OkStatus();
}

absl::Status ExperimentRun::ReadFinished(size_t index) {
  const std::string folder = StageFolder(stages_[index].name);
  const std::string path = JoinPath(folder, kResultFile);
  const absl::StatusOr<std::string> hash =
      ReadFile(JoinPath(folder, kHashFile));
  if (!hash.ok() || *hash != hashes_[index] || !PathExists(path)) {
    return absl::OkStatus();
  }
  absl::StatusOr<StageResult> result = ReadResult(path);
  if (!result.ok()) return result.status();
  results_.push_back(*std::move(result));
  return absl::OkStatus();
}

absl::Status ExperimentRun::Run() {
  for (size_t i = 0; i < stages_.size(); ++i) {
    absl::Status status = chosen_[i] ? RunStage(i) : ReadFinished(i);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat("stage ", stages_[i].name,
                                                      ": ", status.message()));
    }
  }
  if (rank() != 0) return absl::OkStatus();
  const std::string report = FormatResults(results_);
  std::printf("\n%s\nresults in %s\n", report.c_str(), folder_.c_str());
  return AtomicWriteFile(JoinPath(folder_, "report.txt"), report);
}

absl::Status ExperimentRun::Plan() {
  absl::Status status = ChooseDevice();
  if (!status.ok()) return status;
  for (size_t i = 0; i < stages_.size(); ++i) {
    if (!chosen_[i]) continue;
    absl::StatusOr<StageSetup> setup = Setup(i);
    if (!setup.ok()) return setup.status();
    absl::StatusOr<std::string> plan = PlanStage(*setup);
    if (!plan.ok()) return plan.status();
    std::printf("%s\n", plan->c_str());
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

}  // namespace semvq
