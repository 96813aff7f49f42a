// Image files. A PNG's checksums are made right in a second try, or nothing
// behind them would ever be reached.
#include <ATen/core/Tensor.h>
#include <isa-l/crc.h>

#include <algorithm>

#include "data/decode.h"
#include "data/image_file.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace semvq;  // NOLINT: no header.

constexpr int64_t kMaxPixels = 1 << 18;

uint32_t BigEndian(const std::string& s, size_t at) {
  uint32_t value = 0;
  for (size_t i = at; i < at + 4; ++i) {
    value = value << 8 | static_cast<unsigned char>(s[i]);
  }
  return value;
}

std::string WithChecksums(absl::string_view png) {
  std::string out(png);
  for (size_t at = 8; at + 12 <= out.size();) {
    const size_t length = BigEndian(out, at);
    if (length > out.size() - at - 12) break;
    const uint32_t crc = crc32_gzip_refl(
        0, reinterpret_cast<const unsigned char*>(out.data()) + at + 4,
        length + 4);
    for (int i = 0; i < 4; ++i) {
      out[at + 8 + length + i] = static_cast<char>(crc >> (24 - 8 * i));
    }
    at += 12 + length;
  }
  return out;
}

void Decode(absl::string_view bytes, int64_t needed_side) {
  const auto info = InspectImage(bytes);
  const auto image = DecodeImage(bytes, kMaxPixels, needed_side);
  if (!image.ok()) {
    FUZZ_CHECK(!image.status().message().empty());
    return;
  }
  FUZZ_CHECK(info.ok());
  FUZZ_CHECK(info->width <= kMaxPixels / info->height);
  FUZZ_CHECK(image->scalar_type() == at::kByte && image->is_contiguous());
  FUZZ_CHECK(image->dim() == 3 && image->size(2) == 3);
  const int64_t height = image->size(0), width = image->size(1);
  if (needed_side == 0) {
    FUZZ_CHECK(height == info->height && width == info->width);
  } else {
    FUZZ_CHECK(height <= info->height && width <= info->width);
    FUZZ_CHECK(std::min(height, width) >=
               std::min({needed_side, info->height, info->width}));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input = fuzz::Bytes(data, size);
  Decode(input, 0);
  Decode(input, 4);
  if (input.substr(0, 4) == "\x89PNG") Decode(WithChecksums(input), 0);
  return 0;
}
