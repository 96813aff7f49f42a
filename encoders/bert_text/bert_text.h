// The BERT-style text encoder. See config.proto.
#ifndef SEMVQ_ENCODERS_BERT_TEXT_BERT_TEXT_H_
#define SEMVQ_ENCODERS_BERT_TEXT_BERT_TEXT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "encoders/bert_text/config.pb.h"

namespace semvq {

class TextEncoder;

// Every error, one a line.
absl::Status ValidateBertText(const BertTextConfig& config);

// Provides "tokens" of `dim`, [CLS] first. Reads "text".
Contract BertTextContract(const std::string& instance,
                          const BertTextConfig& config,
                          const ContractBook& book);

// InvalidArgument when the vocabulary is unknown or larger than the config's,
// or texts are longer than max_positions. The encoder throws c10::Error for
// ids out of range and longer texts.
absl::StatusOr<std::shared_ptr<TextEncoder>> MakeBertText(
    const BertTextConfig& config, const PluginContext& context);

}  // namespace semvq

#endif  // SEMVQ_ENCODERS_BERT_TEXT_BERT_TEXT_H_
