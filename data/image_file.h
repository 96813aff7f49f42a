// What an image file says of itself before it is decoded. A header may claim
// any size, and a cut-off file decodes to half an image without a word, so both
// are checked here, on the bytes.
#ifndef SEMVQ_DATA_IMAGE_FILE_H_
#define SEMVQ_DATA_IMAGE_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

enum class ImageFormat { kPng, kJpeg, kWebp };

struct ImageInfo {
  ImageFormat format = ImageFormat::kPng;
  int64_t width = 0, height = 0;  // Pixels; at least 1.
  int channels = 0;               // JPEG only: components of the frame.
};

// Reads the header of a PNG, JPEG or WebP and checks that the file is complete
// (PNG: every chunk with its checksum; JPEG: every segment up to the end
// marker; WebP: the length). InvalidArgument says what was found instead: an
// empty file, another format, HTML, the place where it is cut off. Pixel data
// is not decoded.
absl::StatusOr<ImageInfo> InspectImage(absl::string_view bytes);

// A PNG's bytes without its ancillary chunks, but transparency: they change no
// pixel here, and libpng prints a warning for many of them (colour profiles
// above all). `bytes` must have passed InspectImage.
std::string StripPng(absl::string_view bytes);

}  // namespace semvq

#endif  // SEMVQ_DATA_IMAGE_FILE_H_
