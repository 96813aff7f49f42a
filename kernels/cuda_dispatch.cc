#include "kernels/cuda_dispatch.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/core/GradMode.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda/codes.h"

namespace semvq {
namespace internal {
namespace {

cuda::Dtype TypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return cuda::Dtype::kFloat64;
    case at::kFloat:
      return cuda::Dtype::kFloat32;
    case at::kBFloat16:
      return cuda::Dtype::kBFloat16;
    case at::kHalf:
      return cuda::Dtype::kFloat16;
    default:
      TORCH_CHECK(false, "expected float64, float32, bfloat16 or float16, got ",
                  tensor.scalar_type());
  }
}

at::Tensor Workspace(size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)},
                   like.options().dtype(at::kByte));
}

}  // namespace

bool HasCudaKernels(const at::Tensor& tensor) {
  return tensor.is_cuda() &&
         at::cuda::getDeviceProperties(tensor.get_device())->major >= 8;
}

at::Tensor AssignNearestCuda(const at::Tensor& features,
                             const at::Tensor& codebook, Metric metric) {
  c10::NoGradGuard no_grad;
  const c10::cuda::CUDAGuard guard(features.device());
  const at::Tensor z = features.detach().contiguous();
  const at::Tensor e =
      codebook.detach()
          .to(codebook.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)
          .contiguous();
  at::Tensor codes = at::empty({z.size(0)}, z.options().dtype(at::kLong));
  cuda::AssignArguments arguments;
  arguments.features = z.const_data_ptr();
  arguments.features_type = TypeOf(z);
  arguments.n = z.size(0);
  arguments.codebook = e.const_data_ptr();
  arguments.codebook_type = TypeOf(e);
  arguments.codes = e.size(0);
  arguments.dim = e.size(1);
  arguments.cosine = metric == Metric::kCosine;
  arguments.multiprocessors =
      at::cuda::getDeviceProperties(z.get_device())->multiProcessorCount;
  arguments.out = codes.mutable_data_ptr<int64_t>();
  TORCH_CHECK(arguments.codes < (int64_t{1} << 31) - 129,
              "AssignNearest: ", arguments.codes,
              " codes are more than the GPU's 2^31 - 130");
  if (arguments.n == 0) return codes;
  const at::Tensor workspace =
      Workspace(cuda::AssignWorkspaceBytes(arguments), z);
  arguments.workspace = workspace.mutable_data_ptr();
  C10_CUDA_CHECK(cuda::Assign(arguments, c10::cuda::getCurrentCUDAStream()));
  return codes;
}

at::Tensor HistogramCuda(const at::Tensor& codes, int64_t num_codes) {
  const c10::cuda::CUDAGuard guard(codes.device());
  const at::Tensor flat = codes.contiguous();
  at::Tensor counts = at::empty({num_codes}, codes.options());
  C10_CUDA_CHECK(cuda::Histogram(flat.const_data_ptr<int64_t>(), flat.numel(),
                                 num_codes, counts.mutable_data_ptr<int64_t>(),
                                 c10::cuda::getCurrentCUDAStream()));
  return counts;
}

CodeSums CodeStatisticsCuda(const at::Tensor& features, const at::Tensor& codes,
                            int64_t num_codes) {
  TORCH_CHECK(codes.device() == features.device(),
              "CodeStatistics: features are on ", features.device(),
              " and codes on ", codes.device(), "; move one of them");
  const c10::cuda::CUDAGuard guard(features.device());
  const at::Tensor z = features.detach().contiguous();
  const at::Tensor c = codes.contiguous();
  CodeSums out;
  out.counts = at::empty({num_codes}, c.options());
  out.sums =
      at::empty({num_codes, z.size(1)},
                z.options().dtype(z.scalar_type() == at::kDouble ? at::kDouble
                                                                 : at::kFloat));
  cuda::ScatterArguments arguments;
  arguments.features = z.const_data_ptr();
  arguments.type = TypeOf(z);
  arguments.n = z.size(0);
  arguments.dim = z.size(1);
  arguments.values = c.const_data_ptr<int64_t>();
  arguments.codes = num_codes;
  arguments.counts = out.counts.mutable_data_ptr<int64_t>();
  arguments.sums = out.sums.mutable_data_ptr();
  TORCH_CHECK(arguments.n < (int64_t{1} << 31) - 1 &&
                  num_codes < (int64_t{1} << 31) - 1,
              "CodeStatistics: ", arguments.n, " features of ", num_codes,
              " codes are more than the GPU's 2^31 - 2");
  size_t bytes = 0;
  C10_CUDA_CHECK(cuda::ScatterWorkspaceBytes(arguments, &bytes));
  const at::Tensor workspace = Workspace(bytes, z);
  arguments.workspace = workspace.mutable_data_ptr();
  C10_CUDA_CHECK(cuda::Scatter(arguments, c10::cuda::getCurrentCUDAStream()));
  return out;
}

}  // namespace internal
}  // namespace semvq
