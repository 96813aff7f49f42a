#include "trainer/code_use.h"

#include <torch/types.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace semvq {
namespace {

// Values float32 [K] of whole numbers by powers of 2, without empty last ones.
template <class List>
void CountByPowers(const at::Tensor& values, List* out) {
  if (!values.defined()) return;
  const float* v = values.data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    const int bucket = v[i] >= 1 ? 1 + std::ilogb(v[i]) : 0;
    while (out->size() <= bucket) out->Add(0);
    out->Set(bucket, out->Get(bucket) + 1);
  }
}

}  // namespace

std::vector<CodeVectors> CodeVectorsOf(const std::string& name,
                                       const NamedTensors& values) {
  std::vector<CodeVectors> all;
  for (const auto& [key, value] : values) {
    const size_t slash = key.rfind('/');
    const bool part = slash != std::string::npos;
    const std::string owner =
        part ? absl::StrCat(name, "/", key.substr(0, slash)) : name;
    const std::string kind = part ? key.substr(slash + 1) : key;
    if (all.empty() || all.back().name != owner) all.push_back({owner, {}, {}});
    const at::Tensor host = value.to(at::kCPU, at::kFloat).contiguous();
    if (kind == "code_counts") all.back().counts = host;
    if (kind == "code_age") all.back().age = host;
  }
  return all;
}

CodeUse Summarise(const CodeVectors& codes, int64_t step) {
  CodeUse use;
  use.set_name(codes.name);
  use.set_step(step);
  CountByPowers(codes.counts, use.mutable_by_count());
  CountByPowers(codes.age, use.mutable_by_age());
  return use;
}

}  // namespace semvq
