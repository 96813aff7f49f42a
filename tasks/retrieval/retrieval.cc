#include "tasks/retrieval/retrieval.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/eval/ranking.h"
#include "core/forward/types.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "tasks/retrieval/direction.h"
#include "tasks/retrieval/row_buffer.h"
#include "tasks/retrieval/text_cache.h"

namespace semvq {
namespace {

// Pairs of several images share a reranking batch only up to this number:
// attention then copies an image's keys and values for each of its pairs.
constexpr int64_t kMixedPairs = 32;

// What evaluation keeps of a stream. Visual tokens are not among it: 5,000
// images of 384 px have 9 GB of them, and are encoded once more to rerank.
struct Gallery {
  explicit Gallery(int64_t cache_bytes) : cache(cache_bytes) {}

  at::Tensor image_embedding, text_embedding;  // [I, d], [T, d]
  at::Tensor text_ids, text_mask;              // [T, L]
  TextCache cache;                             // Filled to rerank.
  std::vector<std::string> image_ids;          // [I]
  // Of the first sample of each batch: which image it is. They differ where
  // bad samples are left out.
  std::map<int64_t, int64_t> image_of_sample;
  std::vector<std::string> text_image_ids;  // [T]
  std::vector<TextRecord> texts;            // [T]
};

// A pair that reranking wants scored, and by whom: its place among the text's
// and among the image's best candidates, -1 where it is none of them.
struct Wanted {
  int64_t image_row = 0;  // In the batch.
  int64_t image = 0;
  int64_t text = 0;
  int64_t place_of_text = -1;   // In texts.top[text].
  int64_t place_of_image = -1;  // In images.top[image].
};

int64_t ImagesThatShareAnId(const std::vector<std::string>& ids) {
  std::map<std::string, int64_t> count;
  for (const std::string& id : ids) ++count[id];
  int64_t sharing = 0;
  for (const auto& [id, images] : count) sharing += images > 1 ? images : 0;
  return sharing;
}

class Retrieval : public Task {
 public:
  Retrieval(const RetrievalConfig& config, std::string instance)
      : config_(config), instance_(std::move(instance)) {}

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  absl::Status Collect(EvalContext& context, Gallery* gallery) const;
  absl::Status FindPositives(const Gallery& gallery, Direction* images,
                             Direction* texts) const;
  absl::Status Rerank(EvalContext& context, const Gallery& gallery,
                      Direction* images, Direction* texts) const;
  absl::Status Score(EvalContext& context, const Gallery& gallery,
                     const Tokens& visual, const Wanted* pairs, int64_t count,
                     BatchOutcome* outcome) const;
  void Keep(const BatchOutcome& scored, Direction* images,
            Direction* texts) const;
  absl::Status WriteResult(const Gallery& gallery, const Direction& images,
                           const Direction& texts,
                           const std::string& path) const;
  absl::Status NotFinite(const std::string& provider) const {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": \"", provider,
        "\" gives scores that are not "
        "finite, expected numbers to rank by; the model has diverged, go back "
        "to an earlier checkpoint"));
  }
  bool adds_similarity() const {
    return config_.rerank_score() == RetrievalConfig::LOG_ODDS_AND_SIMILARITY;
  }
  bool reranks() const {
    return !config_.matching().empty() && config_.rerank_top_k() > 0;
  }

  RetrievalConfig config_;
  std::string instance_;
};

absl::Status Retrieval::Collect(EvalContext& context, Gallery* gallery) const {
  RowBuffer images, texts, text_mask, ids;
  const auto embed = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    BatchOutcome outcome;
    outcome.tensors = {forward->Get<at::Tensor>(
                           ImageKey(config_.contrastive(), kImageEmbedding)),
                       forward->Get<at::Tensor>(
                           TextKey(config_.contrastive(), kTextEmbedding))};
    if (reranks() && gallery->cache.complete()) {
      outcome.tensors.push_back(
          forward->Get<Tokens>(TextKey(config_.text(), kTokens)).values);
    }
    return outcome;
  };
  const auto keep = [&](const Batch& batch, const BatchOutcome& outcome) {
    images.Add(outcome.tensors[0]);
    texts.Add(outcome.tensors[1]);
    if (outcome.tensors.size() > 2) {
      Tokens tokens;
      tokens.values = outcome.tensors[2];
      tokens.has_cls = true;  // As text_ids have.
      gallery->cache.Add(tokens, batch.text_mask);
    }
    text_mask.Add(batch.text_mask);
    ids.Add(batch.text_ids);
    const at::Tensor owner = batch.text_to_image.to(at::kCPU);
    for (int64_t t = 0; t < batch.num_texts(); ++t) {
      gallery->text_image_ids.push_back(
          batch.image_ids[owner[t].item<int64_t>()]);
    }
    gallery->image_of_sample[batch.sample_numbers[0]] =
        static_cast<int64_t>(gallery->image_ids.size());
    gallery->texts.insert(gallery->texts.end(), batch.texts.begin(),
                          batch.texts.end());
    gallery->image_ids.insert(gallery->image_ids.end(), batch.image_ids.begin(),
                              batch.image_ids.end());
    return absl::OkStatus();
  };
  absl::Status status = context.ShareBatches("", embed, keep);
  if (!status.ok()) return status;
  if (gallery->image_ids.empty() || gallery->text_image_ids.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": the stream holds no image with a caption"));
  }
  gallery->image_embedding = images.rows();
  gallery->text_embedding = texts.rows();
  gallery->text_ids = ids.rows();
  gallery->text_mask = text_mask.rows();
  return absl::OkStatus();
}

absl::Status Retrieval::FindPositives(const Gallery& gallery, Direction* images,
                                      Direction* texts) const {
  std::map<std::string, std::vector<int64_t>> images_of, texts_of;
  for (size_t i = 0; i < gallery.image_ids.size(); ++i) {
    images_of[gallery.image_ids[i]].push_back(static_cast<int64_t>(i));
  }
  for (size_t t = 0; t < gallery.text_image_ids.size(); ++t) {
    texts_of[gallery.text_image_ids[t]].push_back(static_cast<int64_t>(t));
  }
  for (const std::string& id : gallery.image_ids) {
    images->positives.push_back(texts_of[id]);
    if (texts_of[id].empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("task ", instance_, ": image \"", id,
                       "\" has no caption, expected at least one for every "
                       "image; bad captions were skipped or the stream lists "
                       "none: mend the record or remove the image"));
    }
  }
  for (const std::string& id : gallery.text_image_ids) {
    texts->positives.push_back(images_of[id]);
  }
  return absl::OkStatus();
}

// A pair is fused once when either query wants it, and counts only for a query
// whose top k it is in [ALBEF's protocol]. Image by image, so that what is held
// does not grow with the set and an image's keys and values are projected once.
absl::Status Retrieval::Rerank(EvalContext& context, const Gallery& gallery,
                               Direction* images, Direction* texts) const {
  const auto prepare = [this](Direction* direction) {
    const int64_t k = std::min(config_.rerank_top_k(), direction->top.size(1));
    direction->matching =
        at::full({direction->queries(), k},
                 std::numeric_limits<double>::quiet_NaN(), at::kDouble);
    return k;
  };
  const int64_t texts_of_image = prepare(images);
  const int64_t images_of_text = prepare(texts);

  // The texts that want each image, in one list: [first, first of the next).
  const int64_t* best = texts->top.data_ptr<int64_t>();
  const int64_t stride = texts->top.size(1);
  std::vector<int64_t> first(images->queries() + 1, 0);
  for (int64_t t = 0; t < texts->queries(); ++t) {
    for (int64_t j = 0; j < images_of_text; ++j)
      ++first[best[t * stride + j] + 1];
  }
  for (size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
  struct Query {
    int32_t text, place;
  };
  std::vector<Query> wanting(first.back());
  std::vector<int64_t> next(first.begin(), first.end() - 1);
  for (int64_t t = 0; t < texts->queries(); ++t) {
    for (int64_t j = 0; j < images_of_text; ++j) {
      wanting[next[best[t * stride + j]]++] = {static_cast<int32_t>(t),
                                               static_cast<int32_t>(j)};
    }
  }

  const int64_t* own = images->top.data_ptr<int64_t>();
  const auto fuse = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    BatchOutcome outcome;
    const auto number = gallery.image_of_sample.find(batch.sample_numbers[0]);
    int64_t image = number == gallery.image_of_sample.end() ? images->queries()
                                                            : number->second;
    for (int64_t row = 0; row < batch.num_images(); ++row) {
      const std::string& id = batch.image_ids[row];
      if (image + row >= images->queries() ||
          gallery.image_ids[image + row] != id) {
        return absl::FailedPreconditionError(absl::StrCat(
            "task ", instance_, ": sample ", batch.sample_numbers[row],
            " of the stream is \"", id,
            "\" when it is read again, and was another or none; leave the "
            "files alone while they are evaluated"));
      }
    }
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    const Tokens& visual =
        forward->Get<Tokens>(ImageKey(config_.visual(), kTokens));
    std::vector<Wanted> pairs;  // Of images that share a batch.
    const auto score = [&](const std::vector<Wanted>& some) -> absl::Status {
      for (size_t begin = 0; begin < some.size();
           begin += config_.rerank_batch_size()) {
        absl::Status status = Score(
            context, gallery, visual, some.data() + begin,
            std::min<int64_t>(config_.rerank_batch_size(), some.size() - begin),
            &outcome);
        if (!status.ok()) return status;
      }
      return absl::OkStatus();
    };
    for (int64_t row = 0; row < batch.num_images(); ++row, ++image) {
      std::vector<Wanted> of_image;
      for (int64_t j = 0; j < texts_of_image; ++j) {
        of_image.push_back(
            {row, image, own[image * images->top.size(1) + j], -1, j});
      }
      std::sort(
          of_image.begin(), of_image.end(),
          [](const Wanted& a, const Wanted& b) { return a.text < b.text; });
      const size_t own_end = of_image.size();
      for (int64_t w = first[image]; w < first[image + 1]; ++w) {
        const auto found = std::lower_bound(
            of_image.begin(), of_image.begin() + own_end, wanting[w].text,
            [](const Wanted& a, int64_t text) { return a.text < text; });
        if (found != of_image.begin() + own_end &&
            found->text == wanting[w].text) {
          found->place_of_text = wanting[w].place;
        } else {
          of_image.push_back(
              {row, image, wanting[w].text, wanting[w].place, -1});
        }
      }
      const auto count = static_cast<int64_t>(of_image.size());
      absl::Status status;
      if (count > kMixedPairs) {
        status = score(of_image);
      } else {
        if (static_cast<int64_t>(pairs.size()) + count > kMixedPairs) {
          status = score(pairs);
          pairs.clear();
        }
        pairs.insert(pairs.end(), of_image.begin(), of_image.end());
      }
      if (!status.ok()) return status;
    }
    absl::Status status = score(pairs);
    if (!status.ok()) return status;
    return outcome;
  };
  int64_t seen = 0;
  absl::Status status = context.ShareBatches(
      "", fuse, [&](const Batch& batch, const BatchOutcome& scored) {
        seen += batch.num_images();
        Keep(scored, images, texts);
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (seen != images->queries()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": the stream has ", seen,
        " images when it is read again, and had ", images->queries(),
        "; leave the files alone while they are evaluated"));
  }
  return absl::OkStatus();
}

// Scores `count` pairs of a batch's images, whose tokens are `visual`, and adds
// them to `outcome` for Keep.
absl::Status Retrieval::Score(EvalContext& context, const Gallery& gallery,
                              const Tokens& visual, const Wanted* pairs,
                              int64_t count, BatchOutcome* outcome) const {
  // Pairs come sorted by image: each image once, and which of them is a pair's.
  std::vector<int64_t> rows, row_of_pair, numbers, image_numbers;
  for (int64_t p = 0; p < count; ++p) {
    if (rows.empty() || rows.back() != pairs[p].image_row) {
      rows.push_back(pairs[p].image_row);
      image_numbers.push_back(pairs[p].image);
    }
    row_of_pair.push_back(static_cast<int64_t>(rows.size()) - 1);
    numbers.push_back(pairs[p].text);
  }
  const at::Device device = visual.values.device();
  const at::Tensor words = torch::tensor(numbers, at::kLong).to(device);
  const at::Tensor of_batch = torch::tensor(rows, at::kLong).to(device);
  Batch batch;
  batch.images = at::empty({static_cast<int64_t>(rows.size()), 1, 0},
                           visual.values.options());
  batch.text_ids = gallery.text_ids.index_select(0, words);
  batch.text_mask = gallery.text_mask.index_select(0, words);
  batch.text_to_image = torch::tensor(row_of_pair, at::kLong).to(device);
  std::unique_ptr<Forward> forward = context.MakeForward(batch);
  Tokens seen = visual;
  seen.values = visual.values.index_select(0, of_batch);
  if (visual.mask.defined()) seen.mask = visual.mask.index_select(0, of_batch);
  forward->Set(ImageKey(config_.visual(), kTokens), seen);
  if (gallery.cache.complete()) {
    forward->Set(TextKey(config_.text(), kTokens),
                 gallery.cache.Gather(numbers, batch.text_mask));
  }  // Else the text encoder is asked again.
  const at::Tensor logits =
      forward->Get<at::Tensor>(FusedKey(config_.matching(), kMatchLogits))
          .to(at::kCPU, at::kDouble);
  at::Tensor scores = logits.select(1, 1);
  if (config_.rerank_score() != RetrievalConfig::MATCH_LOGIT) {
    scores = scores - logits.select(1, 0);
  }
  if (adds_similarity()) {
    // In float64, so that it does not depend on the pairs scored with it.
    const at::Tensor of_gallery =
        torch::tensor(image_numbers, at::kLong).to(device);
    forward->Set(
        ImageKey(config_.contrastive(), kImageEmbedding),
        gallery.image_embedding.index_select(0, of_gallery).to(at::kDouble));
    forward->Set(TextKey(config_.contrastive(), kTextEmbedding),
                 gallery.text_embedding.index_select(0, words).to(at::kDouble));
    const at::Tensor similarity = forward->Get<at::Tensor>(
        {config_.contrastive(), kSimilarity, Variant{}, 0, ""});
    scores = scores + similarity.gather(0, batch.text_to_image.unsqueeze(0))
                          .squeeze(0)
                          .to(at::kCPU, at::kDouble);
  }
  if (!scores.isfinite().all().item<bool>()) {
    return NotFinite(config_.matching());
  }
  const at::Tensor places = at::empty({count, 4}, at::kLong);
  int64_t* place = places.data_ptr<int64_t>();
  for (const Wanted* pair = pairs; pair < pairs + count; ++pair) {
    *place++ = pair->image;
    *place++ = pair->place_of_image;
    *place++ = pair->text;
    *place++ = pair->place_of_text;
  }
  outcome->tensors.push_back(places);
  outcome->tensors.push_back(scores.contiguous());
  return absl::OkStatus();
}

void Retrieval::Keep(const BatchOutcome& scored, Direction* images,
                     Direction* texts) const {
  double* of_images = images->matching.data_ptr<double>();
  double* of_texts = texts->matching.data_ptr<double>();
  for (size_t i = 0; i < scored.tensors.size(); i += 2) {
    const int64_t* place = scored.tensors[i].data_ptr<int64_t>();
    const double* score = scored.tensors[i + 1].data_ptr<double>();
    for (int64_t p = 0; p < scored.tensors[i + 1].size(0); ++p, place += 4) {
      const int64_t image_place = place[1], text_place = place[3];
      if (image_place >= 0)
        of_images[place[0] * images->matching.size(1) + image_place] = score[p];
      if (text_place >= 0)
        of_texts[place[2] * texts->matching.size(1) + text_place] = score[p];
    }
  }
}

// One JSON object a line: the set's size, then every query. docs/tasks.md
// describes it.
absl::Status Retrieval::WriteResult(const Gallery& gallery,
                                    const Direction& images,
                                    const Direction& texts,
                                    const std::string& path) const {
  std::string out = absl::StrCat(
      "{\"format\": \"semvq retrieval 1\", \"images\": ", images.queries(),
      ", \"texts\": ", texts.queries(),
      ", \"rerank_top_k\": ", reranks() ? config_.rerank_top_k() : 0, "}\n");
  for (const bool text_retrieval : {true, false}) {
    const Direction& side = text_retrieval ? images : texts;
    const int64_t kept = std::min(config_.result_top_k(), side.top.size(1));
    const std::vector<int64_t> reranked =
        reranks() ? RerankedRanks(side) : std::vector<int64_t>();
    for (int64_t q = 0; q < side.queries(); ++q) {
      const int64_t* top = side.top.data_ptr<int64_t>() + q * side.top.size(1);
      const float* similarity =
          side.similarity.data_ptr<float>() + q * side.top.size(1);
      std::vector<std::string> list;
      for (int64_t j = 0; j < kept; ++j) {
        list.push_back(absl::StrFormat("[%d, %.9g]", top[j], similarity[j]));
      }
      if (text_retrieval) {
        absl::StrAppend(&out, "{\"image\": ", q,
                        ", \"image_id\": ", JsonString(gallery.image_ids[q]));
      } else {
        absl::StrAppend(&out, "{\"text\": ", q,
                        ", \"caption\": ", JsonString(gallery.texts[q].text));
        if (!gallery.texts[q].id.empty()) {
          absl::StrAppend(
              &out, ", \"id\": ", JsonNumberOrString(gallery.texts[q].id));
        }
      }
      absl::StrAppend(&out, ", \"positives\": [",
                      absl::StrJoin(side.positives[q], ", "),
                      "], \"rank\": ", side.ranks[q] + 1, ", \"best\": [",
                      absl::StrJoin(list, ", "), "]");
      if (reranks()) {
        const int64_t k = side.matching.size(1);
        const double* matching = side.matching.data_ptr<double>() + q * k;
        std::vector<int64_t> order(k);
        for (int64_t j = 0; j < k; ++j) order[j] = j;
        std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
          return matching[a] > matching[b] ||
                 (matching[a] == matching[b] && top[a] < top[b]);
        });
        order.resize(std::min(k, config_.result_top_k()));
        list.clear();
        for (const int64_t j : order) {
          list.push_back(absl::StrFormat("[%d, %.17g]", top[j], matching[j]));
        }
        absl::StrAppend(&out, ", \"reranked_rank\": ", reranked[q] + 1,
                        ", \"reranked\": [", absl::StrJoin(list, ", "), "]");
      }
      absl::StrAppend(&out, "}\n");
    }
  }
  return AtomicWriteFile(path, out);
}

// R@1, R@5, R@10 and the median rank both ways, and the mean of the recalls.
void AddMetrics(const std::string& prefix, const Direction& images,
                const Direction& texts, bool reranked, TaskResult* result) {
  double means[2] = {0, 0};
  for (const bool text_retrieval : {true, false}) {
    const Direction& side = text_retrieval ? images : texts;
    const int64_t candidates = (text_retrieval ? texts : images).queries();
    const std::vector<int64_t> ranks =
        reranked ? RerankedRanks(side) : side.ranks;
    const std::string name = absl::StrCat(prefix, text_retrieval ? "TR" : "IR");
    double sum = 0;
    for (const int64_t k : {1, 5, 10}) {
      TaskMetric metric;
      metric.name = absl::StrCat(name, " R@", k);
      metric.value = RecallAt(ranks, k);
      metric.chance = ChanceRecallAt(side.positives, candidates, k);
      metric.unit = "%";
      metric.headline = k == 1;
      sum += metric.value;
      result->metrics.push_back(metric);
    }
    TaskMetric median;
    median.name = name + " median rank";
    median.value = MedianRank(ranks);
    median.chance = std::nan("");
    result->metrics.push_back(median);
    means[text_retrieval] = sum / 3;
  }
  TaskMetric mean;
  mean.name = prefix + "r_mean";
  mean.value = (means[1] + means[0]) / 2;
  mean.chance = std::nan("");
  mean.unit = "%";
  result->metrics.push_back(mean);
}

absl::StatusOr<TaskResult> Retrieval::Evaluate(EvalContext& context) {
  constexpr int64_t kMaxMib = std::numeric_limits<int64_t>::max() >> 20;
  Gallery gallery(std::min(config_.text_cache_mib(), kMaxMib) << 20);
  Direction images, texts;
  absl::Status status = Collect(context, &gallery);
  if (!status.ok()) return status;
  status = FindPositives(gallery, &images, &texts);
  if (!status.ok()) return status;

  const int64_t keep =
      std::max(reranks() ? config_.rerank_top_k() : 0, config_.result_top_k());
  PrepareRanks(texts.queries(), keep, &images);
  PrepareRanks(images.queries(), keep, &texts);
  if (!RankQueries(gallery.image_embedding, gallery.text_embedding, 0,
                   images.queries(), &images) ||
      !RankQueries(gallery.text_embedding, gallery.image_embedding, 0,
                   texts.queries(), &texts)) {
    return NotFinite(config_.contrastive());
  }

  TaskResult result;
  result.note = absl::StrCat(gallery.image_ids.size(), " images, ",
                             gallery.text_image_ids.size(), " captions");
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  const int64_t sharing = ImagesThatShareAnId(gallery.image_ids);
  if (sharing > 0) {
    absl::StrAppend(&result.note, "; ", sharing,
                    " images share their id with another one, whose captions "
                    "are right for them too");
  }
  AddMetrics("", images, texts, /*reranked=*/false, &result);
  if (reranks()) {
    status = Rerank(context, gallery, &images, &texts);
    if (!status.ok()) return status;
    AddMetrics("reranked ", images, texts, /*reranked=*/true, &result);
  }
  if (config_.result_top_k() > 0) {
    const std::string path =
        JoinPath(context.output_folder(), instance_ + "_ranking.jsonl");
    status = WriteResult(gallery, images, texts, path);
    if (!status.ok()) return status;
    result.files.push_back(path);
  }
  return result;
}

}  // namespace

absl::Status ValidateRetrieval(const RetrievalConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("contrastive", config.contrastive());
  if (!config.matching().empty()) {
    errors.RequireInstance("visual", config.visual());
    errors.RequireInstance("text", config.text());
  }
  errors.Require(config.rerank_top_k() >= 0, "rerank_top_k",
                 config.rerank_top_k(), "0 (no reranking) or more");
  errors.Require(config.rerank_batch_size() >= 1, "rerank_batch_size",
                 config.rerank_batch_size(), "at least 1");
  errors.Require(config.text_cache_mib() >= 0, "text_cache_mib",
                 config.text_cache_mib(), "0 (no cache) or more");
  errors.Require(config.result_top_k() >= 0, "result_top_k",
                 config.result_top_k(), "0 (no result file) or more");
  return errors.status();
}

Contract RetrievalContract(const std::string& /*instance*/,
                           const RetrievalConfig& config,
                           const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image", "text"};
  contract.needs = {
      {"contrastive", config.contrastive(), kImageEmbedding},
      {"contrastive", config.contrastive(), kTextEmbedding},
  };
  if (!config.matching().empty() && config.rerank_top_k() > 0) {
    contract.needs.push_back({"matching", config.matching(), kMatchLogits});
    contract.needs.push_back({"visual", config.visual(), kTokens});
    contract.needs.push_back({"text", config.text(), kTokens});
    if (config.rerank_score() == RetrievalConfig::LOG_ODDS_AND_SIMILARITY) {
      contract.needs.push_back(
          {"contrastive", config.contrastive(), kSimilarity});
    }
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeRetrieval(
    const RetrievalConfig& config, const PluginContext& context) {
  return std::shared_ptr<Task>(
      std::make_shared<Retrieval>(config, context.instance));
}

}  // namespace semvq
