// Tar shards, and their indexes: the input is both a shard and an index.
#include "data/shard_index.h"
#include "data/shard_names.h"
#include "data/shard_texts.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace semvq;  // NOLINT: no header.

// Whatever an index says lies within its shard, and says it again when its
// text is read back.
void Check(const ShardIndex& index) {
  for (int64_t i = 0; i < index.size(); ++i) {
    for (const ShardMember& member : index.Get(i).members) {
      FUZZ_CHECK(member.offset >= 512 && member.size >= 0);
      FUZZ_CHECK(member.offset + member.size <= index.shard_bytes());
    }
  }
  const absl::StatusOr<ShardIndex> again = ShardIndex::Parse(index.text());
  FUZZ_CHECK(again.ok());
  FUZZ_CHECK(again->size() == index.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input = fuzz::Bytes(data, size);
  const fuzz::MemoryFile file(input);
  const absl::StatusOr<ShardIndex> scanned = ShardIndex::Scan(file.path());
  FUZZ_CHECK(scanned.ok());
  FUZZ_CHECK(scanned->shard_bytes() == static_cast<int64_t>(size));
  Check(*scanned);
  const absl::StatusOr<ShardIndex> parsed =
      ShardIndex::Parse(std::string(input));
  if (parsed.ok()) Check(*parsed);
  // A command or a pattern is the user's own; neither may crash for it.
  (void)ExpandBraces(input.substr(0, 200));
  (void)CommandWords(input.substr(0, 200));
  Sample sample;
  const absl::Status texts = ReadShardTexts(input, &sample);
  FUZZ_CHECK(texts.ok() ? !sample.texts.empty() : !texts.message().empty());
  return 0;
}
