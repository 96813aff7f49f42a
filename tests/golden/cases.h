// What is compared with the public peers: each case takes tensors that a Python
// script made and returns what SemVQ computes from them. The committed fixtures
// (golden_test) and the live checks of tests/parity (through golden_dump) run
// the same functions.
#ifndef SEMVQ_TESTS_GOLDEN_CASES_H_
#define SEMVQ_TESTS_GOLDEN_CASES_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"

namespace semvq {

using Tensors = std::map<std::string, at::Tensor>;

// Runs a case by its name, one of CaseNames(). InvalidArgument for other names
// and for an input that is missing; c10::Error for one of a wrong shape.
absl::StatusOr<Tensors> RunCase(const std::string& name, const Tensors& in);
const std::vector<std::string>& CaseNames();

// `image` uint8 [H, W, 3]:
//   resize    [R, 2] of (height, width)       -> resize/<r>
//   ops       [M, 2] of (AugmentOp, value)    -> photometric/<m> or
//   geometric/<m> crops     [C, 7] of (stream key, size, min_scale, max_scale,
//   min_ratio,
//             max_ratio, flip)                -> crop/<c> float32, unnormalised
//   randaugment [K, 3] of (stream key, operations, magnitude)
//                                             -> randaugment/<k>
absl::StatusOr<Tensors> RunImages(const Tensors& in);

// Image-text contrast over S steps, float64, with teacher and queues of Q > 0.
//   param/<p>, teacher/<p>: ItcConfig's parameters; image_queue, text_queue:
//   their start; settings: (alpha, alpha_ramp_steps, first step)
//   <s>/image, <s>/text, <s>/teacher_image, <s>/teacher_text: token vectors
//   <s>/ids int64 [B], <s>/text_to_image int64 [T]
// -> <s>/loss, <s>/grad/{image,text,<p>}, <s>/{image,text}_queue after the
// step,
//    <s>/temperature after the step
absl::StatusOr<Tensors> RunItc(const Tensors& in);

// Image-text matching of given pairs: fused [P, L, D], param/head.*, ids,
// text_to_image, text_index, image_index -> loss, grad/{fused,<p>}
absl::StatusOr<Tensors> RunItm(const Tensors& in);

// Masked language modelling of a given mask: fused, teacher_fused [T, L, D],
// param/<p>, teacher/<p>, positions, targets, valid [T, M], settings as RunItc
// -> loss, grad/{fused,<p>}
absl::StatusOr<Tensors> RunMlm(const Tensors& in);

// AdamW over S steps: param/<name>, grad/<name> [S, ...] (steps whose entries
// are NaN have no gradient), config (lr, beta1, beta2, eps, weight_decay,
// clip_norm, warmup_steps, warmup_lr, min_lr, total_steps). Parameters called
// slow.* have a tenth of the rate, fresh.* a decay of 0.3.
// -> param/<name> [S, ...] after each step, norm [S], lr [S]
absl::StatusOr<Tensors> RunOptimizer(const Tensors& in);

// One optimised step of a whole small model (kTinyExperiment), float64.
//   param/<name>, teacher/<name>: every parameter and the buffers that matter;
//   images [B, 1, 3, S, S], text_ids, text_mask, text_to_image, ids
//   choice/<name>: the random choices; drawn where they are not given.
//   alternatives: there (any value) for gated tokens, cosine codes with the
//   rotation trick, MIM fused with text, and other choices of the configs
// int8 tensors hold multiples of 1 / 64.
// -> loss/<name>, total, grad/<name>, choice/<name>, codes, teacher_codes
absl::StatusOr<Tensors> RunModelStep(const Tensors& in);

// S optimizer steps of that model by the Trainer, float32: param/<name> as
// above, images [S, B, ...] and so on with a leading S
// -> <s>/loss/<name>, <s>/total, <s>/choice/<name>, <s>/codes,
//    <s>/teacher_codes, param/<name> at the end
absl::StatusOr<Tensors> RunModelCurve(const Tensors& in);

// The input called `name`; int8 ones as float64 multiples of 1 / 64.
absl::StatusOr<at::Tensor> Input(const Tensors& in, const std::string& name);

// A WordPiece tokenizer of `size` entries, the special ones first, in the order
// [PAD] [UNK] [CLS] [SEP] [MASK].
absl::StatusOr<std::unique_ptr<Tokenizer>> SizedTokenizer(int64_t size);

// The safetensors file at `path`, all of it.
absl::StatusOr<Tensors> ReadTensors(const std::string& path);

}  // namespace semvq

#endif  // SEMVQ_TESTS_GOLDEN_CASES_H_
