// Gradient estimators: how a gradient passes a hard code.
#ifndef SEMVQ_CORE_QUANTIZE_ESTIMATORS_H_
#define SEMVQ_CORE_QUANTIZE_ESTIMATORS_H_

#include <ATen/core/Tensor.h>

namespace semvq {

// Both return `vectors` bit by bit (where features are finite; elsewhere NaN,
// so that the finite check sees it), with a gradient to `features` alone.
// Shapes
// [..., D], equal; same dtype.

// The gradient is copied to the features (van den Oord et al. 2017, "Neural
// discrete representation learning").
at::Tensor StraightThrough(const at::Tensor& features,
                           const at::Tensor& vectors);

// The gradient is rotated and scaled as the features e would have to be to
// become the vectors q (Fifty et al. 2024, "Restructuring vector quantization
// with the rotation trick"):
//   (|q| / |e|) (e - 2 w w'e + 2 q^ e^'e),   w = normalised e^ + q^,
// with all factors but the outer e held constant. Where it is not defined (e =
// 0, or q opposite to e), the gradient is the straight-through one.
at::Tensor RotationTrick(const at::Tensor& features, const at::Tensor& vectors);

// `vectors` [M, D], codes' of `codebook` [K, D], with a gradient to `p` [M, K]
// as if they were its mixture p E of the codes, besides their own. Bit by bit
// `vectors` where p is finite.
at::Tensor WithMixtureGradient(const at::Tensor& vectors, const at::Tensor& p,
                               const at::Tensor& codebook);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_ESTIMATORS_H_
