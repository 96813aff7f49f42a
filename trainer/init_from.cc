#include "trainer/init_from.h"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/safetensors.h"
#include "core/util/file.h"
#include "core/weights/key_map.h"
#include "core/weights/weights.h"
#include "re2/re2.h"

namespace semvq {
namespace {

using Names = std::vector<std::string>;

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

std::string Shape(const at::Tensor& tensor) {
  return absl::StrCat("[", absl::StrJoin(tensor.sizes(), ","), "] ",
                      c10::toString(tensor.scalar_type()));
}

void AppendList(const std::string& title, const Names& names,
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

// "text 12, itc.image_proj 2": the tensors of each instance.
std::string ByInstance(const Names& names) {
  std::map<std::string, int64_t> counts;
  for (const std::string& name : names)
    ++counts[name.substr(0, name.find('.'))];
  return absl::StrJoin(counts, ", ", [](std::string* out, const auto& item) {
    absl::StrAppend(out, item.first, " ", item.second);
  });
}

// Gathers all that is to be copied and all that is wrong, and then copies.
class Init {
 public:
  static absl::StatusOr<InitReport> Run(const InitFrom& config,
                                        const std::string& path,
                                        torch::nn::Module& module) {
    auto missing = Patterns::Compile("allow_missing", config.allow_missing());
    if (!missing.ok()) return missing.status();
    auto unexpected =
        Patterns::Compile("allow_unexpected", config.allow_unexpected());
    if (!unexpected.ok()) return unexpected.status();
    Init init(config, *std::move(missing), *std::move(unexpected), module);
    if (absl::Status s = init.PlanWeights(); !s.ok()) return s;
    if (absl::Status s = init.PlanRest(path); !s.ok()) return s;
    if (absl::Status s = init.Check(); !s.ok()) return s;
    return init.Copy();
  }

 private:
  struct Copied {
    at::Tensor target, value;
    size_t source;  // In report_.sources.
  };

  Init(const InitFrom& config, Patterns allow_missing,
       Patterns allow_unexpected, const torch::nn::Module& module)
      : config_(config),
        allow_missing_(std::move(allow_missing)),
        allow_unexpected_(std::move(allow_unexpected)) {
    for (const auto& p : module.named_parameters())
      model_.emplace_back(p.key(), p.value());
    for (const auto& b : module.named_buffers())
      model_.emplace_back(b.key(), b.value());
    for (const auto& [name, tensor] : model_) {
      ++report_.all;
      report_.all_values += tensor.numel();
    }
  }

  absl::Status PlanWeights() {
    struct OfFile {
      std::unique_ptr<SafetensorsFile> file;
      std::set<std::string> used, unused;
    };
    std::map<std::string, OfFile> files;
    for (const WeightsImport& import : config_.weights()) {
      OfFile& of_file = files[import.path()];
      if (of_file.file == nullptr) {
        auto file = SafetensorsFile::Open(import.path());
        if (!file.ok()) return file.status();
        of_file.file = *std::move(file);
      }
      auto names = KeyNames::Load(import.key_map());
      if (!names.ok()) return names.status();
      auto plan = PlanImport(import, *names, *of_file.file, model_);
      if (!plan.ok()) return plan.status();
      if (absl::Status s = Take(import, *names, *plan); !s.ok()) return s;
      of_file.used.merge(plan->used);
      of_file.unused.merge(plan->unused);
    }
    for (const auto& [path, of_file] : files) {
      for (const std::string& name : of_file.file->names()) {
        if (of_file.used.count(name) > 0) continue;
        Unexpected(name, of_file.unused.count(name) > 0);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Take(const WeightsImport& import, const KeyNames& names,
                    const ImportPlan& plan) {
    for (const auto& [name, tensor] : model_) {
      if (!absl::StartsWith(name, import.to())) continue;
      if (!claimed_.insert(name).second) {
        return absl::InvalidArgumentError(absl::StrCat(
            "init_from.weights[\"", import.name(), "\"].to: \"", import.to(),
            "\" begins ", name, ", which another entry fills as well"));
      }
    }
    const size_t source = report_.sources.size();
    report_.sources.push_back(
        {import.path(), absl::StrCat(import.to(), "*: ", names.summary()), 0, 0,
         plan.resized});
    for (const ImportPlan::Copy& copy : plan.copies) {
      copies_.push_back({copy.target, copy.value, source});
    }
    for (const std::string& name : plan.missing) Missing(name, false);
    for (const std::string& name : plan.ours_only) Missing(name, true);
    misshaped_.insert(misshaped_.end(), plan.misshaped.begin(),
                      plan.misshaped.end());
    if (plan.hint.has_value()) {
      hints_.push_back(absl::StrCat(
          "weights[\"", import.name(), "\"] found nothing under from: \"",
          import.from(), "\"; the names in the file suggest from: \"",
          *plan.hint, "\""));
    }
    return absl::OkStatus();
  }

  absl::Status PlanRest(const std::string& path) {
    if (path.empty()) {
      for (const auto& [name, tensor] : model_) {
        if (claimed_.count(name) == 0) report_.untouched.push_back(name);
      }
      return absl::OkStatus();
    }
    auto tensors = LoadModelTensors(path);
    if (!tensors.ok()) return tensors.status();
    const size_t source = report_.sources.size();
    report_.sources.push_back({path, "", 0, 0, {}});
    std::set<std::string> used;
    for (const auto& [name, target] : model_) {
      if (claimed_.count(name) > 0) continue;
      const std::string from = SourceName(config_, name);
      const auto found = tensors->find(from);
      if (found == tensors->end()) {
        Missing(name, false);
        continue;
      }
      used.insert(from);
      const at::Tensor& value = found->second;
      const bool types_fit =
          value.scalar_type() == target.scalar_type() ||
          (value.is_floating_point() && target.is_floating_point());
      if (value.sizes() != target.sizes() || !types_fit) {
        misshaped_.push_back(absl::StrCat(name, " ", Shape(target), " from ",
                                          from, " ", Shape(value)));
        continue;
      }
      copies_.push_back({target, value, source});
    }
    for (const auto& [name, tensor] : *tensors) {
      if (used.count(name) == 0) Unexpected(name, false);
    }
    return absl::OkStatus();
  }

  void Missing(const std::string& name, bool allowed) {
    allowed = allowed || allow_missing_.Match(name);
    (allowed ? report_.missing : missing_).push_back(name);
  }
  void Unexpected(const std::string& name, bool allowed) {
    allowed = allowed || allow_unexpected_.Match(name);
    (allowed ? report_.unexpected : unexpected_).push_back(name);
  }

  absl::Status Check() const {
    if (missing_.empty() && misshaped_.empty() && unexpected_.empty()) {
      return absl::OkStatus();
    }
    Names paths;
    for (const InitReport::Source& source : report_.sources) {
      if (std::find(paths.begin(), paths.end(), source.path) == paths.end())
        paths.push_back(source.path);
    }
    std::string message = absl::StrCat(
        "init_from ", absl::StrJoin(paths, ", "),
        " does not fit this model; correct `maps` or `weights`, or allow by "
        "name (allow_missing, allow_unexpected)");
    AppendList("missing in the file", missing_, message);
    AppendList("of another shape or type", misshaped_, message);
    AppendList("unexpected in the file", unexpected_, message);
    for (const std::string& hint : hints_)
      absl::StrAppend(&message, "\n  ", hint);
    return absl::InvalidArgumentError(message);
  }

  InitReport Copy() {
    c10::NoGradGuard no_grad;
    for (Copied& copy : copies_) {
      copy.target.copy_(copy.value);
      InitReport::Source& source = report_.sources[copy.source];
      ++source.loaded;
      source.loaded_values += copy.target.numel();
      ++report_.loaded;
      report_.loaded_values += copy.target.numel();
    }
    return std::move(report_);
  }

  const InitFrom& config_;
  Patterns allow_missing_, allow_unexpected_;
  NamedTensors model_;
  std::set<std::string> claimed_;  // By an entry of weights.
  std::vector<Copied> copies_;
  Names missing_, misshaped_, unexpected_, hints_;
  InitReport report_;
};

}  // namespace

std::string ToString(const InitReport& report) {
  std::string out = absl::StrCat("parameters loaded: ", report.loaded, " of ",
                                 report.all, " tensors, ", report.loaded_values,
                                 " of ", report.all_values, " values");
  for (const InitReport::Source& source : report.sources) {
    absl::StrAppend(&out, "\n  from ", source.path, ": ", source.loaded,
                    " tensors, ", source.loaded_values, " values");
    if (!source.what.empty()) absl::StrAppend(&out, " (", source.what, ")");
    AppendList("  resized", source.resized, out);
  }
  AppendList("keep their random start", report.missing, out);
  if (!report.untouched.empty()) {
    absl::StrAppend(&out, "\n  keep their random start, no source is given (",
                    report.untouched.size(),
                    "): ", ByInstance(report.untouched));
  }
  AppendList("in the file, not used", report.unexpected, out);
  return out;
}

absl::StatusOr<InitFrom> ResolveInitFrom(
    const InitFrom& config, const std::string& working_folder,
    const std::vector<std::string>& config_folders) {
  InitFrom resolved = config;
  if (resolved.has_path())
    resolved.set_path(JoinPath(working_folder, config.path()));
  for (WeightsImport& import : *resolved.mutable_weights()) {
    import.set_path(JoinPath(working_folder, import.path()));
    auto map = FindKeyMap(import.key_map(), working_folder, config_folders);
    if (!map.ok()) {
      return absl::Status(
          map.status().code(),
          absl::StrCat("init_from.weights[\"", import.name(),
                       "\"].key_map: ", map.status().message()));
    }
    import.set_key_map(*map);
  }
  return resolved;
}

absl::StatusOr<InitReport> InitParameters(const InitFrom& config,
                                          const std::string& path,
                                          torch::nn::Module& module) {
  return Init::Run(config, path, module);
}

}  // namespace semvq
