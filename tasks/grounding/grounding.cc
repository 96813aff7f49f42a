#include "tasks/grounding/grounding.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/forward/types.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/task.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "tasks/grounding/boxes.h"
#include "tasks/grounding/grad_cam.h"
#include "tasks/grounding/heat_map.h"

namespace semvq {
namespace {

// Sums over texts; shares of `texts` are the metrics.
struct Tally {
  int64_t texts = 0;
  double hits = 0, pointed = 0;
  // What needs no model: a proposal or a pixel at random (expected values), the
  // largest proposal (what a map without any shape chooses), and the image's
  // centre.
  double random_hits = 0, random_pointed = 0, largest_hits = 0, centred = 0;
};

struct Found {
  int64_t proposal = -1;  // -1: none.
  double score = 0, iou = 0;
  Pixel maximum;
};

// A part of a file's name, of letters and digits.
std::string FileNamePart(absl::string_view text) {
  std::string part;
  for (const char c : text.substr(0, 60))
    part += absl::ascii_isalnum(c) ? c : '_';
  return part;
}

// Numbers so that reading them gives the same ones.
std::string ResultRow(absl::string_view id, const Reference& reference,
                      const Found& found) {
  std::string box = "null";
  if (found.proposal >= 0) {
    const Box& b = reference.proposals[found.proposal];
    box = absl::StrFormat("[%.17g, %.17g, %.17g, %.17g]", b.x, b.y, b.width,
                          b.height);
  }
  return absl::StrFormat(
      "{\"ref_id\": %s, \"box\": %s, \"score\": %.17g, \"iou\": %.17g, "
      "\"point\": [%d, %d]}",
      JsonNumberOrString(id), box, found.score, found.iou, found.maximum.x,
      found.maximum.y);
}

class Grounding : public Task {
 public:
  Grounding(const GroundingConfig& config, std::string instance, BoxFile boxes)
      : config_(config),
        instance_(std::move(instance)),
        boxes_(std::move(boxes)) {}

  absl::StatusOr<TaskResult> Evaluate(EvalContext& context) override;

 private:
  Found Find(const PixelMap& map, const Reference& reference) const;
  void Count(const Reference& reference, const Found& found,
             Tally* tally) const;
  absl::Status WritePicture(const at::Tensor& image, const PixelMap& map,
                            const std::string& text, const Reference& reference,
                            const Found& found, const std::string& path) const;

  const GroundingConfig config_;
  const std::string instance_;
  const BoxFile boxes_;
};

Found Grounding::Find(const PixelMap& map, const Reference& reference) const {
  Found found;
  found.maximum = Maximum(map);
  found.proposal =
      BestProposal(map, reference.proposals, config_.area_exponent());
  if (found.proposal >= 0) {
    const Box& box = reference.proposals[found.proposal];
    found.score = BoxScore(map, box, config_.area_exponent());
    found.iou = IntersectionOverUnion(reference.box, box);
  }
  return found;
}

void Grounding::Count(const Reference& reference, const Found& found,
                      Tally* tally) const {
  ++tally->texts;
  tally->hits += found.proposal >= 0 && found.iou >= config_.min_iou();
  tally->pointed += Contains(reference.box, found.maximum);
  tally->random_pointed += CoveredShare(reference);
  tally->centred +=
      Contains(reference.box, {reference.width / 2, reference.height / 2});
  if (reference.proposals.empty()) return;
  const auto hits = [&](const Box& box) {
    return IntersectionOverUnion(reference.box, box) >= config_.min_iou();
  };
  tally->random_hits +=
      static_cast<double>(std::count_if(reference.proposals.begin(),
                                        reference.proposals.end(), hits)) /
      static_cast<double>(reference.proposals.size());
  tally->largest_hits += hits(
      *std::max_element(reference.proposals.begin(), reference.proposals.end(),
                        [](const Box& a, const Box& b) {
                          return a.width * a.height < b.width * b.height;
                        }));
}

absl::Status Grounding::WritePicture(const at::Tensor& image,
                                     const PixelMap& map,
                                     const std::string& text,
                                     const Reference& reference,
                                     const Found& found,
                                     const std::string& path) const {
  // Undoes the default normalisation. (A stream with another one gives shifted
  // colours; a task does not know its stream.)
  const at::Tensor mean =
      at::tensor({0.48145466, 0.4578275, 0.40821073}).view({3, 1, 1});
  const at::Tensor deviation =
      at::tensor({0.26862954, 0.26130258, 0.27577711}).view({3, 1, 1});
  const at::Tensor pixels =
      (image.to(at::kCPU) * deviation + mean).to(at::kFloat).contiguous();
  HeatMap heat_map;
  heat_map.side = pixels.size(2);
  const float* data = pixels.data_ptr<float>();
  heat_map.pixels.assign(data, data + pixels.numel());
  heat_map.map = map;
  heat_map.truth = reference.box;
  if (found.proposal >= 0)
    heat_map.chosen = &reference.proposals[found.proposal];
  heat_map.maximum = found.maximum;
  heat_map.text = text;
  return WriteHeatMap(heat_map, path);
}

absl::StatusOr<TaskResult> Grounding::Evaluate(EvalContext& context) {
  const GradCamViews views = {config_.fusion(), config_.matching(),
                              config_.visual(), config_.text(),
                              config_.layer()};
  TaskResult result;
  Tally all;
  std::map<std::string, Tally> splits;
  std::vector<std::string> rows, unknown;
  int64_t unknown_texts = 0, without_proposals = 0, without_weight = 0;

  const auto measure = [&](const TextRecord& text, const at::Tensor& cam,
                           const at::Tensor& image) {
    const auto known = boxes_.references.find(text.id);
    if (known == boxes_.references.end()) {
      ++unknown_texts;
      if (unknown.size() < 3)
        unknown.push_back(absl::StrCat("\"", text.id, "\""));
      return absl::OkStatus();
    }
    const Reference& reference = known->second;
    const at::Tensor pixels =
        ResizeMap(cam, reference.height, reference.width,
                  config_.interpolation() == GroundingConfig::BICUBIC);
    const PixelMap map = {pixels.data_ptr<double>(), reference.width,
                          reference.height};
    const Found found = Find(map, reference);
    Count(reference, found, &all);
    if (!reference.split.empty())
      Count(reference, found, &splits[reference.split]);
    without_proposals += reference.proposals.empty();
    without_weight += !reference.proposals.empty() && found.proposal < 0;
    rows.push_back(ResultRow(text.id, reference, found));
    if (all.texts > config_.heat_maps()) return absl::OkStatus();
    const std::string path =
        JoinPath(context.output_folder(),
                 absl::StrCat(instance_, "_heat_map_", all.texts, "_",
                              FileNamePart(text.text), ".png"));
    result.files.push_back(path);
    return WritePicture(image, map, text.text, reference, found, path);
  };

  const auto look = [&](const Batch& batch) -> absl::StatusOr<BatchOutcome> {
    std::unique_ptr<Forward> forward = context.MakeForward(batch);
    absl::StatusOr<at::Tensor> cams = GradCam(views, *forward);
    if (!cams.ok()) {
      return absl::Status(
          cams.status().code(),
          absl::StrCat("task ", instance_, ": ", cams.status().message()));
    }
    if (!cams->isfinite().all().item<bool>()) {
      return absl::FailedPreconditionError(
          absl::StrCat("task ", instance_,
                       ": the attention's gradient is not finite; the "
                       "model has diverged, go back to an earlier checkpoint"));
    }
    BatchOutcome outcome{{*cams}, {}};
    // For the heat maps that are still to be drawn.
    if (all.texts < config_.heat_maps())
      outcome.tensors.push_back(batch.images.select(1, 0).to(at::kCPU));
    return outcome;
  };
  absl::Status status = context.ShareBatches(
      "", look,
      [&](const Batch& batch, const BatchOutcome& outcome) -> absl::Status {
        const at::Tensor owner = batch.text_to_image.to(at::kCPU);
        for (int64_t t = 0; t < batch.num_texts(); ++t) {
          absl::Status measured =
              measure(batch.texts[t], outcome.tensors[0][t],
                      outcome.tensors.size() > 1
                          ? outcome.tensors[1][owner[t].item<int64_t>()]
                          : at::Tensor());
          if (!measured.ok()) return measured;
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  if (all.texts == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "task ", instance_, ": none of the stream's ", unknown_texts,
        " texts is in ", config_.boxes(),
        unknown.empty() ? ""
                        : absl::StrCat(", the first ones have the ref_ids ",
                                       absl::StrJoin(unknown, ", ")),
        "; expected ref_ids of both to agree"));
  }

  const auto add = [&result](std::string name, double sum, const Tally& tally,
                             double chance, bool headline) {
    TaskMetric metric;
    metric.name = std::move(name);
    metric.value = 100 * sum / static_cast<double>(tally.texts);
    metric.chance = 100 * chance / static_cast<double>(tally.texts);
    metric.unit = "%";
    metric.headline = headline;
    result.metrics.push_back(metric);
  };
  const std::string hit = absl::StrCat("hit@", config_.min_iou());
  add(hit, all.hits, all, all.random_hits, true);
  add("pointing", all.pointed, all, all.random_pointed, true);
  const double none = std::nan("");
  add("baseline: largest proposal", all.largest_hits, all, none, true);
  add("baseline: centre point", all.centred, all, none, true);
  for (const auto& [split, tally] : splits) {
    add(absl::StrCat(split, " ", hit), tally.hits, tally, tally.random_hits,
        false);
    add(absl::StrCat(split, " pointing"), tally.pointed, tally,
        tally.random_pointed, false);
  }

  const std::string path = JoinPath(context.output_folder(),
                                    absl::StrCat(instance_, "_result.json"));
  status = AtomicWriteFile(
      path, absl::StrCat("[\n", absl::StrJoin(rows, ",\n"), "\n]\n"));
  if (!status.ok()) return status;
  result.files.insert(result.files.begin(), path);

  result.note = absl::StrCat(all.texts, " texts");
  const auto tell = [&result](int64_t count, absl::string_view what) {
    if (count > 0) absl::StrAppend(&result.note, "; ", count, " ", what);
  };
  tell(unknown_texts, absl::StrCat("texts have no boxes and are left out (",
                                   absl::StrJoin(unknown, ", "),
                                   unknown_texts > 3 ? ", ...)" : ")"));
  tell(without_proposals, "texts have no proposals and are misses");
  tell(without_weight, "maps have no weight in any proposal and are misses");
  tell(boxes_.reaching_out, "boxes of the file reach out of their image");
  tell(context.skipped(), "bad samples are left out");
  return result;
}

}  // namespace

absl::Status ValidateGrounding(const GroundingConfig& config) {
  FieldErrors errors;
  errors.Require(!config.boxes().empty(), "boxes", "nothing",
                 "the path of a JSON list of boxes");
  errors.RequireInstance("fusion", config.fusion());
  errors.RequireInstance("matching", config.matching());
  errors.RequireInstance("visual", config.visual());
  errors.RequireInstance("text", config.text());
  errors.RequireNotNegative("layer", config.layer());
  errors.Require(config.area_exponent() >= 0 && config.area_exponent() <= 1,
                 "area_exponent", config.area_exponent(), "0 to 1");
  errors.Require(config.min_iou() > 0 && config.min_iou() <= 1, "min_iou",
                 config.min_iou(), "more than 0, at most 1");
  errors.RequireNotNegative("heat_maps", config.heat_maps());
  return errors.status();
}

Contract GroundingContract(const std::string& /*instance*/,
                           const GroundingConfig& config,
                           const ContractBook& /*book*/) {
  Contract contract;
  contract.batch_keys = {"image", "text"};
  contract.needs = {
      {"layer", config.fusion(), CrossAttentionView(config.layer()), 0, false,
       "its attention is what is looked at"},
      {"fusion", config.fusion(), kFused},
      {"matching", config.matching(), kMatchLogits, 2, false,
       "its match score is explained"},
      {"visual", config.visual(), kTokens},
      {"text", config.text(), kTokens},
  };
  contract.files = {{"boxes", config.boxes(),
                     "JSON list of {ref_id, width, height, box, proposals}"}};
  return contract;
}

absl::StatusOr<std::shared_ptr<Task>> MakeGrounding(
    const GroundingConfig& config, const PluginContext& context) {
  absl::StatusOr<BoxFile> boxes = ReadBoxes(config.boxes());
  // Only sizes matter then.
  if (absl::IsNotFound(boxes.status()) && context.planning) boxes = BoxFile();
  if (!boxes.ok()) return boxes.status();
  return std::shared_ptr<Task>(
      std::make_shared<Grounding>(config, context.instance, *std::move(boxes)));
}

}  // namespace semvq
