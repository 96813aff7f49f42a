#include "tools/data/dataset.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/config/load.h"
#include "core/config/merge.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/plugin/nested.h"
#include "core/plugin/registry.h"
#include "core/util/file.h"
#include "google/protobuf/text_format.h"

namespace semvq::tools {
namespace {

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::CEscape(text), "\"");
}

// Which streams an experiment has, in any of its stages.
absl::StatusOr<Experiment> StageWith(const std::string& stream,
                                     const LoadResult& loaded) {
  std::vector<std::string> names;
  for (const ResolvedStage& stage :
       ResolveStages(loaded.experiment, loaded.provenance).stages) {
    for (const DataStream& known : stage.experiment.data().streams()) {
      if (known.name() == stream) return stage.experiment;
      if (std::find(names.begin(), names.end(), known.name()) == names.end())
        names.push_back(known.name());
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("--stream: got \"", stream,
                                                 "\", expected one of ",
                                                 absl::StrJoin(names, ", ")));
}

absl::Status Check(const google::protobuf::Any& any) {
  absl::StatusOr<UnpackedPlugin> plugin =
      UnpackPlugin(any, PluginKind::kDataSource);
  if (!plugin.ok()) return plugin.status();
  std::vector<std::string> lines;
  for (const PluginError& error : CheckPluginConfig(*plugin->config))
    lines.push_back(error.message);
  if (lines.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

}  // namespace

const char kDatasetHelp[] =
    R"(The data set, one of:
  --list=FILE            a JSON list in ALBEF's format; again for more files
    --image_root=FOLDER  what its images are relative to (default: the folder
                         of each list)
    --group_by_image     one sample of all records of an image
  --shards=NAMES         tar shards: '/data/{00000..00331}.tar'; again for more
  --source=TEXT          any data source, as it stands in an experiment:
                         '[type.googleapis.com/semvq.CocoCaptionsConfig] {
                           path: "captions_val2014.json" }'
  --config=FILE          an experiment (looked up as the trainer does), and
    --stream=NAME        one of its streams
    --merge=TEXT         changes of it, as for the trainer
)";

bool DatasetFlags::Take(absl::string_view name, absl::string_view value) {
  const std::string text(value);
  if (name == "list") {
    lists_.push_back(FromWorkingFolder(value));
  } else if (name == "image_root") {
    image_root_ = FromWorkingFolder(value);
  } else if (name == "group_by_image") {
    group_by_image_ = true;
  } else if (name == "shards") {
    shards_.push_back(
        absl::StartsWith(value, "pipe:") ? text : FromWorkingFolder(value));
  } else if (name == "source") {
    source_ = text;
  } else if (name == "config") {
    config_ = text;
  } else if (name == "stream") {
    stream_ = text;
  } else if (name == "merge") {
    merges_.push_back(text);
  } else {
    return false;
  }
  return true;
}

absl::StatusOr<std::string> DatasetFlags::SourceText() const {
  const int kinds =
      !lists_.empty() + !shards_.empty() + !source_.empty() + !config_.empty();
  if (kinds != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", kinds,
                     " data sets, expected one of --list, --shards, --source "
                     "and --config"));
  }
  if (lists_.empty() && (!image_root_.empty() || group_by_image_)) {
    return absl::InvalidArgumentError(
        "--image_root and --group_by_image are for --list");
  }
  if (config_.empty() != stream_.empty())
    return absl::InvalidArgumentError("--config and --stream go together");
  std::string text;
  if (!lists_.empty()) {
    absl::StrAppend(&text, "[type.googleapis.com/semvq.AlbefJsonConfig] {");
    for (const std::string& list : lists_)
      absl::StrAppend(&text, " path: ", Quoted(list));
    if (!image_root_.empty())
      absl::StrAppend(&text, " image_root: ", Quoted(image_root_));
    if (group_by_image_) absl::StrAppend(&text, " group_by_image: true");
    return text + " }";
  }
  if (!shards_.empty()) {
    absl::StrAppend(&text, "[type.googleapis.com/semvq.WebDatasetConfig] {");
    for (const std::string& shards : shards_)
      absl::StrAppend(&text, " shards: ", Quoted(shards));
    return text + " }";
  }
  return source_;
}

absl::StatusOr<Experiment> DatasetFlags::FromConfig(
    absl::string_view program) const {
  absl::StatusOr<std::string> path =
      ResolveConfigPath(config_, WorkingFolder(), ConfigFolders(program));
  if (!path.ok()) return path.status();
  absl::StatusOr<semvq::SourceText> text = ReadSource(*path, config_);
  if (!text.ok()) return text.status();
  std::vector<semvq::SourceText> sources = {*std::move(text)};
  for (size_t i = 0; i < merges_.size(); ++i)
    sources.push_back({absl::StrCat("--merge #", i + 1), merges_[i]});
  const LoadResult loaded = LoadExperiment(sources);
  if (!loaded.errors.empty())
    return absl::InvalidArgumentError(FormatReport(loaded.errors));
  absl::StatusOr<Experiment> experiment = StageWith(stream_, loaded);
  if (!experiment.ok()) return experiment;
  const std::vector<ConfigError> errors =
      ExpandVariables(loaded.provenance, &*experiment);
  if (!errors.empty()) return absl::InvalidArgumentError(FormatReport(errors));
  return experiment;
}

absl::StatusOr<DatasetFlags::Opened> DatasetFlags::Open(
    absl::string_view program) const {
  absl::StatusOr<std::string> text = SourceText();
  if (!text.ok()) return text.status();
  Opened opened;
  if (!config_.empty()) {
    absl::StatusOr<Experiment> experiment = FromConfig(program);
    if (!experiment.ok()) return experiment.status();
    opened.limits = experiment->data();
    for (const DataStream& stream : experiment->data().streams()) {
      if (stream.name() == stream_) opened.stream = stream;
    }
    opened.limits.clear_streams();
  } else if (!google::protobuf::TextFormat::ParseFromString(
                 absl::StrCat("name: \"data\" source {", *text, "}"),
                 &opened.stream)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--source: cannot read\n", *text,
                     "\nas the text of a data source; known are ",
                     PluginTypeList({PluginKind::kDataSource})));
  }
  const absl::Status valid = Check(opened.stream.source());
  if (!valid.ok()) return valid;
  auto config = UnpackConfig(opened.stream.source());
  if (!config.ok()) return config.status();
  PluginContext context;
  context.instance = opened.stream.name();
  absl::StatusOr<std::shared_ptr<DataSource>> source =
      Registry::Global().Make<DataSource>(**config, context);
  if (!source.ok()) return source.status();
  opened.source = *std::move(source);
  return opened;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> SplitFlags(
    int argc, char** argv, const std::vector<std::string>& switches) {
  std::vector<std::pair<std::string, std::string>> flags;
  for (int i = 1; i < argc; ++i) {
    absl::string_view argument = argv[i];
    if (!absl::StartsWith(argument, "--")) {
      return absl::InvalidArgumentError(
          absl::StrCat("unexpected argument \"", argument, "\""));
    }
    argument.remove_prefix(2);
    const size_t equals = argument.find('=');
    const std::string name(argument.substr(0, equals));
    const bool is_switch =
        std::find(switches.begin(), switches.end(), name) != switches.end();
    std::string value;
    if (equals != absl::string_view::npos) {
      value = std::string(argument.substr(equals + 1));
    } else if (!is_switch && i + 1 < argc) {
      value = argv[++i];
    }
    if (is_switch != value.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--", name, is_switch ? " takes no value" : " needs a value"));
    }
    flags.emplace_back(name, value);
  }
  return flags;
}

absl::StatusOr<int64_t> FlagNumber(absl::string_view name,
                                   absl::string_view value, int64_t least) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(value, &number) || number < least) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", name, ": got \"", value,
                     "\", expected a number of at least ", least));
  }
  return number;
}

absl::StatusOr<double> FlagShare(absl::string_view name,
                                 absl::string_view value) {
  double share = 0;
  if (!absl::SimpleAtod(value, &share) || !(share >= 0 && share <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--", name, ": got \"", value, "\", expected a share in [0, 1]"));
  }
  return share;
}

std::string FromWorkingFolder(absl::string_view path) {
  return JoinPath(WorkingFolder(), path);
}

}  // namespace semvq::tools
