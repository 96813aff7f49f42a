#include "tasks/retrieval/text_cache.h"

#include <torch/types.h>

#include <algorithm>

namespace semvq {
namespace {

constexpr int64_t kBlockBytes = 32 << 20;

}  // namespace

void TextCache::Add(const Tokens& tokens, const at::Tensor& mask) {
  if (!complete_) return;
  const at::Tensor real = tokens.values.index({mask});  // [n, D]
  const int64_t count = real.size(0), dim = real.size(1);
  const int64_t row_bytes =
      std::max<int64_t>(1, dim * static_cast<int64_t>(real.element_size()));
  if (block_rows_ == 0) {
    form_ = tokens;
    form_.values = form_.mask = at::Tensor();
    block_rows_ = std::max<int64_t>(1, kBlockBytes / row_bytes);
  }
  if (used_ + count > max_bytes_ / row_bytes) {
    complete_ = false;
    blocks_.clear();
    starts_.clear();
    return;
  }
  const at::Tensor lengths = mask.to(at::kCPU).sum(1).contiguous();
  const int64_t* length = lengths.data_ptr<int64_t>();
  int64_t start = used_;
  for (int64_t t = 0; t < lengths.size(0); ++t) {
    starts_.push_back(start);
    start += length[t];
  }
  for (int64_t done = 0; done < count;) {
    const int64_t at = used_ % block_rows_;
    if (at == 0)
      blocks_.push_back(at::empty({block_rows_, dim}, real.options()));
    const int64_t n = std::min(count - done, block_rows_ - at);
    blocks_.back().narrow(0, at, n).copy_(real.narrow(0, done, n));
    done += n;
    used_ += n;
  }
}

Tokens TextCache::Gather(const std::vector<int64_t>& texts,
                         const at::Tensor& mask) const {
  const at::Tensor host = mask.to(at::kCPU).contiguous();
  const bool* real = host.data_ptr<bool>();
  const int64_t length = mask.size(1);
  // By block: which of its rows are wanted, and where.
  std::vector<std::vector<int64_t>> from(blocks_.size()), to(blocks_.size());
  for (size_t p = 0; p < texts.size(); ++p) {
    int64_t row = starts_[texts[p]];
    for (int64_t l = 0; l < length; ++l) {
      const int64_t place = static_cast<int64_t>(p) * length + l;
      if (!real[place]) continue;
      from[row / block_rows_].push_back(row % block_rows_);
      to[row / block_rows_].push_back(place);
      ++row;
    }
  }
  at::Tensor values =
      at::zeros({static_cast<int64_t>(texts.size()) * length,
                 blocks_.empty() ? 0 : blocks_[0].size(1)},
                blocks_.empty() ? at::TensorOptions() : blocks_[0].options());
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (from[b].empty()) continue;
    const auto device = [&](const std::vector<int64_t>& rows) {
      return torch::tensor(rows, at::kLong).to(values.device());
    };
    values.index_copy_(0, device(to[b]),
                       blocks_[b].index_select(0, device(from[b])));
  }
  Tokens tokens = form_;
  tokens.values =
      values.view({static_cast<int64_t>(texts.size()), length, values.size(1)});
  tokens.mask = mask;
  return tokens;
}

}  // namespace semvq
