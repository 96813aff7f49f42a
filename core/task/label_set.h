// The labels a task knows, under their official names.
#ifndef SEMVQ_CORE_TASK_LABEL_SET_H_
#define SEMVQ_CORE_TASK_LABEL_SET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/forward/text_record.h"

namespace semvq {

class LabelSet {
 public:
  // What ClassOf gives for a record that counts nowhere.
  static constexpr int64_t kIgnored = -1;

  // `names`: distinct, by class. `ignored`: what stands in the files for "no
  // label was agreed on"; empty: nothing does.
  explicit LabelSet(std::vector<std::string> names, std::string ignored = "");

  int64_t size() const { return static_cast<int64_t>(names_.size()); }
  const std::string& name(int64_t label) const { return names_.at(label); }
  const std::vector<std::string>& names() const { return names_; }

  // The class of a record's one answer; upper and lower case are the same.
  // InvalidArgument, with the record, for another number of answers and for
  // any other label.
  absl::StatusOr<int64_t> ClassOf(const TextRecord& record) const;

 private:
  std::vector<std::string> names_;
  std::string ignored_;
};

// The record in messages: 'the text "two dogs" (dev-7-0-1)'.
std::string Describe(const TextRecord& record);

}  // namespace semvq

#endif  // SEMVQ_CORE_TASK_LABEL_SET_H_
