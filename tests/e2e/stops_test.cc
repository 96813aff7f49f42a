// The trainer as a process: whatever stops it costs nothing, and what goes
// wrong on the way is explained.

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "core/checkpoint/checkpoint.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "tests/e2e/trainer_process.h"
#include "tests/shapes.h"

namespace semvq {
namespace {

class Stops : public TrainerProcess {};

TEST_F(Stops, FullDiskLeavesTheLastGoodCheckpoint) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 3, "b"), "b").code, kStopped);
  ProcessOptions full;
  full.max_file_size = 30000;
  const ProcessResult result = Train(Pretrain(), full, "b");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "file size limit");
  EXPECT_SAYS(result, "earlier checkpoints are untouched");
  // Nothing half-written has a name, and the run goes on when there is room.
  EXPECT_EQ(Train(Pretrain(), {}, "b").code, kDone);
  ExpectSameRun("a", "b");
}

// A kill while the second task is evaluated: the first is not evaluated again,
// and the result is that of a run that nobody disturbed.
TEST_F(Stops, AKilledEvaluationGoesOnAtTheNextTask) {
  const auto task = [](const char* name, int rerank) {
    return absl::StrCat("tasks { name: '", name,
                        "' stream: 'pairs' batch_size: 1 config { "
                        "[type.googleapis.com/semvq.RetrievalConfig] { "
                        "rerank_top_k: ",
                        rerank, " rerank_batch_size: 1 } } } ");
  };
  const std::vector<std::string> arguments =
      Pretrain(absl::StrCat("stages { name: 'pretrain' with { ",
                            task("first", 0), task("second", 4), "} }"));
  ASSERT_EQ(Train(arguments, {}, "whole").code, kDone);
  const std::string stage = "/runs/tiny/pretrain/";
  ProcessOptions kill;
  const std::string kept =
      JoinPath(folder_, "killed" + stage + "evaluated.pbtxt");
  kill.signal = [kept] { return PathExists(kept) ? SIGKILL : 0; };
  EXPECT_EQ(Train(arguments, kill, "killed").killed, SIGKILL);
  ASSERT_FALSE(
      PathExists(JoinPath(folder_, "killed" + stage + "result.pbtxt")));
  // The mark shows whether the first task's numbers are the kept ones.
  std::string text = Read("killed" + stage + "evaluated.pbtxt");
  ASSERT_TRUE(absl::StrContains(text, "name: \"first\"")) << text;
  ASSERT_FALSE(absl::StrContains(text, "name: \"second\"")) << text;
  Write("killed" + stage + "evaluated.pbtxt",
        absl::StrReplaceAll(text, {{"note: \"", "note: \"kept; "}}));
  const ProcessResult again = Train(arguments, {}, "killed");
  EXPECT_EQ(again.code, kDone) << again.output;
  EXPECT_SAYS(again, "task first: evaluated before the last stop");
  EXPECT_FALSE(absl::StrContains(again.output, "task second: evaluated"));
  EXPECT_FALSE(PathExists(kept));
  // All that the tasks found, without what measures time.
  const auto tasks = [&](const std::string& where) {
    const std::string all = Read(where + stage + "result.pbtxt");
    const size_t begin = all.find("tasks {"), end = all.find("first_step_ms");
    EXPECT_LT(begin, end);
    return all.substr(begin, end - begin);
  };
  EXPECT_EQ(absl::StrReplaceAll(tasks("killed"), {{"kept; ", ""}}),
            tasks("whole"));
  EXPECT_TRUE(absl::StrContains(tasks("killed"), "note: \"kept; "));
}

TEST_F(Stops, DamagedCheckpoints) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  const auto stopped = [&](const std::string& where) {
    EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 4, where), where).code,
              kStopped);
    auto steps = ListDirectory(
        JoinPath(folder_, where + "/runs/tiny/pretrain/checkpoints"));
    EXPECT_TRUE(steps.ok());
    return where + "/runs/tiny/pretrain/checkpoints/" + steps->back();
  };
  // Truncated: the one before is taken, and that is said.
  const std::string truncated = stopped("b");
  const std::string model = Read(truncated + "/model.safetensors");
  Write(truncated + "/model.safetensors", model.substr(0, model.size() / 2));
  ProcessResult result = Train(Pretrain(), {}, "b");
  EXPECT_EQ(result.code, kDone) << result.output;
  EXPECT_SAYS(result, "passing over");
  EXPECT_SAYS(result, "model.safetensors");
  ExpectSameRun("a", "b");

  // Altered in one bit: an error, as are another version and another config.
  const std::string altered = stopped("c");
  std::string flipped = Read(altered + "/model.safetensors");
  const std::string intact = flipped;
  flipped[flipped.size() - 5] ^= 1;
  Write(altered + "/model.safetensors", flipped);
  result = Train(Pretrain(), {}, "c");
  EXPECT_EQ(result.code, kFailed);
  EXPECT_SAYS(result, "model.safetensors");
  EXPECT_TRUE(flipped == Read(altered + "/model.safetensors"));
  Write(altered + "/model.safetensors", intact);

  const std::string manifest = Read(altered + "/manifest.textproto");
  const size_t at = manifest.find("format_version: 1");
  ASSERT_NE(at, std::string::npos) << manifest;
  std::string other = manifest;
  other.replace(at, 17, "format_version: 9");
  // Its last line is the hash of what stands above.
  const size_t body = other.rfind('\n', other.size() - 2) + 1;
  other.replace(other.size() - 65, 64, Sha256Hex(other.substr(0, body)));
  Write(altered + "/manifest.textproto", other);
  result = Train(Pretrain(), {}, "c");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "version");

  // The checkpoint of another config in this one's folder.
  Write(altered + "/manifest.textproto", manifest);
  EXPECT_EQ(Train(Pretrain("seed: 7"), SignalAt(SIGTERM, 4, "d"), "d").code,
            kStopped);
  const std::string marker = Read("c/runs/tiny/pretrain/config_hash");
  Write("d/runs/tiny/pretrain/config_hash", marker);
  result = Train(Pretrain(), {}, "d");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "another experiment");

  EXPECT_EQ(Train(Pretrain(), {}, "c").code, kDone);
  ExpectSameRun("a", "c");
}

TEST_F(Stops, NothingLeftButDamagedCheckpointsIsAnError) {
  EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 2)).code, kStopped);
  auto steps =
      ListDirectory(JoinPath(folder_, "runs/tiny/pretrain/checkpoints"));
  ASSERT_TRUE(steps.ok());
  for (const std::string& step : *steps) {
    if (!absl::StartsWith(step, "step_")) continue;
    Write(absl::StrCat("runs/tiny/pretrain/checkpoints/", step,
                       "/model.safetensors"),
          "");
  }
  // Starting over in silence would throw the training away.
  const ProcessResult result = Train(Pretrain());
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "model.safetensors");
  EXPECT_SAYS(result, "--fresh=pretrain");
}

// N + M steps equal N steps, a stop, a restart and M steps.
TEST_F(Stops, StoppedRunsGoOnBitByBit) {
  const std::string teacher =
      "teacher { enabled: true momentum: 0.9 } "
      "objectives { name: 'itc' config { [type.googleapis.com/semvq.ItcConfig]"
      " { queue_size: 24 alpha_ramp_steps: 8 } } } ";
  // Draws codes, and hides some of them and of the words, by step and image.
  const std::string bound =
      "quantizers { name: 'codebook' config { "
      "[type.googleapis.com/semvq.GumbelConfig] { num_codes: 16 "
      "temperature_steps: 10 kl_weight_steps: 8 } } } "
      "objectives { name: 'bound' config { "
      "[type.googleapis.com/semvq.SemanticCodebookConfig] { patch_size: 8 "
      "decoder_dim: 16 decoder_depth: 1 prior_dim: 16 prior_depth: 1 } } } ";
  for (const auto& [name, more] :
       std::vector<std::pair<std::string, std::string>>{
           {"plain", ""}, {"teacher", teacher}, {"bound", teacher + bound}}) {
    SCOPED_TRACE(name);
    ASSERT_EQ(Train(Pretrain(more), {}, name).code, kDone);
    const std::string saved = Checkpoint(name, 12);
    EXPECT_EQ(PathExists(JoinPath(folder_, saved + "/teacher.safetensors")),
              name != "plain");
    EXPECT_EQ(absl::StrContains(Read(saved + "/model.safetensors"),
                                "itc.image_queue"),
              name != "plain");
    for (int number : {SIGTERM, SIGINT, SIGKILL}) {
      SCOPED_TRACE(number);
      const std::string where = absl::StrCat(name, number);
      const ProcessResult stopped =
          Train(Pretrain(more), SignalAt(number, 5, where), where);
      if (number == SIGKILL) {
        EXPECT_EQ(stopped.killed, SIGKILL) << stopped.output;
      } else {
        EXPECT_EQ(stopped.code, kStopped) << stopped.output;
        EXPECT_SAYS(stopped, "saved");
      }
      ASSERT_FALSE(PathExists(JoinPath(folder_, Checkpoint(where, 12))));
      const ProcessResult resumed = Train(Pretrain(more), {}, where);
      EXPECT_EQ(resumed.code, kDone) << resumed.output;
      EXPECT_SAYS(resumed, "goes on at step");
      ExpectSameRun(name, where);
    }
  }
}

// As older versions wrote them.
TEST_F(Stops, ACheckpointThatDoesNotSayHowFarTheDataWereRead) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  EXPECT_EQ(Train(Pretrain(), SignalAt(SIGTERM, 5, "b"), "b").code, kStopped);
  const std::string root =
      JoinPath(folder_, "b/runs/tiny/pretrain/checkpoints");
  auto newest = FindLatestCheckpoint(root);
  ASSERT_TRUE(newest.ok()) << newest.status();
  auto contents = LoadCheckpoint(*newest);
  ASSERT_TRUE(contents.ok()) << contents.status();
  EXPECT_EQ(contents->state.erase("samples"), 1u);
  ASSERT_TRUE(SaveCheckpoint(root, *contents, {}).ok());
  EXPECT_EQ(Train(Pretrain(), {}, "b").code, kDone);
  ExpectSameRun("a", "b");
}

TEST_F(Stops, BadSamplesAreRememberedOverARestart) {
  auto pairs = ReadFile(JoinPath(Data(), "pairs.json"));
  ASSERT_TRUE(pairs.ok()) << pairs.status();
  int gaps = 0;
  for (int i = 0; i < 8; ++i) {
    gaps += absl::StrReplaceAll({{absl::StrCat("images/", i, ".png"),
                                  absl::StrCat("images/gone", i, ".png")}},
                                &*pairs);
  }
  ASSERT_EQ(gaps, 8);
  const std::string path = JoinPath(Data(), "pairs_with_gaps.json");
  ASSERT_TRUE(AtomicWriteFile(path, *pairs).ok());
  const std::vector<std::string> arguments = Pretrain(
      "data { streams { name: 'pairs' source { "
      "[type.googleapis.com/semvq.AlbefJsonConfig] { path: "
      "'${E2E_DATA}/pairs_with_gaps.json' } } } }");
  ASSERT_EQ(Train(arguments, {}, "a").code, kDone);
  const std::string all = Read("a/runs/tiny/pretrain/bad_samples.txt");
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 8) << all;

  // So late that few of them come again after the restart.
  ASSERT_EQ(Train(arguments, SignalAt(SIGTERM, 10, "b"), "b").code, kStopped);
  const ProcessResult resumed = Train(arguments, {}, "b");
  EXPECT_EQ(resumed.code, kDone) << resumed.output;
  EXPECT_SAYS(resumed, "8 bad samples");
  EXPECT_EQ(Read("b/runs/tiny/pretrain/bad_samples.txt"), all);
}

// As batch systems announce the end of a job.
TEST_F(Stops, APreemptionNoticeSavesAndExits) {
  const ProcessResult stopped = Train(Pretrain(), SignalAt(SIGUSR1, 3));
  EXPECT_EQ(stopped.code, kStopped) << stopped.output;
  EXPECT_SAYS(stopped, "saved; the same command goes on");
  const ProcessResult resumed = Train(Pretrain());
  EXPECT_EQ(resumed.code, kDone) << resumed.output;
  EXPECT_SAYS(resumed, "goes on at step");
}

TEST_F(Stops, StepsThatAreNotFiniteAreSkippedCountedAndExplained) {
  std::vector<std::string> arguments = Pretrain(
      "optimizer { lr: 1e30 clip_norm: 0 } schedule { warmup_steps: 0 } "
      "trainer { max_nonfinite_steps: 3 }");
  ProcessResult result = Train(arguments, {}, "a");
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "step 2 is skipped: ");
  EXPECT_SAYS(result, "3 steps in a row were not finite");
  EXPECT_SAYS(result, "quantizer \"codebook\" got ");
  EXPECT_SAYS(result, "--debug_nonfinite finds where that begins");
  EXPECT_FALSE(absl::StrContains(result.output, "not finite first"));

  arguments.push_back("--debug_nonfinite");
  result = Train(arguments, {}, "b");
  EXPECT_EQ(result.code, kFailed) << result.output;
  // The first product with such weights is in an encoder.
  EXPECT_SAYS(result, "not finite first: view ");
  EXPECT_SAYS(result, "/tokens");
  EXPECT_SAYS(result, "values, the first in row 0");
}

// A rate that explodes: the loss jumps whatever the data are, so that going
// back does not help for long.
TEST_F(Stops, SpikesOfTheLossGoBackAndSkipTheirData) {
  const std::string explode =
      "optimizer { lr: 2 clip_norm: 0 } schedule { warmup_steps: 12 "
      "warmup_lr: 1e-3 min_lr: 1e-3 } stages { name: 'pretrain' with { trainer "
      "{ steps: 40 } } } checkpoint { every: 2 keep: 100 } ";
  const auto spikes = [&](const std::string& more) {
    return Pretrain(absl::StrCat(
        explode, "trainer { loss_spikes { window: 4 steps: 2 ", more, " } }"));
  };
  const auto line = [this](const std::string& where, int number) {
    const std::vector<std::string> lines = absl::StrSplit(Metrics(where), '\n');
    return lines.size() > static_cast<size_t>(number) ? lines[number] : "";
  };
  const ProcessResult reported = Train(spikes(""), {}, "report");
  EXPECT_EQ(reported.code, kDone) << reported.output;
  EXPECT_SAYS(reported, "the loss spiked from step ");
  EXPECT_SAYS(reported, " spikes of the loss");
  EXPECT_FALSE(absl::StrContains(reported.output, "went back"));

  const std::string back = "action: ROLL_BACK max_rollbacks: 1";
  const ProcessResult once = Train(spikes(back), {}, "back");
  EXPECT_EQ(once.code, kFailed) << once.output;
  EXPECT_SAYS(once, "went back from step ");
  EXPECT_SAYS(once, "batches read since then are skipped");
  EXPECT_SAYS(once, "training went back 1 times already");
  const size_t at = once.output.find("to the checkpoint of step ");
  ASSERT_NE(at, std::string::npos);
  const int step = std::atoi(once.output.c_str() + at + 26);
  ASSERT_GE(step, 2);
  // The same until there, and then other data.
  EXPECT_EQ(line("back", step - 1), line("report", step - 1));
  EXPECT_NE(line("back", step), "");
  EXPECT_NE(line("back", step), line("report", step));

  // Killed after it went back and saved, it goes on to the same end.
  ProcessOptions kill;
  const std::string gone = JoinPath(folder_, Checkpoint("killed", step + 2));
  bool before = false, removed = false;
  kill.signal = [&] {
    const bool there = PathExists(gone);
    removed |= before && !there;
    before = there;
    return removed && there ? SIGKILL : 0;
  };
  const ProcessResult killed = Train(spikes(back), kill, "killed");
  EXPECT_EQ(killed.killed, SIGKILL) << killed.output;
  const ProcessResult resumed = Train(spikes(back), {}, "killed");
  EXPECT_EQ(resumed.code, kFailed);
  EXPECT_SAYS(resumed, "training went back 1 times already");
  EXPECT_EQ(Metrics("killed"), Metrics("back"));
}

TEST_F(Stops, DataThatVanishOnTheWay) {
  const std::string data = JoinPath(folder_, "data");
  ASSERT_TRUE(WriteShapes(data).ok());
  const std::string step = JoinPath(folder_, Checkpoint(".", 2));
  ProcessOptions options;
  options.environment["E2E_DATA"] = data;
  bool gone = false;
  options.signal = [&] {
    if (!gone && PathExists(step)) {
      gone = rename(JoinPath(data, "images").c_str(),
                    JoinPath(data, "elsewhere").c_str()) == 0;
    }
    return 0;
  };
  const std::vector<std::string> arguments = Pretrain(
      "stages { name: 'pretrain' with { trainer { steps: 30 } } } "
      "checkpoint { every: 2 }");
  const ProcessResult result = Train(arguments, options);
  ASSERT_TRUE(gone);
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "does not exist");
  EXPECT_SAYS(result, "is saved; the same command goes on from it");

  ASSERT_EQ(rename(JoinPath(data, "elsewhere").c_str(),
                   JoinPath(data, "images").c_str()),
            0);
  options.signal = nullptr;
  const ProcessResult resumed = Train(arguments, options);
  EXPECT_EQ(resumed.code, kDone) << resumed.output;
  EXPECT_SAYS(resumed, "goes on at step");
  EXPECT_TRUE(PathExists(JoinPath(folder_, Checkpoint(".", 30))));
}

TEST_F(Stops, OutOfMemoryTellsWhatTakesIt) {
  ProcessOptions options;
  options.max_data = int64_t{3} << 29;
  const ProcessResult result =
      Train(Pretrain("data { streams { name: 'pairs' transform { size: 256 } } "
                     "prefetch: 1 } "
                     "encoders { name: 'image' config { "
                     "[type.googleapis.com/semvq.VitConfig] { patch_size: 4 "
                     "image_size: 256 } } } objectives { name: "
                     "'reconstruction' config { "
                     "[type.googleapis.com/semvq.ReconstructionConfig] { "
                     "patch_size: 4 } } } trainer { batch_size: 48 }"),
            options);
  EXPECT_EQ(result.code, kFailed) << result.output;
  EXPECT_SAYS(result, "after 0 steps: out of memory (");
  for (const char* part :
       {"weights (float32)", "optimizer (float32)", "activations, batch 48",
        " an image, by a line", "trainer { batch_size: ", "accumulation: ",
        "bf16: true", "activation_checkpointing", "--mode=plan"}) {
    EXPECT_SAYS(result, part);
  }
}

// Whenever a process dies, what it leaves can be gone on from.
TEST_F(Stops, KilledInTheMiddleOfASave) {
  ASSERT_EQ(Train(Pretrain(), {}, "a").code, kDone);
  const std::string root =
      JoinPath(folder_, "b/runs/tiny/pretrain/checkpoints");
  for (int attempt = 0; attempt < 4; ++attempt) {
    ProcessOptions options;
    int seen = 0;
    options.signal = [&] {
      // A folder that has no name yet: a save has begun.
      auto names = ListDirectory(root);
      if (!names.ok()) return 0;
      for (const std::string& name : *names) {
        if (!absl::StartsWith(name, "step_") &&
            !absl::StrContains(name, "lock") && ++seen > attempt) {
          return SIGKILL;
        }
      }
      return 0;
    };
    const ProcessResult result = Train(Pretrain(), options, "b");
    ASSERT_TRUE(result.killed == SIGKILL || result.code == kDone)
        << result.output;
    if (result.code == kDone) break;
  }
  EXPECT_EQ(Train(Pretrain(), {}, "b").code, kDone);
  ExpectSameRun("a", "b");
}

}  // namespace
}  // namespace semvq
