#include "core/objective/pairs.h"

#include <torch/types.h>

#include <algorithm>
#include <string>

#include "core/distributed/communicator.h"
#include "core/random/stream.h"

namespace semvq {

at::Tensor ImageIdKeys(const Batch& batch) {
  const int64_t size = static_cast<int64_t>(batch.image_ids.size());
  at::Tensor keys = at::empty({size}, at::kLong);
  int64_t* out = keys.data_ptr<int64_t>();
  for (const std::string& id : batch.image_ids) {
    *out++ = static_cast<int64_t>(StreamKey(0, id) >> 12);
  }
  return keys.to(batch.text_to_image.device(), /*non_blocking=*/true);
}

std::vector<TextPlace> TextPlaces(const Batch& batch) {
  const at::Tensor rows = batch.text_to_image.to(at::kCPU).contiguous();
  const int64_t* row = rows.data_ptr<int64_t>();
  std::vector<int64_t> seen(batch.image_ids.size(), 0);
  std::vector<TextPlace> places(rows.numel());
  for (size_t t = 0; t < places.size(); ++t) {
    TORCH_CHECK(row[t] >= 0 && row[t] < static_cast<int64_t>(seen.size()),
                "text_to_image[", t, "] is ", row[t], ", the batch has ",
                seen.size(), " images");
    places[t] = {row[t], seen[row[t]]++};
  }
  return places;
}

at::Tensor FirstTexts(const Batch& batch) {
  const int64_t images = static_cast<int64_t>(batch.image_ids.size());
  at::Tensor first = at::full({images}, -1, at::kLong);
  int64_t* out = first.data_ptr<int64_t>();
  const std::vector<TextPlace> places = TextPlaces(batch);
  for (size_t t = 0; t < places.size(); ++t) {
    if (places[t].index == 0) out[places[t].image] = static_cast<int64_t>(t);
  }
  for (int64_t b = 0; b < images; ++b) {
    TORCH_CHECK(out[b] >= 0, "image \"", batch.image_ids[b],
                "\" has no text in its batch");
  }
  return first.to(batch.text_to_image.device(), /*non_blocking=*/true);
}

std::vector<uint64_t> ImageDrawKeys(const Batch& batch) {
  std::vector<uint64_t> keys;
  keys.reserve(batch.sample_numbers.size());
  for (int64_t number : batch.sample_numbers) keys.push_back(Mix64(number));
  return keys;
}

std::vector<uint64_t> TextDrawKeys(const Batch& batch) {
  std::vector<uint64_t> keys;
  for (const TextPlace& place : TextPlaces(batch)) {
    keys.push_back(Mix64(Mix64(batch.sample_numbers[place.image]) ^
                         Mix64(~static_cast<uint64_t>(place.index))));
  }
  return keys;
}

std::vector<uint64_t> GatherKeys(const std::vector<uint64_t>& keys,
                                 Communicator* group) {
  if (group == nullptr) return keys;
  at::Tensor own = at::empty({static_cast<int64_t>(keys.size())}, at::kLong);
  std::copy(keys.begin(), keys.end(), own.data_ptr<int64_t>());
  const at::Tensor all = group->AllGatherRows(own);
  const int64_t* data = all.data_ptr<int64_t>();
  return std::vector<uint64_t>(data, data + all.numel());
}

}  // namespace semvq
