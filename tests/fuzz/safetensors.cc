// Safetensors files: what opens holds no more than the file does, and is
// written again as the same.
#include "core/checkpoint/safetensors.h"

#include "core/util/file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace semvq;  // NOLINT: a file of one function.
  const fuzz::MemoryFile bytes(fuzz::Bytes(data, size));
  auto file = SafetensorsFile::Open(bytes.path());
  if (!file.ok()) {
    FUZZ_CHECK(!file.status().message().empty());
    return 0;
  }
  NamedTensors tensors;
  size_t total = 0;
  for (const std::string& name : (*file)->names()) {
    FUZZ_CHECK((*file)->contains(name));
    const auto copied = (*file)->Get(name);
    const auto mapped = (*file)->View(name);
    FUZZ_CHECK(copied.ok() == mapped.ok());
    if (!copied.ok()) return 0;  // A BOOL byte that is neither.
    FUZZ_CHECK(copied->sizes() == mapped->sizes());
    FUZZ_CHECK(copied->scalar_type() == mapped->scalar_type());
    total += copied->nbytes();
    tensors.emplace_back(name, *copied);
  }
  FUZZ_CHECK(total <= size);

  const std::string path = JoinPath(fuzz::ScratchFolder(), "again.safetensors");
  FUZZ_CHECK(WriteSafetensors(path, tensors, (*file)->metadata()).ok());
  auto again = SafetensorsFile::Open(path);
  FUZZ_CHECK(again.ok());
  FUZZ_CHECK((*again)->metadata() == (*file)->metadata());
  FUZZ_CHECK((*again)->names().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const auto got = (*again)->Get(name);
    FUZZ_CHECK(got.ok());
    FUZZ_CHECK(got->scalar_type() == tensor.scalar_type());
    FUZZ_CHECK(got->sizes() == tensor.sizes());
  }
  return 0;
}
