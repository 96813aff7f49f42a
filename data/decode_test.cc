#include "data/decode.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <isa-l/crc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/image_file.h"

namespace semvq {
namespace {

constexpr int64_t kManyPixels = 100000000;

std::string Encode(const cv::Mat& image, const std::string& extension) {
  std::vector<uint8_t> bytes;
  EXPECT_TRUE(cv::imencode(extension, image, bytes));
  return std::string(bytes.begin(), bytes.end());
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::string WriteTemp(const std::string& name, const std::string& content) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

std::string BigEndian(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16),
          static_cast<char>(v >> 8), static_cast<char>(v)};
}

std::string Chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const uint32_t crc = crc32_gzip_refl(
      0, reinterpret_cast<const unsigned char*>(body.data()), body.size());
  return BigEndian(static_cast<uint32_t>(data.size())) + body + BigEndian(crc);
}

// A picture that differs everywhere.
cv::Mat Gradient(int width, int height, int type = CV_8UC3) {
  cv::Mat image(height, width, type);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < image.channels(); ++c) {
        const int v = (x * 5 + y * 3 + c * 40) % 256;
        if (image.depth() == CV_16U) {
          image.ptr<uint16_t>(y)[x * image.channels() + c] =
              static_cast<uint16_t>(v * 257 + 90);
        } else {
          image.ptr<uint8_t>(y)[x * image.channels() + c] =
              static_cast<uint8_t>(v);
        }
      }
    }
  }
  return image;
}

int At(const at::Tensor& image, int64_t y, int64_t x, int64_t c) {
  return image.const_data_ptr<uint8_t>()[(y * image.size(1) + x) * 3 + c];
}

at::Tensor MustDecode(const std::string& bytes, int64_t needed_side = 0) {
  absl::StatusOr<at::Tensor> image =
      DecodeImage(bytes, kManyPixels, needed_side);
  EXPECT_TRUE(image.ok()) << image.status();
  return image.ok() ? *image : at::Tensor();
}

void ExpectError(const std::string& bytes, const std::string& part) {
  absl::StatusOr<at::Tensor> image = DecodeImage(bytes, kManyPixels);
  ASSERT_FALSE(image.ok()) << "expected an error with: " << part;
  EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(image.status().message()).find(part), std::string::npos)
      << image.status();
}

TEST(Decode, PngGivesItsPixelsAsRgb) {
  const cv::Mat bgr = Gradient(37, 21);
  const at::Tensor image = MustDecode(Encode(bgr, ".png"));
  ASSERT_EQ(image.sizes(), (std::vector<int64_t>{21, 37, 3}));
  for (int y = 0; y < 21; ++y) {
    for (int x = 0; x < 37; ++x) {
      for (int c = 0; c < 3; ++c)
        ASSERT_EQ(At(image, y, x, c), bgr.at<cv::Vec3b>(y, x)[2 - c]);
    }
  }
}

TEST(Decode, JpegAndWebpGiveNearlyTheirPixels) {
  const cv::Mat bgr(40, 30, CV_8UC3, cv::Scalar(30, 90, 200));
  for (const char* extension : {".jpg", ".webp"}) {
    const at::Tensor image = MustDecode(Encode(bgr, extension));
    ASSERT_EQ(image.sizes(), (std::vector<int64_t>{40, 30, 3})) << extension;
    EXPECT_NEAR(At(image, 20, 15, 0), 200, 4) << extension;
    EXPECT_NEAR(At(image, 20, 15, 1), 90, 4) << extension;
    EXPECT_NEAR(At(image, 20, 15, 2), 30, 4) << extension;
  }
}

TEST(Decode, GreyIsRepeated) {
  const cv::Mat grey = Gradient(19, 8, CV_8UC1);
  for (const char* extension : {".png", ".jpg"}) {
    const at::Tensor image = MustDecode(Encode(grey, extension));
    ASSERT_EQ(image.sizes(), (std::vector<int64_t>{8, 19, 3}));
    EXPECT_NEAR(At(image, 3, 7, 0), grey.at<uint8_t>(3, 7),
                extension == std::string(".png") ? 0 : 6);
    EXPECT_EQ(At(image, 3, 7, 0), At(image, 3, 7, 2));
  }
}

TEST(Decode, SixteenBitsAreRoundedToEight) {
  for (int type : {CV_16UC1, CV_16UC3}) {
    const cv::Mat deep = Gradient(12, 9, type);
    const at::Tensor image = MustDecode(Encode(deep, ".png"));
    for (int x = 0; x < 12; ++x) {
      const double v = deep.ptr<uint16_t>(4)[x * deep.channels()];
      EXPECT_NEAR(At(image, 4, x, deep.channels() == 3 ? 2 : 0), v / 257.0,
                  0.51);
    }
  }
}

TEST(Decode, AlphaIsCompositedOnWhite) {
  cv::Mat bgra(2, 2, CV_8UC4);
  bgra.at<cv::Vec4b>(0, 0) = {10, 20, 30, 255};
  bgra.at<cv::Vec4b>(0, 1) = {10, 20, 30, 0};
  bgra.at<cv::Vec4b>(1, 0) = {0, 100, 200, 128};
  bgra.at<cv::Vec4b>(1, 1) = {255, 255, 255, 77};
  const at::Tensor image = MustDecode(Encode(bgra, ".png"));
  EXPECT_EQ(At(image, 0, 0, 0), 30);
  EXPECT_EQ(At(image, 0, 0, 2), 10);
  for (int c = 0; c < 3; ++c) EXPECT_EQ(At(image, 0, 1, c), 255);
  EXPECT_EQ(At(image, 1, 0, 0), 227);  // 200 * 128/255 + 127.
  EXPECT_EQ(At(image, 1, 0, 1), 177);
  EXPECT_EQ(At(image, 1, 0, 2), 127);
  for (int c = 0; c < 3; ++c) EXPECT_EQ(At(image, 1, 1, c), 255);

  bgra.convertTo(bgra, CV_16U, 257);
  EXPECT_EQ(At(MustDecode(Encode(bgra, ".png")), 1, 0, 0), 227);
}

TEST(Decode, CmykEqualsPillow) {
  const at::Tensor image = MustDecode(ReadAll("data/testdata/cmyk.jpg"));
  const at::Tensor expected = MustDecode(ReadAll("data/testdata/cmyk_rgb.png"));
  ASSERT_EQ(image.sizes(), expected.sizes());
  EXPECT_LE(
      (image.to(at::kInt) - expected.to(at::kInt)).abs().max().item<int>(), 2);
}

TEST(Decode, JpegAtReducedSize) {
  const std::string jpeg = Encode(Gradient(400, 240), ".jpg");
  EXPECT_EQ(MustDecode(jpeg, 0).size(1), 400);
  EXPECT_EQ(MustDecode(jpeg, 130).size(1), 400);
  EXPECT_EQ(MustDecode(jpeg, 120).sizes(), (std::vector<int64_t>{120, 200, 3}));
  EXPECT_EQ(MustDecode(jpeg, 31).size(1),
            100);  // 240 / 8 = 30 would be too small; /4 is 60.
}

// libjpeg-turbo is called directly; OpenCV calls it as well, with a copy more.
TEST(Decode, JpegEqualsOpenCv) {
  const cv::Mat color = Gradient(203, 117), grey = Gradient(203, 117, CV_8UC1);
  for (const cv::Mat& image : {color, grey}) {
    for (const int progressive : {0, 1}) {
      for (const int quality : {30, 95}) {
        std::vector<uint8_t> bytes;
        ASSERT_TRUE(cv::imencode(".jpg", image, bytes,
                                 {cv::IMWRITE_JPEG_QUALITY, quality,
                                  cv::IMWRITE_JPEG_PROGRESSIVE, progressive}));
        const std::pair<int, int64_t> scales[] = {
            {cv::IMREAD_COLOR, 0},
            {cv::IMREAD_REDUCED_COLOR_2, 58},
            {cv::IMREAD_REDUCED_COLOR_4, 29},
            {cv::IMREAD_REDUCED_COLOR_8, 14}};
        for (const auto& [flags, side] : scales) {
          cv::Mat expected = cv::imdecode(bytes, flags);
          const at::Tensor got =
              MustDecode(std::string(bytes.begin(), bytes.end()), side);
          ASSERT_EQ(got.sizes(),
                    (std::vector<int64_t>{expected.rows, expected.cols, 3}));
          const uint8_t* rgb = got.const_data_ptr<uint8_t>();
          for (int i = 0; i < expected.rows * expected.cols; ++i, rgb += 3) {
            const cv::Vec3b bgr =
                expected.at<cv::Vec3b>(i / expected.cols, i % expected.cols);
            ASSERT_TRUE(rgb[0] == bgr[2] && rgb[1] == bgr[1] &&
                        rgb[2] == bgr[0]);
          }
        }
      }
    }
  }
}

// What costs a decoder much and the sender little.
TEST(Decode, HostileJpegs) {
  std::vector<uint8_t> bytes;
  ASSERT_TRUE(cv::imencode(".jpg", Gradient(64, 48), bytes,
                           {cv::IMWRITE_JPEG_PROGRESSIVE, 1}));
  const std::string good(bytes.begin(), bytes.end());
  ASSERT_TRUE(DecodeImage(good, kManyPixels).ok());
  const size_t last_scan = good.rfind("\xFF\xDA");
  const std::string scan = good.substr(last_scan, good.size() - 2 - last_scan);
  std::string many = good.substr(0, last_scan);
  for (int i = 0; i < 600; ++i) many += scan;
  ExpectError(many + "\xFF\xD9", "more than 500 scans");
  // A second frame header that says less than the first.
  const std::string small = Encode(Gradient(16, 16), ".jpg");
  const size_t frame = small.find("\xFF\xC0");
  std::string two = small;
  two.insert(frame, small.substr(frame, 19));
  two[frame + 5] = two[frame + 7] = '\x7F';
  ExpectError(two, "two frame headers");
}

TEST(Decode, FilesAreBoundedByBytes) {
  const std::string path =
      WriteTemp("bytes.png", Encode(Gradient(40, 40), ".png"));
  const int64_t size = static_cast<int64_t>(ReadAll(path).size());
  EXPECT_TRUE(DecodeImageFile(path, kManyPixels, 0, size).ok());
  const std::string message(
      DecodeImageFile(path, kManyPixels, 0, size - 1).status().message());
  EXPECT_NE(message.find("bytes, expected at most "), std::string::npos)
      << message;
  // A hole of a terabyte is not read, and a pipe without a writer not waited
  // for.
  const std::string hole = WriteTemp("hole.png", "x");
  ASSERT_EQ(truncate(hole.c_str(), int64_t{1} << 40), 0);
  EXPECT_FALSE(DecodeImageFile(hole, kManyPixels).ok());
  ASSERT_EQ(std::remove(hole.c_str()), 0);
  const std::string fifo = testing::TempDir() + "/fifo.png";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_FALSE(DecodeImageFile(fifo, kManyPixels).ok());
  ASSERT_EQ(std::remove(fifo.c_str()), 0);
}

TEST(Decode, AMissingDiskIsToldFromAMissingFile) {
  const std::string folder = testing::TempDir();
  const auto message = [&](const std::string& name) {
    return std::string(DecodeImageFile(folder + name, 1).status().message());
  };
  EXPECT_EQ(message("/gone.png").find("mounted"), std::string::npos);
  EXPECT_NE(
      message("/disk/a/gone.png")
          .find("nor does " + folder + "/disk; is its disk still mounted"),
      std::string::npos)
      << message("/disk/a/gone.png");
}

TEST(Decode, LongImagesAndImagesThatAreTooLarge) {
  EXPECT_EQ(MustDecode(Encode(cv::Mat(12, 20000, CV_8UC3, cv::Scalar(1, 2, 3)),
                              ".png"))
                .size(1),
            20000);

  // A header of 20,000 x 20,000 with hardly any data: refused without a large
  // allocation.
  const std::string signature("\x89PNG\r\n\x1a\n", 8);
  const auto header = [](uint32_t w, uint32_t h) {
    return Chunk(
        "IHDR", BigEndian(w) + BigEndian(h) + std::string("\x08\x02\0\0\0", 5));
  };
  const std::string rest = Chunk("IDAT", "x") + Chunk("IEND", "");
  ExpectError(signature + header(20000, 20000) + rest, "20000 x 20000");
  ExpectError(signature + header(70000, 2) + rest, "70000 x 2");
  ExpectError(signature + header(0x7FFFFFFF, 0x7FFFFFFF) + rest, "too large");
  ExpectError(signature + header(0, 5) + rest, "side of 0");
  ExpectError(signature + header(5, 5) + rest, "damaged");

  const std::string small = Encode(Gradient(30, 20), ".jpg");
  EXPECT_TRUE(DecodeImage(small, 600).ok());
  EXPECT_FALSE(DecodeImage(small, 599).ok());
}

TEST(Decode, EveryTruncationIsAnError) {
  const cv::Mat image = Gradient(33, 27);
  for (const char* extension : {".png", ".jpg", ".webp"}) {
    const std::string whole = Encode(image, extension);
    for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 150) {
      EXPECT_FALSE(DecodeImage(whole.substr(0, size), kManyPixels).ok())
          << extension << " cut to " << size;
    }
    EXPECT_FALSE(
        DecodeImage(whole.substr(0, whole.size() - 1), kManyPixels).ok())
        << extension;
  }
}

TEST(Decode, DamagedFilesNeverCrash) {
  const cv::Mat image = Gradient(33, 27);
  uint32_t state = 1;
  for (const char* extension : {".png", ".jpg", ".webp"}) {
    const std::string whole = Encode(image, extension);
    for (int i = 0; i < 200; ++i) {
      std::string broken = whole;
      for (int k = 0; k < 3; ++k) {
        state = state * 1664525u + 1013904223u;
        broken[(state >> 8) % broken.size()] = static_cast<char>(state >> 3);
      }
      absl::StatusOr<at::Tensor> decoded = DecodeImage(broken, 10000);
      EXPECT_TRUE(extension != std::string(".png") || broken == whole ||
                  !decoded.ok());
    }
  }
}

TEST(Decode, NamesWhatWasFoundInstead) {
  ExpectError("", "empty (0 bytes)");
  ExpectError("<html><body>404</body></html>", "starts with '<html>");
  ExpectError(std::string("\x00\x01\x02\x03", 4), "bytes 00010203");
  ExpectError(Encode(Gradient(9, 9), ".bmp"), "expected a PNG, JPEG or WebP");
  ExpectError(std::string("GIF89a\x01\0\x01\0", 10),
              "expected a PNG, JPEG or WebP");
  std::string png = Encode(Gradient(9, 9), ".png");
  png[png.size() - 20] ^= 1;
  ExpectError(png, "checksum");
}

TEST(Decode, FilesAreNamed) {
  const std::string folder = testing::TempDir();
  absl::StatusOr<at::Tensor> missing =
      DecodeImageFile(folder + "/missing.png", kManyPixels);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(missing.status().message())
                .find("missing.png: the file does not exist"),
            std::string::npos);
  EXPECT_NE(std::string(DecodeImageFile(folder, kManyPixels).status().message())
                .find("folder"),
            std::string::npos);
  const std::string path = WriteTemp("page.jpg", "<!DOCTYPE html>");
  const std::string message(
      DecodeImageFile(path, kManyPixels).status().message());
  EXPECT_EQ(message.find(path + ": "), 0u) << message;
  EXPECT_TRUE(
      DecodeImageFile(WriteTemp("good.png", Encode(Gradient(4, 4), ".png")),
                      kManyPixels)
          .ok());
}

TEST(Decode, ChunksThatChangeNoPixelAreDropped) {
  const std::string png = Encode(Gradient(4, 4), ".png");
  const size_t after_header = 8 + 25;
  const std::string with_text = png.substr(0, after_header) +
                                Chunk("tEXt", "a") + png.substr(after_header);
  ASSERT_TRUE(InspectImage(with_text).ok());
  EXPECT_EQ(StripPng(with_text).find("tEXt"), std::string::npos);
  EXPECT_TRUE(MustDecode(with_text).equal(MustDecode(png)));
}

TEST(Decode, PrintsNothing) {
  testing::internal::CaptureStderr();
  ExpectError("<html>", "starts with");
  std::string png = Encode(Gradient(9, 9), ".png");
  (void)DecodeImage(png.substr(0, 60), kManyPixels);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace semvq
