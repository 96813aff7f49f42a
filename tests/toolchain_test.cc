// What the rest of the tree takes for granted about the libraries it is linked
// with: one fast GEMM, one protobuf, one absl.

#include <dlfcn.h>

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "opencv2/imgcodecs.hpp"
#include "opencv2/imgproc.hpp"
#include "tests/toolchain_test.pb.h"
#include "torch/types.h"

namespace semvq {
namespace {

absl::StatusOr<std::string> LibraryOf(const char* symbol) {
  void* address = dlsym(RTLD_DEFAULT, symbol);
  Dl_info info;
  if (address == nullptr || dladdr(address, &info) == 0) {
    return absl::NotFoundError(absl::StrCat("no library exports ", symbol));
  }
  return std::string(info.dli_fname);
}

// OpenCV's image codecs drag in a reference BLAS ten times slower than
// LibTorch's; both export these names, and the first one loaded wins.
TEST(ToolchainTest, GemmComesFromLibTorch) {
  // Touch OpenCV, so that it is linked at all.
  const cv::Mat black(4, 4, CV_8UC3, cv::Scalar(0, 0, 0));
  std::vector<unsigned char> png;
  ASSERT_TRUE(cv::imencode(".png", black, png));
  cv::Mat grey;
  cv::cvtColor(black, grey, cv::COLOR_BGR2GRAY);
  ASSERT_EQ(at::ones({2, 2}).mm(at::ones({2, 2})).sum().item<float>(), 8);

  for (const char* symbol : {"sgemm_", "dgemm_"}) {
    absl::StatusOr<std::string> library = LibraryOf(symbol);
    ASSERT_TRUE(library.ok()) << library.status();
    EXPECT_TRUE(absl::StrContains(*library, "libtorch_cpu"))
        << symbol << " resolves to " << *library;
  }
}

TEST(ToolchainTest, AnySurvivesTextFormat) {
  const std::string text =
      "plugin {\n"
      "  [type.googleapis.com/semvq.test.ToolchainPayload] {\n"
      "    codes: 32\n"
      "    name: \"fsq\"\n"
      "  }\n"
      "}\n";
  test::ToolchainHolder holder;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &holder));
  test::ToolchainPayload payload;
  ASSERT_TRUE(holder.plugin().UnpackTo(&payload));
  EXPECT_EQ(payload.codes(), 32);

  google::protobuf::TextFormat::Printer printer;
  printer.SetExpandAny(true);
  std::string printed;
  ASSERT_TRUE(printer.PrintToString(holder, &printed));
  EXPECT_EQ(printed, text);
}

// libtorch_cpu carries a protobuf of its own; ours must be the system's.
TEST(ToolchainTest, ProtobufComesFromTheSystem) {
  Dl_info info;
  ASSERT_NE(dladdr(reinterpret_cast<void*>(
                       &google::protobuf::TextFormat::ParseFromString),
                   &info),
            0);
  EXPECT_FALSE(absl::StrContains(info.dli_fname, "torch")) << info.dli_fname;
}

}  // namespace
}  // namespace semvq
