#include "trainer/optimizer.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>

#include "absl/strings/str_cat.h"
#include "core/distributed/gradient_reducer.h"
#include "re2/re2.h"

namespace semvq {

double LearningRate(const OptimizerConfig& optimizer,
                    const ScheduleConfig& schedule, int64_t step,
                    int64_t total_steps) {
  const int64_t warmup = schedule.warmup_steps();
  if (step < warmup) {
    return schedule.warmup_lr() + (optimizer.lr() - schedule.warmup_lr()) *
                                      static_cast<double>(step) /
                                      static_cast<double>(warmup);
  }
  const double progress =
      static_cast<double>(step - warmup) /
      static_cast<double>(std::max<int64_t>(1, total_steps - warmup));
  return schedule.min_lr() + (optimizer.lr() - schedule.min_lr()) * 0.5 *
                                 (1 + std::cos(M_PI * std::min(1.0, progress)));
}

absl::StatusOr<AdamW> AdamW::Create(const OptimizerConfig& config,
                                    const NamedTensors& parameters,
                                    Communicator* group_of_ranks) {
  AdamW optimizer;
  optimizer.config_ = config;
  if (config.zero() && group_of_ranks != nullptr)
    optimizer.ranks_ = group_of_ranks;
  std::vector<std::unique_ptr<RE2>> patterns;
  std::vector<int64_t> matched(config.groups_size(), 0);
  for (const ParameterGroup& group : config.groups()) {
    patterns.push_back(std::make_unique<RE2>(group.pattern(), RE2::Quiet));
    if (!patterns.back()->ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("optimizer.groups[\"", group.name(), "\"].pattern: \"",
                       group.pattern(),
                       "\" is no RE2 expression: ", patterns.back()->error()));
    }
  }
  // One list per (pattern, decayed or not): the fused operator takes one rate
  // and one decay a call.
  std::map<std::pair<int, bool>, Group> groups;
  std::vector<at::Tensor> order;
  for (const auto& [name, parameter] : parameters) {
    if (!parameter.requires_grad()) continue;
    order.push_back(parameter);
    int index = -1;
    for (int i = 0; i < config.groups_size() && index < 0; ++i) {
      if (RE2::FullMatch(name, *patterns[i])) index = i;
    }
    const bool decayed = parameter.dim() > 1;
    Group& group = groups[{index, decayed}];
    group.lr_scale = index < 0 ? 1.0 : config.groups(index).lr_scale();
    group.weight_decay = index >= 0 && config.groups(index).has_weight_decay()
                             ? config.groups(index).weight_decay()
                         : decayed ? config.weight_decay()
                                   : 0.0;
    if (index >= 0) ++matched[index];
    group.names.push_back(name);
    group.parameters.push_back(parameter);
    group.steps.push_back(at::zeros({}, parameter.options().dtype(at::kFloat)));
  }
  for (int i = 0; i < config.groups_size(); ++i) {
    if (matched[i] == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("optimizer.groups[\"", config.groups(i).name(),
                       "\"].pattern \"", config.groups(i).pattern(),
                       "\" matches no parameter; names look like \"",
                       parameters.empty() ? "" : parameters.front().first,
                       "\" (--mode=plan lists them)"));
    }
  }
  for (auto& [key, group] : groups)
    optimizer.groups_.push_back(std::move(group));
  if (optimizer.ranks_ != nullptr) {
    optimizer.Shard(order);
    return optimizer;
  }
  for (Group& group : optimizer.groups_) {
    for (const at::Tensor& parameter : group.parameters) {
      group.exp_avg.push_back(at::zeros_like(parameter));
      group.exp_avg_sq.push_back(at::zeros_like(parameter));
    }
  }
  return optimizer;
}

void AdamW::Shard(const std::vector<at::Tensor>& order) {
  const GradientBuckets buckets(order);
  const int64_t ranks = ranks_->size();
  std::vector<int64_t> slices, firsts;  // Of each bucket, in a rank's part.
  for (const int64_t size : buckets.sizes) {
    slices.push_back(GradientBuckets::SliceSize(size, ranks));
    firsts.push_back(part_);
    part_ += slices.back();
  }
  std::map<const at::TensorImpl*, GradientBuckets::Place> places;
  for (size_t i = 0; i < order.size(); ++i)
    places[order[i].unsafeGetTensorImpl()] = buckets.places[i];
  for (Group& group : groups_) {
    for (const at::Tensor& parameter : group.parameters) {
      const auto [bucket, offset] = places.at(parameter.unsafeGetTensorImpl());
      const int64_t slice = slices[bucket], numel = parameter.numel();
      Cut cut;
      for (int64_t rank = 0; rank < ranks; ++rank) {
        Piece piece;
        piece.begin = std::clamp<int64_t>(rank * slice - offset, 0, numel);
        piece.count =
            std::clamp<int64_t>((rank + 1) * slice - offset, 0, numel) -
            piece.begin;
        piece.at = firsts[bucket] + offset + piece.begin - rank * slice;
        cut.push_back(piece);
      }
      const Piece& own = cut[ranks_->rank()];
      group.begin.push_back(own.begin);
      group.exp_avg.push_back(at::zeros({own.count}, parameter.options()));
      group.exp_avg_sq.push_back(at::zeros({own.count}, parameter.options()));
      cuts_.push_back(std::move(cut));
    }
  }
}

at::Tensor AdamW::Own(const Group& group, size_t i,
                      const at::Tensor& whole) const {
  if (ranks_ == nullptr) return whole;
  return whole.view(-1).narrow(0, group.begin[i], group.exp_avg[i].numel());
}

std::vector<at::Tensor> AdamW::Whole(
    const std::vector<at::Tensor>& parts) const {
  at::Tensor line = at::zeros({part_}, parts[0].options());
  for (size_t i = 0; i < parts.size(); ++i) {
    const Piece& own = cuts_[i][ranks_->rank()];
    if (own.count > 0) line.narrow(0, own.at, own.count).copy_(parts[i]);
  }
  const at::Tensor all = ranks_->AllGather(line);
  std::vector<at::Tensor> whole;
  for (const Group& group : groups_) {
    for (const at::Tensor& parameter : group.parameters) {
      const Cut& cut = cuts_[whole.size()];
      std::vector<at::Tensor> pieces;
      for (size_t rank = 0; rank < cut.size(); ++rank) {
        if (cut[rank].count > 0) {
          pieces.push_back(all[static_cast<int64_t>(rank)].narrow(
              0, cut[rank].at, cut[rank].count));
        }
      }
      whole.push_back(pieces.empty() ? at::empty_like(parameter)
                                     : at::cat(pieces).view(parameter.sizes()));
    }
  }
  return whole;
}

void AdamW::ZeroGrad() {
  for (Group& group : groups_) {
    for (at::Tensor& p : group.parameters) p.mutable_grad() = at::Tensor();
  }
}

at::Tensor AdamW::ClipGradients() {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> grads;
  for (Group& group : groups_) {
    for (at::Tensor& p : group.parameters) {
      if (p.grad().defined()) grads.push_back(p.grad());
    }
  }
  if (grads.empty()) return at::zeros({});
  at::Tensor norm = at::stack(at::_foreach_norm(grads)).norm();
  if (ranks_ != nullptr) norm = ranks_->AllReduceSum(norm.square()).sqrt();
  if (config_.clip_norm() > 0) {
    at::_foreach_mul_(grads,
                      at::clamp_max(config_.clip_norm() / (norm + 1e-6), 1.0));
  }
  return norm;
}

void AdamW::Step(double lr) {
  c10::NoGradGuard no_grad;
  for (Group& group : groups_) {
    std::vector<at::Tensor> parameters, grads, exp_avg, exp_avg_sq, steps;
    std::vector<at::Tensor> counted;  // Also those of other ranks' parts.
    for (size_t i = 0; i < group.parameters.size(); ++i) {
      const at::Tensor& grad = group.parameters[i].grad();
      if (!grad.defined()) continue;
      counted.push_back(group.steps[i]);
      if (group.exp_avg[i].numel() == 0) continue;  // Other ranks'.
      parameters.push_back(Own(group, i, group.parameters[i]));
      // The fused operator needs the parameter's own memory layout.
      grads.push_back(
          Own(group, i, grad.is_contiguous() ? grad : grad.contiguous()));
      exp_avg.push_back(group.exp_avg[i]);
      exp_avg_sq.push_back(group.exp_avg_sq[i]);
      steps.push_back(group.steps[i]);
    }
    if (!counted.empty()) at::_foreach_add_(counted, 1);
    if (parameters.empty()) continue;
    at::_fused_adamw_(parameters, grads, exp_avg, exp_avg_sq,
                      /*max_exp_avg_sqs=*/{}, steps, lr * group.lr_scale,
                      config_.beta1(), config_.beta2(), group.weight_decay,
                      config_.eps(), /*amsgrad=*/false,
                      /*maximize=*/false);
  }
  if (ranks_ == nullptr) return;
  std::vector<at::Tensor> parts;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.parameters.size(); ++i)
      parts.push_back(Own(group, i, group.parameters[i]));
  }
  const std::vector<at::Tensor> whole = Whole(parts);
  size_t next = 0;
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters)
      parameter.copy_(whole[next++]);
  }
}

NamedTensors AdamW::State() const {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> exp_avg, exp_avg_sq;
  for (const Group& group : groups_) {
    exp_avg.insert(exp_avg.end(), group.exp_avg.begin(), group.exp_avg.end());
    exp_avg_sq.insert(exp_avg_sq.end(), group.exp_avg_sq.begin(),
                      group.exp_avg_sq.end());
  }
  if (ranks_ != nullptr) {
    exp_avg = Whole(exp_avg);
    exp_avg_sq = Whole(exp_avg_sq);
  }
  NamedTensors state;
  size_t next = 0;
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i, ++next) {
      state.emplace_back("exp_avg/" + group.names[i], exp_avg[next]);
      state.emplace_back("exp_avg_sq/" + group.names[i], exp_avg_sq[next]);
      state.emplace_back("step/" + group.names[i], group.steps[i]);
    }
  }
  return state;
}

absl::Status AdamW::LoadState(const NamedTensors& state) {
  c10::NoGradGuard no_grad;
  const std::map<std::string, at::Tensor> by_name(state.begin(), state.end());
  for (Group& group : groups_) {
    for (size_t i = 0; i < group.names.size(); ++i) {
      const auto load = [&](const std::string& kind, at::IntArrayRef sizes,
                            bool whole, at::Tensor& target) {
        const std::string name = kind + group.names[i];
        auto found = by_name.find(name);
        if (found == by_name.end()) {
          return absl::NotFoundError(
              absl::StrCat("optimizer state has no tensor ", name));
        }
        if (found->second.sizes() != sizes) {
          return absl::InvalidArgumentError(
              absl::StrCat("optimizer state ", name,
                           " has another shape than the parameter"));
        }
        target.copy_(whole ? found->second
                           : Own(group, i, found->second.contiguous()));
        return absl::OkStatus();
      };
      const at::IntArrayRef sizes = group.parameters[i].sizes();
      absl::Status status =
          load("exp_avg/", sizes, /*whole=*/false, group.exp_avg[i]);
      status.Update(
          load("exp_avg_sq/", sizes, /*whole=*/false, group.exp_avg_sq[i]));
      status.Update(load("step/", {}, /*whole=*/true, group.steps[i]));
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace semvq
