#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "core/util/file.h"
#include "core/util/hash.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

std::string Fresh(const std::string& name) {
  const std::string path = JoinPath(testing::TempDir(), name);
  EXPECT_TRUE(RemoveTree(path).ok());
  EXPECT_TRUE(MakeDirectories(path).ok());
  return path;
}

TEST(Path, JoinsAndSplits) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(BaseName("a/b/"), "b");
  EXPECT_EQ(BaseName("/"), "/");
  EXPECT_EQ(DirName("a/b/c"), "a/b");
  EXPECT_EQ(DirName("a"), ".");
  EXPECT_EQ(DirName("/a"), "/");
}

TEST(File, WritesAndReadsBack) {
  const std::string folder = Fresh("file_round_trip");
  const std::string path = JoinPath(folder, "x");
  const std::string data("a\0b\xff\n", 5);
  ASSERT_TRUE(AtomicWriteFile(path, "old").ok());
  ASSERT_TRUE(AtomicWriteFile(path, data).ok());
  EXPECT_EQ(*ReadFile(path), data);
  EXPECT_EQ(*FileSize(path), 5);
  EXPECT_EQ(ListDirectory(folder)->size(), 1u) << "a temporary file remains";
}

TEST(File, ErrorsNameThePath) {
  const std::string folder = Fresh("file_errors");
  const auto missing = ReadFile(JoinPath(folder, "nothing"));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("nothing"), std::string::npos);
  EXPECT_EQ(ReadFile(folder).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(AtomicWriteFile(JoinPath(folder, "no/such"), "x").code(),
            absl::StatusCode::kNotFound);
  ASSERT_TRUE(AtomicWriteFile(JoinPath(folder, "plain"), "x").ok());
  EXPECT_FALSE(MakeDirectories(JoinPath(folder, "plain")).ok());
}

TEST(File, ShortReadIsDataLoss) {
  const std::string path = JoinPath(Fresh("file_short"), "x");
  ASSERT_TRUE(AtomicWriteFile(path, "0123456789").ok());
  auto reader = FileReader::Open(path);
  ASSERT_TRUE(reader.ok());
  char data[8];
  EXPECT_TRUE((*reader)->ReadAt(2, data, 8).ok());
  EXPECT_EQ(std::string(data, 8), "23456789");
  ASSERT_EQ(truncate(path.c_str(), 4), 0);
  EXPECT_EQ((*reader)->ReadAt(2, data, 8).code(), absl::StatusCode::kDataLoss);
}

TEST(File, HostileFilesAreRefusedBeforeTheyAreRead) {
  const std::string folder = Fresh("file_hostile");
  const std::string huge = JoinPath(folder, "huge"),
                    pipe = JoinPath(folder, "pipe");
  ASSERT_TRUE(AtomicWriteFile(huge, "x").ok());
  ASSERT_EQ(truncate(huge.c_str(), 1'000'000'000'000), 0);
  EXPECT_EQ(ReadFile(huge).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(ReadFile(huge).status().message().find("1000000000000 bytes"),
            absl::string_view::npos);
  // Nobody ever writes to it.
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {pipe, std::string("/dev/zero"), folder}) {
    EXPECT_EQ(ReadFile(path).status().code(),
              absl::StatusCode::kInvalidArgument)
        << path;
  }
}

TEST(File, FullDiskIsResourceExhausted) {
  auto full = FileWriter::Append("/dev/full");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ((*full)->Write("x").code(), absl::StatusCode::kResourceExhausted);
}

TEST(File, FailedAtomicWriteKeepsTheOldFile) {
  const std::string folder = Fresh("file_limit");
  const std::string path = JoinPath(folder, "x");
  ASSERT_TRUE(AtomicWriteFile(path, "old").ok());
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = AtomicWriteFile(path, std::string(5000, 'n'));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(*ReadFile(path), "old");
  EXPECT_EQ(ListDirectory(folder)->size(), 1u);
}

TEST(Hash, Sha256KnownAnswers) {
  EXPECT_EQ(Sha256Hex(""),
            "e3b0c44298fc1c149afbf4c8996fb924"
            "27ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223"
            "b00361a396177a9cb410ff61f20015ad");
}

TEST(Hash, FileAndPiecesAgreeWithWhole) {
  std::string data;
  for (int i = 0; i < 3000000; ++i) data.push_back(static_cast<char>(i * 7));
  const std::string path = JoinPath(Fresh("hash"), "x");
  ASSERT_TRUE(AtomicWriteFile(path, data).ok());
  EXPECT_EQ(*Sha256File(path), Sha256Hex(data));
  Sha256 pieces;
  pieces.Update(data.substr(0, 1000001));
  pieces.Update(data.substr(1000001));
  EXPECT_EQ(pieces.FinishHex(), Sha256Hex(data));
}

TEST(Hash, Crc32cKnownAnswers) {
  EXPECT_EQ(Crc32c(""), 0u);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62A8AB43u);
}

}  // namespace
}  // namespace semvq
