#include "tasks/captioning/captioning.h"

#include <simdjson.h>
#include <torch/types.h>

#include <array>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/eval/caption_metrics.h"
#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "core/nn/testing.h"
#include "core/text/testing.h"
#include "core/util/file.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

constexpr int64_t kDim = 6, kLength = 6;

// Refers to the process-wide tokenizer, which tasks keep a pointer to.
const WordTokenizer& Words() {
  static const auto* words =
      new WordTokenizer({"a", "dog", "cat", "red", "on", "of", "picture"});
  return *words;
}

CaptioningConfig SmallConfig() {
  CaptioningConfig config;
  config.mutable_decoder()->set_depth(1);
  config.mutable_decoder()->set_heads(2);
  config.mutable_decoder()->set_intermediate(5);
  config.mutable_decoder()->set_max_positions(12);
  config.mutable_decoder()->set_dropout(0);
  config.mutable_decoder()->set_attention_dropout(0);
  config.set_max_new_tokens(4);
  return config;
}

absl::StatusOr<std::shared_ptr<Task>> Make(const CaptioningConfig& config,
                                           bool with_tokenizer = true) {
  ContractBook book;
  book.max_tokens = kLength;
  Contract visual;
  visual.provides = {{kTokens, kDim}};
  book.Add("visual", visual);
  PluginContext context;
  context.instance = "captions";
  context.book = &book;
  if (with_tokenizer) context.tokenizer = &Words();
  torch::manual_seed(2);  // Every call gives the same parameters.
  absl::StatusOr<std::shared_ptr<Task>> task = MakeCaptioning(config, context);
  if (!task.ok()) return task;
  (*task)->to(at::kDouble);
  (*task)->eval();
  c10::NoGradGuard no_grad;
  for (at::Tensor p : (*task)->parameters()) p.add_(at::randn_like(p), 0.6);
  return task;
}

// Images "1", "2", ... with tokens that depend on the id alone.
Batch ImageBatch(const std::vector<std::string>& ids, int64_t texts_each = 1) {
  TestBatchOptions options;
  options.images = static_cast<int64_t>(ids.size());
  options.texts_per_image = texts_each;
  options.length = kLength;
  options.vocab = Words().vocab_size();
  Batch batch = TestBatch(options);
  batch.image_ids = ids;
  for (size_t t = 0; t < batch.texts.size(); ++t)
    batch.texts[t].text = t % 2 == 0 ? "A red dog." : "cat on a dog";
  return batch;
}

std::any VisualTokens(const Batch& batch) {
  std::vector<at::Tensor> rows;
  for (const std::string& id : batch.image_ids) {
    torch::manual_seed(
        static_cast<int64_t>(std::hash<std::string>()(id) % 997));
    rows.push_back(at::randn({3, kDim}, at::kDouble));
  }
  Tokens tokens;
  tokens.values = at::stack(rows);
  return tokens;
}

// ---- The objective.

struct Objective {
  explicit Objective(const CaptioningConfig& config, int64_t texts_each = 1)
      : task(*Make(config)), batch(ImageBatch({"1", "2"}, texts_each)) {
    torch::manual_seed(9);
    visual = at::randn({2, 3, kDim}, at::kDouble).set_requires_grad(true);
  }

  ObjectiveOutput Compute() {
    TestForward forward(batch);
    FakeProvider provider([&](const ViewKey&, Forward&) -> std::any {
      Tokens tokens;
      tokens.values = visual;
      return tokens;
    });
    forward.student = {{"visual", &provider}, {"captions", task.get()}};
    return task->Compute(*forward);
  }
  double Loss() { return ValueOf(Compute().losses, "caption"); }

  std::shared_ptr<Task> task;
  Batch batch;
  at::Tensor visual;
};

TEST(CaptioningTest, GradientEqualsDifferences) {
  CaptioningConfig config = SmallConfig();
  config.set_prompt("a picture of");
  config.set_label_smoothing(0.1);
  Objective o(config, 2);
  std::vector<at::Tensor> inputs = o.task->parameters();
  inputs.push_back(o.visual);
  const absl::Status status = NumericGradientCheck(
      [&](const std::vector<at::Tensor>&) { return SumOf(o.Compute().losses); },
      inputs);
  EXPECT_TRUE(status.ok()) << status;
}

TEST(CaptioningTest, LossIsTheMeanOverTheWordsAndTheEnd) {
  // What a text adds does not depend on the others: the mean of the batch is
  // that of its texts alone, weighed by their tokens.
  Objective both(SmallConfig());
  double sum = 0;
  int64_t tokens = 0;
  const at::Tensor visual = both.visual;
  for (int64_t t = 0; t < 2; ++t) {
    Objective one(SmallConfig());
    one.batch = ImageBatch({"1"});
    one.batch.text_ids = both.batch.text_ids.narrow(0, t, 1);
    one.batch.text_mask = both.batch.text_mask.narrow(0, t, 1);
    one.visual = visual.narrow(0, t, 1);
    const int64_t n = one.batch.text_mask.sum().item<int64_t>() - 1;
    sum += one.Loss() * static_cast<double>(n);
    tokens += n;
    // Padding is not read: other ids there change nothing.
    const double before = one.Loss();
    one.batch.text_ids = at::where(one.batch.text_mask, one.batch.text_ids,
                                   at::full_like(one.batch.text_ids, 7));
    EXPECT_EQ(one.Loss(), before);
  }
  EXPECT_NEAR(both.Loss(), sum / static_cast<double>(tokens), 1e-9);
}

TEST(CaptioningTest, EachTextReadsItsOwnImage) {
  Objective o(SmallConfig(), 2);
  TestForward forward(o.batch);
  SumOf(o.Compute().losses).backward();
  EXPECT_GT(o.visual.grad()[0].abs().max().item<double>(), 0);
  o.visual.mutable_grad() = at::Tensor();
  // Texts 2 and 3 are the second image's; the first image is read by no other.
  o.batch.text_mask.narrow(0, 0, 2).zero_();
  SumOf(o.Compute().losses).backward();
  EXPECT_EQ(o.visual.grad()[0].abs().max().item<double>(), 0);
  EXPECT_GT(o.visual.grad()[1].abs().max().item<double>(), 0);
}

TEST(CaptioningTest, ThePromptIsReadAndNotPredicted) {
  CaptioningConfig config = SmallConfig();
  config.set_prompt("a picture of");
  const std::vector<int64_t> prompt = Words().Encode(config.prompt());
  Objective prompted(config);
  prompted.batch = ImageBatch({"1"});
  prompted.visual = prompted.visual.narrow(0, 0, 1);
  const at::Tensor& ids = prompted.batch.text_ids;
  const at::Tensor& mask = prompted.batch.text_mask;
  const auto n = static_cast<double>(mask.sum().item<int64_t>() - 1);

  // The prompt put before the text by hand, in the loss; then the prompt alone,
  // which reads no text after it.
  Objective plain(SmallConfig());
  plain.visual = prompted.visual;
  plain.batch = prompted.batch;
  plain.batch.text_ids = at::cat(
      {ids.narrow(1, 0, 1), torch::tensor(prompt, at::kLong).view({1, 3}),
       ids.narrow(1, 1, kLength - 1)},
      1);
  plain.batch.text_mask = at::cat({at::ones({1, 3}, at::kBool), mask}, 1);
  const double all = plain.Loss();
  plain.batch.text_mask = at::arange(kLength + 3).lt(4).view({1, -1});
  const double alone = plain.Loss();
  EXPECT_NEAR(prompted.Loss() * n, all * (n + 3) - alone * 3, 1e-9);
}

// ---- Evaluation.

struct Written {
  std::map<std::string, std::string> captions;
  TaskResult result;
};

absl::StatusOr<Written> Evaluate(const CaptioningConfig& config,
                                 FakeEvalContext& context) {
  auto task = Make(config);
  if (!task.ok()) return task.status();
  context.Provide("visual", [](const ViewKey&, Forward& f) -> std::any {
    return VisualTokens(f.batch());
  });
  if (config.written_by().empty()) {
    context.Provide("captions", [&](const ViewKey& key, Forward& f) {
      return (*task)->ComputeView(key, f);
    });
  }
  c10::NoGradGuard no_grad;
  auto result = (*task)->Evaluate(context);
  if (!result.ok()) return result.status();
  Written written;
  written.result = *result;
  simdjson::dom::parser parser;
  simdjson::dom::array list;
  EXPECT_EQ(parser.load(result->files[0]).get(list), simdjson::SUCCESS);
  for (const simdjson::dom::element& item : list) {
    int64_t number = 0;
    std::string_view id, caption;
    EXPECT_EQ(item["caption"].get(caption), simdjson::SUCCESS);
    const bool is_number = item["image_id"].get(number) == simdjson::SUCCESS;
    if (!is_number) {
      EXPECT_EQ(item["image_id"].get(id), simdjson::SUCCESS);
    }
    written.captions[is_number ? absl::StrCat(number) : std::string(id)] =
        std::string(caption);
  }
  return written;
}

const std::vector<std::string> kIds = {"1", "2", "3", "4", "5", "6", "7"};

TEST(CaptioningTest, TheResultFileReadsBackAndScoresToTheSameNumbers) {
  FakeEvalContext context({ImageBatch({kIds.begin(), kIds.end()}, 2)});
  context.skipped_samples = 3;
  const auto written = Evaluate(SmallConfig(), context);
  ASSERT_TRUE(written.ok()) << written.status();
  ASSERT_EQ(written->captions.size(), kIds.size());
  EXPECT_EQ(written->result.files[0], context.folder + "/captions_result.json");
  std::vector<CaptionCase> corpus;
  for (const auto& [id, caption] : written->captions)
    corpus.push_back({caption, {"a red dog", "cat on a dog"}});
  const std::array<double, 4> bleu = CorpusBleu(corpus);
  for (int n = 0; n < 4; ++n) {
    EXPECT_NEAR(MetricOf(written->result, absl::StrCat("BLEU-", n + 1)).value,
                100 * bleu[n], 1e-9);
  }
  EXPECT_GT(bleu[0], 0);
  EXPECT_NEAR(MetricOf(written->result, "CIDEr").value,
              100 * Cider(corpus).mean, 1e-9);
  EXPECT_EQ(written->result.note,
            "7 images, 14 references; 3 bad samples are left out");
}

TEST(CaptioningTest, BatchesDoNotMatterAndItRepeats) {
  for (const int64_t beams : {1, 3}) {
    CaptioningConfig config = SmallConfig();
    config.set_beam_size(beams);
    config.set_prompt("a picture of");
    FakeEvalContext whole({ImageBatch(kIds)});
    const auto together = Evaluate(config, whole);
    ASSERT_TRUE(together.ok()) << together.status();
    FakeEvalContext split({ImageBatch({"1", "2", "3"}), ImageBatch({"4"}),
                           ImageBatch({"5", "6", "7"})});
    const auto apart = Evaluate(config, split);
    ASSERT_TRUE(apart.ok()) << apart.status();
    EXPECT_EQ(together->captions, apart->captions);
    for (const auto& [id, caption] : together->captions) {
      EXPECT_FALSE(absl::StrContains(caption, "picture of")) << caption;
      EXPECT_FALSE(absl::StrContains(caption, "[")) << caption;
    }
  }
}

TEST(CaptioningTest, LengthsAreKept) {
  CaptioningConfig config = SmallConfig();
  config.set_max_new_tokens(3);
  config.set_min_new_tokens(2);
  FakeEvalContext context({ImageBatch(kIds)});
  const auto written = Evaluate(config, context);
  ASSERT_TRUE(written.ok()) << written.status();
  for (const auto& [id, caption] : written->captions) {
    const size_t words = Words().Encode(caption).size();
    EXPECT_GE(words, 2u) << caption;
    EXPECT_LE(words, 3u) << caption;
  }
}

std::string References(const std::vector<std::string>& ids) {
  std::string images, captions;
  for (const std::string& id : ids) {
    absl::StrAppend(&images, images.empty() ? "" : ",", "{\"id\": ", id, "}");
    absl::StrAppend(&captions, captions.empty() ? "" : ",", "{\"id\": ", id,
                    ", \"image_id\": ", id, ", \"caption\": \"A dog!\"}");
  }
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string path =
      JoinPath(testing::TempDir(), absl::StrCat(test->name(), ".json"));
  EXPECT_TRUE(AtomicWriteFile(
                  path, absl::StrCat("{\"images\": [", images,
                                     "], \"annotations\": [", captions, "]}"))
                  .ok());
  return path;
}

TEST(CaptioningTest, ReferencesOfAFileMustBeThoseOfTheImages) {
  CaptioningConfig config = SmallConfig();
  config.set_references(References({"1", "2", "42"}));
  FakeEvalContext context({ImageBatch({"1", "2"})});
  context.skipped_samples = 1;
  absl::Status status = Evaluate(config, context).status();
  EXPECT_TRUE(absl::StrContains(status.message(),
                                "1 of 3 images with references are not in the "
                                "stream (1 bad samples were skipped)"))
      << status;
  EXPECT_FALSE(PathExists(context.folder + "/captions_result.json"));
  config.set_partial(true);
  const auto written = Evaluate(config, context);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_TRUE(absl::StrContains(written->result.note, "2 references; 1 of 3"));

  FakeEvalContext unknown({ImageBatch({"1", "9"})});
  status = Evaluate(config, unknown).status();
  EXPECT_TRUE(absl::StrContains(status.message(),
                                "image 9 has no caption to compare with in"))
      << status;

  config.set_partial(false);
  config.set_id_from_name(true);
  FakeEvalContext named(
      {ImageBatch({"val/COCO_val2014_000000000042.jpg", "1.jpg", "x_02"})});
  EXPECT_EQ(Evaluate(config, named)->captions.count("42"), 1u);
  FakeEvalContext unnamed({ImageBatch({"dog.jpg"})});
  status = Evaluate(config, unnamed).status();
  EXPECT_TRUE(absl::StrContains(status.message(),
                                "\"dog.jpg\" does not end with a number"))
      << status;
}

TEST(CaptioningTest, AnImageComesOnce) {
  FakeEvalContext context({ImageBatch({"1"}), ImageBatch({"1"})});
  EXPECT_TRUE(
      absl::StrContains(Evaluate(SmallConfig(), context).status().message(),
                        "image 1 comes twice in the stream"));
  FakeEvalContext empty;
  EXPECT_EQ(Evaluate(SmallConfig(), empty).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(CaptioningTest, PredictionsAloneNeedNoReferences) {
  CaptioningConfig config = SmallConfig();
  config.set_predict_only(true);
  FakeEvalContext context({ImageBatch(kIds)});
  const auto written = Evaluate(config, context);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(MetricOf(written->result, "images captioned").value, 7);
  EXPECT_EQ(written->result.metrics.size(), 1u);
  EXPECT_EQ(written->captions.size(), 7u);
}

TEST(CaptioningTest, AnotherInstanceMayWrite) {
  CaptioningConfig config = SmallConfig();
  config.set_written_by("trained");
  FakeEvalContext context({ImageBatch({"1", "2"})});
  context.Provide("trained", [](const ViewKey& key, Forward&) -> std::any {
    EXPECT_EQ(ToString(key), "trained/captions");
    return std::vector<std::string>{"a dog", "a \"cat\""};
  });
  const auto written = Evaluate(config, context);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->captions.at("2"), "a \"cat\"");
  auto task = Make(config);
  EXPECT_TRUE((*task)->parameters().empty());
  EXPECT_FALSE((*task)->can_fine_tune());
  const Contract contract = CaptioningContract("captions", config, {});
  EXPECT_EQ(contract.needs[0].instance, "trained");
  EXPECT_TRUE(contract.provides.empty());
}

TEST(CaptioningTest, RefusesWhatCannotBeBuilt) {
  EXPECT_TRUE(absl::StrContains(Make(SmallConfig(), false).status().message(),
                                "needs a tokenizer"));
  CaptioningConfig config = SmallConfig();
  config.set_prompt("a picture of a dog on a cat");
  EXPECT_TRUE(absl::StrContains(Make(config).status().message(),
                                "the 8 tokens of the prompt"));
  config.set_beam_size(0);
  config.set_max_new_tokens(0);
  config.set_min_new_tokens(-1);
  config.set_length_penalty(-1);
  config.set_label_smoothing(1);
  config.set_visual("");
  config.mutable_decoder()->set_heads(0);
  config.set_references("x");
  config.set_predict_only(true);
  const std::string message(ValidateCaptioning(config).message());
  for (const char* part :
       {"beam_size: got 0", "max_new_tokens: got 0", "min_new_tokens: got -1",
        "length_penalty: got -1", "label_smoothing: got 1",
        "visual: ", "decoder.heads: got 0", "predict_only: "}) {
    EXPECT_TRUE(absl::StrContains(message, part)) << message;
  }
  const Contract contract = CaptioningContract("captions", config, {});
  ASSERT_EQ(contract.files.size(), 1u);
  EXPECT_EQ(contract.files[0].field, "references");
}

}  // namespace
}  // namespace semvq
