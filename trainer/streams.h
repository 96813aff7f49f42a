// The experiment's data streams, opened when they are first used.
#ifndef SEMVQ_TRAINER_STREAMS_H_
#define SEMVQ_TRAINER_STREAMS_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "data/source.h"
#include "protos/experiment.pb.h"

namespace semvq {

// Keeps the sources of all stages: equal source configs are read once.
class Streams {
 public:
  // The stream of that name in `experiment` (variables expanded). NotFound when
  // there is none, which validation rules out.
  static absl::StatusOr<const DataStream*> Find(const Experiment& experiment,
                                                const std::string& name);
  absl::StatusOr<std::shared_ptr<const DataSource>> Open(
      const Experiment& experiment, const std::string& name);

 private:
  std::map<std::string, std::shared_ptr<const DataSource>> sources_;
};

}  // namespace semvq

#endif  // SEMVQ_TRAINER_STREAMS_H_
