#ifndef SEMVQ_TESTS_E2E_TRAINER_PROCESS_H_
#define SEMVQ_TESTS_E2E_TRAINER_PROCESS_H_

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "tests/e2e/process.h"

namespace semvq {

// The trainer's exit codes.
constexpr int kDone = 0, kFailed = 1, kBadInput = 2, kStopped = 3;

// Runs //trainer as a process on tiny.pbtxt, each test in a folder of its own.
class TrainerProcess : public testing::Test {
 protected:
  static void SetUpTestSuite();
  void SetUp() override;

  // The folder of images and records, `E2E_DATA` of tiny.pbtxt.
  static std::string Data();

  // Files of the test's folder.
  void Write(const std::string& name, const std::string& text);
  std::string Read(const std::string& name);

  // Called from `where` in the test's folder, where the results go to as well.
  ProcessResult Train(std::vector<std::string> arguments,
                      ProcessOptions options = {},
                      const std::string& where = ".");

  // The pretraining stage alone, 12 steps, saved after every step.
  std::vector<std::string> Pretrain(const std::string& more = "");

  static std::string Checkpoint(const std::string& where, int step);

  // Sends a signal once the checkpoint of `step` is there.
  ProcessOptions SignalAt(int number, int step, const std::string& where = ".");

  // Lines of the log without what measures time.
  std::string Metrics(const std::string& where);

  // Of `Pretrain`: the same bits at the end, and the same log.
  void ExpectSameRun(const std::string& a, const std::string& b);

  std::string folder_;

 private:
  static std::string* const tiny_;
};

#define EXPECT_SAYS(result, text) \
  EXPECT_TRUE(absl::StrContains((result).output, text)) << (result).output

}  // namespace semvq

#endif  // SEMVQ_TESTS_E2E_TRAINER_PROCESS_H_
