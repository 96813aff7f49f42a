#include "core/text/caption.h"

#include <string>

#include "gtest/gtest.h"

namespace semvq {
namespace {

TEST(CleanCaption, FollowsAlbef) {
  EXPECT_EQ(CleanCaption("A dog's \"big\" Red-and/white BALL, isn't it?!"),
            "a dogs big red and white ball isnt it");
  EXPECT_EQ(CleanCaption("  two\t\tcats \n on (a) #sofa ~ ; : * "),
            "two cats on a sofa");
  EXPECT_EQ(CleanCaption("<PERSON> rides a bike."), "person rides a bike");
  EXPECT_EQ(CleanCaption("Is <person> riding?"), "is person riding");
  EXPECT_EQ(CleanCaption(""), "");
  EXPECT_EQ(CleanCaption(" .,!- "), "");
  // A dropped sign joins what it stood between; a hyphen parts it.
  EXPECT_EQ(CleanCaption("a.b c-d"), "ab c d");
}

TEST(CleanCaption, LowersAllScripts) {
  EXPECT_EQ(CleanCaption("CAFÉ ÜBER ДОМ"), "café über дом");
  // No-break and ideographic spaces separate words.
  EXPECT_EQ(CleanCaption("a\u00a0b\u3000犬"), "a b 犬");
  EXPECT_EQ(CleanCaption("a 🐶 dog"), "a 🐶 dog");
}

TEST(CleanCaption, KeepsAtMostSoManyWords) {
  std::string words;
  for (int i = 0; i < 40; ++i) words += "w" + std::to_string(i) + " ";
  std::string expected = "w0";
  for (int i = 1; i < 30; ++i) expected += " w" + std::to_string(i);
  EXPECT_EQ(CleanCaption(words), expected);
  EXPECT_EQ(CleanCaption("a b c", 2), "a b");
  EXPECT_EQ(CleanCaption("a b ", 2), "a b");
  EXPECT_EQ(CleanCaption("a - b c", 2), "a b");
  EXPECT_EQ(CleanCaption("a b c", 0), "a b c");
}

TEST(CleanCaption, IsIdempotent) {
  for (const char* text :
       {"A dog's Ball -- red/white", "É  À", "x <person> y"}) {
    const std::string once = CleanCaption(text);
    EXPECT_EQ(CleanCaption(once), once);
  }
}

TEST(CleanCaption, LeavesBadBytesForValidation) {
  EXPECT_FALSE(ValidateUtf8(CleanCaption("A \xff B")).ok());
  // Broken bytes do not become a character when what parts them is dropped.
  EXPECT_FALSE(ValidateUtf8(CleanCaption("\xe3\x80!\x80")).ok());
}

TEST(ValidateUtf8, AcceptsWellFormedText) {
  EXPECT_TRUE(ValidateUtf8("").ok());
  EXPECT_TRUE(ValidateUtf8("abc é 犬 🐶").ok());
  EXPECT_TRUE(ValidateUtf8(std::string("\0\x7f", 2)).ok());
  EXPECT_TRUE(ValidateUtf8("\xf4\x8f\xbf\xbf").ok());  // U+10FFFF
}

TEST(ValidateUtf8, NamesTheOffset) {
  struct {
    std::string text;
    int offset;
  } cases[] = {
      {"abc\xff", 3},
      {"\x80", 0},               // continuation without a start
      {"é\xc3", 2},              // cut off
      {"ab\xc0\xaf", 2},         // overlong '/'
      {"\xed\xa0\x80", 0},       // surrogate
      {"x\xf4\x90\x80\x80", 1},  // past U+10FFFF
      {"ok \xe2\x82", 3},        // two of three bytes
  };
  for (const auto& c : cases) {
    const absl::Status status = ValidateUtf8(c.text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_NE(status.message().find("offset " + std::to_string(c.offset) + " "),
              absl::string_view::npos)
        << status;
  }
}

}  // namespace
}  // namespace semvq
