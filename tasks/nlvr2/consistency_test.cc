#include "tasks/nlvr2/consistency.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"

namespace semvq {
namespace {

JudgedStatement Named(const std::string& identifier, bool correct) {
  return {identifier, "", "", correct};
}
JudgedStatement Shown(const std::string& images, const std::string& text,
                      bool correct) {
  return {"", images, text, correct};
}

TEST(ConsistencyTest, StatementsAreIdentifiersWithoutThePair) {
  EXPECT_EQ(*StatementKey("dev-850-0-1"), "dev-850--1");
  EXPECT_EQ(*StatementKey("dev-850-3-1"), *StatementKey("dev-850-0-1"));
  EXPECT_NE(*StatementKey("dev-850-0-0"), *StatementKey("dev-850-0-1"));
  EXPECT_NE(*StatementKey("test1-850-0-1"), *StatementKey("dev-850-0-1"));
  EXPECT_EQ(*StatementKey("a-b-c"), "a-b-");
  EXPECT_EQ(StatementKey("dev-850").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ConsistencyTest, OneMistakeSpoilsAStatement) {
  const auto c =
      MeasureConsistency({Named("dev-1-0-0", true), Named("dev-1-1-0", true),
                          Named("dev-1-2-0", false), Named("dev-1-0-1", true),
                          Named("dev-1-1-1", true), Named("dev-2-0-0", false)});
  ASSERT_TRUE(c.ok()) << c.status();
  EXPECT_TRUE(c->official);
  EXPECT_EQ(c->statements, 3);
  EXPECT_EQ(c->consistent, 1);
  EXPECT_EQ(c->share(), 1.0 / 3);
  EXPECT_DOUBLE_EQ(c->chance, (1.0 / 8 + 1.0 / 4 + 1.0 / 2) / 3);
}

TEST(ConsistencyTest, WithoutIdentifiersImagesAndTextTell) {
  const std::string a = "dev/dev-1-0-img0.png dev/dev-1-0-img1.png";
  const std::string b = "dev/dev-1-3-img0.png dev/dev-1-3-img1.png";
  const std::string other = "dev-12-0-img0.jpg dev-12-0-img1.jpg";
  EXPECT_EQ(StatementKey(a, "x"), StatementKey(b, "x"));
  EXPECT_NE(StatementKey(a, "x"), StatementKey(b, "y"));
  EXPECT_NE(StatementKey(a, "x"), StatementKey(other, "x"));
  EXPECT_EQ(StatementKey("a.png b.png", "x"), "x");
  EXPECT_EQ(StatementKey("-img0.png", "x"), "\nx");
  const auto c =
      MeasureConsistency({Shown(a, "x", true), Shown(b, "x", false),
                          Shown(a, "y", true), Shown(other, "x", true)});
  ASSERT_TRUE(c.ok());
  EXPECT_FALSE(c->official);
  EXPECT_EQ(c->statements, 3);
  EXPECT_EQ(c->consistent, 2);
}

TEST(ConsistencyTest, Errors) {
  for (const auto& [examples, message] :
       std::vector<std::pair<std::vector<JudgedStatement>, std::string>>{
           {{}, "no example"},
           {{Named("dev-1-0-0", true), Shown("a", "b", true)},
            "1 of 2 examples have an identifier"},
           {{Named("dev-1-0-0", true), Named("dev-1-0-0", true)},
            "\"dev-1-0-0\" occurs twice"},
           {{Named("7", true)}, "\"7\", expected split-set-pair-sentence"}}) {
    const absl::Status status = MeasureConsistency(examples).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
  }
}

}  // namespace
}  // namespace semvq
