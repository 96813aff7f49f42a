// The values that plugins exchange.
#ifndef SEMVQ_CORE_FORWARD_TYPES_H_
#define SEMVQ_CORE_FORWARD_TYPES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace semvq {

// Patch grid of an image; {0, 0} for text.
struct Grid {
  int64_t height = 0;
  int64_t width = 0;
};

// A sequence of token vectors. With `has_cls` position 0 is [CLS], so an image
// has 1 + height*width positions.
struct Tokens {
  at::Tensor values;  // float [B, T, D]
  at::Tensor
      mask;  // bool [B, T], true at real tokens; undefined: all are real.
  Grid grid;
  bool has_cls = false;
};

struct ImageInput {
  at::Tensor pixels;      // float [B, 3, H, W], normalised.
  at::Tensor patch_mask;  // bool [B, N], true where the patch is replaced by
                          // the mask token; undefined: none.
};

struct TextInput {
  at::Tensor ids;   // int64 [T, L]
  at::Tensor mask;  // bool [T, L]
};

// Scalar tensors by name; kept on the device so that no step waits for them.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What a quantizer returns: the ablation contract. Objectives read this and
// never a concrete quantizer.
struct Quantized {
  at::Tensor vectors;   // float [B, N, D]: forward value is the code's vector,
                        // gradient by the quantizer's estimator.
  at::Tensor codes;     // int64 [B, N, G], G groups; undefined when it has no
                        // codes. -1 at positions that are not valid, and all
                        // over a group left out of a training batch.
  NamedTensors losses;  // Unweighted scalars.
  std::optional<at::Tensor>
      assignment;  // Soft assignment q [B, N, K], where there is one.
  std::optional<at::Tensor> entropy;  // H(q) [B, N], where there is one.
  NamedTensors metrics;               // Scalars.
};

struct CodebookInfo {
  std::vector<int64_t> codes_per_group;  // Empty: no codes.
  int64_t dim = 0;
  bool has_codes = true;
  bool exact_lookup = true;  // Lookup(codes) equals the vectors' forward value.
  bool passes_gradient =
      true;                // The input receives a gradient through the vectors.
  bool idempotent = true;  // A vector, quantised again, gets its own code.
};

// The image mask drawn for a batch: the same number M of masked patches in
// every image.
struct ImageMask {
  at::Tensor mask;       // bool [B, N]
  at::Tensor positions;  // int64 [B, M], ascending; positions among the N
                         // patches ([CLS] not counted).
  at::Tensor valid;  // bool [B, M]; false where a position only fills up the
                     // fixed capacity. Undefined: all valid.
};

// A text batch with tokens hidden: capacity M positions a text.
struct TextMask {
  at::Tensor ids;        // int64 [T, L], corrupted.
  at::Tensor positions;  // int64 [T, M], positions of the tokens to predict; 0
                         // where not valid.
  at::Tensor targets;    // int64 [T, M], their original ids.
  at::Tensor valid;      // bool [T, M]
};

// Which text goes with which image; P pairs.
struct Pairing {
  at::Tensor text_index;   // int64 [P], rows of Batch::text_ids.
  at::Tensor image_index;  // int64 [P], rows of Batch::images.
  // Pairs of a text with several images, whatever the batch's image slots: for
  // each slot that the fusion encoder is to read int64 [P], rows of slot 0 of
  // Batch::images. Empty: image_index in every slot of the batch.
  std::vector<at::Tensor> slots{};
};

// Quantised tokens of one image slot as others see them.
struct QuantizedTokens {
  Quantized quantized;  // In the codebook's dimension, patches only ([CLS] is
                        // never quantised).
  at::Tensor tokens;    // float [B, N, D]: the vectors projected back to the
                        // image encoder's dimension.
  at::Tensor
      features;  // float [B, N, d]: what was quantised (projected, normalised).
};

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_TYPES_H_
