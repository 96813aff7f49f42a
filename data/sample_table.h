// Samples of a data source in flat arrays, so that millions fit in memory.
#ifndef SEMVQ_DATA_SAMPLE_TABLE_H_
#define SEMVQ_DATA_SAMPLE_TABLE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/source.h"

namespace semvq {

// Filled once, then Finish(), then read from any thread.
class SampleTable final : public DataSource {
 public:
  struct Text {
    std::string id, text;
    std::vector<std::pair<std::string, float>> answers;
    int annotators = 1;
  };
  struct Record {
    int file = 0;                     // As AddFile numbered it.
    int64_t number = 0;               // Within its file, for messages.
    std::string image_id;             // Empty: the image paths.
    std::vector<std::string> images;  // Relative to the file's root.
    std::vector<Text> texts;
  };

  // `unit` is what a record of this format is called: "record", "line".
  // `group_by_image`: records with the same images become one sample, at the
  // place of the first; bad records stay alone.
  explicit SampleTable(std::string unit, bool group_by_image = false)
      : unit_(std::move(unit)), group_(group_by_image) {}

  // Records of `path`, whose images are under `image_root`; empty: the folder
  // of the file. Returns the file's number.
  int AddFile(const std::string& path, const std::string& image_root);

  // A record with at least one image and one text, or one that is bad: then
  // `error` says why, and Read() will.
  void Add(const Record& record);
  void AddBad(int file, int64_t number, const absl::Status& error);

  // "train.json: record 17".
  std::string Where(int file, int64_t number) const;

  int64_t bad() const { return static_cast<int64_t>(errors_.size()); }
  int64_t records() const { return static_cast<int64_t>(entries_.size()); }

  // No more records follow. InvalidArgument beyond 2^32 - 1 records or texts.
  absl::Status Finish();

  int64_t size() const override {
    return static_cast<int64_t>(starts_.size()) - 1;
  }
  absl::StatusOr<Sample> Read(int64_t index) const override;

 private:
  struct Slice {  // Of the arena.
    uint64_t begin = 0;
    uint32_t size = 0;
  };
  struct Entry {
    Slice image_id, images;  // Paths are joined by '\0'.
    uint32_t file = 0;
    int64_t number = 0;
    uint64_t text_begin = 0;
    uint32_t text_count = 0;
    int64_t error = -1;  // Index into errors_.
  };
  struct Line {
    Slice id, text;
    uint64_t answer_begin = 0;
    uint32_t answer_count = 0;
    int annotators = 1;
  };
  struct Answer {
    Slice text;
    float share = 0;
  };
  struct File {
    std::string path, root;
  };

  Slice Keep(absl::string_view s);
  absl::string_view View(Slice s) const {
    return absl::string_view(arena_).substr(s.begin, s.size);
  }

  const std::string unit_;
  const bool group_;
  std::string arena_;
  std::vector<File> files_;
  std::vector<Entry> entries_;
  std::vector<Line> lines_;
  std::vector<Answer> answers_;
  std::vector<std::string> errors_;
  // Sample i is the entries order_[starts_[i] .. starts_[i+1]).
  std::vector<uint32_t> starts_{0}, order_;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SAMPLE_TABLE_H_
