// Boxes in images, and which of them a map points at. Free of LibTorch.
#ifndef SEMVQ_TASKS_GROUNDING_BOXES_H_
#define SEMVQ_TASKS_GROUNDING_BOXES_H_

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"

namespace semvq {

// In pixels; x and y of the upper left corner.
struct Box {
  double x = 0, y = 0, width = 0, height = 0;
};

// Where the thing is that a text refers to.
struct Reference {
  int64_t width = 0, height = 0;  // Of the image.
  Box box;
  std::vector<Box> proposals;
  std::string split;  // May be empty.
};

struct BoxFile {
  std::unordered_map<std::string, Reference> references;  // By ref_id.
  // True boxes and proposals that reach out of their image by a pixel or more.
  int64_t reaching_out = 0;
};

// The file of GroundingConfig.boxes. NotFound without it; InvalidArgument names
// the record and what is wrong: no list of such objects, numbers that are none
// or not finite, an empty box, a true box with no part in the image, a ref_id
// that comes twice.
absl::StatusOr<BoxFile> ReadBoxes(const std::string& path);

// Intersection over union as RefCOCO's evaluation counts it, in whole pixels:
// boxes that share a single row or column of pixels do not meet.
double IntersectionOverUnion(const Box& a, const Box& b);

// A number for every pixel of an image, row by row; not owned.
struct PixelMap {
  const double* values = nullptr;
  int64_t width = 0, height = 0;
};

// Sum of the map over the pixels that the box covers, from its truncated upper
// left to its truncated lower right corner, over area^exponent. What is outside
// of the image adds nothing to the sum; the area is the whole box's.
double BoxScore(const PixelMap& map, const Box& box, double area_exponent);

// The first of the best scored proposals; -1 when no score is above 0, so that
// a map without any weight finds nothing. (ALBEF's evaluation takes the last
// sample's box then.)
int64_t BestProposal(const PixelMap& map, const std::vector<Box>& proposals,
                     double area_exponent);

struct Pixel {
  int64_t x = 0, y = 0;
};
// The first of the largest values, row by row.
Pixel Maximum(const PixelMap& map);

// Whether the pixel's centre lies in the box.
bool Contains(const Box& box, const Pixel& pixel);

// Share of the image that the box covers.
double CoveredShare(const Reference& reference);

}  // namespace semvq

#endif  // SEMVQ_TASKS_GROUNDING_BOXES_H_
