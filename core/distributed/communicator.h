// Collective operations of the ranks that train together, over c10d.
#ifndef SEMVQ_CORE_DISTRIBUTED_COMMUNICATOR_H_
#define SEMVQ_CORE_DISTRIBUTED_COMMUNICATOR_H_

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace c10d {
class ProcessGroup;
class Store;
}  // namespace c10d

namespace semvq {

// All but rank(), size() and process_group() are collective: every rank calls
// the same functions in the same order, with tensors of the same dtypes and,
// where nothing else is said, shapes; the call waits for the others (on CUDA,
// the stream does). Tensors are dense, on a device that the process group
// serves. Results are new tensors without a gradient, and the same bits on
// every rank. Throws c10::Error when a rank is lost or late (the process
// group's timeout), or shapes differ where the backend can tell.
class Communicator {
 public:
  explicit Communicator(c10::intrusive_ptr<c10d::ProcessGroup> group);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int64_t rank() const;
  int64_t size() const;

  // The sum over the ranks, entry by entry.
  at::Tensor AllReduceSum(const at::Tensor& tensor);
  // Of several tensors by one collective for each dtype among them; all on one
  // device.
  std::vector<at::Tensor> AllReduceSum(const std::vector<at::Tensor>& tensors);

  // Tensors [...] of the W ranks as [W, ...].
  at::Tensor AllGather(const at::Tensor& tensor);
  // Rows [n_r, ...], of which ranks may have different numbers, none included,
  // as [sum n_r, ...] in the order of the ranks; `counts`: the numbers. They
  // are exchanged on the CPU, whose backend the process group must have, so
  // that nothing waits for another device.
  at::Tensor AllGatherRows(const at::Tensor& rows,
                           std::vector<int64_t>* counts = nullptr);

  // The tensor of rank `root`; that of the others tells shape and dtype.
  at::Tensor Broadcast(const at::Tensor& tensor, int64_t root);
  // Writes rank `root`'s values into the tensors of all, a few large messages
  // for many small tensors.
  void BroadcastInto(const std::vector<at::Tensor>& tensors, int64_t root);

  // Rows for each rank, all of one shape but for their number: rows_to[r] [n,
  // ...] goes to rank r, and what comes back are the rows from each rank, in
  // the order of the ranks. `counts[r]`: how many rank r sends to this one.
  at::Tensor AllToAll(const std::vector<at::Tensor>& rows_to,
                      const std::vector<int64_t>& counts);

  // Texts of the ranks, of any length. On the CPU, as are the next two.
  std::vector<std::string> AllGatherText(const std::string& text);
  // Rank 0's text.
  std::string BroadcastText(const std::string& text);
  // Returns when every rank has called it.
  void Barrier();

  // For engines that speak c10d themselves (its DDP reducer).
  const c10::intrusive_ptr<c10d::ProcessGroup>& process_group() const {
    return group_;
  }

 private:
  c10::intrusive_ptr<c10d::ProcessGroup> group_;
};

// The mean of `value` over the ranks of `group` (null: `value` itself), with
// the gradient of `value`. A loss that is a function f of this mean gets on
// each rank the gradient f'(mean) d value; averaged over the ranks, as
// gradients in data-parallel training are, that is the gradient of f(mean).
at::Tensor MeanOverRanks(const at::Tensor& value, Communicator* group);

// A c10d process group over Gloo for CPU tensors, of `size` ranks that meet in
// `store`. `address` is a host name or IP address of this machine that the
// others reach; a collective that takes longer than `timeout` fails. Throws
// c10::Error when the ranks do not meet in time.
c10::intrusive_ptr<c10d::ProcessGroup> MakeGlooGroup(
    const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
    const char* address, std::chrono::milliseconds timeout);

}  // namespace semvq

#endif  // SEMVQ_CORE_DISTRIBUTED_COMMUNICATOR_H_
