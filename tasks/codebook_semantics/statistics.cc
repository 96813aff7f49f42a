#include "tasks/codebook_semantics/statistics.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/random/stream.h"

namespace semvq {
namespace {

enum Part : int8_t { kCount, kFit, kMeasure };

// Candidates for the weight s of the codes: none, an eighth, ... 256.
std::vector<double> Weights() {
  std::vector<double> weights = {0};
  for (double s = 0.125; s <= 256; s *= 2) weights.push_back(s);
  return weights;
}

// Mean cross-entropy in bits, and hits, of the images in one part.
struct Score {
  double bits = 0;
  int64_t hits = 0, images = 0;
};

constexpr int64_t kImagesAtOnce = 256;

// Scores of the images of `wanted` under every weight. `prior` float [W] and
// `ratio` float [K, W] are logarithms.
std::vector<Score> Measure(const Bags& codes, const Bags& words,
                           const std::vector<int64_t>& order,
                           const std::vector<int8_t>& part, Part wanted,
                           const at::Tensor& prior, const at::Tensor& ratio,
                           const std::vector<double>& weights) {
  std::vector<int64_t> images;
  for (int64_t i = 0; i < codes.images(); ++i) {
    const int64_t w = order[i];
    if (part[i] == wanted && words.begin[w] < words.begin[w + 1]) {
      images.push_back(i);
    }
  }
  std::vector<Score> scores(weights.size());
  for (size_t first = 0; first < images.size(); first += kImagesAtOnce) {
    const auto n = static_cast<int64_t>(
        std::min<size_t>(kImagesAtOnce, images.size() - first));
    at::Tensor shares = at::zeros({n, codes.items});
    at::Tensor truth = at::zeros({n, words.items});
    float* share = shares.data_ptr<float>();
    float* true_share = truth.data_ptr<float>();
    for (int64_t r = 0; r < n; ++r) {
      const int64_t i = images[first + r], w = order[i];
      for (int64_t k = codes.begin[i]; k < codes.begin[i + 1]; ++k) {
        share[r * codes.items + codes.item[k]] = codes.share[k];
      }
      for (int64_t k = words.begin[w]; k < words.begin[w + 1]; ++k) {
        true_share[r * words.items + words.item[k]] = words.share[k];
      }
    }
    const at::Tensor evidence = at::matmul(shares, ratio);
    for (size_t s = 0; s < weights.size(); ++s) {
      const at::Tensor log_p =
          at::log_softmax((prior + weights[s] * evidence).to(at::kDouble), 1);
      scores[s].bits -= (log_p * truth).sum().item<double>() / std::log(2.0);
      scores[s].hits +=
          truth.gather(1, log_p.argmax(1, true)).gt(0).sum().item<int64_t>();
      scores[s].images += n;
    }
  }
  return scores;
}

}  // namespace

void Bags::Add(std::vector<int32_t> numbers) {
  std::sort(numbers.begin(), numbers.end());
  const float one = 1.0f / static_cast<float>(numbers.size());
  for (size_t i = 0; i < numbers.size();) {
    size_t end = i;
    while (end < numbers.size() && numbers[end] == numbers[i]) ++end;
    item.push_back(numbers[i]);
    share.push_back(one * static_cast<float>(end - i));
    i = end;
  }
  begin.push_back(static_cast<int64_t>(item.size()));
}

std::vector<int64_t> Bags::Compact() {
  std::vector<int64_t> old = {item.begin(), item.end()};
  std::sort(old.begin(), old.end());
  old.erase(std::unique(old.begin(), old.end()), old.end());
  for (int32_t& i : item) {
    i = static_cast<int32_t>(std::lower_bound(old.begin(), old.end(), i) -
                             old.begin());
  }
  items = static_cast<int64_t>(old.size());
  return old;
}

at::Tensor JointShares(const Bags& a, const Bags& b,
                       const std::vector<int64_t>& order,
                       const std::vector<int8_t>& part, int8_t wanted) {
  at::Tensor joint = at::zeros({a.items, b.items}, at::kDouble);
  double* table = joint.data_ptr<double>();
  for (int64_t i = 0; i < a.images(); ++i) {
    if (!part.empty() && part[i] != wanted) continue;
    const int64_t j = order[i];
    for (int64_t x = a.begin[i]; x < a.begin[i + 1]; ++x) {
      double* row = table + a.item[x] * b.items;
      for (int64_t y = b.begin[j]; y < b.begin[j + 1]; ++y) {
        row[b.item[y]] += static_cast<double>(a.share[x]) * b.share[y];
      }
    }
  }
  return joint;
}

Prediction PredictWords(const Bags& codes, const Bags& words,
                        const std::vector<int64_t>& order, uint64_t seed) {
  std::vector<int8_t> part(codes.images());
  for (int64_t i = 0; i < codes.images(); ++i) {
    const int64_t fifth =
        RandomStream(seed, "codebook_semantics/split", i).Below(5);
    part[i] = fifth < 3 ? kCount : fifth == 3 ? kFit : kMeasure;
  }
  // An image weighs 1 in the table; so does the smoothing.
  at::Tensor joint = JointShares(codes, words, order, part, kCount);
  const at::Tensor of_word = joint.sum(0);
  const at::Tensor of_code = joint.sum(1);
  const double total = of_word.sum().item<double>();
  if (total <= 0) return {};
  const at::Tensor code =
      (of_code + 1.0 / static_cast<double>(codes.items)) / (total + 1);
  const at::Tensor word =
      (of_word + 1.0 / static_cast<double>(words.items)) / (total + 1);
  // p(code | word) / p(code), in place: the table may be large.
  const at::Tensor ratio = joint.add_(code.unsqueeze(1))
                               .div_((of_word + 1).unsqueeze(0))
                               .div_(code.unsqueeze(1))
                               .log_()
                               .to(at::kFloat);
  joint = at::Tensor();
  const at::Tensor prior = word.log().to(at::kFloat);

  const std::vector<double> weights = Weights();
  const std::vector<Score> fit =
      Measure(codes, words, order, part, kFit, prior, ratio, weights);
  const auto best = std::min_element(
      fit.begin(), fit.end(),
      [](const Score& a, const Score& b) { return a.bits < b.bits; });
  const Score score = Measure(codes, words, order, part, kMeasure, prior, ratio,
                              {weights[best - fit.begin()]})[0];
  if (score.images == 0) return {};
  const auto images = static_cast<double>(score.images);
  return {score.bits / images, 100.0 * static_cast<double>(score.hits) / images,
          score.images};
}

}  // namespace semvq
