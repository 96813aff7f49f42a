// How a quantizer used its codes, and tables of that.
#ifndef SEMVQ_BENCH_QUANTIZERS_COLLAPSE_REPORT_H_
#define SEMVQ_BENCH_QUANTIZERS_COLLAPSE_REPORT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace semvq {

// Counts the codes of many batches, each group of codes by itself.
class CodeUse {
 public:
  explicit CodeUse(const std::vector<int64_t>& codes_per_group);

  // int64 [..., G], G groups. -1 (no code) counts nowhere. Throws c10::Error on
  // another number of groups.
  void Add(const at::Tensor& codes);

  // Share of its codes that a group uses: of the group that uses the least.
  // 0 without groups.
  double LeastShare() const;
  // Perplexity of a group's histogram, the mean over groups. 0 without groups.
  double MeanPerplexity() const;
  // Codes that never came, of all groups.
  int64_t Unused() const;

 private:
  std::vector<at::Tensor> histograms_;  // int64 [K] each.
};

// What one quantizer did with one seed.
struct ArmResult {
  std::string name;
  uint64_t seed = 0;
  std::vector<int64_t> codes_per_group;  // Empty: it has no codes.
  // The step whose loss or gradient was not finite, which ended it; -1: none.
  // Nothing below is set then.
  int64_t nonfinite_step = -1;
  double used_held_out = 0;  // CodeUse::LeastShare of the held-out features.
  // Of the training features of each stretch of so many steps, the last one at
  // the end (the first may be shorter): the least share of a group, codes that
  // were revived meanwhile not counted.
  std::vector<double> used_by_stretch;
  double perplexity = 0;  // CodeUse::MeanPerplexity, held out.
  int64_t dead = 0;       // CodeUse::Unused of the last steps, revived or not.
  double error = 0;      // Of the held-out features' reconstruction, over their
                         // variance.
  double step_ms = 0;    // Median over steps.
  int64_t features = 0;  // Held out: how many were counted.
};

// What is known of a whole table.
struct TableFacts {
  int64_t steps = 0;
  int64_t stretch = 0;     // Steps.
  int64_t batch_size = 0;  // Images.
  std::string experiment;  // Where the encoder and the data come from.
  std::string weights;
};

// A Markdown table, a line for each name in the order of its first result: mean
// over seeds, and with several the sample standard deviation.
std::string CollapseTable(const std::vector<ArmResult>& results,
                          const TableFacts& facts);

// All results one by one, and the facts.
std::string CollapseJson(const std::vector<ArmResult>& results,
                         const TableFacts& facts);

// Names, with the seed's shares, of those with codes that with any seed use
// less than `least` of them, held out or in the last stretch, or whose loss was
// not finite.
std::vector<std::string> Collapsed(const std::vector<ArmResult>& results,
                                   double least);

}  // namespace semvq

#endif  // SEMVQ_BENCH_QUANTIZERS_COLLAPSE_REPORT_H_
