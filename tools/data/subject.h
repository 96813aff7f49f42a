// What the benchmark sets are about: one emoji for each concept, of a kind.
#ifndef SEMVQ_TOOLS_DATA_SUBJECT_H_
#define SEMVQ_TOOLS_DATA_SUBJECT_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/data/common.h"

namespace semvq::tools {

// The two levels of CLDR's character labels, by the sequence without U+FE0F:
// U"\U0001F680" -> {"Travel & Places", "transport-air"}.
using Labels = std::map<std::u32string, std::pair<std::string, std::string>>;

// Reads CLDR's properties/labels.txt. A character that has several labels keeps
// its first. Errors name file and line.
absl::StatusOr<Labels> ReadLabels(const std::string& path);

// A kind of thing that a picture can show.
struct Kind {
  const char* phrase;               // "an animal"
  std::vector<const char*> labels;  // Second-level labels.
  // Kinds that the same picture may show too (a chef is a person with a hat),
  // by position: statements never set them against each other.
  std::vector<int> clashes;
};
const std::vector<Kind>& Kinds();
bool Clash(int a, int b);

struct Subject {
  std::string image, image_id, name, concept_name;
  int kind = -1;  // -1: none of Kinds().
};

// The emoji among `pairs` that CLDR labels, one for each concept group: the one
// with the shortest sequence, then the first. Variants (names with ':', as of
// skin tones, flags and keycaps), and what cannot be told apart by its name
// (skin tones) are left out. By image id.
std::vector<Subject> Subjects(const std::vector<Pair>& pairs,
                              const Labels& labels);

// Where the sets take their subjects from: concept groups of the training
// pairs, and those that are held out from them for testing.
struct SubjectPools {
  std::vector<Subject> trained, unseen;
};

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_SUBJECT_H_
