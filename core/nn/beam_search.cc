#include "core/nn/beam_search.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

namespace semvq {
namespace {

struct Live {
  std::vector<int64_t> ids;
  double log_likelihood = 0;
};

struct Candidate {
  double log_likelihood = 0;
  size_t parent = 0;  // Index in the source's live texts, the best first.
  int64_t token = 0;
};

struct Source {
  std::vector<Live> live = {Live()};
  std::optional<WrittenText> best;
};

class Search {
 public:
  Search(int64_t sources, const BeamSearchOptions& options)
      : options_(options), sources_(sources) {}

  std::vector<WrittenText> Run(const NextLogits& next,
                               const std::vector<int64_t>& prefix,
                               at::Device device) {
    for (int64_t step = 1; step <= options_.max_new_tokens; ++step) {
      std::vector<int64_t> ids, owners;
      for (size_t s = 0; s < sources_.size(); ++s) {
        for (const Live& live : sources_[s].live) {
          ids.insert(ids.end(), prefix.begin(), prefix.end());
          ids.insert(ids.end(), live.ids.begin(), live.ids.end());
          owners.push_back(static_cast<int64_t>(s));
        }
      }
      if (owners.empty()) break;
      const auto rows = static_cast<int64_t>(owners.size());
      Advance(step,
              next(torch::tensor(ids, at::kLong).view({rows, -1}).to(device),
                   torch::tensor(owners, at::kLong).to(device)));
    }
    std::vector<WrittenText> texts;
    for (Source& source : sources_) {
      for (const Live& live : source.live)
        Offer(source, live.ids, live.log_likelihood, options_.max_new_tokens,
              /*ended=*/false);
      texts.push_back(source.best.value_or(WrittenText()));
    }
    return texts;
  }

 private:
  double Score(double log_likelihood, int64_t length) const {
    return log_likelihood /
           std::pow(static_cast<double>(length), options_.length_penalty);
  }

  void Offer(Source& source, const std::vector<int64_t>& ids,
             double log_likelihood, int64_t length, bool ended) const {
    const double score = Score(log_likelihood, length);
    if (!source.best.has_value() || score > source.best->score)
      source.best = WrittenText{ids, score, ended};
  }

  // logits [R, V], a row for each live text in order.
  void Advance(int64_t step, const at::Tensor& logits) {
    // Sums of many steps in double.
    at::Tensor log_p = at::log_softmax(logits.to(at::kDouble), -1);
    std::vector<int64_t> barred = options_.barred;
    if (step <= options_.min_new_tokens) barred.push_back(options_.end);
    if (!barred.empty()) {
      log_p = log_p.index_fill(
          1, torch::tensor(barred, at::kLong).to(log_p.device()),
          -std::numeric_limits<double>::infinity());
    }
    const int64_t width = std::min(2 * options_.beam_size, log_p.size(1));
    const auto [top, tokens] = log_p.topk(width, 1);
    const at::Tensor values = top.to(at::kCPU).contiguous();
    const at::Tensor ids = tokens.to(at::kCPU).contiguous();
    const double* value = values.data_ptr<double>();
    const int64_t* id = ids.data_ptr<int64_t>();
    for (Source& source : sources_) {
      std::vector<Candidate> candidates;
      for (size_t parent = 0; parent < source.live.size(); ++parent) {
        for (int64_t i = 0; i < width; ++i, ++value, ++id) {
          if (std::isinf(*value)) continue;
          candidates.push_back(
              {source.live[parent].log_likelihood + *value, parent, *id});
        }
      }
      Take(step, candidates, source);
    }
  }

  void Take(int64_t step, std::vector<Candidate>& candidates, Source& source) {
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) {
                return std::make_tuple(-a.log_likelihood, a.parent, a.token) <
                       std::make_tuple(-b.log_likelihood, b.parent, b.token);
              });
    const auto beam = static_cast<size_t>(options_.beam_size);
    std::vector<Live> live;
    for (size_t rank = 0; rank < candidates.size() && live.size() < beam;
         ++rank) {
      const Candidate& c = candidates[rank];
      if (c.token == options_.end) {
        // One that would not have been kept is no result either.
        if (rank >= beam) continue;
        Offer(source, source.live[c.parent].ids, c.log_likelihood, step, true);
        if (beam == 1) break;
        continue;
      }
      live.push_back({source.live[c.parent].ids, c.log_likelihood});
      live.back().ids.push_back(c.token);
    }
    // A text's log-likelihood only falls, so this is all that one can reach.
    if (source.best.has_value() && !live.empty() &&
        source.best->score >=
            Score(live[0].log_likelihood, options_.max_new_tokens)) {
      live.clear();
    }
    source.live = std::move(live);
  }

  const BeamSearchOptions& options_;
  std::vector<Source> sources_;
};

}  // namespace

std::vector<WrittenText> BeamSearch(const NextLogits& next, int64_t sources,
                                    const std::vector<int64_t>& prefix,
                                    const BeamSearchOptions& options,
                                    at::Device device) {
  TORCH_CHECK(
      options.beam_size > 0 && options.length_penalty >= 0 && !prefix.empty(),
      "beam search: beam_size must be positive, length_penalty at "
      "least 0, and there must be a first token");
  return Search(sources, options).Run(next, prefix, device);
}

}  // namespace semvq
