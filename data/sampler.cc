#include "data/sampler.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "core/random/stream.h"

namespace semvq {
namespace {

constexpr int kRounds = 8;

// A Feistel network is a permutation of [0, 4^half_bits); walking its cycle
// until the value is in range again makes it one of [0, size) (Black and
// Rogaway 2002), in fewer than 4 steps on average.
int64_t Permute(int64_t index, int64_t size, uint64_t key) {
  int half_bits = 2;
  while (half_bits < 31 && (int64_t{1} << (2 * half_bits)) < size) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  uint64_t value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half_bits, right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t mixed =
          Mix64(key ^ Mix64(right ^ (static_cast<uint64_t>(round) << 32))) &
          mask;
      const uint64_t next = left ^ mixed;
      left = right;
      right = next;
    }
    value = left << half_bits | right;
  } while (value >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(value);
}

// Samples of every kMixtureBlock that each part gets: its share rounded down,
// and what is left to the largest remainders.
absl::StatusOr<std::vector<int64_t>> Apportion(
    const std::vector<SourcePart>& parts) {
  double sum = 0;
  for (const SourcePart& part : parts) sum += part.weight;
  std::vector<int64_t> counts;
  std::vector<std::pair<double, size_t>> remainders;
  for (size_t p = 0; p < parts.size(); ++p) {
    const double share =
        static_cast<double>(Sampler::kMixtureBlock) * parts[p].weight / sum;
    if (!(share >= 0.5)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "weight: source ", p, " has ", parts[p].weight, " of ", sum,
          ", expected at least one in ", 2 * Sampler::kMixtureBlock));
    }
    counts.push_back(std::max<int64_t>(1, static_cast<int64_t>(share)));
    remainders.emplace_back(static_cast<double>(counts.back()) - share, p);
  }
  int64_t left = Sampler::kMixtureBlock -
                 std::accumulate(counts.begin(), counts.end(), int64_t{0});
  std::sort(remainders.begin(), remainders.end());
  for (size_t i = 0; left > 0; i = (i + 1) % parts.size(), --left)
    ++counts[remainders[i].second];
  // Those that were lifted to one took from the largest.
  for (; left < 0; ++left) --*std::max_element(counts.begin(), counts.end());
  return counts;
}

// Shuffles the samples, puts each group's, as they come, into runs of up to
// `group_size`, and shuffles the runs.
std::vector<uint32_t> OrderInRuns(const std::vector<uint32_t>& groups,
                                  int64_t group_size, uint64_t key) {
  struct Placed {
    uint64_t run;  // Random, the same for a run's samples.
    uint32_t sample;
  };
  const int64_t size = static_cast<int64_t>(groups.size());
  std::vector<Placed> placed(groups.size());
  absl::flat_hash_map<uint32_t, int64_t> seen;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t sample = Permute(i, size, key);
    const uint32_t group = groups[sample];
    placed[i] = {StreamKey(key, "run", group,
                           static_cast<uint64_t>(seen[group]++ / group_size)),
                 static_cast<uint32_t>(sample)};
  }
  std::stable_sort(
      placed.begin(), placed.end(),
      [](const Placed& a, const Placed& b) { return a.run < b.run; });
  std::vector<uint32_t> order;
  order.reserve(groups.size());
  for (const Placed& p : placed) order.push_back(p.sample);
  return order;
}

}  // namespace

struct Sampler::Place {
  size_t part = 0;
  int64_t number = 0;  // Of the part's own samples, over all its epochs.
};

struct Sampler::State {
  std::vector<SourcePart> parts;
  uint64_t seed = 1;
  std::vector<int64_t> counts;  // Of several parts, in every block.

  // Which part each place of a block belongs to, and how many places before it
  // do, too.
  struct Block {
    int64_t number = -1;
    std::vector<Place> places;
  };
  // One epoch of a part in windows of shards.
  struct Windows {
    size_t part = 0;
    int64_t epoch = -1;
    std::vector<int64_t> shards;  // Permuted.
    std::vector<int64_t> ends;    // Samples up to the end of each window.
  };
  // One epoch of a part in runs of samples of one group.
  struct Runs {
    size_t part = 0;
    int64_t epoch = -1;
    std::vector<uint32_t> order;
  };
  // The last ones that were asked for: threads read ahead of each other.
  template <class T>
  using Recent = std::vector<std::shared_ptr<const T>>;
  std::mutex mutex;
  Recent<Block> blocks;
  Recent<Windows> windows;
  Recent<Runs> runs;
  std::vector<std::vector<int64_t>> shard_begins;  // Of each part.

  template <class T, class Match, class Make>
  std::shared_ptr<const T> Get(Recent<T>* recent, size_t keep,
                               const Match& match, const Make& make) {
    std::lock_guard<std::mutex> lock(mutex);
    for (const auto& known : *recent) {
      if (match(*known)) return known;
    }
    if (recent->size() >= keep) recent->erase(recent->begin());
    recent->push_back(make());
    return recent->back();
  }

  Place Locate(int64_t number) {
    if (parts.size() == 1) return {0, number};
    const int64_t block = number / kMixtureBlock;
    const auto found = Get(
        &blocks, 8, [&](const Block& b) { return b.number == block; },
        [&] {
          auto made = std::make_shared<Block>();
          made->number = block;
          std::vector<size_t> order;
          for (size_t p = 0; p < counts.size(); ++p)
            order.insert(order.end(), counts[p], p);
          RandomStream random(seed, "mixture", static_cast<uint64_t>(block));
          random.Shuffle(order.begin(), order.end());
          std::vector<int64_t> before(counts.size(), 0);
          for (const size_t p : order) made->places.push_back({p, before[p]++});
          return made;
        });
    Place place = found->places[number % kMixtureBlock];
    place.number += block * counts[place.part];
    return place;
  }

  bool HasRuns(size_t p) const {
    return parts[p].groups != nullptr && parts[p].group_size > 1;
  }

  // The index of place `at` of a part's epoch.
  int64_t InRuns(size_t p, int64_t epoch, int64_t at) {
    const auto found = Get(
        &runs, parts.size() + 1,
        [&](const Runs& r) { return r.part == p && r.epoch == epoch; },
        [&] {
          auto made = std::make_shared<Runs>();
          made->part = p;
          made->epoch = epoch;
          made->order = OrderInRuns(
              *parts[p].groups, parts[p].group_size,
              StreamKey(seed, "order", static_cast<uint64_t>(epoch), p));
          return made;
        });
    return parts[p].begin + found->order[at];
  }

  bool HasWindows(size_t p) const {
    return parts[p].shuffle_shards > 0 && parts[p].shards.size() > 1;
  }

  // The index of place `at` of a part's epoch.
  int64_t InWindows(size_t p, int64_t epoch, int64_t at) {
    const std::vector<int64_t>& sizes = parts[p].shards;
    const int64_t window = parts[p].shuffle_shards;
    const auto windows_of = Get(
        &windows, 2 * parts.size() + 2,
        [&](const Windows& w) { return w.part == p && w.epoch == epoch; },
        [&] {
          auto made = std::make_shared<Windows>();
          made->part = p;
          made->epoch = epoch;
          made->shards.resize(sizes.size());
          std::iota(made->shards.begin(), made->shards.end(), 0);
          RandomStream random(
              StreamKey(seed, "shards", static_cast<uint64_t>(epoch), p));
          random.Shuffle(made->shards.begin(), made->shards.end());
          int64_t end = 0;
          for (size_t i = 0; i < made->shards.size(); ++i) {
            end += sizes[made->shards[i]];
            if ((i + 1) % window == 0 || i + 1 == made->shards.size())
              made->ends.push_back(end);
          }
          return made;
        });
    const size_t w =
        std::upper_bound(windows_of->ends.begin(), windows_of->ends.end(), at) -
        windows_of->ends.begin();
    const int64_t begin = w == 0 ? 0 : windows_of->ends[w - 1];
    int64_t drawn = Permute(
        at - begin, windows_of->ends[w] - begin,
        StreamKey(StreamKey(seed, "order", static_cast<uint64_t>(epoch), p),
                  "window", w));
    size_t i = w * window;
    while (drawn >= sizes[windows_of->shards[i]])
      drawn -= sizes[windows_of->shards[i++]];
    return shard_begins[p][windows_of->shards[i]] + drawn;
  }
};

absl::StatusOr<Sampler> Sampler::Create(std::vector<SourcePart> parts,
                                        int64_t batch_size, uint64_t seed) {
  int64_t size = 0;
  for (const SourcePart& part : parts) size += part.size;
  if (size < 1 || size < batch_size) {
    return absl::FailedPreconditionError(
        absl::StrCat("the data set is smaller than a batch: got ", size,
                     " samples, expected at least ", batch_size,
                     ". Set trainer { batch_size } to ",
                     size > 0 ? absl::StrCat(size) : std::string("the data's"),
                     " or less, or add data"));
  }
  auto state = std::make_shared<State>();
  for (size_t p = 0; p < parts.size(); ++p) {
    SourcePart& part = parts[p];
    if (part.size < 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "source ", p, " of the mixture has no samples; leave it out"));
    }
    if (part.shards.empty()) part.shards = {part.size};
    std::vector<int64_t> begins;
    int64_t begin = part.begin;
    for (const int64_t shard : part.shards) {
      begins.push_back(begin);
      begin += shard;
    }
    state->shard_begins.push_back(std::move(begins));
  }
  if (parts.size() > 1) {
    absl::StatusOr<std::vector<int64_t>> counts = Apportion(parts);
    if (!counts.ok()) return counts.status();
    state->counts = *std::move(counts);
  }
  state->parts = std::move(parts);
  state->seed = seed;
  return Sampler(size, std::move(state));
}

absl::StatusOr<Sampler> Sampler::Create(int64_t size, int64_t batch_size,
                                        uint64_t seed) {
  SourcePart all;
  all.size = size;
  return Create({all}, batch_size, seed);
}

int64_t Sampler::Index(int64_t number) const {
  const Place place = state_->Locate(number);
  const SourcePart& part = state_->parts[place.part];
  const int64_t epoch = place.number / part.size, at = place.number % part.size;
  if (state_->HasRuns(place.part)) return state_->InRuns(place.part, epoch, at);
  if (state_->HasWindows(place.part))
    return state_->InWindows(place.part, epoch, at);
  return part.begin +
         Permute(at, part.size,
                 StreamKey(state_->seed, "order", static_cast<uint64_t>(epoch),
                           place.part));
}

int64_t Sampler::Substitute(int64_t number, int64_t attempt) const {
  const Place place = state_->Locate(number);
  const SourcePart& part = state_->parts[place.part];
  RandomStream random(state_->seed, "substitute", static_cast<uint64_t>(number),
                      static_cast<uint64_t>(attempt));
  // One that is near in the order comes from shards that are at hand.
  if (state_->HasWindows(place.part)) {
    const int64_t at = place.number % part.size,
                  epoch = place.number / part.size;
    const int64_t reach = std::min<int64_t>(part.size - 1, 1000);
    if (reach == 0) return part.begin;
    const int64_t first =
        std::clamp<int64_t>(at - reach / 2, 0, part.size - 1 - reach);
    return state_->InWindows(place.part, epoch,
                             first + random.Below(reach + 1));
  }
  return part.begin + random.Below(part.size);
}

}  // namespace semvq
