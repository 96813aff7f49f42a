#include "kernels/scatter.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <vector>

#include "kernels/cuda_dispatch.h"

namespace semvq {
namespace {

void CheckCodes(const at::Tensor& codes, int64_t num_codes) {
  TORCH_CHECK(codes.scalar_type() == at::kLong, "expected int64 codes, got ",
              codes.scalar_type());
  TORCH_CHECK(num_codes > 0, "expected at least one code, got ", num_codes);
}

// On devices without a kernel: negative codes are counted in one more row,
// which is dropped.
at::Tensor WithDiscardRow(const at::Tensor& codes, int64_t num_codes) {
  return at::where(codes < 0, at::full({}, num_codes, codes.options()), codes);
}

}  // namespace

at::Tensor Histogram(const at::Tensor& codes, int64_t num_codes) {
  CheckCodes(codes, num_codes);
#ifdef SEMVQ_CUDA
  if (internal::HasCudaKernels(codes))
    return internal::HistogramCuda(codes, num_codes);
#endif
  if (!codes.is_cpu()) {
    const at::Tensor flat = WithDiscardRow(codes.reshape({-1}), num_codes);
    return at::zeros({num_codes + 1}, codes.options())
        .index_add(0, flat, at::ones_like(flat))
        .narrow(0, 0, num_codes);
  }
  const at::Tensor flat = codes.contiguous();
  at::Tensor counts = at::zeros({num_codes}, at::kLong);
  int64_t* out = counts.mutable_data_ptr<int64_t>();
  const int64_t* in = flat.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    if (in[i] < 0) continue;
    TORCH_CHECK(in[i] < num_codes, "code ", in[i], " at position ", i,
                " is out of range; there are ", num_codes, " codes");
    ++out[in[i]];
  }
  return counts;
}

CodeSums CodeStatistics(const at::Tensor& features, const at::Tensor& codes,
                        int64_t num_codes) {
  TORCH_CHECK(
      features.dim() == 2 && codes.dim() == 1 &&
          features.size(0) == codes.size(0) && features.is_floating_point(),
      "CodeStatistics: expected features [N, D] and codes [N], got ",
      features.scalar_type(), " ", features.sizes(), " and ", codes.sizes());
  c10::NoGradGuard no_grad;
#ifdef SEMVQ_CUDA
  if (internal::HasCudaKernels(features)) {
    CheckCodes(codes, num_codes);
    return internal::CodeStatisticsCuda(features, codes, num_codes);
  }
#endif
  const at::ScalarType type =
      features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t dim = features.size(1);
  CodeSums out;
  out.counts = Histogram(codes, num_codes);
  if (!features.is_cpu()) {
    out.sums = at::zeros({num_codes + 1, dim}, features.options().dtype(type))
                   .index_add(0, WithDiscardRow(codes, num_codes),
                              features.detach().to(type))
                   .narrow(0, 0, num_codes);
    return out;
  }

  // A stable counting sort brings the rows of a code together.
  const at::Tensor z = features.detach().to(type).contiguous();
  const at::Tensor c = codes.contiguous();
  const int64_t* code = c.const_data_ptr<int64_t>();
  const int64_t* counts = out.counts.const_data_ptr<int64_t>();
  std::vector<int64_t> begin(num_codes + 1, 0);
  for (int64_t k = 0; k < num_codes; ++k) begin[k + 1] = begin[k] + counts[k];
  std::vector<int64_t> order(begin[num_codes]);
  std::vector<int64_t> next(begin.begin(), begin.end() - 1);
  for (int64_t i = 0; i < c.numel(); ++i) {
    if (code[i] >= 0) order[next[code[i]]++] = i;
  }
  out.sums = at::empty({num_codes, dim}, z.options());
  AT_DISPATCH_FLOATING_TYPES(type, "CodeStatistics", [&] {
    const scalar_t* rows = z.const_data_ptr<scalar_t>();
    scalar_t* sums = out.sums.mutable_data_ptr<scalar_t>();
    at::parallel_for(0, num_codes, 1 + 16384 / (dim + 1),
                     [&](int64_t first, int64_t last) {
                       std::vector<double> sum(dim);
                       for (int64_t k = first; k < last; ++k) {
                         sum.assign(dim, 0.0);
                         for (int64_t i = begin[k]; i < begin[k + 1]; ++i) {
                           const scalar_t* row = rows + order[i] * dim;
                           for (int64_t d = 0; d < dim; ++d) sum[d] += row[d];
                         }
                         for (int64_t d = 0; d < dim; ++d)
                           sums[k * dim + d] = static_cast<scalar_t>(sum[d]);
                       }
                     });
  });
  return out;
}

}  // namespace semvq
