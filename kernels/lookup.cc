#include "kernels/lookup.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "kernels/scatter.h"

namespace semvq {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor Gather(const at::Tensor& codebook, const at::Tensor& codes) {
  return codebook.index_select(0, codes.clamp_min(0))
      .masked_fill_((codes < 0).unsqueeze(1), 0);
}

// Each is the other's transpose. Codes are flat: [N].
struct GatherFunction : torch::autograd::Function<GatherFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& codebook,
                            const at::Tensor& codes);
  static variable_list backward(AutogradContext* context, variable_list grads);
};

struct ScatterFunction : torch::autograd::Function<ScatterFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows,
                            const at::Tensor& codes, int64_t num_codes);
  static variable_list backward(AutogradContext* context, variable_list grads);
};

at::Tensor GatherFunction::forward(AutogradContext* context,
                                   const at::Tensor& codebook,
                                   const at::Tensor& codes) {
  context->save_for_backward({codes});
  context->saved_data["num_codes"] = codebook.size(0);
  return Gather(codebook, codes);
}

variable_list GatherFunction::backward(AutogradContext* context,
                                       variable_list grads) {
  const at::Tensor codes = context->get_saved_variables()[0];
  return {ScatterFunction::apply(grads[0], codes,
                                 context->saved_data["num_codes"].toInt()),
          at::Tensor()};
}

at::Tensor ScatterFunction::forward(AutogradContext* context,
                                    const at::Tensor& rows,
                                    const at::Tensor& codes,
                                    int64_t num_codes) {
  context->save_for_backward({codes});
  return CodeStatistics(rows, codes, num_codes).sums.to(rows.scalar_type());
}

variable_list ScatterFunction::backward(AutogradContext* context,
                                        variable_list grads) {
  const at::Tensor codes = context->get_saved_variables()[0];
  return {GatherFunction::apply(grads[0], codes), at::Tensor(), at::Tensor()};
}

}  // namespace

at::Tensor LookupCodes(const at::Tensor& codebook, const at::Tensor& codes) {
  TORCH_CHECK(
      codebook.dim() == 2 && codebook.size(0) > 0 &&
          codebook.is_floating_point() && codes.scalar_type() == at::kLong &&
          codes.device() == codebook.device(),
      "LookupCodes: expected a floating-point codebook [K, D] and "
      "int64 codes on one device, got ",
      codebook.scalar_type(), " ", codebook.sizes(), " on ", codebook.device(),
      " and ", codes.scalar_type(), " on ", codes.device());
  if (codes.is_cpu() && codes.numel() > 0) {
    const int64_t greatest = codes.max().item<int64_t>();
    TORCH_CHECK(greatest < codebook.size(0), "LookupCodes: code ", greatest,
                " is out of range; there are ", codebook.size(0), " codes");
  }
  std::vector<int64_t> shape = codes.sizes().vec();
  shape.push_back(codebook.size(1));
  return GatherFunction::apply(codebook, codes.reshape({-1})).view(shape);
}

}  // namespace semvq
