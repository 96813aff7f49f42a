#include "tools/data/picture.h"

#include <png.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace semvq::tools {
namespace {

// Source pixels that one target pixel covers along one axis, with the share of
// each that it covers.
struct Span {
  int first;
  std::vector<float> weights;
};

std::vector<Span> AreaSpans(int from, int to) {
  std::vector<Span> spans(to);
  const double scale = static_cast<double>(from) / to;
  for (int i = 0; i < to; ++i) {
    const double begin = i * scale, end = std::min((i + 1) * scale, 1.0 * from);
    spans[i].first = static_cast<int>(begin);
    for (int s = spans[i].first; s < end; ++s) {
      spans[i].weights.push_back(static_cast<float>(std::min(end, s + 1.0) -
                                                    std::max(begin, 1.0 * s)));
    }
  }
  return spans;
}

size_t At(const Picture& picture, int x, int y) {
  return 4 * (static_cast<size_t>(y) * picture.width + x);
}

struct PngImage {
  png_image image{};
  PngImage() { image.version = PNG_IMAGE_VERSION; }
  ~PngImage() { png_image_free(&image); }
  absl::Status Error(absl::string_view doing) const {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot ", doing, " the PNG: ", image.message));
  }
};

}  // namespace

Picture::Picture(int width, int height, uint8_t red, uint8_t green,
                 uint8_t blue)
    : width(width), height(height), rgba(size_t{4} * width * height, 255) {
  for (size_t i = 0; i < rgba.size(); i += 4) {
    rgba[i] = red;
    rgba[i + 1] = green;
    rgba[i + 2] = blue;
  }
}

double Iou(const Box& a, const Box& b) {
  const int w = std::min(a.x + a.w, b.x + b.w) - std::max(a.x, b.x);
  const int h = std::min(a.y + a.h, b.y + b.h) - std::max(a.y, b.y);
  if (w <= 0 || h <= 0) return 0;
  const double both = static_cast<double>(w) * h;
  return both / (static_cast<double>(a.w) * a.h +
                 static_cast<double>(b.w) * b.h - both);
}

absl::Status PngSize(absl::string_view bytes, int* width, int* height) {
  PngImage in;
  if (!png_image_begin_read_from_memory(&in.image, bytes.data(),
                                        bytes.size())) {
    return in.Error("read");
  }
  *width = static_cast<int>(in.image.width);
  *height = static_cast<int>(in.image.height);
  return absl::OkStatus();
}

absl::StatusOr<Picture> DecodePng(absl::string_view bytes) {
  PngImage in;
  if (!png_image_begin_read_from_memory(&in.image, bytes.data(),
                                        bytes.size())) {
    return in.Error("read");
  }
  Picture picture;
  picture.width = static_cast<int>(in.image.width);
  picture.height = static_cast<int>(in.image.height);
  constexpr int kMaxPixelSide = 20000;
  if (std::max(picture.width, picture.height) > kMaxPixelSide) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the PNG is ", picture.width, "x", picture.height,
        " pixels; expected at most ", kMaxPixelSide, " on a side"));
  }
  in.image.format = PNG_FORMAT_RGBA;
  picture.rgba.resize(PNG_IMAGE_SIZE(in.image));
  if (!png_image_finish_read(&in.image, nullptr, picture.rgba.data(), 0,
                             nullptr)) {
    return in.Error("decode");
  }
  return picture;
}

absl::StatusOr<std::string> EncodePng(const Picture& picture, bool opaque) {
  PngImage out;
  out.image.width = picture.width;
  out.image.height = picture.height;
  out.image.format = opaque ? PNG_FORMAT_RGB : PNG_FORMAT_RGBA;
  std::vector<uint8_t> rgb;
  if (opaque) {
    rgb.reserve(picture.rgba.size() / 4 * 3);
    for (size_t i = 0; i < picture.rgba.size(); i += 4) {
      rgb.insert(rgb.end(), &picture.rgba[i], &picture.rgba[i] + 3);
    }
  }
  const uint8_t* pixels = opaque ? rgb.data() : picture.rgba.data();
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(out.image);
  std::string encoded(size, '\0');
  if (!png_image_write_to_memory(&out.image, encoded.data(), &size, 0, pixels,
                                 0, nullptr)) {
    return out.Error("encode");
  }
  encoded.resize(size);
  return encoded;
}

Picture Reduce(const Picture& picture, int width, int height) {
  const auto columns = AreaSpans(picture.width, width);
  const auto rows = AreaSpans(picture.height, height);
  Picture out;
  out.width = width;
  out.height = height;
  out.rgba.resize(size_t{4} * width * height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      double color[3] = {0, 0, 0}, alpha = 0, area = 0;
      for (size_t v = 0; v < rows[y].weights.size(); ++v) {
        for (size_t u = 0; u < columns[x].weights.size(); ++u) {
          const double weight = rows[y].weights[v] * columns[x].weights[u];
          const uint8_t* p =
              &picture.rgba[At(picture, columns[x].first + static_cast<int>(u),
                               rows[y].first + static_cast<int>(v))];
          for (int c = 0; c < 3; ++c) color[c] += weight * p[3] * p[c];
          alpha += weight * p[3];
          area += weight;
        }
      }
      uint8_t* q = &out.rgba[At(out, x, y)];
      for (int c = 0; c < 3; ++c) {
        q[c] = alpha > 0 ? static_cast<uint8_t>(color[c] / alpha + 0.5) : 0;
      }
      q[3] = static_cast<uint8_t>(alpha / area + 0.5);
    }
  }
  return out;
}

void Paste(const Picture& top, int x, int y, Picture* canvas) {
  for (int v = 0; v < top.height; ++v) {
    for (int u = 0; u < top.width; ++u) {
      if (x + u < 0 || y + v < 0 || x + u >= canvas->width ||
          y + v >= canvas->height) {
        continue;
      }
      const uint8_t* p = &top.rgba[At(top, u, v)];
      uint8_t* q = &canvas->rgba[At(*canvas, x + u, y + v)];
      for (int c = 0; c < 3; ++c) {
        q[c] = static_cast<uint8_t>((p[c] * p[3] + q[c] * (255 - p[3]) + 127) /
                                    255);
      }
      q[3] = std::max(q[3], p[3]);
    }
  }
}

Box VisibleBox(const Picture& picture) {
  constexpr uint8_t kVisible = 32;
  int left = picture.width, top = picture.height, right = -1, bottom = -1;
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < picture.width; ++x) {
      if (picture.rgba[At(picture, x, y) + 3] < kVisible) continue;
      left = std::min(left, x);
      right = std::max(right, x);
      top = std::min(top, y);
      bottom = y;
    }
  }
  if (right < 0) return {};
  return {left, top, right - left + 1, bottom - top + 1};
}

}  // namespace semvq::tools
