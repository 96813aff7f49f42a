#include "trainer/made_tokenizer.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/text/word_vocabulary.h"
#include "core/util/file.h"
#include "data/loader.h"

namespace semvq {
namespace {

// The texts of each image of these streams.
template <class Names>
absl::StatusOr<std::vector<std::vector<std::string>>> TextsOf(
    const Names& names, const Experiment& experiment, Streams& streams) {
  std::vector<std::vector<std::string>> texts;
  for (const std::string& name : names) {
    auto source = streams.Open(experiment, name);
    if (!source.ok()) return source.status();
    for (std::vector<std::string>& of_image :
         LoadAllTexts(**source, experiment.text().max_words()))
      texts.push_back(std::move(of_image));
  }
  return texts;
}

absl::Status MakeSentencePiece(const Experiment& experiment, Streams& streams,
                               const std::string& path) {
  const SentencePiece& config = experiment.text().sentencepiece();
  auto texts = TextsOf(config.train_on(), experiment, streams);
  if (!texts.ok()) return texts.status();
  // Questions repeat by the thousand; a text counts once.
  std::set<std::string> distinct;
  for (const std::vector<std::string>& of_image : *texts)
    distinct.insert(of_image.begin(), of_image.end());
  SentencePieceOptions options;
  options.vocab_size = config.vocab_size();
  return TrainSentencePiece(
      std::vector<std::string>(distinct.begin(), distinct.end()), options,
      path);
}

}  // namespace

std::string MadeTokenizerName(const TextConfig& text) {
  if (text.sentencepiece().train_on_size() > 0) return kMadeSentencePiece;
  if (text.wordpiece().train_on_size() > 0) return kMadeVocabulary;
  return "";
}

absl::StatusOr<std::vector<std::string>> MakeWordVocabulary(
    const Experiment& experiment, Streams& streams) {
  const WordPiece& config = experiment.text().wordpiece();
  auto texts = TextsOf(config.train_on(), experiment, streams);
  if (!texts.ok()) return texts.status();
  return WordVocabulary(*texts, config.min_images());
}

absl::Status MakeTokenizer(const Experiment& experiment, Streams& streams,
                           const std::string& path) {
  if (experiment.text().has_sentencepiece())
    return MakeSentencePiece(experiment, streams, path);
  auto words = MakeWordVocabulary(experiment, streams);
  if (!words.ok()) return words.status();
  const int64_t min_images = experiment.text().wordpiece().min_images();
  if (words->back() == "[MASK]") {
    return absl::InvalidArgumentError(absl::StrCat(
        "text.wordpiece: no word is in the texts of ", min_images,
        " images of train_on; expected a smaller min_images, or other "
        "streams"));
  }
  return AtomicWriteFile(path, absl::StrCat(absl::StrJoin(*words, "\n"), "\n"));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    const TextConfig& text, const std::string& path) {
  if (text.has_wordpiece()) return LoadWordPiece(path);
  return LoadSentencePiece(path);
}

}  // namespace semvq
