#include "bench/quantizers/collapse.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/config/load.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/forward/views.h"
#include "core/metrics/progress.h"
#include "core/util/file.h"
#include "data/loader.h"
#include "re2/re2.h"
#include "trainer/init_from.h"
#include "trainer/model.h"
#include "trainer/optimizer.h"
#include "trainer/streams.h"

namespace semvq {
namespace {

// Processor time of this thread: there is only one beside the loader's.
double ThreadMs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) +
         1e-6 * static_cast<double>(now.tv_nsec);
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

absl::StatusOr<LoadResult> Load(const std::string& argument,
                                const std::string& working_folder,
                                const std::vector<std::string>& folders) {
  const auto path = ResolveConfigPath(argument, working_folder, folders);
  if (!path.ok()) return path.status();
  const auto source = ReadSource(*path, argument);
  if (!source.ok()) return source.status();
  LoadResult loaded = LoadExperiment({*source});
  if (!loaded.errors.empty())
    return absl::InvalidArgumentError(FormatReport(loaded.errors));
  return loaded;
}

// All that the seeds have in common.
struct Setup {
  Experiment stage;  // What the encoder was trained in, variables expanded.
  Experiment arms;   // What is composed: encoders and quantizers.
  ContractBook book;
  std::string weights;
  std::vector<std::string> held_out;  // Streams.
};

absl::StatusOr<ResolvedStage> LoadStage(const CollapseOptions& options,
                                        const CollapsePlaces& places) {
  const auto loaded =
      Load(options.config.empty() ? JoinPath(options.run, "experiment.pbtxt")
                                  : options.config,
           places.working_folder, places.config_folders);
  if (!loaded.ok()) return loaded.status();
  StagesResult stages = ResolveStages(loaded->experiment, loaded->provenance);
  if (!stages.errors.empty())
    return absl::InvalidArgumentError(FormatReport(stages.errors));
  std::vector<std::string> names;
  for (ResolvedStage& stage : stages.stages) {
    if (options.stage.empty() || stage.name == options.stage) {
      if (!stage.experiment.trainer().stream().empty()) return stage;
      return absl::InvalidArgumentError(absl::StrCat(
          "stage ", stage.name,
          " trains on no stream (trainer.stream); name one that does by "
          "--stage"));
    }
    names.push_back(stage.name);
  }
  return absl::NotFoundError(
      absl::StrCat("--stage: the experiment has no stage \"", options.stage,
                   "\", only ", absl::StrJoin(names, ", ")));
}

// The quantizers of --arms, with where they stand.
absl::StatusOr<LoadResult> LoadArms(const CollapseOptions& options,
                                    const CollapsePlaces& places) {
  auto arms = Load(options.arms, places.working_folder, places.arms_folders);
  if (!arms.ok()) return arms;
  std::vector<const google::protobuf::FieldDescriptor*> set;
  arms->experiment.GetReflection()->ListFields(arms->experiment, &set);
  for (const auto* field : set) {
    if (field->name() != "quantizers") {
      return absl::InvalidArgumentError(
          absl::StrCat(options.arms, ": sets ", field->name(),
                       "; expected quantizers alone: all else is that of the "
                       "encoder's experiment"));
    }
  }
  std::vector<std::string> names;
  for (const QuantizerConfig& arm : arms->experiment.quantizers())
    names.push_back(arm.name());
  if (names.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.arms, ": has no quantizers { ... }"));
  }
  if (options.only.empty()) return arms;
  for (const std::string& name : options.only) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      return absl::NotFoundError(
          absl::StrCat("--only: ", options.arms, " has no quantizer \"", name,
                       "\", only ", absl::StrJoin(names, ", ")));
    }
  }
  Experiment chosen;
  for (const QuantizerConfig& arm : arms->experiment.quantizers()) {
    if (std::find(options.only.begin(), options.only.end(), arm.name()) !=
        options.only.end()) {
      *chosen.add_quantizers() = arm;
    }
  }
  arms->experiment = chosen;
  return arms;
}

// The streams to hold out, all of the trained stream's image size.
absl::StatusOr<std::vector<std::string>> HeldOut(const CollapseOptions& options,
                                                 const Experiment& stage) {
  std::vector<std::string> names = options.held_out;
  if (names.empty()) {
    for (const TaskConfig& task : stage.tasks()) {
      if (task.stream() != stage.trainer().stream() &&
          std::find(names.begin(), names.end(), task.stream()) == names.end()) {
        names.push_back(task.stream());
      }
    }
  }
  if (names.empty()) {
    return absl::InvalidArgumentError(
        "no task of the stage evaluates a stream that it does not train on; "
        "name one by --held_out");
  }
  const auto train = Streams::Find(stage, stage.trainer().stream());
  if (!train.ok()) return train.status();
  for (const std::string& name : names) {
    const auto stream = Streams::Find(stage, name);
    if (!stream.ok()) return stream.status();
    if ((*stream)->transform().size() != (*train)->transform().size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--held_out: stream \"", name, "\" has images of ",
          (*stream)->transform().size(), " pixels, expected ",
          (*train)->transform().size(), " as in \"", (*train)->name(), "\""));
    }
  }
  return names;
}

absl::StatusOr<Setup> MakeSetup(const CollapseOptions& options,
                                const CollapsePlaces& places) {
  auto stage = LoadStage(options, places);
  if (!stage.ok()) return stage.status();
  const auto arms = LoadArms(options, places);
  if (!arms.ok()) return arms.status();
  Setup setup;
  setup.stage = stage->experiment;
  const std::vector<ConfigError> unset =
      ExpandVariables(stage->provenance, &setup.stage);
  if (!unset.empty()) return absl::InvalidArgumentError(FormatReport(unset));
  auto held_out = HeldOut(options, setup.stage);
  if (!held_out.ok()) return held_out.status();
  setup.held_out = *std::move(held_out);

  setup.arms.set_name("collapse");
  std::set<std::string> inputs;
  for (const QuantizerConfig& arm : arms->experiment.quantizers()) {
    *setup.arms.add_quantizers() = arm;
    inputs.insert(arm.input());
  }
  for (const EncoderConfig& encoder : setup.stage.encoders()) {
    if (inputs.count(encoder.name()) == 0) continue;
    *setup.arms.add_encoders() = encoder;
    setup.arms.mutable_encoders(setup.arms.encoders_size() - 1)
        ->set_frozen(true);
  }
  const std::vector<ConfigError> errors =
      ValidateExperiment(setup.arms, arms->provenance);
  if (!errors.empty()) return absl::InvalidArgumentError(FormatReport(errors));
  auto book = BuildContracts(setup.arms);
  if (!book.ok()) return book.status();
  setup.book = *std::move(book);
  const auto train = Streams::Find(setup.stage, setup.stage.trainer().stream());
  if (!train.ok()) return train.status();
  setup.book.image_size = (*train)->transform().size();
  setup.weights = JoinPath(
      places.working_folder,
      options.checkpoint.empty()
          ? JoinPath(options.run, absl::StrCat(stage->name, "/checkpoints"))
          : options.checkpoint);
  return setup;
}

// The encoders' parameters, all of them and no other.
absl::Status LoadEncoders(const Setup& setup, Model& model) {
  InitFrom init;
  for (const QuantizerConfig& arm : setup.arms.quantizers())
    init.add_allow_missing(absl::StrCat(RE2::QuoteMeta(arm.name()), "\\..*"));
  init.add_allow_unexpected(".*");
  const auto report = InitParameters(init, setup.weights, model);
  if (!report.ok()) return report.status();
  for (const EncoderConfig& encoder : setup.arms.encoders()) {
    for (const std::string& name : report->unexpected) {
      if (!absl::StartsWith(name, absl::StrCat(encoder.name(), "."))) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          setup.weights, ": has ", name, ", which encoder \"", encoder.name(),
          "\" of the experiment has no place for; is it the experiment of "
          "these weights?"));
    }
  }
  return absl::OkStatus();
}

// The tokens of a batch by encoder.
using Features = std::map<std::string, Tokens>;

class SeedRun {
 public:
  static absl::StatusOr<std::unique_ptr<SeedRun>> Create(const Setup& setup,
                                                         uint64_t seed,
                                                         int64_t steps) {
    Experiment experiment = setup.arms;
    experiment.set_seed(seed);
    auto model = Model::Compose(experiment, setup.book, /*tokenizer=*/nullptr);
    if (!model.ok()) return model.status();
    std::unique_ptr<SeedRun> run(
        new SeedRun(setup, seed, steps, *std::move(model)));
    absl::Status status = LoadEncoders(setup, *run->model_);
    if (!status.ok()) return status;
    for (Model::QuantizerEntry& entry : run->model_->quantizers()) {
      NamedTensors parameters;
      for (const auto& p : entry.views->named_parameters())
        parameters.emplace_back(p.key(), p.value());
      OptimizerConfig config = setup.stage.optimizer();
      config.clear_groups();
      auto optimizer = AdamW::Create(config, parameters);
      if (!optimizer.ok()) return optimizer.status();
      run->arms_.emplace_back(entry, *std::move(optimizer), seed);
    }
    return run;
  }

  absl::Status Train(ProgressLine& progress, int64_t before) {
    const auto loader = OpenLoader(setup_.stage.trainer().stream(), true);
    if (!loader.ok()) return loader.status();
    model_->train();
    double waited = 0;
    for (int64_t step = 0; step < steps_; ++step) {
      const auto batch = (*loader)->Next();
      if (!batch.ok()) return batch.status();
      const Features features = Encode(*batch);
      for (Arm& arm : arms_) {
        if (arm.result.nonfinite_step >= 0) continue;
        absl::Status status = Step(arm, *batch, features, step);
        if (!status.ok()) return status;
      }
      const double now = (*loader)->wait_seconds();
      progress.Update(before + step + 1, std::nullopt, now - waited);
      waited = now;
      if (EndsStretch(step)) progress.Print(StretchLine(step));
    }
    NoteBadSamples(**loader, progress);
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<ArmResult>> Evaluate(ProgressLine& progress) {
    c10::NoGradGuard no_grad;
    model_->eval();
    std::vector<std::pair<Batch, Features>> held_out;
    for (const std::string& stream : setup_.held_out) {
      const auto loader = OpenLoader(stream, false);
      if (!loader.ok()) return loader.status();
      while (true) {
        auto batch = (*loader)->Next();
        if (absl::IsOutOfRange(batch.status())) break;
        if (!batch.ok()) return batch.status();
        Features features = Encode(*batch);
        batch->images = at::Tensor();
        held_out.emplace_back(*std::move(batch), std::move(features));
      }
      NoteBadSamples(**loader, progress);
    }
    if (held_out.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the streams held out, ", absl::StrJoin(setup_.held_out, ", "),
          ", have no image that can be read"));
    }
    std::vector<ArmResult> results;
    for (Arm& arm : arms_) {
      if (arm.result.nonfinite_step < 0) Evaluate(arm, held_out);
      results.push_back(arm.result);
    }
    return results;
  }

 private:
  struct Arm {
    Arm(Model::QuantizerEntry& e, AdamW o, uint64_t seed)
        : entry(e),
          optimizer(std::move(o)),
          use(e.views->quantizer().info().codes_per_group) {
      result.name = e.name;
      result.seed = seed;
      result.codes_per_group = e.views->quantizer().info().codes_per_group;
    }
    bool has_codes() const { return !result.codes_per_group.empty(); }

    Model::QuantizerEntry& entry;
    AdamW optimizer;
    CodeUse use;  // Of this stretch.
    std::vector<double> step_ms;
    ArmResult result;
  };

  SeedRun(const Setup& setup, uint64_t seed, int64_t steps,
          std::shared_ptr<Model> model)
      : setup_(setup), seed_(seed), steps_(steps), model_(std::move(model)) {}

  absl::StatusOr<std::unique_ptr<Loader>> OpenLoader(const std::string& name,
                                                     bool training) {
    const auto stream = Streams::Find(setup_.stage, name);
    if (!stream.ok()) return stream.status();
    auto source = streams_.Open(setup_.stage, name);
    if (!source.ok()) return source.status();
    LoaderOptions options;
    options.batch_size = setup_.stage.trainer().batch_size();
    options.seed = seed_;
    options.training = training;
    return Loader::Create(**stream, *source, /*tokenizer=*/nullptr,
                          setup_.stage.data(), options);
  }

  static void NoteBadSamples(const Loader& loader, ProgressLine& progress) {
    if (loader.bad_samples().empty()) return;
    progress.Print(absl::StrCat(loader.bad_samples().size(),
                                " bad samples are left out, the first: ",
                                loader.bad_samples()[0].what));
  }

  Features Encode(const Batch& batch) {
    c10::NoGradGuard no_grad;
    Forward forward(batch, model_->providers(), /*teacher=*/nullptr,
                    {/*training=*/false, seed_, /*step=*/0});
    Features features;
    for (const EncoderConfig& encoder : setup_.arms.encoders()) {
      features[encoder.name()] =
          forward.Get<Tokens>(ImageKey(encoder.name(), kTokens));
    }
    return features;
  }

  // What the arm makes of a batch.
  QuantizedTokens Quantize(Arm& arm, const Batch& batch,
                           const Features& features, bool training,
                           int64_t step) {
    Forward forward(batch, model_->providers(), /*teacher=*/nullptr,
                    {training, seed_, step});
    const std::string& input = arm.entry.config.input();
    forward.Set(ImageKey(input, kTokens), features.at(input));
    return forward.Get<QuantizedTokens>(ImageKey(arm.entry.name, kQuantized));
  }

  absl::Status Step(Arm& arm, const Batch& batch, const Features& features,
                    int64_t step) {
    const double start = ThreadMs();
    arm.optimizer.ZeroGrad();
    const QuantizedTokens out =
        Quantize(arm, batch, features, /*training=*/true, step);
    at::Tensor loss = at::mse_loss(
        out.tokens, PatchTokens(features.at(arm.entry.config.input())));
    for (const auto& [name, value] : out.quantized.losses)
      loss = loss + value * arm.entry.LossWeight(name);
    if (loss.requires_grad()) loss.backward();
    const at::Tensor norm = arm.optimizer.ClipGradients();
    if (!at::isfinite(loss + norm).item<bool>()) {
      arm.result.nonfinite_step = step;
      return absl::OkStatus();
    }
    const Experiment& e = setup_.stage;
    arm.optimizer.Step(LearningRate(e.optimizer(), e.schedule(), step, steps_));
    QuantizeContext context;
    context.mode = QuantizeMode::kTrain;
    context.seed = seed_;
    context.step = step + 1;
    context.frozen = arm.entry.config.frozen();
    const absl::Status status = arm.entry.views->quantizer().AfterStep(context);
    if (!status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("quantizer \"", arm.entry.name,
                                       "\": ", status.message()));
    }
    arm.step_ms.push_back(ThreadMs() - start);

    if (!arm.has_codes()) return absl::OkStatus();
    arm.use.Add(out.quantized.codes);
    if (EndsStretch(step)) EndStretch(arm, out.quantized.metrics, step);
    return absl::OkStatus();
  }

  bool EndsStretch(int64_t step) const {
    return (steps_ - step - 1) % kStretch == 0;
  }

  void EndStretch(Arm& arm, const NamedTensors& metrics, int64_t step) {
    // One that never revives codes need not report how many it uses.
    double used = arm.use.LeastShare();
    // A quantizer of quantizers reports its own parts', too: group0/usage.
    for (const auto& [name, value] : metrics) {
      if (name == "usage" || absl::EndsWith(name, "/usage"))
        used = std::min(used, value.item<double>());
    }
    arm.result.used_by_stretch.push_back(used);
    arm.result.dead = arm.use.Unused();
    if (step + 1 < steps_) arm.use = CodeUse(arm.result.codes_per_group);
  }

  // The arms' last stretch, for whoever waits.
  std::string StretchLine(int64_t step) const {
    std::string text =
        absl::StrCat("seed ", seed_, ", step ", step + 1, ", codes in use: ");
    const char* comma = "";
    for (const Arm& arm : arms_) {
      if (arm.result.used_by_stretch.empty()) continue;
      absl::StrAppendFormat(&text, "%s%s %.0f %%", comma, arm.result.name,
                            100 * arm.result.used_by_stretch.back());
      comma = ", ";
    }
    return text;
  }

  void Evaluate(Arm& arm,
                const std::vector<std::pair<Batch, Features>>& held_out) {
    const std::string& input = arm.entry.config.input();
    CodeUse use(arm.result.codes_per_group);
    double squares = 0;
    int64_t features = 0;
    at::Tensor sum, sum_of_squares;  // Over the features, of each dimension.
    for (const auto& [batch, tokens] : held_out) {
      const QuantizedTokens out =
          Quantize(arm, batch, tokens, /*training=*/false, steps_);
      if (arm.has_codes()) use.Add(out.quantized.codes);
      const at::Tensor target =
          PatchTokens(tokens.at(input)).flatten(0, 1).to(at::kDouble);
      squares +=
          (out.tokens.flatten(0, 1) - target).square().sum().item<double>();
      features += target.size(0);
      const at::Tensor s = target.sum(0), ss = target.square().sum(0);
      sum = sum.defined() ? sum + s : s;
      sum_of_squares = sum_of_squares.defined() ? sum_of_squares + ss : ss;
    }
    const double variance =
        (sum_of_squares - sum.square() / static_cast<double>(features))
            .sum()
            .item<double>();
    ArmResult& result = arm.result;
    result.features = features;
    result.used_held_out = use.LeastShare();
    result.perplexity = use.MeanPerplexity();
    result.error = squares / variance;
    result.step_ms = Median(arm.step_ms);
  }

  const Setup& setup_;
  const uint64_t seed_;
  const int64_t steps_;
  std::shared_ptr<Model> model_;
  Streams streams_;
  std::vector<Arm> arms_;
};

}  // namespace

absl::StatusOr<CollapseOutcome> RunCollapse(
    const CollapseOptions& options, const CollapsePlaces& places,
    const std::function<absl::Status(const CollapseOutcome&)>& done) {
  CollapseOptions resolved = options;
  if (!options.run.empty())
    resolved.run = JoinPath(places.working_folder, options.run);
  auto setup = MakeSetup(resolved, places);
  if (!setup.ok()) return setup.status();
  at::set_num_threads(1);

  CollapseOutcome outcome;
  outcome.facts.steps = options.steps;
  outcome.facts.stretch = std::min(kStretch, options.steps);
  outcome.facts.batch_size = setup->stage.trainer().batch_size();
  outcome.facts.experiment =
      options.config.empty() ? options.run : options.config;
  outcome.facts.weights =
      options.checkpoint.empty() ? options.run : options.checkpoint;
  ProgressLine::Options line;
  line.label = "collapse";
  line.total_steps = options.steps * static_cast<int64_t>(options.seeds.size());
  ProgressLine progress(line);
  int64_t before = 0;
  for (const uint64_t seed : options.seeds) {
    auto run = SeedRun::Create(*setup, seed, options.steps);
    if (!run.ok()) return run.status();
    absl::Status status = (*run)->Train(progress, before);
    if (!status.ok()) return status;
    auto results = (*run)->Evaluate(progress);
    if (!results.ok()) return results.status();
    outcome.results.insert(outcome.results.end(), results->begin(),
                           results->end());
    before += options.steps;
    status = done(outcome);
    if (!status.ok()) return status;
  }
  return outcome;
}

}  // namespace semvq
