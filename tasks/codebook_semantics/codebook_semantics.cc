#include "tasks/codebook_semantics/codebook_semantics.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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
#include "tasks/codebook_semantics/patches.h"
#include "tasks/codebook_semantics/statistics.h"

namespace semvq {
namespace {

// What is kept of the stream: 8 bytes for every distinct code of an image, and
// a fixed number of patches.
struct Corpus {
  explicit Corpus(const CodebookSemanticsConfig& config, uint64_t seed)
      : sample(config.sampled_patches(), seed),
        nearest(config.sheet_codes() > 0 ? config.sheet_patches() : 0) {}

  Bags codes;                       // Those that occur.
  std::vector<int64_t> code_names;  // Their numbers in the codebook.
  Bags words;
  std::vector<std::string> vocabulary;
  Bags pixels;  // Clusters of pixels in place of codes.
  int64_t clusters = 0;
  PatchSample sample;
  NearestPatches nearest;  // By number in the codebook.
  int64_t tokens = 0;      // Of an image.
};

// What one table of codes (or clusters) and words says.
struct Findings {
  double information = 0, purity = 0;
  Prediction prediction;
};

Findings Examine(const Bags& codes, const Bags& words,
                 const std::vector<int64_t>& order, uint64_t seed) {
  Findings out;
  {
    const at::Tensor joint = JointShares(codes, words, order);
    out.information = NormalizedMutualInformation(joint);
    out.purity = 100 * Purity(joint);
  }
  out.prediction = PredictWords(codes, words, order, seed);
  return out;
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

  // "words" or "labels".
  const char* meaning() const {
    return config_.meaning() == CodebookSemanticsConfig::LABELS ? "labels"
                                                                : "words";
  }
  absl::Status Collect(EvalContext& context, Corpus* corpus) const;
  absl::Status LookAtPixels(EvalContext& context, Corpus* corpus,
                            std::vector<SheetRow>* sheet) const;
  std::vector<std::vector<std::string>> TopWords(
      const Corpus& corpus, const at::Tensor& joint,
      const std::vector<int64_t>& codes) const;

  CodebookSemanticsConfig config_;
  std::string instance_;
  int64_t num_codes_;
  int64_t groups_ = 0;
  bool all_groups_ = true;
  std::vector<int64_t> sizes_;
};

// The first pass: codes, words, a sample of the patches, and which patches lie
// nearest to each code. Patches are numbered by sample and position.
absl::Status CodebookSemantics::Collect(EvalContext& context,
                                        Corpus* corpus) const {
  const std::set<std::string> stop(config_.stop_words().begin(),
                                   config_.stop_words().end());
  // Words by number in the order in which they are met, repeated for every
  // caption that holds them.
  std::map<std::string, int32_t> numbers;
  std::vector<int64_t> captions_with;
  std::vector<std::vector<int32_t>> words;
  // Codes and distances [B, N], the patches that may be in the sample, and
  // their numbers.
  const auto look = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const QuantizedTokens& quantized = forward->Get<QuantizedTokens>(
        ImageKey(config_.quantizer(), kQuantized));
    const at::Tensor groups = quantized.quantized.codes.to(at::kCPU);
    at::Tensor code = groups.select(2, 0);
    for (int64_t g = 1; g < groups_; ++g) {
      code = at::where(code < 0, code, code * sizes_[g] + groups.select(2, g));
    }
    at::Tensor distance = at::zeros(code.sizes(), at::kDouble);
    // Some quantizers' codes live in another space; then all are as near.
    if (quantized.features.defined() &&
        quantized.features.sizes() == quantized.quantized.vectors.sizes()) {
      distance = (quantized.features - quantized.quantized.vectors)
                     .to(at::kDouble)
                     .square()
                     .sum(2)
                     .to(at::kCPU);
    }
    const at::Tensor image = batch.images.select(1, 0).to(at::kCPU, at::kFloat);
    std::vector<int64_t> rows, wanted;
    for (int64_t row = 0; row < code.numel(); ++row) {
      const int64_t number =
          batch.sample_numbers[row / code.size(1)] * code.size(1) +
          row % code.size(1);
      if (!corpus->sample.Wants(number)) continue;
      rows.push_back(row);
      wanted.push_back(number);
    }
    return BatchOutcome{{code.contiguous(), distance.contiguous(),
                         CutPatches(image, GridOf(image, code.size(1)))
                             .index_select(0, torch::tensor(rows, at::kLong)),
                         torch::tensor(wanted, at::kLong)},
                        {}};
  };
  const auto note = [&](const Batch& batch, const BatchOutcome& outcome) {
    const at::Tensor& code = outcome.tensors[0];
    const at::Tensor& distance = outcome.tensors[1];
    const at::Tensor& sampled = outcome.tensors[3];
    corpus->sample.Add(outcome.tensors[2],
                       {sampled.data_ptr<int64_t>(),
                        sampled.data_ptr<int64_t>() + sampled.numel()});
    corpus->tokens = code.size(1);
    const int64_t first = corpus->codes.images();
    for (int64_t i = 0; i < code.size(0); ++i) {
      std::vector<int32_t> valid;
      for (int64_t n = 0; n < code.size(1); ++n) {
        const int64_t c = code.data_ptr<int64_t>()[i * code.size(1) + n];
        if (c < 0) continue;
        valid.push_back(static_cast<int32_t>(c));
        corpus->nearest.Add(c,
                            {distance.data_ptr<double>()[i * code.size(1) + n],
                             batch.sample_numbers[i], n});
      }
      corpus->codes.Add(std::move(valid));
    }

    words.resize(first + batch.num_images());
    const at::Tensor owner = batch.text_to_image.to(at::kCPU);
    for (int64_t t = 0; t < batch.num_texts(); ++t) {
      std::set<std::string> seen;
      if (config_.meaning() == CodebookSemanticsConfig::LABELS) {
        for (const auto& [answer, share] : batch.texts[t].answers) {
          seen.insert(answer);
        }
      } else {
        for (absl::string_view word :
             absl::StrSplit(CleanCaption(batch.texts[t].text, 1000), ' ',
                            absl::SkipEmpty())) {
          seen.emplace(word);
        }
      }
      for (const std::string& word : seen) {
        if (stop.count(word) > 0) continue;
        const auto [found, is_new] =
            numbers.emplace(word, static_cast<int32_t>(numbers.size()));
        if (is_new) captions_with.push_back(0);
        ++captions_with[found->second];
        words[first + owner[t].item<int64_t>()].push_back(found->second);
      }
    }
    return absl::OkStatus();
  };
  absl::Status status = context.ShareBatches("", look, note);
  if (!status.ok()) return status;

  // The most frequent first; of equals the first of the alphabet.
  std::vector<const std::pair<const std::string, int32_t>*> kept;
  for (const auto& entry : numbers) {
    if (captions_with[entry.second] >= config_.min_word_count()) {
      kept.push_back(&entry);
    }
  }
  std::stable_sort(kept.begin(), kept.end(), [&](const auto* a, const auto* b) {
    return captions_with[a->second] > captions_with[b->second];
  });
  if (static_cast<int64_t>(kept.size()) > config_.max_words()) {
    kept.resize(config_.max_words());
  }
  if (corpus->codes.item.empty() || kept.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": no ",
        config_.meaning() == CodebookSemanticsConfig::LABELS ? "label" : "word",
        " occurs in ", config_.min_word_count(),
        " captions; lower min_word_count or evaluate a larger stream"));
  }
  std::vector<int32_t> renumbered(numbers.size(), -1);
  for (const auto* entry : kept) {
    renumbered[entry->second] = static_cast<int32_t>(corpus->vocabulary.size());
    corpus->vocabulary.push_back(entry->first);
  }
  for (const std::vector<int32_t>& of_image : words) {
    std::set<int32_t> distinct;  // A word counts once, whatever repeats it.
    for (const int32_t word : of_image) {
      if (renumbered[word] >= 0) distinct.insert(renumbered[word]);
    }
    corpus->words.Add({distinct.begin(), distinct.end()});
  }
  corpus->words.items = static_cast<int64_t>(corpus->vocabulary.size());
  corpus->code_names = corpus->codes.Compact();
  return absl::OkStatus();
}

// The second pass, over the pixels alone: the clusters of all patches, and what
// `sheet` shows of the codes in its rows.
absl::Status CodebookSemantics::LookAtPixels(
    EvalContext& context, Corpus* corpus, std::vector<SheetRow>* sheet) const {
  const at::Tensor sample = corpus->sample.Take();
  // Fitted on a sample, so that the control costs seconds, and with a few
  // points a cluster at least.
  KMeansOptions options;
  options.clusters =
      std::min(num_codes_, std::max<int64_t>(1, sample.size(0) / 4));
  options.iterations = config_.kmeans_iterations();
  options.seed = StreamKey(context.seed(), "codebook_semantics/kmeans");
  const at::Tensor centers = KMeans(sample, options).centers;
  corpus->clusters = options.clusters;

  struct Place {
    size_t row, piece;
    int64_t position;
  };
  std::multimap<int64_t, Place> wanted;  // By the image's sample number.
  for (size_t r = 0; r < sheet->size(); ++r) {
    const std::vector<NearPatch> patches = corpus->nearest.Of((*sheet)[r].code);
    (*sheet)[r].pieces.resize(patches.size());
    for (size_t p = 0; p < patches.size(); ++p) {
      wanted.emplace(patches[p].image, Place{r, p, patches[p].position});
    }
  }
  // Clusters [B, N], then the pixels of each wanted piece and the box of its
  // patch.
  const auto cut = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    const at::Tensor image = batch.images.select(1, 0).to(at::kCPU, at::kFloat);
    const PatchGrid grid = GridOf(image, corpus->tokens);
    BatchOutcome outcome{{AssignNearest(CutPatches(image, grid), centers)
                              .view({image.size(0), -1})
                              .contiguous()},
                         {}};
    for (int64_t i = 0; i < image.size(0); ++i) {
      const auto [begin, end] = wanted.equal_range(batch.sample_numbers[i]);
      for (auto place = begin; place != end; ++place) {
        const SheetRow::Piece piece =
            CutPiece(image[i], grid, place->second.position);
        outcome.tensors.push_back(piece.pixels);
        outcome.tensors.push_back(torch::tensor(
            {piece.top, piece.left, piece.height, piece.width}, at::kLong));
      }
    }
    return outcome;
  };
  const auto keep = [&](const Batch& batch, const BatchOutcome& outcome) {
    const at::Tensor& cluster = outcome.tensors[0];
    size_t next = 1;
    for (int64_t i = 0; i < cluster.size(0); ++i) {
      const auto [begin, end] = wanted.equal_range(batch.sample_numbers[i]);
      for (auto place = begin; place != end; ++place) {
        const int64_t* box = outcome.tensors[next + 1].data_ptr<int64_t>();
        (*sheet)[place->second.row].pieces[place->second.piece] = {
            outcome.tensors[next], box[0], box[1], box[2], box[3]};
        next += 2;
      }
      const int64_t* row = cluster.data_ptr<int64_t>() + i * cluster.size(1);
      corpus->pixels.Add({row, row + cluster.size(1)});
    }
    return absl::OkStatus();
  };
  const absl::Status status = context.ShareBatches("", cut, keep);
  if (!status.ok()) return status;
  if (corpus->pixels.images() != corpus->codes.images()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": the stream has ", corpus->pixels.images(),
        " images when it is read again, and had ", corpus->codes.images(),
        "; leave the files alone while they are evaluated"));
  }
  corpus->pixels.Compact();
  return absl::OkStatus();
}

// The most telling words of some codes (rows of `joint`), by pointwise mutual
// information weighted with the joint probability.
std::vector<std::vector<std::string>> CodebookSemantics::TopWords(
    const Corpus& corpus, const at::Tensor& joint,
    const std::vector<int64_t>& codes) const {
  const at::Tensor of_word = joint.sum(0);
  const double total = of_word.sum().item<double>();
  const int64_t count = std::min(
      config_.top_words(), static_cast<int64_t>(corpus.vocabulary.size()));
  std::vector<std::vector<std::string>> out;
  for (const int64_t c : codes) {
    const at::Tensor p = joint[c] / total;
    const at::Tensor expected = p.sum() * of_word / total;
    const at::Tensor score =
        at::xlogy(p, p) - at::xlogy(p, expected.clamp_min(1e-300));
    // Of equals the more frequent word.
    const at::Tensor best =
        std::get<1>(at::sort(score, /*stable=*/true, 0, /*descending=*/true));
    out.emplace_back();
    for (int64_t w = 0; w < count; ++w) {
      out.back().push_back(corpus.vocabulary[best[w].item<int64_t>()]);
    }
  }
  return out;
}

absl::StatusOr<TaskResult> CodebookSemantics::Evaluate(EvalContext& context) {
  Corpus corpus(config_, context.seed());
  absl::Status status = Collect(context, &corpus);
  if (!status.ok()) return status;
  TaskResult result;
  std::vector<int64_t> order(corpus.words.images());
  std::iota(order.begin(), order.end(), 0);

  // The codes that most patches have, with their words: the list and the sheet.
  std::vector<SheetRow> sheet;
  {
    const at::Tensor joint = JointShares(corpus.codes, corpus.words, order);
    const at::Tensor share = joint.sum(1) / joint.sum();
    const int64_t codes = std::min(
        std::max(config_.top_codes(), config_.sheet_codes()), share.size(0));
    const at::Tensor frequent =
        std::get<1>(at::sort(share, /*stable=*/true, 0, /*descending=*/true));
    std::vector<int64_t> listed;
    for (int64_t i = 0; i < codes; ++i) {
      const int64_t c = frequent[i].item<int64_t>();
      if (share[c].item<double>() > 0) listed.push_back(c);
    }
    const auto words = TopWords(corpus, joint, listed);
    std::vector<std::string> rows;
    for (size_t i = 0; i < listed.size(); ++i) {
      const int64_t name = corpus.code_names[listed[i]];
      const double of_all = share[listed[i]].item<double>();
      if (static_cast<int64_t>(i) < config_.top_codes()) {
        std::vector<std::string> quoted;
        for (const std::string& word : words[i]) {
          quoted.push_back(JsonString(word));
        }
        rows.push_back(absl::StrCat("{\"code\": ", name,
                                    ", \"share\": ", of_all, ", \"words\": [",
                                    absl::StrJoin(quoted, ", "), "]}"));
      }
      if (static_cast<int64_t>(i) < config_.sheet_codes()) {
        SheetRow row;
        row.code = name;
        row.title = absl::StrFormat("%d   %.2f %%", name, 100 * of_all);
        row.text = absl::StrJoin(words[i], " ");
        sheet.push_back(std::move(row));
      }
    }
    const std::string path =
        JoinPath(context.output_folder(), instance_ + "_top_words.json");
    status = AtomicWriteFile(
        path, absl::StrCat("[\n", absl::StrJoin(rows, ",\n"), "\n]\n"));
    if (!status.ok()) return status;
    result.files.push_back(path);
  }
  status = LookAtPixels(context, &corpus, &sheet);
  if (!status.ok()) return status;
  if (!sheet.empty() && config_.sheet_patches() > 0) {
    const std::string path =
        JoinPath(context.output_folder(), instance_ + "_codes.png");
    status = WriteSheet(sheet, path);
    if (!status.ok()) return status;
    result.files.push_back(path);
  }

  const Findings codes =
      Examine(corpus.codes, corpus.words, order, context.seed());
  const Findings pixels =
      Examine(corpus.pixels, corpus.words, order, context.seed());
  // Captions dealt to other images: what all this is by chance.
  Findings codes_chance, pixels_chance;
  for (int64_t p = 0; p < config_.permutations(); ++p) {
    std::iota(order.begin(), order.end(), 0);
    RandomStream(context.seed(), "codebook_semantics/permutation", p)
        .Shuffle(order.begin(), order.end());
    const double share = 1.0 / static_cast<double>(config_.permutations());
    const auto add = [&](const Bags& bags, Findings* chance) {
      const Findings found = Examine(bags, corpus.words, order, context.seed());
      chance->information += share * found.information;
      chance->purity += share * found.purity;
      chance->prediction.bits += share * found.prediction.bits;
      chance->prediction.accuracy += share * found.prediction.accuracy;
    };
    add(corpus.codes, &codes_chance);
    add(corpus.pixels, &pixels_chance);
  }

  const auto add = [&result](const std::string& name, double value,
                             double chance, const char* unit, bool headline) {
    TaskMetric metric;
    metric.name = name;
    metric.value = value;
    metric.chance = chance;
    metric.unit = unit;
    metric.headline = headline;
    result.metrics.push_back(metric);
  };
  const std::string of_codes = absl::StrCat("codes and ", meaning());
  const std::string of_pixels = "k-means on pixels";
  add("NMI of " + of_codes, codes.information, codes_chance.information, "",
      true);
  add("control: NMI of " + of_pixels, pixels.information,
      pixels_chance.information, "", true);
  add("purity of " + of_codes, codes.purity, codes_chance.purity, "%", true);
  add("control: purity of " + of_pixels, pixels.purity, pixels_chance.purity,
      "%", false);
  const int64_t held_out = codes.prediction.images;
  if (held_out > 0) {
    const std::string one =
        config_.meaning() == CodebookSemanticsConfig::LABELS ? "label" : "word";
    add("held-out " + one + " known from codes", codes.prediction.accuracy,
        codes_chance.prediction.accuracy, "%", true);
    add("control: held-out " + one + " from " + of_pixels,
        pixels.prediction.accuracy, pixels_chance.prediction.accuracy, "%",
        false);
    add("held-out bits a " + one + " given codes", codes.prediction.bits,
        codes_chance.prediction.bits, "", false);
    add("control: bits a " + one + " given " + of_pixels,
        pixels.prediction.bits, pixels_chance.prediction.bits, "", false);
  }
  add("codes used",
      100.0 * static_cast<double>(corpus.codes.items) /
          static_cast<double>(num_codes_),
      std::nan(""), "%", true);
  result.note = absl::StrCat(corpus.codes.images(), " images, ",
                             corpus.vocabulary.size(), " ", meaning(), ", ",
                             num_codes_, " codes; chance: captions permuted");
  if (held_out > 0) {
    absl::StrAppend(&result.note, "; ", held_out, " images are held out");
  } else {
    absl::StrAppend(&result.note, "; too few images to hold some out");
  }
  if (!all_groups_) {
    absl::StrAppend(&result.note, "; the first ", groups_,
                    " code groups only, all together are too many");
  }
  if (corpus.clusters < num_codes_) {
    absl::StrAppend(&result.note, "; k-means on pixels has ", corpus.clusters,
                    " clusters, a fourth of its sample");
  }
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  return result;
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
  at_least_one("max_words", config.max_words());
  at_least_one("sampled_patches", config.sampled_patches());
  // A picture that can be looked at.
  errors.Require(config.sheet_codes() >= 0 && config.sheet_codes() <= 1000,
                 "sheet_codes", config.sheet_codes(), "0 (none) to 1000");
  errors.Require(config.sheet_patches() >= 0 && config.sheet_patches() <= 100,
                 "sheet_patches", config.sheet_patches(), "0 (none) to 100");
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
