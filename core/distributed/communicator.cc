#include "core/distributed/communicator.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>
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

at::Tensor Communicator::AllGatherRows(const at::Tensor& rows,
                                       std::vector<int64_t>* counts) {
  c10::NoGradGuard no_grad;
  TORCH_CHECK(rows.dim() >= 1, "AllGatherRows: expected rows [n, ...], got ",
              rows.sizes());
  const at::Tensor sizes = AllGather(at::full({}, rows.size(0), at::kLong));
  const int64_t* size_of = sizes.data_ptr<int64_t>();
  if (counts != nullptr) counts->assign(size_of, size_of + size());
  std::vector<int64_t> shape = rows.sizes().vec();
  shape[0] = *std::max_element(size_of, size_of + size());
  if (shape[0] == 0) return at::empty_like(rows);
  at::Tensor padded = at::zeros(shape, rows.options());
  padded.narrow(0, 0, rows.size(0)).copy_(rows.detach());
  const at::Tensor all = AllGather(padded);
  std::vector<at::Tensor> parts;
  for (int64_t r = 0; r < size(); ++r)
    parts.push_back(all[r].narrow(0, 0, size_of[r]));
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

void Communicator::BroadcastInto(const std::vector<at::Tensor>& tensors,
                                 int64_t root) {
  c10::NoGradGuard no_grad;
  constexpr size_t kMessageBytes = size_t{64} << 20;
  std::vector<at::Tensor> dense;
  for (const at::Tensor& t : tensors) dense.push_back(t.detach().contiguous());
  // Of one dtype each, as it packs them.
  std::map<at::ScalarType, std::vector<at::Tensor>> by_type;
  for (const at::Tensor& t : dense) {
    if (t.numel() > 0) by_type[t.scalar_type()].push_back(t);
  }
  for (const auto& [type, list] : by_type) {
    c10d::broadcast_coalesced(group_, list, kMessageBytes,
                              static_cast<int>(root));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!tensors[i].is_contiguous()) tensors[i].detach().copy_(dense[i]);
  }
}

at::Tensor Communicator::AllToAll(const std::vector<at::Tensor>& rows_to,
                                  const std::vector<int64_t>& counts) {
  c10::NoGradGuard no_grad;
  std::vector<int64_t> sent, received = counts;
  for (const at::Tensor& rows : rows_to) sent.push_back(rows.size(0));
  at::Tensor in = at::cat(rows_to).detach().contiguous();
  std::vector<int64_t> shape = in.sizes().vec();
  shape[0] = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  at::Tensor out = at::empty(shape, in.options());
  group_->alltoall_base(out, in, received, sent)->wait();
  return out;
}

std::vector<std::string> Communicator::AllGatherText(const std::string& text) {
  at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
  std::copy(text.begin(), text.end(), bytes.data_ptr<uint8_t>());
  std::vector<int64_t> sizes;
  const at::Tensor all = AllGatherRows(bytes, &sizes);
  std::vector<std::string> texts;
  const uint8_t* next = all.data_ptr<uint8_t>();
  for (const int64_t n : sizes) {
    texts.emplace_back(next, next + n);
    next += n;
  }
  return texts;
}

std::string Communicator::BroadcastText(const std::string& text) {
  const at::Tensor size =
      Broadcast(at::full({}, static_cast<int64_t>(text.size()), at::kLong), 0);
  at::Tensor bytes = at::zeros({size.item<int64_t>()}, at::kByte);
  if (bytes.numel() == 0) return "";
  if (rank() == 0)
    std::copy(text.begin(), text.end(), bytes.data_ptr<uint8_t>());
  const at::Tensor sent = Broadcast(bytes, 0);
  const uint8_t* data = sent.data_ptr<uint8_t>();
  return std::string(data, data + sent.numel());
}

void Communicator::Barrier() { AllReduceSum(at::zeros({1}, at::kByte)); }

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
