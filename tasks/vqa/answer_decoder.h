// The answer decoder of ALBEF [Li et al. 2021]: writes answers word by word,
// and ranks a list of answers by how likely it is to write them.
#ifndef SEMVQ_TASKS_VQA_ANSWER_DECODER_H_
#define SEMVQ_TASKS_VQA_ANSWER_DECODER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/forward/batch.h"
#include "core/forward/types.h"
#include "core/nn/text_decoder.h"
#include "core/plugin/registry.h"
#include "tasks/vqa/config.pb.h"

namespace semvq {

// The answers to the questions of a batch: A rows.
struct AnswerRows {
  at::Tensor inputs;     // int64 [A, L], [CLS] and the answer's tokens.
  at::Tensor targets;    // int64 [A, L], its tokens and [SEP]; -1 after it.
  at::Tensor question;   // int64 [A], row of Batch::texts.
  at::Tensor weight;     // float [A], the answer's share of its question.
  int64_t answered = 0;  // Questions with an answer.
};

class AnswerDecoder {
 public:
  // `dim`: of the fused tokens. `answers`: the list that is ranked; each must
  // have a token of the vocabulary.
  static absl::StatusOr<std::shared_ptr<AnswerDecoder>> Make(
      const VqaConfig& config, const PluginContext& context, int64_t dim,
      const std::vector<std::string>& answers);

  // What has the parameters.
  std::shared_ptr<TextDecoder> module() const { return decoder_; }

  // Every answer of every question, on the batch's device. In a batch without
  // any answer each question has one empty answer of weight 0.
  AnswerRows Rows(const Batch& batch) const;
  // Logits of the targets [A, L, V]; fused [T, M, D].
  at::Tensor Logits(const Tokens& fused, const AnswerRows& rows);
  // Scores of the list's answers to each question, float [T, A]: the
  // log-likelihood of the k answers whose first token is likeliest (of equal
  // ones those that stand first), minus infinity for the others.
  at::Tensor Rank(const Tokens& fused);

 private:
  AnswerDecoder(const VqaConfig& config, const Tokenizer* tokenizer,
                int64_t dim, int64_t vocab_size)
      : config_(config),
        tokenizer_(tokenizer),
        decoder_(
            std::make_shared<TextDecoder>(config.decoder(), dim, vocab_size)) {}

  // Inputs and targets of these answers, padded to the longest.
  AnswerRows Encode(const std::vector<std::string>& answers) const;

  const VqaConfig config_;
  const Tokenizer* const tokenizer_;
  std::shared_ptr<TextDecoder> decoder_;
  AnswerRows list_;
};

}  // namespace semvq

#endif  // SEMVQ_TASKS_VQA_ANSWER_DECODER_H_
