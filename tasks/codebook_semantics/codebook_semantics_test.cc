#include "tasks/codebook_semantics/codebook_semantics.h"

#include <simdjson.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/forward/testing_eval.h"
#include "core/random/stream.h"
#include "gtest/gtest.h"
#include "tasks/codebook_semantics/patches.h"
#include "tasks/codebook_semantics/statistics.h"

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
  EXPECT_TRUE(absl::StartsWith(
      result->note,
      "160 images, 4 words, 8 codes; chance: captions permuted; "))
      << result->note;
  EXPECT_TRUE(absl::EndsWith(
      result->note, " images are held out; 3 bad samples are left out"))
      << result->note;
  // Everything is pure and known, and nothing of it by chance.
  const TaskMetric& purity = MetricOf(*result, "purity of codes and words");
  EXPECT_NEAR(purity.value, 100, 1e-3);
  EXPECT_LT(purity.chance, 45);
  const TaskMetric& known = MetricOf(*result, "held-out word known from codes");
  EXPECT_EQ(known.value, 100);
  EXPECT_LT(known.chance, 50);
  const TaskMetric& bits =
      MetricOf(*result, "held-out bits a word given codes");
  EXPECT_LT(bits.value, 0.05);
  EXPECT_NEAR(bits.chance, 2, 0.1);  // Four words, equally often.
}

TEST(CodebookSemanticsTest, RandomCodesSayAsMuchAsPermutedCaptions) {
  FakeEvalContext context(Batches());
  const auto result = Evaluate(context, {8}, kRandomCode);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LT(Nmi(*result).value, 0.02);
  EXPECT_NEAR(Nmi(*result).value, Nmi(*result).chance, 0.01);
  EXPECT_EQ(MetricOf(*result, "codes used").value, 100);
  const TaskMetric& purity = MetricOf(*result, "purity of codes and words");
  EXPECT_NEAR(purity.value, purity.chance, 5);
  const TaskMetric& bits =
      MetricOf(*result, "held-out bits a word given codes");
  EXPECT_NEAR(bits.value, bits.chance, 0.15);
  EXPECT_NEAR(bits.value, 2, 0.15);
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
  ASSERT_EQ(result->files.size(), 2u);
  EXPECT_EQ(result->files[0], context.folder + "/meaning_top_words.json");
  EXPECT_EQ(result->files[1], context.folder + "/meaning_codes.png");
  // Five codes, a row each, of eight pieces.
  const cv::Mat sheet = cv::imread(result->files[1]);
  EXPECT_EQ(sheet.rows, 4 + 5 * 76);
  EXPECT_EQ(sheet.cols, 250 + 8 * 76);

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

// Labels are what the texts' answers say, whatever their words.
TEST(CodebookSemanticsTest, CodesAreComparedWithLabelsWhenAsked) {
  std::vector<Batch> batches = Batches();
  for (Batch& batch : batches) {
    for (size_t t = 0; t < batch.texts.size(); ++t) {
      const int64_t image = batch.sample_numbers[t / 2];
      batch.texts[t].answers = {{image % 2 == 0 ? "even" : "odd", 1.0f}};
    }
  }
  CodebookSemanticsConfig config;
  config.set_meaning(CodebookSemanticsConfig::LABELS);
  FakeEvalContext context(batches);
  const Coder parity = [](int64_t image, int64_t) {
    return std::vector<int64_t>{image % 2};
  };
  const auto result = Evaluate(context, {8}, parity, config);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(MetricOf(*result, "NMI of codes and labels").value, 1, 1e-6);
  EXPECT_EQ(MetricOf(*result, "held-out label known from codes").value, 100);
  EXPECT_TRUE(absl::StartsWith(result->note, "160 images, 2 labels"));
}

// A frozen projection's codes are not in the space of the features.
TEST(CodebookSemanticsTest, VectorsOfAnotherDimensionDoNoHarm) {
  FakeEvalContext context(Batches());
  for (const int64_t dim : {6, 4}) {
    context.Provide("codebook", [dim](const ViewKey&, Forward& f) -> std::any {
      QuantizedTokens out;
      const int64_t n = f.batch().num_images();
      out.quantized.codes = at::zeros({n, kTokensPerImage, 1}, at::kLong);
      out.quantized.vectors = at::zeros({n, kTokensPerImage, 4});
      out.features = at::ones({n, kTokensPerImage, dim});
      return out;
    });
    ContractBook book;
    Contract quantizer;
    quantizer.codes.codes_per_group = {8};
    book.Add("codebook", quantizer);
    PluginContext plugin;
    plugin.instance = "meaning";
    plugin.book = &book;
    auto task = MakeCodebookSemantics(WithStopWord(), plugin);
    ASSERT_TRUE(task.ok()) << task.status();
    const auto result = (*task)->Evaluate(context);
    EXPECT_TRUE(result.ok()) << result.status();
  }
}

TEST(CodebookSemanticsTest, OnlyTheMostFrequentWordsCount) {
  FakeEvalContext context(Batches());
  CodebookSemanticsConfig config;  // "the" is in every caption.
  config.set_max_words(3);
  const auto result = Evaluate(context, {8}, kThingCode, config);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(absl::StartsWith(result->note, "160 images, 3 words"));
}

TEST(StatisticsTest, JointSharesEqualTheProductOfTheTables) {
  RandomStream random(3, "bags");
  Bags a, b;
  at::Tensor x = at::zeros({40, 7}), y = at::zeros({40, 5});
  for (int64_t i = 0; i < 40; ++i) {
    std::vector<int32_t> left, right;
    const int64_t n = 1 + random.Below(9), m = random.Below(4);
    for (int64_t k = 0; k < n; ++k) {
      left.push_back(static_cast<int32_t>(random.Below(7)));
      x[i][left.back()] += 1.0f / static_cast<float>(n);
    }
    for (int64_t k = 0; k < m; ++k) {
      right.push_back(static_cast<int32_t>(random.Below(5)));
      y[i][right.back()] += 1.0f / static_cast<float>(m);
    }
    a.Add(left);
    b.Add(right);
  }
  a.items = 7;
  b.items = 5;
  std::vector<int64_t> order(40);
  for (int64_t i = 0; i < 40; ++i) order[i] = (i * 7 + 3) % 40;
  const at::Tensor dealt = y.index_select(0, torch::tensor(order, at::kLong));
  EXPECT_TRUE(at::allclose(JointShares(a, b, order),
                           at::matmul(x.t(), dealt).to(at::kDouble), 1e-5,
                           1e-6));
}

TEST(StatisticsTest, CompactKeepsWhatOccurs) {
  Bags bags;
  bags.Add({9, 4, 9});
  bags.Add({});
  bags.Add({70});
  EXPECT_EQ(bags.Compact(), (std::vector<int64_t>{4, 9, 70}));
  EXPECT_EQ(bags.item, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(bags.begin, (std::vector<int64_t>{0, 2, 2, 3}));
  EXPECT_NEAR(bags.share[1], 2.0 / 3, 1e-6);
  EXPECT_EQ(bags.items, 3);
}

// The formula written out on the same split, with doubles and no matrices.
TEST(StatisticsTest, PredictionEqualsNaiveBayesByHand) {
  RandomStream random(5, "words");
  Bags codes, words;
  std::vector<std::vector<int32_t>> of_codes, of_words;
  for (int64_t i = 0; i < 200; ++i) {
    const auto topic = static_cast<int32_t>(random.Below(3));
    std::vector<int32_t> c, w = {topic};
    for (int n = 0; n < 4; ++n) {
      c.push_back(random.Bernoulli(0.6)
                      ? topic
                      : static_cast<int32_t>(random.Below(5)));
    }
    if (random.Bernoulli(0.3)) w.push_back(3);
    of_codes.push_back(c);
    of_words.push_back(w);
    codes.Add(c);
    words.Add(w);
  }
  codes.items = 5;
  words.items = 4;
  std::vector<int64_t> order(200);
  for (int64_t i = 0; i < 200; ++i) order[i] = i;
  const Prediction found = PredictWords(codes, words, order, 9);

  double joint[5][4] = {}, total = 0;
  std::vector<int> part(200);
  for (int64_t i = 0; i < 200; ++i) {
    const int64_t fifth =
        RandomStream(9, "codebook_semantics/split", i).Below(5);
    part[i] = fifth < 3 ? 0 : fifth == 3 ? 1 : 2;
    if (part[i] != 0) continue;
    ++total;
    for (const int32_t c : of_codes[i]) {
      for (const int32_t w : of_words[i]) {
        joint[c][w] += 0.25 / static_cast<double>(of_words[i].size());
      }
    }
  }
  double of_code[5] = {}, of_word[4] = {};
  for (int c = 0; c < 5; ++c) {
    for (int w = 0; w < 4; ++w) {
      of_code[c] += joint[c][w];
      of_word[w] += joint[c][w];
    }
  }
  const auto measure = [&](int wanted, double s) {
    double bits = 0, hits = 0, images = 0;
    for (int64_t i = 0; i < 200; ++i) {
      if (part[i] != wanted) continue;
      double p[4], sum = 0;
      for (int w = 0; w < 4; ++w) {
        p[w] = (of_word[w] + 0.25) / (total + 1);
        for (const int32_t c : of_codes[i]) {
          const double pc = (of_code[c] + 0.2) / (total + 1);
          p[w] *= std::pow((joint[c][w] + pc) / (of_word[w] + 1) / pc, s / 4);
        }
        sum += p[w];
      }
      for (const int32_t w : of_words[i]) {
        bits -= std::log2(p[w] / sum) / static_cast<double>(of_words[i].size());
      }
      const auto best = static_cast<int32_t>(std::max_element(p, p + 4) - p);
      hits += std::count(of_words[i].begin(), of_words[i].end(), best) > 0;
      ++images;
    }
    return Prediction{bits / images, 100 * hits / images,
                      static_cast<int64_t>(images)};
  };
  double best = 0;
  for (double s = 0.125; s <= 256; s *= 2) {
    if (measure(1, s).bits < measure(1, best).bits) best = s;
  }
  const Prediction expected = measure(2, best);
  EXPECT_GT(best, 0);
  EXPECT_EQ(found.images, expected.images);
  EXPECT_NEAR(found.bits, expected.bits, 1e-4);
  EXPECT_NEAR(found.accuracy, expected.accuracy, 1e-9);
  EXPECT_GT(found.accuracy, 60);
}

TEST(PatchesTest, AreCutRowByRow) {
  const at::Tensor image =
      at::arange(2 * 3 * 4 * 6, at::kFloat).view({2, 3, 4, 6});
  PatchGrid grid = GridOf(image, 4);
  EXPECT_EQ(grid.rows, 2);
  EXPECT_EQ(grid.width, 3);
  const at::Tensor patches = CutPatches(image, grid);
  EXPECT_EQ(patches.sizes().vec(), (std::vector<int64_t>{8, 18}));
  EXPECT_TRUE(at::equal(patches[6],
                        image[1].narrow(1, 2, 2).narrow(2, 0, 3).flatten()));
  grid = GridOf(image, 3);  // No square: columns.
  EXPECT_EQ(grid.rows, 1);
  EXPECT_TRUE(at::equal(CutPatches(image, grid)[1],
                        image[0].narrow(2, 2, 2).flatten()));
}

TEST(PatchesTest, ASampleDependsOnNoBatchAndIsFair) {
  const at::Tensor all = at::arange(1000, at::kFloat).view({1000, 1});
  std::vector<int64_t> kept(10, 0);
  std::vector<int64_t> numbers(1000);
  std::iota(numbers.begin(), numbers.end(), 0);
  for (uint64_t seed = 0; seed < 40; ++seed) {
    PatchSample whole(100, seed), parts(100, seed);
    whole.Add(all, numbers);
    // In any order, and without those that are not wanted any more.
    for (const int64_t first : {500, 0, 750, 250}) {
      std::vector<int64_t> wanted;
      for (int64_t i = first; i < first + 250; ++i) {
        if (parts.Wants(i)) wanted.push_back(i);
      }
      parts.Add(all.index_select(0, torch::tensor(wanted, at::kLong)), wanted);
    }
    const at::Tensor sample = whole.Take();
    ASSERT_EQ(sample.size(0), 100);
    EXPECT_TRUE(at::equal(sample, parts.Take()));
    EXPECT_TRUE(sample.diff(1, 0).gt(0).all().item<bool>());
    for (int64_t i = 0; i < 100; ++i) {
      ++kept[static_cast<int64_t>(sample[i].item<float>()) / 100];
    }
  }
  // 400 are expected in each tenth; 5 deviations are 90.
  for (const int64_t count : kept) EXPECT_NEAR(count, 400, 90);
  PatchSample few(100, 1);
  few.Add(all.narrow(0, 0, 7), {0, 1, 2, 3, 4, 5, 6});
  EXPECT_TRUE(at::equal(few.Take(), all.narrow(0, 0, 7)));
}

TEST(PatchesTest, TheNearestOfEveryCodeAreKept) {
  NearestPatches nearest(3);
  for (int64_t i = 0; i < 50; ++i) {
    nearest.Add(i % 2, {static_cast<double>((i * 7) % 50), i, 0});
  }
  const std::vector<NearPatch> even = nearest.Of(0);
  ASSERT_EQ(even.size(), 3u);
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(even[k].distance, 2 * static_cast<double>(k));
    EXPECT_EQ(even[k].image * 7 % 50, 2 * static_cast<int64_t>(k));
  }
  EXPECT_TRUE(nearest.Of(5).empty());
}

TEST(PatchesTest, APieceIsThePatchWithItsNeighbours) {
  const at::Tensor image = at::arange(3 * 64, at::kFloat).view({3, 8, 8});
  const PatchGrid grid = GridOf(image.unsqueeze(0), 16);
  const SheetRow::Piece corner = CutPiece(image, grid, 3);
  EXPECT_TRUE(at::equal(corner.pixels, image.narrow(1, 0, 4).narrow(2, 4, 4)));
  EXPECT_EQ(corner.top, 0);
  EXPECT_EQ(corner.left, 2);
  const SheetRow::Piece middle = CutPiece(image, grid, 5);
  EXPECT_EQ(middle.pixels.sizes().vec(), (std::vector<int64_t>{3, 6, 6}));
  EXPECT_EQ(middle.top, 2);
  EXPECT_EQ(middle.height, 2);
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
  config.set_max_words(0);
  config.set_sampled_patches(0);
  config.set_sheet_codes(-1);
  config.set_sheet_patches(-2);
  const std::string message(ValidateCodebookSemantics(config).message());
  for (const char* part :
       {"quantizer: ", "min_word_count: got 0", "permutations: got 0",
        "kmeans_iterations: got -1", "top_words: got 0", "top_codes: got -7",
        "max_words: got 0", "sampled_patches: got 0", "sheet_codes: got -1",
        "sheet_patches: got -2"}) {
    EXPECT_TRUE(absl::StrContains(message, part)) << message;
  }
}

}  // namespace
}  // namespace semvq
