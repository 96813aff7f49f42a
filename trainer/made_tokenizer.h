// The tokenizer of an experiment: from a file, or made from its data.
#ifndef SEMVQ_TRAINER_MADE_TOKENIZER_H_
#define SEMVQ_TRAINER_MADE_TOKENIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/text/tokenizer.h"
#include "protos/experiment.pb.h"
#include "trainer/streams.h"

namespace semvq {

// Names of tokenizers made from the data, in the run's folder.
inline constexpr char kMadeSentencePiece[] = "tokenizer.model";
inline constexpr char kMadeVocabulary[] = "vocab.txt";

// The name that a tokenizer made from the data (`train_on`) has in its run's
// folder; empty when text names a file, or has no tokenizer.
std::string MadeTokenizerName(const TextConfig& text);

// Makes it, as `path`. Errors are those of the streams and of the tokenizer's
// library, and InvalidArgument when no word is left for a vocabulary.
absl::Status MakeTokenizer(const Experiment& experiment, Streams& streams,
                           const std::string& path);

// From `path`: what was made, or the file that text names, which has a
// tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    const TextConfig& text, const std::string& path);

// The vocabulary of text.wordpiece { train_on }.
absl::StatusOr<std::vector<std::string>> MakeWordVocabulary(
    const Experiment& experiment, Streams& streams);

}  // namespace semvq

#endif  // SEMVQ_TRAINER_MADE_TOKENIZER_H_
