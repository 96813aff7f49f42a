#ifndef SEMVQ_CORE_METRICS_TENSORBOARD_H_
#define SEMVQ_CORE_METRICS_TENSORBOARD_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/metrics/metric_log.h"
#include "core/util/file.h"

namespace semvq {

namespace tensorboard {
class Event;
class Histogram;
}  // namespace tensorboard

// CRC-32C rotated and offset, as TFRecord files carry it.
uint32_t MaskedCrc32c(absl::string_view data);

// One TFRecord: length, its CRC, the data, its CRC.
std::string FrameTfRecord(absl::string_view data);

// Counts values in buckets whose limits grow by 10 %, as TensorBoard does, and
// leaves empty buckets at either end out. Values that are not finite are left
// out.
tensorboard::Histogram MakeHistogram(absl::Span<const float> values);

// Of the numbers 0, 1, ..., of which i occurs counts[i] times: at most 256
// buckets of equal width. Counts are finite and not negative.
tensorboard::Histogram MakeIndexHistogram(absl::Span<const float> counts);

// Writes one event file into a TensorBoard log folder. Each call reaches the
// kernel before it returns.
class TensorBoardWriter {
 public:
  // A new file in `folder`, which is made if needed. After a resume from
  // step s, `first_step` is s+1: TensorBoard then drops what earlier files have
  // from there on.
  static absl::StatusOr<std::unique_ptr<TensorBoardWriter>> Create(
      const std::string& folder, int64_t first_step = 0);

  absl::Status Scalars(int64_t step, const MetricValues& values);
  absl::Status HistogramOf(int64_t step, absl::string_view tag,
                           absl::Span<const float> values);
  // MakeIndexHistogram: which codes a step used.
  absl::Status IndexHistogramOf(int64_t step, absl::string_view tag,
                                absl::Span<const float> counts);
  // `png` is a PNG file; its size and channels are read from its header.
  absl::Status Image(int64_t step, absl::string_view tag,
                     absl::string_view png);

  const std::string& path() const { return file_->path(); }

 private:
  explicit TensorBoardWriter(std::unique_ptr<FileWriter> file)
      : file_(std::move(file)) {}

  absl::Status Write(int64_t step, tensorboard::Event* event);
  absl::Status WriteHistogram(int64_t step, absl::string_view tag,
                              tensorboard::Histogram histogram);

  std::unique_ptr<FileWriter> file_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_METRICS_TENSORBOARD_H_
