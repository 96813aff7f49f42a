#include "objectives/itc/itc.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/distributed/gather_rows.h"
#include "core/forward/providers.h"
#include "core/forward/rank_views.h"
#include "core/nn/layers.h"
#include "core/objective/losses.h"
#include "core/objective/pairs.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/objective.h"
#include "core/random/stream.h"
#include "objectives/itc/config.pb.h"

namespace semvq {
namespace {

at::Tensor Normalize(const at::Tensor& x) {
  const at::Tensor wide = Upcast(x);
  return wide / wide.norm(2, -1, /*keepdim=*/true).clamp_min(1e-12);
}

// [texts, dim]: the mean of each text's tokens without padding.
at::Tensor MeanOfTokens(const Tokens& tokens) {
  const at::Tensor values = Upcast(tokens.values);
  if (!tokens.mask.defined()) return values.mean(1);
  const at::Tensor weight = tokens.mask.unsqueeze(-1).to(values.scalar_type());
  return (values * weight).sum(1) / weight.sum(1).clamp_min(1);
}

// Earlier features of one modality, oldest overwritten first. Module::to casts
// integer buffers with the rest, so ids and rows are read as int64 whatever the
// module's type is (they are exact in float64).
struct Queue {
  at::Tensor features;  // [Q, dim], unit vectors.
  at::Tensor ids;       // [Q]
  at::Tensor next;      // [1], a row.

  // Rows that are not finite are left out: their places keep what they held.
  void Push(at::Tensor new_features, at::Tensor new_ids) {
    const int64_t size = features.size(0);
    const int64_t count = new_features.size(0);
    const at::Tensor rows =
        (next.to(at::kLong) + at::arange(count, new_ids.options()))
            .remainder(size);
    next.add_(count).remainder_(size);
    // Of a batch larger than the queue only the last rows remain.
    const int64_t kept = std::min(count, size);
    const at::Tensor at_rows = rows.narrow(0, count - kept, kept);
    new_features = new_features.narrow(0, count - kept, kept);
    new_ids = new_ids.narrow(0, count - kept, kept).to(ids.scalar_type());
    const at::Tensor good = new_features.isfinite().all(-1);
    features.index_copy_(
        0, at_rows,
        at::where(good.unsqueeze(1), new_features.to(features.scalar_type()),
                  features.index_select(0, at_rows)));
    ids.index_copy_(0, at_rows,
                    at::where(good, new_ids, ids.index_select(0, at_rows)));
  }
};

class Itc : public Objective {
 public:
  Itc(const ItcConfig& config, const PluginContext& context, int64_t image_dim,
      int64_t text_dim)
      : config_(config), instance_(context.instance) {
    image_proj_ = register_module(
        "image_proj", std::make_shared<Linear>(image_dim, config.dim()));
    text_proj_ = register_module(
        "text_proj", std::make_shared<Linear>(text_dim, config.dim()));
    temperature_ = register_parameter(
        "temperature", at::full({}, config.temperature(), at::kFloat));
    if (config.queue_size() > 0) {
      at::Generator generator =
          at::detail::createCPUGenerator(StreamKey(context.seed, "itc queue"));
      RegisterQueue("image", generator);
      RegisterQueue("text", generator);
    }
  }

  std::any ComputeView(const ViewKey& key, Forward& forward) override {
    if (key.view == kImageEmbedding) {
      const Tokens& tokens = forward.Get<Tokens>(
          ImageKey(config_.image(), kTokens, key.variant, key.slot));
      const bool mean = config_.pool() == ItcConfig::MEAN || !tokens.has_cls;
      return Normalize(image_proj_->Forward(mean ? PatchTokens(tokens).mean(1)
                                                 : tokens.values.select(1, 0)));
    }
    if (key.view == kTextEmbedding) {
      const Tokens& tokens =
          forward.Get<Tokens>(TextKey(config_.text(), kTokens, key.variant));
      return Normalize(text_proj_->Forward(
          config_.text_pool() == ItcConfig::MEAN ? MeanOfTokens(tokens)
                                                 : tokens.values.select(1, 0)));
    }
    if (key.view == kSimilarity) {
      const at::Tensor& image = forward.Get<at::Tensor>(
          ImageKey(instance_, kImageEmbedding, key.variant, key.slot));
      const at::Tensor& text = forward.Get<at::Tensor>(
          TextKey(instance_, kTextEmbedding, key.variant));
      NoAutocast no_autocast;
      return at::matmul(image, text.t()) / temperature_;
    }
    if (key.view == kRankSimilarity) return SimilarityToAll(key, forward);
    return Objective::ComputeView(key, forward);
  }

  ObjectiveOutput Compute(Forward& forward) override {
    const Batch& batch = forward.batch();
    Communicator* group = forward.group();
    const at::Tensor image_ids = ImageIdKeys(batch);
    const at::Tensor text_ids = image_ids.index_select(0, batch.text_to_image);
    const at::Tensor all_image_ids = GatherRows(image_ids, group);
    const at::Tensor all_text_ids = GatherRows(text_ids, group);
    const at::Tensor& image =
        forward.Get<at::Tensor>(ImageKey(instance_, kImageEmbedding));
    const at::Tensor& text =
        forward.Get<at::Tensor>(TextKey(instance_, kTextEmbedding));

    // Features of this rank's batch that are candidates, and that queries of
    // the soft target are made of.
    at::Tensor batch_images = image, batch_texts = text;
    if (forward.has_teacher()) {
      Variant teacher;
      teacher.teacher = true;
      batch_images = forward.Get<at::Tensor>(
          ImageKey(instance_, kImageEmbedding, teacher));
      batch_texts =
          forward.Get<at::Tensor>(TextKey(instance_, kTextEmbedding, teacher));
    }

    Side i2t, t2i;
    if (forward.has_teacher() || config_.queue_size() > 0) {
      const at::Tensor all_images = GatherRows(batch_images, group);
      const at::Tensor all_texts = GatherRows(batch_texts, group);
      i2t = Contrast(forward, image, batch_images, image_ids, all_texts,
                     all_text_ids, text_queue_);
      t2i = Contrast(forward, text, batch_texts, text_ids, all_images,
                     all_image_ids, image_queue_);
      if (forward.training() && config_.queue_size() > 0) {
        // A step that was not finite was skipped: nobody took what it left.
        if (pending_step_ != forward.step()) pending_.clear();
        pending_step_ = forward.step();
        pending_.push_back({all_images.detach(), all_image_ids,
                            all_texts.detach(), all_text_ids});
      }
    } else {
      const auto& similarity = forward.Get<RankSimilarity>(
          {instance_, kRankSimilarity, Variant{}, 0, ""});
      const auto positive = [](const at::Tensor& queries,
                               const at::Tensor& candidates) {
        return queries.unsqueeze(1).eq(candidates.unsqueeze(0));
      };
      i2t = Loss(similarity.images, positive(image_ids, all_text_ids), {}, 0.0,
                 group);
      t2i = Loss(similarity.texts, positive(text_ids, all_image_ids), {}, 0.0,
                 group);
    }

    ObjectiveOutput out;
    out.losses = {{"contrast", (i2t.loss + t2i.loss) * 0.5}};
    out.metrics = {
        {"i2t_top1", InBatchTop1(i2t.logits, image_ids, all_text_ids)},
        {"t2i_top1", InBatchTop1(t2i.logits, text_ids, all_image_ids)},
        {"temperature", temperature_.detach().clone()}};
    return out;
  }

  void AfterStep() override {
    c10::NoGradGuard no_grad;
    temperature_.clamp_(config_.min_temperature(), config_.max_temperature());
    for (Pending& batch : pending_) {
      image_queue_.Push(batch.images, batch.image_ids);
      text_queue_.Push(batch.texts, batch.text_ids);
    }
    pending_.clear();
  }

 private:
  // One direction: logits [queries, candidates] and its loss.
  struct Side {
    at::Tensor logits, loss;
  };
  struct Pending {
    at::Tensor images, image_ids, texts, text_ids;
  };

  RankSimilarity SimilarityToAll(const ViewKey& key, Forward& forward) {
    if (forward.group() == nullptr) {
      const at::Tensor& similarity = forward.Get<at::Tensor>(
          {instance_, kSimilarity, key.variant, key.slot, ""});
      return {similarity, similarity.t()};
    }
    const at::Tensor& image = forward.Get<at::Tensor>(
        ImageKey(instance_, kImageEmbedding, key.variant, key.slot));
    const at::Tensor& text = forward.Get<at::Tensor>(
        TextKey(instance_, kTextEmbedding, key.variant));
    NoAutocast no_autocast;
    const auto scaled = [&](const at::Tensor& queries,
                            const at::Tensor& candidates) {
      return at::matmul(queries, GatherRows(candidates, forward.group()).t()) /
             temperature_;
    };
    RankSimilarity out;
    out.images = scaled(image, text);
    out.texts = scaled(text, image);
    return out;
  }

  void RegisterQueue(const std::string& name, at::Generator& generator) {
    Queue& queue = name == "image" ? image_queue_ : text_queue_;
    const int64_t size = config_.queue_size();
    queue.features = register_buffer(
        name + "_queue",
        Normalize(at::randn({size, config_.dim()}, generator, at::kFloat)));
    queue.ids =
        register_buffer(name + "_queue_ids", at::full({size}, -1, at::kLong));
    queue.next =
        register_buffer(name + "_queue_next", at::zeros({1}, at::kLong));
  }

  // `query` against the candidates of all ranks' batches and the queue.
  // `soft_query` are the teacher's features of the same rows.
  Side Contrast(Forward& forward, const at::Tensor& query,
                const at::Tensor& soft_query, const at::Tensor& query_ids,
                at::Tensor candidates, at::Tensor candidate_ids,
                const Queue& queue) {
    if (queue.features.defined()) {
      // Buffers do not follow the autocast type of the features.
      candidates =
          at::cat({candidates, queue.features.to(candidates.scalar_type())}, 0);
      candidate_ids = at::cat({candidate_ids, queue.ids.to(at::kLong)}, 0);
    }
    NoAutocast no_autocast;
    const at::Tensor positive =
        query_ids.unsqueeze(1).eq(candidate_ids.unsqueeze(0));
    const double alpha =
        forward.has_teacher()
            ? LinearRamp(config_.alpha(), config_.alpha_ramp_steps(),
                         forward.step())
            : 0.0;
    at::Tensor soft;
    if (alpha > 0) {
      c10::NoGradGuard no_grad;
      soft = at::softmax(at::matmul(soft_query, candidates.t()) / temperature_,
                         -1);
    }
    return Loss(at::matmul(query, candidates.t()) / temperature_, positive,
                soft, alpha, forward.group());
  }

  static Side Loss(const at::Tensor& logits, const at::Tensor& positive,
                   const at::Tensor& soft, double alpha, Communicator* group) {
    at::Tensor target = positive.to(logits.scalar_type());
    const at::Tensor count = target.sum(-1, /*keepdim=*/true);
    target = target / count.clamp_min(1);
    if (soft.defined()) target = target * (1 - alpha) + soft * alpha;
    // An image whose texts are all elsewhere has nothing to find.
    const at::Tensor weight = count.squeeze(-1).clamp_max(1);
    return {logits, SoftCrossEntropy(logits, target, weight, group)};
  }

  static at::Tensor InBatchTop1(const at::Tensor& logits,
                                const at::Tensor& query_ids,
                                const at::Tensor& candidate_ids) {
    const at::Tensor best =
        logits.detach().narrow(1, 0, candidate_ids.size(0)).argmax(-1);
    return candidate_ids.index_select(0, best)
        .eq(query_ids)
        .to(at::kFloat)
        .mean();
  }

  const ItcConfig config_;
  const std::string instance_;
  std::shared_ptr<Linear> image_proj_, text_proj_;
  at::Tensor temperature_;
  Queue image_queue_, text_queue_;  // Undefined without queues.
  std::vector<Pending> pending_;    // Of this step's micro-steps so far.
  int64_t pending_step_ = 0;
};

}  // namespace

absl::Status ValidateItc(const ItcConfig& config) {
  FieldErrors errors;
  errors.RequireInstance("image", config.image());
  errors.RequireInstance("text", config.text());
  errors.Require(config.dim() > 0, "dim", config.dim(), "a positive number");
  errors.Require(config.min_temperature() > 0, "min_temperature",
                 config.min_temperature(), "a positive number");
  errors.Require(config.max_temperature() >= config.min_temperature(),
                 "max_temperature", config.max_temperature(),
                 "at least min_temperature");
  errors.Require(config.temperature() >= config.min_temperature() &&
                     config.temperature() <= config.max_temperature(),
                 "temperature", config.temperature(),
                 "a number in [min_temperature, max_temperature]");
  errors.Require(config.alpha() >= 0 && config.alpha() <= 1, "alpha",
                 config.alpha(), "a share in [0, 1]");
  errors.Require(config.alpha_ramp_steps() >= 0, "alpha_ramp_steps",
                 config.alpha_ramp_steps(), "0 or more");
  errors.Require(config.queue_size() >= 0, "queue_size", config.queue_size(),
                 "0 or more");
  return errors.status();
}

Contract ItcContract(const std::string& /*instance*/, const ItcConfig& config,
                     const ContractBook& /*book*/) {
  Contract contract;
  contract.provides = {{kImageEmbedding, config.dim()},
                       {kTextEmbedding, config.dim()},
                       {kSimilarity, 0},
                       {kRankSimilarity, 0}};
  contract.needs = {
      {"image", config.image(), kTokens, 0, false, "it contrasts images"},
      {"text", config.text(), kTokens, 0, false, "it contrasts texts"}};
  contract.batch_keys = {"image", "text"};
  return contract;
}

absl::StatusOr<std::shared_ptr<Objective>> MakeItc(
    const ItcConfig& config, const PluginContext& context) {
  const int64_t image_dim = context.book->Dim(config.image(), kTokens);
  const int64_t text_dim = context.book->Dim(config.text(), kTokens);
  if (image_dim <= 0 || text_dim <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("itc \"", context.instance, "\": the dimension of ",
                     image_dim <= 0 ? config.image() : config.text(),
                     "/tokens is unknown; check the names in image and text"));
  }
  return std::make_shared<Itc>(config, context, image_dim, text_dim);
}

}  // namespace semvq
