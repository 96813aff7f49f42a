#include "tasks/classification/classification.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
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

// The images of a stream that have a class, on the CPU.
struct Images {
  std::vector<std::string> ids;
  std::vector<int64_t> labels;
  at::Tensor embedding;              // [N, d], for zero-shot; may be undefined.
  std::vector<at::Tensor> features;  // [N, D], one a probe.
  int64_t without_class = 0;
  at::Device device = at::kCPU;  // The model's.
};

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
        codes_per_group_(std::move(codes_per_group)) {
    for (size_t c = 0; c < classes_.size(); ++c)
      index_[classes_[c]] = static_cast<int64_t>(c);
  }

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  // What one way to classify says of the evaluated images.
  struct Answer {
    std::string method;
    at::Tensor scores;  // float64 [N, classes]
  };

  // `stream`: empty for the task's own. `zero_shot`: also the embeddings.
  absl::StatusOr<Images> Collect(EvalContext& context,
                                 const std::string& stream,
                                 bool zero_shot) const;
  // -1: none of the image's texts has one.
  absl::StatusOr<std::vector<int64_t>> Labels(const Batch& batch) const;
  absl::StatusOr<at::Tensor> Features(size_t probe, Forward& forward) const;
  at::Tensor ClassEmbeddings(EvalContext& context, at::Device device) const;
  absl::StatusOr<LinearProbe> Fit(size_t probe, const Images& train,
                                  const Images* validation,
                                  std::string* note) const;
  absl::Status Report(const Answer& answer, const Images& images,
                      TaskResult* result,
                      std::vector<std::string>* per_class) const;
  std::string ResultFile(const std::vector<Answer>& answers,
                         const Images& images,
                         const std::vector<std::string>& per_class) const;
  absl::Status Error(absl::string_view message) const {
    return absl::FailedPreconditionError(
        absl::StrCat("task ", instance_, ": ", message));
  }
  int64_t num_classes() const { return static_cast<int64_t>(classes_.size()); }

  const ClassificationConfig config_;
  const std::string instance_;
  const std::vector<std::string> classes_;
  const Prompts prompts_;
  // One a probe; empty for those that are not on codes.
  const std::vector<std::vector<int64_t>> codes_per_group_;
  std::map<std::string, int64_t> index_;
};

absl::StatusOr<std::vector<int64_t>> Classification::Labels(
    const Batch& batch) const {
  std::vector<int64_t> labels(batch.num_images(), -1);
  const at::Tensor owner = batch.text_to_image.to(at::kCPU);
  for (int64_t t = 0; t < batch.num_texts(); ++t) {
    const int64_t image = owner[t].item<int64_t>();
    for (const auto& [answer, share] : batch.texts[t].answers) {
      const auto found = index_.find(answer);
      if (found == index_.end()) continue;
      if (labels[image] >= 0 && labels[image] != found->second) {
        return Error(absl::StrCat(
            "image \"", batch.image_ids[image], "\" is labelled \"",
            classes_[labels[image]], "\" and \"", answer,
            "\", expected one of the classes; mend the records, or list "
            "classes that exclude each other"));
      }
      labels[image] = found->second;
    }
  }
  return labels;
}

absl::StatusOr<at::Tensor> Classification::Features(size_t probe,
                                                    Forward& forward) const {
  const ProbeConfig& config = config_.probes(static_cast<int>(probe));
  switch (config.features()) {
    case ProbeConfig::CLS: {
      const Tokens& tokens =
          forward.Get<Tokens>(ImageKey(config.from(), kTokens));
      if (!tokens.has_cls) {
        return Error(absl::StrCat("probe \"", config.name(), "\": \"",
                                  config.from(),
                                  "\" has no [CLS]; use features: MEAN"));
      }
      return tokens.values.select(1, 0);
    }
    case ProbeConfig::MEAN: {
      const Tokens& tokens =
          forward.Get<Tokens>(ImageKey(config.from(), kTokens));
      const int64_t first = tokens.has_cls ? 1 : 0;
      return tokens.values.narrow(1, first, tokens.values.size(1) - first)
          .mean(1);
    }
    case ProbeConfig::EMBEDDING:
      return forward.Get<at::Tensor>(ImageKey(config.from(), kImageEmbedding));
    case ProbeConfig::CODE_VECTORS:
      return forward.Get<QuantizedTokens>(ImageKey(config.from(), kQuantized))
          .quantized.vectors.mean(1);
    case ProbeConfig::CODES: {
      const at::Tensor& codes =
          forward.Get<QuantizedTokens>(ImageKey(config.from(), kQuantized))
              .quantized.codes;  // [B, N, groups]
      std::vector<at::Tensor> groups;
      for (size_t g = 0; g < codes_per_group_[probe].size(); ++g) {
        // Codes of no position count into a column that is dropped.
        const at::Tensor code = codes.select(2, static_cast<int64_t>(g)) + 1;
        const int64_t size = codes_per_group_[probe][g];
        const at::Tensor counts =
            at::zeros({code.size(0), size + 1},
                      code.options().dtype(at::kFloat))
                .scatter_add_(
                    1, code,
                    at::ones(code.sizes(), code.options().dtype(at::kFloat)))
                .narrow(1, 1, size);
        groups.push_back(counts / counts.sum(1, true).clamp_min(1));
      }
      return at::cat(groups, 1);
    }
  }
  return Error("unknown features");
}

absl::StatusOr<Images> Classification::Collect(EvalContext& context,
                                               const std::string& stream,
                                               bool zero_shot) const {
  Images images;
  std::vector<at::Tensor> embeddings;
  std::vector<std::vector<at::Tensor>> features(config_.probes_size());
  const auto compute = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    absl::StatusOr<std::vector<int64_t>> labels = Labels(batch);
    if (!labels.ok()) return labels.status();
    std::vector<int64_t> rows;
    for (size_t i = 0; i < labels->size(); ++i) {
      if ((*labels)[i] >= 0) rows.push_back(static_cast<int64_t>(i));
    }
    BatchOutcome outcome;
    if (rows.empty()) return outcome;
    const at::Tensor index = torch::tensor(rows, at::kLong);
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const auto keep = [&](const at::Tensor& t) {
      outcome.tensors.push_back(
          t.detach().to(at::kCPU, at::kDouble).index_select(0, index));
    };
    if (zero_shot) {
      keep(forward->Get<at::Tensor>(
          ImageKey(config_.zero_shot().contrastive(), kImageEmbedding)));
    }
    for (size_t p = 0; p < features.size(); ++p) {
      absl::StatusOr<at::Tensor> values = Features(p, *forward);
      if (!values.ok()) return values.status();
      keep(*values);
      if (!outcome.tensors.back().isfinite().all().item<bool>()) {
        return Error(absl::StrCat(
            "features of \"", config_.probes(static_cast<int>(p)).from(),
            "\" are not finite; the model has diverged, go back to an earlier "
            "checkpoint"));
      }
    }
    return outcome;
  };
  const auto take = [&](const Batch& batch, const BatchOutcome& outcome) {
    absl::StatusOr<std::vector<int64_t>> labels = Labels(batch);
    if (!labels.ok()) return labels.status();
    for (size_t i = 0; i < labels->size(); ++i) {
      if ((*labels)[i] < 0) {
        ++images.without_class;
        continue;
      }
      images.ids.push_back(batch.image_ids[i]);
      images.labels.push_back((*labels)[i]);
    }
    images.device = batch.text_ids.device();
    if (outcome.tensors.empty()) return absl::OkStatus();
    size_t next = 0;
    if (zero_shot) embeddings.push_back(outcome.tensors[next++]);
    for (std::vector<at::Tensor>& of_probe : features)
      of_probe.push_back(outcome.tensors[next++]);
    return absl::OkStatus();
  };
  const absl::Status status = context.ShareBatches(stream, compute, take);
  if (!status.ok()) return status;
  if (images.labels.empty()) {
    return Error(absl::StrCat(
        stream.empty() ? "the stream" : absl::StrCat("stream \"", stream, "\""),
        " holds no image with one of the classes ",
        absl::StrJoin(classes_.begin(),
                      classes_.begin() + std::min<int64_t>(3, num_classes()),
                      ", "),
        ", ... (", images.without_class,
        " images without); expected labels as in the list of classes"));
  }
  if (zero_shot) images.embedding = at::cat(embeddings);
  for (const std::vector<at::Tensor>& parts : features)
    images.features.push_back(at::cat(parts));
  return images;
}

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

absl::StatusOr<LinearProbe> Classification::Fit(size_t probe,
                                                const Images& train,
                                                const Images* validation,
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

absl::Status Classification::Report(const Answer& answer, const Images& images,
                                    TaskResult* result,
                                    std::vector<std::string>* per_class) const {
  if (!answer.scores.isfinite().all().item<bool>()) {
    return Error(
        absl::StrCat(answer.method,
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
    const std::vector<Answer>& answers, const Images& images,
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
  absl::StatusOr<Images> test = Collect(context, "", config_.has_zero_shot());
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
    absl::StatusOr<Images> train =
        Collect(context, config_.train_stream(), false);
    if (!train.ok()) return train.status();
    counted = train->labels;
    absl::StatusOr<Images> validation = Images();
    if (!config_.validation_stream().empty()) {
      validation = Collect(context, config_.validation_stream(), false);
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
