// One head of one sequence, for kernels/short_attention.cc. Free of LibTorch.
#ifndef SEMVQ_KERNELS_SHORT_ATTENTION_AVX512_H_
#define SEMVQ_KERNELS_SHORT_ATTENTION_AVX512_H_

#include <cstdint>

namespace semvq {
namespace internal {

// bfloat16 [rows, dim] with `stride` values from one row to the next.
struct HeadView {
  uint16_t* data = nullptr;
  int64_t stride = 0;
};

struct HeadShape {
  int64_t queries = 0;
  int64_t keys = 0;    // At most kMostShortKeys.
  int64_t dim = 0;     // Multiple of 16, at most 128.
  float scale = 1.0f;  // Of the scores.
};

struct HeadInput {
  HeadView q, k, v;
  const bool* seen = nullptr;  // [keys]; null: all.
};

struct HeadGradient {
  HeadView out, grad_out;           // Inputs: the result and its gradient.
  HeadView grad_q, grad_k, grad_v;  // Outputs.
};

// Working memory of one thread, in bytes; 64-byte aligned.
int64_t HeadWorkspace(const HeadShape& shape);

// False when this build has no such kernel or the processor cannot run it.
bool HasHeadKernels();

// log_sums [queries]: of the scores' exponentials, for the backward.
void HeadForward(const HeadShape& shape, const HeadInput& in, HeadView out,
                 float* log_sums, void* workspace);
void HeadBackward(const HeadShape& shape, const HeadInput& in,
                  const float* log_sums, const HeadGradient& gradient,
                  void* workspace);

}  // namespace internal
}  // namespace semvq

#endif  // SEMVQ_KERNELS_SHORT_ATTENTION_AVX512_H_
