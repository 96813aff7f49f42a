#include "trainer/batch_share.h"

#include <torch/types.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

TensorBytes Pack(const at::Tensor& tensor) {
  TensorBytes out;
  const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
  out.set_dtype(static_cast<int>(host.scalar_type()));
  for (const int64_t size : host.sizes()) out.add_sizes(size);
  out.set_data(host.data_ptr(), host.nbytes());
  out.set_on_cpu(tensor.device().is_cpu());
  return out;
}

absl::StatusOr<at::Tensor> Unpack(const TensorBytes& bytes, at::Device device) {
  const auto dtype = static_cast<at::ScalarType>(bytes.dtype());
  const std::vector<int64_t> sizes(bytes.sizes().begin(), bytes.sizes().end());
  at::Tensor out = at::empty(sizes, dtype);
  if (out.nbytes() != bytes.data().size()) {
    return absl::InternalError(absl::StrCat("a rank sent a tensor of ",
                                            bytes.data().size(),
                                            " bytes, expected ", out.nbytes()));
  }
  std::memcpy(out.data_ptr(), bytes.data().data(), bytes.data().size());
  return out.to(device);
}

}  // namespace

BatchShare PackBatch(const Batch& batch, const BatchOutcome& outcome) {
  BatchShare share;
  share.set_slots(batch.images.size(1));
  *share.mutable_text_ids() = Pack(batch.text_ids);
  *share.mutable_text_mask() = Pack(batch.text_mask);
  *share.mutable_text_to_image() = Pack(batch.text_to_image);
  for (const std::string& id : batch.image_ids) share.add_image_ids(id);
  for (const TextRecord& text : batch.texts) {
    TextShare* out = share.add_texts();
    out->set_id(text.id);
    out->set_text(text.text);
    for (const auto& [answer, part] : text.answers) {
      out->add_answers(answer);
      out->add_shares(part);
    }
    out->set_annotators(text.annotators);
  }
  for (const int64_t n : batch.sample_numbers) share.add_sample_numbers(n);
  for (const at::Tensor& tensor : outcome.tensors)
    *share.add_outcome_tensors() = Pack(tensor);
  for (const std::string& text : outcome.texts) share.add_outcome_texts(text);
  return share;
}

absl::StatusOr<std::pair<Batch, BatchOutcome>> UnpackBatch(
    const BatchShare& share, at::Device device) {
  Batch batch;
  for (const auto& [bytes, tensor] :
       {std::pair<const TensorBytes*, at::Tensor*>{&share.text_ids(),
                                                   &batch.text_ids},
        {&share.text_mask(), &batch.text_mask},
        {&share.text_to_image(), &batch.text_to_image}}) {
    absl::StatusOr<at::Tensor> unpacked = Unpack(*bytes, device);
    if (!unpacked.ok()) return unpacked.status();
    *tensor = *std::move(unpacked);
  }
  batch.image_ids.assign(share.image_ids().begin(), share.image_ids().end());
  batch.images = at::empty(
      {static_cast<int64_t>(batch.image_ids.size()), share.slots(), 0},
      at::kFloat);
  for (const TextShare& text : share.texts()) {
    TextRecord record;
    record.id = text.id();
    record.text = text.text();
    for (int a = 0; a < text.answers_size(); ++a)
      record.answers.emplace_back(text.answers(a), text.shares(a));
    record.annotators = text.annotators();
    batch.texts.push_back(std::move(record));
  }
  batch.sample_numbers.assign(share.sample_numbers().begin(),
                              share.sample_numbers().end());
  BatchOutcome outcome;
  for (const TensorBytes& bytes : share.outcome_tensors()) {
    absl::StatusOr<at::Tensor> unpacked =
        Unpack(bytes, bytes.on_cpu() ? at::Device(at::kCPU) : device);
    if (!unpacked.ok()) return unpacked.status();
    outcome.tensors.push_back(*std::move(unpacked));
  }
  outcome.texts.assign(share.outcome_texts().begin(),
                       share.outcome_texts().end());
  return std::pair(std::move(batch), std::move(outcome));
}

}  // namespace semvq
