#include "tasks/retrieval/retrieval.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "core/forward/testing_eval.h"
#include "core/random/stream.h"
#include "gtest/gtest.h"
#include "tasks/retrieval/direction.h"
#include "tasks/retrieval/text_cache.h"

namespace semvq {
namespace {

using Pair = std::pair<int64_t, int64_t>;  // Image, text.
constexpr double kTemperature = 0.2;

// Images and captions with made-up embeddings and matching scores. Rows are
// told apart by their contents, as an encoder would: an image's pixels and a
// text's second token hold its number.
struct Corpus {
  std::vector<std::string> image_ids;                    // [I]
  std::vector<int64_t> owner;                            // [T]
  at::Tensor image_embedding, text_embedding, matching;  // [I, d] [T, d] [I, T]
  at::Tensor no_match;  // [I, T]; undefined: half of matching, negative.

  int64_t images() const { return static_cast<int64_t>(image_ids.size()); }
  int64_t texts() const { return static_cast<int64_t>(owner.size()); }
  at::Tensor similarity() const {
    return at::matmul(image_embedding, text_embedding.t());
  }
};

// With `levels` > 0 all scores are small integers, so that many are equal.
Corpus RandomCorpus(uint64_t seed, int64_t images, int64_t levels = 0) {
  RandomStream random(seed, "corpus");
  Corpus corpus;
  for (int64_t i = 0; i < images; ++i) {
    // Every fifth image is of the same thing as the one before.
    corpus.image_ids.push_back("id" + std::to_string(i % 5 == 4 ? i - 1 : i));
    for (int64_t c = random.Below(4); c >= 0; --c) corpus.owner.push_back(i);
  }
  torch::manual_seed(seed);
  const int64_t texts = corpus.texts();
  if (levels > 0) {
    corpus.image_embedding = at::randint(levels, {images, 2}).to(at::kFloat);
    corpus.text_embedding = at::randint(levels, {texts, 2}).to(at::kFloat);
    corpus.matching = at::randint(levels, {images, texts}).to(at::kFloat);
  } else {
    const auto unit = [](const at::Tensor& t) {
      return at::div(t, t.norm(2, 1, true));
    };
    corpus.image_embedding = unit(at::randn({images, 16}));
    corpus.text_embedding = unit(at::randn({texts, 16}));
    corpus.matching = at::randn({images, texts});
  }
  return corpus;
}

std::vector<Batch> Batches(const Corpus& corpus, int64_t batch_size) {
  std::vector<Batch> batches;
  for (int64_t first = 0; first < corpus.images(); first += batch_size) {
    const int64_t n = std::min(batch_size, corpus.images() - first);
    Batch batch;
    batch.images = at::arange(first, first + n, at::kFloat)
                       .view({n, 1, 1, 1, 1})
                       .expand({n, 1, 3, 2, 2});
    std::vector<int64_t> numbers, rows;
    for (int64_t t = 0; t < corpus.texts(); ++t) {
      if (corpus.owner[t] < first || corpus.owner[t] >= first + n) continue;
      numbers.push_back(t);
      rows.push_back(corpus.owner[t] - first);
    }
    batch.texts.resize(numbers.size());
    batch.text_ids =
        at::zeros({static_cast<int64_t>(numbers.size()), 3}, at::kLong);
    batch.text_ids.select(1, 1).copy_(torch::tensor(numbers, at::kLong));
    // One, two or three tokens; the number is the first and stands for all.
    batch.text_mask = at::arange(3).unsqueeze(0).le(
        batch.text_ids.select(1, 1).unsqueeze(1).remainder(3));
    batch.text_to_image = torch::tensor(rows, at::kLong);
    batch.image_ids.assign(corpus.image_ids.begin() + first,
                           corpus.image_ids.begin() + first + n);
    for (int64_t i = first; i < first + n; ++i)
      batch.sample_numbers.push_back(i);
    batches.push_back(std::move(batch));
  }
  return batches;
}

// Evaluates a corpus and remembers which pairs were fused.
class Evaluation {
 public:
  Evaluation(const Corpus& corpus, const RetrievalConfig& config,
             int64_t batch_size = 4,
             const std::vector<Batch>* second_pass = nullptr)
      : context(Batches(corpus, batch_size)), corpus_(corpus) {
    context.second_pass = second_pass;
    const auto image = [](Forward& f) {
      return f.batch().images.select(1, 0).select(1, 0).select(1, 0).select(1,
                                                                            0);
    };
    const auto text = [](Forward& f) {
      return f.batch().text_ids.select(1, 1);
    };
    context.Provide("itc", [=](const ViewKey& key, Forward& f) -> std::any {
      if (key.view == kSimilarity) {
        EXPECT_EQ(f.batch().images.numel(), 0);  // Pairs that are reranked.
        return at::matmul(
                   f.Get<at::Tensor>(ImageKey("itc", kImageEmbedding)),
                   f.Get<at::Tensor>(TextKey("itc", kTextEmbedding)).t()) /
               kTemperature;
      }
      if (key.view == kImageEmbedding) {
        return corpus_.image_embedding.index_select(0, image(f).to(at::kLong));
      }
      return corpus_.text_embedding.index_select(0, text(f));
    });
    const auto tokens = [](const at::Tensor& numbers, int64_t length) {
      Tokens out;
      out.values =
          numbers.to(at::kDouble).view({-1, 1, 1}).expand({-1, length, 4});
      return out;
    };
    context.Provide("visual", [=](const ViewKey&, Forward& f) -> std::any {
      return tokens(image(f), 5);
    });
    context.Provide(
        "text", [this, tokens, text](const ViewKey&, Forward& f) -> std::any {
          texts_encoded += f.batch().num_texts();
          Tokens out = tokens(text(f), 3);
          out.mask = f.batch().text_mask;
          return out;
        });
    context.Provide("itm", [this](const ViewKey& key, Forward& f) -> std::any {
      EXPECT_EQ(key.view, kMatchLogits);
      EXPECT_EQ(key.slot, kAllSlots);
      const at::Tensor images = f.Get<Tokens>(ImageKey("visual", kTokens))
                                    .values.select(1, 0)
                                    .select(1, 0)
                                    .index_select(0, f.batch().text_to_image)
                                    .to(at::kLong);
      const Tokens& words = f.Get<Tokens>(TextKey("text", kTokens));
      EXPECT_TRUE(at::equal(words.mask, f.batch().text_mask));
      const at::Tensor texts =
          words.values.select(1, 0).select(1, 0).to(at::kLong);
      // The text's tokens and its ids must be of the same text.
      EXPECT_TRUE(at::equal(texts, f.batch().text_ids.select(1, 1)));
      largest_batch = std::max(largest_batch, texts.size(0));
      for (int64_t p = 0; p < texts.size(0); ++p) {
        fused.emplace_back(images[p].item<int64_t>(), texts[p].item<int64_t>());
      }
      // A head's two logits have no fixed sum.
      const at::Tensor match = corpus_.matching.index({images, texts});
      if (corpus_.no_match.defined()) {
        return at::stack({corpus_.no_match.index({images, texts}), match}, 1);
      }
      return at::stack({-0.5 * match, 0.5 * match}, 1);
    });
    PluginContext plugin;
    plugin.instance = "zero_shot";
    absl::StatusOr<std::shared_ptr<Task>> task = MakeRetrieval(config, plugin);
    EXPECT_TRUE(task.ok()) << task.status();
    result = (*task)->Evaluate(context);
  }

  // Whose stream may change after it was read once.
  struct Context : FakeEvalContext {
    using FakeEvalContext::FakeEvalContext;
    absl::Status ForEachBatch(
        const std::function<absl::Status(const Batch&)>& visit) override {
      absl::Status status = FakeEvalContext::ForEachBatch(visit);
      if (second_pass != nullptr) streams[""] = *second_pass;
      return status;
    }
    const std::vector<Batch>* second_pass = nullptr;
  };
  Context context;
  std::vector<Pair> fused;
  int64_t largest_batch = 0;
  int64_t texts_encoded = 0;
  absl::StatusOr<TaskResult> result = absl::UnknownError("not run");

 private:
  const Corpus& corpus_;
};

// Candidates of one query, the best first; the lower number among equals.
std::vector<int64_t> Sorted(const at::Tensor& scores) {
  std::vector<int64_t> order(scores.size(0));
  std::iota(order.begin(), order.end(), 0);
  const at::Tensor copy = scores.to(at::kDouble).contiguous();
  const double* value = copy.data_ptr<double>();
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return value[a] > value[b]; });
  return order;
}

// The first `k` by similarity in the order of their matching score, then the
// rest as it was: two-stage retrieval written out.
std::vector<int64_t> TwoStage(const at::Tensor& similarity,
                              const at::Tensor& matching, size_t k) {
  std::vector<int64_t> order = Sorted(similarity);
  const auto middle = order.begin() + std::min(k, order.size());
  std::sort(order.begin(), middle);
  const at::Tensor copy = matching.to(at::kDouble).contiguous();
  const double* value = copy.data_ptr<double>();
  std::stable_sort(order.begin(), middle,
                   [&](int64_t a, int64_t b) { return value[a] > value[b]; });
  return order;
}

void ExpectRecalls(const Corpus& corpus, const TaskResult& result, size_t top_k,
                   const std::string& prefix) {
  const at::Tensor similarity = corpus.similarity();
  double sum = 0;
  for (const bool text_retrieval : {true, false}) {
    const at::Tensor s = text_retrieval ? similarity : similarity.t();
    const at::Tensor m = text_retrieval ? corpus.matching : corpus.matching.t();
    for (const int64_t k : {1, 5, 10}) {
      int64_t hits = 0;
      for (int64_t q = 0; q < s.size(0); ++q) {
        const std::vector<int64_t> order = TwoStage(s[q], m[q], top_k);
        const int64_t image = text_retrieval ? q : corpus.owner[q];
        bool hit = false;
        for (int64_t r = 0; r < std::min(k, s.size(1)); ++r) {
          const int64_t found =
              text_retrieval ? corpus.owner[order[r]] : order[r];
          hit = hit || corpus.image_ids[found] == corpus.image_ids[image];
        }
        hits += hit;
      }
      const std::string name =
          prefix + (text_retrieval ? "TR" : "IR") + " R@" + std::to_string(k);
      const double expected = 100.0 * hits / s.size(0);
      EXPECT_NEAR(MetricOf(result, name).value, expected, 1e-9) << name;
      sum += expected;
    }
  }
  EXPECT_NEAR(MetricOf(result, prefix + "r_mean").value, sum / 6, 1e-9);
}

RetrievalConfig WithTopK(int64_t top_k) {
  RetrievalConfig config;
  config.set_rerank_top_k(top_k);
  config.set_rerank_batch_size(17);
  return config;
}

TEST(RetrievalTest, ZeroShotEqualsBruteForce) {
  for (const uint64_t seed : {1, 2, 3}) {
    const Corpus corpus = RandomCorpus(seed, 23);
    Evaluation run(corpus, WithTopK(0));
    ASSERT_TRUE(run.result.ok()) << run.result.status();
    ExpectRecalls(corpus, *run.result, 0, "");
    EXPECT_TRUE(run.fused.empty());
    EXPECT_EQ(run.result->metrics.size(), 9u);  // No reranked rows.
  }
}

TEST(RetrievalTest, TiesGoToTheLowerNumber) {
  for (const uint64_t seed : {4, 5, 6}) {
    const Corpus corpus = RandomCorpus(seed, 19, /*levels=*/3);
    Evaluation run(corpus, WithTopK(1000));
    ASSERT_TRUE(run.result.ok()) << run.result.status();
    ExpectRecalls(corpus, *run.result, 0, "");
    ExpectRecalls(corpus, *run.result, 1000, "reranked ");
  }
}

TEST(RetrievalTest, RerankingEveryPairEqualsBruteForce) {
  const Corpus corpus = RandomCorpus(7, 21);
  Evaluation run(corpus, WithTopK(corpus.texts()));
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  ExpectRecalls(corpus, *run.result, corpus.texts(), "reranked ");
  EXPECT_EQ(static_cast<int64_t>(run.fused.size()),
            corpus.images() * corpus.texts());
}

// Also the order behind the reranked candidates must be that of the
// similarities: with k below 10 the recalls at 5 and 10 depend on it.
TEST(RetrievalTest, BoundedRerankingRanksEachQuerysOwnTopK) {
  for (const int64_t k : {1, 2, 3, 7}) {
    const Corpus corpus = RandomCorpus(20 + k, 22);
    Evaluation run(corpus, WithTopK(k));
    ASSERT_TRUE(run.result.ok()) << run.result.status();
    ExpectRecalls(corpus, *run.result, k, "reranked ");
  }
}

TEST(RetrievalTest, FusesTheUnionOfTheTopKOnceEach) {
  const Corpus corpus = RandomCorpus(8, 22);
  const int64_t k = 3;
  Evaluation run(corpus, WithTopK(k));
  ASSERT_TRUE(run.result.ok()) << run.result.status();

  std::set<Pair> wanted;
  const at::Tensor similarity = corpus.similarity();
  for (int64_t i = 0; i < corpus.images(); ++i) {
    const std::vector<int64_t> order = Sorted(similarity[i]);
    for (int64_t r = 0; r < k; ++r) wanted.emplace(i, order[r]);
  }
  for (int64_t t = 0; t < corpus.texts(); ++t) {
    const std::vector<int64_t> order = Sorted(similarity.select(1, t));
    for (int64_t r = 0; r < k; ++r) wanted.emplace(order[r], t);
  }
  EXPECT_EQ(std::set<Pair>(run.fused.begin(), run.fused.end()), wanted);
  EXPECT_EQ(run.fused.size(), wanted.size());
  EXPECT_LT(static_cast<int64_t>(wanted.size()),
            corpus.images() * corpus.texts() / 2);
  EXPECT_EQ(run.largest_batch, 17);
}

// More queries than are ranked at once, and not a multiple of it.
TEST(RetrievalTest, ChunksOfQueriesGiveTheRanksOfTheWhole) {
  const Corpus corpus = RandomCorpus(30, 270, /*levels=*/6);
  ASSERT_GT(corpus.texts(), 2 * kQueriesAtOnce);
  Evaluation run(corpus, WithTopK(6));
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  ExpectRecalls(corpus, *run.result, 0, "");
  ExpectRecalls(corpus, *run.result, 6, "reranked ");
}

// Each rank ranks its share of the queries; together they know all.
TEST(RetrievalTest, SharesOfTheQueriesMakeTheWhole) {
  const Corpus corpus = RandomCorpus(31, 520, /*levels=*/4);
  Direction whole, shared;
  for (int64_t i = 0; i < corpus.images(); ++i) {
    whole.positives.push_back({i});
  }
  shared.positives = whole.positives;
  for (Direction* d : {&whole, &shared}) PrepareRanks(corpus.texts(), 9, d);
  const auto rank = [&](int64_t begin, int64_t end, Direction* d) {
    EXPECT_TRUE(RankQueries(corpus.image_embedding, corpus.text_embedding,
                            begin, end, d));
  };
  rank(0, 520, &whole);
  rank(512, 520, &shared);
  EXPECT_EQ(shared.ranks[511], -1);
  rank(0, 256, &shared);
  rank(256, 512, &shared);
  EXPECT_EQ(shared.ranks, whole.ranks);
  EXPECT_TRUE(at::equal(shared.top, whole.top));
  EXPECT_TRUE(at::equal(shared.similarity, whole.similarity));
}

// Texts that do not fit are encoded again for every batch of pairs; once that
// is known their tokens are not asked for.
TEST(RetrievalTest, AFullTextCacheChangesNoNumber) {
  const Corpus corpus = RandomCorpus(32, 20);
  RetrievalConfig without = WithTopK(5);
  without.set_text_cache_mib(0);
  Evaluation a(corpus, WithTopK(5)), b(corpus, without);
  ASSERT_TRUE(a.result.ok() && b.result.ok()) << b.result.status();
  EXPECT_EQ(a.texts_encoded, corpus.texts());
  EXPECT_EQ(b.texts_encoded, Batches(corpus, 4)[0].num_texts() +
                                 static_cast<int64_t>(b.fused.size()));
  for (size_t m = 0; m < a.result->metrics.size(); ++m) {
    EXPECT_EQ(a.result->metrics[m].value, b.result->metrics[m].value);
  }
}

TEST(TextCacheTest, GivesTheTokensBackAndRefusesTooMany) {
  Tokens tokens;
  tokens.has_cls = true;
  tokens.values = at::randn({3, 4, 2});
  const at::Tensor mask =
      torch::tensor({1, 1, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0}, at::kBool)
          .view({3, 4});
  TextCache cache(1 << 20);
  cache.Add(tokens, mask);
  cache.Add(tokens, mask);
  ASSERT_TRUE(cache.complete());
  const at::Tensor rows = torch::tensor({1, 0, 2, 1}, at::kLong);
  const Tokens out = cache.Gather({4, 0, 2, 4}, mask.index_select(0, rows));
  EXPECT_TRUE(out.has_cls);
  EXPECT_TRUE(at::equal(
      out.values, tokens.values.index_select(0, rows) *
                      mask.index_select(0, rows).unsqueeze(2).to(at::kFloat)));
  // Texts that lie across two blocks.
  TextCache large(int64_t{1} << 40);
  tokens.values = at::randn({3, 4, 1 << 20});
  for (int i = 0; i < 3; ++i) large.Add(tokens, mask);
  const Tokens far = large.Gather({3, 4}, mask.narrow(0, 0, 2));
  EXPECT_TRUE(at::equal(far.values[0].narrow(0, 0, 2),
                        tokens.values[0].narrow(0, 0, 2)));
  EXPECT_EQ(far.values[0].narrow(0, 2, 2).abs().sum().item<float>(), 0);
  EXPECT_TRUE(at::equal(far.values[1], tokens.values[1]));
  tokens.values = at::randn({3, 4, 2});
  TextCache small(8 * 7);  // The seven real tokens, once.
  small.Add(tokens, mask);
  EXPECT_TRUE(small.complete());
  small.Add(tokens, mask);
  EXPECT_FALSE(small.complete());
}

TEST(RetrievalTest, RanksByTheMatchLogitAloneWhenAsked) {
  Corpus corpus = RandomCorpus(33, 20);
  corpus.no_match = at::randn(corpus.matching.sizes()) * 3;
  RetrievalConfig albef = WithTopK(1000);
  albef.set_rerank_score(RetrievalConfig::MATCH_LOGIT);
  Evaluation alone(corpus, albef), odds(corpus, WithTopK(1000));
  ASSERT_TRUE(alone.result.ok() && odds.result.ok());
  ExpectRecalls(corpus, *alone.result, 1000, "reranked ");
  Corpus difference = corpus;
  difference.matching = corpus.matching - corpus.no_match;
  ExpectRecalls(difference, *odds.result, 1000, "reranked ");
}

// Batches of pairs of one image, and of several; ties to the lower number.
TEST(RetrievalTest, AddsTheSimilarityOverItsTemperature) {
  RetrievalConfig config = WithTopK(1000);
  config.set_rerank_score(RetrievalConfig::LOG_ODDS_AND_SIMILARITY);
  for (const int64_t images : {6, 40}) {
    for (const int64_t levels : {0, 3}) {
      const Corpus corpus = RandomCorpus(36, images, levels);
      Corpus sum = corpus;
      sum.matching = corpus.matching.to(at::kDouble) +
                     at::matmul(corpus.image_embedding.to(at::kDouble),
                                corpus.text_embedding.to(at::kDouble).t()) /
                         kTemperature;
      for (const int64_t batch_size : {1, 4, 40}) {
        Evaluation run(corpus, config, batch_size);
        ASSERT_TRUE(run.result.ok()) << run.result.status();
        ExpectRecalls(sum, *run.result, 1000, "reranked ");
      }
    }
  }
}

TEST(RetrievalTest, NeedsTheSimilarityOnlyWhereItIsAdded) {
  RetrievalConfig config;
  const auto needed = [&config] {
    for (const NeededView& need : RetrievalContract("r", config, {}).needs) {
      if (need.view == kSimilarity) return true;
    }
    return false;
  };
  EXPECT_FALSE(needed());
  config.set_rerank_score(RetrievalConfig::LOG_ODDS_AND_SIMILARITY);
  EXPECT_TRUE(needed());
  config.set_rerank_top_k(0);
  EXPECT_FALSE(needed());
}

TEST(RetrievalTest, CountsImagesThatShareAnId) {
  Corpus corpus = RandomCorpus(34, 9);  // Images 3 and 4 are of one id.
  Evaluation run(corpus, WithTopK(0));
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  EXPECT_TRUE(absl::StrContains(run.result->note,
                                "; 2 images share their id with another one"))
      << run.result->note;
  corpus.image_ids[4] = "its own";
  Evaluation none(corpus, WithTopK(0));
  ASSERT_TRUE(none.result.ok()) << none.result.status();
  EXPECT_FALSE(absl::StrContains(none.result->note, "share"));
}

// The images are read twice; another set the second time is no basis.
TEST(RetrievalTest, AStreamThatChangesIsAnError) {
  const Corpus corpus = RandomCorpus(35, 12);
  for (const bool shorter : {true, false}) {
    std::vector<Batch> first = Batches(corpus, 4), second = first;
    if (shorter) {
      second.pop_back();
    } else {
      second[1].image_ids[2] = "new";
    }
    const absl::Status status =
        Evaluation(corpus, WithTopK(2), 4, &second).result.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(absl::StrContains(
        status.message(), shorter ? "has 8 images when it is read again"
                                  : "sample 6 of the stream is \"new\""))
        << status;
  }
}

TEST(RetrievalTest, BatchSizesDoNotMatter) {
  const Corpus corpus = RandomCorpus(9, 20);
  RetrievalConfig small = WithTopK(4), large = WithTopK(4);
  small.set_rerank_batch_size(1);
  large.set_rerank_batch_size(512);
  Evaluation a(corpus, small, /*batch_size=*/1);
  Evaluation b(corpus, large, /*batch_size=*/20);
  ASSERT_TRUE(a.result.ok() && b.result.ok());
  ASSERT_EQ(a.result->metrics.size(), b.result->metrics.size());
  for (size_t m = 0; m < a.result->metrics.size(); ++m) {
    EXPECT_EQ(a.result->metrics[m].name, b.result->metrics[m].name);
    EXPECT_EQ(a.result->metrics[m].value, b.result->metrics[m].value);
  }
}

TEST(RetrievalTest, ChanceCountsAllPositives) {
  Corpus corpus = RandomCorpus(10, 4);
  corpus.image_ids = {"a", "b", "c", "c"};
  corpus.owner = {0, 1, 2, 2, 3};
  corpus.text_embedding = at::randn({5, 16});
  Evaluation run(corpus, WithTopK(0));
  ASSERT_TRUE(run.result.ok()) << run.result.status();
  // Positive texts: 1, 1, 3, 3 of 5. Positive images: 1, 1, 2, 2, 2 of 4.
  EXPECT_NEAR(MetricOf(*run.result, "TR R@1").chance, 100.0 * 8 / 20, 1e-9);
  EXPECT_NEAR(MetricOf(*run.result, "IR R@1").chance, 100.0 * 8 / 20, 1e-9);
  EXPECT_TRUE(MetricOf(*run.result, "TR R@1").headline);
  EXPECT_FALSE(MetricOf(*run.result, "TR R@5").headline);
  EXPECT_TRUE(std::isnan(MetricOf(*run.result, "r_mean").chance));
}

// Captions of another image with the same id are positives enough.
TEST(RetrievalTest, AnImageWithoutCaptionsIsAnErrorUnlessItsIdHasSome) {
  Corpus corpus = RandomCorpus(11, 3);
  corpus.owner = {0, 0, 2};
  corpus.text_embedding = at::randn({3, 16});
  corpus.image_ids = {"cat", "dog", "cow"};
  Evaluation bad(corpus, WithTopK(0));
  EXPECT_EQ(bad.result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(bad.result.status().message(),
                                "task zero_shot: image \"dog\" has no caption"))
      << bad.result.status();
  corpus.image_ids = {"cat", "cow", "cow"};
  Evaluation good(corpus, WithTopK(0));
  EXPECT_TRUE(good.result.ok()) << good.result.status();
}

TEST(RetrievalTest, AnEmptyStreamIsAnError) {
  Corpus corpus;
  Evaluation run(corpus, WithTopK(0));
  EXPECT_EQ(run.result.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(run.result.status().message(),
                                "no image with a caption"));
}

// A NaN compares as not better than anything: it must not count as rank 0.
TEST(RetrievalTest, ScoresThatAreNotFiniteAreAnError) {
  Corpus corpus = RandomCorpus(12, 6);
  corpus.matching[2][1] = std::numeric_limits<double>::quiet_NaN();
  Evaluation reranked(corpus, WithTopK(1000));
  EXPECT_TRUE(absl::StrContains(reranked.result.status().message(),
                                "\"itm\" gives scores that are not finite"))
      << reranked.result.status();
  corpus.image_embedding.fill_(std::numeric_limits<double>::quiet_NaN());
  Evaluation similarity(corpus, WithTopK(0));
  EXPECT_TRUE(absl::StrContains(similarity.result.status().message(),
                                "\"itc\" gives scores that are not finite"))
      << similarity.result.status();
}

TEST(RetrievalTest, Validates) {
  struct Case {
    const char* what;
    std::function<void(RetrievalConfig&)> change;
    const char* error;  // Null: valid.
  };
  const std::vector<Case> cases = {
      {"defaults", [](auto&) {}, nullptr},
      {"no reranking", [](auto& c) { c.set_rerank_top_k(0); }, nullptr},
      {"no matching",
       [](auto& c) {
         c.set_matching("");
         c.set_visual("");
       },
       nullptr},
      {"top k", [](auto& c) { c.set_rerank_top_k(-1); },
       "rerank_top_k: got -1"},
      {"batch", [](auto& c) { c.set_rerank_batch_size(0); },
       "rerank_batch_size: got 0"},
      {"cache", [](auto& c) { c.set_text_cache_mib(-1); },
       "text_cache_mib: got -1"},
      {"result", [](auto& c) { c.set_result_top_k(-1); },
       "result_top_k: got -1"},
      {"contrastive", [](auto& c) { c.set_contrastive(""); }, "contrastive"},
      {"visual", [](auto& c) { c.set_visual(""); }, "visual"},
      {"text", [](auto& c) { c.set_text(""); }, "text"},
  };
  for (const Case& c : cases) {
    RetrievalConfig config;
    c.change(config);
    const absl::Status status = ValidateRetrieval(config);
    EXPECT_EQ(status.ok(), c.error == nullptr) << c.what << ": " << status;
    if (c.error != nullptr) {
      EXPECT_TRUE(absl::StartsWith(status.message(), c.error)) << status;
    }
  }
  RetrievalConfig both;
  both.set_rerank_top_k(-3);
  both.set_rerank_batch_size(-2);
  EXPECT_TRUE(absl::StrContains(ValidateRetrieval(both).message(),
                                "\nrerank_batch_size: got -2"));
}

TEST(RetrievalTest, ContractNeedsTheMatchingHeadOnlyToRerank) {
  RetrievalConfig config;
  EXPECT_EQ(RetrievalContract("r", config, {}).needs.size(), 5u);
  config.set_rerank_top_k(0);
  EXPECT_EQ(RetrievalContract("r", config, {}).needs.size(), 2u);
}

}  // namespace
}  // namespace semvq
