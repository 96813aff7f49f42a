#include "data/loader.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/random/stream.h"
#include "core/text/caption.h"
#include "data/recycled_memory.h"
#include "data/sample_reader.h"
#include "data/sampler.h"
#include "data/transforms.h"

namespace semvq {
namespace {

constexpr int64_t kMaxAttempts =
    20;  // Samples tried for one place in a training batch.
constexpr int64_t kAlwaysTolerated =
    10;  // So few bad samples never stop a run.
constexpr int64_t kNamedInMessage = 5;
constexpr int kMaxWorkers = 256;

// ATen's operators start a team of OpenMP threads on every thread that calls
// them. The number is a property of the calling thread, which
// at::set_num_threads also writes to the whole process; so OpenMP is asked
// itself, in the copy that LibTorch has loaded.
void RunOperatorsOnThisThreadOnly() {
  at::get_num_threads();  // ATen's own initialisation of this thread must not
                          // come after ours.
  static const auto set = reinterpret_cast<void (*)(int)>(
      dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  if (set != nullptr) set(1);
}

// The parts of a source of which only the first `size` samples are used.
absl::StatusOr<std::vector<SourcePart>> LimitedParts(const DataSource& source,
                                                     int64_t size) {
  std::vector<SourcePart> parts = source.Parts();
  if (size == source.size()) return parts;
  if (parts.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("limit: got ", size,
                     ", expected 0: the first samples of a mixture would all "
                     "be of its first source"));
  }
  SourcePart& part = parts[0];
  part.size = size;
  int64_t left = size;
  for (int64_t& shard : part.shards) {
    shard = std::min(shard, left);
    left -= shard;
  }
  return parts;
}

// A place in a batch while and after it is filled.
struct Row {
  bool good = false;
  int64_t index = 0;
  SampleRow words;
  std::vector<int64_t> tried;        // Indices read, bad ones first.
  std::vector<std::string> reasons;  // Of the bad ones.
};

struct Slot {
  at::Tensor images;  // float32 [rows, slots, 3, size, size]
  std::vector<Row> rows;
  int64_t unfinished = 0;
  absl::Status error;  // Of the machinery, not of a sample.
};

absl::Status TooManyBad(const std::string& stream, const DataConfig& data,
                        const std::vector<BadSample>& bad, int64_t read) {
  std::string names;
  for (size_t i = 0; i < bad.size() && i < kNamedInMessage; ++i)
    absl::StrAppend(&names, "\n  ", bad[i].what);
  return absl::FailedPreconditionError(absl::StrCat(
      "the stream '", stream, "': ", bad.size(), " of the ", read,
      " samples read so far are bad; ", kAlwaysTolerated,
      " and data.max_bad_fraction = ", data.max_bad_fraction(),
      " of them are allowed. Repair the data or raise the fraction. The "
      "first:",
      names));
}

}  // namespace

class Loader::Impl {
 public:
  Impl(const DataStream& stream, std::shared_ptr<const DataSource> source,
       const Tokenizer* tokenizer, const DataConfig& data,
       const LoaderOptions& options, int64_t size, Sampler sampler,
       const SampleReaderOptions& reader_options)
      : name_(stream.name()),
        data_(data),
        options_(options),
        reader_options_(reader_options),
        has_tokenizer_(tokenizer != nullptr),
        size_(size),
        sampler_(sampler),
        reader_(std::move(source), tokenizer, reader_options),
        read_(size, false),
        // One for each slot, and the one that the caller has.
        memory_(data.prefetch() + 1),
        slots_(data.prefetch()) {
    for (int i = 0; i < data.workers(); ++i)
      threads_.emplace_back([this] { Work(); });
  }

  ~Impl() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::StatusOr<Batch> Next() {
    while (status_.ok()) {
      if (Rows(delivered_) == 0) {
        status_ = absl::OutOfRangeError(
            absl::StrCat("the stream '", name_, "' has no more batches"));
        break;
      }
      Slot slot = Take();
      status_ = Account(slot);
      if (!status_.ok()) break;
      Batch batch = Collate(&slot);
      if (!batch.sample_numbers.empty())
        return batch;  // Else every sample of an evaluation batch was bad.
    }
    return status_;
  }

  int64_t size() const { return size_; }
  const std::vector<BadSample>& bad_samples() const { return bad_; }
  int64_t samples_read() const { return read_count_; }
  double wait_seconds() const { return wait_seconds_; }

 private:
  // Number of the first sample of this rank's batch `b`.
  int64_t First(int64_t b) const {
    return options_.start_sample +
           (b * options_.ranks + options_.rank) * options_.batch_size;
  }

  // Samples in batch `b`; 0 after the end.
  int64_t Rows(int64_t b) const {
    if (options_.training) return options_.batch_size;
    return std::clamp<int64_t>(size_ - First(b), 0, options_.batch_size);
  }

  void Work() {
    at::NoGradGuard no_grad;
    RunOperatorsOnThisThreadOnly();
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      work_.wait(lock, [this] {
        return stop_ || (next_batch_ < delivered_ + data_.prefetch() &&
                         Rows(next_batch_) > 0);
      });
      if (stop_) return;
      const int64_t b = next_batch_, i = next_row_;
      Slot& slot = slots_[b % data_.prefetch()];
      try {
        if (i == 0) Open(b, &slot);
      } catch (const std::exception& e) {
        slot.error = absl::ResourceExhaustedError(
            absl::StrCat("no memory for a batch of images: ", e.what()));
        slot.rows.clear();
        slot.rows.resize(Rows(b));
        slot.unfinished = Rows(b);
      }
      if (++next_row_ == Rows(b)) {
        ++next_batch_;
        next_row_ = 0;
      }
      if (slot.error.ok()) {
        lock.unlock();
        absl::Status error = Fill(First(b) + i, i, &slot);
        lock.lock();
        if (!error.ok()) slot.error = std::move(error);
      }
      if (--slot.unfinished == 0) ready_.notify_one();
    }
  }

  void Open(int64_t b, Slot* slot) {
    const int64_t rows = Rows(b), side = reader_options_.transform.size();
    slot->rows.clear();
    slot->rows.resize(rows);
    slot->unfinished = rows;
    slot->images =
        memory_.Lend({rows, reader_options_.slots, 3, side, side}, at::kFloat);
  }

  absl::Status Fill(int64_t number, int64_t i, Slot* slot) const {
    Row& row = slot->rows[i];
    try {
      float* pixels = slot->images.data_ptr<float>() +
                      i * (slot->images.numel() / slot->images.size(0));
      const int64_t attempts = options_.training ? kMaxAttempts : 1;
      for (int64_t attempt = 0; attempt < attempts && !row.good; ++attempt) {
        row.index = number;
        if (options_.training) {
          row.index = attempt == 0 ? sampler_.Index(number)
                                   : sampler_.Substitute(number, attempt);
        }
        row.tried.push_back(row.index);
        const absl::Status status =
            reader_.Read(row.index, number, pixels, &row.words);
        row.good = status.ok();
        if (!row.good) row.reasons.emplace_back(status.message());
      }
      return absl::OkStatus();
    } catch (const std::exception& e) {
      return absl::InternalError(absl::StrCat(
          "sample ", row.index, " of the stream '", name_, "': ", e.what()));
    }
  }

  Slot Take() {
    std::unique_lock<std::mutex> lock(mutex_);
    const int64_t b = delivered_;
    Slot& slot = slots_[b % data_.prefetch()];
    const auto filled = [&] {
      return (next_batch_ > b) && slot.unfinished == 0;
    };
    if (!filled()) {
      const auto start = std::chrono::steady_clock::now();
      ready_.wait(lock, filled);
      wait_seconds_ += std::chrono::duration<double>(
                           std::chrono::steady_clock::now() - start)
                           .count();
    }
    Slot taken = std::move(slot);
    slot = Slot();
    ++delivered_;
    lock.unlock();
    work_.notify_all();
    return taken;
  }

  // Counts what the batch met, in the order of its samples: the same whichever
  // thread was faster.
  absl::Status Account(const Slot& slot) {
    if (!slot.error.ok()) return slot.error;
    bool filled = true;
    for (const Row& row : slot.rows) {
      for (size_t k = 0; k < row.tried.size(); ++k) {
        if (!read_[row.tried[k]]) {
          read_[row.tried[k]] = true;
          ++read_count_;
        }
        if (k < row.reasons.size() && known_bad_.insert(row.tried[k]).second) {
          bad_.push_back({row.tried[k], row.reasons[k]});
        }
      }
      filled = filled && (row.good || !options_.training);
    }
    return filled ? CheckBadSamples(name_, data_, bad_, read_count_,
                                    read_count_ == size_)
                  : TooManyBad(name_, data_, bad_, read_count_);
  }

  Batch Collate(Slot* slot) const {
    Batch batch;
    std::vector<Row*> good;
    for (Row& row : slot->rows) {
      if (row.good) good.push_back(&row);
    }
    int64_t texts = 0;
    for (const Row* row : good)
      texts += static_cast<int64_t>(row->words.texts.size());
    const int64_t length = has_tokenizer_ ? options_.max_tokens : 0;
    batch.text_ids = at::empty({texts, length}, at::kLong);
    batch.text_mask = at::empty({texts, length}, at::kBool);
    batch.text_to_image = at::empty({texts}, at::kLong);
    auto* ids = batch.text_ids.data_ptr<int64_t>();
    auto* mask = batch.text_mask.data_ptr<bool>();
    auto* to_image = batch.text_to_image.data_ptr<int64_t>();
    for (size_t r = 0; r < good.size(); ++r) {
      SampleRow& words = good[r]->words;
      ids = std::copy(words.ids.begin(), words.ids.end(), ids);
      mask = std::transform(words.mask.begin(), words.mask.end(), mask,
                            [](int64_t m) { return m != 0; });
      to_image =
          std::fill_n(to_image, words.texts.size(), static_cast<int64_t>(r));
      batch.image_ids.push_back(std::move(words.image_id));
      std::move(words.texts.begin(), words.texts.end(),
                std::back_inserter(batch.texts));
    }
    batch.images = slot->images;
    if (good.size() < slot->rows.size()) {  // Evaluation only: close the gaps.
      const int64_t stride = slot->images.numel() / slot->images.size(0);
      float* pixels = slot->images.data_ptr<float>();
      for (size_t r = 0; r < good.size(); ++r) {
        const int64_t from = good[r] - slot->rows.data();
        std::copy_n(pixels + from * stride, stride,
                    pixels + static_cast<int64_t>(r) * stride);
      }
      batch.images =
          slot->images.narrow(0, 0, static_cast<int64_t>(good.size()));
    }
    const int64_t first = First(delivered_ - 1);
    for (const Row* row : good)
      batch.sample_numbers.push_back(first + (row - slot->rows.data()));
    return batch;
  }

  const std::string name_;
  const DataConfig data_;
  const LoaderOptions options_;
  const SampleReaderOptions reader_options_;
  const bool has_tokenizer_;
  const int64_t size_;
  const Sampler sampler_;
  const SampleReader reader_;

  // Of the thread that calls Next().
  absl::Status status_;
  std::vector<bool> read_;
  int64_t read_count_ = 0;
  absl::flat_hash_set<int64_t> known_bad_;
  std::vector<BadSample> bad_;
  double wait_seconds_ = 0;

  RecycledMemory memory_;  // Of batches.
  std::mutex mutex_;
  std::condition_variable work_, ready_;
  bool stop_ = false;
  int64_t next_batch_ = 0, next_row_ = 0;  // The next place to fill.
  int64_t delivered_ = 0;    // The next batch to return; written by the thread
                             // that calls Next() alone.
  std::vector<Slot> slots_;  // Batch b is filled in slot b % prefetch.
  std::vector<std::thread> threads_;
};

absl::Status CheckBadSamples(const std::string& stream, const DataConfig& data,
                             const std::vector<BadSample>& bad, int64_t read,
                             bool all_read) {
  const auto count = static_cast<int64_t>(bad.size());
  // While part of the samples are read, more bad ones than that share may come
  // early: a set with just the allowed share must not stop by chance.
  const double allowed = data.max_bad_fraction() * static_cast<double>(read);
  const bool too_many = count > kAlwaysTolerated &&
                        static_cast<double>(count) >
                            allowed + (all_read ? 0.0 : 4 * std::sqrt(allowed));
  const bool none_good = all_read && read > 0 && count == read;
  return too_many || none_good ? TooManyBad(stream, data, bad, read)
                               : absl::OkStatus();
}

Loader::Loader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Loader::~Loader() = default;
absl::StatusOr<Batch> Loader::Next() { return impl_->Next(); }
int64_t Loader::size() const { return impl_->size(); }
const std::vector<BadSample>& Loader::bad_samples() const {
  return impl_->bad_samples();
}
int64_t Loader::samples_read() const { return impl_->samples_read(); }
double Loader::wait_seconds() const { return impl_->wait_seconds(); }

absl::StatusOr<std::unique_ptr<Loader>> Loader::Create(
    const DataStream& stream, std::shared_ptr<const DataSource> source,
    const Tokenizer* tokenizer, const DataConfig& data,
    const LoaderOptions& options) {
  std::vector<std::string> errors;
  const auto check = [&errors](bool good, const std::string& message) {
    if (!good) errors.push_back(message);
  };
  check(data.workers() >= 1 && data.workers() <= kMaxWorkers,
        absl::StrCat("data.workers: got ", data.workers(), ", expected 1 to ",
                     kMaxWorkers));
  check(data.prefetch() >= 1,
        absl::StrCat("data.prefetch: got ", data.prefetch(),
                     ", expected at least 1"));
  check(data.max_pixels() >= 1,
        absl::StrCat("data.max_pixels: got ", data.max_pixels(),
                     ", expected at least 1"));
  check(data.cache_bytes() >= 0,
        absl::StrCat("data.cache_bytes: got ", data.cache_bytes(),
                     ", expected at least 0"));
  check(data.max_bad_fraction() >= 0 && data.max_bad_fraction() <= 1,
        absl::StrCat("data.max_bad_fraction: got ", data.max_bad_fraction(),
                     ", expected a share in [0, 1]"));
  check(stream.texts_per_image() >= 0,
        absl::StrCat("texts_per_image: got ", stream.texts_per_image(),
                     ", expected at least 0 (0: all)"));
  check(stream.limit() >= 0,
        absl::StrCat("limit: got ", stream.limit(),
                     ", expected at least 0 (0: no limit)"));
  check(options.batch_size >= 1,
        absl::StrCat("batch_size: got ", options.batch_size,
                     ", expected at least 1"));
  check(options.max_tokens >= 2,
        absl::StrCat("max_tokens: got ", options.max_tokens,
                     ", expected at least 2"));
  check(options.max_words >= 0,
        absl::StrCat("max_words: got ", options.max_words,
                     ", expected at least 0 (0: all)"));
  check(options.start_sample >= 0,
        absl::StrCat("start_sample: got ", options.start_sample,
                     ", expected at least 0"));
  check(options.rank >= 0 && options.rank < options.ranks,
        absl::StrCat("rank: got ", options.rank, " of ", options.ranks,
                     " ranks, expected 0 to ranks - 1"));
  const absl::Status transform = ValidateImageTransform(stream.transform());
  check(transform.ok(), std::string(transform.message()));
  if (!errors.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the stream '", stream.name(), "' cannot be loaded:\n",
                     absl::StrJoin(errors, "\n")));
  }

  int64_t size = source->size();
  if (stream.limit() > 0) size = std::min<int64_t>(size, stream.limit());
  absl::StatusOr<std::vector<SourcePart>> parts = LimitedParts(*source, size);
  absl::StatusOr<Sampler> sampler =
      !parts.ok() ? parts.status()
      : options.training
          ? Sampler::Create(*std::move(parts),
                            options.batch_size * options.ranks, options.seed)
          : Sampler::Create(size, 1, options.seed);
  if (!sampler.ok()) {
    return absl::Status(sampler.status().code(),
                        absl::StrCat("the stream '", stream.name(),
                                     "': ", sampler.status().message()));
  }
  // The first good record says how many images a sample has.
  SampleReaderOptions reader;
  std::string names;
  reader.slots = 0;
  for (int64_t i = 0; i < size && reader.slots == 0; ++i) {
    absl::StatusOr<Sample> sample = source->Read(i);
    if (sample.ok())
      reader.slots = static_cast<int64_t>(sample->image_paths.size());
    if (!sample.ok() && i < kNamedInMessage)
      absl::StrAppend(&names, "\n  ", sample.status().message());
  }
  if (reader.slots == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the stream '", stream.name(), "': not one of ", size,
                     " records is good. The first:", names));
  }
  reader.transform = stream.transform();
  reader.texts_per_image = options.training ? stream.texts_per_image() : 0;
  reader.max_tokens = options.max_tokens;
  reader.max_words = options.max_words;
  reader.max_pixels = data.max_pixels();
  reader.cache_bytes = options.training ? data.cache_bytes() : 0;
  reader.seed = options.seed;
  reader.training = options.training;
  return std::unique_ptr<Loader>(new Loader(
      std::make_unique<Impl>(stream, std::move(source), tokenizer, data,
                             options, size, *sampler, reader)));
}

std::vector<std::vector<std::string>> LoadAllTexts(const DataSource& source,
                                                   int64_t max_words) {
  std::vector<std::vector<std::string>> texts;
  for (int64_t i = 0; i < source.size(); ++i) {
    absl::StatusOr<Sample> sample = source.Read(i);
    if (!sample.ok()) continue;
    texts.emplace_back();
    for (const TextRecord& text : sample->texts) {
      std::string cleaned = CleanCaption(text.text, max_words);
      if (!cleaned.empty() && ValidateUtf8(cleaned).ok())
        texts.back().push_back(std::move(cleaned));
    }
  }
  return texts;
}

}  // namespace semvq
