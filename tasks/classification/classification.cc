#include "tasks/classification/classification.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "core/eval/ranking.h"
#include "core/forward/types.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/text/caption.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "tasks/classification/image_collector.h"
#include "tasks/classification/linear_probe.h"

namespace semvq {
namespace {

using ProbeConfig = ClassificationConfig::LinearProbe;

// More codes would make a row of features larger than an image.
constexpr int64_t kMaxCodeFeatures = 65536;
constexpr char kZeroShot[] = "zero-shot";
constexpr int64_t kBest = 5;  // Classes listed an image in the result file.

std::vector<double> Penalties(const ProbeConfig& probe) {
  std::vector<double> penalties(probe.penalties().begin(),
                                probe.penalties().end());
  if (penalties.empty()) {
    for (int i = 0; i < 12; ++i)
      penalties.push_back(std::pow(10.0, -6 + i / 2.0));
  }
  // The strongest first: each start is near the next end, and of equally good
  // ones the first is kept.
  std::sort(penalties.rbegin(), penalties.rend());
  return penalties;
}

struct Prompts {
  at::Tensor ids, mask;  // [classes * templates, L], a class's side by side.
  int64_t truncated = 0;
};

class Classification : public Task {
 public:
  Classification(const ClassificationConfig& config, std::string instance,
                 std::vector<std::string> classes, Prompts prompts,
                 std::vector<std::vector<int64_t>> codes_per_group)
      : config_(config),
        instance_(std::move(instance)),
        classes_(std::move(classes)),
        prompts_(std::move(prompts)),
        collector_(config_, absl::StrCat("task ", instance_), classes_,
                   std::move(codes_per_group)) {}

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  // What one way to classify says of the evaluated images.
  struct Answer {
    std::string method;
    at::Tensor scores;  // float64 [N, classes]
  };

  at::Tensor ClassEmbeddings(EvalContext& context, at::Device device) const;
  absl::StatusOr<LinearProbe> Fit(size_t probe, const LabelledImages& train,
                                  const LabelledImages* validation,
                                  std::string* note) const;
  absl::Status Report(const Answer& answer, const LabelledImages& images,
                      TaskResult* result,
                      std::vector<std::string>* per_class) const;
  std::string ResultFile(const std::vector<Answer>& answers,
                         const LabelledImages& images,
                         const std::vector<std::string>& per_class) const;
  int64_t num_classes() const { return static_cast<int64_t>(classes_.size()); }

  const ClassificationConfig config_;
  const std::string instance_;
  const std::vector<std::string> classes_;
  const Prompts prompts_;
  const ImageCollector collector_;
};

// float64 [classes, d]
at::Tensor Classification::ClassEmbeddings(EvalContext& context,
                                           at::Device device) const {
  std::vector<at::Tensor> parts;
  const int64_t prompts = prompts_.ids.size(0);
  for (int64_t begin = 0; begin < prompts;
       begin += config_.zero_shot().batch_size()) {
    const int64_t n =
        std::min(config_.zero_shot().batch_size(), prompts - begin);
    Batch batch;
    batch.images = at::empty({0, 1, 0}, device);
    batch.text_ids = prompts_.ids.narrow(0, begin, n).to(device);
    batch.text_mask = prompts_.mask.narrow(0, begin, n).to(device);
    batch.text_to_image = at::zeros_like(batch.text_ids.select(1, 0));
    parts.push_back(context.MakeForward(batch)
                        ->Get<at::Tensor>(TextKey(
                            config_.zero_shot().contrastive(), kTextEmbedding))
                        .to(at::kCPU, at::kDouble));
  }
  const auto normalized = [](const at::Tensor& t) {
    return t / t.norm(2, -1, true).clamp_min(1e-12);
  };
  const at::Tensor all = normalized(at::cat(parts));
  return normalized(all.view({num_classes(), -1, all.size(1)}).mean(1));
}

absl::StatusOr<LinearProbe> Classification::Fit(
    size_t probe, const LabelledImages& train, const LabelledImages* validation,
    std::string* note) const {
  const ProbeConfig& config = config_.probes(static_cast<int>(probe));
  LinearProbeOptions options;
  options.classes = num_classes();
  options.max_iterations = config.max_iterations();
  const at::Tensor labels = torch::tensor(train.labels, at::kLong);
  LinearProbe best, last;
  double best_accuracy = -1, best_penalty = 0;
  bool all_converged = true;
  const std::vector<double> penalties = Penalties(config);
  for (const double penalty : penalties) {
    options.penalty = penalty;
    last = FitLinearProbe(train.features[probe], labels, options,
                          last.weight.defined() ? &last : nullptr);
    all_converged = all_converged && last.converged;
    double accuracy = 0;
    if (validation != nullptr) {
      accuracy = last.Scores(validation->features[probe])
                     .argmax(1)
                     .eq(torch::tensor(validation->labels, at::kLong))
                     .to(at::kDouble)
                     .mean()
                     .item<double>();
    }
    if (accuracy > best_accuracy) {
      best = last;
      best_accuracy = accuracy;
      best_penalty = penalty;
    }
  }
  absl::StrAppend(note, "; ", config.name(), ": ", train.labels.size(),
                  " images, penalty ", best_penalty);
  if (penalties.size() > 1) {
    absl::StrAppend(note, " of ", penalties.size(), " by ",
                    validation->labels.size(), " validation images");
  }
  if (!all_converged) {
    absl::StrAppend(note, ", stopped after ", options.max_iterations,
                    " iterations");
  }
  return best;
}

absl::Status Classification::Report(const Answer& answer,
                                    const LabelledImages& images,
                                    TaskResult* result,
                                    std::vector<std::string>* per_class) const {
  if (!answer.scores.isfinite().all().item<bool>()) {
    return absl::FailedPreconditionError(
        absl::StrCat("task ", instance_, ": ", answer.method,
                     " gives scores that are not finite; the model "
                     "has diverged, go back to an earlier checkpoint"));
  }
  std::vector<std::vector<int64_t>> positives;
  for (const int64_t label : images.labels) positives.push_back({label});
  const std::vector<int64_t> ranks =
      BestPositiveRanks(answer.scores, positives);
  const double chance = 100.0 / static_cast<double>(num_classes());
  const auto add = [&](absl::string_view name, double value, double guess,
                       bool headline) {
    TaskMetric metric;
    metric.name = absl::StrCat(answer.method, " ", name);
    metric.value = value;
    metric.chance = guess;
    metric.unit = "%";
    metric.headline = headline;
    result->metrics.push_back(metric);
  };
  add("top-1", RecallAt(ranks, 1), chance, true);
  if (num_classes() > kBest)
    add("top-5", RecallAt(ranks, kBest), kBest * chance, false);

  std::vector<int64_t> count(num_classes()), right(num_classes());
  for (size_t i = 0; i < ranks.size(); ++i) {
    ++count[images.labels[i]];
    right[images.labels[i]] += ranks[i] == 0;
  }
  double sum = 0;
  int64_t present = 0;
  std::vector<std::string> rows;
  for (int64_t c = 0; c < num_classes(); ++c) {
    if (count[c] == 0) continue;
    const double accuracy =
        100.0 * static_cast<double>(right[c]) / static_cast<double>(count[c]);
    sum += accuracy;
    ++present;
    rows.push_back(absl::StrCat(JsonString(classes_[c]), ": ", accuracy));
  }
  add("mean of the classes", sum / static_cast<double>(present), chance, false);
  per_class->push_back(absl::StrCat(JsonString(answer.method), ": {",
                                    absl::StrJoin(rows, ", "), "}"));
  return absl::OkStatus();
}

std::string Classification::ResultFile(
    const std::vector<Answer>& answers, const LabelledImages& images,
    const std::vector<std::string>& per_class) const {
  std::vector<at::Tensor> best;
  for (const Answer& answer : answers)
    best.push_back(TopColumns(answer.scores, kBest));
  const auto name = [this](int64_t c) { return JsonString(classes_[c]); };
  std::vector<std::string> rows;
  for (size_t i = 0; i < images.ids.size(); ++i) {
    std::string row = absl::StrCat("{\"image_id\": ", JsonString(images.ids[i]),
                                   ", \"label\": ", name(images.labels[i]));
    for (size_t a = 0; a < answers.size(); ++a) {
      const at::Tensor mine = best[a][static_cast<int64_t>(i)];
      std::vector<std::string> names;
      for (int64_t k = 0; k < mine.size(0); ++k)
        names.push_back(name(mine[k].item<int64_t>()));
      absl::StrAppend(&row, ", ", JsonString(answers[a].method), ": [",
                      absl::StrJoin(names, ", "), "]");
    }
    rows.push_back(row + "}");
  }
  std::vector<std::string> names;
  for (int64_t c = 0; c < num_classes(); ++c) names.push_back(name(c));
  return absl::StrCat("{\"classes\": [", absl::StrJoin(names, ", "),
                      "],\n\"images\": [\n", absl::StrJoin(rows, ",\n"),
                      "\n],\n\"per_class\": {", absl::StrJoin(per_class, ",\n"),
                      "}}\n");
}

absl::StatusOr<TaskResult> Classification::Evaluate(EvalContext& context) {
  absl::StatusOr<LabelledImages> test =
      collector_.Collect(context, "", config_.has_zero_shot());
  if (!test.ok()) return test.status();
  TaskResult result;
  result.note =
      absl::StrCat(test->labels.size(), " images, ", num_classes(), " classes");
  if (test->without_class > 0) {
    absl::StrAppend(&result.note, "; ", test->without_class,
                    " images have none of the classes and are left out");
  }
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  if (prompts_.truncated > 0) {
    absl::StrAppend(&result.note, "; ", prompts_.truncated, " prompts are cut");
  }

  std::vector<Answer> answers;
  if (config_.has_zero_shot()) {
    const at::Tensor classes = ClassEmbeddings(context, test->device);
    answers.push_back({kZeroShot, at::matmul(test->embedding, classes.t())});
  }
  std::vector<int64_t> counted = test->labels;
  if (!config_.train_stream().empty()) {
    absl::StatusOr<LabelledImages> train =
        collector_.Collect(context, config_.train_stream(), false);
    if (!train.ok()) return train.status();
    counted = train->labels;
    absl::StatusOr<LabelledImages> validation = LabelledImages();
    if (!config_.validation_stream().empty()) {
      validation =
          collector_.Collect(context, config_.validation_stream(), false);
      if (!validation.ok()) return validation.status();
    }
    for (int p = 0; p < config_.probes_size(); ++p) {
      absl::StatusOr<LinearProbe> probe =
          Fit(p, *train,
              config_.validation_stream().empty() ? nullptr : &*validation,
              &result.note);
      if (!probe.ok()) return probe.status();
      answers.push_back(
          {config_.probes(p).name(), probe->Scores(test->features[p])});
    }
  }
  std::vector<std::string> per_class;
  for (const Answer& answer : answers) {
    absl::Status status = Report(answer, *test, &result, &per_class);
    if (!status.ok()) return status;
  }

  std::vector<int64_t> counts(num_classes());
  for (const int64_t label : counted) ++counts[label];
  const int64_t majority =
      std::max_element(counts.begin(), counts.end()) - counts.begin();
  TaskMetric baseline;
  baseline.name = "baseline: majority class";
  baseline.value = 100.0 *
                   static_cast<double>(std::count(
                       test->labels.begin(), test->labels.end(), majority)) /
                   static_cast<double>(test->labels.size());
  baseline.chance = std::nan("");
  baseline.unit = "%";
  baseline.headline = true;
  result.metrics.push_back(baseline);

  const std::string path = JoinPath(context.output_folder(),
                                    absl::StrCat(instance_, "_result.json"));
  absl::Status status =
      AtomicWriteFile(path, ResultFile(answers, *test, per_class));
  if (!status.ok()) return status;
  result.files.push_back(path);
  return result;
}

absl::Status CheckClasses(const std::vector<std::string>& classes,
                          const std::string& where) {
  const auto wrong = [&where](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", what...));
  };
  if (classes.size() < 2)
    return wrong("got ", classes.size(), " classes, expected at least 2");
  std::set<std::string> seen;
  for (const std::string& name : classes) {
    if (CleanCaption(name, 0).empty())
      return wrong("got a class \"", name, "\", expected a name with words");
    if (!seen.insert(name).second)
      return wrong("got \"", name, "\" twice, expected distinct classes");
  }
  return absl::OkStatus();
}

absl::StatusOr<Prompts> MakePrompts(
    const ClassificationConfig::ZeroShot& config,
    const std::vector<std::string>& classes, const PluginContext& context) {
  std::vector<std::string> templates(config.templates().begin(),
                                     config.templates().end());
  if (templates.empty()) templates = {"{}"};
  std::vector<std::string> texts;
  for (const std::string& name : classes) {
    for (const std::string& frame : templates)
      texts.push_back(
          CleanCaption(absl::StrReplaceAll(frame, {{"{}", name}}), 0));
  }
  absl::StatusOr<PaddedTokens> tokens =
      EncodePadded(*context.tokenizer, texts, context.book->max_tokens);
  if (!tokens.ok()) return tokens.status();
  Prompts prompts;
  prompts.ids = torch::tensor(tokens->ids, at::kLong)
                    .view({tokens->batch, tokens->length});
  prompts.mask = torch::tensor(tokens->mask, at::kLong)
                     .view({tokens->batch, tokens->length})
                     .to(at::kBool);
  prompts.truncated = tokens->truncated;
  return prompts;
}

bool OnCodes(const ProbeConfig& probe) {
  return probe.features() == ProbeConfig::CODES;
}

}  // namespace

absl::Status ValidateClassification(const ClassificationConfig& config) {
  FieldErrors errors;
  errors.Require(config.classes().empty() != (config.class_name_size() == 0),
                 "classes",
                 config.classes().empty() ? "nothing" : "a file and class_name",
                 "the path of a JSON list of class names, or class_name");
  errors.Require(config.has_zero_shot() || config.probes_size() > 0,
                 "zero_shot", "nothing", "zero_shot { } or probes { }");
  if (config.has_zero_shot()) {
    const ClassificationConfig::ZeroShot& zero = config.zero_shot();
    errors.RequireInstance("zero_shot.contrastive", zero.contrastive());
    errors.RequirePositive("zero_shot.batch_size", zero.batch_size());
    for (const std::string& frame : zero.templates()) {
      errors.Require(frame.find("{}") != std::string::npos,
                     "zero_shot.templates", frame, "a text with {} in it");
    }
  }
  // Keys of the result file.
  std::set<std::string> names = {kZeroShot, "image_id", "label"};
  for (const ProbeConfig& probe : config.probes()) {
    errors.Require(!probe.name().empty() && names.insert(probe.name()).second,
                   "probes.name", absl::StrCat("\"", probe.name(), "\""),
                   "a name of its own, not zero-shot, image_id or label");
    errors.RequireInstance("probes.from", probe.from());
    for (const double penalty : probe.penalties()) {
      errors.Require(penalty > 0 && penalty <= 1e6, "probes.penalties", penalty,
                     "more than 0, at most 1e6");
    }
    errors.RequirePositive("probes.max_iterations", probe.max_iterations());
    errors.Require(!config.train_stream().empty(), "train_stream", "nothing",
                   "the stream that probes are trained on");
    errors.Require(
        Penalties(probe).size() == 1 || !config.validation_stream().empty(),
        "validation_stream", "nothing",
        "the stream that a penalty is chosen on, or probes with one penalty");
  }
  return errors.status();
}

Contract ClassificationContract(const std::string& /*instance*/,
                                const ClassificationConfig& config,
                                const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image", "answers"};
  if (config.has_zero_shot()) {
    for (const char* view : {kImageEmbedding, kTextEmbedding}) {
      contract.needs.push_back(
          {"zero_shot.contrastive", config.zero_shot().contrastive(), view});
    }
  }
  for (const ProbeConfig& probe : config.probes()) {
    NeededView need;
    need.field = "probes.from";
    need.instance = probe.from();
    switch (probe.features()) {
      case ProbeConfig::CLS:
      case ProbeConfig::MEAN:
        need.view = kTokens;
        break;
      case ProbeConfig::EMBEDDING:
        need.view = kImageEmbedding;
        break;
      case ProbeConfig::CODES:
        need.needs_codes = true;
        need.why = "a probe looks at the codes";
        need.view = kQuantized;
        break;
      case ProbeConfig::CODE_VECTORS:
        need.view = kQuantized;
        break;
    }
    contract.needs.push_back(need);
  }
  if (!config.classes().empty()) {
    contract.files = {
        {"classes", config.classes(), "JSON list of class names"}};
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeClassification(
    const ClassificationConfig& config, const PluginContext& context) {
  std::vector<std::string> classes(config.class_name().begin(),
                                   config.class_name().end());
  if (!config.classes().empty()) {
    absl::StatusOr<std::vector<std::string>> list =
        ReadJsonStringList(config.classes());
    // Only sizes matter then.
    if (absl::IsNotFound(list.status()) && context.planning)
      list = std::vector<std::string>{"one", "other"};
    if (!list.ok()) return list.status();
    classes = *std::move(list);
  }
  absl::Status status = CheckClasses(
      classes, config.classes().empty() ? "class_name" : config.classes());
  if (!status.ok()) return status;

  Prompts prompts;
  if (config.has_zero_shot() && context.tokenizer != nullptr) {
    absl::StatusOr<Prompts> made =
        MakePrompts(config.zero_shot(), classes, context);
    if (!made.ok()) return made.status();
    prompts = *std::move(made);
  } else if (config.has_zero_shot() && !context.planning) {
    return absl::InvalidArgumentError(
        "zero_shot: got no tokenizer, expected text { } in the experiment");
  }
  std::vector<std::vector<int64_t>> codes(config.probes_size());
  for (int p = 0; p < config.probes_size(); ++p) {
    const ProbeConfig& probe = config.probes(p);
    if (!OnCodes(probe)) continue;
    const Contract* quantizer = context.book->Find(probe.from());
    if (quantizer == nullptr || quantizer->codes.codes_per_group.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("quantizer \"", probe.from(), "\" has no codes"));
    }
    codes[p] = quantizer->codes.codes_per_group;
    const double all = std::accumulate(codes[p].begin(), codes[p].end(), 0.0);
    if (all > kMaxCodeFeatures) {
      return absl::InvalidArgumentError(absl::StrCat(
          "probe \"", probe.name(), "\": \"", probe.from(), "\" has ", all,
          " codes, expected at most ", kMaxCodeFeatures,
          " to count one by one; use features: CODE_VECTORS"));
    }
  }
  return std::shared_ptr<Task>(std::make_shared<Classification>(
      config, context.instance, std::move(classes), std::move(prompts),
      std::move(codes)));
}

}  // namespace semvq
