#include "tasks/codebook_semantics/patches.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "core/random/stream.h"
#include "core/util/file.h"

namespace semvq {
namespace {

// Of the picture, in pixels.
constexpr int kPiece = 72, kGap = 4, kTextWidth = 250, kLine = 18;

}  // namespace

PatchGrid GridOf(const at::Tensor& images, int64_t tokens) {
  const auto side =
      static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(tokens))));
  PatchGrid grid;
  grid.rows = side * side == tokens ? side : 1;
  grid.columns = tokens / grid.rows;
  grid.height = images.size(2) / grid.rows;
  grid.width = images.size(3) / grid.columns;
  return grid;
}

at::Tensor CutPatches(const at::Tensor& images, const PatchGrid& grid) {
  const int64_t channels = images.size(1);
  return images.narrow(2, 0, grid.rows * grid.height)
      .narrow(3, 0, grid.columns * grid.width)
      .reshape({-1, channels, grid.rows, grid.height, grid.columns, grid.width})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({-1, channels * grid.height * grid.width});
}

uint64_t PatchSample::Priority(int64_t number) const {
  return StreamKey(seed_, "codebook_semantics/sample", number);
}

bool PatchSample::Wants(int64_t number) const {
  return static_cast<int64_t>(heap_.size()) < size_ ||
         (size_ > 0 && Priority(number) < heap_.front().priority);
}

void PatchSample::Add(const at::Tensor& patches,
                      const std::vector<int64_t>& numbers) {
  if (numbers.empty()) return;
  const at::Tensor given = patches.contiguous();
  const int64_t dim = given.size(1);
  const auto most =
      std::min(size_, static_cast<int64_t>(heap_.size()) + given.size(0));
  if (!rows_.defined() || rows_.size(0) < most) {
    at::Tensor larger =
        at::empty({std::min(size_, 2 * most), dim}, given.options());
    if (rows_.defined()) larger.narrow(0, 0, rows_.size(0)).copy_(rows_);
    rows_ = larger;
  }
  float* kept = rows_.data_ptr<float>();
  const float* next = given.data_ptr<float>();
  for (int64_t i = 0; i < given.size(0); ++i) {
    Kept patch{Priority(numbers[i]), numbers[i],
               static_cast<int64_t>(heap_.size())};
    if (patch.row == size_) {
      if (!(patch < heap_.front())) continue;
      std::pop_heap(heap_.begin(), heap_.end());
      patch.row = heap_.back().row;
      heap_.pop_back();
    }
    heap_.push_back(patch);
    std::push_heap(heap_.begin(), heap_.end());
    std::copy_n(next + i * dim, dim, kept + patch.row * dim);
  }
}

at::Tensor PatchSample::Take() const {
  if (heap_.empty()) return at::empty({0, 0});
  std::vector<Kept> kept = heap_;
  std::sort(kept.begin(), kept.end(),
            [](const Kept& a, const Kept& b) { return a.number < b.number; });
  std::vector<int64_t> rows;
  for (const Kept& patch : kept) rows.push_back(patch.row);
  return rows_.index_select(0, torch::tensor(rows, at::kLong));
}

bool NearPatch::operator<(const NearPatch& other) const {
  return std::tie(distance, image, position) <
         std::tie(other.distance, other.image, other.position);
}

void NearestPatches::Add(int64_t code, const NearPatch& patch) {
  std::vector<NearPatch>& heap = heaps_[code];
  if (static_cast<int64_t>(heap.size()) == per_code_) {
    if (per_code_ == 0 || !(patch < heap.front())) return;
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
  }
  heap.push_back(patch);
  std::push_heap(heap.begin(), heap.end());
}

std::vector<NearPatch> NearestPatches::Of(int64_t code) const {
  const auto found = heaps_.find(code);
  if (found == heaps_.end()) return {};
  std::vector<NearPatch> patches = found->second;
  std::sort(patches.begin(), patches.end());
  return patches;
}

SheetRow::Piece CutPiece(const at::Tensor& image, const PatchGrid& grid,
                         int64_t position) {
  const int64_t row = position / grid.columns, column = position % grid.columns;
  const auto span = [](int64_t at, int64_t cells, int64_t size) {
    const int64_t begin = std::max<int64_t>(at - 1, 0) * size;
    return std::pair<int64_t, int64_t>(begin,
                                       std::min(at + 2, cells) * size - begin);
  };
  const auto [top, height] = span(row, grid.rows, grid.height);
  const auto [left, width] = span(column, grid.columns, grid.width);
  SheetRow::Piece piece;
  piece.pixels = image.narrow(1, top, height)
                     .narrow(2, left, width)
                     .to(at::kFloat)
                     .clone();
  piece.top = row * grid.height - top;
  piece.left = column * grid.width - left;
  piece.height = grid.height;
  piece.width = grid.width;
  return piece;
}

absl::Status WriteSheet(const std::vector<SheetRow>& rows,
                        const std::string& path) {
  at::Tensor low = at::full({3, 1, 1}, std::numeric_limits<float>::max());
  at::Tensor high = -low;
  size_t columns = 0;
  for (const SheetRow& row : rows) {
    columns = std::max(columns, row.pieces.size());
    for (const SheetRow::Piece& piece : row.pieces) {
      low = at::minimum(low, piece.pixels.amin({1, 2}, true));
      high = at::maximum(high, piece.pixels.amax({1, 2}, true));
    }
  }
  const at::Tensor range = (high - low).clamp_min(1e-6);
  cv::Mat sheet(kGap + static_cast<int>(rows.size()) * (kPiece + kGap),
                kTextWidth + static_cast<int>(columns) * (kPiece + kGap),
                CV_8UC3, cv::Scalar(255, 255, 255));
  for (size_t r = 0; r < rows.size(); ++r) {
    const int y = kGap + static_cast<int>(r) * (kPiece + kGap);
    const auto write = [&](const std::string& text, int line, double scale) {
      cv::putText(sheet, text, cv::Point(kGap, y + (line + 1) * kLine),
                  cv::FONT_HERSHEY_SIMPLEX, scale, cv::Scalar(0, 0, 0), 1,
                  cv::LINE_AA);
    };
    write(rows[r].title, 0, 0.45);
    // Words are broken into lines that fit beside the pieces.
    std::string line;
    int lines = 1;
    for (size_t at = 0; at < rows[r].text.size() && lines < 4;) {
      size_t end = rows[r].text.find(' ', at);
      if (end == std::string::npos) end = rows[r].text.size();
      const std::string word = rows[r].text.substr(at, end - at);
      if (!line.empty() && line.size() + 1 + word.size() > 30) {
        write(line, lines++, 0.45);
        line.clear();
      }
      absl::StrAppend(&line, line.empty() ? "" : " ", word);
      at = end + 1;
    }
    if (lines < 4) write(line, lines, 0.45);
    for (size_t p = 0; p < rows[r].pieces.size(); ++p) {
      const SheetRow::Piece& piece = rows[r].pieces[p];
      const at::Tensor bytes = ((piece.pixels - low) / range * 255)
                                   .round()
                                   .to(at::kByte)
                                   .flip({0})  // OpenCV's order is BGR.
                                   .permute({1, 2, 0})
                                   .contiguous();
      const cv::Mat small(static_cast<int>(bytes.size(0)),
                          static_cast<int>(bytes.size(1)), CV_8UC3,
                          bytes.data_ptr<uint8_t>());
      const double scale =
          static_cast<double>(kPiece) /
          static_cast<double>(std::max(small.rows, small.cols));
      cv::Mat large;
      cv::resize(small, large, cv::Size(), scale, scale, cv::INTER_NEAREST);
      const auto scaled = [scale](int64_t v) {
        return static_cast<int>(std::lround(static_cast<double>(v) * scale));
      };
      cv::rectangle(large,
                    cv::Rect(scaled(piece.left), scaled(piece.top),
                             scaled(piece.width), scaled(piece.height)),
                    cv::Scalar(0, 0, 255), 1);
      large.copyTo(sheet(cv::Rect(
          kTextWidth + static_cast<int>(p) * (kPiece + kGap), y,
          std::min(large.cols, kPiece), std::min(large.rows, kPiece))));
    }
  }
  std::vector<uint8_t> png;
  if (sheet.empty() || !cv::imencode(".png", sheet, png)) {
    return absl::InternalError(
        absl::StrCat("the picture ", path, " cannot be encoded"));
  }
  return AtomicWriteFile(
      path,
      absl::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
}

}  // namespace semvq
