// Collects all errors of a plugin's config, one a line, each starting with its
// field's name.
#ifndef SEMVQ_CORE_PLUGIN_FIELD_ERRORS_H_
#define SEMVQ_CORE_PLUGIN_FIELD_ERRORS_H_

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
