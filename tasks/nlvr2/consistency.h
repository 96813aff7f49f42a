// NLVR2's second measure: the share of statements that are judged right
// wherever they occur [Suhr et al. 2019].
#ifndef SEMVQ_TASKS_NLVR2_CONSISTENCY_H_
#define SEMVQ_TASKS_NLVR2_CONSISTENCY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// One example: a statement about one pair of images.
struct JudgedStatement {
  std::string identifier;  // "dev-850-0-1": split, set, pair, sentence; may be
                           // empty.
  std::string images;      // Their paths; read where there is no identifier.
  std::string text;        // The statement; read where there is no identifier.
  bool correct = false;
};

struct Consistency {
  int64_t statements = 0;
  int64_t consistent = 0;  // Of them, right in every occurrence.
  // What share guessing True or False evenly is expected to give.
  double chance = 0;
  // Whether examples were told apart by their identifiers, as officially; else
  // by the statement's text and what the images' names say.
  bool official = false;

  double share() const {
    return static_cast<double>(consistent) / static_cast<double>(statements);
  }
};

// What the examples of one statement have in common: the identifier without
// its third part. InvalidArgument for fewer than three parts.
absl::StatusOr<std::string> StatementKey(absl::string_view identifier);

// The same without identifiers: split and set from the images' names, where
// they are the official ones ("dev/dev-850-0-img0.png"), and the text.
std::string StatementKey(absl::string_view images, absl::string_view text);

// InvalidArgument when an identifier occurs twice, is none, or is missing from
// some of the examples. At least one example.
absl::StatusOr<Consistency> MeasureConsistency(
    const std::vector<JudgedStatement>& examples);

}  // namespace semvq

#endif  // SEMVQ_TASKS_NLVR2_CONSISTENCY_H_
