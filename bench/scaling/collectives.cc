// Times all-reduce between the ranks that a launcher has started, as the
// trainer does it, and prints one line of JSON on rank 0:
//
//   {"ranks": 2, "all_reduce": [{"bytes": 4, "seconds": 0.00005}, ...]}
//
//   torchrun --no-python --standalone --nproc-per-node=2 collectives [cuda]
//
// Seconds are medians over repetitions of the slowest rank's time.

#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/distributed/communicator.h"
#include "core/distributed/launch.h"
#include "core/distributed/rank_session.h"

namespace semvq {
namespace {

// Of a number to some of the trainer's buckets of gradients (25 MiB).
constexpr int64_t kBytes[] = {4,       64 << 10, 1 << 20,
                              4 << 20, 25 << 20, 64 << 20};

double Seconds(Communicator& group, const at::Tensor& tensor) {
  // The last element comes back to the host: then the device is through.
  const auto wait = [](const at::Tensor& t) { t[-1].item<float>(); };
  wait(group.AllReduceSum(tensor));
  group.Barrier();
  const auto start = std::chrono::steady_clock::now();
  wait(group.AllReduceSum(tensor));
  const std::chrono::duration<double> mine =
      std::chrono::steady_clock::now() - start;
  return group.AllGather(torch::tensor({mine.count()}, at::kDouble))
      .max()
      .item<double>();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "collectives: %s\n",
               std::string(status.message()).c_str());
  return 1;
}

int Run(at::Device device) {
  const absl::StatusOr<std::optional<Launch>> launch =
      ParseLaunch(CurrentEnvironment());
  if (!launch.ok()) return Fail(launch.status());
  if (!launch->has_value()) {
    return Fail(absl::InvalidArgumentError(
        "no launcher started this; run it as at least two ranks, by torchrun, "
        "srun, mpirun or bench/scaling/run.py"));
  }
  if (device.is_cuda()) device = at::Device(at::kCUDA, (*launch)->local_rank);
  RankSessionOptions options;
  options.on_lost = [](const std::string& what) {
    std::fprintf(stderr, "collectives: %s\n", what.c_str());
    std::_Exit(1);
  };
  auto session = RankSession::Connect(**launch, options);
  if (!session.ok()) return Fail(session.status());
  const absl::Status made = (*session)->MakeGroup(device);
  if (!made.ok()) return Fail(made);
  Communicator& group = *(*session)->group();

  std::vector<std::string> rows;
  for (const int64_t bytes : kBytes) {
    const at::Tensor tensor =
        at::ones({bytes / 4}, at::TensorOptions(at::kFloat).device(device));
    std::vector<double> seconds;
    const int64_t repetitions = bytes < (1 << 20) ? 101 : 15;
    for (int64_t r = 0; r < repetitions; ++r)
      seconds.push_back(Seconds(group, tensor));
    std::nth_element(seconds.begin(), seconds.begin() + repetitions / 2,
                     seconds.end());
    rows.push_back(absl::StrCat("{\"bytes\": ", bytes, ", \"seconds\": ",
                                seconds[repetitions / 2], "}"));
  }
  if (group.rank() == 0) {
    std::printf("{\"ranks\": %d, \"all_reduce\": [%s]}\n",
                static_cast<int>(group.size()),
                absl::StrJoin(rows, ", ").c_str());
  }
  (*session)->Finish();
  return 0;
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) {
  const bool cuda = argc > 1 && std::string(argv[1]) == "cuda";
  return semvq::Run(cuda ? at::Device(at::kCUDA) : at::Device(at::kCPU));
}
