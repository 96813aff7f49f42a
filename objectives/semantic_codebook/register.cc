#include "core/plugin/registry.h"
#include "objectives/semantic_codebook/config.pb.h"
#include "objectives/semantic_codebook/semantic_codebook.h"

namespace semvq {

SEMVQ_REGISTER(Objective, SemanticCodebookConfig, MakeSemanticCodebook,
               ValidateSemanticCodebook, SemanticCodebookContract);

}  // namespace semvq
