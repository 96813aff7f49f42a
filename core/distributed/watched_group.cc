#include "core/distributed/watched_group.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#ifdef USE_C10D_NCCL
#include <c10/cuda/CUDAFunctions.h>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <utility>
#include <vector>

#include "core/distributed/communicator.h"

namespace semvq {
namespace {

using WorkPtr = c10::intrusive_ptr<c10d::Work>;

// Another's work; waiting for it is a phase.
class WatchedWork : public c10d::Work {
 public:
  WatchedWork(WorkPtr work, const char* name, Activity* activity)
      : work_(std::move(work)), name_(name), activity_(activity) {}

  bool wait(std::chrono::milliseconds timeout) override {
    ActivityScope scope(activity_, name_, ActivityScope::Waits::kForAllRanks);
    return work_->wait(timeout);
  }
  bool isCompleted() override { return work_->isCompleted(); }
  bool isSuccess() const override { return work_->isSuccess(); }
  std::exception_ptr exception() const override { return work_->exception(); }
  int sourceRank() const override { return work_->sourceRank(); }
  std::vector<at::Tensor> result() override { return work_->result(); }
  void synchronize() override { work_->synchronize(); }
  void blockCurrentStream() override { work_->blockCurrentStream(); }
  void abort() override { work_->abort(); }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    return work_->getFuture();
  }
  c10::intrusive_ptr<c10::ivalue::Future> getFutureResult() override {
    return work_->getFutureResult();
  }
  float getDuration() const override { return work_->getDuration(); }
  uint64_t getSequencenumber() const override {
    return work_->getSequencenumber();
  }

 private:
  WorkPtr work_;
  const char* name_;
  Activity* activity_;
};

// The collectives that SemVQ and c10d's reducer call.
class WatchedGroup : public c10d::ProcessGroup {
 public:
  WatchedGroup(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
               Activity* activity)
      : ProcessGroup(store, rank, size), activity_(activity) {}

  WorkPtr broadcast(std::vector<at::Tensor>& tensors,
                    const c10d::BroadcastOptions& options) override {
    return Watch("broadcast", ProcessGroup::broadcast(tensors, options));
  }
  WorkPtr allreduce(std::vector<at::Tensor>& tensors,
                    const c10d::AllreduceOptions& options) override {
    return Watch("all-reduce", ProcessGroup::allreduce(tensors, options));
  }
  WorkPtr allgather(std::vector<std::vector<at::Tensor>>& out,
                    std::vector<at::Tensor>& in,
                    const c10d::AllgatherOptions& options) override {
    return Watch("all-gather", ProcessGroup::allgather(out, in, options));
  }
  WorkPtr _allgather_base(at::Tensor& out, at::Tensor& in,
                          const c10d::AllgatherOptions& options) override {
    return Watch("all-gather", ProcessGroup::_allgather_base(out, in, options));
  }
  WorkPtr _reduce_scatter_base(
      at::Tensor& out, at::Tensor& in,
      const c10d::ReduceScatterOptions& options) override {
    return Watch("reduce-scatter",
                 ProcessGroup::_reduce_scatter_base(out, in, options));
  }
  WorkPtr alltoall_base(at::Tensor& out, at::Tensor& in,
                        std::vector<int64_t>& out_sizes,
                        std::vector<int64_t>& in_sizes,
                        const c10d::AllToAllOptions& options) override {
    return Watch("all-to-all", ProcessGroup::alltoall_base(out, in, out_sizes,
                                                           in_sizes, options));
  }

 private:
  WorkPtr Watch(const char* name, WorkPtr work) {
    if (!work) return work;
    return c10::make_intrusive<WatchedWork>(std::move(work), name, activity_);
  }

  Activity* activity_;
};

}  // namespace

c10::intrusive_ptr<c10d::ProcessGroup> MakeWatchedGroup(
    const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
    const char* address, c10::Device device, std::chrono::milliseconds timeout,
    Activity* activity) {
  using Type = c10d::ProcessGroup::BackendType;
  auto group = c10::make_intrusive<WatchedGroup>(
      store, static_cast<int>(rank), static_cast<int>(size), activity);
  group->setBackend(
      c10::DeviceType::CPU, Type::GLOO,
      MakeGlooGroup(c10::make_intrusive<c10d::PrefixStore>("gloo", store), rank,
                    size, address, timeout)
          ->getBackend(c10::DeviceType::CPU));
  group->setDefaultBackend(Type::GLOO);
  if (!device.is_cuda()) return group;
#ifdef USE_C10D_NCCL
  c10::cuda::set_device(device.index());
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  group->setBackend(
      c10::DeviceType::CUDA, Type::NCCL,
      c10::make_intrusive<c10d::ProcessGroupNCCL>(
          c10::make_intrusive<c10d::PrefixStore>("nccl", store),
          static_cast<int>(rank), static_cast<int>(size), options));
  group->setDefaultBackend(Type::NCCL);
  return group;
#else
  TORCH_CHECK(false, "ranks on ", device,
              " need a build with NCCL: --config=cuda");
  return {};
#endif
}

}  // namespace semvq
