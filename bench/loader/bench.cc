// One turn of the loader: loads batches as training does, and prints how long
// it took and what memory it held as a line of JSON. compare.py calls it.
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bench/cpu_seconds.h"
#include "data/loader.h"
#include "protos/experiment.pb.h"
#include "tools/data/dataset.h"

namespace semvq {
namespace {

constexpr char kHelp[] =
    R"(bench: loads training batches and prints images a second.

usage: bench --list=FILE or --shards=NAMES ...

  --images=N         (default: 2000)
  --workers=N        decoding threads (default: 2)
  --batch=N          (default: 64)
  --size=N           of the square crops (default: 224)
  --soak             compare the memory after a tenth with that at the end
  --load_only        only open the data set, and tell how long that takes
)";

double Seconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

double ResidentMib() {
  std::ifstream in("/proc/self/statm");
  int64_t all = 0, resident = 0;
  in >> all >> resident;
  return static_cast<double>(resident) * static_cast<double>(getpagesize()) /
         (1 << 20);
}

struct Options {
  int64_t images = 2000, workers = 2, batch = 64, size = 224;
  bool soak = false, load_only = false, help = false;
  tools::DatasetFlags dataset;
};

absl::StatusOr<Options> Parse(int argc, char** argv) {
  auto flags = tools::SplitFlags(
      argc, argv, {"help", "soak", "load_only", "group_by_image"});
  if (!flags.ok()) return flags.status();
  Options options;
  for (const auto& [name, value] : *flags) {
    int64_t* number = name == "images"    ? &options.images
                      : name == "workers" ? &options.workers
                      : name == "batch"   ? &options.batch
                      : name == "size"    ? &options.size
                                          : nullptr;
    if (number != nullptr) {
      absl::StatusOr<int64_t> got = tools::FlagNumber(name, value, 1);
      if (!got.ok()) return got.status();
      *number = *got;
    } else if (name == "soak") {
      options.soak = true;
    } else if (name == "load_only") {
      options.load_only = true;
    } else if (name == "help") {
      options.help = true;
    } else if (!options.dataset.Take(name, value)) {
      return absl::InvalidArgumentError("unknown flag --" + name);
    }
  }
  return options;
}

absl::Status Run(const Options& options, const char* program) {
  const double opening = Seconds();
  auto opened = options.dataset.Open(program);
  if (!opened.ok()) return opened.status();
  if (options.load_only) {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    std::printf(
        "{\"samples\": %lld, \"seconds\": %.2f, \"cpu_seconds\": "
        "%.2f, \"peak_mib\": %.0f}\n",
        static_cast<long long>(opened->source->size()), Seconds() - opening,
        CpuSeconds(), static_cast<double>(usage.ru_maxrss) / 1024);
    return absl::OkStatus();
  }
  DataStream stream = opened->stream;
  ImageTransform* transform = stream.mutable_transform();
  transform->set_size(static_cast<int32_t>(options.size));
  transform->set_crop(ImageTransform::RANDOM_RESIZED_CROP);
  transform->set_flip(0.5);
  DataConfig data = opened->limits;
  data.set_workers(static_cast<int32_t>(options.workers));
  LoaderOptions loading;
  loading.batch_size = options.batch;
  absl::StatusOr<std::unique_ptr<Loader>> loader =
      Loader::Create(stream, opened->source, nullptr, data, loading);
  if (!loader.ok()) return loader.status();
  // What starting costs is no rate: the clock runs from the first batch on.
  const double cpu = CpuSeconds();
  double start = 0, early_mib = 0;
  int64_t timed = 0;
  const int64_t batches = options.images / options.batch;
  for (int64_t b = 0; b < batches; ++b) {
    absl::StatusOr<Batch> batch = (*loader)->Next();
    if (!batch.ok()) return batch.status();
    if (b == 0) {
      start = Seconds();
    } else {
      timed += options.batch;
    }
    if (b == batches / 10) early_mib = ResidentMib();
  }
  const double seconds = Seconds() - start;
  std::printf(
      "{\"images_per_second\": %.2f, \"cpu_ms_per_image\": %.4f, "
      "\"resident_mib\": %.1f",
      static_cast<double>(timed) / seconds,
      1e3 * (CpuSeconds() - cpu) / static_cast<double>(batches * options.batch),
      ResidentMib());
  if (options.soak) {
    std::printf(", \"early_mib\": %.1f, \"growth_percent\": %.3f", early_mib,
                100 * (ResidentMib() - early_mib) / early_mib);
  }
  std::printf("}\n");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  // As the trainer does: a batch's memory comes and goes, and pages that the
  // system takes back must be cleared again.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  absl::StatusOr<Options> options = Parse(argc, argv);
  if (options.ok() && options->help) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  const absl::Status status =
      options.ok() ? Run(*options, argv[0]) : options.status();
  if (status.ok()) return 0;
  std::fprintf(stderr, "bench: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) {
  try {
    return semvq::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench: %s\n", e.what());
    return 1;
  }
}
