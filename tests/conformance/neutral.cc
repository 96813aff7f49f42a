#include "tests/conformance/neutral.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/config/merge.h"
#include "core/config/print.h"
#include "core/config/source.h"
#include "core/config/validate.h"
#include "core/util/file.h"
#include "data/loader.h"
#include "tests/shapes.h"

namespace semvq {
namespace {

// Where the runfiles hold a source file of this or another repository.
std::string Runfile(const std::string& source) {
  const char* folder = std::getenv("TEST_SRCDIR");
  const char* workspace = std::getenv("TEST_WORKSPACE");
  if (folder == nullptr || workspace == nullptr) return source;
  absl::string_view path = source;
  if (absl::ConsumePrefix(&path, "external/")) return JoinPath(folder, path);
  return JoinPath(JoinPath(folder, workspace), path);
}

// conformance*.pbtxt beside the file that registers the type.
std::vector<std::string> Snippets(const PluginType& type) {
  const std::string folder = Runfile(DirName(type.file));
  std::vector<std::string> snippets;
  auto names = ListDirectory(folder);
  if (!names.ok()) return snippets;
  for (const std::string& name : *names) {
    if (absl::StartsWith(name, "conformance") &&
        absl::EndsWith(name, ".pbtxt")) {
      snippets.push_back(JoinPath(folder, name));
    }
  }
  return snippets;
}

std::string ShortName(const PluginType& type) {
  return std::string(absl::StripSuffix(type.config->name(), "Config"));
}

// A type without a snippet stands with its default config where its kind's
// partner stood.
std::string DefaultSnippet(const PluginType& type) {
  const std::string any =
      absl::StrCat("{ [type.googleapis.com/", type.name(), "] {} }");
  switch (type.kind) {
    case PluginKind::kImageEncoder:
      return absl::StrCat("encoders { name: \"image\" config ", any, " }");
    case PluginKind::kTextEncoder:
      return absl::StrCat("encoders { name: \"text\" config ", any, " }");
    case PluginKind::kFusionEncoder:
      return absl::StrCat("encoders { name: \"fusion\" config ", any, " }");
    case PluginKind::kQuantizer:
      return absl::StrCat("quantizers { name: \"codebook\" config ", any, " }");
    case PluginKind::kObjective:
      return absl::StrCat("objectives { name: \"subject\" config ", any, " }");
    case PluginKind::kTask:
      return absl::StrCat(
          "tasks { name: \"subject\" stream: \"questions\" config ", any, " }");
    case PluginKind::kDataSource:
      return absl::StrCat("data { streams { name: \"questions\" source ", any,
                          " } }");
  }
  return "";
}

absl::StatusOr<std::vector<SourceText>> Sources(const ConformanceCase& c) {
  auto base =
      ReadSource(Runfile(absl::StrCat(DirName(__FILE__), "/base.pbtxt")));
  if (!base.ok()) return base.status();
  std::vector<SourceText> sources = {*base};
  if (!c.snippet.empty()) {
    auto snippet = ReadSource(c.snippet);
    if (!snippet.ok()) return snippet.status();
    sources.push_back(*std::move(snippet));
  } else if (!absl::StrContains(base->text,
                                absl::StrCat(c.type->name(), "]"))) {
    sources.push_back({"(default config)", DefaultSnippet(*c.type)});
  }
  return sources;
}

// Every (instance, config) of an experiment.
void ForEachAny(Experiment& e,
                const std::function<void(const std::string&,
                                         google::protobuf::Any*)>& visit) {
  for (auto& s : *e.mutable_data()->mutable_streams())
    visit(s.name(), s.mutable_source());
  for (auto& x : *e.mutable_encoders()) visit(x.name(), x.mutable_config());
  for (auto& x : *e.mutable_quantizers()) visit(x.name(), x.mutable_config());
  for (auto& x : *e.mutable_objectives()) visit(x.name(), x.mutable_config());
  for (auto& x : *e.mutable_tasks()) visit(x.name(), x.mutable_config());
}

}  // namespace

std::string ConformanceCase::Name() const {
  std::string name = ShortName(*type);
  if (!snippet.empty()) {
    const std::string file = BaseName(snippet);
    absl::StrAppend(
        &name,
        absl::StripSuffix(absl::StripPrefix(file, "conformance"), ".pbtxt"));
  }
  return absl::StrReplaceAll(name, {{".", "_"}, {"-", "_"}});
}

std::vector<ConformanceCase> ConformanceCases() {
  std::vector<ConformanceCase> cases;
  for (const PluginType* type : Registry::Global().All()) {
    const std::vector<std::string> snippets = Snippets(*type);
    if (snippets.empty()) cases.push_back({type, ""});
    for (const std::string& snippet : snippets)
      cases.push_back({type, snippet});
  }
  return cases;
}

std::vector<ConformanceCase> ConformanceCases(PluginKind kind) {
  std::vector<ConformanceCase> cases;
  for (const ConformanceCase& c : ConformanceCases()) {
    if (c.type->kind == kind) cases.push_back(c);
  }
  return cases;
}

const std::string& ConformanceData() {
  static const std::string* folder = [] {
    // These tensors are far too small to share between threads.
    at::set_num_threads(1);
    auto* path = new std::string(JoinPath(testing::TempDir(), "shapes"));
    const absl::Status status = WriteShapes(*path);
    if (!status.ok()) {
      ADD_FAILURE() << status;
    }
    setenv("CONFORMANCE_DATA", path->c_str(), 1);
    return path;
  }();
  return *folder;
}

std::string FreshFolder(const std::string& name) {
  const auto* info = testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder = JoinPath(
      testing::TempDir(),
      absl::StrReplaceAll(
          absl::StrCat(info->test_suite_name(), "_", info->name(), "_", name),
          {{"/", "_"}}));
  EXPECT_TRUE(RemoveTree(folder).ok());
  EXPECT_TRUE(MakeDirectories(folder).ok());
  return folder;
}

absl::StatusOr<std::unique_ptr<Neutral>> Neutral::Create(
    const ConformanceCase& c) {
  ConformanceData();
  auto sources = Sources(c);
  if (!sources.ok()) return sources.status();
  const LoadResult loaded = LoadExperiment(*sources);
  const std::vector<ConfigError> errors = CheckExperiment(loaded);
  if (!errors.empty()) return absl::InvalidArgumentError(FormatReport(errors));

  std::unique_ptr<Neutral> neutral(new Neutral);
  neutral->type_ = c.type;
  neutral->experiment_ = loaded.experiment;
  neutral->provenance_ = loaded.provenance;
  ExpandVariables(loaded.provenance, &neutral->experiment_);
  ForEachAny(neutral->experiment_,
             [&](const std::string& name, google::protobuf::Any* any) {
               if (PluginTypeOf(*any) == c.type)
                 neutral->instances_.push_back(name);
             });
  if (neutral->instances_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the neutral experiment holds no ", c.type->name(),
                     "; does ", c.snippet, " name it?"));
  }
  auto tokenizer =
      LoadWordPiece(neutral->experiment_.text().wordpiece().vocab());
  if (!tokenizer.ok()) return tokenizer.status();
  neutral->tokenizer_ = *std::move(tokenizer);
  return neutral;
}

void Neutral::ForEachConfig(
    Experiment& experiment,
    const std::function<void(google::protobuf::Message&)>& visit) const {
  ForEachAny(experiment, [&](const std::string&, google::protobuf::Any* any) {
    if (PluginTypeOf(*any) != type_) return;
    std::unique_ptr<google::protobuf::Message> config(type_->prototype->New());
    ASSERT_TRUE(config->ParseFromString(any->value()));
    visit(*config);
    any->PackFrom(*config);
  });
}

absl::Status Neutral::Validate(const Experiment& experiment) const {
  const std::vector<ConfigError> errors =
      ValidateExperiment(experiment, provenance_);
  if (errors.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(FormatReport(errors));
}

absl::StatusOr<StageSetup> Neutral::Setup(const Experiment& experiment,
                                          const std::string& folder) {
  StageSetup setup;
  setup.name = "conformance";
  setup.experiment = experiment;
  setup.config_text = PrintExperiment(experiment);
  setup.config_hash = ConfigHash(experiment);
  absl::StatusOr<ContractBook> book = BuildContracts(experiment);
  if (!book.ok()) return book.status();
  setup.book = *std::move(book);
  setup.tokenizer = tokenizer_.get();
  setup.streams = &streams_;
  setup.folder = folder;
  setup.random_data = true;  // Batches are given by the test.
  return setup;
}

absl::StatusOr<std::unique_ptr<Trainer>> Neutral::MakeTrainer(
    const Experiment& experiment, const std::string& folder) {
  absl::StatusOr<StageSetup> setup = Setup(experiment, folder);
  if (!setup.ok()) return setup.status();
  return Trainer::Create(*std::move(setup));
}

absl::StatusOr<std::vector<Batch>> Neutral::Batches(int64_t count, int64_t rank,
                                                    int64_t ranks) {
  const std::string& name = experiment_.trainer().stream();
  auto stream = Streams::Find(experiment_, name);
  if (!stream.ok()) return stream.status();
  auto source = streams_.Open(experiment_, name);
  if (!source.ok()) return source.status();
  LoaderOptions options;
  options.batch_size = experiment_.trainer().batch_size();
  options.max_tokens = experiment_.text().max_tokens();
  options.rank = rank;
  options.ranks = ranks;
  auto loader = Loader::Create(**stream, *source, tokenizer_.get(),
                               experiment_.data(), options);
  if (!loader.ok()) return loader.status();
  std::vector<Batch> batches;
  for (int64_t i = 0; i < count; ++i) {
    auto batch = (*loader)->Next();
    if (!batch.ok()) return batch.status();
    batches.push_back(*std::move(batch));
  }
  return batches;
}

}  // namespace semvq
