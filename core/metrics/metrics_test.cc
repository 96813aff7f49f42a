#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/metrics/meter.h"
#include "core/metrics/metric_log.h"
#include "core/metrics/progress.h"
#include "core/metrics/table.h"
#include "core/metrics/tensorboard.h"
#include "core/metrics/tensorboard.pb.h"
#include "core/util/file.h"
#include "core/util/hash.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

std::string Fresh(const std::string& name) {
  const std::string path = JoinPath(testing::TempDir(), name);
  EXPECT_TRUE(RemoveTree(path).ok());
  return path;
}

TEST(Meter, IsAWeightedMean) {
  Meter meter;
  EXPECT_TRUE(std::isnan(meter.mean()));
  meter.Add(1);
  meter.Add(4, 2);
  meter.Add(100, 0);
  EXPECT_DOUBLE_EQ(meter.mean(), 3);
  EXPECT_DOUBLE_EQ(meter.weight(), 3);
  meter.Add(std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isinf(meter.mean()));
  meter.Add(1);
  EXPECT_TRUE(std::isinf(meter.mean()));
  meter.Add(std::nan(""));
  EXPECT_TRUE(std::isnan(meter.mean()));
  meter.Add(1);
  EXPECT_TRUE(std::isnan(meter.mean())) << "a NaN must not be forgotten";
  meter.Reset();
  for (int i = 0; i < 1000; ++i) meter.Add(0.1);
  EXPECT_EQ(meter.mean(), 0.1);
}

TEST(MetricLogger, WritesOneJsonRecordALine) {
  const std::string path = Fresh("log.jsonl");
  auto log = MetricLogger::Create(path);
  ASSERT_TRUE(log.ok()) << log.status();
  const double inf = std::numeric_limits<double>::infinity();
  ASSERT_TRUE((*log)->Log(0, {}, 1.5).ok());
  ASSERT_TRUE((*log)
                  ->Log(7,
                        {{"a\"b\\\n", 0.1},
                         {"nan", std::nan("")},
                         {"up", inf},
                         {"down", -inf},
                         {"tiny", 5e-324}},
                        1717754400.25)
                  .ok());
  // On disk at once, without closing.
  const std::string text = *ReadFile(path);
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], R"({"step":0,"time":1.500})");
  EXPECT_EQ(lines[1], R"({"step":7,"time":1717754400.250,"a\"b\\\u000a":0.1,)"
                      R"("nan":"NaN","up":"Infinity","down":"-Infinity",)"
                      R"("tiny":5e-324})");
  simdjson::dom::parser parser;
  simdjson::dom::element record;
  ASSERT_EQ(parser.parse(lines[1]).get(record), simdjson::SUCCESS);
  EXPECT_EQ(double(record["a\"b\\\n"]), 0.1);
}

TEST(MetricLogger, RefusesBadNames) {
  auto log = MetricLogger::Create(Fresh("names.jsonl"));
  ASSERT_TRUE(log.ok());
  for (const MetricValues& values :
       {MetricValues{{"a", 1}, {"a", 2}}, MetricValues{{"step", 1}},
        MetricValues{{"time", 1}}, MetricValues{{"\xff", 1}}}) {
    EXPECT_EQ((*log)->Log(1, values).code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE((*log)->Log(-1, {}).ok());
  EXPECT_EQ(*FileSize((*log)->path()), 0);
}

void LogSteps(MetricLogger* log, int64_t first, int64_t last) {
  for (int64_t step = first; step <= last; ++step) {
    ASSERT_TRUE(log->Log(step, {{"loss", 1.0 / step}}, step).ok());
    if (step % 5 == 0) {
      ASSERT_TRUE(log->Log(step, {{"eval", 2.0 / step}}, step).ok());
    }
  }
}

TEST(MetricLogger, ResumedLogEqualsAnUndisturbedOne) {
  const std::string whole = Fresh("whole.jsonl");
  LogSteps(MetricLogger::Create(whole)->get(), 1, 20);

  const std::string resumed = Fresh("resumed.jsonl");
  LogSteps(MetricLogger::Create(resumed)->get(), 1, 13);
  {
    // The kill cut a line short.
    auto file = FileWriter::Append(resumed);
    ASSERT_TRUE((*file)->Write("{\"step\":14,\"ti").ok());
  }
  auto log = MetricLogger::Resume(resumed, 10);
  ASSERT_TRUE(log.ok()) << log.status();
  LogSteps(log->get(), 11, 20);
  EXPECT_EQ(*ReadFile(resumed), *ReadFile(whole));

  // Nothing to drop, and nothing there.
  ASSERT_TRUE(MetricLogger::Resume(resumed, 20).ok());
  EXPECT_EQ(*ReadFile(resumed), *ReadFile(whole));
  EXPECT_TRUE(MetricLogger::Resume(Fresh("new.jsonl"), 3).ok());
}

TEST(MetricLogger, ResumeRefusesAForeignFile) {
  const std::string path = Fresh("foreign.jsonl");
  for (const char* bad :
       {"hello\n", "[]\n", "{\"a\":1}\n", "\n", "{\"step\":\"1\"}\n"}) {
    const std::string contents = absl::StrCat("{\"step\":1}\n", bad);
    ASSERT_TRUE(AtomicWriteFile(path, contents).ok());
    const auto log = MetricLogger::Resume(path, 10);
    EXPECT_EQ(log.status().code(), absl::StatusCode::kDataLoss) << bad;
    EXPECT_NE(log.status().message().find(":2:"), absl::string_view::npos);
    EXPECT_EQ(*ReadFile(path), contents) << "a foreign file was changed";
  }
}

TEST(MetricLogger, FullDiskIsReported) {
  // Opening for append works on /dev/full; the record does not fit.
  auto file = FileWriter::Append("/dev/full");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->Write("{}\n").code(),
            absl::StatusCode::kResourceExhausted);
}

// Splits an event file, checking both checksums of each record.
std::vector<tensorboard::Event> ReadEvents(const std::string& path) {
  const std::string data = *ReadFile(path);
  std::vector<tensorboard::Event> events;
  auto number = [&](size_t at, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) {
      value = value << 8 | static_cast<unsigned char>(data[at + i]);
    }
    return value;
  };
  size_t at = 0;
  while (at + 12 <= data.size()) {
    const uint64_t length = number(at, 8);
    EXPECT_EQ(number(at + 8, 4), MaskedCrc32c(data.substr(at, 8)));
    const std::string body = data.substr(at + 12, length);
    EXPECT_EQ(body.size(), length);
    EXPECT_EQ(number(at + 12 + length, 4), MaskedCrc32c(body));
    EXPECT_TRUE(events.emplace_back().ParseFromString(body));
    at += length + 16;
  }
  EXPECT_EQ(at, data.size());
  return events;
}

TEST(TensorBoard, MaskedCrcMatchesTheDefinition) {
  ASSERT_EQ(Crc32c("123456789"), 0xE3069283u);
  // rotr(0xE3069283, 15) + 0xa282ead8, by hand.
  EXPECT_EQ(MaskedCrc32c("123456789"),
            static_cast<uint32_t>(0x2507C60Du + 0xa282ead8u));
}

TEST(TensorBoard, WritesScalarsHistogramsAndImages) {
  const std::string folder = Fresh("tb");
  auto writer = TensorBoardWriter::Create(folder);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Scalars(3, {{"a", 0.5}, {"b", -2}}).ok());
  ASSERT_TRUE((*writer)->HistogramOf(4, "h", {-1, 0, 0, 2}).ok());
  // 3 x 2 pixels of color type 2.
  const std::string png =
      std::string("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\3\0\0\0\2\x08\2", 26) +
      std::string(20, 'x');
  ASSERT_TRUE((*writer)->Image(5, "i", png).ok());
  EXPECT_EQ((*writer)->Image(5, "i", "JFIF").code(),
            absl::StatusCode::kInvalidArgument);

  const auto events = ReadEvents((*writer)->path());
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].step(), 3);
  EXPECT_EQ(events[1].summary().value(1).tag(), "b");
  EXPECT_EQ(events[1].summary().value(1).simple_value(), -2);
  const auto& histogram = events[2].summary().value(0).histo();
  EXPECT_EQ(histogram.num(), 4);
  EXPECT_EQ(histogram.min(), -1);
  EXPECT_EQ(histogram.max(), 2);
  EXPECT_EQ(histogram.sum(), 1);
  EXPECT_EQ(histogram.sum_squares(), 5);
  const auto& image = events[3].summary().value(0).image();
  EXPECT_EQ(image.width(), 3);
  EXPECT_EQ(image.height(), 2);
  EXPECT_EQ(image.colorspace(), 3);
  EXPECT_EQ(image.encoded_image_string(), png);
}

TEST(TensorBoard, ResumeMarksTheRestart) {
  auto writer = TensorBoardWriter::Create(Fresh("tb_resume"), 11);
  ASSERT_TRUE(writer.ok());
  const auto events = ReadEvents((*writer)->path());
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].step(), 11);
  EXPECT_EQ(events[1].session_log().status(), tensorboard::SessionLog::START);
}

TEST(TensorBoard, HistogramPlacesEachValue) {
  const float inf = std::numeric_limits<float>::infinity();
  const float huge = std::numeric_limits<float>::max();
  for (const std::vector<float>& values : {std::vector<float>{},
                                           {0},
                                           {1, 1, 1},
                                           {-huge, huge},
                                           {1e-30f, -1e-30f},
                                           {inf, -inf, std::nanf(""), 3}}) {
    const auto h = MakeHistogram(values);
    ASSERT_EQ(h.bucket_size(), h.bucket_limit_size());
    ASSERT_GT(h.bucket_size(), 0);
    double count = 0;
    for (int i = 0; i < h.bucket_size(); ++i) {
      count += h.bucket(i);
      if (i > 0) {
        EXPECT_LT(h.bucket_limit(i - 1), h.bucket_limit(i));
      }
      double inside = 0;
      for (float v : values) {
        inside += std::isfinite(v) && v <= h.bucket_limit(i) &&
                  (i == 0 || v > h.bucket_limit(i - 1));
      }
      EXPECT_EQ(h.bucket(i), inside);
    }
    EXPECT_EQ(count, h.num());
  }
  EXPECT_EQ(MakeHistogram(std::vector<float>{inf, 3}).num(), 1);
}

TEST(TensorBoard, IndexHistogramCountsTheNumbers) {
  const auto few = MakeIndexHistogram({0, 2, 0, 5});
  ASSERT_EQ(few.bucket_size(), 5);
  ASSERT_EQ(few.bucket_limit_size(), 5);
  EXPECT_EQ(few.bucket_limit(0), -0.5);
  EXPECT_EQ(few.bucket(0), 0);
  EXPECT_EQ(few.bucket(2), 2);
  EXPECT_EQ(few.bucket_limit(2), 1.5);
  EXPECT_EQ(few.bucket(4), 5);
  EXPECT_EQ(few.min(), 1);
  EXPECT_EQ(few.max(), 3);
  EXPECT_EQ(few.num(), 7);
  EXPECT_EQ(few.sum(), 2 * 1 + 5 * 3);
  EXPECT_EQ(few.sum_squares(), 2 * 1 + 5 * 9);
  // Several numbers share a bucket; the last one is narrower.
  std::vector<float> counts(700, 1);
  const auto many = MakeIndexHistogram(counts);
  ASSERT_EQ(many.bucket_size(), 1 + 234);
  EXPECT_EQ(many.bucket(1), 3);
  EXPECT_EQ(many.bucket(234), 1);
  EXPECT_EQ(many.bucket_limit(234), 699.5);
  EXPECT_EQ(MakeIndexHistogram({}).num(), 0);
}

class ProgressTest : public testing::Test {
 protected:
  ProgressTest() : out_(std::tmpfile()) {}
  ~ProgressTest() override { std::fclose(out_); }

  ProgressLine::Options Options(bool terminal) {
    ProgressLine::Options options;
    options.total_steps = 100;
    options.clock = [this] { return now_; };
    options.terminal = terminal ? ProgressLine::Options::Terminal::kYes
                                : ProgressLine::Options::Terminal::kNo;
    return options;
  }
  std::string Output() {
    std::rewind(out_);
    std::string text(10000, '\0');
    text.resize(std::fread(&text[0], 1, text.size(), out_));
    return text;
  }

  std::FILE* out_;
  double now_ = 50;
};

TEST_F(ProgressTest, PlainLinesAtIntervals) {
  {
    ProgressLine progress(Options(false), out_);
    for (int step = 1; step <= 100; ++step) {
      now_ += 0.5;
      progress.Update(step, 2.0, 0.125);
      if (step == 50) progress.Print("saved");
    }
  }
  const std::string text = Output();
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  // Steps 1, 21, 41, 61, 81 and 100, the message and what follows the end.
  ASSERT_EQ(lines.size(), 8u) << text;
  EXPECT_EQ(lines[1],
            "train 21/100  loss 2  2 step/s  0:11<0:40  data wait 25%");
  EXPECT_EQ(lines[3], "saved");
  EXPECT_EQ(lines[6],
            "train 100/100  loss 2  2 step/s  0:50<0:00  data wait 25%");
  EXPECT_EQ(lines[7], "");
}

TEST_F(ProgressTest, TerminalLineRewritesItself) {
  {
    ProgressLine progress(Options(true), out_);
    for (int step = 1; step <= 3; ++step) {
      now_ += 1;
      progress.Update(step, 1.0, 0);
    }
    progress.Print("note");
  }
  const std::string text = Output();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\r'), 4);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_NE(text.find("\r\x1b[Knote\ntrain 3/100"), std::string::npos) << text;
  EXPECT_EQ(text.back(), '\n');
}

TEST_F(ProgressTest, ResumeCountsOnlyItsOwnSteps) {
  ProgressLine::Options options = Options(false);
  options.first_step = 90;
  ProgressLine progress(options, out_);
  now_ += 2;
  progress.Update(91, 1.0, 0);
  EXPECT_EQ(Output(),
            "train 91/100  loss 1  0.5 step/s  0:02<0:18  data wait 0%\n");
}

TEST_F(ProgressTest, SaysNoLossBeforeThereIsOne) {
  ProgressLine progress(Options(false), out_);
  now_ += 2;
  progress.Update(1, std::nullopt, 0);
  EXPECT_EQ(Output(), "train 1/100  0.5 step/s  0:02<3:18  data wait 0%\n");
}

TEST_F(ProgressTest, WithoutEndsWhatIsShortShowsNothing) {
  ProgressLine::Options options = Options(false);
  options.show_ends = false;
  options.label = "coco";
  options.unit = "image";
  {
    ProgressLine progress(options, out_);
    for (int image = 1; image <= 100; ++image) {
      now_ += 0.05;
      progress.Update(image, std::nullopt, 0);
    }
  }
  EXPECT_EQ(Output(), "");
  {
    ProgressLine progress(options, out_);
    for (int image = 25; image <= 100; image += 25) {
      now_ += 5;
      progress.Update(image, std::nullopt, 0);
    }
  }
  EXPECT_EQ(Output(),
            "coco 50/100  5 image/s  0:10<0:10  data wait 0%\n"
            "coco 100/100  5 image/s  0:20<0:00  data wait 0%\n");
}

TEST(FormatDuration, CoversTheRange) {
  EXPECT_EQ(FormatDuration(0), "0:00");
  EXPECT_EQ(FormatDuration(59.6), "1:00");
  EXPECT_EQ(FormatDuration(3723), "1:02:03");
  EXPECT_EQ(FormatDuration(-1), "?");
  EXPECT_EQ(FormatDuration(std::nan("")), "?");
  EXPECT_EQ(FormatDuration(1e300), "?");
}

TEST(Table, AlignsColumns) {
  Table table({"task", "R@1", "note"});
  table.AddRow({"flickr", "95.8", "ok"});
  table.AddRow({"coco 犬", "-", "a\nb"});
  table.AddRule();
  table.AddRow({"é", "100.25"});
  EXPECT_EQ(table.Render(),
            "task        R@1  note\n"
            "-------  ------  ----\n"
            "flickr     95.8  ok\n"
            "coco 犬       -  a b\n"
            "-------  ------  ----\n"
            "é        100.25\n");
  EXPECT_EQ(table.Render(Table::Style::kBox),
            "┌─────────┬────────┬──────┐\n"
            "│ task    │    R@1 │ note │\n"
            "├─────────┼────────┼──────┤\n"
            "│ flickr  │   95.8 │ ok   │\n"
            "│ coco 犬 │      - │ a b  │\n"
            "├─────────┼────────┼──────┤\n"
            "│ é       │ 100.25 │      │\n"
            "└─────────┴────────┴──────┘\n");
  EXPECT_EQ(Table({}).Render(), "");
}

TEST(DisplayWidth, CountsTerminalColumns) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("é"), 1);
  EXPECT_EQ(DisplayWidth("e\u0301"), 1);
  EXPECT_EQ(DisplayWidth("犬"), 2);
  EXPECT_EQ(DisplayWidth("\xff"), 1);
}

}  // namespace
}  // namespace semvq
