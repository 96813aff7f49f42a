// Manifests of checkpoints. The last line of one is the hash of the others;
// here it is made right, so that what stands above is read.
#include <ATen/ops/ones.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/checkpoint/checkpoint.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace semvq;  // NOLINT: no header.

// A checkpoint whose one tensor file is right.
const std::string& Folder() {
  static const std::string* folder = [] {
    CheckpointContents contents;
    contents.step = 1;
    contents.sections["model"] = {{"w", at::ones({2})}};
    const auto saved = SaveCheckpoint(
        JoinPath(fuzz::ScratchFolder(), "checkpoints"), contents, {});
    FUZZ_CHECK(saved.ok());
    return new std::string(*saved);
  }();
  return *folder;
}

void Read(absl::string_view manifest) {
  const std::string& folder = Folder();
  {
    // In place: a rename, and above all a sync, would take most of the time.
    std::ofstream file(JoinPath(folder, kManifestName), std::ios::binary);
    file.write(manifest.data(), static_cast<std::streamsize>(manifest.size()));
    FUZZ_CHECK(file.good());
  }
  const auto all = ListCheckpoints(DirName(folder));
  FUZZ_CHECK(all.ok() && all->size() == 1);
  const auto contents = LoadCheckpoint(folder);
  if (!contents.ok()) {
    FUZZ_CHECK(absl::StrContains(contents.status().message(), folder));
    return;
  }
  FUZZ_CHECK(contents->step >= 0);
  for (const auto& [section, tensors] : contents->sections) {
    FUZZ_CHECK(section == "model" && tensors.size() == 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input = fuzz::Bytes(data, size);
  if (absl::StrContains(input, "# sha256: ")) Read(input);
  Read(absl::StrCat(input, "\n# sha256: ", Sha256Hex(absl::StrCat(input, "\n")),
                    "\n"));
  return 0;
}
