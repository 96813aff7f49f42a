#include <limits>

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

TEST(FieldErrorsTest, RangesNameWhatTheyExpect) {
  FieldErrors fine;
  fine.RequirePositive("a", 1e-12);
  fine.RequireNotNegative("b", 0);
  fine.RequireProbability("c", 0.0);
  fine.RequireDivisor("d", 3, "e", 12);
  fine.RequireDivisor("d", 0, "e", 12);
  fine.RequireDivisor("d", 3, "e", 0);
  EXPECT_TRUE(fine.status().ok()) << fine.status();

  const double nan = std::numeric_limits<double>::quiet_NaN();
  FieldErrors errors;
  errors.RequirePositive("a", 0);
  errors.RequireNotNegative("b", -1);
  errors.RequireProbability("c", 1.0);
  errors.RequireDivisor("d", 5, "e", 12);
  errors.RequirePositive("f", nan);
  errors.RequireProbability("g", nan);
  EXPECT_EQ(errors.status().message(),
            "a: got 0, expected more than 0\n"
            "b: got -1, expected 0 or more\n"
            "c: got 1, expected a probability in [0, 1)\n"
            "d: got 5, expected a divisor of e 12\n"
            "f: got nan, expected more than 0\n"
            "g: got nan, expected a probability in [0, 1)");
}

}  // namespace
}  // namespace semvq
