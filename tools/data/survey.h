// Looks at every sample of a data set, before days of training are spent on it.
#ifndef SEMVQ_TOOLS_DATA_SURVEY_H_
#define SEMVQ_TOOLS_DATA_SURVEY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/source.h"

namespace semvq::tools {

struct SurveyOptions {
  int workers = 2;
  int64_t max_pixels = 100000000;

  int64_t max_words = 30;  // Texts are cut to so many in training.
  bool decode = true;      // Else headers and ends only.
  int64_t most_named = 100000;
  bool progress = false;  // On stderr.
};

// Where and how often something occurs.
struct Finding {
  std::string what;
  int64_t count = 0;
  std::string first, second;  // Samples that show it.
};

// A histogram: counts[i] is of values in [from[i], from[i + 1]).
struct Histogram {
  std::vector<int64_t> from, counts;
  void Add(int64_t value);
  int64_t total() const;
};

struct Survey {
  int64_t samples = 0, good = 0, bad = 0;
  std::vector<std::string> bad_names;  // The first `most_named`, in order.
  std::map<std::string, int64_t> bad_kinds;  // What is wrong, without names.

  int64_t images = 0, image_bytes = 0;
  std::map<std::string, int64_t> formats;
  Histogram shorter_side, file_kib;
  int64_t largest_pixels = 0;
  std::string largest_image;

  // Equal bytes under several image ids: contrastive losses call them
  // different.
  int64_t duplicate_images = 0;     // Images that repeat another one's bytes.
  std::vector<Finding> duplicates;  // The most frequent.
  // One image id with different bytes: losses call them the same.
  int64_t ambiguous_ids = 0;
  std::vector<Finding> ambiguous;
  int64_t repeated_pairs = 0;  // The same text for the same image once more.

  int64_t texts = 0, cut_texts = 0, questions_with_answers = 0;
  int64_t distinct_texts = 0, distinct_words = 0, words_seen_once = 0,
          words = 0;
  Histogram text_words, texts_per_sample;
  std::vector<Finding> frequent_texts;  // By how many samples have it.
  std::vector<Finding> frequent_words;
  std::vector<Finding> frequent_answers;
  std::vector<std::string> examples;  // Some texts, spread over the data.

  double seconds = 0;
};

// Reads and decodes everything on threads. What it finds is the same for any
// number of workers, but `seconds`. Takes some 100 bytes a sample.
Survey TakeSurvey(const DataSource& source, const SurveyOptions& options);

// One HTML page that needs nothing else. `title` names the data set; `verdict`
// is why it fails, empty when it does not.
std::string SurveyPage(const Survey& survey, const std::string& title,
                       const std::string& verdict);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_SURVEY_H_
