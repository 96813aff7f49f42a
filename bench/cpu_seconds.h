// Processor time of a benchmark.
#ifndef SEMVQ_BENCH_CPU_SECONDS_H_
#define SEMVQ_BENCH_CPU_SECONDS_H_

#include <sys/resource.h>

namespace semvq {

// Of all threads of this process so far.
inline double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) +
           1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace semvq

#endif  // SEMVQ_BENCH_CPU_SECONDS_H_
