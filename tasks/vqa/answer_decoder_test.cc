#include "tasks/vqa/answer_decoder.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/testing.h"
#include "core/text/testing.h"
#include "core/util/file.h"
#include "core/util/json.h"
#include "gtest/gtest.h"
#include "tasks/vqa/vqa.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 6;
const std::vector<std::string> kAnswers = {
    "on table", "red", "on", "two dogs", "on red table", "dogs", "cat"};

// Refers to the process-wide tokenizer, which tasks keep a pointer to.
const WordTokenizer& Words() {
  static const auto* words =
      new WordTokenizer({"on", "table", "red", "two", "dogs", "cat", "unused"});
  return *words;
}

VqaConfig DecoderConfig() {
  VqaConfig config;
  config.set_head(VqaConfig::DECODER);
  config.mutable_decoder()->set_depth(2);
  config.mutable_decoder()->set_heads(2);
  config.mutable_decoder()->set_intermediate(5);
  config.mutable_decoder()->set_max_positions(5);
  config.mutable_decoder()->set_dropout(0);
  config.mutable_decoder()->set_attention_dropout(0);
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string path =
      JoinPath(testing::TempDir(), absl::StrCat(test->name(), "_list.json"));
  std::string json = "[";
  for (const std::string& answer : kAnswers)
    absl::StrAppend(&json, json.size() > 1 ? ", " : "", JsonString(answer));
  EXPECT_TRUE(AtomicWriteFile(path, json + "]").ok());
  config.set_answer_list(path);
  return config;
}

absl::StatusOr<std::shared_ptr<Task>> Make(const VqaConfig& config,
                                           bool with_tokenizer = true) {
  ContractBook book;
  Contract fusion;
  fusion.provides = {{kFused, kDim}};
  book.Add("fusion", fusion);
  PluginContext context;
  context.instance = "vqa";
  context.book = &book;
  if (with_tokenizer) {
    context.tokenizer = &Words();
    context.vocab_size = Words().vocab_size();
  }
  return MakeVqa(config, context);
}

std::vector<at::Tensor> Spread(Task& task) {
  task.to(at::kDouble);
  std::vector<at::Tensor> parameters = task.parameters();
  c10::NoGradGuard no_grad;
  for (at::Tensor& p : parameters) p.add_(at::randn_like(p), 0.5);
  return parameters;
}

// Questions about one image, with fused tokens made up.
class AnswerDecoderTest : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(11);
    Use(DecoderConfig());
    TestBatchOptions options;
    options.images = 2;
    options.texts_per_image = 2;
    batch = TestBatch(options);
    batch.texts[0].answers = {{"on table", 0.7f}, {"red", 0.3f}};
    batch.texts[1].answers = {};
    batch.texts[2].answers = {{"two dogs", 1.0f}};
    batch.texts[3].answers = {{"cat", 0.5f}, {"zebra", 0.2f}, {"on", 0.3f}};
    fused = at::randn({4, 3, kDim}, at::kDouble).set_requires_grad(true);
    mask =
        torch::tensor({{1, 1, 0}, {1, 1, 1}, {1, 1, 1}, {1, 0, 0}}, at::kBool);
  }

  void Use(const VqaConfig& config) {
    auto made = Make(config);
    ASSERT_TRUE(made.ok()) << made.status();
    if (task != nullptr) {  // The parameters of the one before.
      c10::NoGradGuard no_grad;
      (*made)->to(at::kDouble);
      const std::vector<at::Tensor> from = task->parameters();
      std::vector<at::Tensor> to = (*made)->parameters();
      for (size_t i = 0; i < to.size(); ++i) to[i].copy_(from[i]);
    } else {
      Spread(**made);
    }
    task = *made;
    task->eval();
  }

  // A Forward in which every variant of the fusion gives `fused`, and the
  // teacher's is `teacher_task`.
  std::unique_ptr<TestForward> MakeForward(Task* teacher_task = nullptr) {
    auto forward =
        std::make_unique<TestForward>(batch, teacher_task != nullptr);
    fusion = std::make_unique<FakeProvider>(
        [this](const ViewKey&, Forward&) -> std::any {
          Tokens tokens;
          tokens.values = fused;
          tokens.mask = mask;
          return tokens;
        });
    forward->student = {{"fusion", fusion.get()}, {"vqa", task.get()}};
    if (teacher_task != nullptr)
      forward->teacher = {{"fusion", fusion.get()}, {"vqa", teacher_task}};
    return forward;
  }

  at::Tensor Scores() {
    c10::NoGradGuard no_grad;
    return (*MakeForward())
        ->Get<at::Tensor>(FusedKey("vqa", kAnswerLogits))
        .clone();
  }

  // ln p of each token of an answer, [SEP] among them, from the logits that
  // the task provides for training on that answer alone.
  std::vector<double> TokenLogP(int64_t question, const std::string& answer) {
    c10::NoGradGuard no_grad;
    const Batch kept = batch;
    for (TextRecord& text : batch.texts) text.answers.clear();
    batch.texts[question].answers = {{answer, 1.0f}};
    const at::Tensor log_p = at::log_softmax(
        (*MakeForward())->Get<at::Tensor>(FusedKey("vqa", kAnswerTokenLogits)),
        -1);
    batch = kept;
    std::vector<int64_t> ids = Words().Encode(answer);
    ids.push_back(Words().sep_id());
    EXPECT_EQ(log_p.size(0), 1);
    EXPECT_EQ(log_p.size(1), static_cast<int64_t>(ids.size()));
    std::vector<double> out;
    for (size_t i = 0; i < ids.size(); ++i)
      out.push_back(log_p[0][i][ids[i]].item<double>());
    return out;
  }

  std::shared_ptr<Task> task;
  std::unique_ptr<FakeProvider> fusion;
  Batch batch;
  at::Tensor fused, mask;
};

double Total(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum;
}

TEST_F(AnswerDecoderTest, RankingAllIsTheLikelihoodOfEach) {
  for (const bool twice : {false, true}) {
    VqaConfig config = DecoderConfig();
    config.set_count_first_token_twice(twice);
    Use(config);
    const at::Tensor scores = Scores();
    ASSERT_EQ(scores.sizes(), (std::vector<int64_t>{4, 7}));
    for (int64_t t = 0; t < 4; ++t) {
      for (int64_t a = 0; a < 7; ++a) {
        const std::vector<double> log_p = TokenLogP(t, kAnswers[a]);
        EXPECT_NEAR(scores[t][a].item<double>(),
                    Total(log_p) + (twice ? log_p[0] : 0), 1e-9)
            << t << " " << kAnswers[a];
      }
    }
  }
}

TEST_F(AnswerDecoderTest, TheFirstTokenDecidesWhoIsRanked) {
  const at::Tensor all = Scores();
  for (const int64_t k : {1, 2, 4, 6}) {
    VqaConfig config = DecoderConfig();
    config.set_rank_top_k(k);
    Use(config);
    const at::Tensor scores = Scores();
    for (int64_t t = 0; t < 4; ++t) {
      std::vector<std::pair<double, int64_t>> order;
      for (int64_t a = 0; a < 7; ++a)
        order.emplace_back(-TokenLogP(t, kAnswers[a])[0], a);
      // Three answers begin with the same word: the first in the list first.
      std::stable_sort(order.begin(), order.end(), [](auto& x, auto& y) {
        return x.first < y.first - 1e-9;
      });
      for (int64_t rank = 0; rank < 7; ++rank) {
        const int64_t a = order[rank].second;
        const double score = scores[t][a].item<double>();
        if (rank < k) {
          EXPECT_NEAR(score, all[t][a].item<double>(), 1e-9);
        } else {
          EXPECT_EQ(score, -std::numeric_limits<double>::infinity());
        }
      }
    }
  }
}

TEST_F(AnswerDecoderTest, BatchesDoNotMatter) {
  const at::Tensor all = Scores();
  for (const int64_t pairs : {1, 3, 15}) {
    VqaConfig config = DecoderConfig();
    config.set_rank_batch_size(pairs);
    Use(config);
    EXPECT_TRUE(at::allclose(Scores(), all, 1e-10, 1e-10)) << pairs;
  }
  const at::Tensor values = fused, real = mask;
  for (int64_t t = 0; t < 4; ++t) {
    fused = values.narrow(0, t, 1);
    mask = real.narrow(0, t, 1);
    EXPECT_TRUE(at::allclose(Scores()[0], all[t], 1e-10, 1e-10)) << t;
  }
}

TEST_F(AnswerDecoderTest, LossWeighsAnswersAndCountsAnsweredQuestions) {
  auto forward = MakeForward();
  const ObjectiveOutput output = task->Compute(**forward);
  double expected = 0;
  for (int64_t t = 0; t < 4; ++t) {
    for (const auto& [answer, share] : batch.texts[t].answers)
      expected -= share * Total(TokenLogP(t, answer));
  }
  ASSERT_EQ(output.losses.size(), 1u);
  EXPECT_NEAR(ValueOf(output.losses, "answer"), expected / 3, 1e-6);
  EXPECT_GE(ValueOf(output.metrics, "token_top1"), 0);
}

TEST_F(AnswerDecoderTest, TheTeacherSoftensTheTargets) {
  VqaConfig config = DecoderConfig();
  config.set_alpha(0.4);
  auto teacher = Make(config);
  ASSERT_TRUE(teacher.ok());
  Spread(**teacher);
  (*teacher)->eval();
  auto hard = MakeForward();
  const double without = ValueOf(task->Compute(**hard).losses, "answer");
  auto forward = MakeForward(teacher->get());
  const double with = ValueOf(task->Compute(**forward).losses, "answer");

  Variant variant;
  variant.teacher = true;
  const at::Tensor q = at::softmax(
      (*forward)->Get<at::Tensor>(FusedKey("vqa", kAnswerTokenLogits, variant)),
      -1);
  const at::Tensor log_p = at::log_softmax(
      (*forward)->Get<at::Tensor>(FusedKey("vqa", kAnswerTokenLogits)), -1);
  const at::Tensor soft = -(q * log_p).sum(-1).detach();
  // Answers in the records' order: their tokens with [SEP], and their shares.
  const int64_t lengths[] = {3, 2, 3, 2, 2, 2};
  const double shares[] = {.7, .3, 1, .5, .2, .3};
  double distilled = 0;
  for (int64_t a = 0; a < 6; ++a)
    distilled +=
        shares[a] * soft[a].narrow(0, 0, lengths[a]).sum().item<double>();
  EXPECT_NEAR(with, 0.6 * without + 0.4 * distilled / 3, 1e-6);
  EXPECT_GT(std::abs(with - without), 1e-3);
}

TEST_F(AnswerDecoderTest, GradientEqualsDifferences) {
  auto teacher = Make(DecoderConfig());
  ASSERT_TRUE(teacher.ok());
  Spread(**teacher);
  (*teacher)->eval();
  std::vector<at::Tensor> inputs = task->parameters();
  inputs.push_back(fused);
  const at::Tensor teachers = fused.detach().clone();
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>&) {
        auto forward = MakeForward(teacher->get());
        // The teacher has no gradient, so it must not move with the input.
        Tokens still;
        still.values = teachers;
        still.mask = mask;
        Variant variant;
        variant.teacher = true;
        (*forward)->Set(FusedKey("fusion", kFused, variant), still);
        return SumOf(task->Compute(**forward).losses);
      },
      inputs);
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(AnswerDecoderTest, ABatchWithoutAnswersHasLossAndGradientZero) {
  for (TextRecord& text : batch.texts) text.answers.clear();
  auto forward = MakeForward();
  const at::Tensor loss = SumOf(task->Compute(**forward).losses);
  loss.backward();
  EXPECT_EQ(loss.item<double>(), 0);
  EXPECT_EQ(fused.grad().abs().max().item<double>(), 0);
}

TEST_F(AnswerDecoderTest, TheTaskAnswersWithTheBestOfTheList) {
  FakeEvalContext context({batch});
  for (int64_t t = 0; t < 4; ++t) {
    context.streams[""][0].texts[t].id = absl::StrCat(t + 1);
    context.streams[""][0].texts[t].answers = {{"red", 1.0f}};
  }
  context.Provide("fusion", [this](const ViewKey&, Forward&) -> std::any {
    Tokens tokens;
    tokens.values = fused;
    tokens.mask = mask;
    return tokens;
  });
  context.Provide("vqa", [this](const ViewKey& key, Forward& forward) {
    return task->ComputeView(key, forward);
  });
  c10::NoGradGuard no_grad;
  const auto result = task->Evaluate(context);
  ASSERT_TRUE(result.ok()) << result.status();
  std::string expected = "[";
  for (int64_t t = 0; t < 4; ++t) {
    std::vector<double> totals;
    for (const std::string& answer : kAnswers)
      totals.push_back(Total(TokenLogP(t, answer)));
    const auto best =
        std::max_element(totals.begin(), totals.end()) - totals.begin();
    absl::StrAppend(&expected, t > 0 ? ",\n" : "\n",
                    "{\"question_id\": ", t + 1, ", \"answer\": \"",
                    kAnswers[best], "\"}");
  }
  EXPECT_EQ(*ReadFile(result->files[0]), expected + "\n]\n");
}

TEST(AnswerDecoderConfigTest, RefusesWhatCannotBeBuilt) {
  VqaConfig config = DecoderConfig();
  EXPECT_TRUE(absl::StrContains(Make(config, false).status().message(),
                                "needs a tokenizer"));
  config.mutable_decoder()->set_heads(4);
  EXPECT_TRUE(absl::StrContains(Make(config).status().message(),
                                "decoder.heads 4 does not divide the width 6"));
  config = DecoderConfig();
  config.mutable_decoder()->set_max_positions(3);
  EXPECT_TRUE(
      absl::StrContains(Make(config).status().message(),
                        "\"on red table\" has 3 tokens, expected 1 to 2"));
  config.set_rank_top_k(0);
  config.set_rank_batch_size(0);
  config.set_alpha(1.5);
  config.set_alpha_ramp_steps(-1);
  config.mutable_decoder()->set_depth(0);
  config.set_annotations("a.json");
  config.set_predict_only(true);
  const std::string message(ValidateVqa(config).message());
  for (const char* part :
       {"rank_top_k: got 0", "rank_batch_size: got 0", "alpha: got 1.5",
        "alpha_ramp_steps: got -1", "decoder.depth: got 0", "predict_only: "}) {
    EXPECT_TRUE(absl::StrContains(message, part)) << message;
  }
  EXPECT_NE(VqaContract("vqa", config, {}).Find(kAnswerTokenLogits), nullptr);
}

// As --mode=plan has it without the vocabulary's file.
class SizedTokenizer : public WordTokenizer {
 public:
  SizedTokenizer() : WordTokenizer({"a", "b", "c"}) {}
  std::vector<int64_t> Encode(absl::string_view) const override { return {}; }
};

TEST_F(AnswerDecoderTest, APlanNeedsNeitherAnswersNorVocabulary) {
  const SizedTokenizer tokenizer;
  VqaConfig config = DecoderConfig();
  config.set_answer_list("/nowhere/answers.json");
  config.set_expected_answers(9);
  ContractBook book;
  Contract provided;
  provided.provides = {{kFused, kDim}};
  book.Add("fusion", provided);
  PluginContext context;
  context.instance = "vqa";
  context.book = &book;
  context.tokenizer = &tokenizer;
  context.vocab_size = tokenizer.vocab_size();
  context.planning = true;
  auto made = MakeVqa(config, context);
  ASSERT_TRUE(made.ok()) << made.status();
  (*made)->to(at::kDouble);
  task = *made;
  for (TextRecord& text : batch.texts) text.answers.clear();
  auto forward = MakeForward();
  SumOf(task->Compute(**forward).losses).backward();
  EXPECT_EQ(
      (*forward)->Get<at::Tensor>(FusedKey("vqa", kAnswerTokenLogits)).size(0),
      4);
}

TEST(AnswerDecoderConfigTest, ParametersCanStartFromThePretrainedOnes) {
  const auto task = Make(DecoderConfig());
  ASSERT_TRUE(task.ok()) << task.status();
  const auto parameters = (*task)->named_parameters();
  for (const char* name :
       {"decoder.embeddings.word_embeddings.weight",
        "decoder.layer.0.cross_attn.q.weight", "decoder.head.dense.weight",
        "decoder.head.norm.weight", "decoder.head.decoder.bias"}) {
    EXPECT_TRUE(parameters.contains(name)) << name;
  }
  EXPECT_FALSE(parameters.contains("classifier.weight"));
}

}  // namespace
}  // namespace semvq
