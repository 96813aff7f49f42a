#include "tools/data/split.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/data/concept.h"

namespace semvq::tools {

SplitShares DefaultShares() { return {0.055, 0.03, 0.057, 0.024}; }

namespace {

// What a held-out pair is called is no keyword of a training pair.
int64_t HoldOutKeywords(PairSplits* splits) {
  std::set<std::string> held_out;
  for (const std::vector<Pair>* part :
       {&splits->unseen, &splits->random, &splits->val_unseen,
        &splits->val_random}) {
    for (const Pair& pair : *part)
      held_out.insert(NormalizePhrase(pair.caption));
  }
  int64_t removed = 0;
  for (Pair& pair : splits->train) {
    const auto end =
        std::remove_if(pair.keywords.begin(), pair.keywords.end(),
                       [&](const std::string& word) {
                         return held_out.count(NormalizePhrase(word)) > 0;
                       });
    removed += pair.keywords.end() - end;
    pair.keywords.erase(end, pair.keywords.end());
  }
  return removed;
}

int64_t DropSharedKeywords(std::vector<Pair>* pairs) {
  std::map<std::vector<std::string>, int64_t> owners;
  for (const Pair& pair : *pairs) ++owners[pair.keywords];
  int64_t removed = 0;
  for (Pair& pair : *pairs) {
    if (pair.keywords.empty() || owners[pair.keywords] < 2) continue;
    pair.keywords.clear();
    ++removed;
  }
  return removed;
}

}  // namespace

PairSplits SplitPairs(std::vector<Pair> pairs, const SplitShares& shares) {
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
    return a.image_id < b.image_id;
  });
  PairSplits out;
  std::set<std::string> test_unseen, test_random, validation;
  std::vector<Pair> rest;
  const auto hold_out = [&](Pair pair, std::set<std::string>* phrases,
                            std::vector<Pair>* part) {
    if (phrases->insert(NormalizePhrase(pair.caption)).second) {
      part->push_back(std::move(pair));
    } else {
      ++out.dropped;
    }
  };
  for (Pair& pair : pairs) {
    const double at = HashFraction("concept:" + pair.concept_name);
    if (at < shares.unseen) {
      hold_out(std::move(pair), &test_unseen, &out.unseen);
    } else if (at < shares.unseen + shares.val_unseen) {
      hold_out(std::move(pair), &validation, &out.val_unseen);
    } else {
      rest.push_back(std::move(pair));
    }
  }
  for (Pair& pair : rest) {
    const double at = HashFraction("image:" + pair.image_id);
    const bool test = at < shares.random;
    if (!test && at >= shares.random + shares.val_random) {
      out.train.push_back(std::move(pair));
      continue;
    }
    auto& phrases = test ? test_random : validation;
    if (phrases.insert(NormalizePhrase(pair.caption)).second) {
      (test ? out.random : out.val_random).push_back(std::move(pair));
    } else {
      ++out.returned;
      out.train.push_back(std::move(pair));
    }
  }
  out.keywords_held_out = HoldOutKeywords(&out);
  out.keywords_shared = DropSharedKeywords(&out.train);
  return out;
}

absl::Status CheckSplits(const PairSplits& splits) {
  struct Part {
    const char* name;
    const std::vector<Pair>* pairs;
    bool holds_out_groups;
    int phrase_set;  // parts with one number share their phrases; -1: any
  };
  const Part parts[] = {{"train", &splits.train, false, -1},
                        {"unseen", &splits.unseen, true, 0},
                        {"random", &splits.random, false, 1},
                        {"val_unseen", &splits.val_unseen, true, 2},
                        {"val_random", &splits.val_random, false, 2}};
  std::map<std::string, const char*> held_out, images;
  std::set<std::pair<int, std::string>> phrases;
  for (const Part& part : parts) {
    for (const Pair& pair : *part.pairs) {
      const auto [it, inserted] = images.emplace(pair.image_id, part.name);
      if (!inserted) {
        return absl::InternalError(absl::StrCat(
            "image ", pair.image_id, " is in ", it->second, " and in ",
            part.name, "; every image belongs to one split"));
      }
      if (part.holds_out_groups) held_out[pair.concept_name] = part.name;
      if (part.phrase_set >= 0 &&
          !phrases.emplace(part.phrase_set, NormalizePhrase(pair.caption))
               .second) {
        return absl::InternalError(absl::StrCat("caption \"", pair.caption,
                                                "\" repeats in ", part.name,
                                                "; retrieval needs each once"));
      }
    }
  }
  for (const Part& part : parts) {
    for (const Pair& pair : *part.pairs) {
      const auto it = held_out.find(pair.concept_name);
      if (it != held_out.end() && absl::string_view(it->second) != part.name) {
        return absl::InternalError(absl::StrCat(
            "concept \"", pair.concept_name, "\" is held out for ", it->second,
            " but ", pair.image_id, " is in ", part.name));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace semvq::tools
