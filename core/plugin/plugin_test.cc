#include "core/plugin/field_errors.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

TEST(FieldErrorsTest, CollectsEveryErrorByField) {
  FieldErrors errors;
  errors.Require(true, "fine", 1, "anything");
  EXPECT_TRUE(errors.status().ok());
  errors.Require(false, "dim", -3, "a positive number");
  errors.RequireInstance("image", "");
  EXPECT_EQ(errors.status().message(),
            "dim: got -3, expected a positive number\n"
            "image: got an empty name, expected the name of an instance of the "
            "experiment");
}

}  // namespace
}  // namespace semvq
