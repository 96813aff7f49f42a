#include "trainer/init_from.h"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/safetensors.h"
#include "core/util/file.h"
#include "re2/re2.h"

namespace semvq {
namespace {

class Patterns {
 public:
  template <class List>
  static absl::StatusOr<Patterns> Compile(const char* field, const List& list) {
    Patterns patterns;
    for (const std::string& text : list) {
      patterns.compiled_.push_back(std::make_unique<RE2>(text, RE2::Quiet));
      if (!patterns.compiled_.back()->ok()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "init_from.", field, ": \"", text,
            "\" is no RE2 expression: ", patterns.compiled_.back()->error()));
      }
    }
    return patterns;
  }
  bool Match(const std::string& name) const {
    return std::any_of(
        compiled_.begin(), compiled_.end(),
        [&name](const auto& p) { return RE2::FullMatch(name, *p); });
  }

 private:
  std::vector<std::unique_ptr<RE2>> compiled_;
};

std::string SourceName(const InitFrom& config, const std::string& name) {
  const PrefixMap* best = nullptr;
  for (const PrefixMap& map : config.maps()) {
    if (absl::StartsWith(name, map.to()) &&
        (best == nullptr || map.to().size() > best->to().size())) {
      best = &map;
    }
  }
  return best == nullptr ? name : best->from() + name.substr(best->to().size());
}

absl::StatusOr<std::map<std::string, at::Tensor>> ReadTensors(
    const std::string& path) {
  std::map<std::string, at::Tensor> tensors;
  if (IsDirectory(path)) {
    std::string folder = path;
    if (!PathExists(JoinPath(path, kManifestName))) {
      auto latest = FindLatestCheckpoint(path);
      if (!latest.ok()) return latest.status();
      folder = *latest;
    }
    auto contents = LoadCheckpoint(folder, {"model"});
    if (!contents.ok()) return contents.status();
    for (auto& [name, tensor] : contents->sections["model"]) {
      tensors[name] = tensor;
    }
    return tensors;
  }
  auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  for (const std::string& name : (*file)->names()) {
    auto tensor = (*file)->Get(name);
    if (!tensor.ok()) return tensor.status();
    tensors[name] = *tensor;
  }
  return tensors;
}

void AppendList(const char* title, const std::vector<std::string>& names,
                std::string& out) {
  if (names.empty()) return;
  constexpr size_t kShown = 20;
  absl::StrAppend(&out, "\n  ", title, " (", names.size(), "): ");
  const size_t n = std::min(names.size(), kShown);
  absl::StrAppend(&out,
                  absl::StrJoin(names.begin(),
                                names.begin() + static_cast<int64_t>(n), ", "));
  if (n < names.size()) absl::StrAppend(&out, ", ...");
}

}  // namespace

std::string ToString(const InitReport& report) {
  std::string out =
      absl::StrCat("parameters from ", report.source, ": ", report.loaded,
                   " tensors, ", report.loaded_values, " values");
  AppendList("keep their random start", report.missing, out);
  AppendList("not used", report.unexpected, out);
  return out;
}

absl::StatusOr<InitReport> InitParameters(const InitFrom& config,
                                          const std::string& path,
                                          torch::nn::Module& module) {
  auto allow_missing =
      Patterns::Compile("allow_missing", config.allow_missing());
  if (!allow_missing.ok()) return allow_missing.status();
  auto allow_unexpected =
      Patterns::Compile("allow_unexpected", config.allow_unexpected());
  if (!allow_unexpected.ok()) return allow_unexpected.status();
  auto tensors = ReadTensors(path);
  if (!tensors.ok()) return tensors.status();

  InitReport report;
  report.source = path;
  std::vector<std::string> missing, misshaped, unexpected;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  std::set<std::string> used;
  const auto match = [&](const std::string& name, const at::Tensor& target) {
    const std::string source = SourceName(config, name);
    auto found = tensors->find(source);
    if (found == tensors->end()) {
      (allow_missing->Match(name) ? report.missing : missing).push_back(name);
      return;
    }
    used.insert(source);
    if (found->second.sizes() != target.sizes()) {
      misshaped.push_back(absl::StrCat(
          name, " [", absl::StrJoin(target.sizes(), ","), "] from ", source,
          " [", absl::StrJoin(found->second.sizes(), ","), "]"));
      return;
    }
    copies.emplace_back(target, found->second);
  };
  for (const auto& p : module.named_parameters()) match(p.key(), p.value());
  for (const auto& b : module.named_buffers()) match(b.key(), b.value());
  for (const auto& [name, tensor] : *tensors) {
    if (used.count(name) > 0) continue;
    (allow_unexpected->Match(name) ? report.unexpected : unexpected)
        .push_back(name);
  }
  if (!missing.empty() || !misshaped.empty() || !unexpected.empty()) {
    std::string message = absl::StrCat(
        "init_from ", path,
        " does not fit this model; correct `maps`, or allow by name "
        "(allow_missing, allow_unexpected)");
    AppendList("missing in the file", missing, message);
    AppendList("of another shape", misshaped, message);
    AppendList("unexpected in the file", unexpected, message);
    return absl::InvalidArgumentError(message);
  }
  c10::NoGradGuard no_grad;
  for (auto& [target, source] : copies) {
    target.copy_(source);
    ++report.loaded;
    report.loaded_values += source.numel();
  }
  return report;
}

}  // namespace semvq
