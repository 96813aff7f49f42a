#include "data/sample_reader.h"

#include <ATen/ops/clone.h>

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/random/stream.h"
#include "core/text/caption.h"
#include "data/decode.h"
#include "data/image_bytes.h"
#include "data/transforms.h"

namespace semvq {

std::vector<at::Tensor> ImageCache::Find(int64_t index) const {
  std::lock_guard<std::mutex> lock(mutex_);
  auto it = images_.find(index);
  return it == images_.end() ? std::vector<at::Tensor>() : it->second;
}

void ImageCache::Add(int64_t index, const std::vector<at::Tensor>& images) {
  int64_t bytes = 0;
  for (const at::Tensor& image : images) bytes += image.numel();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (bytes_ + bytes > max_bytes_ || !images_.try_emplace(index).second)
      return;
    bytes_ += bytes;
  }
  // Copies, which others need not wait for: the pixels of a decoder are lent.
  std::vector<at::Tensor> copies;
  for (const at::Tensor& image : images) copies.push_back(image.clone());
  std::lock_guard<std::mutex> lock(mutex_);
  images_[index] = std::move(copies);
}

int64_t ImageCache::bytes() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return bytes_;
}

SampleReader::SampleReader(std::shared_ptr<const DataSource> source,
                           const Tokenizer* tokenizer,
                           const SampleReaderOptions& options)
    : source_(std::move(source)),
      tokenizer_(tokenizer),
      options_(options),
      needed_side_(options.training ? NeededSide(options.transform) : 0),
      cache_(options.cache_bytes > 0
                 ? std::make_unique<ImageCache>(options.cache_bytes)
                 : nullptr) {}

absl::StatusOr<std::vector<at::Tensor>> SampleReader::Images(
    int64_t index, const Sample& sample) const {
  std::vector<at::Tensor> images;
  if (cache_ != nullptr) images = cache_->Find(index);
  if (!images.empty()) return images;
  for (size_t slot = 0; slot < sample.image_paths.size(); ++slot) {
    absl::StatusOr<std::string> bytes =
        ReadSampleImage(sample, slot, kMaxImageBytes);
    if (!bytes.ok()) return bytes.status();
    absl::StatusOr<at::Tensor> image =
        DecodeImage(*bytes, options_.max_pixels, needed_side_);
    if (!image.ok()) {
      return absl::Status(image.status().code(),
                          absl::StrCat(sample.image_paths[slot], ": ",
                                       image.status().message()));
    }
    images.push_back(
        ReduceImage(*std::move(image), options_.transform, options_.training));
  }
  if (cache_ != nullptr) cache_->Add(index, images);
  return images;
}

absl::Status SampleReader::ReadTexts(int64_t number, Sample* sample,
                                     SampleRow* row) const {
  const int64_t have = static_cast<int64_t>(sample->texts.size());
  if (have == 0) return absl::InvalidArgumentError("there is no text");
  std::vector<int64_t> order(have);
  std::iota(order.begin(), order.end(), 0);
  const int64_t want =
      options_.texts_per_image > 0 ? options_.texts_per_image : have;
  if (options_.texts_per_image > 0) {
    RandomStream random(options_.seed, "text", static_cast<uint64_t>(number));
    random.Shuffle(order.begin(), order.end());
  }
  std::vector<std::string> cleaned;
  row->texts.clear();
  for (int64_t i = 0; i < want; ++i) {
    const TextRecord& text = sample->texts[order[i % have]];
    cleaned.push_back(CleanCaption(text.text, options_.max_words));
    if (cleaned.back().empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text '", absl::string_view(text.text).substr(0, 40),
                       "' has no words"));
    }
    row->texts.push_back(text);
  }
  if (tokenizer_ == nullptr) return absl::OkStatus();
  absl::StatusOr<PaddedTokens> tokens =
      EncodePadded(*tokenizer_, cleaned, options_.max_tokens);
  if (!tokens.ok()) return tokens.status();
  row->ids = std::move(tokens->ids);
  row->mask = std::move(tokens->mask);
  return absl::OkStatus();
}

absl::Status SampleReader::Read(int64_t index, int64_t number, float* pixels,
                                SampleRow* row) const {
  absl::StatusOr<Sample> sample = source_->Read(index);
  if (!sample.ok()) return sample.status();
  const auto fail = [&sample](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrCat(sample->where, ": ", status.message()));
  };
  if (static_cast<int64_t>(sample->image_paths.size()) != options_.slots) {
    return fail(absl::InvalidArgumentError(
        absl::StrCat("got ", sample->image_paths.size(), " images, expected ",
                     options_.slots, " as the stream's first record has")));
  }
  absl::Status status = ReadTexts(number, &*sample, row);
  if (!status.ok()) return fail(status);
  absl::StatusOr<std::vector<at::Tensor>> images = Images(index, *sample);
  if (!images.ok()) return fail(images.status());
  const int64_t plane =
      3 * int64_t{options_.transform.size()} * options_.transform.size();
  for (int64_t slot = 0; slot < options_.slots; ++slot) {
    TransformImageTo(
        (*images)[slot], options_.transform, options_.training,
        RandomStream(options_.seed, "augment", static_cast<uint64_t>(number),
                     static_cast<uint64_t>(slot)),
        pixels + slot * plane);
  }
  row->image_id = std::move(sample->image_id);
  return absl::OkStatus();
}

}  // namespace semvq
