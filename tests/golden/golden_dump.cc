// Runs a case of cases.h on a safetensors file, for scripts that compare its
// results with other programs'.
#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "core/checkpoint/safetensors.h"
#include "tests/golden/cases.h"

namespace semvq {
namespace {

absl::Status Run(const std::vector<std::string>& args) {
  if (args.size() != 3) {
    return absl::InvalidArgumentError(
        "usage: golden_dump CASE IN.safetensors OUT.safetensors");
  }
  auto in = ReadTensors(args[1]);
  if (!in.ok()) return in.status();
  auto out = RunCase(args[0], *in);
  if (!out.ok()) return out.status();
  return WriteSafetensors(args[2], NamedTensors(out->begin(), out->end()));
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) {
  absl::Status status;
  try {
    status = semvq::Run(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const c10::Error& e) {
    status = absl::InternalError(e.what_without_backtrace());
  } catch (const std::exception& e) {
    status = absl::InternalError(e.what());
  }
  if (status.ok()) return 0;
  std::fprintf(stderr, "golden_dump: %s\n",
               std::string(status.message()).c_str());
  return 1;
}
