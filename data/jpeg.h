// JPEG by libjpeg-turbo, straight into a tensor.
#ifndef SEMVQ_DATA_JPEG_H_
#define SEMVQ_DATA_JPEG_H_

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// A JPEG of one or three components as uint8 [H, W, 3], RGB, contiguous;
// `denominator` (1, 2, 4 or 8) is the scale, sides are rounded up. `bytes` must
// have passed InspectImage, and its size the caller's limits. InvalidArgument
// for data that libjpeg refuses, and for more than 500 scans: a few kilobytes
// of progressive scans can cost minutes. Thread-safe.
absl::StatusOr<at::Tensor> DecodeJpeg(absl::string_view bytes, int denominator);

}  // namespace semvq

#endif  // SEMVQ_DATA_JPEG_H_
