// File names of images made from a record's fields.
#ifndef SEMVQ_DATA_IMAGE_PATTERN_H_
#define SEMVQ_DATA_IMAGE_PATTERN_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// "COCO_{data_subtype}_{image_id:012}.jpg": each {name} is replaced by the
// value of that name, {name:012} by the value with leading zeros to 12
// characters.
class ImagePattern {
 public:
  // `known` are the names that may occur; the first must. An error says what is
  // wrong with the pattern.
  static absl::StatusOr<ImagePattern> Parse(
      absl::string_view pattern, const std::vector<std::string>& known);

  bool Uses(absl::string_view name) const;

  // `values` holds all names it uses. InvalidArgument when a value is longer
  // than its width or leads out of the folder.
  absl::StatusOr<std::string> Fill(
      const std::map<std::string, std::string>& values) const;

 private:
  struct Part {
    std::string literal;  // Before the value.
    std::string name;     // Empty for the last part.
    int width = 0;        // 0: as it is.
  };
  std::vector<Part> parts_;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_IMAGE_PATTERN_H_
