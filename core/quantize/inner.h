// What quantizers around quantizers share.
#ifndef SEMVQ_CORE_QUANTIZE_INNER_H_
#define SEMVQ_CORE_QUANTIZE_INNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "core/plugin/nested.h"
#include "core/plugin/quantizer.h"
#include "google/protobuf/any.pb.h"

namespace semvq {

// The contract of the quantizer in `any` as an instance of its own, on features
// of dimension `dim` (0: not known). Empty when `any` holds no quantizer: that
// is reported where configs are checked.
Contract InnerContract(const google::protobuf::Any& any,
                       const std::string& instance, int64_t dim,
                       const ContractBook& book);

// Builds it, with its config checked. Errors name `instance`. Its random
// streams are keyed by `instance`, so that no two parts draw the same numbers.
absl::StatusOr<std::shared_ptr<Quantizer>> MakeInner(
    const google::protobuf::Any& any, const std::string& instance, int64_t dim,
    const PluginContext& context);

// `count` of them, named "<context.instance>/0" and so on.
absl::StatusOr<std::vector<std::shared_ptr<Quantizer>>> MakeInners(
    const google::protobuf::Any& any, int64_t count, int64_t dim,
    const PluginContext& context);

// What the parts of a wrapper say, as what the wrapper says:
//   losses       the mean over all parts, under the parts' names;
//   metrics      the mean under the parts' names, and each part's own as
//                "<part><i>/<name>";
//   entropy      the sum: H(q) of all codes of a position, each given those
//                drawn before it.
class PartReports {
 public:
  // `part`: "level", "group". A part that is never added counts as 0 in the
  // losses and the entropy, and not at all in the metrics.
  PartReports(std::string part, int64_t parts)
      : part_(std::move(part)), parts_(parts) {}

  void Add(int64_t index, const Quantized& quantized);
  // Sets losses, metrics and entropy of `whole`.
  void Report(Quantized* whole) const;

  // Quantizer::CodeValues of parts, each as "<part><i>/<name>". One part that
  // serves as all of them says it once, under its own names.
  static NamedTensors CodeValues(
      const std::string& part,
      const std::vector<std::shared_ptr<Quantizer>>& parts);

 private:
  struct Sum {
    at::Tensor value;
    int64_t count = 0;
  };
  using Sums = std::vector<std::pair<std::string, Sum>>;  // In order of names'
                                                          // first appearance.
  static void AddTo(const NamedTensors& values, Sums* sums);

  std::string part_;
  int64_t parts_;
  Sums losses_, metrics_;
  NamedTensors own_;
  at::Tensor entropy_;
};

// Sets the metrics of `whole` that parts cannot know: quantization_error, the
// mean over valid positions of |features - vectors|^2, and nonfinite, the valid
// positions with NaN or infinity, of all ranks. Features [B, N, D]. Collective
// with a group.
void ReportWhole(const at::Tensor& features, const QuantizeContext& context,
                 Quantized* whole);

}  // namespace semvq

#endif  // SEMVQ_CORE_QUANTIZE_INNER_H_
