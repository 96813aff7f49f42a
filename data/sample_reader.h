// One sample from the source to model input: what a loader thread does for each
// row of a batch.
#ifndef SEMVQ_DATA_SAMPLE_READER_H_
#define SEMVQ_DATA_SAMPLE_READER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"
#include "data/source.h"
#include "protos/experiment.pb.h"

namespace semvq {

// Decoded images (uint8 [H, W, 3] per slot) by sample index, up to a number of
// bytes. First come, first kept: every epoch visits every sample once, so
// nothing kept is better than anything else. Thread-safe.
class ImageCache {
 public:
  explicit ImageCache(int64_t max_bytes) : max_bytes_(max_bytes) {}
  // Empty when there is none.
  std::vector<at::Tensor> Find(int64_t index) const;
  void Add(int64_t index, const std::vector<at::Tensor>& images);
  int64_t bytes() const;

 private:
  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  int64_t bytes_ = 0;
  absl::flat_hash_map<int64_t, std::vector<at::Tensor>> images_;
};

struct SampleReaderOptions {
  ImageTransform transform;
  int64_t slots = 1;
  int64_t texts_per_image = 0;  // 0: all.
  int64_t max_tokens = 25, max_words = 30;
  int64_t max_pixels = 0;
  int64_t cache_bytes = 0;
  uint64_t seed = 1;
  bool training = true;
};

// The words of one row of a batch.
struct SampleRow {
  std::string image_id;
  std::vector<TextRecord> texts;
  std::vector<int64_t> ids,
      mask;  // [texts * max_tokens]; empty without a tokenizer.
};

// Thread-safe.
class SampleReader {
 public:
  SampleReader(std::shared_ptr<const DataSource> source,
               const Tokenizer* tokenizer, const SampleReaderOptions& options);

  // Reads sample `index`, writes its images to `pixels` (float32 [slots, 3,
  // size, size]) and its words to `row`. `number` keys the draws. The error of
  // a bad sample names record and file.
  absl::Status Read(int64_t index, int64_t number, float* pixels,
                    SampleRow* row) const;

 private:
  absl::StatusOr<std::vector<at::Tensor>> Images(int64_t index,
                                                 const Sample& sample) const;
  absl::Status ReadTexts(int64_t number, Sample* sample, SampleRow* row) const;

  const std::shared_ptr<const DataSource> source_;
  const Tokenizer* const tokenizer_;
  const SampleReaderOptions options_;
  const int64_t needed_side_;
  const std::unique_ptr<ImageCache> cache_;  // Null when off.
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SAMPLE_READER_H_
