#include "core/metrics/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/metrics/tensorboard.pb.h"
#include "core/util/hash.h"

namespace semvq {
namespace {

void AppendLittleEndian(uint64_t value, int bytes, std::string* out) {
  for (int i = 0; i < bytes; ++i) {
    out->push_back(static_cast<char>(value >> (8 * i)));
  }
}

uint32_t BigEndian32(absl::string_view bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

// Upper limits of the buckets, ascending; the last holds everything.
const std::vector<double>& BucketLimits() {
  static const auto* limits = [] {
    std::vector<double> positive;
    for (double v = 1e-12; v < 1e20; v *= 1.1) positive.push_back(v);
    auto* all = new std::vector<double>;
    for (auto v = positive.rbegin(); v != positive.rend(); ++v) {
      all->push_back(-*v);
    }
    all->push_back(0);
    all->insert(all->end(), positive.begin(), positive.end());
    all->push_back(std::numeric_limits<double>::max());
    return all;
  }();
  return *limits;
}

}  // namespace

uint32_t MaskedCrc32c(absl::string_view data) {
  const uint32_t crc = Crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

std::string FrameTfRecord(absl::string_view data) {
  std::string out;
  out.reserve(data.size() + 16);
  AppendLittleEndian(data.size(), 8, &out);
  AppendLittleEndian(MaskedCrc32c(out), 4, &out);
  absl::StrAppend(&out, data);
  AppendLittleEndian(MaskedCrc32c(data), 4, &out);
  return out;
}

tensorboard::Histogram MakeHistogram(absl::Span<const float> values) {
  const std::vector<double>& limits = BucketLimits();
  std::vector<double> counts(limits.size(), 0);
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  double num = 0, sum = 0, squares = 0;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    const size_t bucket =
        std::lower_bound(limits.begin(), limits.end(), value) - limits.begin();
    ++counts[bucket];
    ++num;
    sum += value;
    squares += value * value;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  tensorboard::Histogram histogram;
  histogram.set_min(num > 0 ? low : 0);
  histogram.set_max(num > 0 ? high : 0);
  histogram.set_num(num);
  histogram.set_sum(sum);
  histogram.set_sum_squares(squares);
  size_t first = 0, last = counts.size();
  while (first < last && counts[first] == 0) ++first;
  while (last > first && counts[last - 1] == 0) --last;
  // The limit below the first bucket is its lower edge.
  if (first > 0 && first < last) --first;
  for (size_t i = first; i < last; ++i) {
    histogram.add_bucket_limit(limits[i]);
    histogram.add_bucket(counts[i]);
  }
  if (first == last) {  // TensorBoard wants one bucket at least
    histogram.add_bucket_limit(0);
    histogram.add_bucket(0);
  }
  return histogram;
}

tensorboard::Histogram MakeIndexHistogram(absl::Span<const float> counts) {
  constexpr size_t kMostBuckets = 256;
  const size_t width = (counts.size() + kMostBuckets - 1) / kMostBuckets;
  tensorboard::Histogram histogram;
  // Between the numbers. The first limit is the first bucket's lower edge.
  histogram.add_bucket_limit(-0.5);
  histogram.add_bucket(0);
  double low = -1, high = 0, num = 0, sum = 0, squares = 0;
  for (size_t begin = 0; begin < counts.size(); begin += width) {
    const size_t end = std::min(begin + width, counts.size());
    double in_bucket = 0;
    for (size_t i = begin; i < end; ++i) {
      const double index = static_cast<double>(i), count = counts[i];
      if (count == 0) continue;
      if (low < 0) low = index;
      high = index;
      in_bucket += count;
      sum += count * index;
      squares += count * index * index;
    }
    num += in_bucket;
    histogram.add_bucket_limit(static_cast<double>(end) - 0.5);
    histogram.add_bucket(in_bucket);
  }
  histogram.set_min(std::max(low, 0.0));
  histogram.set_max(high);
  histogram.set_num(num);
  histogram.set_sum(sum);
  histogram.set_sum_squares(squares);
  return histogram;
}

absl::StatusOr<std::unique_ptr<TensorBoardWriter>> TensorBoardWriter::Create(
    const std::string& folder, int64_t first_step) {
  if (absl::Status s = MakeDirectories(folder); !s.ok()) return s;
  char host[256] = "host";
  gethostname(host, sizeof(host) - 1);
  // TensorBoard reads files in the order of their names; microseconds keep a
  // quick restart after its predecessor.
  const std::string name = absl::StrFormat("events.out.tfevents.%017.6f.%s.%d",
                                           WallTime(), host, getpid());
  auto file = FileWriter::Create(JoinPath(folder, name));
  if (!file.ok()) return file.status();
  std::unique_ptr<TensorBoardWriter> writer(
      new TensorBoardWriter(*std::move(file)));
  tensorboard::Event version;
  version.set_file_version("brain.Event:2");
  if (absl::Status s = writer->Write(0, &version); !s.ok()) return s;
  if (first_step > 0) {
    tensorboard::Event start;
    start.mutable_session_log()->set_status(tensorboard::SessionLog::START);
    if (absl::Status s = writer->Write(first_step, &start); !s.ok()) return s;
  }
  return writer;
}

absl::Status TensorBoardWriter::Write(int64_t step, tensorboard::Event* event) {
  event->set_wall_time(WallTime());
  event->set_step(step);
  return file_->Write(FrameTfRecord(event->SerializeAsString()));
}

absl::Status TensorBoardWriter::Scalars(int64_t step,
                                        const MetricValues& values) {
  tensorboard::Event event;
  for (const auto& [tag, value] : values) {
    auto* entry = event.mutable_summary()->add_value();
    entry->set_tag(tag);
    entry->set_simple_value(static_cast<float>(value));
  }
  return Write(step, &event);
}

absl::Status TensorBoardWriter::WriteHistogram(
    int64_t step, absl::string_view tag, tensorboard::Histogram histogram) {
  tensorboard::Event event;
  auto* entry = event.mutable_summary()->add_value();
  entry->set_tag(std::string(tag));
  *entry->mutable_histo() = std::move(histogram);
  return Write(step, &event);
}

absl::Status TensorBoardWriter::HistogramOf(int64_t step, absl::string_view tag,
                                            absl::Span<const float> values) {
  return WriteHistogram(step, tag, MakeHistogram(values));
}

absl::Status TensorBoardWriter::IndexHistogramOf(
    int64_t step, absl::string_view tag, absl::Span<const float> counts) {
  return WriteHistogram(step, tag, MakeIndexHistogram(counts));
}

absl::Status TensorBoardWriter::Image(int64_t step, absl::string_view tag,
                                      absl::string_view png) {
  // Signature, then the IHDR chunk: length, type, width, height, depth, color.
  constexpr absl::string_view kSignature("\x89PNG\r\n\x1a\n", 8);
  if (png.size() < 26 || !absl::StartsWith(png, kSignature) ||
      png.substr(12, 4) != "IHDR") {
    return absl::InvalidArgumentError(
        absl::StrCat("image \"", tag, "\" of step ", step, ": expected a PNG"));
  }
  tensorboard::Event event;
  auto* entry = event.mutable_summary()->add_value();
  entry->set_tag(std::string(tag));
  auto* image = entry->mutable_image();
  image->set_width(BigEndian32(png.substr(16)));
  image->set_height(BigEndian32(png.substr(20)));
  switch (png[25]) {
    case 0:
      image->set_colorspace(1);
      break;
    case 4:
      image->set_colorspace(2);
      break;
    case 6:
      image->set_colorspace(4);
      break;
    default:
      image->set_colorspace(3);
  }
  image->set_encoded_image_string(png.data(), png.size());
  return Write(step, &event);
}

}  // namespace semvq
