// A plugin in the neutral composition, for tests that know no plugin.
#ifndef SEMVQ_TESTS_CONFORMANCE_NEUTRAL_H_
#define SEMVQ_TESTS_CONFORMANCE_NEUTRAL_H_

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/config/load.h"
#include "core/forward/batch.h"
#include "core/plugin/registry.h"
#include "core/text/tokenizer.h"
#include "trainer/streams.h"
#include "trainer/trainer.h"

namespace semvq {

// A registered type with one of its snippets.
struct ConformanceCase {
  const PluginType* type = nullptr;
  std::string snippet;  // Path of its conformance*.pbtxt; empty: it has none.

  // For the name of the test: "vit", "vit_stem".
  std::string Name() const;
  friend void PrintTo(const ConformanceCase& c, std::ostream* out) {
    *out << c.type->name();
  }
};

// Every registered type, with each of its snippets.
std::vector<ConformanceCase> ConformanceCases();

// Cases of one kind.
std::vector<ConformanceCase> ConformanceCases(PluginKind kind);

// The neutral experiment with a case's plugin in it: one valid stage.
class Neutral {
 public:
  static absl::StatusOr<std::unique_ptr<Neutral>> Create(
      const ConformanceCase& c);

  // Variables expanded.
  Experiment& experiment() { return experiment_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  Streams& streams() { return streams_; }
  // Names of the instances of the case's type.
  const std::vector<std::string>& instances() const { return instances_; }

  // Calls `visit` with every config of the case's type in `experiment`, and
  // packs it again.
  void ForEachConfig(
      Experiment& experiment,
      const std::function<void(google::protobuf::Message&)>& visit) const;

  // OK, or the report on what is wrong with `experiment`.
  absl::Status Validate(const Experiment& experiment) const;

  // What a trainer of `experiment` needs; batches are Batches(), given by the
  // test. `folder` is where it saves.
  absl::StatusOr<StageSetup> Setup(const Experiment& experiment,
                                   const std::string& folder);
  absl::StatusOr<std::unique_ptr<Trainer>> MakeTrainer(
      const Experiment& experiment, const std::string& folder);

  // Training batches of the trained stream, of trainer.batch_size images; those
  // of one of several ranks.
  absl::StatusOr<std::vector<Batch>> Batches(int64_t count, int64_t rank = 0,
                                             int64_t ranks = 1);

 private:
  Neutral() = default;

  const PluginType* type_ = nullptr;
  Experiment experiment_;
  Provenance provenance_;
  std::vector<std::string> instances_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Streams streams_;
};

// Folder of the generated data set.
const std::string& ConformanceData();

// An empty folder of that name for the running test.
std::string FreshFolder(const std::string& name);

}  // namespace semvq

#endif  // SEMVQ_TESTS_CONFORMANCE_NEUTRAL_H_
