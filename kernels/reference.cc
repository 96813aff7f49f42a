#include "kernels/reference.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

namespace semvq {
namespace {

at::ScalarType SumType(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace

at::Tensor HistogramReference(const at::Tensor& codes, int64_t num_codes) {
  at::Tensor counts = at::zeros({num_codes}, at::kLong);
  const at::Tensor flat = codes.reshape({-1}).contiguous();
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const int64_t k = flat.const_data_ptr<int64_t>()[i];
    if (k >= 0) ++counts.mutable_data_ptr<int64_t>()[k];
  }
  return counts;
}

CodeSums CodeStatisticsReference(const at::Tensor& features,
                                 const at::Tensor& codes, int64_t num_codes) {
  const int64_t dim = features.size(1);
  const at::Tensor z = features.detach().to(at::kDouble).contiguous();
  at::Tensor sums = at::zeros({num_codes, dim}, at::kDouble);
  for (int64_t i = 0; i < z.size(0); ++i) {
    const int64_t k = codes[i].item<int64_t>();
    if (k < 0) continue;
    for (int64_t d = 0; d < dim; ++d) {
      sums.mutable_data_ptr<double>()[k * dim + d] +=
          z.const_data_ptr<double>()[i * dim + d];
    }
  }
  return {HistogramReference(codes, num_codes), sums.to(SumType(features))};
}

at::Tensor LookupReference(const at::Tensor& codebook,
                           const at::Tensor& codes) {
  const at::Tensor flat = codes.reshape({-1});
  at::Tensor out =
      at::zeros({flat.numel(), codebook.size(1)}, codebook.options());
  for (int64_t i = 0; i < flat.numel(); ++i) {
    const int64_t k = flat[i].item<int64_t>();
    if (k >= 0) out[i].copy_(codebook[k].detach());
  }
  std::vector<int64_t> shape = codes.sizes().vec();
  shape.push_back(codebook.size(1));
  return out.view(shape);
}

KMeansStepResult KMeansStepReference(const at::Tensor& points,
                                     const at::Tensor& centers, Metric metric) {
  const int64_t n = points.size(0), k = centers.size(0), dim = points.size(1);
  const at::Tensor p = points.to(at::kDouble).contiguous();
  const at::Tensor c = centers.to(at::kDouble).contiguous();
  KMeansStepResult out;
  out.codes = AssignNearestReference(points, centers, metric);
  out.distances = at::zeros({n}, at::kDouble);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t code = out.codes[i].item<int64_t>();
    double sum = 0;
    for (int64_t d = 0; d < dim; ++d) {
      const double difference = p.const_data_ptr<double>()[i * dim + d] -
                                c.const_data_ptr<double>()[code * dim + d];
      sum += difference * difference;
    }
    out.distances[i] = sum;
  }
  const CodeSums stats = CodeStatisticsReference(points, out.codes, k);
  out.counts = stats.counts;
  out.centers = centers.to(SumType(points)).clone();
  for (int64_t j = 0; j < k; ++j) {
    const int64_t count = out.counts[j].item<int64_t>();
    if (count == 0) continue;
    at::Tensor mean = stats.sums[j].to(at::kDouble) / count;
    if (metric == Metric::kCosine) {
      const double norm = std::sqrt(mean.square().sum().item<double>());
      if (norm > 0) mean = mean / norm;
    }
    out.centers[j].copy_(mean);
  }
  return out;
}

}  // namespace semvq
