#include "core/distributed/gather_rows.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace semvq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A communicator as autograd keeps it; it outlives the graph.
struct GroupRef : torch::CustomClassHolder {
  explicit GroupRef(Communicator* g) : group(g) {}
  Communicator* const group;
};

at::Tensor Indices(const std::vector<int64_t>& list, const at::Tensor& like) {
  return at::tensor(at::ArrayRef<int64_t>(list), at::kLong).to(like.device());
}

class GatherFunction : public torch::autograd::Function<GatherFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows,
                            const c10::intrusive_ptr<GroupRef>& ref) {
    std::vector<int64_t> counts;
    const at::Tensor all = ref->group->AllGatherRows(rows, &counts);
    ctx->saved_data["group"] = c10::IValue::make_capsule(ref);
    ctx->saved_data["first"] = std::accumulate(
        counts.begin(), counts.begin() + ref->group->rank(), int64_t{0});
    ctx->saved_data["count"] = rows.size(0);
    return all;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto ref = c10::static_intrusive_pointer_cast<GroupRef>(
        ctx->saved_data["group"].toCapsule());
    return {ref->group->AllReduceSum(grads[0]).narrow(
                0, ctx->saved_data["first"].toInt(),
                ctx->saved_data["count"].toInt()),
            at::Tensor()};
  }
};

// Who sends which rows to whom.
struct Route : torch::CustomClassHolder {
  Communicator* group = nullptr;
  int64_t count = 0;                       // Own rows.
  std::vector<std::vector<int64_t>> sent;  // To each rank: own rows.
  std::vector<int64_t> sent_counts;        // Of them.
  std::vector<int64_t> received;           // From each rank, how many.
  // What is received, rank after rank, goes to these places.
  std::vector<std::vector<int64_t>> places;
  std::vector<int64_t> all_places;
};

c10::intrusive_ptr<Route> Plan(const at::Tensor& rows,
                               const at::Tensor& indices, Communicator* group) {
  const int64_t ranks = group->size(), rank = group->rank();
  const at::Tensor sizes =
      group->AllGather(at::full({}, rows.size(0), at::kLong));
  std::vector<int64_t> asked;  // Rows that each rank asks for.
  const at::Tensor wanted = group->AllGatherRows(indices.cpu(), &asked);
  auto route = c10::make_intrusive<Route>();
  route->group = group;
  route->count = rows.size(0);
  route->sent.resize(ranks);
  route->places.resize(ranks);
  std::vector<int64_t> first(ranks + 1, 0);
  for (int64_t r = 0; r < ranks; ++r)
    first[r + 1] = first[r] + sizes.data_ptr<int64_t>()[r];
  const int64_t* index = wanted.data_ptr<int64_t>();
  for (int64_t r = 0; r < ranks; ++r) {
    for (int64_t i = 0; i < asked[r]; ++i, ++index) {
      TORCH_CHECK(*index >= 0 && *index < first[ranks], "FetchRows: row ",
                  *index, " is asked for, the ranks have ", first[ranks]);
      const int64_t owner =
          std::upper_bound(first.begin(), first.end(), *index) - first.begin() -
          1;
      if (owner == rank) route->sent[r].push_back(*index - first[rank]);
      if (r == rank) route->places[owner].push_back(i);
    }
  }
  for (int64_t r = 0; r < ranks; ++r) {
    route->sent_counts.push_back(static_cast<int64_t>(route->sent[r].size()));
    route->received.push_back(static_cast<int64_t>(route->places[r].size()));
    route->all_places.insert(route->all_places.end(), route->places[r].begin(),
                             route->places[r].end());
  }
  return route;
}

class FetchFunction : public torch::autograd::Function<FetchFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& rows,
                            const c10::intrusive_ptr<Route>& route) {
    ctx->saved_data["route"] = c10::IValue::make_capsule(route);
    std::vector<at::Tensor> parts;
    for (const std::vector<int64_t>& list : route->sent)
      parts.push_back(rows.index_select(0, Indices(list, rows)));
    const at::Tensor got = route->group->AllToAll(parts, route->received);
    return at::empty_like(got).index_copy_(0, Indices(route->all_places, rows),
                                           got);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto route = c10::static_intrusive_pointer_cast<Route>(
        ctx->saved_data["route"].toCapsule());
    std::vector<at::Tensor> parts;
    for (const std::vector<int64_t>& list : route->places)
      parts.push_back(grads[0].index_select(0, Indices(list, grads[0])));
    const at::Tensor got = route->group->AllToAll(parts, route->sent_counts);
    std::vector<int64_t> to;
    for (const std::vector<int64_t>& list : route->sent)
      to.insert(to.end(), list.begin(), list.end());
    std::vector<int64_t> shape = grads[0].sizes().vec();
    shape[0] = route->count;
    return {at::zeros(shape, grads[0].options())
                .index_add_(0, Indices(to, got), got),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor GatherRows(const at::Tensor& rows, Communicator* group) {
  if (group == nullptr) return rows;
  return GatherFunction::apply(rows, c10::make_intrusive<GroupRef>(group));
}

at::Tensor FetchRows(const at::Tensor& rows, const at::Tensor& indices,
                     Communicator* group) {
  if (group == nullptr) return rows.index_select(0, indices);
  return FetchFunction::apply(rows, Plan(rows, indices, group));
}

}  // namespace semvq
