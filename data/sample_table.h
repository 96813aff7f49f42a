// Samples of a data source, packed so that millions fit in memory.
#ifndef SEMVQ_DATA_SAMPLE_TABLE_H_
#define SEMVQ_DATA_SAMPLE_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/source.h"

namespace semvq {

// Filled once, then Finish(), then read from any thread. A record takes 8 bytes
// and its strings, each with a length of a byte or two.
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
    std::string batch_group;  // Empty: of no group.
  };

  // `unit` is what a record of this format is called: "record", "line".
  // `group_by_image`: records with the same images become one sample, at the
  // place of the first; bad records stay alone.
  explicit SampleTable(std::string unit, bool group_by_image = false)
      : unit_(std::move(unit)), group_(group_by_image) {}

  // Training takes up to `size` samples of one `batch_group` in a row (see
  // SourcePart::groups). Before the first record.
  void GroupBatches(int64_t size) { batch_group_size_ = size; }
  int64_t batch_groups() const {
    return static_cast<int64_t>(batch_group_numbers_.size());
  }

  // Records of `path`, whose images are under `image_root`; empty: the folder
  // of the file. Returns the file's number.
  int AddFile(const std::string& path, const std::string& image_root);

  // A record with at least one image and one text, or one that is bad: then
  // `error` says why, and Read() will.
  void Add(const Record& record);
  void AddBad(int file, int64_t number, const absl::Status& error);

  // "train.json: record 17".
  std::string Where(int file, int64_t number) const;

  int64_t bad() const { return bad_; }
  int64_t records() const { return static_cast<int64_t>(entries_.size()); }

  // No more records follow. InvalidArgument beyond 2^32 - 1 records.
  absl::Status Finish();

  int64_t size() const override {
    return group_ ? static_cast<int64_t>(starts_.size()) - 1 : records();
  }
  // A record whose image is outside of its root (see ImagePath) is bad, too.
  absl::StatusOr<Sample> Read(int64_t index) const override;
  std::vector<SourcePart> Parts() const override;

 private:
  struct Decoded;
  struct File {
    std::string path, root;
  };

  void Keep(const std::string& packed, const std::string& batch_group);
  Decoded Decode(const char* entry) const;

  const std::string unit_;
  const bool group_;
  std::string scratch_;
  // Records lie one after the other in blocks, which never move: growing needs
  // no room for two of them.
  std::vector<std::unique_ptr<char[]>> blocks_;
  size_t left_ = 0;  // Bytes of the last block.
  char* next_ = nullptr;
  std::vector<const char*> entries_;
  std::vector<File> files_;
  int64_t bad_ = 0;
  int64_t batch_group_size_ = 1;
  uint32_t lonely_ = 0;
  // The groups' numbers, and each entry's; after Finish() each sample's.
  absl::flat_hash_map<std::string, uint32_t> batch_group_numbers_;
  std::shared_ptr<std::vector<uint32_t>> batch_groups_ =
      std::make_shared<std::vector<uint32_t>>();
  // With groups, sample i is the entries order_[starts_[i] .. starts_[i+1]).
  std::vector<uint32_t> starts_{0}, order_;
};

}  // namespace semvq

#endif  // SEMVQ_DATA_SAMPLE_TABLE_H_
