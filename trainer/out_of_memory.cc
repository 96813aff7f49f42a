#include "trainer/out_of_memory.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <new>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "trainer/plan.h"

namespace semvq {
namespace {

// Of the memory that is free now, the share that a batch may take by estimate.
constexpr double kMemoryShare = 0.9;

std::string FirstLine(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

// What the measurement tells about the batch, and what to set.
std::string Advice(const StageSetup& setup, const MemoryPlan& memory) {
  const Experiment& e = setup.experiment;
  const int64_t batch = e.trainer().batch_size();
  int64_t fits = std::max<int64_t>(1, batch / 2);
  std::string text;
  if (setup.device.is_cpu()) {
    const double available = AvailableMemory();
    const int64_t largest = memory.LargestBatch(kMemoryShare * available);
    absl::StrAppendFormat(&text, "%.2f GiB of this machine are free now: ",
                          available / (1 << 30));
    if (largest >= batch) {
      absl::StrAppend(&text,
                      "by this estimate the batch fits them, so something else "
                      "limits this process (ulimit, a container), or took the "
                      "memory for a while\n");
    } else {
      absl::StrAppend(&text, "by this estimate a batch of ", largest,
                      largest == 1 ? " image fits\n" : " images fits\n");
      fits = std::max<int64_t>(1, std::min(fits, largest));
    }
  }
  absl::StrAppend(
      &text, "what to lower:\n  trainer { batch_size: ", fits,
      " accumulation: ", (batch * e.trainer().accumulation() + fits - 1) / fits,
      " }  about as many images a step, in smaller parts (contrastive "
      "negatives come from one part)\n");
  if (!e.trainer().bf16()) {
    absl::StrAppend(&text,
                    "  trainer { bf16: true }  activations of half the size\n");
  }
  absl::StrAppend(
      &text,
      "  activation_checkpointing: true of the encoders "
      "(ablations/activation_checkpointing.pbtxt)  less memory for more time\n"
      "  transform { size }, max_tokens, layers or dimensions  a smaller "
      "model\n");
  return text;
}

}  // namespace

bool IsOutOfMemory(const std::exception& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
      dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return true;
  }
  // The CPU allocator has no type of its own.
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  return torch != nullptr && absl::StrContains(torch->what_without_backtrace(),
                                               "DefaultCPUAllocator");
}

std::string ExplainOutOfMemory(const StageSetup& setup,
                               const std::string& what) {
  std::string text = absl::StrCat("out of memory (", FirstLine(what), ")\n");
  absl::StatusOr<MemoryPlan> memory;
  try {
    memory = MeasureMemory(setup);
  } catch (const std::exception& error) {
    memory = absl::ResourceExhaustedError(FirstLine(error.what()));
  }
  if (memory.ok()) {
    absl::StrAppend(&text, FormatMemory(*memory, setup.experiment),
                    Advice(setup, *memory));
  } else {
    absl::StrAppend(&text,
                    "not even a batch of four images could be measured: ",
                    memory.status().message(),
                    "\nuse a smaller model or a machine with more memory\n");
  }
  absl::StrAppend(
      &text,
      "--mode=plan shows these numbers without training; checkpoints are "
      "untouched");
  return text;
}

}  // namespace semvq
