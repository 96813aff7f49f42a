#include "core/task/label_set.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"

namespace semvq {
namespace {

TextRecord Record(std::vector<std::pair<std::string, float>> answers) {
  TextRecord record;
  record.id = "dev-7-0-1";
  record.text = "two dogs";
  record.answers = std::move(answers);
  return record;
}

TEST(LabelSetTest, FindsLabelsInAnyCase) {
  const LabelSet labels({"False", "True"});
  EXPECT_EQ(labels.size(), 2);
  EXPECT_EQ(labels.name(1), "True");
  for (const char* spelling : {"True", "true", "TRUE"})
    EXPECT_EQ(*labels.ClassOf(Record({{spelling, 1.0f}})), 1);
  EXPECT_EQ(*labels.ClassOf(Record({{"false", 1.0f}})), 0);
}

TEST(LabelSetTest, TheIgnoredLabelIsNoError) {
  EXPECT_EQ(*LabelSet({"a", "b"}, "-").ClassOf(Record({{"-", 1.0f}})),
            LabelSet::kIgnored);
  EXPECT_FALSE(LabelSet({"a", "b"}).ClassOf(Record({{"-", 1.0f}})).ok());
  EXPECT_FALSE(LabelSet({"a", "b"}).ClassOf(Record({{"", 1.0f}})).ok());
}

TEST(LabelSetTest, ErrorsNameTheRecordAndWhatWasExpected) {
  const LabelSet labels({"False", "True"});
  for (const auto& [answers, got] : std::vector<
           std::pair<std::vector<std::pair<std::string, float>>, std::string>>{
           {{}, "got no label"},
           {{{"True", 0.5f}, {"False", 0.5f}}, "got 2 labels"},
           {{{"maybe", 1.0f}}, "got the label \"maybe\""}}) {
    const absl::Status status = labels.ClassOf(Record(answers)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    for (const std::string& part :
         {got, std::string("the text \"two dogs\" (dev-7-0-1)"),
          std::string("expected one of False, True")}) {
      EXPECT_TRUE(absl::StrContains(status.message(), part)) << status;
    }
  }
}

}  // namespace
}  // namespace semvq
