// Where the samples of a tar shard are, so that it can be read in any order.
#ifndef SEMVQ_DATA_SHARD_INDEX_H_
#define SEMVQ_DATA_SHARD_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// A file of a sample: `extension` is what follows the first dot of its name,
// in lower case.
struct ShardMember {
  std::string extension;
  int64_t offset = 0, size = 0;  // Bytes of its content in the shard.
};

struct ShardSample {
  std::string key;  // The members' name up to the first dot.
  std::vector<ShardMember> members;
  // Why it cannot be used although the shard is sound; else empty.
  std::string problem;
};

// The samples of one shard in WebDataset's layout: files one after the other
// whose names agree up to the first dot are one sample. Only images (.jpg,
// .jpeg, .png, .webp, .0.jpg, .1.jpg, ...) and texts (.txt, .json) are listed.
// In memory, as in its file, a sample is one short line of text.
class ShardIndex {
 public:
  // Reads the headers of a tar file through libarchive. What names a place
  // outside of the shard (links, devices, "..", absolute names) is never
  // followed: such a sample has a problem. NotFound when there is no such file;
  // a file that is no tar, is damaged or cut off still gives the samples before
  // that, and `damage` says what was found where.
  static absl::StatusOr<ShardIndex> Scan(const std::string& path);

  // An index file's content. InvalidArgument for anything else, and when a
  // member would lie outside of the shard.
  static absl::StatusOr<ShardIndex> Parse(std::string text);
  const std::string& text() const { return text_; }

  int64_t size() const { return static_cast<int64_t>(lines_.size()); }
  ShardSample Get(int64_t index) const;
  int64_t shard_bytes() const { return shard_bytes_; }
  const std::string& damage() const { return damage_; }

 private:
  absl::string_view Line(int64_t index) const;

  std::string text_;
  std::vector<uint32_t> lines_;  // Where each begins.
  int64_t shard_bytes_ = 0;
  std::string damage_;
};

// "x.tar.idx", where a shard's index is looked for.
std::string IndexPath(const std::string& shard);

// Whether the 512 bytes before a member are a tar header for that many bytes:
// an index that is older than its shard is noticed before wrong bytes are used.
bool IsHeaderOf(absl::string_view header, int64_t size);

}  // namespace semvq

#endif  // SEMVQ_DATA_SHARD_INDEX_H_
