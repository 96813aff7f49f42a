#include "data/sources/webdataset/webdataset.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <list>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/plugin/field_errors.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "data/shard_index.h"
#include "data/shard_names.h"
#include "data/shard_texts.h"
#include "data/sources/webdataset/spool.h"

namespace semvq {
namespace {

constexpr size_t kOpenShards = 64;
constexpr int64_t kHeaderBytes = 512;
constexpr int64_t kMaxIndexBytes = int64_t{1} << 31;
constexpr size_t kNamedInMessage = 5;
constexpr char kFormat[] =
    "a tar file of samples such as 0001.jpg, 0001.txt (WebDataset's layout; "
    "//tools/data:pack makes them)";

struct Shard {
  std::string name;  // As in the config, expanded.
  ShardIndex index;
  std::string damage;  // The index's, or why there is none.

  // A damaged shard has one sample more, which says so.
  int64_t samples() const { return index.size() + (damage.empty() ? 0 : 1); }
};

// "0.jpg" is image 0, "jpg" the only one; -1: no image.
int ImageNumber(absl::string_view extension) {
  if (extension == "txt" || extension == "json") return -1;
  int number = 0;
  const size_t dot = extension.find('.');
  return dot != absl::string_view::npos &&
                 absl::SimpleAtoi(extension.substr(0, dot), &number)
             ? number
             : 0;
}

class WebDatasetSource : public DataSource {
 public:
  WebDatasetSource(const WebDatasetConfig& config)
      : config_(config),
        spool_(config.spool_folder(), config.spool_shards(),
               config.max_shard_bytes()) {}

  absl::Status Open();

  int64_t size() const override { return begins_.back(); }
  absl::StatusOr<Sample> Read(int64_t index) const override;
  std::vector<SourcePart> Parts() const override {
    SourcePart part;
    part.size = size();
    for (const Shard& shard : shards_) part.shards.push_back(shard.samples());
    part.shuffle_shards = config_.shuffle_shards();
    return {part};
  }

 private:
  absl::Status OpenShard(Shard* shard) const;
  absl::StatusOr<ShardIndex> LocalIndex(const std::string& path) const;
  absl::StatusOr<ShardIndex> CommandIndex(const std::string& command) const;
  absl::Status Judge();
  absl::StatusOr<std::shared_ptr<const FileReader>> File(size_t shard) const;
  absl::Status ReadTexts(const FileReader& file, const ShardMember& member,
                         Sample* sample) const;
  absl::Status ReadMembers(size_t shard, const ShardSample& members,
                           Sample* sample) const;

  const WebDatasetConfig config_;
  const Spool spool_;
  bool commands_ = false;
  std::vector<Shard> shards_;
  std::vector<int64_t> begins_{0};  // Of each shard's samples, and the end.

  // Open shards, the last used first.
  mutable std::mutex mutex_;
  mutable std::list<std::pair<size_t, std::shared_ptr<const FileReader>>> open_;
};

absl::StatusOr<std::vector<std::string>> ShardNames(
    const WebDatasetConfig& config) {
  std::vector<std::string> all;
  for (const std::string& pattern : config.shards()) {
    absl::StatusOr<std::vector<std::string>> names = ExpandBraces(pattern);
    if (!names.ok()) return names.status();
    all.insert(all.end(), names->begin(), names->end());
  }
  return all;
}

// An index that fits a shard of that many bytes.
absl::StatusOr<ShardIndex> ReadIndex(const std::string& path,
                                     int64_t shard_bytes) {
  absl::StatusOr<int64_t> bytes = FileSize(path);
  if (!bytes.ok()) return bytes.status();
  if (*bytes > kMaxIndexBytes)
    return absl::InvalidArgumentError("the index is too long");
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<ShardIndex> index = ShardIndex::Parse(*std::move(text));
  if (index.ok() && shard_bytes >= 0 && index->shard_bytes() != shard_bytes)
    return absl::FailedPreconditionError("the index is of another shard");
  return index;
}

absl::StatusOr<ShardIndex> WebDatasetSource::LocalIndex(
    const std::string& path) const {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    return absl::NotFoundError(absl::StrCat(
        "the shard ", path, " does not exist. Wanted there: ", kFormat));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got no file, expected ", kFormat));
  }
  absl::StatusOr<ShardIndex> index = ReadIndex(IndexPath(path), info.st_size);
  if (index.ok()) return index;
  // Not there, or older than the shard.
  std::string kept;
  if (config_.has_spool_folder()) {
    kept = JoinPath(
        config_.spool_folder(),
        absl::StrCat(Sha256Hex(absl::StrCat(path, "\n", info.st_size, "\n",
                                            info.st_mtim.tv_sec, "\n",
                                            info.st_mtim.tv_nsec))
                         .substr(0, 24),
                     ".idx"));
    index = ReadIndex(kept, info.st_size);
    if (index.ok()) return index;
  }
  index = ShardIndex::Scan(path);
  if (index.ok() && !kept.empty()) {
    absl::Status status = MakeDirectories(config_.spool_folder());
    if (status.ok()) status = AtomicWriteFile(kept, index->text());
    if (!status.ok()) return status;
  }
  return index;
}

absl::StatusOr<ShardIndex> WebDatasetSource::CommandIndex(
    const std::string& command) const {
  const std::string kept = IndexPath(spool_.PathOf(command));
  absl::StatusOr<ShardIndex> index = ReadIndex(kept, -1);
  if (index.ok()) return index;
  const auto file = spool_.Open(command, [&](const std::string& path) {
    index = ShardIndex::Scan(path);
    return index.ok() ? AtomicWriteFile(kept, index->text()) : index.status();
  });
  if (!file.ok()) return file.status();
  return index;
}

absl::Status WebDatasetSource::OpenShard(Shard* shard) const {
  const bool command = IsCommand(shard->name);
  absl::StatusOr<ShardIndex> index =
      command ? CommandIndex(shard->name) : LocalIndex(shard->name);
  if (index.ok()) {
    shard->index = *std::move(index);
    shard->damage = shard->index.damage();
  } else if (command) {
    shard->damage = std::string(index.status().message());
  } else {
    return index.status();
  }
  return absl::OkStatus();
}

absl::Status WebDatasetSource::Open() {
  absl::StatusOr<std::vector<std::string>> names = ShardNames(config_);
  if (!names.ok()) return names.status();
  shards_.resize(names->size());
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].name = std::move((*names)[i]);
    commands_ = commands_ || IsCommand(shards_[i].name);
  }
  // Disks and networks answer several questions at a time.
  std::vector<absl::Status> results(shards_.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next++) < shards_.size();)
      results[i] = OpenShard(&shards_[i]);
  };
  std::vector<std::thread> threads;
  for (size_t t = 1; t < std::min<size_t>(8, shards_.size()); ++t)
    threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) {
    if (!result.ok()) return result;
  }
  if (commands_) spool_.RemoveOldest();
  return Judge();
}

// Numbers the samples, and says which shards are damaged.
absl::Status WebDatasetSource::Judge() {
  std::vector<std::string> damaged;
  for (const Shard& shard : shards_) {
    if (!shard.damage.empty())
      damaged.push_back(absl::StrCat(shard.name, ": ", shard.damage));
    begins_.push_back(begins_.back() + shard.samples());
  }
  if (damaged.empty()) {
    return size() > 0 ? absl::OkStatus()
                      : absl::InvalidArgumentError(absl::StrCat(
                            shards_[0].name,
                            ": no sample in the shards, expected ", kFormat));
  }
  const size_t count = damaged.size();
  const bool too_many =
      static_cast<double>(count) >
      config_.max_damaged_shards() * static_cast<double>(shards_.size());
  damaged.resize(std::min(damaged.size(), kNamedInMessage));
  const std::string message =
      absl::StrCat(count, " of ", shards_.size(), " shards are damaged",
                   count > damaged.size() ? ". The first:\n  " : ":\n  ",
                   absl::StrJoin(damaged, "\n  "));
  if (!too_many) {
    std::fprintf(stderr, "%s\n", message.c_str());
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat(message,
                   "\nRepair or leave them out, or allow a larger share "
                   "(max_damaged_shards = ",
                   config_.max_damaged_shards(), ")"));
}

absl::StatusOr<std::shared_ptr<const FileReader>> WebDatasetSource::File(
    size_t shard) const {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = open_.begin(); it != open_.end(); ++it) {
      if (it->first != shard) continue;
      open_.splice(open_.begin(), open_, it);
      return it->second;
    }
  }
  std::shared_ptr<const FileReader> file;
  const std::string& name = shards_[shard].name;
  if (IsCommand(name)) {
    auto opened = spool_.Open(name);
    if (!opened.ok()) return opened.status();
    file = *std::move(opened);
  } else {
    auto opened = FileReader::Open(name);
    if (!opened.ok()) return opened.status();
    file = *std::move(opened);
  }
  if (file->size() != shards_[shard].index.shard_bytes()) {
    return absl::DataLossError(absl::StrCat(
        "the shard has ", file->size(), " bytes, but had ",
        shards_[shard].index.shard_bytes(), " when it was indexed"));
  }
  std::lock_guard<std::mutex> lock(mutex_);
  open_.emplace_front(shard, file);
  const size_t keep =
      commands_ ? std::min<size_t>(kOpenShards, config_.spool_shards())
                : kOpenShards;
  if (open_.size() > keep) open_.pop_back();
  return file;
}

absl::Status WebDatasetSource::ReadTexts(const FileReader& file,
                                         const ShardMember& member,
                                         Sample* sample) const {
  if (member.size > kMaxShardTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the member .", member.extension, " has ", member.size,
                     " bytes, expected at most ", kMaxShardTextBytes));
  }
  std::string content(static_cast<size_t>(kHeaderBytes + member.size), '\0');
  const absl::Status status =
      file.ReadAt(member.offset - kHeaderBytes, content.data(), content.size());
  if (!status.ok()) return status;
  const absl::string_view all(content);
  if (!IsHeaderOf(all.substr(0, kHeaderBytes), member.size)) {
    return absl::DataLossError(
        absl::StrCat("the shard's bytes are not those that were indexed; was "
                     "it changed? Remove ",
                     IndexPath(file.path())));
  }
  const absl::string_view text = all.substr(kHeaderBytes);
  const absl::Status read = member.extension == "json"
                                ? ReadShardTexts(text, sample)
                                : ReadShardCaption(text, sample);
  if (read.ok()) return read;
  return absl::Status(
      read.code(),
      absl::StrCat("the member .", member.extension, ": ", read.message()));
}

absl::Status WebDatasetSource::ReadMembers(size_t shard,
                                           const ShardSample& members,
                                           Sample* sample) const {
  if (!members.problem.empty())
    return absl::InvalidArgumentError(members.problem);
  std::vector<const ShardMember*> images;
  const ShardMember* text = nullptr;
  for (const ShardMember& member : members.members) {
    const int number = ImageNumber(member.extension);
    if (number < 0) {
      // .txt is the caption; .json beside it is about other things.
      if (text == nullptr || member.extension == "txt") text = &member;
      continue;
    }
    if (number != static_cast<int>(images.size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the member .", member.extension,
          " is not the one that comes next; "
          "expected one image, or .0.jpg, .1.jpg, ... in this order"));
    }
    images.push_back(&member);
  }
  if (images.empty())
    return absl::InvalidArgumentError("has no image (.jpg, .png, .webp)");
  if (text == nullptr)
    return absl::InvalidArgumentError("has no text (.txt or .json)");
  absl::StatusOr<std::shared_ptr<const FileReader>> file = File(shard);
  if (!file.ok()) return file.status();
  const absl::Status status = ReadTexts(**file, *text, sample);
  if (!status.ok()) return status;
  for (const ShardMember* image : images) {
    sample->image_paths.push_back((*file)->path());
    sample->image_ranges.push_back({*file, image->offset, image->size});
  }
  return absl::OkStatus();
}

absl::StatusOr<Sample> WebDatasetSource::Read(int64_t index) const {
  if (index < 0 || index >= size()) {
    return absl::OutOfRangeError(
        absl::StrCat("sample ", index, " of ", size(), " does not exist"));
  }
  const size_t s = std::upper_bound(begins_.begin(), begins_.end(), index) -
                   begins_.begin() - 1;
  const Shard& shard = shards_[s];
  const int64_t at = index - begins_[s];
  if (at == shard.index.size()) {
    return absl::DataLossError(absl::StrCat(
        shard.name, ": ", shard.damage, "; what stands behind that is lost"));
  }
  const ShardSample members = shard.index.Get(at);
  Sample sample;
  sample.where = absl::StrCat(shard.name, ": sample ", members.key);
  sample.image_id = absl::StrCat(shard.name, "/", members.key);
  const absl::Status status = ReadMembers(s, members, &sample);
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat(sample.where, ": ", status.message()));
  }
  return sample;
}

}  // namespace

absl::Status ValidateWebDataset(const WebDatasetConfig& config) {
  FieldErrors errors;
  errors.Require(config.shards_size() > 0, "shards", "none", kFormat);
  bool commands = false;
  for (const std::string& pattern : config.shards()) {
    if (pattern.empty()) {
      errors.Require(false, "shards", "an empty name", kFormat);
      continue;
    }
    absl::StatusOr<std::vector<std::string>> names = ExpandBraces(pattern);
    errors.Require(names.ok(), "shards", pattern,
                   names.ok() ? "" : std::string(names.status().message()));
    if (!IsCommand(pattern)) {
      errors.Require(!absl::EndsWith(pattern, ".gz") &&
                         !absl::EndsWith(pattern, ".tgz") &&
                         !absl::EndsWith(pattern, ".zst") &&
                         !absl::EndsWith(pattern, ".xz"),
                     "shards", pattern,
                     "tar files that are not compressed; unpack them, or use "
                     "pipe:gzip -dc FILE");
      continue;
    }
    commands = true;
    absl::StatusOr<std::vector<std::string>> words = CommandWords(pattern);
    errors.Require(words.ok(), "shards", pattern,
                   words.ok() ? "" : std::string(words.status().message()));
  }
  std::vector<std::string> all(config.shards().begin(), config.shards().end());
  std::sort(all.begin(), all.end());
  const auto twice = std::adjacent_find(all.begin(), all.end());
  errors.Require(twice == all.end(), "shards", twice == all.end() ? "" : *twice,
                 "each only once");
  errors.Require(!config.has_spool_folder() || !config.spool_folder().empty(),
                 "spool_folder", "an empty name", "a folder");
  errors.Require(!commands || config.has_spool_folder(), "spool_folder", "none",
                 "a folder for the shards that come through commands");
  errors.RequirePositive("spool_shards", config.spool_shards());
  errors.RequireNotNegative("shuffle_shards", config.shuffle_shards());
  // The next window's shards arrive while the last one's are still read.
  const absl::StatusOr<std::vector<std::string>> names = ShardNames(config);
  const int64_t room = config.spool_shards() / 2;
  errors.Require(
      !commands || !names.ok() ||
          static_cast<int64_t>(names->size()) <= config.spool_shards() ||
          (config.shuffle_shards() > 0 && config.shuffle_shards() <= room),
      "shuffle_shards", config.shuffle_shards(),
      absl::StrCat("1 to ", room,
                   ", half of spool_shards, since not all "
                   "shards are at hand at a time"));
  errors.RequirePositive("max_shard_bytes", config.max_shard_bytes());
  errors.Require(
      config.max_damaged_shards() >= 0 && config.max_damaged_shards() <= 1,
      "max_damaged_shards", config.max_damaged_shards(), "a share in [0, 1]");
  return errors.status();
}

Contract WebDatasetContract(const std::string&, const WebDatasetConfig& config,
                            const ContractBook&) {
  Contract contract;
  absl::StatusOr<std::vector<std::string>> names = ShardNames(config);
  if (!names.ok()) return contract;
  for (const std::string& name : *names) {
    if (!IsCommand(name)) contract.files.push_back({"shards", name, kFormat});
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeWebDataset(
    const WebDatasetConfig& config, const PluginContext&) {
  auto source = std::make_shared<WebDatasetSource>(config);
  const absl::Status status = source->Open();
  if (!status.ok()) return status;
  return source;
}

}  // namespace semvq
