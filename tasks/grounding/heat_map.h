// Pictures of maps over images.
#ifndef SEMVQ_TASKS_GROUNDING_HEAT_MAP_H_
#define SEMVQ_TASKS_GROUNDING_HEAT_MAP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tasks/grounding/boxes.h"

namespace semvq {

struct HeatMap {
  // RGB in [0, 1], channel by channel, `side` x `side`: the squashed image as
  // the model sees it.
  std::vector<float> pixels;
  int64_t side = 0;
  PixelMap map;  // Of the image's own size.
  Box truth;
  const Box* chosen = nullptr;  // Null: none.
  Pixel maximum;
  std::string text;
};

// Writes a PNG: the image at its own shape, the map over it (blue to red, the
// stronger the less transparent), the true box green, the chosen one red, the
// map's maximum as a white ring, and the text in a strip below. Images whose
// shorter side is below 256 pixels are magnified.
absl::Status WriteHeatMap(const HeatMap& heat_map, const std::string& path);

}  // namespace semvq

#endif  // SEMVQ_TASKS_GROUNDING_HEAT_MAP_H_
