// Pixels of the pictures that the tool makes or makes smaller.
#ifndef SEMVQ_TOOLS_DATA_PICTURE_H_
#define SEMVQ_TOOLS_DATA_PICTURE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq::tools {

struct Picture {
  Picture() = default;
  // All of one colour, opaque.
  Picture(int width, int height, uint8_t red, uint8_t green, uint8_t blue);

  int width = 0, height = 0;
  std::vector<uint8_t> rgba;  // Rows from the top, 4 bytes a pixel.
};

// Left, top, width, height, in pixels.
struct Box {
  int x = 0, y = 0, w = 0, h = 0;
};

// Intersection over union of the areas.
double Iou(const Box& a, const Box& b);

absl::StatusOr<Picture> DecodePng(absl::string_view bytes);
// Without alpha, if `opaque`.
absl::StatusOr<std::string> EncodePng(const Picture& picture, bool opaque);

// The size of a PNG by its header. InvalidArgument if it is none.
absl::Status PngSize(absl::string_view bytes, int* width, int* height);

// Each new pixel is the mean of the area it covers, colours weighted by alpha.
Picture Reduce(const Picture& picture, int width, int height);

// Lays `top` over `canvas`, its corner at (x, y); what stands out is cut off.
void Paste(const Picture& top, int x, int y, Picture* canvas);

// What is not nearly transparent. Empty if nothing is.
Box VisibleBox(const Picture& picture);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_PICTURE_H_
