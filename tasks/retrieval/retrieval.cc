#include "tasks/retrieval/retrieval.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/eval/ranking.h"
#include "core/forward/types.h"
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

class Retrieval : public Task {
 public:
  Retrieval(const RetrievalConfig& config, std::string instance)
      : config_(config), instance_(std::move(instance)) {}

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  absl::StatusOr<Gallery> Collect(EvalContext& context) const;
  at::Tensor Rerank(EvalContext& context, const Gallery& gallery,
                    const at::Tensor& similarity) const;
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
    images.push_back(forward->Get<Embedding>(
        ImageKey(config_.contrastive(), kImageEmbedding)));
    texts.push_back(forward->Get<Embedding>(
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

// Matching logits of the best candidates of every image and every text, [I, T].
// Pairs that are in no query's top k keep their order behind the reranked ones.
at::Tensor Retrieval::Rerank(EvalContext& context, const Gallery& gallery,
                             const at::Tensor& similarity) const {
  const int64_t images = similarity.size(0), texts = similarity.size(1);
  at::Tensor wanted = at::zeros({images, texts}, at::kBool);
  const at::Tensor yes = at::ones({}, at::kBool);
  for (int dim : {0, 1}) {
    const int64_t k =
        std::min<int64_t>(config_.rerank_top_k(), dim == 0 ? images : texts);
    wanted.scatter_(dim, std::get<1>(similarity.topk(k, dim)).to(at::kCPU),
                    yes.expand({dim == 0 ? k : images, dim == 0 ? texts : k}));
  }
  const at::Tensor pairs = wanted.nonzero();
  at::Tensor logits = similarity.to(at::kCPU, at::kFloat) - 1e6;
  for (int64_t begin = 0; begin < pairs.size(0);
       begin += config_.rerank_batch_size()) {
    const int64_t n =
        std::min(config_.rerank_batch_size(), pairs.size(0) - begin);
    const at::Tensor image = pairs.narrow(0, begin, n).select(1, 0).contiguous();
    const at::Tensor text = pairs.narrow(0, begin, n).select(1, 1).contiguous();
    const at::Device device = gallery.visual.values.device();
    // Pairs come sorted by image: keys and values are projected once for each.
    const auto [unique, row, counts] = at::unique_consecutive(image, true);

    Batch batch;
    batch.images = at::empty({unique.size(0), 1, 0}, device);
    batch.text_ids = gallery.texts.text_ids.index_select(0, text.to(device));
    batch.text_mask = gallery.texts.text_mask.index_select(0, text.to(device));
    batch.text_to_image = row.to(device);
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    Tokens visual = gallery.visual, words = gallery.text;
    visual.values = visual.values.index_select(0, unique.to(device));
    words.values = words.values.index_select(0, text.to(device));
    words.mask = words.mask.index_select(0, text.to(device));
    forward->Set(ImageKey(config_.visual(), kTokens), visual);
    forward->Set(TextKey(config_.text(), kTokens), words);
    const at::Tensor match = forward->Get<at::Tensor>(
        FusedKey(config_.matching(), kMatchLogits));
    logits.index_put_({image, text},
                      (match.select(1, 1) - match.select(1, 0))
                          .to(at::kCPU, at::kFloat));
  }
  return logits;
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
          absl::StrCat("task ", instance_, ": image ", id, " has no caption"));
    }
  }
  for (const std::string& id : gallery->text_image_ids) {
    image_positives.push_back(images_of[id]);
  }

  const at::Tensor similarity =
      at::matmul(gallery->image_embedding, gallery->text_embedding.t());
  TaskResult result;
  result.note = absl::StrCat(gallery->image_ids.size(), " images, ",
                             gallery->text_image_ids.size(), " captions");
  if (context.skipped() > 0) {
    absl::StrAppend(&result.note, "; ", context.skipped(),
                    " bad samples are left out");
  }
  const auto report = [&](const std::string& prefix, const at::Tensor& scores) {
    double mean = 0;
    for (bool text_retrieval : {true, false}) {
      const auto& positives = text_retrieval ? text_positives : image_positives;
      const std::vector<int64_t> ranks = BestPositiveRanks(
          text_retrieval ? scores : scores.t(), positives);
      for (int64_t k : {1, 5, 10}) {
        TaskMetric metric;
        metric.name =
            absl::StrCat(prefix, text_retrieval ? "TR" : "IR", " R@", k);
        metric.value = RecallAt(ranks, k);
        metric.chance = ChanceRecallAt(
            positives, text_retrieval ? scores.size(1) : scores.size(0), k);
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
  report("", similarity);
  if (reranks()) report("reranked ", Rerank(context, *gallery, similarity));
  return result;
}

}  // namespace

absl::Status ValidateRetrieval(const RetrievalConfig& config) {
  std::vector<std::string> errors;
  if (config.rerank_top_k() < 0) {
    errors.push_back(absl::StrCat("rerank_top_k: got ", config.rerank_top_k(),
                                  ", expected 0 (no reranking) or more"));
  }
  if (config.rerank_batch_size() < 1) {
    errors.push_back(absl::StrCat("rerank_batch_size: got ",
                                  config.rerank_batch_size(),
                                  ", expected at least 1"));
  }
  if (errors.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
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
