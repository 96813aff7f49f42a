// Batches of a data stream, decoded ahead on threads.
#ifndef SEMVQ_DATA_LOADER_H_
#define SEMVQ_DATA_LOADER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/forward/batch.h"
#include "core/text/tokenizer.h"
#include "data/source.h"
#include "protos/experiment.pb.h"

namespace semvq {

struct LoaderOptions {
  int64_t batch_size = 64;  // Images.
  uint64_t seed = 1;
  int64_t max_tokens =
      25;                  // Static length of a text, [CLS] and [SEP] included.
  int64_t max_words = 30;  // Texts are cut to so many words first; 0: not.
  // Training: an endless, shuffled, augmented stream. Else one pass in order,
  // with all texts and nothing drawn.
  bool training = true;
  // Number of the sample that the first batch of all ranks begins with; for
  // resuming a training stream.
  int64_t start_sample = 0;
  // Rank `rank` of `ranks` takes the part of every batch of all ranks that is
  // its own.
  int64_t rank = 0;
  int64_t ranks = 1;
};

struct BadSample {
  int64_t index = 0;  // In the data source.
  std::string what;   // Record, file and reason: "train.json: record 3: a.png:
                      // the file does not exist".
};

// FailedPrecondition, with the first names, when more than 10 distinct samples
// and more than data.max_bad_fraction() of the `read` ones are bad; before all
// of the stream are read, when there are so many more that it is no chance;
// after it, also when none is good.
absl::Status CheckBadSamples(const std::string& stream, const DataConfig& data,
                             const std::vector<BadSample>& bad, int64_t read,
                             bool all_read);

// The b-th batch of rank r of W holds the samples numbered s + (b * W + r) * B
// to that + B - 1, where s is start_sample (see Sampler); in training each with
// texts_per_image texts drawn for it. So the ranks' b-th batches, one rank's
// after the other's, are one batch of W * B samples. What is drawn for a sample
// depends on (seed, purpose, sample number) alone, so the samples are the same
// for any number of ranks and workers, with or without cache, and after a
// resume. In evaluation a rank may have a batch less than the others.
//
// What has been drawn is told by one number, that of the next sample: a run may
// go on from it with another number of ranks.
//
// A bad sample (unreadable record or image, no text left after cleaning) is
// listed on the rank that met it, and in training replaced by a drawn one, in
// evaluation left out. Once more than 10 distinct samples, and more than
// max_bad_fraction of those read, are bad, Next() fails.
//
// Not thread-safe, but for the threads it runs itself.
class Loader {
 public:
  // `tokenizer` may be null: then text_ids and text_mask are [T, 0]. It must
  // outlive the loader. InvalidArgument for wrong settings, FailedPrecondition
  // when a training set is smaller than the ranks' batch or has no good record
  // at all.
  static absl::StatusOr<std::unique_ptr<Loader>> Create(
      const DataStream& stream, std::shared_ptr<const DataSource> source,
      const Tokenizer* tokenizer, const DataConfig& data,
      const LoaderOptions& options);
  ~Loader();  // Joins the threads, within the time of one sample.
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  // The next batch. OutOfRange at the end of an evaluation pass;
  // FailedPrecondition, with the first names, for too many bad samples. After
  // an error it returns the same error again.
  absl::StatusOr<Batch> Next();

  // Samples in the stream (after `limit`).
  int64_t size() const;
  // Distinct bad samples met so far in batches returned, in order; of this
  // rank.
  const std::vector<BadSample>& bad_samples() const;
  // Distinct samples read so far by this rank, bad ones included.
  int64_t samples_read() const;
  // Time that Next() has waited for data.
  double wait_seconds() const;

 private:
  class Impl;
  explicit Loader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The texts of each sample of a source, cleaned as the loader cleans them: what
// a tokenizer is trained on. Bad records are left out.
std::vector<std::vector<std::string>> LoadAllTexts(const DataSource& source,
                                                   int64_t max_words);

}  // namespace semvq

#endif  // SEMVQ_DATA_LOADER_H_
