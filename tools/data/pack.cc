#include "tools/data/pack.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "data/image_bytes.h"
#include "data/image_file.h"
#include "data/sampler.h"
#include "data/shard_index.h"
#include "data/shard_texts.h"
#include "data/shard_writer.h"
#include "tools/data/progress.h"

namespace semvq::tools {
namespace {

constexpr int64_t kAlwaysTolerated = 10;
constexpr int64_t kNamedInMessage = 5;
constexpr char kManifest[] = "pack.json";
constexpr char kBadSamples[] = "bad_samples.txt";

absl::string_view ExtensionOf(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng:
      return "png";
    case ImageFormat::kJpeg:
      return "jpg";
    default:
      return "webp";
  }
}

class Packer {
 public:
  Packer(const DataSource& source, const PackOptions& options)
      : source_(source),
        options_(options),
        shards_((source.size() + options.shard_samples - 1) /
                options.shard_samples),
        progress_("samples", source.size()) {}

  absl::StatusOr<PackResult> Run(const std::string& identity);

 private:
  std::string Shard(int64_t i) const {
    return JoinPath(options_.out,
                    absl::StrFormat("%s-%05d.tar", options_.prefix, i));
  }
  // Named while it is being packed; read again when the packing goes on.
  std::string BadFile(int64_t i) const { return Shard(i) + ".bad"; }

  absl::Status CheckManifest(const std::string& identity) const;
  void Work();
  absl::Status PackShard(int64_t i);
  // OK with nothing added, and the reason in `bad`, for a bad sample.
  absl::Status PackSample(int64_t index, ShardWriter* writer,
                          std::vector<std::string>* bad) const;
  absl::Status AddMembers(int64_t index, const Sample& sample,
                          const std::vector<std::string>& images,
                          ShardWriter* writer) const;
  absl::Status Account(int64_t i, const ShardIndex& index, bool kept,
                       const std::vector<std::string>& bad);

  const DataSource& source_;
  const PackOptions options_;
  const int64_t shards_;
  absl::StatusOr<Sampler> order_ = absl::InternalError("not made");
  std::atomic<int64_t> next_{0};

  std::mutex mutex_;
  Progress progress_;
  PackResult result_;
  int64_t read_ = 0;
  std::vector<std::string> first_bad_;
  absl::Status status_;
};

// What tells one packing from another: whatever shard i holds depends on it.
absl::Status Packer::CheckManifest(const std::string& identity) const {
  const std::string manifest = absl::StrFormat(
      "{\n  \"source\": %s,\n  \"samples\": %d,\n  \"shards\": %d,\n"
      "  \"shard_samples\": %d,\n  \"shuffle\": %s,\n  \"seed\": %d\n}\n",
      JsonString(identity), source_.size(), shards_, options_.shard_samples,
      options_.shuffle ? "true" : "false", options_.seed);
  const std::string path =
      JoinPath(options_.out, absl::StrCat(options_.prefix, "-", kManifest));
  if (!PathExists(path)) {
    if (PathExists(Shard(0))) {
      return absl::FailedPreconditionError(
          absl::StrCat(Shard(0), " is there, but not ", path,
                       ": they were made by something else; choose another "
                       "--out or --prefix"));
    }
    return AtomicWriteFile(path, manifest);
  }
  absl::StatusOr<std::string> there = ReadFile(path);
  if (!there.ok()) return there.status();
  if (*there == manifest) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      options_.out, " holds shards of another data set or with other options (",
      path, "); remove them, or choose another --out or --prefix"));
}

absl::Status Packer::AddMembers(int64_t index, const Sample& sample,
                                const std::vector<std::string>& images,
                                ShardWriter* writer) const {
  const std::string key = absl::StrFormat("%09d", index);
  for (size_t slot = 0; slot < images.size(); ++slot) {
    // PackSample looked at it already.
    const ImageInfo info = *InspectImage(images[slot]);
    const std::string number =
        images.size() == 1 ? "" : absl::StrCat(slot, ".");
    const absl::Status status = writer->Add(
        absl::StrCat(key, ".", number, ExtensionOf(info.format)), images[slot]);
    if (!status.ok()) return status;
  }
  return writer->Add(absl::StrCat(key, ".json"),
                     ShardTextsJson(sample.image_id, sample.texts));
}

absl::Status Packer::PackSample(int64_t index, ShardWriter* writer,
                                std::vector<std::string>* bad) const {
  absl::StatusOr<Sample> sample = source_.Read(index);
  if (!sample.ok()) {
    bad->emplace_back(sample.status().message());
    return absl::OkStatus();
  }
  std::vector<std::string> images;
  for (size_t slot = 0; slot < sample->image_paths.size(); ++slot) {
    absl::StatusOr<std::string> bytes =
        ReadSampleImage(*sample, slot, kMaxImageBytes);
    absl::Status status = bytes.status();
    if (status.ok()) {
      status = InspectImage(*bytes).status();
      if (!status.ok()) {
        status = absl::Status(
            status.code(),
            absl::StrCat(sample->image_paths[slot], ": ", status.message()));
      }
    }
    if (!status.ok()) {
      bad->push_back(absl::StrCat(sample->where, ": ", status.message()));
      return absl::OkStatus();
    }
    images.push_back(*std::move(bytes));
  }
  return AddMembers(index, *sample, images, writer);
}

absl::Status Packer::PackShard(int64_t i) {
  const std::string path = Shard(i);
  if (PathExists(IndexPath(path)) && PathExists(path)) {
    absl::StatusOr<std::string> text = ReadFile(IndexPath(path));
    absl::StatusOr<int64_t> bytes = FileSize(path);
    if (text.ok() && bytes.ok()) {
      absl::StatusOr<ShardIndex> index = ShardIndex::Parse(*std::move(text));
      if (index.ok() && index->shard_bytes() == *bytes) {
        absl::StatusOr<std::string> names = ReadFile(BadFile(i));
        return Account(i, *index, /*kept=*/true,
                       absl::StrSplit(names.ok() ? *names : std::string(), '\n',
                                      absl::SkipEmpty()));
      }
    }
  }
  const std::string partial = path + ".partial";
  absl::StatusOr<std::unique_ptr<ShardWriter>> writer =
      ShardWriter::Create(partial);
  if (!writer.ok()) return writer.status();
  std::vector<std::string> bad;
  const int64_t begin = i * options_.shard_samples,
                end = std::min(source_.size(), begin + options_.shard_samples);
  absl::Status status;
  for (int64_t n = begin; n < end && status.ok(); ++n) {
    status = PackSample(options_.shuffle ? order_->Index(n) : n, writer->get(),
                        &bad);
    std::lock_guard<std::mutex> lock(mutex_);
    progress_.Add();
    if (!status_.ok()) status = status_;  // Of another thread: stop.
  }
  if (status.ok()) status = (*writer)->Finish();
  writer->reset();
  absl::StatusOr<ShardIndex> index = absl::InternalError("");
  if (status.ok()) {
    index = ShardIndex::Scan(partial);
    status = index.status();
  }
  if (status.ok() &&
      (!index->damage().empty() ||
       index->size() + static_cast<int64_t>(bad.size()) != end - begin)) {
    status = absl::DataLossError(absl::StrCat(
        partial, ": has ", index->size(), " samples after it was written, ",
        index->damage(), "; is the disk sound?"));
  }
  if (status.ok() && !bad.empty())
    status = AtomicWriteFile(BadFile(i), absl::StrJoin(bad, "\n") + "\n");
  if (status.ok()) status = RenamePath(partial, path);
  if (status.ok()) status = AtomicWriteFile(IndexPath(path), index->text());
  if (!status.ok()) {
    std::remove(partial.c_str());
    return status;
  }
  return Account(i, *index, /*kept=*/false, bad);
}

absl::Status Packer::Account(int64_t i, const ShardIndex& index, bool kept,
                             const std::vector<std::string>& bad) {
  const int64_t expected = std::min(
      options_.shard_samples, source_.size() - i * options_.shard_samples);
  std::lock_guard<std::mutex> lock(mutex_);
  if (kept) progress_.Add(expected);
  read_ += expected;
  result_.kept += kept ? 1 : 0;
  result_.samples += index.size();
  result_.bytes += index.shard_bytes();
  result_.bad += expected - index.size();
  for (const std::string& name : bad) {
    if (static_cast<int64_t>(first_bad_.size()) < kNamedInMessage)
      first_bad_.push_back(name);
  }
  const bool too_many =
      result_.bad > kAlwaysTolerated &&
      static_cast<double>(result_.bad) >
          options_.max_bad_fraction * static_cast<double>(source_.size());
  if (!too_many) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      result_.bad, " of the ", read_, " samples read so far are bad; ",
      kAlwaysTolerated, " and --max_bad_fraction=", options_.max_bad_fraction,
      " of all ", source_.size(),
      " are allowed. Repair the data or raise the fraction. The first:\n  ",
      absl::StrJoin(first_bad_, "\n  ")));
}

void Packer::Work() {
  for (int64_t i; (i = next_++) < shards_;) {
    absl::Status status = PackShard(i);
    std::lock_guard<std::mutex> lock(mutex_);
    if (!status.ok() && status_.ok()) status_ = std::move(status);
    if (!status_.ok()) return;
  }
}

absl::StatusOr<PackResult> Packer::Run(const std::string& identity) {
  order_ = Sampler::Create(source_.size(), 1, options_.seed);
  if (!order_.ok()) return order_.status();
  absl::Status status = MakeDirectories(options_.out);
  if (status.ok()) status = CheckManifest(identity);
  if (!status.ok()) return status;
  std::vector<std::thread> threads;
  for (int t = 1; t < options_.workers; ++t)
    threads.emplace_back([this] { Work(); });
  Work();
  for (std::thread& thread : threads) thread.join();
  progress_.Done();
  if (!status_.ok()) return status_;
  // One list of all, in the order of the shards.
  std::string names;
  for (int64_t i = 0; i < shards_; ++i) {
    absl::StatusOr<std::string> bad = ReadFile(BadFile(i));
    if (bad.ok()) names += *bad;
  }
  const std::string path =
      JoinPath(options_.out, absl::StrCat(options_.prefix, "-", kBadSamples));
  if (!names.empty()) {
    status = AtomicWriteFile(path, names);
    if (!status.ok()) return status;
  }
  result_.shards = shards_;
  result_.pattern = JoinPath(
      options_.out,
      absl::StrFormat("%s-{%05d..%05d}.tar", options_.prefix, 0, shards_ - 1));
  return result_;
}

}  // namespace

absl::StatusOr<PackResult> Pack(const DataSource& source,
                                const std::string& identity,
                                const PackOptions& options) {
  return Packer(source, options).Run(identity);
}

}  // namespace semvq::tools
