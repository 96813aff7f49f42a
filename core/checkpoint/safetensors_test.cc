#include "core/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

std::string TempPath(const std::string& name) {
  return JoinPath(testing::TempDir(), name);
}

// A file of a header, as given, and `data_size` zero bytes.
std::string Raw(const std::string& header, int64_t data_size,
                int64_t length = -1) {
  uint64_t n = length < 0 ? header.size() : length;
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(n >> (8 * i));
  return out + header + std::string(data_size, '\0');
}

absl::Status OpenRaw(const std::string& contents) {
  const std::string path = TempPath("raw.safetensors");
  EXPECT_TRUE(AtomicWriteFile(path, contents).ok());
  const auto file = SafetensorsFile::Open(path);
  if (!file.ok()) {
    EXPECT_NE(file.status().message().find("raw.safetensors"),
              absl::string_view::npos)
        << "the file is not named: " << file.status();
  }
  return file.status();
}

TEST(Safetensors, RoundTripsEveryDtype) {
  at::manual_seed(1);
  NamedTensors tensors;
  for (auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16,
                    at::kLong, at::kInt, at::kShort, at::kChar, at::kByte}) {
    tensors.emplace_back(absl::StrCat("t.", c10::toString(type)),
                         at::randint(-100, 100, {3, 5}).to(type));
  }
  tensors.emplace_back("bool", at::rand({7}) > 0.5);
  tensors.emplace_back("scalar", at::scalar_tensor(2.5));
  tensors.emplace_back("empty", at::empty({0, 4}));
  tensors.emplace_back("strided", at::rand({4, 6}).t().slice(0, 0, 6, 2));
  tensors.emplace_back("odd \"name\"\\\n\x01 é", at::rand({2}));
  const std::map<std::string, std::string> metadata = {{"a", "b\"\n"},
                                                       {"é", ""}};
  const std::string path = TempPath("all.safetensors");
  FileDigest digest;
  ASSERT_TRUE(WriteSafetensors(path, tensors, metadata, &digest).ok());
  EXPECT_EQ(digest.size_bytes, *FileSize(path));
  EXPECT_EQ(digest.sha256, *Sha256File(path));

  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->metadata(), metadata);
  EXPECT_EQ((*file)->names().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const auto got = (*file)->Get(name);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(got->sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(*got, tensor)) << name;
    const auto view = (*file)->View(name);
    ASSERT_TRUE(view.ok()) << view.status();
    EXPECT_EQ(view->scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(view->sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(*view, tensor)) << name;
  }
  EXPECT_EQ((*file)->View("absent").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ((*file)->Get("absent").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(Safetensors, KeepsEveryBit) {
  // NaN payloads, signed zeros and subnormals.
  const at::Tensor bits = at::empty({4}, at::kInt);
  const int32_t values[] = {0x7fc12345, -2147483647 - 1, 1, -4194303};
  std::memcpy(bits.data_ptr(), values, sizeof(values));
  const std::string path = TempPath("bits.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {{"x", bits.view(at::kFloat)}}).ok());
  const at::Tensor got = *(*SafetensorsFile::Open(path))->Get("x");
  EXPECT_EQ(std::memcmp(got.data_ptr(), values, sizeof(values)), 0);
}

TEST(Safetensors, BytesDoNotDependOnOrder) {
  const at::Tensor a = at::ones({3}), b = at::ones({2}, at::kLong);
  const std::string path1 = TempPath("o1"), path2 = TempPath("o2");
  ASSERT_TRUE(WriteSafetensors(path1, {{"a", a}, {"b", b}}).ok());
  ASSERT_TRUE(WriteSafetensors(path2, {{"b", b}, {"a", a}}).ok());
  EXPECT_EQ(*ReadFile(path1), *ReadFile(path2));
}

TEST(Safetensors, RefusesToWriteNonsense) {
  const std::string path = TempPath("bad_write");
  const at::Tensor x = at::ones({1});
  const NamedTensors cases[] = {{{"x", x}, {"x", x}},
                                {{"x", at::Tensor()}},
                                {{"x", at::ones({1}, at::kComplexFloat)}},
                                {{"__metadata__", x}},
                                {{"\xff", x}}};
  for (const NamedTensors& tensors : cases) {
    EXPECT_EQ(WriteSafetensors(path, tensors).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(WriteSafetensors(path, {}, {{"k", "\xff"}}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(WriteSafetensors("/dev/full", {{"x", x}}).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  EXPECT_TRUE(OpenRaw(Raw("{}", 0)).ok());
  EXPECT_TRUE(OpenRaw(Raw("{}      ", 0)).ok());
  EXPECT_TRUE(
      OpenRaw(
          Raw(R"({"x":{"shape":[2],"data_offsets":[0,8],"dtype":"F32"}})", 8))
          .ok());
}

TEST(Safetensors, RefusesHostileHeaders) {
  const std::string f32 = R"("dtype":"F32","shape":[1],"data_offsets":)";
  const std::string one = R"({"x":{)" + f32;
  struct {
    std::string contents;
    const char* expected;
  } cases[] = {
      {"", "truncated"},
      {"1234567", "truncated"},
      {Raw("{}", 0, 3), "truncated"},
      {Raw("{}", 0, 100'000'001), "100000000"},
      {Raw("{}", 0, 1'000'000'000'000), "a header of 1000000000000 bytes"},
      {std::string(8, '\xff') + "{}", "100000000"},
      {Raw("[]", 0), "start with"},
      {Raw("{\"x\":", 0), "JSON"},
      {Raw("{\"\xff\":1}", 0), "JSON"},
      {Raw("{} {}", 0), "JSON"},
      {Raw("{" + std::string(5000, '['), 0), "JSON"},
      {Raw(R"({"x":)" + std::string(5000, '[') + std::string(5000, ']') + "}",
           0),
       "JSON"},
      {Raw(R"({"x":3})", 0), "\"x\": its entry is an integer"},
      {Raw(R"({"x":{"dtype":"F32","shape":[1]}})", 4),
       "\"data_offsets\" is missing"},
      {Raw(R"({"x":{"dtype":"F32","data_offsets":[0,4]}})", 4),
       "\"shape\" is missing"},
      {Raw(R"({"x":{"shape":[1],"data_offsets":[0,4]}})", 4),
       "\"dtype\" is missing"},
      {Raw(one + R"([0,4],"extra":1}})", 4), "unknown field \"extra\""},
      {Raw(one + R"([0,4],"dtype":"F32"}})", 4), "two fields \"dtype\""},
      {Raw(one + "[0,4]},\"x\":{" + f32 + "[4,8]}}", 8),
       "two entries of this name"},
      {Raw(one + "[0,4]}}", 3), "past the end"},
      {Raw(one + "[0,4]}}", 5), "holds 5 bytes"},
      {Raw(one + "[4,8]}}", 8), "belong to no tensor"},
      {Raw(one + "[0,8]}}", 8), "needs 4"},
      {Raw(one + "[4,0]}}", 4), "end before"},
      {Raw(one + "[-4,0]}}", 4), "holds -4"},
      {Raw(one + "[0,18446744073709551615]}}", 4), "18446744073709551615"},
      {Raw(one + "[0,4.0]}}", 4), "holds 4"},
      {Raw(one + "[0]}}", 4), "has 1 numbers"},
      {Raw(one + "\"0,4\"}}", 4), "expected an array"},
      {Raw(one + "[0,4]},\"y\":{" + f32 + "[0,4]}}", 4), "overlaps"},
      {Raw(R"({"x":{"dtype":"F9","shape":[1],"data_offsets":[0,4]}})", 4),
       "dtype F9"},
      {Raw(R"({"x":{"dtype":7,"shape":[1],"data_offsets":[0,4]}})", 4),
       "dtype is an integer"},
      {Raw(R"({"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
       "holds -1"},
      {Raw(R"({"x":{"dtype":"F32","shape":[4611686018427387904,4],)"
           R"("data_offsets":[0,0]}})",
           0),
       "overflows"},
      {Raw(R"({"x":{"dtype":"F32","shape":[0,4611686018427387904,4],)"
           R"("data_offsets":[0,0]}})",
           0),
       "overflows"},
      {Raw(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
           R"("x":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
           5),
       "\"x\": data_offsets [1, 5) are not aligned"},
      {Raw(R"({"__metadata__":3})", 0), "__metadata__ is an integer"},
      {Raw(R"({"__metadata__":{"a":3}})", 0), "__metadata__.a"},
      {Raw(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "two entries \"a\""},
  };
  for (const auto& c : cases) {
    const absl::Status status = OpenRaw(c.contents);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << c.expected;
    EXPECT_NE(status.message().find(c.expected), absl::string_view::npos)
        << "wanted " << c.expected << ", got " << status;
  }
}

TEST(Safetensors, RefusesBadBooleans) {
  std::string contents =
      Raw(R"({"x":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", 2);
  contents.back() = 2;
  const std::string path = TempPath("bool.safetensors");
  ASSERT_TRUE(AtomicWriteFile(path, contents).ok());
  EXPECT_EQ((*SafetensorsFile::Open(path))->Get("x").status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ((*SafetensorsFile::Open(path))->View("x").status().code(),
            absl::StatusCode::kDataLoss);
}

// Lines of /proc/self/maps that name `path`.
int Mappings(const std::string& path) {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);) {
    count += line.find(path) != std::string::npos;
  }
  return count;
}

TEST(Safetensors, ViewsAreMappedAndOutliveTheFile) {
  const std::string path = TempPath("view.safetensors");
  ASSERT_TRUE(
      WriteSafetensors(path, {{"x", at::arange(4)}, {"y", at::ones({3})}})
          .ok());
  const std::string before = *ReadFile(path);
  at::Tensor x;
  {
    auto file = SafetensorsFile::Open(path);
    ASSERT_TRUE(file.ok());
    EXPECT_EQ(Mappings(path), 0);
    x = *(*file)->View("x");
    const at::Tensor y = *(*file)->View("y");
    EXPECT_EQ(Mappings(path), 1);  // Both share it.
    EXPECT_TRUE(at::equal(y, at::ones({3})));
  }
  EXPECT_TRUE(at::equal(x, at::arange(4)));
  x.fill_(9);  // In memory only.
  EXPECT_EQ(*ReadFile(path), before);
  x.reset();
  EXPECT_EQ(Mappings(path), 0);
}

// Other writers need not pad the header to whole elements.
TEST(Safetensors, ViewsOfUnalignedFilesAreCopies) {
  std::string contents =
      Raw(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  ASSERT_NE((contents.size() - 4) % 4, 0u);
  const float value = 2.5f;
  std::memcpy(&contents[contents.size() - 4], &value, 4);
  const std::string path = TempPath("unaligned.safetensors");
  ASSERT_TRUE(AtomicWriteFile(path, contents).ok());
  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto x = (*file)->View("x");
  ASSERT_TRUE(x.ok()) << x.status();
  EXPECT_EQ(x->item<float>(), 2.5f);
}

TEST(Safetensors, ShrinkingFileIsAnError) {
  const std::string path = TempPath("shrink.safetensors");
  ASSERT_TRUE(WriteSafetensors(path, {{"x", at::ones({100})}}).ok());
  auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(AtomicWriteFile(path + ".copy", *ReadFile(path)).ok());
  ASSERT_EQ(truncate(path.c_str(), 200), 0);
  EXPECT_EQ((*file)->Get("x").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ((*file)->View("x").status().code(), absl::StatusCode::kDataLoss);
}

// Any single damaged byte of a small file either changes a value or is refused;
// it never crashes.
TEST(Safetensors, SurvivesEveryFlippedHeaderByte) {
  const std::string path = TempPath("flip.safetensors");
  ASSERT_TRUE(
      WriteSafetensors(path, {{"x", at::ones({4})}, {"y", at::ones({2, 2})}})
          .ok());
  const std::string good = *ReadFile(path);
  for (size_t i = 0; i < good.size() - 32; ++i) {
    for (int bit : {0, 3, 7}) {
      std::string bad = good;
      bad[i] ^= 1 << bit;
      ASSERT_TRUE(AtomicWriteFile(path, bad).ok());
      const auto file = SafetensorsFile::Open(path);
      if (!file.ok()) continue;
      for (const std::string& name : (*file)->names()) {
        EXPECT_TRUE((*file)->Get(name).ok());
      }
    }
  }
}

}  // namespace
}  // namespace semvq
