// What one rank says among many, and where it is kept.
#ifndef SEMVQ_TRAINER_RANK_OUTPUT_H_
#define SEMVQ_TRAINER_RANK_OUTPUT_H_

#include <cstdint>
#include <mutex>
#include <string>

#include "core/distributed/launch.h"

namespace semvq {

// From now on this process's stdout goes nowhere, and each line of its stderr
// (C's and C++'s streams) begins with "[rank N] " and is written at once, so
// that lines of several ranks do not mix. To be called once, early.
void SpeakAsRank(int64_t rank);

// Keeps the errors of a rank in <run folder>/errors/rank_N.txt, below those of
// earlier starts. For two threads.
class RankErrors {
 public:
  // Null: a process alone, of which nothing is kept.
  explicit RankErrors(const Launch* launch) : launch_(launch) {}

  void SetFolder(const std::string& run_folder);
  // Nothing while there is no run folder. What goes wrong is printed.
  void Write(const std::string& text);

 private:
  const Launch* launch_;
  std::mutex mutex_;
  std::string folder_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_RANK_OUTPUT_H_
