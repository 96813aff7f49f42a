#include "tasks/codebook_semantics/codebook_semantics.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/eval/information.h"
#include "core/forward/types.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/random/stream.h"
#include "core/text/caption.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "kernels/kmeans.h"

namespace semvq {
namespace {

constexpr int64_t kSampledPatches = 32768;

// Every image's share of each code, and the words of its captions.
struct Corpus {
  at::Tensor codes;   // float [I, K], rows sum to 1.
  at::Tensor pixels;  // float [I, C], the same for the clusters of pixels.
  at::Tensor words;   // float [I, W], rows sum to 1 (0 without a counted word).
  std::vector<std::string> vocabulary;  // [W]
};

// Rows of `codes` [I, N] as shares over `num_codes`; negative codes are left
// out.
at::Tensor Shares(const at::Tensor& codes, int64_t num_codes) {
  at::Tensor counts = at::zeros({codes.size(0), num_codes + 1});
  counts.scatter_add_(1, codes + 1, at::ones(codes.sizes()));
  counts = counts.narrow(1, 1, num_codes);
  return counts / counts.sum(1, true).clamp_min(1);
}

// At most kSampledPatches rows of [n, P], one of each of as many equal parts.
// (A fixed step could meet the same place of every image.)
at::Tensor SampleRows(const at::Tensor& rows, uint64_t seed) {
  const int64_t n = rows.size(0);
  if (n <= kSampledPatches) return rows.contiguous();
  RandomStream random(seed, "codebook_semantics/sample");
  std::vector<int64_t> index(kSampledPatches);
  for (int64_t i = 0; i < kSampledPatches; ++i) {
    const int64_t begin = i * n / kSampledPatches;
    index[i] = begin + random.Below((i + 1) * n / kSampledPatches - begin);
  }
  return rows.index_select(0, torch::tensor(index));
}

class CodebookSemantics : public Task {
 public:
  CodebookSemantics(const CodebookSemanticsConfig& config, std::string instance,
                    std::vector<int64_t> codes_per_group)
      : config_(config), instance_(std::move(instance)), num_codes_(1) {
    // Groups together are one code; too many combinations fall back to the
    // first group (see the note in the result).
    for (int64_t k : codes_per_group) {
      if (num_codes_ * k > kMaxCodes) break;
      num_codes_ *= k;
      ++groups_;
    }
    all_groups_ = groups_ == static_cast<int64_t>(codes_per_group.size());
    if (groups_ == 0) {
      groups_ = 1;
      num_codes_ = codes_per_group[0];
    }
    for (size_t g = 0; g < codes_per_group.size(); ++g) {
      if (static_cast<int64_t>(g) < groups_)
        sizes_.push_back(codes_per_group[g]);
    }
  }

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  static constexpr int64_t kMaxCodes = 65536;

  absl::StatusOr<Corpus> Collect(EvalContext& context);
  absl::Status WriteTopWords(const Corpus& corpus,
                             const std::string& path) const;

  CodebookSemanticsConfig config_;
  std::string instance_;
  int64_t num_codes_;
  int64_t groups_ = 0;
  bool all_groups_ = true;
  std::vector<int64_t> sizes_;
};

absl::StatusOr<Corpus> CodebookSemantics::Collect(EvalContext& context) {
  const std::set<std::string> stop(config_.stop_words().begin(),
                                   config_.stop_words().end());
  std::vector<at::Tensor> codes, patches;
  std::vector<std::vector<std::string>> words;
  std::map<std::string, int64_t> word_counts;
  absl::Status status = context.ForEachBatch([&](const Batch& batch) {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const QuantizedTokens& quantized = forward->Get<QuantizedTokens>(
        ImageKey(config_.quantizer(), kQuantized));
    const at::Tensor groups = quantized.quantized.codes.to(at::kCPU);
    at::Tensor code = groups.select(2, 0);
    for (int64_t g = 1; g < groups_; ++g) {
      code = at::where(code < 0, code, code * sizes_[g] + groups.select(2, g));
    }
    codes.push_back(code);
    // The pixels that each token stands for: the image cut into as many cells
    // as there are tokens.
    const at::Tensor image = batch.images.select(1, 0).to(at::kCPU);
    const auto side =
        static_cast<int64_t>(std::lround(std::sqrt(code.size(1))));
    const int64_t height = side * side == code.size(1) ? side : 1;
    const int64_t width = code.size(1) / height;
    const int64_t ph = image.size(2) / height, pw = image.size(3) / width;
    patches.push_back(image.narrow(2, 0, ph * height)
                          .narrow(3, 0, pw * width)
                          .reshape({-1, 3, height, ph, width, pw})
                          .permute({0, 2, 4, 1, 3, 5})
                          .reshape({-1, height * width, 3 * ph * pw}));

    const size_t first = words.size();
    words.resize(first + batch.num_images());
    const at::Tensor owner = batch.text_to_image.to(at::kCPU);
    for (int64_t t = 0; t < batch.num_texts(); ++t) {
      std::set<std::string> seen;
      for (absl::string_view word :
           absl::StrSplit(CleanCaption(batch.texts[t].text, 1000), ' ',
                          absl::SkipEmpty())) {
        if (stop.count(std::string(word)) == 0) seen.emplace(word);
      }
      for (const std::string& word : seen) {
        words[first + owner[t].item<int64_t>()].push_back(word);
        ++word_counts[word];
      }
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  Corpus corpus;
  std::map<std::string, int64_t> index;
  for (const auto& [word, count] : word_counts) {
    if (count < config_.min_word_count()) continue;
    index[word] = static_cast<int64_t>(corpus.vocabulary.size());
    corpus.vocabulary.push_back(word);
  }
  if (codes.empty() || index.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": no word occurs in ", config_.min_word_count(),
        " captions; lower min_word_count or evaluate a larger stream"));
  }
  corpus.words = at::zeros(
      {static_cast<int64_t>(words.size()), static_cast<int64_t>(index.size())});
  auto table = corpus.words.accessor<float, 2>();
  for (size_t i = 0; i < words.size(); ++i) {
    for (const std::string& word : words[i]) {
      auto found = index.find(word);
      if (found != index.end())
        table[static_cast<int64_t>(i)][found->second] = 1;
    }
  }
  corpus.words /= corpus.words.sum(1, true).clamp_min(1);
  corpus.codes = Shares(at::cat(codes), num_codes_);

  const at::Tensor pixels = at::cat(patches);  // [I, N, P]
  const at::Tensor flat = pixels.reshape({-1, pixels.size(2)});
  // Fitted on a sample, so that the control costs seconds, and with a few
  // points a cluster at least.
  const at::Tensor sample = SampleRows(flat, context.seed());
  KMeansOptions options;
  options.clusters =
      std::min(num_codes_, std::max<int64_t>(1, sample.size(0) / 4));
  options.iterations = config_.kmeans_iterations();
  options.seed = StreamKey(context.seed(), "codebook_semantics/kmeans");
  const at::Tensor centers = KMeans(sample, options).centers;
  corpus.pixels =
      Shares(AssignNearest(flat, centers).view({pixels.size(0), -1}),
             options.clusters);
  return corpus;
}

double CodeWordInformation(const at::Tensor& codes, const at::Tensor& words) {
  return NormalizedMutualInformation(at::matmul(codes.t(), words));
}

absl::StatusOr<TaskResult> CodebookSemantics::Evaluate(EvalContext& context) {
  absl::StatusOr<Corpus> corpus = Collect(context);
  if (!corpus.ok()) return corpus.status();

  // Captions dealt to other images: what NMI is by chance for these tables.
  double codes_permuted = 0, pixels_permuted = 0;
  std::vector<int64_t> order(corpus->words.size(0));
  for (int64_t p = 0; p < config_.permutations(); ++p) {
    std::iota(order.begin(), order.end(), 0);
    RandomStream(context.seed(), "codebook_semantics/permutation", p)
        .Shuffle(order.begin(), order.end());
    const at::Tensor words =
        corpus->words.index_select(0, torch::tensor(order));
    const double share = 1.0 / static_cast<double>(config_.permutations());
    codes_permuted += share * CodeWordInformation(corpus->codes, words);
    pixels_permuted += share * CodeWordInformation(corpus->pixels, words);
  }

  TaskResult result;
  const auto add = [&result](const char* name, double value, double chance) {
    TaskMetric metric;
    metric.name = name;
    metric.value = value;
    metric.chance = chance;
    metric.headline = true;
    result.metrics.push_back(metric);
  };
  add("NMI of codes and words",
      CodeWordInformation(corpus->codes, corpus->words), codes_permuted);
  add("control: NMI of k-means on pixels",
      CodeWordInformation(corpus->pixels, corpus->words), pixels_permuted);
  const at::Tensor used = corpus->codes.sum(0) > 0;
  TaskMetric usage;
  usage.name = "codes used";
  usage.value = 100 * used.to(at::kDouble).mean().item<double>();
  usage.chance = std::nan("");
  usage.unit = "%";
  usage.headline = true;
  result.metrics.push_back(usage);
  result.note = absl::StrCat(corpus->codes.size(0), " images, ",
                             corpus->vocabulary.size(), " words, ", num_codes_,
                             " codes; chance: captions permuted");
  if (!all_groups_) {
    absl::StrAppend(&result.note, "; the first ", groups_,
                    " code groups only, all together are too many");
  }
  if (corpus->pixels.size(1) < num_codes_) {
    absl::StrAppend(&result.note, "; k-means on pixels has ",
                    corpus->pixels.size(1),
                    " clusters, a fourth of its sample");
  }
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  const std::string path =
      JoinPath(context.output_folder(), instance_ + "_top_words.json");
  absl::Status status = WriteTopWords(*corpus, path);
  if (!status.ok()) return status;
  result.files.push_back(path);
  return result;
}

// The most telling words of the most frequent codes, by pointwise mutual
// information weighted with the joint probability.
absl::Status CodebookSemantics::WriteTopWords(const Corpus& corpus,
                                              const std::string& path) const {
  at::Tensor joint = at::matmul(corpus.codes.t(), corpus.words).to(at::kDouble);
  joint = joint / joint.sum();
  const at::Tensor expected = joint.sum(1, true) * joint.sum(0, true);
  const at::Tensor score =
      at::xlogy(joint, joint) - at::xlogy(joint, expected.clamp_min(1e-300));
  const int64_t codes = std::min(config_.top_codes(), num_codes_);
  const int64_t words = std::min(
      config_.top_words(), static_cast<int64_t>(corpus.vocabulary.size()));
  const auto [mass, code] = joint.sum(1).topk(codes);
  std::vector<std::string> rows;
  for (int64_t i = 0; i < codes; ++i) {
    if (mass[i].item<double>() <= 0) break;
    const int64_t c = code[i].item<int64_t>();
    const at::Tensor best = std::get<1>(score[c].topk(words));
    std::vector<std::string> list;
    for (int64_t w = 0; w < words; ++w) {
      list.push_back(JsonString(corpus.vocabulary[best[w].item<int64_t>()]));
    }
    rows.push_back(
        absl::StrCat("{\"code\": ", c, ", \"share\": ", mass[i].item<double>(),
                     ", \"words\": [", absl::StrJoin(list, ", "), "]}"));
  }
  return AtomicWriteFile(
      path, absl::StrCat("[\n", absl::StrJoin(rows, ",\n"), "\n]\n"));
}

}  // namespace

absl::Status ValidateCodebookSemantics(const CodebookSemanticsConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("quantizer", config.quantizer());
  const auto at_least_one = [&errors](const char* field, int64_t got) {
    errors.Require(got >= 1, field, got, "at least 1");
  };
  at_least_one("min_word_count", config.min_word_count());
  const auto count = [&errors](const char* field, int64_t got) {
    errors.Require(got >= 1 && got <= 10000, field, got, "1 to 10000");
  };
  count("permutations", config.permutations());
  count("kmeans_iterations", config.kmeans_iterations());
  at_least_one("top_words", config.top_words());
  at_least_one("top_codes", config.top_codes());
  return errors.status();
}

Contract CodebookSemanticsContract(const std::string& /*instance*/,
                                   const CodebookSemanticsConfig& config,
                                   const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image", "text"};
  contract.needs = {{"quantizer", config.quantizer(), kQuantized, 0,
                     /*needs_codes=*/true, "the codes' meaning is measured"}};
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeCodebookSemantics(
    const CodebookSemanticsConfig& config, const PluginContext& context) {
  const Contract* quantizer = context.book->Find(config.quantizer());
  if (quantizer == nullptr || quantizer->codes.codes_per_group.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("quantizer \"", config.quantizer(), "\" has no codes"));
  }
  return std::shared_ptr<Task>(std::make_shared<CodebookSemantics>(
      config, context.instance, quantizer->codes.codes_per_group));
}

}  // namespace semvq
