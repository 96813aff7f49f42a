// torchrun out of LibTorch's package, whose Python part needs more than
// LibTorch.
#ifndef SEMVQ_TESTS_DISTRIBUTED_TORCHRUN_H_
#define SEMVQ_TESTS_DISTRIBUTED_TORCHRUN_H_

#include <map>
#include <string>
#include <vector>

#include "tests/distributed/ranks.h"

namespace semvq {

// Starts `torchrun ARGUMENTS...`. The GPU libraries that the package's Python
// part is linked to and that this machine lacks are empty ones: a launcher
// calls none of them.
Process StartTorchrun(const std::vector<std::string>& arguments,
                      std::map<std::string, std::string> environment,
                      const std::string& prefix);

// A process that `parent` has started whose name is `name`; 0: none.
pid_t ChildOf(pid_t parent, const std::string& name);

}  // namespace semvq

#endif  // SEMVQ_TESTS_DISTRIBUTED_TORCHRUN_H_
