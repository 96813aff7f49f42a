// Makes any experiment small enough to run in a second on made-up data.
#ifndef SEMVQ_TESTS_E2E_SHRINK_H_
#define SEMVQ_TESTS_E2E_SHRINK_H_

#include <string>

#include "protos/experiment.pb.h"

namespace semvq {

// Two steps a stage on the data set in `shapes` (tests/shapes.h), which every
// stream then reads. Numbers of plugin configs that are sizes by their name
// (dim, depth, heads, num_codes, ...) become small; all else stays as it is.
void Shrink(const std::string& shapes, Experiment& experiment);

}  // namespace semvq

#endif  // SEMVQ_TESTS_E2E_SHRINK_H_
