// The layers every network here is made of. Parameters carry PyTorch's names
// ("weight", "bias"). They are initialised as in BERT and DeiT: matrices and
// embeddings from a normal distribution of standard deviation 0.02 truncated at
// two standard deviations, biases 0, drawn from the default generator (the
// composer seeds it once per instance).
//
// Wrong shapes throw c10::Error; contracts rule them out for every experiment
// that validates.
#ifndef SEMVQ_CORE_NN_LAYERS_H_
#define SEMVQ_CORE_NN_LAYERS_H_

#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

namespace semvq {

// Fills `tensor` with draws from the normal distribution of standard deviation
// `std`, truncated at 2 * std; returns it. Outside autograd.
at::Tensor TruncatedNormal(at::Tensor tensor, double std = 0.02);

// Standard deviation that a matrix with `in` inputs starts from: 0.02, as BERT
// and DeiT have it at a width of 768, and for narrower ones as much more as
// keeps the size of the outputs (0.02 sqrt(768 / in)). With 0.02 a model of
// width 128 starts with cross-attention that hardly sees the image. [inferred]
double LinearInitStd(int64_t in);

// x [..., in], weight [out, in], bias [out] or undefined, to [..., out]. The
// one place where the GEMM is chosen; see layers.cc for the measured rule.
at::Tensor LinearOp(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias);

// Dropout in training mode, else `x` itself: entries become 0 with probability
// `p`, the others are scaled to keep the mean. Draws from the default
// generator.
at::Tensor Dropout(const at::Tensor& x, double p, bool training);

class Linear : public torch::nn::Module {
 public:
  Linear(int64_t in, int64_t out, bool bias = true);
  // [..., in] to [..., out].
  at::Tensor Forward(const at::Tensor& x) const {
    return LinearOp(x, weight, bias);
  }

  at::Tensor weight;  // [out, in]
  at::Tensor bias;    // [out]; undefined without bias.
};

// Normalisation over the last dimension [Ba et al. 2016].
class LayerNorm : public torch::nn::Module {
 public:
  explicit LayerNorm(int64_t dim, double eps = 1e-6);
  at::Tensor Forward(const at::Tensor& x) const;

  at::Tensor weight, bias;  // [dim]

 private:
  double eps_;
};

// A learned factor a channel, which starts small so that a deep stack starts as
// the identity [CaiT, Touvron et al. 2021].
class LayerScale : public torch::nn::Module {
 public:
  LayerScale(int64_t dim, double start);
  at::Tensor Forward(const at::Tensor& x) const { return x * gamma; }

  at::Tensor gamma;  // [dim]
};

class Embedding : public torch::nn::Module {
 public:
  // Row `padding_idx` starts at 0 and gets no gradient; -1: no such row.
  Embedding(int64_t num, int64_t dim, int64_t padding_idx = -1);
  // int64 [...] to [..., dim].
  at::Tensor Forward(const at::Tensor& ids) const;

  at::Tensor weight;  // [num, dim]

 private:
  int64_t padding_idx_;
};

// fc2(gelu(fc1(x))), then dropout. GELU is the exact one [Hendrycks and Gimpel
// 2016], as in BERT and ViT.
class Mlp : public torch::nn::Module {
 public:
  Mlp(int64_t dim, int64_t hidden, double dropout = 0.0);
  // Output dimension `out`.
  Mlp(int64_t dim, int64_t hidden, int64_t out, double dropout);
  at::Tensor Forward(const at::Tensor& x) const;

  std::shared_ptr<Linear> fc1, fc2;

 private:
  double dropout_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_NN_LAYERS_H_
