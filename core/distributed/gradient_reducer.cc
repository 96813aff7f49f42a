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

// Sums a bucket in bfloat16; divides first, so that nothing overflows.
class Bf16Hook : public c10d::CppCommHookInterface<Group> {
 public:
  explicit Bf16Hook(const Group& group) : CppCommHookInterface<Group>(group) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(
      c10d::GradBucket& bucket) override {
    at::Tensor full = bucket.getBufferRef();
    std::vector<at::Tensor> sent = {
        (full / static_cast<double>(state_->getSize())).to(at::kBFloat16)};
    const auto sum = state_->allreduce(sent)->getFuture();
    return sum->then(
        [full](c10::ivalue::Future& done) {
          full.copy_(done.value().toTensorVector()[0]);
          return c10::IValue(full);
        },
        sum->elementType());
  }
};

}  // namespace

class GradientReducer::Impl {
 public:
  Impl(const std::vector<std::pair<std::string, at::Tensor>>& parameters,
       const Group& group, bool bf16) {
    std::vector<at::Tensor> list;
    std::unordered_map<size_t, std::string> names;
    for (const auto& [name, parameter] : parameters) {
      names[list.size()] = name;
      list.push_back(parameter);
    }
    c10d::verify_params_across_processes(group, list, std::nullopt);
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(
        list, {kFirstBucketBytes, kBucketBytes}));
    // The last parameters' gradients come first.
    std::reverse(buckets.begin(), buckets.end());
    reducer_ = std::make_shared<c10d::Reducer>(
        list, buckets, group,
        /*expect_sparse_gradients=*/std::vector<bool>(list.size(), false),
        static_cast<int64_t>(kBucketBytes),
        /*find_unused_parameters=*/true,
        /*gradient_as_bucket_view=*/true, names,
        static_cast<int64_t>(kFirstBucketBytes),
        /*skip_all_reduce_unused_params=*/false,
        /*use_python_reducer=*/false,
        /*bucket_bytes_cap_list=*/std::vector<int64_t>());
    // It crashes without one when the graph changes.
    logger_ = std::make_shared<c10d::Logger>(reducer_);
    reducer_->set_logger(logger_);
    if (bf16) reducer_->register_comm_hook(std::make_unique<Bf16Hook>(group));
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
  }

 private:
  std::shared_ptr<c10d::Reducer> reducer_;
  std::shared_ptr<c10d::Logger> logger_;
};

GradientReducer::GradientReducer(
    const std::vector<std::pair<std::string, at::Tensor>>& parameters,
    Communicator* group, bool bf16)
    : impl_(std::make_unique<Impl>(parameters, group->process_group(), bf16)) {}

GradientReducer::~GradientReducer() = default;

void GradientReducer::Backward(const at::Tensor& loss) {
  impl_->Backward(loss);
}

}  // namespace semvq
