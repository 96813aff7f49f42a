#include "tasks/vqa/answer_decoder.h"

#include <torch/types.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/objective/losses.h"
#include "core/objective/text_loss.h"
#include "core/text/tokenizer.h"

namespace semvq {

absl::StatusOr<std::shared_ptr<AnswerDecoder>> AnswerDecoder::Make(
    const VqaConfig& config, const PluginContext& context, int64_t dim,
    const std::vector<std::string>& answers) {
  const Tokenizer* tokenizer = context.tokenizer;
  const int64_t vocab_size = tokenizer == nullptr ? 0 : tokenizer->vocab_size();
  absl::Status status =
      CheckTextDecoder(config.decoder(), dim, vocab_size,
                       absl::StrCat("vqa \"", context.instance, "\""));
  if (!status.ok()) return status;
  for (const std::string& answer : answers) {
    if (context.planning) break;  // The tokenizer may be there in size alone.
    const auto tokens = static_cast<int64_t>(tokenizer->Encode(answer).size());
    if (tokens > 0 && tokens < config.decoder().max_positions()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "answer_list ", config.answer_list(), ": \"", answer, "\" has ", tokens,
        " tokens, expected 1 to ", config.decoder().max_positions() - 1,
        " (decoder.max_positions - 1): remove it"));
  }
  std::shared_ptr<AnswerDecoder> decoder(
      new AnswerDecoder(config, tokenizer, dim, vocab_size));
  decoder->list_ = decoder->Encode(answers);
  return decoder;
}

AnswerRows AnswerDecoder::Encode(
    const std::vector<std::string>& answers) const {
  std::vector<std::vector<int64_t>> tokens;
  size_t longest = 0;
  for (const std::string& answer : answers) {
    tokens.push_back(tokenizer_->Encode(answer));
    // With [CLS], or [SEP], as many as there are positions.
    tokens.back().resize(std::min<size_t>(
        tokens.back().size(), config_.decoder().max_positions() - 1));
    longest = std::max(longest, tokens.back().size());
  }
  const auto rows = static_cast<int64_t>(answers.size());
  const auto length = static_cast<int64_t>(longest) + 1;
  AnswerRows out;
  out.inputs = at::full({rows, length}, tokenizer_->pad_id(), at::kLong);
  out.targets = at::full({rows, length}, -1, at::kLong);
  int64_t* input = out.inputs.data_ptr<int64_t>();
  int64_t* target = out.targets.data_ptr<int64_t>();
  for (const std::vector<int64_t>& answer : tokens) {
    input[0] = tokenizer_->cls_id();
    std::copy(answer.begin(), answer.end(), input + 1);
    std::copy(answer.begin(), answer.end(), target);
    target[answer.size()] = tokenizer_->sep_id();
    input += length;
    target += length;
  }
  return out;
}

AnswerRows AnswerDecoder::Rows(const Batch& batch) const {
  std::vector<std::string> answers;
  std::vector<int64_t> question;
  std::vector<float> weight;
  int64_t answered = 0;
  for (size_t t = 0; t < batch.texts.size(); ++t) {
    answered += !batch.texts[t].answers.empty();
    for (const auto& [answer, share] : batch.texts[t].answers) {
      answers.push_back(answer);
      question.push_back(static_cast<int64_t>(t));
      weight.push_back(share);
    }
  }
  if (answers.empty()) {
    answers.resize(batch.texts.size());
    weight.resize(batch.texts.size(), 0.0f);
    for (size_t t = 0; t < batch.texts.size(); ++t)
      question.push_back(static_cast<int64_t>(t));
  }
  AnswerRows rows = Encode(answers);
  const at::Device device = batch.text_ids.device();
  rows.inputs = rows.inputs.to(device);
  rows.targets = rows.targets.to(device);
  rows.question = torch::tensor(question, at::kLong).to(device);
  rows.weight = torch::tensor(weight, at::kFloat).to(device);
  rows.answered = answered;
  return rows;
}

at::Tensor AnswerDecoder::Logits(const Tokens& fused, const AnswerRows& rows) {
  return decoder_->Logits(decoder_->Hidden(
      rows.inputs, CrossMemory{fused.values, fused.mask, rows.question}));
}

at::Tensor AnswerDecoder::Rank(const Tokens& fused) {
  const at::Device device = fused.values.device();
  const at::Tensor inputs = list_.inputs.to(device);
  const at::Tensor targets = list_.targets.to(device);
  const int64_t questions = fused.values.size(0), answers = inputs.size(0);
  const int64_t k = std::min(config_.rank_top_k(), answers);

  const at::Tensor start =
      inputs.select(1, 0).narrow(0, 0, 1).expand({questions, 1});
  const at::Tensor first =
      at::log_softmax(Upcast(decoder_->Logits(decoder_->Hidden(
                          start, CrossMemory{fused.values, fused.mask, {}}))),
                      -1)
          .select(1, 0)
          .index_select(1, targets.select(1, 0));
  const at::Tensor best =
      std::get<1>(at::sort(first, /*stable=*/true, 1, /*descending=*/true))
          .narrow(1, 0, k);

  at::Tensor scores = at::full(
      first.sizes(), -std::numeric_limits<double>::infinity(), first.options());
  const int64_t chunk = std::max<int64_t>(1, config_.rank_batch_size() / k);
  for (int64_t begin = 0; begin < questions; begin += chunk) {
    const int64_t size = std::min(chunk, questions - begin);
    const at::Tensor chosen = best.narrow(0, begin, size);
    const at::Tensor rows = chosen.flatten();
    // Rows of one question lie side by side and share its keys and values.
    const CrossMemory memory{
        fused.values.narrow(0, begin, size),
        fused.mask.defined() ? fused.mask.narrow(0, begin, size) : fused.mask,
        {}};
    const at::Tensor logits = decoder_->Logits(
        decoder_->Hidden(inputs.index_select(0, rows), memory));
    at::Tensor score = -TokenLosses(logits, targets.index_select(0, rows))
                            .sum(1)
                            .view({size, k});
    if (config_.count_first_token_twice())
      score = score + first.narrow(0, begin, size).gather(1, chosen);
    scores.narrow(0, begin, size).scatter_(1, chosen, score);
  }
  return scores;
}

}  // namespace semvq
