// Interface of the data sources: a numbered list of samples that can be read in
// any order, from any thread.
#ifndef SEMVQ_DATA_SOURCE_H_
#define SEMVQ_DATA_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/forward/text_record.h"

namespace semvq {

struct Sample {
  std::string image_id;  // Samples of one id show the same image.
  std::vector<std::string>
      image_paths;                // One per image slot (2 for NLVR2, else 1).
  std::vector<TextRecord> texts;  // All texts of the image, at least one.
  std::string where;  // File and record, for messages: "train.json: record 17".
};

class DataSource {
 public:
  virtual ~DataSource() = default;
  // Samples, broken ones included.
  virtual int64_t size() const = 0;
  // The sample numbered `index`, in [0, size()). Thread-safe. An error says
  // what is wrong with this one sample (file, record, key, got, expected): the
  // loader counts and replaces it. What is wrong with the source as a whole is
  // an error of the factory that made it.
  virtual absl::StatusOr<Sample> Read(int64_t index) const = 0;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCE_H_
