// The order of mixtures and of shards; one part without shards is tested beside
// the transforms.
#include "data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace semvq {
namespace {

SourcePart Part(int64_t begin, std::vector<int64_t> shards, double weight = 1) {
  SourcePart part;
  part.begin = begin;
  part.weight = weight;
  for (const int64_t shard : shards) part.size += shard;
  part.shards = std::move(shards);
  return part;
}

Sampler Must(std::vector<SourcePart> parts, int64_t shuffle_shards = 0,
             uint64_t seed = 3) {
  for (SourcePart& part : parts) part.shuffle_shards = shuffle_shards;
  absl::StatusOr<Sampler> sampler = Sampler::Create(std::move(parts), 1, seed);
  EXPECT_TRUE(sampler.ok()) << sampler.status();
  return *sampler;
}

std::vector<int64_t> Take(const Sampler& sampler, int64_t from, int64_t count) {
  std::vector<int64_t> indices;
  for (int64_t n = from; n < from + count; ++n)
    indices.push_back(sampler.Index(n));
  return indices;
}

void ExpectError(const absl::Status& status, const std::string& part) {
  EXPECT_FALSE(status.ok()) << part;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
      << status;
}

// 30 samples: groups of 10, 7 and 1, and 12 that are alone.
SourcePart Grouped(int64_t begin, int64_t group_size) {
  auto groups = std::make_shared<std::vector<uint32_t>>();
  groups->insert(groups->end(), 10, 0);
  groups->insert(groups->end(), 7, 1);
  for (uint32_t alone = 2; alone < 15; ++alone) groups->push_back(alone);
  SourcePart part = Part(begin, {30});
  part.groups = groups;
  part.group_size = group_size;
  return part;
}

TEST(GroupOrder, EveryEpochIsAPermutationOfRuns) {
  const SourcePart part = Grouped(0, 4);
  const std::vector<uint32_t>& groups = *part.groups;
  const Sampler sampler = Must({Grouped(0, 4)});
  std::set<std::set<int64_t>> fours;  // Runs of the first group.
  for (int64_t epoch = 0; epoch < 40; ++epoch) {
    const std::vector<int64_t> order = Take(sampler, epoch * 30, 30);
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 30u);
    // Of the ten, four, four and two stand together; of the seven, four and
    // three. Two runs of a group may meet.
    for (const auto& [group, runs] :
         std::map<uint32_t, size_t>{{0, 3}, {1, 2}}) {
      std::vector<std::set<int64_t>> found;
      for (size_t i = 0; i < order.size(); ++i) {
        if (groups[order[i]] != group) continue;
        if (i == 0 || groups[order[i - 1]] != group) found.emplace_back();
        found.back().insert(order[i]);
      }
      EXPECT_LE(found.size(), runs);
      if (group != 0) continue;
      for (const std::set<int64_t>& run : found) {
        if (run.size() == 4) fours.insert(run);
      }
    }
  }
  // They are put together anew.
  EXPECT_GT(fours.size(), 40u);
  EXPECT_NE(Take(sampler, 0, 30), Take(sampler, 30, 30));
  EXPECT_NE(Take(sampler, 0, 30), Take(Must({Grouped(0, 4)}, 0, 4), 0, 30));
}

TEST(GroupOrder, RunsComeInEveryPlace) {
  std::vector<int> first(30);
  const Sampler sampler = Must({Grouped(0, 4)});
  for (int64_t epoch = 0; epoch < 6000; ++epoch)
    ++first[sampler.Index(epoch * 30)];
  // 18 runs, each of which is first as often; a run of four starts with each.
  for (int64_t i = 0; i < 10; ++i)
    EXPECT_NEAR(first[i], 6000 / 18 * 3 / 10, 40);
  for (int64_t i = 17; i < 30; ++i) EXPECT_NEAR(first[i], 6000 / 18, 80);
}

TEST(GroupOrder, OfAPartOfAMixture) {
  const Sampler sampler = Must({Part(0, {20}), Grouped(20, 4)});
  std::set<int64_t> seen;
  for (int64_t n = 0; n < 200; ++n) seen.insert(sampler.Index(n));
  EXPECT_EQ(seen.size(), 50u);
  EXPECT_EQ(*seen.rbegin(), 49);
}

TEST(ShardOrder, EveryEpochIsAPermutation) {
  const std::vector<int64_t> shards = {7, 1, 12, 0, 5, 9, 3, 13};
  for (const int64_t window : {1, 2, 3, 8, 20}) {
    const Sampler sampler = Must({Part(0, shards)}, window);
    std::vector<std::vector<int64_t>> epochs;
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<int64_t> seen = Take(sampler, epoch * 50, 50);
      epochs.push_back(seen);
      std::sort(seen.begin(), seen.end());
      for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(seen[i], i) << window;
    }
    EXPECT_NE(epochs[0], epochs[1]);
    EXPECT_NE(epochs[0], Take(Must({Part(0, shards)}, window, 4), 0, 50));
  }
}

TEST(ShardOrder, ReadsFromOneWindowAtATime) {
  const std::vector<int64_t> shards(24, 100);
  const Sampler sampler = Must({Part(0, shards)}, 4);
  std::set<int64_t> firsts;
  for (int64_t window = 0; window < 6; ++window) {
    std::set<int64_t> touched;
    const std::vector<int64_t> taken = Take(sampler, window * 400, 400);
    for (const int64_t index : taken) touched.insert(index / 100);
    EXPECT_EQ(touched.size(), 4u);
    firsts.insert(*touched.begin());
    // Within it, samples of all four come mixed: not one after the other.
    std::set<int64_t> early;
    for (int i = 0; i < 40; ++i) early.insert(taken[i] / 100);
    EXPECT_EQ(early.size(), 4u);
  }
  EXPECT_EQ(firsts.size(), 6u);
}

TEST(ShardOrder, AnyNumberAtAnyTime) {
  const std::vector<SourcePart> parts = {Part(0, {30, 40, 20}, 1),
                                         Part(90, {15, 25}, 2)};
  const Sampler sampler = Must(parts, 1);
  const std::vector<int64_t> all = Take(sampler, 0, 5000);
  // A fresh one, asked backwards, as after a resume; and from several threads.
  const Sampler fresh = Must(parts, 1);
  for (int64_t n = 4999; n >= 0; n -= 7) ASSERT_EQ(fresh.Index(n), all[n]);
  std::vector<std::thread> threads;
  std::vector<std::vector<int64_t>> seen(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t n = t; n < 5000; n += 4) seen[t].push_back(sampler.Index(n));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int64_t n = 0; n < 5000; ++n) ASSERT_EQ(seen[n % 4][n / 4], all[n]);
}

TEST(ShardOrder, SubstitutesComeFromNearby) {
  const Sampler sampler = Must({Part(0, std::vector<int64_t>(50, 1000))}, 2);
  for (int64_t n = 0; n < 50000; n += 4999) {
    std::set<int64_t> window;
    for (int64_t w = n / 2000 - 1; w <= n / 2000 + 1; ++w) {
      if (w < 0 || w >= 25) continue;
      for (const int64_t index : Take(sampler, w * 2000, 2000))
        window.insert(index / 1000);
    }
    for (int64_t attempt = 1; attempt < 20; ++attempt)
      EXPECT_EQ(window.count(sampler.Substitute(n, attempt) / 1000), 1u);
  }
}

TEST(MixtureOrder, EveryThousandHasItsShares) {
  const std::vector<SourcePart> parts = {Part(0, {10}, 1), Part(10, {5000}, 3),
                                         Part(5010, {70}, 0.5)};
  const Sampler sampler = Must(parts);
  std::vector<std::vector<int>> orders;
  for (int64_t block = 0; block < 5; ++block) {
    std::map<int, int> count;
    std::vector<int> order;
    for (const int64_t index : Take(sampler, block * 1000, 1000)) {
      const int part = index < 10 ? 0 : index < 5010 ? 1 : 2;
      ++count[part];
      order.push_back(part);
    }
    // 222.2, 666.7 and 111.1 of 1,000.
    EXPECT_EQ(count[0], 222);
    EXPECT_EQ(count[1], 667);
    EXPECT_EQ(count[2], 111);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
}

TEST(MixtureOrder, ASampleComesAgainWhenAllOfItsPartHaveCome) {
  const Sampler sampler =
      Must({Part(0, {37}, 1), Part(37, {211}, 1), Part(248, {1000}, 3)});
  std::map<int64_t, int64_t> times;
  const int64_t begins[] = {0, 37, 248, 1248};
  for (int64_t n = 0; n < 20000; ++n) {
    const int64_t index = sampler.Index(n);
    ++times[index];
    const int part = index < 37 ? 0 : index < 248 ? 1 : 2;
    if (n % 997 != 0) continue;
    int64_t least = 1 << 30, most = 0;
    for (int64_t i = begins[part]; i < begins[part + 1]; ++i) {
      least = std::min(least, times[i]);
      most = std::max(most, times[i]);
    }
    EXPECT_LE(most - least, 1) << n;
  }
  // 4,000 draws of 37 samples.
  EXPECT_NEAR(static_cast<double>(times[0]), 4000.0 / 37, 1);
}

TEST(MixtureOrder, SubstitutesComeFromTheSamePart) {
  const Sampler sampler = Must({Part(0, {50}, 1), Part(50, {50}, 1)});
  for (int64_t n = 0; n < 200; ++n) {
    for (int64_t attempt = 1; attempt < 5; ++attempt) {
      EXPECT_EQ(sampler.Index(n) < 50, sampler.Substitute(n, attempt) < 50);
    }
  }
}

TEST(MixtureOrder, ASmallShareIsNeverNone) {
  const Sampler sampler = Must({Part(0, {100}, 0.0006), Part(100, {100}, 1)});
  int small = 0;
  for (const int64_t index : Take(sampler, 0, 10000)) small += index < 100;
  EXPECT_EQ(small, 10);
  ExpectError(
      Sampler::Create({Part(0, {9}, 0.0004), Part(9, {9}, 1)}, 1, 1).status(),
      "weight: source 0 has 0.0004");
  // Many of them take from the largest, and the sum stays 1,000.
  std::vector<SourcePart> parts = {Part(0, {100}, 1)};
  for (int64_t i = 1; i < 300; ++i)
    parts.push_back(Part(100 * i, {100}, 0.0007));
  std::set<int64_t> seen;
  for (const int64_t index : Take(Must(parts), 0, 1000))
    seen.insert(index / 100);
  EXPECT_EQ(seen.size(), 300u);
}

TEST(MixtureOrder, AnEmptyPartIsRefused) {
  ExpectError(Sampler::Create({Part(0, {5}), Part(5, {})}, 1, 1).status(),
              "source 1 of the mixture has no samples");
}

}  // namespace
}  // namespace semvq
