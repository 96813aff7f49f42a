#ifndef SEMVQ_TASKS_CLASSIFICATION_IMAGE_COLLECTOR_H_
#define SEMVQ_TASKS_CLASSIFICATION_IMAGE_COLLECTOR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/plugin/task.h"
#include "tasks/classification/config.pb.h"

namespace semvq {

// The images of a stream that have a class, on the CPU.
struct LabelledImages {
  std::vector<std::string> ids;
  std::vector<int64_t> labels;
  at::Tensor embedding;              // [N, d], for zero-shot; may be undefined.
  std::vector<at::Tensor> features;  // [N, D], one a probe.
  int64_t without_class = 0;
  at::Device device = at::kCPU;  // The model's.
};

// Passes over a stream for what probes and zero-shot classification read.
class ImageCollector {
 public:
  // `where` begins each error's message. `codes_per_group`: one a probe, empty
  // for those that are not on codes. `config` and `classes` must outlive it.
  ImageCollector(const ClassificationConfig& config, std::string where,
                 const std::vector<std::string>& classes,
                 std::vector<std::vector<int64_t>> codes_per_group);

  // `stream`: empty for the task's own. `zero_shot`: also the embeddings. An
  // image labelled with two classes, features that are not finite and a stream
  // without any class are errors.
  absl::StatusOr<LabelledImages> Collect(EvalContext& context,
                                         const std::string& stream,
                                         bool zero_shot) const;

 private:
  // -1: none of the image's texts has one.
  absl::StatusOr<std::vector<int64_t>> Labels(const Batch& batch) const;
  absl::StatusOr<at::Tensor> Features(size_t probe, Forward& forward) const;
  absl::Status Error(absl::string_view message) const;

  const ClassificationConfig& config_;
  const std::string where_;
  const std::vector<std::string>& classes_;
  const std::vector<std::vector<int64_t>> codes_per_group_;
  std::map<std::string, int64_t> index_;
};

}  // namespace semvq

#endif  // SEMVQ_TASKS_CLASSIFICATION_IMAGE_COLLECTOR_H_
