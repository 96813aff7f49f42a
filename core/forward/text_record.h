// Free of LibTorch, so that data sources compile fast.
#ifndef SEMVQ_CORE_FORWARD_TEXT_RECORD_H_
#define SEMVQ_CORE_FORWARD_TEXT_RECORD_H_

#include <string>
#include <utility>
#include <vector>

namespace semvq {

// What is known of a text beside its tokens; host side.
struct TextRecord {
  // question_id, caption id; may be empty.
  std::string id;
  // As read, before cleaning.
  std::string text;
  // Distinct answers, each with its share of the annotators. Labels of other
  // tasks are answers too ("true", "entailment").
  std::vector<std::pair<std::string, float>> answers;
  // How many annotators the shares are of.
  int annotators = 1;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_FORWARD_TEXT_RECORD_H_
