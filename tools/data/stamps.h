// Tux Paint stamps with their captions.
#ifndef SEMVQ_TOOLS_DATA_STAMPS_H_
#define SEMVQ_TOOLS_DATA_STAMPS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/data/common.h"

namespace semvq::tools {

struct StampStats {
  int64_t images = 0, found = 0;
  int64_t no_caption = 0;   // mirrored variants and a few poses have no text
  int64_t bad_caption = 0;  // first line empty, a translation, or not UTF-8
  int64_t bad_image = 0;    // not a PNG
  int64_t vector_only = 0;  // captioned SVG files without a PNG
  int64_t reduced = 0;      // images with a side above kMaxSide
  int64_t repeated_image = 0;
};

// A PNG with a side above kMaxSide is reduced to kReducedSide (area average
// on premultiplied alpha); every other file is copied byte for byte.
inline constexpr int kMaxSide = 512;
inline constexpr int kReducedSide = 256;

// The smaller PNG (RGBA), or the bytes as they are if no side is above
// `max_side`. InvalidArgument if they are not a PNG.
absl::StatusOr<std::string> ReducePng(std::string bytes, int max_side,
                                      int reduced_side, bool* reduced);

// NotFound, naming the Debian package, if there is no such folder.
absl::Status FindStamps(const std::string& folder);

// `folder` as in the Debian package tuxpaint-stamps-default: X.png with X.txt,
// whose first line is the English caption. Writes images/stamps/... and
// appends the pairs. Skipped files are counted, and listed on stderr if they
// are broken.
absl::StatusOr<StampStats> ConvertStamps(const std::string& folder,
                                         OutputFolder* out,
                                         std::vector<Pair>* pairs);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_STAMPS_H_
