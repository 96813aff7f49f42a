#include "core/distributed/gradient_reducer.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <torch/csrc/distributed/c10d/logger.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <unordered_map>

namespace semvq {
namespace {

// DDP's sizes: a small first bucket, so that sending starts early.
constexpr size_t kFirstBucketBytes = size_t{1} << 20;
constexpr size_t kBucketBytes = size_t{25} << 20;

using Group = c10::intrusive_ptr<c10d::ProcessGroup>;

class Silence : public c10::WarningHandler {
 public:
  void process(const c10::Warning& /*warning*/) override {}
};

// A bucket as it is sent: divided first, so that nothing overflows.
at::Tensor Share(const Group& group, const at::Tensor& bucket, bool bf16) {
  const at::Tensor share = bucket / static_cast<double>(group->getSize());
  return bf16 ? share.to(at::kBFloat16) : share;
}

// Sums a bucket in bfloat16.
class Bf16Hook : public c10d::CppCommHookInterface<Group> {
 public:
  explicit Bf16Hook(const Group& group) : CppCommHookInterface<Group>(group) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(
      c10d::GradBucket& bucket) override {
    at::Tensor full = bucket.getBufferRef();
    std::vector<at::Tensor> sent = {Share(state_, full, /*bf16=*/true)};
    const auto sum = state_->allreduce(sent)->getFuture();
    return sum->then(
        [full](c10::ivalue::Future& done) {
          full.copy_(done.value().toTensorVector()[0]);
          return c10::IValue(full);
        },
        sum->elementType());
  }
};

// Sums this rank's slice of a bucket.
class ScatterHook : public c10d::CppCommHookInterface<Group> {
 public:
  ScatterHook(const Group& group, bool bf16)
      : CppCommHookInterface<Group>(group), bf16_(bf16) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(
      c10d::GradBucket& bucket) override {
    at::Tensor full = bucket.getBufferRef();
    const int64_t ranks = state_->getSize(), size = full.numel();
    const int64_t slice = GradientBuckets::SliceSize(size, ranks);
    at::Tensor sent = Share(state_, full, bf16_);
    if (slice * ranks > size)
      sent = at::constant_pad_nd(sent, {0, slice * ranks - size});
    // Gloo's reduce-scatter is an all-reduce, and one that cannot be waited for
    // while the backward goes on: the slices are exchanged, and summed here.
    const bool sums = sent.is_cuda();
    at::Tensor own = at::empty({sums ? 1 : ranks, slice}, sent.options());
    std::vector<int64_t> equal;
    const auto sum = (sums ? state_->_reduce_scatter_base(own, sent)
                           : state_->alltoall_base(own, sent, equal, equal))
                         ->getFuture();
    const int64_t begin = std::min(size, state_->getRank() * slice);
    const int64_t count = std::min(size - begin, slice);
    return sum->then(
        // `sent` is kept until it has been.
        [full, sent, own, begin, count](c10::ivalue::Future& /*done*/) {
          full.zero_();
          full.narrow(0, begin, count)
              .copy_(own.to(full.scalar_type()).sum(0).narrow(0, 0, count));
          return c10::IValue(full);
        },
        sum->elementType());
  }

 private:
  const bool bf16_;
};

}  // namespace

GradientBuckets::GradientBuckets(const std::vector<at::Tensor>& parameters)
    : members(std::get<0>(c10d::compute_bucket_assignment_by_size(
          parameters, {kFirstBucketBytes, kBucketBytes}))),
      places(parameters.size()) {
  // The last parameters' gradients come first.
  std::reverse(members.begin(), members.end());
  for (size_t bucket = 0; bucket < members.size(); ++bucket) {
    int64_t offset = 0;
    for (const size_t member : members[bucket]) {
      places[member] = {bucket, offset};
      offset += parameters[member].numel();
    }
    sizes.push_back(offset);
  }
}

class GradientReducer::Impl {
 public:
  Impl(const std::vector<std::pair<std::string, at::Tensor>>& parameters,
       const Group& group, const GradientReducerOptions& options)
      : group_(group), options_(options) {
    for (const auto& [name, parameter] : parameters) {
      names_[list_.size()] = name;
      list_.push_back(parameter);
    }
    c10d::verify_params_across_processes(group, list_, std::nullopt);
    Make(/*search=*/true);
  }

  void Backward(const at::Tensor& loss) {
    reducer_->prepare_for_forward();
    {
      // That the search found nothing unused is no news.
      Silence silence;
      c10::WarningUtils::WarningHandlerGuard guard(&silence);
      reducer_->prepare_for_backward({loss});
    }
    loss.backward();
    if (options_.varying_graph) return;
    const auto unused =
        std::find_if(list_.begin(), list_.end(),
                     [](const at::Tensor& p) { return !p.grad().defined(); });
    if (searches_) {
      if (unused == list_.end()) Make(/*search=*/false);
      return;
    }
    TORCH_CHECK(unused == list_.end(), "parameter ",
                names_[unused - list_.begin()],
                " has no gradient in this step, but had one in the first; the "
                "plugin that lets this differ must say so by "
                "Contract::varying_graph");
  }

  bool searches() const { return searches_; }

 private:
  void Make(bool search) {
    searches_ = search;
    // The former one's hooks go first.
    logger_.reset();
    reducer_.reset();
    reducer_ = std::make_shared<c10d::Reducer>(
        list_, GradientBuckets(list_).members, group_,
        /*expect_sparse_gradients=*/std::vector<bool>(list_.size(), false),
        static_cast<int64_t>(kBucketBytes),
        /*find_unused_parameters=*/search,
        /*gradient_as_bucket_view=*/true, names_,
        static_cast<int64_t>(kFirstBucketBytes),
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/std::vector<int64_t>());
    // It crashes without one when the graph changes.
    logger_ = std::make_shared<c10d::Logger>(reducer_);
    reducer_->set_logger(logger_);
    if (options_.scatter) {
      reducer_->register_comm_hook(
          std::make_unique<ScatterHook>(group_, options_.bf16));
    } else if (options_.bf16) {
      reducer_->register_comm_hook(std::make_unique<Bf16Hook>(group_));
    }
  }

  const Group group_;
  const GradientReducerOptions options_;
  std::vector<at::Tensor> list_;
  std::unordered_map<size_t, std::string> names_;
  bool searches_ = true;
  std::shared_ptr<c10d::Reducer> reducer_;
  std::shared_ptr<c10d::Logger> logger_;
};

GradientReducer::GradientReducer(
    const std::vector<std::pair<std::string, at::Tensor>>& parameters,
    Communicator* group, const GradientReducerOptions& options)
    : impl_(std::make_unique<Impl>(parameters, group->process_group(),
                                   options)) {}

GradientReducer::~GradientReducer() = default;

void GradientReducer::Backward(const at::Tensor& loss) {
  impl_->Backward(loss);
}

bool GradientReducer::searches() const { return impl_->searches(); }

}  // namespace semvq
