// Annotation files. The first line of the input names the format, with "+root"
// an image_root is set; the rest are its files, between lines "----".
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/plugin/context.h"
#include "core/text/caption.h"
#include "data/json_records.h"
#include "data/sources/albef_json/albef_json.h"
#include "data/sources/coco_captions/coco_captions.h"
#include "data/sources/karpathy_json/karpathy_json.h"
#include "data/sources/nlvr2_jsonl/nlvr2_jsonl.h"
#include "data/sources/snli_ve_jsonl/snli_ve_jsonl.h"
#include "data/sources/vqa_v2/vqa_v2.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace semvq;  // NOLINT: no header.

constexpr absl::string_view kRoot = "/pictures";

void ReadAll(const absl::StatusOr<std::shared_ptr<DataSource>>& source) {
  if (!source.ok()) {
    FUZZ_CHECK(!source.status().message().empty());
    return;
  }
  for (int64_t i = 0; i < (*source)->size(); ++i) {
    const absl::StatusOr<Sample> sample = (*source)->Read(i);
    if (!sample.ok()) {
      FUZZ_CHECK(!sample.status().message().empty());
      continue;
    }
    FUZZ_CHECK(!sample->where.empty());
    FUZZ_CHECK(!sample->image_paths.empty());
    for (const std::string& path : sample->image_paths) {
      FUZZ_CHECK(!path.empty() && !absl::StrContains(path, '\0'));
    }
    FUZZ_CHECK(!sample->texts.empty());
    for (const TextRecord& text : sample->texts) {
      FUZZ_CHECK(ValidateUtf8(text.text).ok());
      CleanCaption(text.text);
    }
  }
  FUZZ_CHECK(!(*source)->Read((*source)->size()).ok());
}

template <class Config>
Config WithPaths(const std::vector<fuzz::MemoryFile*>& files, bool has_root) {
  Config config;
  for (const fuzz::MemoryFile* file : files) config.add_path(file->path());
  if (has_root) config.set_image_root(std::string(kRoot));
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::pair<absl::string_view, absl::string_view> input =
      absl::StrSplit(fuzz::Bytes(data, size), absl::MaxSplits('\n', 1));
  absl::string_view format = input.first;
  const bool root = absl::ConsumeSuffix(&format, "+root");
  std::vector<std::unique_ptr<fuzz::MemoryFile>> owned;
  std::vector<fuzz::MemoryFile*> files;
  for (absl::string_view part : fuzz::Parts(input.second)) {
    if (owned.size() == 3) break;
    owned.push_back(std::make_unique<fuzz::MemoryFile>(part));
    files.push_back(owned.back().get());
    GuessFormat(files.back()->path());
  }
  const PluginContext context;
  if (format == "albef" || format == "albef_grouped") {
    auto config = WithPaths<AlbefJsonConfig>(files, root);
    config.set_group_by_image(format == "albef_grouped");
    ReadAll(MakeAlbefJson(config, context));
  } else if (format == "coco") {
    ReadAll(
        MakeCocoCaptions(WithPaths<CocoCaptionsConfig>(files, root), context));
  } else if (format == "karpathy") {
    auto config = WithPaths<KarpathyJsonConfig>(files, root);
    config.add_split("train");
    config.add_split("test");
    ReadAll(MakeKarpathyJson(config, context));
  } else if (format == "nlvr2") {
    ReadAll(MakeNlvr2Jsonl(WithPaths<Nlvr2JsonlConfig>(files, root), context));
  } else if (format == "snli_ve") {
    ReadAll(
        MakeSnliVeJsonl(WithPaths<SnliVeJsonlConfig>(files, root), context));
  } else if (format == "vqa") {
    VqaV2Config config;
    config.add_questions(files[0]->path());
    if (files.size() > 1) config.add_annotations(files[1]->path());
    if (root) config.set_image_root(std::string(kRoot));
    ReadAll(MakeVqaV2(config, context));
  }
  return 0;
}
