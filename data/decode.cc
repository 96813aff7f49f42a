#include "data/decode.h"

#include <algorithm>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "absl/strings/str_cat.h"
#include "data/image_bytes.h"
#include "data/image_file.h"
#include "data/jpeg.h"
#include "data/recycled_memory.h"

namespace semvq {
namespace {

int IgnoreCvError(int, const char*, const char*, const char*, int, void*) {
  return 0;
}

// Loader threads are the parallelism; errors come back as statuses, not on
// stderr.
void SetUpOpenCv() {
  static const bool done = [] {
    cv::setNumThreads(0);
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    cv::redirectError(IgnoreCvError);
    return true;
  }();
  (void)done;
}

// The scale that a JPEG may be decoded at: 1, 2, 4 or 8.
int JpegDenominator(const ImageInfo& info, int64_t needed_side) {
  const int64_t side = std::min(info.width, info.height);
  int denominator = 1;
  while (needed_side > 0 && denominator < 8 &&
         side / (2 * denominator) >= needed_side) {
    denominator *= 2;
  }
  return denominator;
}

int CvFlags(const ImageInfo& info, int64_t needed_side) {
  if (info.format != ImageFormat::kJpeg) return cv::IMREAD_UNCHANGED;
  constexpr int kFlags[] = {0,
                            cv::IMREAD_COLOR,
                            cv::IMREAD_REDUCED_COLOR_2,
                            0,
                            cv::IMREAD_REDUCED_COLOR_4,
                            0,
                            0,
                            0,
                            cv::IMREAD_REDUCED_COLOR_8};
  return kFlags[JpegDenominator(info, needed_side)] |
         cv::IMREAD_IGNORE_ORIENTATION;
}

// BGRA to RGB over white, rounded.
void CompositeOnWhite(const cv::Mat& bgra, uint8_t* rgb) {
  for (int y = 0; y < bgra.rows; ++y) {
    const uint8_t* p = bgra.ptr<uint8_t>(y);
    for (int x = 0; x < bgra.cols; ++x, p += 4, rgb += 3) {
      const int alpha = p[3], white = 255 * (255 - alpha) + 127;
      rgb[0] = static_cast<uint8_t>((p[2] * alpha + white) / 255);
      rgb[1] = static_cast<uint8_t>((p[1] * alpha + white) / 255);
      rgb[2] = static_cast<uint8_t>((p[0] * alpha + white) / 255);
    }
  }
}

}  // namespace

absl::StatusOr<at::Tensor> DecodeImage(absl::string_view bytes,
                                       int64_t max_pixels,
                                       int64_t needed_side) {
  SetUpOpenCv();
  absl::StatusOr<ImageInfo> info = InspectImage(bytes);
  if (!info.ok()) return info.status();
  if (info->width > kMaxImageSide || info->height > kMaxImageSide ||
      info->width > max_pixels / info->height) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the image is too large: got ", info->width, " x ", info->height,
        ", expected at most data.max_pixels = ", max_pixels,
        " pixels and sides of at most ", kMaxImageSide));
  }
  if (info->format == ImageFormat::kJpeg && info->channels != 4)
    return DecodeJpeg(bytes, JpegDenominator(*info, needed_side));
  std::string stripped;
  if (info->format == ImageFormat::kPng) {
    stripped = StripPng(bytes);
    bytes = stripped;
  }
  cv::Mat image;
  try {
    // imdecode only reads the buffer, but its type has no const.
    const cv::Mat buffer(1, static_cast<int>(bytes.size()), CV_8UC1,
                         const_cast<char*>(bytes.data()));
    image = cv::imdecode(buffer, CvFlags(*info, needed_side));
    if (!image.empty() && image.depth() == CV_16U)
      image.convertTo(image, CV_8U, 1.0 / 257.0);
    if (image.empty())
      return absl::InvalidArgumentError(
          "the pixel data is damaged: OpenCV cannot decode it");
    if (image.depth() != CV_8U ||
        (image.channels() != 1 && image.channels() != 3 &&
         image.channels() != 4)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "got ", image.channels(), " channels of type ", image.depth(),
          ", expected 8- or 16-bit grey, RGB or RGBA"));
    }
    at::Tensor rgb = LendPixels(image.rows, image.cols);
    cv::Mat out(image.rows, image.cols, CV_8UC3, rgb.data_ptr<uint8_t>());
    if (image.channels() == 4) {
      CompositeOnWhite(image, rgb.data_ptr<uint8_t>());
    } else {
      cv::cvtColor(
          image, out,
          image.channels() == 1 ? cv::COLOR_GRAY2RGB : cv::COLOR_BGR2RGB);
    }
    return rgb;
  } catch (const cv::Exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pixel data is damaged: OpenCV says ", e.err));
  }
}

absl::StatusOr<at::Tensor> DecodeImageFile(const std::string& path,
                                           int64_t max_pixels,
                                           int64_t needed_side,
                                           int64_t max_bytes) {
  absl::StatusOr<std::string> bytes = ReadImageFile(path, max_bytes);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<at::Tensor> image =
      DecodeImage(*bytes, max_pixels, needed_side);
  if (!image.ok())
    return absl::Status(image.status().code(),
                        absl::StrCat(path, ": ", image.status().message()));
  return image;
}

}  // namespace semvq
