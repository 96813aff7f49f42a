#include "tasks/retrieval/text_cache.h"

#include <torch/types.h>

#include <algorithm>

namespace semvq {

void TextCache::Add(const Tokens& tokens, const at::Tensor& mask) {
  if (!complete_) return;
  const at::Tensor& values = tokens.values;
  const int64_t dim = values.size(2);
  if (!rows_.defined()) {
    form_ = tokens;
    form_.values = form_.mask = at::Tensor();
    // All at once: to grow would need the old and the new buffer together.
    // A CPU gives memory to a page when it is first written.
    const int64_t row_bytes =
        std::max<int64_t>(1, dim * static_cast<int64_t>(values.element_size()));
    rows_ = at::empty({1 + max_bytes_ / row_bytes, dim}, values.options());
    rows_[0].zero_();
  }
  const at::Tensor real = values.index({mask});  // [n, D]
  const int64_t count = real.size(0);
  if (used_ + count > rows_.size(0)) {
    complete_ = false;
    rows_ = at::Tensor();
    starts_.clear();
    return;
  }
  rows_.narrow(0, used_, count).copy_(real);
  const at::Tensor lengths = mask.to(at::kCPU).sum(1).contiguous();
  const int64_t* length = lengths.data_ptr<int64_t>();
  for (int64_t t = 0; t < lengths.size(0); ++t) {
    starts_.push_back(used_);
    used_ += length[t];
  }
  index_ = at::Tensor();
}

Tokens TextCache::Gather(const at::Tensor& texts,
                         const at::Tensor& mask) const {
  if (!index_.defined()) {
    index_ = torch::tensor(starts_, at::kLong).to(rows_.device());
  }
  // The n-th real token of a text stands n rows behind its first.
  const at::Tensor row = (index_.index_select(0, texts).unsqueeze(1) +
                          mask.to(at::kLong).cumsum(1) - 1)
                             .mul(mask);
  Tokens tokens = form_;
  tokens.values = rows_.index_select(0, row.flatten())
                      .view({texts.size(0), mask.size(1), rows_.size(1)});
  tokens.mask = mask;
  return tokens;
}

}  // namespace semvq
