#include "tasks/retrieval/retrieval.h"

namespace semvq {

SEMVQ_REGISTER(Task, RetrievalConfig, MakeRetrieval, ValidateRetrieval,
               RetrievalContract);

}  // namespace semvq
