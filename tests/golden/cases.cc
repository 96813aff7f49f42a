#include "tests/golden/cases.h"

#include <torch/types.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/checkpoint/safetensors.h"
#include "core/util/file.h"

namespace semvq {
namespace {

using CaseFunction = absl::StatusOr<Tensors> (*)(const Tensors&);

const std::map<std::string, CaseFunction>& Cases() {
  static const auto* cases = new std::map<std::string, CaseFunction>{
      {"images", RunImages},
      {"itc", RunItc},
      {"itm", RunItm},
      {"mlm", RunMlm},
      {"optimizer", RunOptimizer},
      {"model_step", RunModelStep},
      {"model_curve", RunModelCurve},
  };
  return *cases;
}

}  // namespace

const std::vector<std::string>& CaseNames() {
  static const auto* names = [] {
    auto* list = new std::vector<std::string>;
    for (const auto& [name, function] : Cases()) list->push_back(name);
    return list;
  }();
  return *names;
}

absl::StatusOr<Tensors> RunCase(const std::string& name, const Tensors& in) {
  const auto found = Cases().find(name);
  if (found == Cases().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no case \"", name, "\"; expected one of ",
                     absl::StrJoin(CaseNames(), ", ")));
  }
  return found->second(in);
}

absl::StatusOr<at::Tensor> Input(const Tensors& in, const std::string& name) {
  const auto found = in.find(name);
  if (found == in.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the input has no tensor ", name));
  }
  const at::Tensor& tensor = found->second;
  return tensor.scalar_type() == at::kChar ? tensor.to(at::kDouble) / 64.0
                                           : tensor;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> SizedTokenizer(int64_t size) {
  std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";
  for (int64_t i = 5; i < size; ++i) {
    absl::StrAppend(&vocabulary, "w", i, "\n");
  }
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string path = absl::StrCat(folder != nullptr ? folder : "/tmp",
                                        "/semvq_golden_", getpid(), ".txt");
  absl::Status status = AtomicWriteFile(path, vocabulary);
  if (!status.ok()) return status;
  auto tokenizer = LoadWordPiece(path);
  unlink(path.c_str());
  return tokenizer;
}

absl::StatusOr<Tensors> ReadTensors(const std::string& path) {
  auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  Tensors tensors;
  for (const std::string& name : (*file)->names()) {
    auto tensor = (*file)->Get(name);
    if (!tensor.ok()) return tensor.status();
    tensors[name] = *tensor;
  }
  return tensors;
}

}  // namespace semvq
