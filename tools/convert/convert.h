// Writing a trained model's parts under other projects' names.
#ifndef SEMVQ_TOOLS_CONVERT_CONVERT_H_
#define SEMVQ_TOOLS_CONVERT_CONVERT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace semvq {

// Paths, relative ones from `working_folder`; key maps are looked up there,
// then in `config_folders`.
struct ConvertPlaces {
  std::string working_folder;
  std::vector<std::string> config_folders;
};

// Command line of //tools/convert; `args` without the program's name. Returns
// what was written, for people. InvalidArgument for a wrong command line, and
// for parameters that no naming knows and no --drop allows; nothing is written
// then.
absl::StatusOr<std::string> Convert(absl::Span<const std::string> args,
                                    const ConvertPlaces& places);

std::string ConvertHelp();

}  // namespace semvq

#endif  // SEMVQ_TOOLS_CONVERT_CONVERT_H_
