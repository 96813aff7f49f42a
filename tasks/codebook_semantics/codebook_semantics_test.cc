#include "tasks/codebook_semantics/codebook_semantics.h"

#include <simdjson.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing_eval.h"
#include "core/random/stream.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

const char* const kThings[] = {"cat", "dog", "sun", "bus"};
constexpr int64_t kImages = 160, kTokensPerImage = 4;

// Image i shows thing i % 4 in noise, or, with `colours`, in one colour a
// thing.
std::vector<Batch> Batches(bool colours = false) {
  torch::manual_seed(1);
  std::vector<Batch> batches;
  for (int64_t first = 0; first < kImages; first += 32) {
    Batch batch;
    batch.images = at::randn({32, 1, 3, 4, 4});
    for (int64_t i = 0; i < 32; ++i) {
      const char* thing = kThings[(first + i) % 4];
      if (colours) batch.images[i].fill_(static_cast<double>((first + i) % 4));
      batch.sample_numbers.push_back(first + i);
      batch.texts.emplace_back();
      batch.texts.back().text =
          absl::StrCat("The ", thing, first + i == 9 ? " unicorn." : ".");
      batch.texts.emplace_back();
      batch.texts.back().text = absl::StrCat("the, ", thing);
    }
    batch.text_ids = at::zeros({64, 3}, at::kLong);
    batch.text_mask = at::ones({64, 3}, at::kBool);
    batch.text_to_image = at::arange(64, at::kLong).div(2, "floor");
    batches.push_back(batch);
  }
  return batches;
}

// Codes [G] of a token.
using Coder = std::function<std::vector<int64_t>(int64_t image, int64_t token)>;

CodebookSemanticsConfig WithStopWord() {
  CodebookSemanticsConfig config;
  config.add_stop_words("the");
  return config;
}

absl::StatusOr<TaskResult> Evaluate(
    FakeEvalContext& context, std::vector<int64_t> sizes, const Coder& coder,
    const CodebookSemanticsConfig& config = WithStopWord()) {
  const auto groups = static_cast<int64_t>(sizes.size());
  context.Provide("codebook", [&](const ViewKey& key, Forward& f) -> std::any {
    EXPECT_EQ(ToString(key), "codebook/quantized");
    QuantizedTokens out;
    out.quantized.codes =
        at::empty({f.batch().num_images(), kTokensPerImage, groups}, at::kLong);
    for (int64_t i = 0; i < f.batch().num_images(); ++i) {
      for (int64_t n = 0; n < kTokensPerImage; ++n) {
        const std::vector<int64_t> codes =
            coder(f.batch().sample_numbers[i], n);
        for (int64_t g = 0; g < groups; ++g) {
          out.quantized.codes[i][n][g] = codes[g];
        }
      }
    }
    return out;
  });
  ContractBook book;
  Contract quantizer;
  quantizer.codes.codes_per_group = std::move(sizes);
  book.Add("codebook", quantizer);
  PluginContext plugin;
  plugin.instance = "meaning";
  plugin.book = &book;
  absl::StatusOr<std::shared_ptr<Task>> task =
      MakeCodebookSemantics(config, plugin);
  if (!task.ok()) return task.status();
  return (*task)->Evaluate(context);
}

const Coder kThingCode = [](int64_t image, int64_t) {
  return std::vector<int64_t>{image % 4};
};
const Coder kRandomCode = [](int64_t image, int64_t token) {
  return std::vector<int64_t>{RandomStream(5, "codes", image, token).Below(8)};
};

const TaskMetric& Nmi(const TaskResult& result) {
  return MetricOf(result, "NMI of codes and words");
}
const TaskMetric& PixelNmi(const TaskResult& result) {
  return MetricOf(result, "control: NMI of k-means on pixels");
}

TEST(CodebookSemanticsTest, CodesThatEqualWordsAreFullyInformative) {
  FakeEvalContext context(Batches());
  context.skipped_samples = 3;
  const auto result = Evaluate(context, {8}, kThingCode);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(Nmi(*result).value, 1, 1e-5);
  EXPECT_LT(Nmi(*result).chance, 0.1);
  EXPECT_TRUE(Nmi(*result).headline);
  EXPECT_EQ(MetricOf(*result, "codes used").value, 50);  // Four of eight.
  EXPECT_EQ(result->note,
            "160 images, 4 words, 8 codes; chance: captions permuted; 3 bad "
            "samples are left out");
}

TEST(CodebookSemanticsTest, RandomCodesSayAsMuchAsPermutedCaptions) {
  FakeEvalContext context(Batches());
  const auto result = Evaluate(context, {8}, kRandomCode);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LT(Nmi(*result).value, 0.02);
  EXPECT_NEAR(Nmi(*result).value, Nmi(*result).chance, 0.01);
  EXPECT_EQ(MetricOf(*result, "codes used").value, 100);
}

TEST(CodebookSemanticsTest, ThePixelControlSeesColoursAndNotNoise) {
  FakeEvalContext colours(Batches(/*colours=*/true)), noise(Batches());
  const auto seen = Evaluate(colours, {8}, kRandomCode);
  ASSERT_TRUE(seen.ok()) << seen.status();
  EXPECT_NEAR(PixelNmi(*seen).value, 1, 1e-5);
  EXPECT_LT(PixelNmi(*seen).chance, 0.1);
  const auto unseen = Evaluate(noise, {8}, kThingCode);
  ASSERT_TRUE(unseen.ok()) << unseen.status();
  EXPECT_NEAR(PixelNmi(*unseen).value, PixelNmi(*unseen).chance, 0.01);
}

TEST(CodebookSemanticsTest, TheSameSeedGivesTheSameNumbers) {
  FakeEvalContext a(Batches()), b(Batches());
  const auto first = Evaluate(a, {8}, kRandomCode);
  const auto second = Evaluate(b, {8}, kRandomCode);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(Nmi(*first).chance, Nmi(*second).chance);
  EXPECT_EQ(PixelNmi(*first).value, PixelNmi(*second).value);
}

// Neither group alone tells the four things apart.
TEST(CodebookSemanticsTest, GroupsTogetherAreOneCode) {
  const Coder both = [](int64_t image, int64_t) {
    return std::vector<int64_t>{image % 4 / 2, image % 2};
  };
  const Coder second_constant = [](int64_t image, int64_t) {
    return std::vector<int64_t>{image % 4 / 2, 1};
  };
  FakeEvalContext context(Batches());
  const auto together = Evaluate(context, {2, 3}, both);
  ASSERT_TRUE(together.ok()) << together.status();
  EXPECT_NEAR(Nmi(*together).value, 1, 1e-5);
  EXPECT_NEAR(MetricOf(*together, "codes used").value, 100 * 4 / 6.0, 1e-9);
  const auto half = Evaluate(context, {2, 3}, second_constant);
  ASSERT_TRUE(half.ok()) << half.status();
  // One of two bits: I / sqrt(1 bit * 2 bits).
  EXPECT_NEAR(Nmi(*half).value, 1 / std::sqrt(2.0), 1e-5);
}

TEST(CodebookSemanticsTest, TooManyCombinationsFallBackToTheFirstGroups) {
  const Coder coder = [](int64_t image, int64_t) {
    return std::vector<int64_t>{image % 4, 0, 299};
  };
  FakeEvalContext context(Batches());
  const auto result = Evaluate(context, {4, 2, 60000}, coder);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(Nmi(*result).value, 1, 1e-5);
  EXPECT_TRUE(absl::StrContains(result->note, "the first 2 code groups only"))
      << result->note;
}

TEST(CodebookSemanticsTest, TheControlHasFourPatchesAClusterAtLeast) {
  FakeEvalContext context(Batches());
  const auto result = Evaluate(context, {1000}, kThingCode);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(Nmi(*result).value, 1, 1e-5);
  EXPECT_TRUE(absl::StrContains(result->note, "has 160 clusters"))
      << result->note;
}

TEST(CodebookSemanticsTest, PositionsWithoutCodeAreLeftOut) {
  const Coder coder = [](int64_t image, int64_t token) {
    return std::vector<int64_t>{token == 2 ? -1 : image % 4 / 2,
                                token == 2 ? -1 : image % 2};
  };
  FakeEvalContext context(Batches());
  const auto result = Evaluate(context, {2, 2}, coder);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(Nmi(*result).value, 1, 1e-5);
}

TEST(CodebookSemanticsTest, TopWordsNameEachCode) {
  FakeEvalContext context(Batches());
  CodebookSemanticsConfig config;  // "the" stays in, and says nothing.
  config.set_top_words(2);
  config.set_top_codes(3);
  // Thing 0 in half of the tokens of every image, so that code 4 is the most
  // frequent one and tells nothing.
  const Coder coder = [](int64_t image, int64_t token) {
    return std::vector<int64_t>{token < 2 ? 4 : image % 4};
  };
  const auto result = Evaluate(context, {8}, coder, config);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->files.size(), 1u);
  EXPECT_EQ(result->files[0], context.folder + "/meaning_top_words.json");

  simdjson::dom::parser parser;
  simdjson::dom::array rows;
  ASSERT_EQ(parser.load(result->files[0]).get(rows), simdjson::SUCCESS);
  ASSERT_EQ(rows.size(), 3u);
  int named = 0;
  double last = 1;
  for (simdjson::dom::element row : rows) {
    int64_t code = -1;
    double share = 0;
    simdjson::dom::array words;
    std::string_view best;
    ASSERT_EQ(row["code"].get(code), simdjson::SUCCESS);
    ASSERT_EQ(row["share"].get(share), simdjson::SUCCESS);
    ASSERT_EQ(row["words"].get(words), simdjson::SUCCESS);
    EXPECT_EQ(words.size(), 2u);
    EXPECT_LE(share, last + 1e-6);
    last = share;
    if (code == 4) {
      EXPECT_NEAR(share, 0.5, 1e-5);
      continue;
    }
    EXPECT_NEAR(share, 0.125, 1e-5);
    ASSERT_EQ(words.at(0).get(best), simdjson::SUCCESS);
    EXPECT_EQ(best, kThings[code]);
    ++named;
  }
  EXPECT_EQ(named, 2);
}

TEST(CodebookSemanticsTest, RareWordsAreLeftOutAndNoneIsAnError) {
  FakeEvalContext context(Batches());
  CodebookSemanticsConfig config = WithStopWord();
  config.set_min_word_count(1);
  auto result = Evaluate(context, {8}, kThingCode, config);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(absl::StrContains(result->note, "160 images, 5 words"))
      << result->note;
  config.set_min_word_count(81);  // Every thing is in 80 captions.
  result = Evaluate(context, {8}, kThingCode, config);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(result.status().message(),
                                "no word occurs in 81 captions"))
      << result.status();
  FakeEvalContext empty;
  EXPECT_FALSE(Evaluate(empty, {8}, kThingCode).ok());
}

TEST(CodebookSemanticsTest, AQuantizerWithoutCodesIsAnError) {
  FakeEvalContext context(Batches());
  EXPECT_EQ(Evaluate(context, {}, kThingCode).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CodebookSemanticsTest, Validates) {
  CodebookSemanticsConfig config;
  EXPECT_TRUE(ValidateCodebookSemantics(config).ok());
  const Contract contract = CodebookSemanticsContract("c", config, {});
  ASSERT_EQ(contract.needs.size(), 1u);
  EXPECT_TRUE(contract.needs[0].needs_codes);
  config.set_quantizer("");
  config.set_min_word_count(0);
  config.set_permutations(0);
  config.set_kmeans_iterations(-1);
  config.set_top_words(0);
  config.set_top_codes(-7);
  const std::string message(ValidateCodebookSemantics(config).message());
  for (const char* part :
       {"quantizer: ", "min_word_count: got 0", "permutations: got 0",
        "kmeans_iterations: got -1", "top_words: got 0", "top_codes: got -7"}) {
    EXPECT_TRUE(absl::StrContains(message, part)) << message;
  }
}

}  // namespace
}  // namespace semvq
