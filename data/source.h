// Interface of the data sources: a numbered list of samples that can be read in
// any order, from any thread.
#ifndef SEMVQ_DATA_SOURCE_H_
#define SEMVQ_DATA_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/forward/text_record.h"

namespace semvq {

class FileReader;

// Bytes within a file that is kept open: an image in a shard.
struct FileRange {
  std::shared_ptr<const FileReader> file;
  int64_t offset = 0, size = 0;
};

struct Sample {
  std::string image_id;  // Samples of one id show the same image.
  std::vector<std::string>
      image_paths;  // One per image slot (2 for NLVR2, else 1).
  // Empty: each image is a whole file. Else where in image_paths' files each
  // slot's image is.
  std::vector<FileRange> image_ranges;
  std::vector<TextRecord> texts;  // All texts of the image, at least one.
  std::string where;  // File and record, for messages: "train.json: record 17".
};

// Consecutive samples of a source that training draws in one proportion.
struct SourcePart {
  int64_t begin = 0, size = 0;
  double weight = 1;  // Relative to the other parts'; more than 0.
  // Sizes of the shards, in the order of their samples; they sum to `size`.
  // Empty: one shard.
  std::vector<int64_t> shards;
  // Training draws from so many shards at a time. 0: from all.
  int64_t shuffle_shards = 0;
  // The group of each sample; empty: none. Training takes up to `group_size` of
  // a group in a row. Not together with `shuffle_shards`.
  std::shared_ptr<const std::vector<uint32_t>> groups;
  int64_t group_size = 1;
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
  // How training draws from it (see Sampler): parts without gaps, from sample 0
  // on.
  virtual std::vector<SourcePart> Parts() const {
    SourcePart all;
    all.size = size();
    return {all};
  }
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SOURCE_H_
