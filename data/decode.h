// Image files to RGB pixels.
#ifndef SEMVQ_DATA_DECODE_H_
#define SEMVQ_DATA_DECODE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/image_bytes.h"

namespace semvq {

// No side of an image may be longer; also JPEG's own limit, nearly.
constexpr int64_t kMaxImageSide = 65500;

// Decodes a PNG, JPEG or WebP file to uint8 [H, W, 3], RGB, contiguous: 16-bit
// samples are rounded to 8 bits, grey is repeated, CMYK and palettes are
// converted, alpha is composited on white. EXIF orientation is ignored, as
// Pillow and with it ALBEF do.
//
// `needed_side` > 0 lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size as
// long as both sides stay at least that long: several times faster, slightly
// different pixels; for training only. 0: full size.
//
// NotFound when there is no such file. InvalidArgument for more than
// `max_bytes` bytes, of which none is read; from the header and before any
// pixel is decoded, for more than `max_pixels` pixels or a side above
// kMaxImageSide; and for empty, cut-off, damaged and other files. (OpenCV's own
// limit is an environment variable that it reads while it is loaded, too early
// for us to set.) Messages start with the path. Thread-safe. A complete JPEG
// whose entropy-coded data is damaged still gives an image, as in Pillow.
absl::StatusOr<at::Tensor> DecodeImageFile(const std::string& path,
                                           int64_t max_pixels,
                                           int64_t needed_side = 0,
                                           int64_t max_bytes = kMaxImageBytes);

// The same for bytes in memory; messages do not name a file.
absl::StatusOr<at::Tensor> DecodeImage(absl::string_view bytes,
                                       int64_t max_pixels,
                                       int64_t needed_side = 0);

}  // namespace semvq

#endif  // SEMVQ_DATA_DECODE_H_
