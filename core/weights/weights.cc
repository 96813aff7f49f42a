#include "core/weights/weights.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/nn/position.h"

namespace semvq {
namespace {

std::string Shape(at::IntArrayRef sizes) {
  return absl::StrCat("[", absl::StrJoin(sizes, ","), "]");
}

// The side of a square grid of `cells`; 0 when it is none.
int64_t SquareSide(int64_t cells) {
  if (cells <= 0) return 0;
  const auto side = static_cast<int64_t>(std::llround(std::sqrt(cells)));
  return side * side == cells ? side : 0;
}

// `value` in the shape of `sizes`; undefined where the rule does not say how.
at::Tensor Resized(const at::Tensor& value, at::IntArrayRef sizes,
                   KeyRule::Resize resize, bool antialias) {
  if (resize == KeyRule::POSITIONS && value.dim() == 3 && sizes.size() == 3 &&
      value.size(0) == 1 && sizes[0] == 1 && value.size(2) == sizes[2]) {
    const int64_t from = SquareSide(value.size(1) - 1);
    const int64_t to = SquareSide(sizes[1] - 1);
    if (from == 0 || to == 0) return {};
    return ResizePositions(value.to(at::kFloat), {from, from}, {to, to}, 1,
                           antialias);
  }
  if (resize == KeyRule::RELATIVE_POSITIONS && value.dim() == 2 &&
      sizes.size() == 2 && value.size(1) == sizes[1]) {
    const int64_t from = SquareSide(value.size(0) - 3);
    const int64_t to = SquareSide(sizes[0] - 3);
    if (from % 2 == 0 || to % 2 == 0) return {};
    const int64_t from_side = (from + 1) / 2, to_side = (to + 1) / 2;
    return ResizeRelativePositions(value.to(at::kFloat), {from_side, from_side},
                                   {to_side, to_side});
  }
  return {};
}

// Stacks what the file has; an undefined tensor stands for zeros and gets the
// rows that the others leave of `rows`.
at::Tensor Stack(std::vector<at::Tensor> parts, int64_t rows) {
  if (parts.size() == 1) return parts[0];
  at::Tensor* zeros = nullptr;
  std::vector<int64_t> shape;
  for (at::Tensor& part : parts) {
    if (part.defined()) {
      if (part.dim() == 0) return {};
      if (shape.empty()) shape = part.sizes().vec();
      if (part.sizes().slice(1) != at::IntArrayRef(shape).slice(1)) return {};
      rows -= part.size(0);
    } else {
      zeros = &part;
    }
  }
  if (zeros != nullptr) {
    if (rows < 0) return {};
    shape[0] = rows;
    for (const at::Tensor& part : parts) {
      if (part.defined()) *zeros = at::zeros(shape, part.options());
    }
  }
  return at::cat(parts);
}

class Importer {
 public:
  Importer(const WeightsImport& import, const KeyNames& names,
           const SafetensorsFile& file)
      : import_(import), names_(names), file_(file) {
    for (const std::string& name : file.names()) {
      if (!absl::StartsWith(name, import.from())) continue;
      const std::string canonical =
          names.Canonical(name.substr(import.from().size()));
      in_file_.emplace(canonical, name);
      if (names.IsUnused(canonical)) plan_.unused.insert(name);
    }
  }

  absl::Status Add(const std::string& name, const at::Tensor& target) {
    const std::string ours = name.substr(import_.to().size());
    const std::vector<KeyNames::Match> matches =
        names_.Find(ours, import_.first_layer());
    for (const KeyNames::Match& match : matches) {
      const bool all_there = std::all_of(
          match.theirs.begin(), match.theirs.end(), [&](const auto& theirs) {
            return theirs.empty() || in_file_.count(theirs) > 0;
          });
      if (all_there) return Read(name, target, match);
    }
    (names_.IsOursOnly(ours) ? plan_.ours_only : plan_.missing).push_back(name);
    // For the hint, if it stays the only one.
    if (!matches.empty()) wanted_.push_back(matches[0].theirs[0]);
    return absl::OkStatus();
  }

  ImportPlan Finish() {
    if (plan_.copies.empty()) plan_.hint = Hint();
    return std::move(plan_);
  }

 private:
  absl::Status Read(const std::string& name, const at::Tensor& target,
                    const KeyNames::Match& match) {
    std::vector<at::Tensor> parts;
    std::vector<std::string> described;
    for (const std::string& theirs : match.theirs) {
      parts.emplace_back();
      if (theirs.empty()) continue;
      const std::string& in_file = in_file_.at(theirs);
      auto part = file_.View(in_file);
      if (!part.ok()) return part.status();
      parts.back() = *part;
      plan_.used.insert(in_file);
      plan_.unused.erase(in_file);
      described.push_back(absl::StrCat(in_file, " ", Shape(part->sizes()), " ",
                                       c10::toString(part->scalar_type())));
    }
    at::Tensor value = Stack(parts, target.dim() > 0 ? target.size(0) : 0);
    if (value.defined() && value.sizes() != target.sizes()) {
      const at::Tensor resized = Resized(
          value, target.sizes(), match.rule->resize(), import_.antialias());
      if (resized.defined()) {
        plan_.resized.push_back(absl::StrCat(name, " ", Shape(value.sizes()),
                                             " to ", Shape(target.sizes())));
      }
      value = resized;
    }
    const bool types_fit =
        value.defined() &&
        (value.scalar_type() == target.scalar_type() ||
         (value.is_floating_point() && target.is_floating_point()));
    if (!types_fit) {
      plan_.misshaped.push_back(
          absl::StrCat(name, " ", Shape(target.sizes()), " ",
                       c10::toString(target.scalar_type()), " from ",
                       absl::StrJoin(described, " + ")));
      return absl::OkStatus();
    }
    plan_.copies.push_back({name, target, value});
    return absl::OkStatus();
  }

  std::optional<std::string> Hint() const {
    for (const std::string& wanted : wanted_) {
      for (const std::string& name : file_.names()) {
        const std::string canonical = names_.Canonical(name);
        if (!wanted.empty() && absl::EndsWith(canonical, wanted)) {
          return canonical.substr(0, canonical.size() - wanted.size());
        }
      }
    }
    return std::nullopt;
  }

  const WeightsImport& import_;
  const KeyNames& names_;
  const SafetensorsFile& file_;
  std::map<std::string, std::string> in_file_;  // Canonical to the file's.
  std::vector<std::string> wanted_;
  ImportPlan plan_;
};

absl::Status NothingBegins(const WeightsImport& part,
                           const NamedTensors& model) {
  std::set<std::string> instances;
  for (const auto& [name, tensor] : model) {
    instances.insert(name.substr(0, name.find('.') + 1));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "weights[\"", part.name(), "\"].to: \"", part.to(),
      "\" begins no parameter's name of this model; expected one of ",
      absl::StrJoin(instances, ", ")));
}

}  // namespace

absl::StatusOr<ImportPlan> PlanImport(const WeightsImport& import,
                                      const KeyNames& names,
                                      const SafetensorsFile& file,
                                      const NamedTensors& model) {
  Importer importer(import, names, file);
  bool any = false;
  for (const auto& [name, target] : model) {
    if (!absl::StartsWith(name, import.to())) continue;
    any = true;
    if (absl::Status s = importer.Add(name, target); !s.ok()) return s;
  }
  if (!any) return NothingBegins(import, model);
  return importer.Finish();
}

absl::StatusOr<Exported> ExportWeights(const WeightsImport& part,
                                       const KeyNames& names,
                                       const NamedTensors& model) {
  Exported exported;
  bool any = false;
  for (const auto& [name, tensor] : model) {
    if (!absl::StartsWith(name, part.to())) continue;
    any = true;
    const std::string ours = name.substr(part.to().size());
    const std::vector<KeyNames::Match> matches =
        names.Find(ours, part.first_layer());
    if (matches.empty()) {
      (names.IsOursOnly(ours) ? exported.ours_only : exported.unknown)
          .push_back(name);
      continue;
    }
    const std::vector<std::string>& theirs = matches[0].theirs;
    const auto pieces = static_cast<int64_t>(theirs.size());
    if (pieces > 1 && (tensor.dim() == 0 || tensor.size(0) % pieces != 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter ", name, " ", Shape(tensor.sizes()),
                       " cannot be cut into ", pieces, " equal pieces (",
                       absl::StrJoin(theirs, ", "), ")"));
    }
    const std::vector<at::Tensor> cut =
        pieces > 1 ? tensor.chunk(pieces) : std::vector<at::Tensor>{tensor};
    for (int64_t i = 0; i < pieces; ++i) {
      if (theirs[i].empty()) continue;
      exported.tensors.emplace_back(absl::StrCat(part.from(), theirs[i]),
                                    cut[i]);
    }
  }
  if (!any) return NothingBegins(part, model);
  return exported;
}

}  // namespace semvq
