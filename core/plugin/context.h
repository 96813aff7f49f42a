// What a plugin's factory is given.
#ifndef SEMVQ_CORE_PLUGIN_CONTEXT_H_
#define SEMVQ_CORE_PLUGIN_CONTEXT_H_

#include <cstdint>
#include <string>

#include "core/plugin/contract.h"

namespace semvq {

class Tokenizer;

struct PluginContext {
  std::string instance;  // This instance's name in the experiment.
  uint64_t seed = 1;     // The experiment's seed, for named random streams.
  const ContractBook* book =
      nullptr;  // Dimensions and codes of every instance.
  const Tokenizer* tokenizer =
      nullptr;             // Null when the experiment has no text.
  int64_t vocab_size = 0;  // 0 when the experiment has no text.
  // --mode=plan: only sizes matter, so a plugin may do without a file that is
  // not there when its config tells what size it would have.
  bool planning = false;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_CONTEXT_H_
