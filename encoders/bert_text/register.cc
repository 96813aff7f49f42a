#include "core/plugin/registry.h"
#include "encoders/bert_text/bert_text.h"
#include "encoders/bert_text/config.pb.h"

namespace semvq {

SEMVQ_REGISTER(TextEncoder, BertTextConfig, MakeBertText, ValidateBertText,
               BertTextContract);

}  // namespace semvq
