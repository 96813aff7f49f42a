#include "core/distributed/communicator.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <utility>

namespace semvq {
namespace {

// Of its own, so that no collective writes into the caller's.
at::Tensor Copy(const at::Tensor& tensor) {
  return tensor.detach().clone(at::MemoryFormat::Contiguous);
}

}  // namespace

Communicator::Communicator(c10::intrusive_ptr<c10d::ProcessGroup> group)
    : group_(std::move(group)) {}

Communicator::~Communicator() = default;

int64_t Communicator::rank() const { return group_->getRank(); }
int64_t Communicator::size() const { return group_->getSize(); }

at::Tensor Communicator::AllReduceSum(const at::Tensor& tensor) {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> sum = {Copy(tensor)};
  group_->allreduce(sum)->wait();
  return sum[0];
}

std::vector<at::Tensor> Communicator::AllReduceSum(
    const std::vector<at::Tensor>& tensors) {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> sums(tensors.size());
  for (size_t first = 0; first < tensors.size(); ++first) {
    if (sums[first].defined()) continue;
    std::vector<at::Tensor> flat;
    std::vector<size_t> of;
    for (size_t i = first; i < tensors.size(); ++i) {
      if (tensors[i].scalar_type() != tensors[first].scalar_type()) continue;
      flat.push_back(tensors[i].detach().reshape({-1}));
      of.push_back(i);
    }
    const at::Tensor all = AllReduceSum(at::cat(flat));
    int64_t begin = 0;
    for (const size_t i : of) {
      sums[i] =
          all.narrow(0, begin, tensors[i].numel()).view(tensors[i].sizes());
      begin += tensors[i].numel();
    }
  }
  return sums;
}

at::Tensor Communicator::AllGather(const at::Tensor& tensor) {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> own = {Copy(tensor)};
  std::vector<std::vector<at::Tensor>> all(1);
  for (int64_t r = 0; r < size(); ++r) all[0].push_back(at::empty_like(own[0]));
  group_->allgather(all, own)->wait();
  return at::stack(all[0]);
}

at::Tensor Communicator::AllGatherRows(const at::Tensor& rows) {
  c10::NoGradGuard no_grad;
  TORCH_CHECK(rows.dim() >= 1, "AllGatherRows: expected rows [n, ...], got ",
              rows.sizes());
  const at::Tensor counts =
      AllGather(at::full({}, rows.size(0), rows.options().dtype(at::kLong)))
          .cpu();
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = counts.max().item<int64_t>();
  if (shape[0] == 0) return at::empty_like(rows);
  at::Tensor padded = at::zeros(shape, rows.options());
  padded.narrow(0, 0, rows.size(0)).copy_(rows.detach());
  const at::Tensor all = AllGather(padded);
  std::vector<at::Tensor> parts;
  for (int64_t r = 0; r < size(); ++r)
    parts.push_back(all[r].narrow(0, 0, counts[r].item<int64_t>()));
  return at::cat(parts);
}

at::Tensor Communicator::Broadcast(const at::Tensor& tensor, int64_t root) {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> own = {Copy(tensor)};
  c10d::BroadcastOptions options;
  options.rootRank = root;
  group_->broadcast(own, options)->wait();
  return own[0];
}

at::Tensor MeanOverRanks(const at::Tensor& value, Communicator* group) {
  if (group == nullptr) return value;
  const at::Tensor mean =
      group->AllReduceSum(value) / static_cast<double>(group->size());
  // The difference is exactly 0 where the value is finite.
  return value.requires_grad() ? mean + (value - value.detach()) : mean;
}

c10::intrusive_ptr<c10d::ProcessGroup> MakeGlooGroup(
    const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
    const char* address, std::chrono::milliseconds timeout) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname(address)};
  auto gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(
      store, static_cast<int>(rank), static_cast<int>(size), options);
  auto group = c10::make_intrusive<c10d::ProcessGroup>(
      store, static_cast<int>(rank), static_cast<int>(size));
  group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO,
                    gloo);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  return group;
}

}  // namespace semvq
