#include "core/eval/caption_metrics.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/eval/annotation_json.h"
#include "core/text/unicode.h"

namespace semvq {
namespace {

constexpr int kOrders = 4;

// Words as numbers, so that n-grams compare fast.
class Vocabulary {
 public:
  std::vector<int32_t> Ids(absl::string_view text) {
    std::vector<int32_t> ids;
    for (std::string& word : SplitUnicodeSpace(text)) {
      const auto next = static_cast<int32_t>(ids_.size());
      ids.push_back(ids_.try_emplace(std::move(word), next).first->second);
    }
    return ids;
  }

 private:
  std::unordered_map<std::string, int32_t> ids_;
};

using Ngram = std::vector<int32_t>;
// Ordered, so that sums do not depend on a hash.
using NgramCounts = std::map<Ngram, int64_t>;

// N-grams of 1 to kOrders words.
NgramCounts Count(const std::vector<int32_t>& words) {
  NgramCounts counts;
  for (size_t n = 1; n <= kOrders; ++n) {
    for (size_t i = 0; i + n <= words.size(); ++i)
      ++counts[Ngram(words.begin() + i, words.begin() + i + n)];
  }
  return counts;
}

// TF-IDF of a caption's n-grams, by order.
struct CiderVector {
  std::array<std::map<Ngram, double>, kOrders> weights;
  std::array<double, kOrders> norm = {};
  double length = 0;
};

CiderVector Weigh(const NgramCounts& counts,
                  const std::map<Ngram, int64_t>& documents, double log_size) {
  CiderVector vector;
  for (const auto& [ngram, count] : counts) {
    const size_t order = ngram.size() - 1;
    const auto found = documents.find(ngram);
    const double seen =
        found == documents.end() ? 1.0 : static_cast<double>(found->second);
    const double weight =
        static_cast<double>(count) * (log_size - std::log(seen));
    vector.weights[order].emplace(ngram, weight);
    vector.norm[order] += weight * weight;
    if (order == 1) vector.length += static_cast<double>(count);
  }
  for (double& norm : vector.norm) norm = std::sqrt(norm);
  return vector;
}

// Sum of the orders' similarities.
double Similarity(const CiderVector& candidate, const CiderVector& reference) {
  constexpr double kSigma = 6.0;
  const double delta = candidate.length - reference.length;
  const double penalty = std::exp(-delta * delta / (2 * kSigma * kSigma));
  double sum = 0;
  for (int order = 0; order < kOrders; ++order) {
    double value = 0;
    for (const auto& [ngram, weight] : candidate.weights[order]) {
      const auto found = reference.weights[order].find(ngram);
      if (found == reference.weights[order].end()) continue;
      value += std::min(weight, found->second) * found->second;
    }
    const double norms = candidate.norm[order] * reference.norm[order];
    if (norms != 0) value /= norms;
    sum += value * penalty;
  }
  return sum;
}

}  // namespace

std::array<double, 4> CorpusBleu(absl::Span<const CaptionCase> corpus) {
  std::array<int64_t, kOrders> correct = {}, guessed = {};
  int64_t length = 0, reference_length = 0;
  for (const CaptionCase& image : corpus) {
    Vocabulary vocabulary;
    const std::vector<int32_t> words = vocabulary.Ids(image.candidate);
    const auto size = static_cast<int64_t>(words.size());
    NgramCounts allowed;
    std::pair<int64_t, int64_t> closest = {INT64_MAX, 0};
    for (const std::string& text : image.references) {
      const std::vector<int32_t> reference = vocabulary.Ids(text);
      const auto other = static_cast<int64_t>(reference.size());
      closest = std::min(closest, {std::abs(other - size), other});
      for (const auto& [ngram, count] : Count(reference)) {
        int64_t& most = allowed[ngram];
        most = std::max(most, count);
      }
    }
    length += size;
    reference_length += closest.second;
    for (int k = 0; k < kOrders; ++k)
      guessed[k] += std::max<int64_t>(0, size - k);
    for (const auto& [ngram, count] : Count(words)) {
      const auto found = allowed.find(ngram);
      if (found != allowed.end())
        correct[ngram.size() - 1] += std::min(count, found->second);
    }
  }
  constexpr double kTiny = 1e-15, kSmall = 1e-9;
  const double ratio = (static_cast<double>(length) + kTiny) /
                       (static_cast<double>(reference_length) + kSmall);
  const double brevity = ratio < 1 ? std::exp(1 - 1 / ratio) : 1.0;
  std::array<double, 4> bleu = {};
  double product = 1;
  for (int k = 0; k < kOrders; ++k) {
    product *= (static_cast<double>(correct[k]) + kTiny) /
               (static_cast<double>(guessed[k]) + kSmall);
    bleu[k] = std::pow(product, 1.0 / (k + 1)) * brevity;
  }
  return bleu;
}

CiderScores Cider(absl::Span<const CaptionCase> corpus) {
  Vocabulary vocabulary;
  std::vector<NgramCounts> candidates;
  std::vector<std::vector<NgramCounts>> references;
  std::map<Ngram, int64_t> documents;
  for (const CaptionCase& image : corpus) {
    candidates.push_back(Count(vocabulary.Ids(image.candidate)));
    references.emplace_back();
    std::set<Ngram> seen;
    for (const std::string& text : image.references) {
      references.back().push_back(Count(vocabulary.Ids(text)));
      for (const auto& [ngram, count] : references.back().back())
        seen.insert(ngram);
    }
    for (const Ngram& ngram : seen) ++documents[ngram];
  }
  const double log_size = std::log(static_cast<double>(corpus.size()));
  CiderScores scores;
  double total = 0;
  for (size_t i = 0; i < corpus.size(); ++i) {
    const CiderVector candidate = Weigh(candidates[i], documents, log_size);
    double sum = 0;
    for (const NgramCounts& reference : references[i])
      sum += Similarity(candidate, Weigh(reference, documents, log_size));
    scores.each.push_back(10 * sum / kOrders /
                          static_cast<double>(references[i].size()));
    total += scores.each.back();
  }
  if (!corpus.empty()) scores.mean = total / static_cast<double>(corpus.size());
  return scores;
}

absl::StatusOr<absl::btree_map<std::string, std::vector<std::string>>>
LoadCocoCaptions(const std::string& path) {
  absl::btree_map<std::string, std::vector<std::string>> images;
  const std::string name = "COCO's captions file";
  absl::Status status = ForEachAnnotation(
      path, {"images", "id", name}, [&](const AnnotationRecord& record) {
        auto id = record.Id("id");
        if (!id.ok()) return id.status();
        if (images.try_emplace(*id).second) return absl::OkStatus();
        return record.Error(
            absl::StrCat("image ", *id, " comes twice, expected it once"));
      });
  if (!status.ok()) return status;
  std::set<std::string> captions;
  status = ForEachAnnotation(
      path, {"annotations", "caption", name},
      [&](const AnnotationRecord& record) {
        auto image = record.Id("image_id");
        if (!image.ok()) return image.status();
        auto id = record.Id("id");
        if (!id.ok()) return id.status();
        auto caption = record.String("caption");
        if (!caption.ok()) return caption.status();
        if (!captions.insert(*id).second) {
          return record.Error(
              absl::StrCat("caption id ", *id, " comes twice, expected once"));
        }
        const auto found = images.find(*image);
        if (found == images.end()) {
          return record.Error(absl::StrCat("image_id ", *image,
                                           " is not among the file's images"));
        }
        if (StripUnicodeSpace(*caption).empty())
          return record.Error("\"caption\" is empty, expected words");
        found->second.push_back(*std::move(caption));
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  for (const auto& [id, texts] : images) {
    if (texts.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": image ", id,
                       " has no caption, expected at least one; drop it from "
                       "\"images\" or add its captions"));
    }
  }
  return images;
}

}  // namespace semvq
