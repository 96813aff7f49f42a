#include "core/checkpoint/checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <limits>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

std::string FreshRoot(const std::string& name) {
  const std::string root = JoinPath(testing::TempDir(), name);
  EXPECT_TRUE(RemoveTree(root).ok());
  return root;
}

// All values say which step they are of.
CheckpointContents Contents(int64_t step, int64_t elements = 1000) {
  CheckpointContents c;
  c.step = step;
  c.semvq_version = "0.1";
  c.config_text = "trainer { steps: 10 }\n# \"quoted\"\n";
  c.config_hash = "abc";
  c.sections["model"] = {{"w", at::full({elements}, static_cast<double>(step))},
                         {"b", at::full({3}, step, at::kLong)}};
  c.sections["optimizer"] = {
      {"m", at::full({elements}, static_cast<double>(step))}};
  c.state["cursor"] = absl::StrCat(step);
  c.state["rng"] = std::string("\0\xff\n\"", 4);
  c.metrics["loss"] = 1.0 / (1 + step);
  return c;
}

void ExpectComplete(const std::string& path, int64_t step) {
  const auto c = LoadCheckpoint(path);
  ASSERT_TRUE(c.ok()) << c.status();
  const CheckpointContents expected = Contents(step);
  EXPECT_EQ(c->step, step);
  EXPECT_EQ(c->config_text, expected.config_text);
  EXPECT_EQ(c->config_hash, expected.config_hash);
  EXPECT_EQ(c->semvq_version, expected.semvq_version);
  EXPECT_EQ(c->state, expected.state);
  EXPECT_EQ(c->metrics, expected.metrics);
  ASSERT_EQ(c->sections.size(), 2u);
  EXPECT_EQ(c->sections.at("model").size(), 2u);
  for (const auto& [section, tensors] : c->sections) {
    for (const auto& [name, tensor] : tensors) {
      EXPECT_GT(tensor.numel(), 0);
      EXPECT_TRUE(tensor.eq(step).all().item<bool>()) << section << name;
    }
  }
}

std::vector<int64_t> Steps(const std::string& root) {
  std::vector<int64_t> steps;
  const auto all = ListCheckpoints(root);
  EXPECT_TRUE(all.ok()) << all.status();
  for (const auto& info : *all) steps.push_back(info.step);
  return steps;
}

int64_t Leftovers(const std::string& root) {
  int64_t count = 0;
  const auto names = ListDirectory(root);
  EXPECT_TRUE(names.ok()) << names.status();
  for (const auto& name : *names) count += name[0] == '.';
  return count;
}

TEST(Checkpoint, SavesAndLoads) {
  const std::string root = FreshRoot("save");
  const auto path = SaveCheckpoint(root, Contents(123), {});
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(*path, JoinPath(root, "step_00000123"));
  EXPECT_EQ(*FindLatestCheckpoint(root), *path);
  ExpectComplete(*path, 123);
  EXPECT_EQ(Leftovers(root), 0);

  const auto part = LoadCheckpoint(*path, {"optimizer"});
  ASSERT_TRUE(part.ok());
  EXPECT_EQ(part->sections.size(), 1u);
  EXPECT_EQ(LoadCheckpoint(*path, {"teacher"}).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(LoadCheckpoint(JoinPath(root, "step_00000001")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Checkpoint, SameContentsGiveTheSameBytes) {
  const std::string a = FreshRoot("same_a"), b = FreshRoot("same_b");
  const std::string path_a = *SaveCheckpoint(a, Contents(5), {});
  const std::string path_b = *SaveCheckpoint(b, Contents(5), {});
  const auto names = ListDirectory(path_a);
  ASSERT_EQ(names->size(), 3u);
  for (const std::string& name : *names) {
    EXPECT_EQ(*ReadFile(JoinPath(path_a, name)),
              *ReadFile(JoinPath(path_b, name)))
        << name;
  }
}

TEST(Checkpoint, ReplacesTheSameStep) {
  const std::string root = FreshRoot("replace");
  CheckpointContents other = Contents(7);
  other.config_text = "other";
  ASSERT_TRUE(SaveCheckpoint(root, other, {}).ok());
  ASSERT_TRUE(SaveCheckpoint(root, Contents(7), {}).ok());
  EXPECT_EQ(Steps(root), std::vector<int64_t>{7});
  ExpectComplete(*FindLatestCheckpoint(root), 7);
  EXPECT_EQ(Leftovers(root), 0);
}

TEST(Checkpoint, KeepsTheLastAndTheBest) {
  const std::string root = FreshRoot("retention");
  RetentionPolicy policy;
  policy.keep_last = 2;
  policy.best_metric = "score";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double scores[] = {0.1, 0.9, 0.3, nan, 0.9, 0.2, 0.1};
  for (int64_t step = 0; step < 7; ++step) {
    CheckpointContents c = Contents(step);
    c.metrics["score"] = scores[step];
    ASSERT_TRUE(SaveCheckpoint(root, c, policy).ok());
  }
  EXPECT_EQ(Steps(root), (std::vector<int64_t>{1, 5, 6}));
  EXPECT_EQ(*FindBestCheckpoint(root, policy), JoinPath(root, "step_00000001"));
  policy.best_is_max = false;
  EXPECT_EQ(*FindBestCheckpoint(root, policy), JoinPath(root, "step_00000006"));
  policy.best_metric = "absent";
  EXPECT_EQ(FindBestCheckpoint(root, policy).status().code(),
            absl::StatusCode::kNotFound);
  policy.keep_last = 1;
  ASSERT_TRUE(SaveCheckpoint(root, Contents(7), policy).ok());
  EXPECT_EQ(Steps(root), std::vector<int64_t>{7});
  // An earlier step than those kept is what was asked for, so it stays.
  ASSERT_TRUE(SaveCheckpoint(root, Contents(3), policy).ok());
  EXPECT_EQ(Steps(root), (std::vector<int64_t>{3, 7}));
}

TEST(Checkpoint, NamesWhatIsDamagedAndWhatIsNot) {
  const std::string root = FreshRoot("damage");
  for (int64_t step : {1, 2, 3}) {
    ASSERT_TRUE(SaveCheckpoint(root, Contents(step), {}).ok());
  }
  const std::string second = JoinPath(root, "step_00000002");
  const std::string third = JoinPath(root, "step_00000003");
  const std::string file = JoinPath(third, "model.safetensors");
  const std::string manifest = JoinPath(third, kManifestName);
  const std::string good = *ReadFile(file), good_manifest = *ReadFile(manifest);

  auto expect_loss = [&](absl::string_view named, absl::string_view what) {
    const auto c = LoadCheckpoint(third);
    EXPECT_EQ(c.status().code(), absl::StatusCode::kDataLoss);
    for (absl::string_view part : {named, what, absl::string_view(second)}) {
      EXPECT_NE(c.status().message().find(part), absl::string_view::npos)
          << part << " is not in: " << c.status();
    }
  };
  std::string altered = good;
  altered.back() ^= 1;
  ASSERT_TRUE(AtomicWriteFile(file, altered).ok());
  EXPECT_EQ(*FindLatestCheckpoint(root), third) << "a scan reads no data";
  expect_loss(file, "altered");

  ASSERT_TRUE(AtomicWriteFile(file, good.substr(0, good.size() - 1)).ok());
  std::vector<std::string> skipped;
  EXPECT_EQ(*FindLatestCheckpoint(root, &skipped), second);
  ASSERT_EQ(skipped.size(), 1u);
  EXPECT_NE(skipped[0].find(file), std::string::npos);
  expect_loss(file, "truncated");

  ASSERT_TRUE(RemoveTree(file).ok());
  expect_loss(file, "missing");
  ASSERT_TRUE(AtomicWriteFile(file, good).ok());
  EXPECT_TRUE(LoadCheckpoint(third).ok());

  ASSERT_TRUE(AtomicWriteFile(
                  manifest,
                  absl::StrReplaceAll(good_manifest, {{"step: 3", "step: 4"}}))
                  .ok());
  expect_loss(manifest, "altered");
  for (size_t size :
       {size_t{0}, good_manifest.size() / 2, good_manifest.size() - 1}) {
    ASSERT_TRUE(AtomicWriteFile(manifest, good_manifest.substr(0, size)).ok());
    expect_loss(manifest, "");
  }
  ASSERT_TRUE(RemoveTree(manifest).ok());
  expect_loss(manifest, "missing");

  // The advice skips an earlier checkpoint that is damaged as well.
  const std::string other = JoinPath(second, "optimizer.safetensors");
  altered = *ReadFile(other);
  altered.back() ^= 1;
  ASSERT_TRUE(AtomicWriteFile(other, altered).ok());
  EXPECT_NE(LoadCheckpoint(third).status().message().find(
                JoinPath(root, "step_00000001")),
            absl::string_view::npos);
}

// Rewrites a manifest, with a right hash.
void Forge(const std::string& path, const std::string& from,
           const std::string& to) {
  std::string text = *ReadFile(path);
  text = text.substr(0, text.rfind("# sha256: "));
  text = absl::StrReplaceAll(text, {{from, to}});
  ASSERT_TRUE(AtomicWriteFile(
                  path, absl::StrCat(text, "# sha256: ", Sha256Hex(text), "\n"))
                  .ok());
}

TEST(Checkpoint, RefusesOtherFormatVersions) {
  const std::string root = FreshRoot("version");
  ASSERT_TRUE(SaveCheckpoint(root, Contents(1), {}).ok());
  const std::string path = *SaveCheckpoint(root, Contents(2), {});
  Forge(JoinPath(path, kManifestName), "format_version: 1",
        "format_version: 2\nfield_of_the_future: 3");
  const auto c = LoadCheckpoint(path);
  EXPECT_EQ(c.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(c.status().message().find("version 2"), absl::string_view::npos);
  // Not passed over: the run would silently start from an older state.
  EXPECT_EQ(FindLatestCheckpoint(root).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(Checkpoint, RefusesFilesOutsideTheFolder) {
  const std::string root = FreshRoot("traversal");
  const std::string path = *SaveCheckpoint(root, Contents(1), {});
  Forge(JoinPath(path, kManifestName), "\"model", "\"../model");
  EXPECT_EQ(LoadCheckpoint(path).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Checkpoint, RefusesHostileManifests) {
  const std::string root = FreshRoot("hostile");
  const std::string path = *SaveCheckpoint(root, Contents(1), {});
  const std::string manifest = JoinPath(path, kManifestName);
  const std::string good = *ReadFile(manifest);
  // A million messages in each other, which a parser may follow with its stack.
  std::string deep;
  for (int i = 0; i < 1'000'000; ++i) deep += "a{";
  Forge(manifest, "format_version: 1", "format_version: 1\n" + deep);
  EXPECT_EQ(LoadCheckpoint(path).status().code(), absl::StatusCode::kDataLoss);
  // A tensor file of 10^12 bytes, and a manifest of that size.
  ASSERT_TRUE(AtomicWriteFile(manifest, good).ok());
  const int64_t size = *FileSize(JoinPath(path, "model.safetensors"));
  Forge(manifest, absl::StrCat("size_bytes: ", size),
        "size_bytes: 1000000000000");
  EXPECT_EQ(LoadCheckpoint(path).status().code(), absl::StatusCode::kDataLoss);
  ASSERT_EQ(truncate(manifest.c_str(), 1'000'000'000'000), 0);
  const auto huge = LoadCheckpoint(path);
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(huge.status().message().find("has 1000000000000 bytes"),
            absl::string_view::npos)
      << huge.status();
}

TEST(Checkpoint, RefusesBadRequests) {
  const std::string root = FreshRoot("requests");
  CheckpointContents c = Contents(-1);
  EXPECT_FALSE(SaveCheckpoint(root, c, {}).ok());
  c = Contents(1);
  c.sections["../x"] = {};
  EXPECT_FALSE(SaveCheckpoint(root, c, {}).ok());
  RetentionPolicy policy;
  policy.keep_last = -1;
  EXPECT_FALSE(SaveCheckpoint(root, Contents(1), policy).ok());
  EXPECT_EQ(FindLatestCheckpoint(root).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Checkpoint, FullDiskLeavesTheLastGoodOne) {
  const std::string root = FreshRoot("full");
  ASSERT_TRUE(SaveCheckpoint(root, Contents(1), {}).ok());
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 50'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  RetentionPolicy policy;
  policy.keep_last = 1;
  const auto saved = SaveCheckpoint(root, Contents(2, 100'000), policy);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(saved.status().code(), absl::StatusCode::kResourceExhausted)
      << saved.status();
  EXPECT_EQ(Steps(root), std::vector<int64_t>{1});
  EXPECT_EQ(Leftovers(root), 0);
  ExpectComplete(*FindLatestCheckpoint(root), 1);
}

TEST(Checkpoint, CleansUpAfterADeadProcess) {
  const std::string root = FreshRoot("leftover");
  ASSERT_TRUE(SaveCheckpoint(root, Contents(1), {}).ok());
  ASSERT_TRUE(MakeDirectories(JoinPath(root, ".tmp_step_00000009")).ok());
  ASSERT_TRUE(
      AtomicWriteFile(JoinPath(root, ".tmp_step_00000009/model.safetensors"),
                      "half")
          .ok());
  ExpectComplete(*FindLatestCheckpoint(root), 1);
  ASSERT_TRUE(SaveCheckpoint(root, Contents(2), {}).ok());
  EXPECT_EQ(Leftovers(root), 0);
}

TEST(Checkpoint, ModelTensorsComeFromFoldersAndFiles) {
  const std::string root = FreshRoot("model");
  CheckpointContents contents;
  contents.step = 4;
  contents.sections["model"] = {{"w", at::full({2}, 4.f)}};
  ASSERT_TRUE(SaveCheckpoint(root, contents, {}).ok());
  contents.step = 7;
  contents.sections["model"] = {{"w", at::full({2}, 7.f)}};
  const auto latest = SaveCheckpoint(root, contents, {});
  ASSERT_TRUE(latest.ok());
  for (const std::string& path :
       {root, *latest, JoinPath(*latest, "model.safetensors")}) {
    const auto tensors = LoadModelTensors(path);
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    ASSERT_EQ(tensors->size(), 1u);
    EXPECT_TRUE(at::equal(tensors->at("w"), at::full({2}, 7.f))) << path;
  }
  EXPECT_EQ(LoadModelTensors(JoinPath(root, "none")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Checkpoint, OneSaverAtATime) {
  const std::string root = FreshRoot("lock");
  ASSERT_TRUE(SaveCheckpoint(root, Contents(1), {}).ok());
  const int fd = open(root.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  EXPECT_EQ(SaveCheckpoint(root, Contents(2), {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  close(fd);
  EXPECT_TRUE(SaveCheckpoint(root, Contents(2), {}).ok());
}

// A disk that stalls: the save stands still, wherever it is just then.
TEST(Checkpoint, AStalledSaveShowsNothingHalf) {
  const std::string root = FreshRoot("stalled");
  std::mt19937 random(20261129);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  RetentionPolicy policy;
  policy.keep_last = 2;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    for (int64_t step = 0;; ++step) {
      if (!SaveCheckpoint(root, Contents(step, 200'000), policy).ok()) {
        _exit(1);
      }
    }
  }
  int stalls = 0, refused = 0;
  int64_t last = -1;
  for (int round = 0; round < 20; ++round) {
    usleep(10'000 + random() % 40'000);
    ASSERT_EQ(kill(child, SIGSTOP), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
    ASSERT_TRUE(WIFSTOPPED(status)) << "a save failed, or the child crashed";
    if (PathExists(root)) {
      stalls += Leftovers(root) > 0;
      const auto all = ListCheckpoints(root);
      for (const auto& info : *all) {
        ASSERT_TRUE(info.status.ok()) << info.status;
      }
      const auto latest = FindLatestCheckpoint(root);
      if (latest.ok()) {
        const int64_t step = LoadCheckpoint(*latest)->step;
        EXPECT_GE(step, last);
        ExpectComplete(*latest, step);
        last = step;
      }
      // Nobody else takes the stalled one's files for a dead one's.
      if (Leftovers(root) > 0) {
        refused += absl::IsFailedPrecondition(
            SaveCheckpoint(root, Contents(1'000'000), policy).status());
      }
    }
    ASSERT_EQ(kill(child, SIGCONT), 0);
  }
  ASSERT_EQ(kill(child, SIGKILL), 0);
  waitpid(child, nullptr, 0);
  at::set_num_threads(threads);
  EXPECT_GT(last, 0) << "no save was ever complete";
  EXPECT_GT(stalls, 0) << "no save was caught half-way";
  EXPECT_EQ(refused, stalls);
}

TEST(Checkpoint, SurvivesKillAtAnyMoment) {
  const std::string root = FreshRoot("kill");
  std::mt19937 random(20240607);
  // A forked child has none of its parent's worker threads to wait for.
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  RetentionPolicy policy;
  policy.keep_last = 2;
  int64_t last = -1;
  int leftovers_seen = 0;
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int64_t step = last + 1;; ++step) {
        if (!SaveCheckpoint(root, Contents(step, 200'000), policy).ok()) {
          _exit(1);
        }
      }
    }
    usleep(20'000 + random() % 60'000);
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "a save failed, or the child crashed";
    if (!PathExists(root)) continue;
    leftovers_seen += Leftovers(root) > 0;
    const auto all = ListCheckpoints(root);
    for (const auto& info : *all) {
      ASSERT_TRUE(info.status.ok()) << info.status;
    }
    const auto latest = FindLatestCheckpoint(root);
    if (!latest.ok()) continue;
    const int64_t step = LoadCheckpoint(*latest)->step;
    EXPECT_GE(step, last);
    ExpectComplete(*latest, step);
    last = step;
  }
  at::set_num_threads(threads);
  EXPECT_GT(last, 0) << "no save was ever complete";
  EXPECT_GT(leftovers_seen, 0) << "no kill hit a save";
}

}  // namespace
}  // namespace semvq
