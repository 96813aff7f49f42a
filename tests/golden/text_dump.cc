// Token ids of SemVQ's tokenizers and captions as it cleans them, for scripts
// that compare them with others'.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/text/caption.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "core/util/json.h"

namespace semvq {
namespace {

constexpr char kUsage[] =
    "usage: text_dump wordpiece VOCAB.txt STRINGS.json IDS.txt\n"
    "       text_dump sentencepiece MODEL STRINGS.json IDS.txt\n"
    "       text_dump train MODEL STRINGS.json SIZE unigram|bpe\n"
    "       text_dump clean STRINGS.json CLEANED.txt\n"
    "STRINGS.json holds a list of strings; IDS.txt gets a line of ids for "
    "each, CLEANED.txt a line of text.";

absl::Status EncodeAll(const Tokenizer& tokenizer, const std::string& strings,
                       const std::string& output) {
  auto texts = ReadJsonStringList(strings);
  if (!texts.ok()) return texts.status();
  std::string lines;
  for (const std::string& text : *texts) {
    absl::StrAppend(&lines, absl::StrJoin(tokenizer.Encode(text), " "), "\n");
  }
  return AtomicWriteFile(output, lines);
}

absl::Status CleanAll(const std::string& strings, const std::string& output) {
  auto texts = ReadJsonStringList(strings);
  if (!texts.ok()) return texts.status();
  std::string lines;
  for (const std::string& text : *texts) {
    absl::StrAppend(&lines, CleanCaption(text), "\n");
  }
  return AtomicWriteFile(output, lines);
}

absl::Status Train(const std::string& model, const std::string& strings,
                   const std::string& size, const std::string& kind) {
  auto texts = ReadJsonStringList(strings);
  if (!texts.ok()) return texts.status();
  SentencePieceOptions options;
  options.model = kind == "bpe" ? SentencePieceOptions::Model::kBpe
                                : SentencePieceOptions::Model::kUnigram;
  if (!absl::SimpleAtoi(size, &options.vocab_size)) {
    return absl::InvalidArgumentError(kUsage);
  }
  return TrainSentencePiece(*texts, options, model);
}

absl::Status Run(const std::vector<std::string>& args) {
  if (args.size() == 4 && args[0] == "wordpiece") {
    auto tokenizer = LoadWordPiece(args[1]);
    if (!tokenizer.ok()) return tokenizer.status();
    return EncodeAll(**tokenizer, args[2], args[3]);
  }
  if (args.size() == 4 && args[0] == "sentencepiece") {
    auto tokenizer = LoadSentencePiece(args[1]);
    if (!tokenizer.ok()) return tokenizer.status();
    return EncodeAll(**tokenizer, args[2], args[3]);
  }
  if (args.size() == 3 && args[0] == "clean") {
    return CleanAll(args[1], args[2]);
  }
  if (args.size() == 5 && args[0] == "train") {
    return Train(args[1], args[2], args[3], args[4]);
  }
  return absl::InvalidArgumentError(kUsage);
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) {
  const absl::Status status =
      semvq::Run(std::vector<std::string>(argv + 1, argv + argc));
  if (status.ok()) return 0;
  std::fprintf(stderr, "text_dump: %s\n",
               std::string(status.message()).c_str());
  return 1;
}
