#include "core/checkpoint/checkpoint.h"

#include <ATen/core/Tensor.h>
#include <fcntl.h>
#include <google/protobuf/text_format.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "protos/manifest.pb.h"

namespace semvq {
namespace {

constexpr absl::string_view kStepPrefix = "step_";
// Readers look at step_* only, so anything under this name does not exist yet,
// or no longer.
constexpr absl::string_view kTemporaryPrefix = ".tmp_";
constexpr absl::string_view kHashComment = "# sha256: ";
constexpr int kDeepestManifest = 64;

std::string StepName(int64_t step) {
  return absl::StrFormat("%s%08d", kStepPrefix, step);
}

bool ParseStepName(absl::string_view name, int64_t* step) {
  return absl::ConsumePrefix(&name, kStepPrefix) && name.size() >= 8 &&
         std::all_of(name.begin(), name.end(), absl::ascii_isdigit) &&
         absl::SimpleAtoi(name, step);
}

bool IsSectionName(absl::string_view name) {
  return !name.empty() && name.size() <= 100 &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '_' || c == '-';
         });
}

std::string SectionFile(absl::string_view section) {
  return absl::StrCat(section, ".safetensors");
}

// One saver per root at a time: a second one would take the first one's
// temporary folder for a dead one's. The lock dies with its process.
class RootLock {
 public:
  absl::Status Take(const std::string& root) {
    fd_ = open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd_ < 0) return FileError(errno, "cannot open folder", root);
    if (flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      return absl::FailedPreconditionError(absl::StrCat(
          root,
          ": another process is saving a checkpoint here; give each run "
          "a folder of its own"));
    }
    return absl::OkStatus();  // some network file systems have no locks
  }
  ~RootLock() {
    if (fd_ >= 0) close(fd_);
  }

 private:
  int fd_ = -1;
};

absl::StatusOr<std::string> FormatManifest(const CheckpointManifest& manifest) {
  std::string text;
  if (!google::protobuf::TextFormat::PrintToString(manifest, &text)) {
    return absl::InternalError("cannot print the checkpoint's manifest");
  }
  return absl::StrCat(text, kHashComment, Sha256Hex(text), "\n");
}

absl::Status Damaged(absl::string_view path, absl::string_view what) {
  return absl::DataLossError(absl::StrCat(path, ": ", what));
}

// Reads the manifest of `folder` and checks it, but none of the files.
absl::StatusOr<CheckpointManifest> ReadManifest(const std::string& folder) {
  const std::string path = JoinPath(folder, kManifestName);
  absl::StatusOr<std::string> text = ReadFile(path);
  if (absl::IsInvalidArgument(text.status())) {  // Too large, or a folder.
    return absl::DataLossError(text.status().message());
  }
  if (!text.ok()) {
    if (!absl::IsNotFound(text.status())) return text.status();
    if (!IsDirectory(folder)) {
      return absl::NotFoundError(
          absl::StrCat(folder, ": there is no such checkpoint"));
    }
    return Damaged(path, "is missing; the folder is no complete checkpoint");
  }
  const size_t mark = text->rfind(kHashComment.data());
  absl::string_view body = *text;
  if (mark == std::string::npos || text->back() != '\n') {
    return Damaged(path,
                   "its last line, the hash, is missing; it is truncated");
  }
  body = body.substr(0, mark);
  absl::string_view stated = absl::string_view(*text).substr(mark);
  absl::ConsumePrefix(&stated, kHashComment);
  absl::ConsumeSuffix(&stated, "\n");
  const std::string actual = Sha256Hex(body);
  if (stated != actual) {
    return Damaged(path, absl::StrCat("was altered after it was saved: its "
                                      "SHA-256 is ",
                                      actual, ", its last line says ", stated));
  }
  // A newer format may have fields that this program does not know, so the
  // version is looked at before their absence can matter.
  google::protobuf::TextFormat::Parser parser;
  parser.AllowUnknownField(true);
  // It has none by itself, and unknown fields nest as deep as a file likes.
  parser.SetRecursionLimit(kDeepestManifest);
  CheckpointManifest manifest;
  if (!parser.ParseFromString(std::string(body), &manifest)) {
    return Damaged(path, "is no manifest in protobuf text format");
  }
  if (manifest.format_version() != kCheckpointFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": format version ", manifest.format_version(),
        ", but this program reads version ", kCheckpointFormatVersion,
        "; use the SemVQ that wrote it (version ", manifest.semvq_version(),
        ")"));
  }
  if (manifest.step() < 0) {
    return Damaged(path,
                   absl::StrCat("step ", manifest.step(), " is negative"));
  }
  std::set<std::string> sections;
  for (const auto& file : manifest.files()) {
    if (!IsSectionName(file.section()) ||
        file.name() != SectionFile(file.section()) ||
        !sections.insert(file.section()).second) {
      return Damaged(path, absl::StrCat("file \"", file.name(),
                                        "\" of section \"", file.section(),
                                        "\" is malformed or listed twice"));
    }
  }
  return manifest;
}

absl::Status CheckSize(const std::string& folder,
                       const CheckpointManifest::File& file) {
  const std::string path = JoinPath(folder, file.name());
  const absl::StatusOr<int64_t> size = FileSize(path);
  if (absl::IsNotFound(size.status())) return Damaged(path, "is missing");
  if (!size.ok()) return size.status();
  if (*size != file.size_bytes()) {
    return Damaged(
        path, absl::StrCat("has ", *size, " bytes, but the manifest says ",
                           file.size_bytes(),
                           *size < file.size_bytes() ? "; it is truncated"
                                                     : "; it was altered"));
  }
  return absl::OkStatus();
}

absl::Status CheckHash(const std::string& folder,
                       const CheckpointManifest::File& file) {
  const std::string path = JoinPath(folder, file.name());
  const absl::StatusOr<std::string> hash = Sha256File(path);
  if (!hash.ok()) return hash.status();
  if (*hash != file.sha256()) {
    return Damaged(path,
                   absl::StrCat("was altered after it was saved: its "
                                "SHA-256 is ",
                                *hash, ", the manifest says ", file.sha256()));
  }
  return absl::OkStatus();
}

// Manifest and sizes; with `hashes`, every byte.
absl::StatusOr<CheckpointManifest> Verify(const std::string& folder,
                                          bool hashes) {
  absl::StatusOr<CheckpointManifest> manifest = ReadManifest(folder);
  if (!manifest.ok()) return manifest.status();
  for (const auto& file : manifest->files()) {
    absl::Status s = CheckSize(folder, file);
    if (s.ok() && hashes) s = CheckHash(folder, file);
    if (!s.ok()) return s;
  }
  return manifest;
}

// Adds to a DataLoss what can be done about it.
absl::Status WithAdvice(const absl::Status& status, const std::string& folder) {
  if (!absl::IsDataLoss(status)) return status;
  std::string advice = "no earlier checkpoint beside it is intact";
  int64_t step = 0;
  if (ParseStepName(BaseName(folder), &step)) {
    absl::StatusOr<std::vector<CheckpointInfo>> all =
        ListCheckpoints(DirName(folder));
    if (all.ok()) {
      for (auto info = all->rbegin(); info != all->rend(); ++info) {
        if (info->step >= step || !info->status.ok()) continue;
        if (!Verify(info->path, /*hashes=*/true).ok()) continue;
        advice = absl::StrCat("resume from ", info->path, " (intact)");
        break;
      }
    }
  }
  return absl::DataLossError(absl::StrCat(
      status.message(), "; remove or restore the checkpoint, and ", advice));
}

bool Better(double a, double b, bool is_max) { return is_max ? a > b : a < b; }

// Null if no complete checkpoint has the metric.
const CheckpointInfo* Best(const std::vector<CheckpointInfo>& all,
                           const RetentionPolicy& policy) {
  const CheckpointInfo* best = nullptr;
  double best_value = 0;
  for (const CheckpointInfo& info : all) {
    if (!info.status.ok()) continue;
    const auto value = info.metrics.find(policy.best_metric);
    if (value == info.metrics.end() || std::isnan(value->second)) continue;
    if (best == nullptr ||
        Better(value->second, best_value, policy.best_is_max)) {
      best = &info;
      best_value = value->second;
    }
  }
  return best;
}

// Removes a checkpoint so that a crash half-way leaves no half of it visible.
absl::Status RemoveCheckpoint(const std::string& path) {
  const std::string aside =
      JoinPath(DirName(path),
               absl::StrCat(kTemporaryPrefix, "removed_", BaseName(path)));
  if (absl::Status s = RenamePath(path, aside); !s.ok()) return s;
  return RemoveTree(aside);
}

absl::Status ApplyRetention(const std::string& root, const std::string& saved,
                            const RetentionPolicy& policy) {
  if (policy.keep_last == 0) return absl::OkStatus();
  absl::StatusOr<std::vector<CheckpointInfo>> all = ListCheckpoints(root);
  if (!all.ok()) return all.status();
  std::set<std::string> kept = {saved};
  if (!policy.best_metric.empty()) {
    if (const CheckpointInfo* best = Best(*all, policy)) {
      kept.insert(best->path);
    }
  }
  int64_t newest = 0;
  for (auto info = all->rbegin(); info != all->rend(); ++info) {
    // Damaged ones are left for their owner to look at; they count for nothing.
    if (!info->status.ok()) continue;
    if (newest++ < policy.keep_last || kept.count(info->path) > 0) continue;
    if (absl::Status s = RemoveCheckpoint(info->path); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status RemoveLeftovers(const std::string& root) {
  absl::StatusOr<std::vector<std::string>> names = ListDirectory(root);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    if (!absl::StartsWith(name, kTemporaryPrefix)) continue;
    if (absl::Status s = RemoveTree(JoinPath(root, name)); !s.ok()) return s;
  }
  return absl::OkStatus();
}

// Writes and syncs all files of a checkpoint into an existing folder.
absl::Status WriteContents(const std::string& folder,
                           const CheckpointContents& contents) {
  CheckpointManifest manifest;
  manifest.set_format_version(kCheckpointFormatVersion);
  manifest.set_semvq_version(contents.semvq_version);
  manifest.set_step(contents.step);
  manifest.set_config_text(contents.config_text);
  manifest.set_config_hash(contents.config_hash);
  for (const auto& [section, tensors] : contents.sections) {
    FileDigest digest;
    const std::string name = SectionFile(section);
    if (absl::Status s =
            WriteSafetensors(JoinPath(folder, name), tensors, {}, &digest);
        !s.ok()) {
      return s;
    }
    CheckpointManifest::File* file = manifest.add_files();
    file->set_name(name);
    file->set_section(section);
    file->set_size_bytes(digest.size_bytes);
    file->set_sha256(digest.sha256);
  }
  manifest.mutable_state()->insert(contents.state.begin(),
                                   contents.state.end());
  manifest.mutable_metrics()->insert(contents.metrics.begin(),
                                     contents.metrics.end());
  absl::StatusOr<std::string> text = FormatManifest(manifest);
  if (!text.ok()) return text.status();
  auto file = FileWriter::Create(JoinPath(folder, kManifestName));
  if (!file.ok()) return file.status();
  if (absl::Status s = (*file)->Write(*text); !s.ok()) return s;
  if (absl::Status s = (*file)->Sync(); !s.ok()) return s;
  if (absl::Status s = (*file)->Close(); !s.ok()) return s;
  return SyncDirectory(folder);
}

// Gives the finished folder its name. A checkpoint that has the name already
// is exchanged in one step, so that one of the two is always there.
absl::Status Publish(const std::string& temporary, const std::string& path) {
  if (PathExists(path) &&
      syscall(SYS_renameat2, AT_FDCWD, temporary.c_str(), AT_FDCWD,
              path.c_str(), RENAME_EXCHANGE) == 0) {
    return RemoveTree(temporary);
  }
  if (PathExists(path)) {  // a file system without exchange
    if (absl::Status s = RemoveCheckpoint(path); !s.ok()) return s;
  }
  return RenamePath(temporary, path);
}

absl::Status CheckContents(const CheckpointContents& contents,
                           const RetentionPolicy& retention) {
  if (contents.step < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("checkpoint step ", contents.step, " is negative"));
  }
  if (retention.keep_last < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "keep_last is ", retention.keep_last, ", expected 0 (all) or more"));
  }
  for (const auto& [section, tensors] : contents.sections) {
    if (!IsSectionName(section)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "checkpoint section \"", section,
          "\": expected letters, digits, '_' and '-', as it names a file"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> SaveCheckpoint(const std::string& root,
                                           const CheckpointContents& contents,
                                           const RetentionPolicy& retention) {
  if (absl::Status s = CheckContents(contents, retention); !s.ok()) return s;
  if (absl::Status s = MakeDirectories(root); !s.ok()) return s;
  RootLock lock;
  if (absl::Status s = lock.Take(root); !s.ok()) return s;
  if (absl::Status s = RemoveLeftovers(root); !s.ok()) return s;

  const std::string path = JoinPath(root, StepName(contents.step));
  const std::string temporary =
      JoinPath(root, absl::StrCat(kTemporaryPrefix, StepName(contents.step)));
  {
    absl::Cleanup remove = [&] { RemoveTree(temporary).IgnoreError(); };
    absl::Status s = MakeDirectories(temporary);
    if (s.ok()) s = WriteContents(temporary, contents);
    if (s.ok()) s = Publish(temporary, path);
    if (!s.ok()) {
      return absl::Status(s.code(),
                          absl::StrCat("cannot save the checkpoint of step ",
                                       contents.step, ": ", s.message(),
                                       "; earlier checkpoints are untouched"));
    }
    std::move(remove).Cancel();
  }
  if (absl::Status s = SyncDirectory(root); !s.ok()) return s;
  if (absl::Status s = ApplyRetention(root, path, retention); !s.ok()) return s;
  return path;
}

absl::StatusOr<std::vector<CheckpointInfo>> ListCheckpoints(
    const std::string& root) {
  std::vector<CheckpointInfo> all;
  absl::StatusOr<std::vector<std::string>> names = ListDirectory(root);
  if (absl::IsNotFound(names.status())) return all;
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    CheckpointInfo info;
    if (!ParseStepName(name, &info.step)) continue;
    info.path = JoinPath(root, name);
    absl::StatusOr<CheckpointManifest> manifest =
        Verify(info.path, /*hashes=*/false);
    info.status = manifest.status();
    if (manifest.ok()) {
      if (manifest->step() != info.step) {
        info.status = Damaged(JoinPath(info.path, kManifestName),
                              absl::StrCat("is of step ", manifest->step(),
                                           "; the folder was renamed"));
      }
      info.metrics.insert(manifest->metrics().begin(),
                          manifest->metrics().end());
    }
    all.push_back(std::move(info));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.step != b.step ? a.step < b.step : a.path < b.path;
  });
  return all;
}

absl::StatusOr<std::string> FindLatestCheckpoint(
    const std::string& root, std::vector<std::string>* skipped) {
  absl::StatusOr<std::vector<CheckpointInfo>> all = ListCheckpoints(root);
  if (!all.ok()) return all.status();
  std::string passed_over;
  for (auto info = all->rbegin(); info != all->rend(); ++info) {
    if (info->status.ok()) return info->path;
    if (!absl::IsDataLoss(info->status)) return info->status;
    const std::string reason(info->status.message());
    absl::StrAppend(&passed_over, "; ", reason);
    if (skipped != nullptr) skipped->push_back(reason);
  }
  return absl::NotFoundError(
      absl::StrCat(root, ": no complete checkpoint", passed_over));
}

absl::StatusOr<std::string> FindBestCheckpoint(const std::string& root,
                                               const RetentionPolicy& policy) {
  absl::StatusOr<std::vector<CheckpointInfo>> all = ListCheckpoints(root);
  if (!all.ok()) return all.status();
  const CheckpointInfo* best = Best(*all, policy);
  if (best == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(root, ": no complete checkpoint has metric \"",
                     policy.best_metric, "\""));
  }
  return best->path;
}

absl::StatusOr<CheckpointContents> LoadCheckpoint(
    const std::string& folder, absl::Span<const std::string> sections) {
  absl::StatusOr<CheckpointManifest> manifest = ReadManifest(folder);
  if (!manifest.ok()) return WithAdvice(manifest.status(), folder);
  CheckpointContents contents;
  contents.step = manifest->step();
  contents.semvq_version = manifest->semvq_version();
  contents.config_text = manifest->config_text();
  contents.config_hash = manifest->config_hash();
  contents.state.insert(manifest->state().begin(), manifest->state().end());
  contents.metrics.insert(manifest->metrics().begin(),
                          manifest->metrics().end());

  auto wanted = [&](const std::string& section) {
    return sections.empty() || absl::c_linear_search(sections, section);
  };
  auto load = [&](const CheckpointManifest::File& entry) -> absl::Status {
    if (absl::Status s = CheckSize(folder, entry); !s.ok()) return s;
    if (absl::Status s = CheckHash(folder, entry); !s.ok()) return s;
    auto file = SafetensorsFile::Open(JoinPath(folder, entry.name()));
    if (!file.ok()) return file.status();
    NamedTensors& tensors = contents.sections[entry.section()];
    for (const std::string& name : (*file)->names()) {
      absl::StatusOr<at::Tensor> tensor = (*file)->Get(name);
      if (!tensor.ok()) return tensor.status();
      tensors.emplace_back(name, *std::move(tensor));
    }
    return absl::OkStatus();
  };
  for (const auto& entry : manifest->files()) {
    if (!wanted(entry.section())) continue;
    if (absl::Status s = load(entry); !s.ok()) return WithAdvice(s, folder);
  }
  for (const std::string& section : sections) {
    if (contents.sections.count(section) == 0) {
      return absl::NotFoundError(absl::StrCat(
          folder, ": the checkpoint has no section \"", section, "\""));
    }
  }
  return contents;
}

absl::StatusOr<std::map<std::string, at::Tensor>> LoadModelTensors(
    const std::string& path) {
  std::map<std::string, at::Tensor> tensors;
  if (IsDirectory(path)) {
    std::string folder = path;
    if (!PathExists(JoinPath(path, kManifestName))) {
      auto latest = FindLatestCheckpoint(path);
      if (!latest.ok()) return latest.status();
      folder = *latest;
    }
    auto contents = LoadCheckpoint(folder, {"model"});
    if (!contents.ok()) return contents.status();
    for (auto& [name, tensor] : contents->sections["model"]) {
      tensors[name] = std::move(tensor);
    }
    return tensors;
  }
  auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return file.status();
  for (const std::string& name : (*file)->names()) {
    auto tensor = (*file)->View(name);
    if (!tensor.ok()) return tensor.status();
    tensors[name] = *std::move(tensor);
  }
  return tensors;
}

}  // namespace semvq
