#include "tasks/grounding/heat_map.h"

#include <algorithm>
#include <cmath>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "absl/strings/str_cat.h"
#include "core/util/file.h"

namespace semvq {
namespace {

constexpr int kShortestSide = 256, kLongestSide = 1024, kStrip = 24;

// The model's view of the image, stretched to `size`, 8-bit BGR.
cv::Mat Picture(const HeatMap& heat_map, const cv::Size& size) {
  const int side = static_cast<int>(heat_map.side);
  cv::Mat image(side, side, CV_8UC3);
  const size_t plane = static_cast<size_t>(side) * side;
  for (int y = 0; y < side; ++y) {
    for (int x = 0; x < side; ++x) {
      cv::Vec3b& pixel = image.at<cv::Vec3b>(y, x);
      for (int c = 0; c < 3; ++c) {
        const float value = heat_map.pixels[(2 - c) * plane + y * side + x];
        pixel[c] = cv::saturate_cast<uchar>(255.0f * value);
      }
    }
  }
  cv::Mat stretched;
  cv::resize(image, stretched, size, 0, 0, cv::INTER_LINEAR);
  return stretched;
}

}  // namespace

absl::Status WriteHeatMap(const HeatMap& heat_map, const std::string& path) {
  const double width = static_cast<double>(heat_map.map.width);
  const double height = static_cast<double>(heat_map.map.height);
  // Small images are magnified until boxes and text can be seen.
  const double scale =
      std::min(std::max(1.0, kShortestSide / std::min(width, height)),
               kLongestSide / std::max(width, height));
  const cv::Size size(
      std::max(1, static_cast<int>(std::lround(width * scale))),
      std::max(1, static_cast<int>(std::lround(height * scale))));
  cv::Mat image = Picture(heat_map, size);

  const cv::Mat map(static_cast<int>(heat_map.map.height),
                    static_cast<int>(heat_map.map.width), CV_64F,
                    const_cast<double*>(heat_map.map.values));
  double largest = 0;
  cv::minMaxLoc(map, nullptr, &largest);
  cv::Mat share;  // Of the largest value, 0 to 1: bicubic maps dip below 0.
  cv::resize(largest > 0 ? cv::Mat(cv::max(map / largest, 0.0))
                         : cv::Mat::zeros(map.size(), CV_64F),
             share, size, 0, 0, cv::INTER_LINEAR);
  cv::Mat levels, colors;
  share.convertTo(levels, CV_8U, 255);
  cv::applyColorMap(levels, colors, cv::COLORMAP_JET);
  for (int y = 0; y < size.height; ++y) {
    for (int x = 0; x < size.width; ++x) {
      const double weight = 0.6 * std::min(1.0, share.at<double>(y, x));
      cv::Vec3b& pixel = image.at<cv::Vec3b>(y, x);
      for (int c = 0; c < 3; ++c) {
        pixel[c] = cv::saturate_cast<uchar>(
            (1 - weight) * pixel[c] + weight * colors.at<cv::Vec3b>(y, x)[c]);
      }
    }
  }

  const auto draw = [&](const Box& box, const cv::Scalar& color) {
    cv::rectangle(image,
                  cv::Rect2d(box.x * scale, box.y * scale, box.width * scale,
                             box.height * scale),
                  color, 2);
  };
  draw(heat_map.truth, {0, 200, 0});
  if (heat_map.chosen != nullptr) draw(*heat_map.chosen, {0, 0, 255});
  const cv::Point2d maximum((heat_map.maximum.x + 0.5) * scale,
                            (heat_map.maximum.y + 0.5) * scale);
  cv::circle(image, maximum, 6, {255, 255, 255}, 2);

  cv::Mat picture;
  cv::copyMakeBorder(image, picture, 0, kStrip, 0, 0, cv::BORDER_CONSTANT,
                     {255, 255, 255});
  cv::putText(picture, heat_map.text, {4, size.height + 17},
              cv::FONT_HERSHEY_SIMPLEX, 0.45, {0, 0, 0}, 1, cv::LINE_AA);
  std::vector<uchar> png;
  if (!cv::imencode(".png", picture, png))
    return absl::InternalError(absl::StrCat(path, ": cannot be encoded"));
  return AtomicWriteFile(
      path,
      absl::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
}

}  // namespace semvq
