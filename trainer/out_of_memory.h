// What a run says when memory runs out.
#ifndef SEMVQ_TRAINER_OUT_OF_MEMORY_H_
#define SEMVQ_TRAINER_OUT_OF_MEMORY_H_

#include <exception>
#include <string>

#include "trainer/trainer.h"

namespace semvq {

// Whether an exception says that memory ran out: LibTorch's for a device or
// for the host, or the standard library's.
bool IsOutOfMemory(const std::exception& error);

// The allocator's words, what the stage's tensors take (as --mode=plan measures
// it, here and now), and what to lower. Call it when the stage's trainer is
// gone: the measurement builds one, and says so when even that is too much.
std::string ExplainOutOfMemory(const StageSetup& setup,
                               const std::string& what);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_OUT_OF_MEMORY_H_
