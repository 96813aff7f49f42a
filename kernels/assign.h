// Exact nearest-code assignment.
//
// The answer is defined by float64 arithmetic, whatever the input's dtype: for
// kL2 the code with the least sum over d, in order, of (z_d - e_d)^2; for
// kCosine the one with the greatest <z, e> / |e| (a zero code counts as 0).
// Exact ties go to the lowest index. All implementations return the same codes.
//
// Defined corners: a feature with a NaN or an infinity gets code 0; a code with
// one is never chosen unless there is no other, and then the answer is 0; so is
// it for a zero feature under kCosine. float64 inputs beyond 1e150 in magnitude
// overflow the definition itself: such distances count as infinite.
#ifndef SEMVQ_KERNELS_ASSIGN_H_
#define SEMVQ_KERNELS_ASSIGN_H_

#include <ATen/core/Tensor.h>

namespace semvq {

enum class Metric { kL2, kCosine };

// features [N, D] and codebook [K, D] (float64, float32, bfloat16 or float16, K
// and D at least 1, N may be 0; strides are free) to int64 [N] on their device.
// Neither N x K distances nor anything else of that size is materialised; the
// extra memory is one packed copy of the codebook, and of the features where
// they are not contiguous or not float32/float64. Not differentiable: inputs
// are detached. Throws c10::Error on other shapes, dtypes, or mixed devices.
//
// On CPU: a first pass in float32 keeps, per feature, the codes whose score
// lies within twice a rigorous rounding bound of the best, and only those are
// scored in float64. It uses AVX-512 or AVX2 where the processor has them, and
// LibTorch's threads; the result depends on neither.
at::Tensor AssignNearest(const at::Tensor& features, const at::Tensor& codebook,
                         Metric metric = Metric::kL2);

// The definition, written as plainly as possible, on CPU. The oracle of tests.
at::Tensor AssignNearestReference(const at::Tensor& features,
                                  const at::Tensor& codebook,
                                  Metric metric = Metric::kL2);

// The definition in LibTorch's operators, on any device that has float64, in
// bounded chunks. Slow; what AssignNearest uses on devices without a kernel.
// Sums of a device may run in another order, so distances that differ in their
// last float64 bits may be told apart differently.
at::Tensor AssignNearestAten(const at::Tensor& features,
                             const at::Tensor& codebook,
                             Metric metric = Metric::kL2);

// Which first pass this processor runs: "avx512", "avx2" or "generic".
const char* AssignKernelName();

namespace internal {

// AssignNearest on CPU with a first pass of choice; for tests and benchmarks.
// `name` as in AssignKernelName(); throws c10::Error when the processor lacks
// it.
at::Tensor AssignNearestCpu(const at::Tensor& features,
                            const at::Tensor& codebook, Metric metric,
                            const char* name);

}  // namespace internal
}  // namespace semvq

#endif  // SEMVQ_KERNELS_ASSIGN_H_
