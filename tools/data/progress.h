// Progress of a tool on stderr.
#ifndef SEMVQ_TOOLS_DATA_PROGRESS_H_
#define SEMVQ_TOOLS_DATA_PROGRESS_H_

#include <chrono>
#include <cstdint>
#include <string>

namespace semvq::tools {

// A line on stderr at most once a second, and one at the end.
class Progress {
 public:
  Progress(std::string what, int64_t total);
  void Add(int64_t n = 1);
  void Done();

 private:
  void Print(bool last);
  std::string what_;
  int64_t total_, count_ = 0;
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_PROGRESS_H_
