#include "tools/convert/convert.h"

#include <torch/types.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/safetensors.h"
#include "core/util/file.h"
#include "core/weights/key_map.h"
#include "core/weights/weights.h"
#include "google/protobuf/text_format.h"
#include "protos/experiment.pb.h"
#include "re2/re2.h"

namespace semvq {
namespace {

struct Flags {
  std::string checkpoint, out;
  std::vector<WeightsImport> parts;
  std::vector<std::unique_ptr<RE2>> drop;
};

absl::Status Wrong(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(what, "\nnext: --help shows the command line"));
}

absl::StatusOr<Flags> Parse(absl::Span<const std::string> args) {
  Flags flags;
  for (absl::string_view arg : args) {
    if (absl::ConsumePrefix(&arg, "--checkpoint=")) {
      flags.checkpoint = std::string(arg);
    } else if (absl::ConsumePrefix(&arg, "--out=")) {
      flags.out = std::string(arg);
    } else if (absl::ConsumePrefix(&arg, "--drop=")) {
      flags.drop.push_back(std::make_unique<RE2>(
          re2::StringPiece(arg.data(), arg.size()), RE2::Quiet));
      if (!flags.drop.back()->ok()) {
        return Wrong(absl::StrCat("--drop=", arg, " is no RE2 expression: ",
                                  flags.drop.back()->error()));
      }
    } else if (absl::ConsumePrefix(&arg, "--part=")) {
      flags.parts.emplace_back();
      if (!google::protobuf::TextFormat::ParseFromString(std::string(arg),
                                                         &flags.parts.back()) ||
          flags.parts.back().to().empty() ||
          flags.parts.back().key_map().empty()) {
        return Wrong(
            absl::StrCat("--part=", arg,
                         " is no WeightsImport with `key_map` and `to` "
                         "(protos/experiment.proto)"));
      }
    } else {
      return Wrong(absl::StrCat("unknown argument ", arg));
    }
  }
  if (flags.checkpoint.empty()) return Wrong("--checkpoint is missing");
  if (flags.out.empty()) return Wrong("--out is missing");
  if (flags.parts.empty()) return Wrong("--part is missing");
  return flags;
}

bool Dropped(const Flags& flags, const std::string& name) {
  return std::any_of(
      flags.drop.begin(), flags.drop.end(),
      [&name](const auto& p) { return RE2::FullMatch(name, *p); });
}

}  // namespace

std::string ConvertHelp() {
  return "Writes parts of a trained model as another project's weights.\n\n"
         "bazel run //tools/convert -- --checkpoint=PATH --out=PATH "
         "--part=PART... [--drop=REGEX...]\n\n"
         "  --checkpoint  a run's stage folder's checkpoints, one checkpoint "
         "folder, or a .safetensors file\n"
         "  --out         the .safetensors file to write\n"
         "  --part        one instance, as in init_from.weights:\n"
         "                'key_map: \"key_maps/timm_vit.textproto\" to: "
         "\"image.\"'\n"
         "                with `from` and `first_layer` where needed\n"
         "  --drop        parameters of these parts to leave out (RE2, full "
         "match of our names)\n\n"
         "docs/pretrained_weights.md has examples.\n";
}

absl::StatusOr<std::string> Convert(absl::Span<const std::string> args,
                                    const ConvertPlaces& places) {
  auto flags = Parse(args);
  if (!flags.ok()) return flags.status();
  auto tensors =
      LoadModelTensors(JoinPath(places.working_folder, flags->checkpoint));
  if (!tensors.ok()) return tensors.status();
  NamedTensors model;
  std::vector<std::string> dropped;
  for (auto& [name, tensor] : *tensors) {
    if (!Dropped(*flags, name)) {
      model.emplace_back(name, tensor);
    } else if (std::any_of(flags->parts.begin(), flags->parts.end(),
                           [&name = name](const WeightsImport& part) {
                             return absl::StartsWith(name, part.to());
                           })) {
      dropped.push_back(name);
    }
  }
  NamedTensors all;
  std::vector<std::string> unknown, ours_only, summaries;
  for (const WeightsImport& part : flags->parts) {
    auto path = FindKeyMap(part.key_map(), places.working_folder,
                           places.config_folders);
    if (!path.ok()) return path.status();
    auto names = KeyNames::Load(*path);
    if (!names.ok()) return names.status();
    auto exported = ExportWeights(part, *names, model);
    if (!exported.ok()) return exported.status();
    summaries.push_back(absl::StrCat("  ", part.to(),
                                     "*: ", exported->tensors.size(),
                                     " tensors (", names->summary(), ")"));
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(all, exported->tensors);
    append(unknown, exported->unknown);
    append(ours_only, exported->ours_only);
  }
  if (!unknown.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the naming has no name for ", unknown.size(),
        " parameters: ", absl::StrJoin(unknown, ", "),
        "\nnext: another key_map, or --drop what their model lacks"));
  }
  const std::string out = JoinPath(places.working_folder, flags->out);
  // What transformers asks of a file.
  if (absl::Status s = WriteSafetensors(out, all, {{"format", "pt"}});
      !s.ok()) {
    return s;
  }
  std::string text = absl::StrCat(out, ": ", all.size(), " tensors\n",
                                  absl::StrJoin(summaries, "\n"));
  if (!ours_only.empty()) {
    absl::StrAppend(&text, "\n  left out, their model has no such: ",
                    absl::StrJoin(ours_only, ", "));
  }
  if (!dropped.empty()) {
    absl::StrAppend(&text,
                    "\n  left out by --drop: ", absl::StrJoin(dropped, ", "));
  }
  return text;
}

}  // namespace semvq
