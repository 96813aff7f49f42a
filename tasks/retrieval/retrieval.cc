#include "tasks/retrieval/retrieval.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/eval/ranking.h"
#include "core/forward/types.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"

namespace semvq {
namespace {

// What evaluation keeps of a stream: embeddings for ranking and, when pairs are
// to be reranked, the tokens that the fusion encoder reads.
struct Gallery {
  at::Tensor image_embedding, text_embedding;  // [I, d], [T, d]
  Tokens visual, text;                         // values [I, N, D], [T, L, D']
  Batch texts;                                 // text_ids and text_mask
  std::vector<std::string> image_ids;          // [I]
  std::vector<std::string> text_image_ids;     // [T]
};

// Scores of all pairs, double [I, T], as the images and as the texts rank them.
struct PairScores {
  at::Tensor text_retrieval, image_retrieval;
};

class Retrieval : public Task {
 public:
  Retrieval(const RetrievalConfig& config, std::string instance)
      : config_(config), instance_(std::move(instance)) {}

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  absl::StatusOr<Gallery> Collect(EvalContext& context) const;
  absl::StatusOr<PairScores> Rerank(EvalContext& context,
                                    const Gallery& gallery,
                                    const at::Tensor& similarity) const;
  // A NaN would compare as neither better nor worse and rank first.
  absl::Status CheckFinite(const at::Tensor& scores,
                           const std::string& provider) const {
    if (scores.isfinite().all().item<bool>()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": \"", provider,
        "\" gives scores that are not "
        "finite, expected numbers to rank by; the model has diverged, go back "
        "to an earlier checkpoint"));
  }
  bool reranks() const {
    return !config_.matching().empty() && config_.rerank_top_k() > 0;
  }

  RetrievalConfig config_;
  std::string instance_;
};

absl::StatusOr<Gallery> Retrieval::Collect(EvalContext& context) const {
  Gallery gallery;
  std::vector<at::Tensor> images, texts, visual, text, text_mask, ids;
  absl::Status status = context.ForEachBatch([&](const Batch& batch) {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    images.push_back(forward->Get<at::Tensor>(
        ImageKey(config_.contrastive(), kImageEmbedding)));
    texts.push_back(forward->Get<at::Tensor>(
        TextKey(config_.contrastive(), kTextEmbedding)));
    if (reranks()) {
      gallery.visual =
          forward->Get<Tokens>(ImageKey(config_.visual(), kTokens));
      visual.push_back(gallery.visual.values);
      gallery.text = forward->Get<Tokens>(TextKey(config_.text(), kTokens));
      text.push_back(gallery.text.values);
    }
    text_mask.push_back(batch.text_mask);
    ids.push_back(batch.text_ids);
    const at::Tensor owner = batch.text_to_image.to(at::kCPU);
    for (int64_t t = 0; t < batch.num_texts(); ++t) {
      gallery.text_image_ids.push_back(
          batch.image_ids[owner[t].item<int64_t>()]);
    }
    gallery.image_ids.insert(gallery.image_ids.end(), batch.image_ids.begin(),
                             batch.image_ids.end());
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (images.empty() || texts.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": the stream holds no image with a caption"));
  }
  gallery.image_embedding = at::cat(images);
  gallery.text_embedding = at::cat(texts);
  if (reranks()) {
    gallery.visual.values = at::cat(visual);
    gallery.text.values = at::cat(text);
    gallery.text.mask = at::cat(text_mask);
  }
  gallery.texts.text_ids = at::cat(ids);
  gallery.texts.text_mask = at::cat(text_mask);
  return gallery;
}

// A pair is fused once when either query wants it, and counts only for a query
// whose top k it is in [ALBEF's protocol]. Candidates behind a query's top k
// keep the order of their similarity.
absl::StatusOr<PairScores> Retrieval::Rerank(
    EvalContext& context, const Gallery& gallery,
    const at::Tensor& similarity) const {
  const int64_t images = similarity.size(0), texts = similarity.size(1);
  // Top k along the texts (of every image) and along the images.
  const auto best = [&](int64_t dim) {
    const int64_t k = std::min(config_.rerank_top_k(), similarity.size(dim));
    return at::zeros({images, texts}, at::kBool)
        .scatter_(dim, std::get<1>(similarity.topk(k, dim)).to(at::kCPU), 1);
  };
  const at::Tensor of_image = best(1), of_text = best(0);
  const at::Tensor pairs = of_image.logical_or(of_text).nonzero();
  const at::Tensor image = pairs.select(1, 0).contiguous();
  const at::Tensor text = pairs.select(1, 1).contiguous();

  const at::Device device = gallery.visual.values.device();
  std::vector<at::Tensor> logit_parts;
  for (int64_t begin = 0; begin < pairs.size(0);
       begin += config_.rerank_batch_size()) {
    const int64_t n =
        std::min(config_.rerank_batch_size(), pairs.size(0) - begin);
    // Pairs come sorted by image: keys and values are projected once for each.
    const auto [unique, row, counts] =
        at::unique_consecutive(image.narrow(0, begin, n), true);
    const at::Tensor words = text.narrow(0, begin, n).to(device);

    Batch batch;
    batch.images = at::empty({unique.size(0), 1, 0}, device);
    batch.text_ids = gallery.texts.text_ids.index_select(0, words);
    batch.text_mask = gallery.texts.text_mask.index_select(0, words);
    batch.text_to_image = row.to(device);
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    Tokens visual = gallery.visual, tokens = gallery.text;
    visual.values = visual.values.index_select(0, unique.to(device));
    tokens.values = tokens.values.index_select(0, words);
    tokens.mask = tokens.mask.index_select(0, words);
    forward->Set(ImageKey(config_.visual(), kTokens), visual);
    forward->Set(TextKey(config_.text(), kTokens), tokens);
    const at::Tensor match =
        forward->Get<at::Tensor>(FusedKey(config_.matching(), kMatchLogits))
            .to(at::kCPU, at::kDouble);
    logit_parts.push_back(match.select(1, 1) - match.select(1, 0));
  }
  const at::Tensor logits = at::cat(logit_parts);
  absl::Status status = CheckFinite(logits, config_.matching());
  if (!status.ok()) return status;
  // In double, or the offset would round the similarities to ties.
  const auto ranked = [&](const at::Tensor& own) {
    const at::Tensor wanted = own.index({image, text});
    return (similarity.to(at::kCPU, at::kDouble) - 1e6)
        .index_put_({image.index({wanted}), text.index({wanted})},
                    logits.index({wanted}));
  };
  return PairScores{ranked(of_image), ranked(of_text)};
}

absl::StatusOr<TaskResult> Retrieval::Evaluate(EvalContext& context) {
  absl::StatusOr<Gallery> gallery = Collect(context);
  if (!gallery.ok()) return gallery.status();

  std::map<std::string, std::vector<int64_t>> images_of, texts_of;
  for (size_t i = 0; i < gallery->image_ids.size(); ++i) {
    images_of[gallery->image_ids[i]].push_back(static_cast<int64_t>(i));
  }
  for (size_t t = 0; t < gallery->text_image_ids.size(); ++t) {
    texts_of[gallery->text_image_ids[t]].push_back(static_cast<int64_t>(t));
  }
  std::vector<std::vector<int64_t>> text_positives, image_positives;
  for (const std::string& id : gallery->image_ids) {
    text_positives.push_back(texts_of[id]);
    if (texts_of[id].empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("task ", instance_, ": image \"", id,
                       "\" has no caption, expected at least one for every "
                       "image; bad captions were skipped or the stream lists "
                       "none: mend the record or remove the image"));
    }
  }
  for (const std::string& id : gallery->text_image_ids) {
    image_positives.push_back(images_of[id]);
  }

  const at::Tensor similarity =
      at::matmul(gallery->image_embedding, gallery->text_embedding.t());
  absl::Status status = CheckFinite(similarity, config_.contrastive());
  if (!status.ok()) return status;
  TaskResult result;
  result.note = absl::StrCat(gallery->image_ids.size(), " images, ",
                             gallery->text_image_ids.size(), " captions");
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  const auto report = [&](const std::string& prefix, const PairScores& scores) {
    double mean = 0;
    for (bool text_retrieval : {true, false}) {
      const auto& positives = text_retrieval ? text_positives : image_positives;
      // A row a query, a column a candidate.
      const at::Tensor table =
          text_retrieval ? scores.text_retrieval : scores.image_retrieval.t();
      const std::vector<int64_t> ranks = BestPositiveRanks(table, positives);
      for (int64_t k : {1, 5, 10}) {
        TaskMetric metric;
        metric.name =
            absl::StrCat(prefix, text_retrieval ? "TR" : "IR", " R@", k);
        metric.value = RecallAt(ranks, k);
        metric.chance = ChanceRecallAt(positives, table.size(1), k);
        metric.unit = "%";
        metric.headline = k == 1;
        mean += metric.value / 6;
        result.metrics.push_back(metric);
      }
    }
    TaskMetric metric;
    metric.name = prefix + "r_mean";
    metric.value = mean;
    metric.chance = std::nan("");
    metric.unit = "%";
    result.metrics.push_back(metric);
  };
  report("", {similarity, similarity});
  if (reranks()) {
    absl::StatusOr<PairScores> reranked = Rerank(context, *gallery, similarity);
    if (!reranked.ok()) return reranked.status();
    report("reranked ", *reranked);
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
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeRetrieval(
    const RetrievalConfig& config, const PluginContext& context) {
  return std::shared_ptr<Task>(
      std::make_shared<Retrieval>(config, context.instance));
}

}  // namespace semvq
