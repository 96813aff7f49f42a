#include "tasks/grounding/boxes.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

namespace dom = simdjson::dom;

constexpr char kFormat[] =
    "a JSON list of {\"ref_id\": 3, \"width\": 640, \"height\": 480, "
    "\"box\": [x, y, w, h], \"proposals\": [[x, y, w, h], ...]}";

absl::Status Wrong(const char* key, dom::object record,
                   absl::string_view expected) {
  dom::element value;
  const bool there = record.at_key(key).get(value) == simdjson::SUCCESS;
  std::string got = there ? simdjson::minify(value) : "nothing";
  if (got.size() > 80) got = absl::StrCat(got.substr(0, 77), "...");
  return absl::InvalidArgumentError(
      absl::StrCat("\"", key, "\": got ", got, ", expected ", expected));
}

bool ReadBox(dom::element value, Box* box) {
  dom::array list;
  if (value.get(list) != simdjson::SUCCESS || list.size() != 4) return false;
  std::array<double, 4> numbers;
  size_t i = 0;
  for (dom::element item : list) {
    if (item.get(numbers[i]) != simdjson::SUCCESS ||
        !std::isfinite(numbers[i]) || std::abs(numbers[i]) > 1e9)
      return false;
    ++i;
  }
  *box = {numbers[0], numbers[1], numbers[2], numbers[3]};
  return box->width > 0 && box->height > 0;
}

bool Overlaps(const Box& box, const Reference& image) {
  return box.x < static_cast<double>(image.width) && box.x + box.width > 0 &&
         box.y < static_cast<double>(image.height) && box.y + box.height > 0;
}

bool ReachesOut(const Box& box, const Reference& image) {
  return box.x <= -1 || box.y <= -1 ||
         box.x + box.width >= static_cast<double>(image.width) + 1 ||
         box.y + box.height >= static_cast<double>(image.height) + 1;
}

absl::Status ReadReference(dom::object record, Reference* out) {
  for (auto [key, side] :
       {std::pair<const char*, int64_t*>{"width", &out->width},
        {"height", &out->height}}) {
    if (record.at_key(key).get(*side) != simdjson::SUCCESS || *side < 1 ||
        *side > 1000000) {
      return Wrong(key, record, "the image's pixels, 1 to 1000000");
    }
  }
  dom::element value;
  if (record.at_key("box").get(value) != simdjson::SUCCESS ||
      !ReadBox(value, &out->box)) {
    return Wrong("box", record,
                 "[x, y, width, height] with a width and height "
                 "above 0");
  }
  if (!Overlaps(out->box, *out)) {
    return Wrong("box", record,
                 absl::StrCat("a box in the image of ", out->width, " x ",
                              out->height, " pixels"));
  }
  dom::array list;
  if (record.at_key("proposals").get(list) != simdjson::SUCCESS)
    return Wrong("proposals", record, "a list of [x, y, width, height]");
  for (dom::element item : list) {
    Box box;
    if (!ReadBox(item, &box)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "\"proposals\": got ", simdjson::minify(item), " at place ",
          out->proposals.size(),
          ", expected [x, y, width, height] with a width and height above 0"));
    }
    out->proposals.push_back(box);
  }
  std::string_view split;
  if (record.at_key("split").get(value) == simdjson::SUCCESS) {
    if (value.get(split) != simdjson::SUCCESS)
      return Wrong("split", record, "the name of a split, or none");
    out->split = std::string(split);
  }
  return absl::OkStatus();
}

absl::Status ReadRecord(dom::element element, std::string* id,
                        Reference* reference) {
  dom::object record;
  if (element.get(record) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("not an object, expected ", kFormat));
  }
  dom::element value;
  int64_t number = 0;
  std::string_view text;
  if (record.at_key("ref_id").get(value) == simdjson::SUCCESS &&
      value.get(number) == simdjson::SUCCESS) {
    *id = absl::StrCat(number);
  } else if (record.at_key("ref_id").get(text) == simdjson::SUCCESS &&
             !text.empty()) {
    *id = std::string(text);
  } else {
    return Wrong("ref_id", record, "a whole number or a string");
  }
  return ReadReference(record, reference);
}

int64_t Truncated(double at, int64_t size) {
  return static_cast<int64_t>(
      std::clamp(std::trunc(at), 0.0, static_cast<double>(size)));
}

}  // namespace

absl::StatusOr<BoxFile> ReadBoxes(const std::string& path) {
  dom::parser parser;
  dom::element root;
  const simdjson::error_code error = parser.load(path).get(root);
  if (error == simdjson::IO_ERROR) {
    return absl::NotFoundError(
        absl::StrCat(path, ": cannot be read; expected ", kFormat));
  }
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", simdjson::error_message(error), "; expected ", kFormat));
  }
  dom::array list;
  if (root.get(list) != simdjson::SUCCESS) {
    // {"<image id>": [[x, y, w, h], ...]}: MAttNet's, which ALBEF reads.
    dom::object object;
    bool detections = false;
    if (root.get(object) == simdjson::SUCCESS) {
      for (auto [key, value] : object) detections = value.is_array();
    }
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": expected ", kFormat, ", got ",
        detections ? "an object of lists; it looks like detections by image "
                     "(dets.json), which docs/tasks.md joins with the "
                     "references"
                   : "no list"));
  }
  BoxFile file;
  int64_t place = 0;
  for (dom::element element : list) {
    std::string id;
    Reference reference;
    absl::Status status = ReadRecord(element, &id, &reference);
    if (status.ok() && file.references.count(id) > 0) {
      status = absl::InvalidArgumentError(absl::StrCat(
          "\"ref_id\": got ", id, " a second time, expected distinct ones"));
    }
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat(path, ": record ", place,
                                                      ": ", status.message()));
    }
    file.reaching_out += ReachesOut(reference.box, reference);
    for (const Box& box : reference.proposals)
      file.reaching_out += ReachesOut(box, reference);
    file.references.emplace(std::move(id), std::move(reference));
    ++place;
  }
  if (file.references.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": an empty list, expected ", kFormat));
  }
  return file;
}

double IntersectionOverUnion(const Box& a, const Box& b) {
  const double left = std::max(a.x, b.x), top = std::max(a.y, b.y);
  const double right = std::min(a.x + a.width - 1, b.x + b.width - 1);
  const double bottom = std::min(a.y + a.height - 1, b.y + b.height - 1);
  const double shared = left < right && top < bottom
                            ? (right - left + 1) * (bottom - top + 1)
                            : 0.0;
  return shared / (a.width * a.height + b.width * b.height - shared);
}

double BoxScore(const PixelMap& map, const Box& box, double area_exponent) {
  const int64_t left = Truncated(box.x, map.width);
  const int64_t right = Truncated(box.x + box.width, map.width);
  const int64_t top = Truncated(box.y, map.height);
  const int64_t bottom = Truncated(box.y + box.height, map.height);
  double sum = 0;
  for (int64_t y = top; y < bottom; ++y) {
    const double* row = map.values + y * map.width;
    for (int64_t x = left; x < right; ++x) sum += row[x];
  }
  return sum / std::pow(box.width * box.height, area_exponent);
}

int64_t BestProposal(const PixelMap& map, const std::vector<Box>& proposals,
                     double area_exponent) {
  int64_t best = -1;
  double best_score = 0;
  for (size_t i = 0; i < proposals.size(); ++i) {
    const double score = BoxScore(map, proposals[i], area_exponent);
    if (score > best_score) {
      best = static_cast<int64_t>(i);
      best_score = score;
    }
  }
  return best;
}

Pixel Maximum(const PixelMap& map) {
  const int64_t at =
      std::max_element(map.values, map.values + map.width * map.height) -
      map.values;
  return {at % map.width, at / map.width};
}

bool Contains(const Box& box, const Pixel& pixel) {
  const double x = static_cast<double>(pixel.x) + 0.5;
  const double y = static_cast<double>(pixel.y) + 0.5;
  return x >= box.x && x < box.x + box.width && y >= box.y &&
         y < box.y + box.height;
}

double CoveredShare(const Reference& reference) {
  const auto length = [](double begin, double size, int64_t limit) {
    return std::clamp(begin + size, 0.0, static_cast<double>(limit)) -
           std::clamp(begin, 0.0, static_cast<double>(limit));
  };
  const Box& box = reference.box;
  return length(box.x, box.width, reference.width) *
         length(box.y, box.height, reference.height) /
         static_cast<double>(reference.width * reference.height);
}

}  // namespace semvq
