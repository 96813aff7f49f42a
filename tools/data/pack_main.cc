// pack: a data set into tar shards.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tools/data/dataset.h"
#include "tools/data/pack.h"

namespace semvq::tools {
namespace {

constexpr char kHelp[] =
    R"(pack: packs a data set into tar shards (WebDataset's layout) with indexes.

usage: pack --out=FOLDER --list=FILE ...

)";
constexpr char kOptions[] =
    R"(
Where to and how:
  --out=FOLDER           where to write; what is complete there is kept, so the
                         same command goes on after an interruption
  --prefix=NAME          NAME-00000.tar, ... (default: shard)
  --shard_samples=N      samples of a shard (default: 5000); 200 to 500 MB a
                         shard suit most disks
  --order=shuffled       or `given`: the data set's order. Shuffled shards let
                         training draw from few at a time (shuffle_shards)
  --seed=N               of the shuffling (default: 1)
  --workers=N            threads, each at a shard (default: the cores)
  --max_bad_fraction=X   samples that cannot be used are left out and listed in
                         NAME-bad_samples.txt; above this share of all (and
                         more than 10) packing stops (default: 0.01)
  --help                 this text

An image is copied byte for byte, after a look at its header and its end; to
decode all of them, use //tools/data:verify. Texts, ids, answers and labels of
any source come back from the shards as they were. Equal data and options give
equal files, on any machine.
)";

int Misuse(absl::string_view message) {
  std::fprintf(stderr, "pack: %s\nSee --help.\n", std::string(message).c_str());
  return 2;
}

int Main(int argc, char** argv) {
  auto flags = SplitFlags(argc, argv, {"help", "group_by_image"});
  if (!flags.ok()) return Misuse(flags.status().message());
  DatasetFlags dataset;
  PackOptions options;
  options.workers =
      static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (const auto& [name, value] : *flags) {
    absl::StatusOr<int64_t> number = 0;
    if (name == "help") {
      std::fputs(absl::StrCat(kHelp, kDatasetHelp, kOptions).c_str(), stdout);
      return 0;
    } else if (dataset.Take(name, value)) {
      continue;
    } else if (name == "out") {
      options.out = FromWorkingFolder(value);
    } else if (name == "prefix") {
      if (value.find('/') != std::string::npos)
        return Misuse("--prefix: expected a name without /");
      options.prefix = value;
    } else if (name == "shard_samples") {
      number = FlagNumber(name, value, 1);
      if (number.ok()) options.shard_samples = *number;
    } else if (name == "order") {
      if (value != "shuffled" && value != "given")
        return Misuse(absl::StrCat("--order: got \"", value,
                                   "\", expected shuffled or given"));
      options.shuffle = value == "shuffled";
    } else if (name == "seed") {
      number = FlagNumber(name, value, 0);
      if (number.ok()) options.seed = static_cast<uint64_t>(*number);
    } else if (name == "workers") {
      number = FlagNumber(name, value, 1);
      if (number.ok())
        options.workers = static_cast<int>(std::min<int64_t>(*number, 256));
    } else if (name == "max_bad_fraction") {
      absl::StatusOr<double> share = FlagShare(name, value);
      if (!share.ok()) return Misuse(share.status().message());
      options.max_bad_fraction = *share;
    } else {
      return Misuse(absl::StrCat("unknown flag --", name));
    }
    if (!number.ok()) return Misuse(number.status().message());
  }
  if (options.out.empty()) return Misuse("--out is missing");
  if (!dataset.given())
    return Misuse("no data set: give --list, --shards, --source or --config");
  auto opened = dataset.Open(argv[0]);
  if (!opened.ok()) return Misuse(opened.status().message());

  const auto result = Pack(*opened->source,
                           opened->stream.source().ShortDebugString(), options);
  if (!result.ok()) {
    std::fprintf(stderr, "pack: %s\n",
                 std::string(result.status().message()).c_str());
    return 1;
  }
  std::printf(
      "%lld samples in %lld shards, %.1f MB%s%s\n"
      "source { [type.googleapis.com/semvq.WebDatasetConfig] { shards: \"%s\" "
      "} }\n",
      static_cast<long long>(result->samples),
      static_cast<long long>(result->shards),
      static_cast<double>(result->bytes) / 1e6,
      result->kept > 0
          ? absl::StrCat(" (", result->kept, " were there)").c_str()
          : "",
      result->bad > 0
          ? absl::StrCat("; ", result->bad, " bad samples left out").c_str()
          : "",
      result->pattern.c_str());
  return 0;
}

}  // namespace
}  // namespace semvq::tools

int main(int argc, char** argv) {
  try {
    return semvq::tools::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "pack: %s\n", e.what());
    return 1;
  }
}
