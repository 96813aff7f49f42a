// Collects all errors of a plugin's config, one a line, each starting with its
// field's name.
#ifndef SEMVQ_CORE_PLUGIN_FIELD_ERRORS_H_
#define SEMVQ_CORE_PLUGIN_FIELD_ERRORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"

namespace semvq {

class FieldErrors {
 public:
  // Unless `ok`: "<field>: got <got>, expected <expected>".
  template <class T>
  void Require(bool ok, absl::string_view field, const T& got,
               absl::string_view expected) {
    if (!ok) {
      errors_.push_back(
          absl::StrCat(field, ": got ", got, ", expected ", expected));
    }
  }
  // A field that names another instance must not be empty.
  void RequireInstance(absl::string_view field, const std::string& value) {
    Require(!value.empty(), field, "an empty name",
            "the name of an instance of the experiment");
  }
  // The ranges that many fields have. None holds for NaN.
  template <class T>
  void RequirePositive(absl::string_view field, const T& got) {
    Require(got > 0, field, got, "more than 0");
  }
  template <class T>
  void RequireNotNegative(absl::string_view field, const T& got) {
    Require(got >= 0, field, got, "0 or more");
  }
  void RequireProbability(absl::string_view field, double got) {
    Require(got >= 0 && got < 1, field, got, "a probability in [0, 1)");
  }
  // Nothing where one of the two is not positive: that is another error.
  void RequireDivisor(absl::string_view field, int64_t got,
                      absl::string_view whole_field, int64_t whole) {
    Require(got <= 0 || whole <= 0 || whole % got == 0, field, got,
            absl::StrCat("a divisor of ", whole_field, " ", whole));
  }
  // OK, or InvalidArgument with every error.
  absl::Status status() const {
    return errors_.empty()
               ? absl::OkStatus()
               : absl::InvalidArgumentError(absl::StrJoin(errors_, "\n"));
  }

 private:
  std::vector<std::string> errors_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_FIELD_ERRORS_H_
