// The text decoder against transformers' BERT decoder, and the ranking of
// answers against ALBEF's, from the same parameters in float64.
#include <gtest/gtest.h>
#include <torch/types.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/checkpoint/safetensors.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/text_decoder.h"
#include "core/text/testing.h"
#include "core/util/file.h"
#include "tasks/vqa/vqa.h"

namespace semvq {
namespace {

class DecoderGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = SafetensorsFile::Open(absl::StrCat(
        std::getenv("TEST_SRCDIR"), "/", std::getenv("TEST_WORKSPACE"),
        "/tests/golden/tasks/vqa/decoder.safetensors"));
    ASSERT_TRUE(opened.ok()) << opened.status();
    file = *std::move(opened);
    config.set_depth(2);
    config.set_heads(2);
    config.set_intermediate(10);
    config.set_max_positions(6);
  }

  at::Tensor Get(const std::string& name) {
    auto tensor = file->Get(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return tensor.ok() ? *tensor : at::Tensor();
  }

  // All parameters, which the file has without `prefix`.
  void Load(const std::string& prefix, torch::nn::Module& module) {
    c10::NoGradGuard no_grad;
    module.to(at::kDouble);
    module.eval();
    for (auto& item : module.named_parameters())
      item.value().copy_(Get(item.key().substr(prefix.size())));
  }

  std::unique_ptr<SafetensorsFile> file;
  TextDecoderConfig config;
};

TEST_F(DecoderGoldenTest, LogitsAreTransformers) {
  TextDecoder decoder(config, /*memory_dim=*/8, /*vocab_size=*/12);
  Load("", decoder);
  const CrossMemory memory{Get("tokens"), Get("mask").to(at::kBool), {}};
  const at::Tensor logits = decoder.Logits(decoder.Hidden(Get("ids"), memory));
  const at::Tensor expected = Get("logits");
  ASSERT_EQ(logits.sizes(), expected.sizes());
  EXPECT_GT(expected.std().item<double>(), 0.3);
  EXPECT_LT((logits - expected).abs().max().item<double>(), 1e-9);
}

TEST_F(DecoderGoldenTest, RanksAnswersAsAlbef) {
  const WordTokenizer words(
      {"on", "table", "red", "two", "dogs", "cat", "unused"});
  VqaConfig vqa;
  vqa.set_head(VqaConfig::DECODER);
  *vqa.mutable_decoder() = config;
  vqa.set_rank_top_k(4);
  vqa.set_count_first_token_twice(true);
  vqa.set_answer_list(JoinPath(testing::TempDir(), "answers.json"));
  ASSERT_TRUE(AtomicWriteFile(vqa.answer_list(),
                              "[\"on table\", \"red\", \"on\", \"two dogs\", "
                              "\"on red table\", \"dogs\", \"cat\"]")
                  .ok());
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, 8}};
  book.Add("fusion", fusion);
  PluginContext context;
  context.instance = "vqa";
  context.book = &book;
  context.tokenizer = &words;
  context.vocab_size = words.vocab_size();
  auto task = MakeVqa(vqa, context);
  ASSERT_TRUE(task.ok()) << task.status();
  Load("decoder.", **task);

  TestForward forward(TestBatch());
  FakeProvider fused([this](const ViewKey&, Forward&) -> std::any {
    Tokens tokens;
    tokens.values = Get("tokens");
    tokens.mask = Get("mask").to(at::kBool);
    return tokens;
  });
  forward.student = {{"fusion", &fused}, {"vqa", task->get()}};
  c10::NoGradGuard no_grad;
  const at::Tensor scores =
      forward->Get<at::Tensor>(FusedKey("vqa", kAnswerLogits));
  const at::Tensor expected = Get("scores");
  ASSERT_EQ(scores.sizes(), expected.sizes());
  const at::Tensor ranked = expected.isfinite();
  EXPECT_TRUE(at::equal(scores.isfinite(), ranked));
  EXPECT_EQ(ranked.sum().item<int64_t>(), 3 * 4);
  EXPECT_LT(
      (scores - expected).masked_select(ranked).abs().max().item<double>(),
      1e-9);
}

}  // namespace
}  // namespace semvq
