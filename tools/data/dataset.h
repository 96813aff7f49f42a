// Which data set a tool works on, from its flags.
#ifndef SEMVQ_TOOLS_DATA_DATASET_H_
#define SEMVQ_TOOLS_DATA_DATASET_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/source.h"
#include "protos/experiment.pb.h"

namespace semvq::tools {

// The flags that name a data set, for --help.
extern const char kDatasetHelp[];

class DatasetFlags {
 public:
  // Takes --list, --image_root, --group_by_image, --shards, --source, --config,
  // --stream and --merge; false for other names.
  bool Take(absl::string_view name, absl::string_view value);
  bool given() const {
    return !lists_.empty() || !shards_.empty() || !source_.empty() ||
           !config_.empty();
  }

  struct Opened {
    std::shared_ptr<const DataSource> source;
    DataConfig limits;  // max_pixels and the like, as in the experiment.
    DataStream stream;  // With variables expanded.
  };
  // Opens it. `program` is main's argv[0]. The message of an error tells what
  // is wrong with the flags, the config or the data.
  absl::StatusOr<Opened> Open(absl::string_view program) const;

 private:
  absl::StatusOr<std::string> SourceText() const;
  absl::StatusOr<Experiment> FromConfig(absl::string_view program) const;

  std::vector<std::string> lists_, shards_, merges_;
  std::string image_root_, source_, config_, stream_;
  bool group_by_image_ = false;
};

// "--name=value", "--name value" and "--switch" of argv, in order. `switches`
// are the names that take no value. InvalidArgument for anything else.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> SplitFlags(
    int argc, char** argv, const std::vector<std::string>& switches);

// A whole number of at least `least`; the message names the flag.
absl::StatusOr<int64_t> FlagNumber(absl::string_view name,
                                   absl::string_view value, int64_t least);
// A share in [0, 1].
absl::StatusOr<double> FlagShare(absl::string_view name,
                                 absl::string_view value);

// `path` as the user wrote it: `bazel run` starts a program elsewhere.
std::string FromWorkingFolder(absl::string_view path);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_DATASET_H_
