#include "kernels/assign.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/assign_scan.h"
#include "kernels/cuda_dispatch.h"

namespace semvq {
namespace {

using internal::kMaxScanRows;
using internal::kPanelCodes;
using internal::RowCandidates;
using internal::ScanKernel;

constexpr float kInf = std::numeric_limits<float>::infinity();
// Row tiles per chunk: a panel of codes is read once for all of them.
constexpr int64_t kTilesPerChunk = 8;
// Beyond this norm float32 scores may overflow, and rows go the float64 way.
constexpr double kMaxFastNorm = 1e18;

void CheckInputs(const at::Tensor& features, const at::Tensor& codebook) {
  TORCH_CHECK(features.dim() == 2 && codebook.dim() == 2 &&
                  features.size(1) == codebook.size(1),
              "AssignNearest: expected features [N, D] and codebook [K, D], "
              "got ",
              features.sizes(), " and ", codebook.sizes());
  TORCH_CHECK(codebook.size(0) > 0 && codebook.size(1) > 0,
              "AssignNearest: the codebook ", codebook.sizes(),
              " is empty; it needs at least one code of one dimension");
  TORCH_CHECK(features.is_floating_point() && codebook.is_floating_point(),
              "AssignNearest: expected floating-point tensors, got ",
              features.scalar_type(), " and ", codebook.scalar_type());
  TORCH_CHECK(features.device() == codebook.device(),
              "AssignNearest: features are on ", features.device(),
              " and the codebook on ", codebook.device(), "; move one of them");
}

// The definition: what is to be minimised, for one feature and one code. `norm`
// is the code's, used by kCosine alone.
template <class Z, class E>
double Cost(const Z* z, const E* e, int64_t dim, Metric metric, double norm) {
  double sum = 0;
  if (metric == Metric::kL2) {
    for (int64_t d = 0; d < dim; ++d) {
      const double difference =
          static_cast<double>(z[d]) - static_cast<double>(e[d]);
      sum += difference * difference;
    }
    return sum;
  }
  for (int64_t d = 0; d < dim; ++d)
    sum += static_cast<double>(z[d]) * static_cast<double>(e[d]);
  return norm == 0 ? 0 : -sum / norm;
}

template <class T>
double Norm(const T* v, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d)
    sum += static_cast<double>(v[d]) * static_cast<double>(v[d]);
  return std::sqrt(sum);
}

template <class T>
bool IsFinite(const T* v, int64_t dim) {
  bool finite = true;
  for (int64_t d = 0; d < dim; ++d)
    finite &= std::isfinite(static_cast<double>(v[d]));
  return finite;
}

// A code that must not win. Cost() says so by itself for kL2 (NaN or infinity
// is never less), but not for kCosine (x / infinity is 0).
bool Usable(double norm) { return std::isfinite(norm); }

template <class Z, class E>
int64_t NearestOfAll(const Z* z, const E* codebook,
                     const std::vector<double>& norms, int64_t dim,
                     Metric metric) {
  double least = std::numeric_limits<double>::infinity();
  int64_t nearest = 0;
  for (int64_t k = 0; k < static_cast<int64_t>(norms.size()); ++k) {
    if (!Usable(norms[k])) continue;
    const double cost = Cost(z, codebook + k * dim, dim, metric, norms[k]);
    if (cost < least) {
      least = cost;
      nearest = k;
    }
  }
  return nearest;
}

template <class T>
std::vector<double> Norms(const T* codebook, int64_t codes, int64_t dim) {
  std::vector<double> norms(codes);
  at::parallel_for(0, codes, 1 + 32768 / dim, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      norms[k] = Norm(codebook + k * dim, dim);
  });
  return norms;
}

// The codebook as the scan reads it.
struct PackedCodebook {
  int64_t dim = 0, panels = 0;
  double max_norm = 0;         // Of the codes as packed.
  std::vector<float> values;   // [panels][D][32]
  std::vector<float> offsets;  // [panels * 32]: minus half the squared norm.
};

template <class T>
PackedCodebook Pack(const T* codebook, const std::vector<double>& norms,
                    int64_t dim, Metric metric) {
  const int64_t codes = static_cast<int64_t>(norms.size());
  PackedCodebook packed;
  packed.dim = dim;
  packed.panels = (codes + kPanelCodes - 1) / kPanelCodes;
  for (double norm : norms) {
    if (Usable(norm)) packed.max_norm = std::max(packed.max_norm, norm);
  }
  if (metric == Metric::kCosine) packed.max_norm = 1;
  packed.values.resize(packed.panels * dim * kPanelCodes);
  packed.offsets.resize(packed.panels * kPanelCodes);
  at::parallel_for(
      0, packed.panels, 1 + 1024 / dim, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          float* panel = packed.values.data() + p * dim * kPanelCodes;
          for (int64_t j = 0; j < kPanelCodes; ++j) {
            const int64_t k = p * kPanelCodes + j;
            const bool used = k < codes && Usable(norms[k]);
            const double norm = used ? norms[k] : 0;
            const double divisor =
                metric == Metric::kCosine && norm > 0 ? norm : 1.0;
            // A score of minus infinity is above no threshold.
            packed.offsets[k] = !used ? -kInf
                                : metric == Metric::kL2
                                    ? static_cast<float>(-0.5 * norm * norm)
                                    : 0.0f;
            for (int64_t d = 0; d < dim; ++d) {
              panel[d * kPanelCodes + j] =
                  used ? static_cast<float>(codebook[k * dim + d] / divisor)
                       : 0.0f;
            }
          }
        }
      });
  return packed;
}

// Twice the most by which the float32 score of a row of norm z and a code of
// norm <= e can differ from the exact one, plus the same for float64's cost.
// u = 2^-24: rounding both inputs (float64, or a normalised code) 2 u, the half
// norm 1 u, D fused or 2 D separate operations; underflow loses less than
// 2^-126 an operand. `wide` matters where z is far longer than the codes: there
// float64 cannot tell codes apart, and ties go to the lowest index.
float Margin(double z, double e, int64_t dim, Metric metric) {
  const bool l2 = metric == Metric::kL2;
  const double steps = 2.0 * static_cast<double>(dim) + 8;
  const double single = steps * 0x1.0p-24 * (z * e + (l2 ? 0.5 * e * e : 0.0));
  const double wide = steps * 0x1.0p-53 * (l2 ? (z + e) * (z + e) : z * e);
  const double underflow = steps * 0x1.0p-126 * (1 + z + e);
  return static_cast<float>(2.02 * (single + wide + underflow));
}

// Z: float64, float32, bfloat16 or float16; E: float64 or float32.
template <class Z, class E>
class Assigner {
 public:
  Assigner(const Z* features, int64_t count, const E* codebook, int64_t codes,
           int64_t dim, Metric metric, const ScanKernel& kernel, int64_t* out)
      : features_(features),
        count_(count),
        codebook_(codebook),
        dim_(dim),
        metric_(metric),
        kernel_(kernel),
        out_(out),
        norms_(Norms(codebook, codes, dim)),
        packed_(Pack(codebook, norms_, dim, metric)) {}

  void Run() const {
    const int64_t chunk = kTilesPerChunk * kernel_.rows;
    const int64_t chunks = (count_ + chunk - 1) / chunk;
    at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> rows(chunk * dim_);
      std::vector<float> thresholds(chunk);
      std::vector<RowCandidates> candidates(chunk);
      for (int64_t c = begin; c < end; ++c) {
        const int64_t first = c * chunk;
        const int64_t size = std::min(chunk, count_ - first);
        PrepareRows(first, size, &rows, &thresholds, &candidates);
        const int64_t tiles = (size + kernel_.rows - 1) / kernel_.rows;
        for (int64_t p = 0; p < packed_.panels; ++p) {
          for (int64_t t = 0; t < tiles; ++t) {
            const int64_t row = t * kernel_.rows;
            kernel_.scan(rows.data() + row * dim_, dim_,
                         packed_.values.data() + p * dim_ * kPanelCodes,
                         packed_.offsets.data() + p * kPanelCodes,
                         p * kPanelCodes, thresholds.data() + row,
                         candidates.data() + row);
          }
        }
        for (int64_t i = 0; i < size; ++i)
          out_[first + i] = Decide(first + i, candidates[i]);
      }
    });
  }

 private:
  // Packs rows into tiles [D][kernel rows]; rows the scan cannot judge are
  // zeroed, marked and given a threshold nothing passes.
  void PrepareRows(int64_t first, int64_t size, std::vector<float>* rows,
                   std::vector<float>* thresholds,
                   std::vector<RowCandidates>* candidates) const {
    const int64_t padded =
        (size + kernel_.rows - 1) / kernel_.rows * kernel_.rows;
    for (int64_t i = 0; i < padded; ++i) {
      float* tile = rows->data() + i / kernel_.rows * kernel_.rows * dim_ +
                    i % kernel_.rows;
      RowCandidates& row = (*candidates)[i];
      row.best = -kInf;
      row.count = 0;
      row.overflow = false;
      const Z* z = features_ + (first + i) * dim_;
      const double norm = i < size ? Norm(z, dim_) : 0;
      const bool fast =
          i < size && norm < kMaxFastNorm && packed_.max_norm < kMaxFastNorm;
      row.overflow = !fast;
      row.margin = fast ? Margin(norm, packed_.max_norm, dim_, metric_) : 0;
      (*thresholds)[i] = fast ? -kInf : kInf;
      for (int64_t d = 0; d < dim_; ++d)
        tile[d * kernel_.rows] = fast ? static_cast<float>(z[d]) : 0.0f;
    }
  }

  int64_t Decide(int64_t i, const RowCandidates& row) const {
    const Z* z = features_ + i * dim_;
    if (row.overflow) {
      return IsFinite(z, dim_) ? SearchAll(z) : 0;
    }
    const float threshold = row.best - row.margin;
    double least = std::numeric_limits<double>::infinity();
    int64_t nearest = 0;
    int close = 0;
    for (int c = 0; c < row.count; ++c) {
      if (row.scores[c] > threshold) {
        ++close;
        nearest = row.codes[c];
      }
    }
    if (close < 2) return nearest;
    for (int c = 0; c < row.count; ++c) {
      if (!(row.scores[c] > threshold)) continue;
      const int64_t k = row.codes[c];
      const double cost =
          Cost(z, codebook_ + k * dim_, dim_, metric_, norms_[k]);
      if (cost < least) {
        least = cost;
        nearest = k;
      }
    }
    return nearest;
  }

  // For rows with too many candidates, as when a codebook has collapsed: then
  // that is every row, so it must not be slow.
  int64_t SearchAll(const Z* z) const {
    // Panels hold the codes themselves only so.
    if (!std::is_same<E, float>::value || metric_ != Metric::kL2)
      return NearestOfAll(z, codebook_, norms_, dim_, metric_);
    const std::vector<double> row(z, z + dim_);
    double least = std::numeric_limits<double>::infinity();
    int64_t nearest = 0;
    for (int64_t p = 0; p < packed_.panels; ++p) {
      double costs[kPanelCodes];
      kernel_.costs(row.data(), dim_,
                    packed_.values.data() + p * dim_ * kPanelCodes, costs);
      const int64_t first = p * kPanelCodes;
      const int64_t count = std::min<int64_t>(
          kPanelCodes, static_cast<int64_t>(norms_.size()) - first);
      for (int64_t k = 0; k < count; ++k) {
        if (costs[k] < least && Usable(norms_[first + k])) {
          least = costs[k];
          nearest = first + k;
        }
      }
    }
    return nearest;
  }

  const Z* features_;
  int64_t count_;
  const E* codebook_;
  int64_t dim_;
  Metric metric_;
  const ScanKernel& kernel_;
  int64_t* out_;
  std::vector<double> norms_;
  PackedCodebook packed_;
};

bool Supported(const ScanKernel& kernel) {
  if (kernel.scan == nullptr) return false;
#if defined(__x86_64__)
  const std::string name = kernel.name;
  if (name == "avx512") return __builtin_cpu_supports("avx512f");
  if (name == "avx2")
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return true;
}

const ScanKernel& BestKernel() {
  for (const ScanKernel* kernel :
       {&internal::kScanAvx512, &internal::kScanAvx2}) {
    if (Supported(*kernel)) return *kernel;
  }
  return internal::kScanGeneric;
}

at::Tensor AssignOnCpu(const at::Tensor& features, const at::Tensor& codebook,
                       Metric metric, const ScanKernel& kernel) {
  // Features are widened as they are packed, a few rows at a time.
  const at::Tensor z = features.detach().contiguous();
  const at::Tensor e =
      codebook.detach()
          .to(codebook.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)
          .contiguous();
  at::Tensor codes = at::empty({z.size(0)}, at::kLong);
  if (z.size(0) == 0) return codes;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, z.scalar_type(), "AssignNearest", [&] {
        using Feature = scalar_t;
        AT_DISPATCH_FLOATING_TYPES(e.scalar_type(), "AssignNearest", [&] {
          Assigner<Feature, scalar_t>(z.const_data_ptr<Feature>(), z.size(0),
                                      e.const_data_ptr<scalar_t>(), e.size(0),
                                      e.size(1), metric, kernel,
                                      codes.mutable_data_ptr<int64_t>())
              .Run();
        });
      });
  return codes;
}

}  // namespace

at::Tensor AssignNearest(const at::Tensor& features, const at::Tensor& codebook,
                         Metric metric) {
  CheckInputs(features, codebook);
#ifdef SEMVQ_CUDA
  if (internal::HasCudaKernels(features))
    return internal::AssignNearestCuda(features, codebook, metric);
#endif
  if (!features.is_cpu()) return AssignNearestAten(features, codebook, metric);
  return AssignOnCpu(features, codebook, metric, BestKernel());
}

at::Tensor AssignNearestReference(const at::Tensor& features,
                                  const at::Tensor& codebook, Metric metric) {
  CheckInputs(features, codebook);
  TORCH_CHECK(features.is_cpu(),
              "AssignNearestReference: expected tensors on "
              "CPU, got ",
              features.device());
  const at::Tensor z = features.detach().to(at::kDouble).contiguous();
  const at::Tensor e = codebook.detach().to(at::kDouble).contiguous();
  const int64_t dim = e.size(1);
  const double* codes = e.const_data_ptr<double>();
  const std::vector<double> norms = Norms(codes, e.size(0), dim);
  at::Tensor nearest = at::zeros({z.size(0)}, at::kLong);
  int64_t* out = nearest.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < z.size(0); ++i) {
    const double* row = z.const_data_ptr<double>() + i * dim;
    if (IsFinite(row, dim))
      out[i] = NearestOfAll(row, codes, norms, dim, metric);
  }
  return nearest;
}

at::Tensor AssignNearestAten(const at::Tensor& features,
                             const at::Tensor& codebook, Metric metric) {
  CheckInputs(features, codebook);
  c10::NoGradGuard no_grad;
  const at::Tensor e = codebook.detach().to(at::kDouble);
  const at::Tensor norms = e.square().sum(1).sqrt();
  const at::Tensor usable = norms.isfinite();
  at::Tensor codes =
      at::zeros({features.size(0)}, features.options().dtype(at::kLong));
  // About 2^24 differences at a time.
  const int64_t step =
      std::max<int64_t>(1, (int64_t{1} << 24) / (e.size(0) * e.size(1)));
  for (int64_t begin = 0; begin < features.size(0); begin += step) {
    const int64_t size = std::min(step, features.size(0) - begin);
    const at::Tensor z =
        features.detach().narrow(0, begin, size).to(at::kDouble);
    at::Tensor cost;
    if (metric == Metric::kL2) {
      cost = (z.unsqueeze(1) - e.unsqueeze(0)).square().sum(2);
    } else {
      cost = (z.unsqueeze(1) * e.unsqueeze(0)).sum(2).neg() / norms;
      cost = at::where(norms == 0, at::zeros({}, cost.options()), cost);
    }
    const at::Tensor none = at::full({}, INFINITY, cost.options());
    cost = at::where(usable.logical_and(cost.isfinite()), cost, none);
    // The lowest index among the least, whatever argmin does with ties.
    const at::Tensor least = cost.amin(1, /*keepdim=*/true);
    const at::Tensor index = at::arange(e.size(0), codes.options());
    const at::Tensor nearest =
        at::where(cost == least, index,
                  at::full({}, e.size(0), index.options()))
            .amin(1);
    const at::Tensor finite = z.isfinite().all(1);
    codes.narrow(0, begin, size)
        .copy_(at::where(finite, nearest, at::zeros({}, nearest.options())));
  }
  return codes;
}

const char* AssignKernelName() { return BestKernel().name; }

namespace internal {

at::Tensor AssignNearestCpu(const at::Tensor& features,
                            const at::Tensor& codebook, Metric metric,
                            const char* name) {
  CheckInputs(features, codebook);
  for (const ScanKernel* kernel : {&kScanGeneric, &kScanAvx2, &kScanAvx512}) {
    if (std::string(kernel->name) == name && Supported(*kernel))
      return AssignOnCpu(features, codebook, metric, *kernel);
  }
  TORCH_CHECK(false, "this processor has no kernel named ", name);
}

}  // namespace internal
}  // namespace semvq
