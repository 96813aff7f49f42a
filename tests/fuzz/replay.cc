// The main function of a fuzz target outside --config=fuzz: each file of the
// corpus is a test case.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

class Replay : public testing::Test {
 public:
  explicit Replay(std::string path) : path_(std::move(path)) {}

  void TestBody() override {
    std::ifstream file(path_, std::ios::binary);
    ASSERT_TRUE(file.is_open()) << path_;
    const std::string input{std::istreambuf_iterator<char>(file), {}};
    // Exactly so many bytes, so that AddressSanitizer sees one read too far.
    const std::vector<uint8_t> bytes(input.begin(), input.end());
    EXPECT_EQ(LLVMFuzzerTestOneInput(bytes.data(), bytes.size()), 0);
  }

 private:
  const std::string path_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::vector<std::string> paths;
  for (int i = 1; i < argc; ++i) {
    // What else there is is for libFuzzer.
    if (argv[i][0] == '-') continue;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      paths.push_back(entry.path().string());
    }
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    testing::RegisterTest(
        "Corpus", std::filesystem::path(path).filename().c_str(), nullptr,
        nullptr, __FILE__, __LINE__,
        [path]() -> testing::Test* { return new Replay(path); });
  }
  return RUN_ALL_TESTS();
}
