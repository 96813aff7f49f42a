#include "data/loader.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <map>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <set>
#include <thread>

#include "data/recycled_memory.h"
#include "data/sampler.h"

namespace semvq {
namespace {

// Words to ids by their first letters.
class LetterTokenizer : public Tokenizer {
 public:
  LetterTokenizer() : Tokenizer({0, 1, 2, 3, 4}) {}
  std::vector<int64_t> Encode(absl::string_view text) const override {
    std::vector<int64_t> ids;
    bool start = true;
    for (char c : text) {
      if (start && c != ' ') ids.push_back(5 + static_cast<unsigned char>(c));
      start = c == ' ';
    }
    return ids;
  }
  std::string Decode(absl::Span<const int64_t>) const override { return ""; }
  std::string Piece(int64_t) const override { return ""; }
  int64_t vocab_size() const override { return 5 + 256; }
  std::string fingerprint() const override { return "letters"; }
};

// Image i is flat, of red level 2 * i.
class FakeSource : public DataSource {
 public:
  FakeSource(int64_t size, int64_t texts)
      : folder_(testing::TempDir()), size_(size), texts_(texts) {
    for (int64_t i = 0; i < size; ++i) {
      const cv::Mat image(6, 8, CV_8UC3,
                          cv::Scalar(0, 0, static_cast<double>(2 * i % 256)));
      EXPECT_TRUE(cv::imwrite(Path(i), image));
    }
  }
  int64_t size() const override { return size_; }
  absl::StatusOr<Sample> Read(int64_t i) const override {
    threads_seen_ = std::max<int>(threads_seen_, at::get_num_threads());
    ++reads_;
    if (bad_records.count(i) > 0)
      return absl::InvalidArgumentError("fake.json: record " +
                                        std::to_string(i) + ": bad");
    Sample sample;
    sample.where = "fake.json: record " + std::to_string(i);
    sample.image_id = std::to_string(i);
    sample.image_paths.assign(slots.count(i) > 0 ? slots.at(i) : 1,
                              missing.count(i) > 0 ? "/nowhere.png" : Path(i));
    for (int64_t t = 0; t < texts_; ++t) {
      TextRecord record;
      record.id = std::to_string(i) + "/" + std::to_string(t);
      record.text = wordless.count(i) > 0
                        ? "!!"
                        : std::string(1, static_cast<char>('a' + t)) + " cat";
      record.answers = {{"yes", 1.0f}};
      sample.texts.push_back(record);
    }
    return sample;
  }
  std::string Path(int64_t i) const {
    return folder_ + "/loader_" + std::to_string(i) + ".png";
  }

  std::vector<SourcePart> Parts() const override {
    return parts.empty() ? DataSource::Parts() : parts;
  }

  std::vector<SourcePart> parts;
  std::set<int64_t> bad_records, missing, wordless;
  std::map<int64_t, int64_t> slots;
  mutable std::atomic<int> threads_seen_{0};
  mutable std::atomic<int64_t> reads_{0};

 private:
  const std::string folder_;
  const int64_t size_, texts_;
};

struct Fixture {
  explicit Fixture(int64_t size = 23, int64_t texts = 3)
      : source(std::make_shared<FakeSource>(size, texts)) {
    stream.set_name("train");
    stream.mutable_transform()->set_size(8);
    stream.mutable_transform()->set_crop(ImageTransform::RANDOM_RESIZED_CROP);
    stream.mutable_transform()->set_flip(0.5);
    stream.mutable_transform()->set_randaugment_ops(2);
    options.batch_size = 5;
    options.seed = 11;
    options.max_tokens = 6;
  }
  absl::StatusOr<std::unique_ptr<Loader>> Create() const {
    return Loader::Create(stream, source, &tokenizer, data, options);
  }
  std::unique_ptr<Loader> Must() const {
    absl::StatusOr<std::unique_ptr<Loader>> loader = Create();
    EXPECT_TRUE(loader.ok()) << loader.status();
    return loader.ok() ? *std::move(loader) : nullptr;
  }

  std::shared_ptr<FakeSource> source;
  LetterTokenizer tokenizer;
  DataStream stream;
  DataConfig data;
  LoaderOptions options;
};

std::vector<Batch> Take(Loader* loader, int count) {
  std::vector<Batch> batches;
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<Batch> batch = loader->Next();
    EXPECT_TRUE(batch.ok()) << batch.status();
    if (!batch.ok()) break;
    batches.push_back(*std::move(batch));
  }
  return batches;
}

void ExpectSame(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_TRUE(a[i].images.equal(b[i].images)) << i;
    EXPECT_TRUE(a[i].text_ids.equal(b[i].text_ids)) << i;
    EXPECT_TRUE(a[i].text_mask.equal(b[i].text_mask)) << i;
    EXPECT_TRUE(a[i].text_to_image.equal(b[i].text_to_image)) << i;
    EXPECT_EQ(a[i].image_ids, b[i].image_ids) << i;
    EXPECT_EQ(a[i].sample_numbers, b[i].sample_numbers) << i;
    ASSERT_EQ(a[i].texts.size(), b[i].texts.size());
    for (size_t t = 0; t < a[i].texts.size(); ++t)
      EXPECT_EQ(a[i].texts[t].id, b[i].texts[t].id);
  }
}

TEST(Loader, TrainingBatches) {
  Fixture setup;
  setup.source = std::make_shared<FakeSource>(20, 3);
  std::unique_ptr<Loader> loader = setup.Must();
  std::multiset<std::string> seen;
  for (int b = 0; b < 8; ++b) {
    const Batch batch = Take(loader.get(), 1)[0];
    EXPECT_EQ(batch.images.sizes(), (std::vector<int64_t>{5, 1, 3, 8, 8}));
    EXPECT_EQ(batch.images.scalar_type(), at::kFloat);
    EXPECT_EQ(batch.text_ids.sizes(), (std::vector<int64_t>{5, 6}));
    EXPECT_EQ(batch.text_mask.scalar_type(), at::kBool);
    EXPECT_EQ(batch.sample_numbers,
              (std::vector<int64_t>{5 * b, 5 * b + 1, 5 * b + 2, 5 * b + 3,
                                    5 * b + 4}));
    for (int64_t i = 0; i < 5; ++i) {
      EXPECT_EQ(batch.text_to_image[i].item<int64_t>(), i);
      // [CLS] letter cat [SEP] and padding.
      EXPECT_EQ(batch.text_ids[i][0].item<int64_t>(), 2);
      EXPECT_EQ(batch.text_ids[i][1].item<int64_t>(),
                5 + batch.texts[i].text[0]);
      EXPECT_EQ(batch.text_ids[i][3].item<int64_t>(), 3);
      EXPECT_EQ(batch.text_mask[i].sum().item<int64_t>(), 4);
      EXPECT_EQ(batch.texts[i].id.substr(0, batch.texts[i].id.find('/')),
                batch.image_ids[i]);
      EXPECT_EQ(batch.texts[i].answers.size(), 1u);
      seen.insert(batch.image_ids[i]);
    }
  }
  // Two whole epochs: each image twice.
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(seen.count(std::to_string(i)), 2u) << i;
  EXPECT_EQ(loader->samples_read(), 20);
  EXPECT_TRUE(loader->bad_samples().empty());
}

TEST(Loader, OneThreadOrFiveGiveTheSameBatches) {
  Fixture setup;
  setup.source->missing = {3, 8};
  std::vector<Batch> expected;
  for (int workers : {1, 2, 5}) {
    for (int prefetch : {1, 4}) {
      setup.data.set_workers(workers);
      setup.data.set_prefetch(prefetch);
      std::unique_ptr<Loader> loader = setup.Must();
      const std::vector<Batch> batches = Take(loader.get(), 12);
      if (expected.empty()) expected = batches;
      ExpectSame(batches, expected);
      ASSERT_EQ(loader->bad_samples().size(), 2u);
    }
  }
}

TEST(Loader, ResumesWhereItStopped) {
  Fixture setup;
  setup.source->bad_records = {4};
  const std::vector<Batch> all = Take(setup.Must().get(), 14);
  for (int64_t start : {1, 6, 13}) {
    setup.options.start_sample = 5 * start;
    const std::vector<Batch> rest =
        Take(setup.Must().get(), 14 - static_cast<int>(start));
    ExpectSame(rest, std::vector<Batch>(all.begin() + start, all.end()));
  }
}

TEST(Loader, ShardsAndMixturesResumeInTheMiddleOfAnEpoch) {
  Fixture setup;
  setup.source->missing = {4, 16};

  SourcePart first, second;
  first.size = 15;
  first.shards = {4, 6, 5};
  second.begin = 15;
  second.size = 8;
  second.shards = {3, 5};
  second.weight = 2;
  first.shuffle_shards = second.shuffle_shards = 2;
  for (const bool mixture : {false, true}) {
    if (mixture) {
      setup.source->parts = {first, second};
    } else {
      SourcePart all = first;
      all.size = 23;
      all.shards = {4, 6, 5, 3, 5};
      setup.source->parts = {all};
    }
    setup.options.start_sample = 0;
    const std::vector<Batch> all = Take(setup.Must().get(), 14);
    std::map<std::string, int> times;
    for (const Batch& batch : all) {
      for (const std::string& id : batch.image_ids) ++times[id];
    }
    EXPECT_EQ(times.size(), 21u) << "all but the missing ones";
    for (int64_t start : {1, 6, 13}) {
      setup.options.start_sample = 5 * start;
      ExpectSame(Take(setup.Must().get(), 14 - static_cast<int>(start)),
                 std::vector<Batch>(all.begin() + start, all.end()));
    }
  }
  // The first samples of a mixture would all be of its first source.
  setup.stream.set_limit(5);
  const absl::Status status = setup.Create().status();
  EXPECT_NE(std::string(status.message()).find("limit: got 5"),
            std::string::npos)
      << status;
}

// Rows [begin, begin + size) of a batch with one text an image.
Batch Part(const Batch& batch, int64_t begin, int64_t size) {
  Batch part = batch;
  part.images = batch.images.narrow(0, begin, size);
  part.text_ids = batch.text_ids.narrow(0, begin, size);
  part.text_mask = batch.text_mask.narrow(0, begin, size);
  part.text_to_image = at::arange(size, at::kLong);
  const auto cut = [&](auto& list) {
    list.erase(list.begin(), list.begin() + begin);
    list.resize(size);
  };
  cut(part.image_ids);
  cut(part.texts);
  cut(part.sample_numbers);
  return part;
}

TEST(Loader, RanksShareOneBatch) {
  for (bool training : {true, false}) {
    Fixture setup(90, 1);
    if (training) setup.source->missing = {4, 40};  // Evaluation leaves out.
    setup.options.training = training;
    setup.options.batch_size = 15;
    const std::vector<Batch> whole = Take(setup.Must().get(), 6);
    setup.options.batch_size = 5;
    setup.options.ranks = 3;
    for (int64_t rank = 0; rank < 3; ++rank) {
      setup.options.rank = rank;
      std::vector<Batch> expected;
      for (const Batch& batch : whole)
        expected.push_back(Part(batch, 5 * rank, 5));
      ExpectSame(Take(setup.Must().get(), 6), expected);
    }
  }
}

TEST(Loader, RanksEvaluateEverySampleOnce) {
  // 19 samples by threes on 4 ranks: the second round is 5 short, so that the
  // last rank has no batch in it.
  Fixture setup(19, 1);
  setup.options.training = false;
  setup.options.batch_size = 3;
  setup.options.ranks = 4;
  std::vector<int64_t> seen;
  for (int64_t rank = 0; rank < 4; ++rank) {
    setup.options.rank = rank;
    std::unique_ptr<Loader> loader = setup.Must();
    int64_t round = 0;
    while (true) {
      const absl::StatusOr<Batch> batch = loader->Next();
      if (absl::IsOutOfRange(batch.status())) break;
      ASSERT_TRUE(batch.ok()) << batch.status();
      EXPECT_EQ(batch->sample_numbers.front(), 3 * (4 * round++ + rank));
      seen.insert(seen.end(), batch->sample_numbers.begin(),
                  batch->sample_numbers.end());
    }
    EXPECT_EQ(round, rank == 3 ? 1 : 2);
  }
  std::sort(seen.begin(), seen.end());
  ASSERT_EQ(seen.size(), 19u);
  for (int64_t i = 0; i < 19; ++i) EXPECT_EQ(seen[i], i);
}

TEST(Loader, AnEpochIsWholeOverChangesOfTheNumberOfRanks) {
  // Two ranks, then one, then two again, by the cursor alone; more than two
  // epochs of 23.
  Fixture setup;
  setup.options.batch_size = 3;
  int64_t cursor = 0;
  std::vector<std::string> drawn;  // In the order of the sample numbers.
  for (const auto& [ranks, batches] :
       std::vector<std::pair<int64_t, int>>{{2, 3}, {1, 5}, {2, 4}}) {
    setup.options.ranks = ranks;
    setup.options.start_sample = cursor;
    cursor += ranks * batches * 3;
    drawn.resize(cursor);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      setup.options.rank = rank;
      for (const Batch& batch : Take(setup.Must().get(), batches)) {
        for (size_t i = 0; i < batch.image_ids.size(); ++i) {
          std::string& place = drawn.at(batch.sample_numbers[i]);
          EXPECT_EQ(place, "") << "drawn twice: " << batch.sample_numbers[i];
          place = batch.image_ids[i];
        }
      }
    }
  }
  ASSERT_EQ(drawn.size(), 57u);
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    EXPECT_EQ(std::set<std::string>(drawn.begin() + 23 * epoch,
                                    drawn.begin() + 23 * (epoch + 1))
                  .size(),
              23u);
  }
}

TEST(Loader, BatchSizeDoesNotChangeASample) {
  Fixture setup;
  const std::vector<Batch> small = Take(setup.Must().get(), 4);
  setup.options.batch_size = 10;
  const std::vector<Batch> large = Take(setup.Must().get(), 2);
  EXPECT_TRUE(large[1].images.narrow(0, 5, 5).equal(small[3].images));
  EXPECT_TRUE(large[0].text_ids.narrow(0, 5, 5).equal(small[1].text_ids));
}

TEST(Loader, CacheChangesNothing) {
  for (auto crop :
       {ImageTransform::RANDOM_RESIZED_CROP, ImageTransform::RESIZE}) {
    Fixture setup;
    setup.stream.mutable_transform()->set_crop(crop);
    const std::vector<Batch> expected = Take(setup.Must().get(), 15);
    // All, or only some of the images fit.
    for (int64_t bytes : {int64_t{1} << 20, int64_t{1000}}) {
      setup.data.set_cache_bytes(bytes);
      setup.data.set_workers(4);
      ExpectSame(Take(setup.Must().get(), 15), expected);
    }
  }
}

TEST(Loader, CacheSparesDecoding) {
  Fixture setup(10);
  setup.data.set_cache_bytes(1 << 20);
  std::unique_ptr<Loader> loader = setup.Must();
  const std::vector<Batch> before = Take(loader.get(), 8);
  for (int64_t i = 0; i < 10; ++i)
    ASSERT_EQ(std::remove(setup.source->Path(i).c_str()), 0);
  Take(loader.get(), 8);
  EXPECT_TRUE(loader->bad_samples().empty());
}

TEST(Loader, TextsAreDrawnWithoutReplacementThenRepeated) {
  Fixture setup(10, 3);
  setup.stream.set_texts_per_image(2);
  std::set<std::string> first;
  for (const Batch& batch : Take(setup.Must().get(), 6)) {
    ASSERT_EQ(batch.num_texts(), 10);
    for (int64_t i = 0; i < 5; ++i) {
      EXPECT_NE(batch.texts[2 * i].id, batch.texts[2 * i + 1].id);
      EXPECT_EQ(batch.text_to_image[2 * i + 1].item<int64_t>(), i);
      first.insert(batch.texts[2 * i].text);
    }
  }
  EXPECT_EQ(first.size(), 3u);

  setup.stream.set_texts_per_image(5);
  const Batch repeated = Take(setup.Must().get(), 1)[0];
  ASSERT_EQ(repeated.num_texts(), 25);
  std::set<std::string> distinct;
  for (int t = 0; t < 5; ++t) distinct.insert(repeated.texts[t].id);
  EXPECT_EQ(distinct.size(), 3u);

  setup.stream.set_texts_per_image(0);
  EXPECT_EQ(Take(setup.Must().get(), 1)[0].num_texts(), 15);
}

TEST(Loader, EvaluationIsInOrderWithAllTexts) {
  Fixture setup(12, 2);
  setup.options.training = false;
  setup.source->missing = {1, 5, 6,
                           7, 8, 9};  // The whole second batch among them.
  setup.data.set_max_bad_fraction(0.9);
  std::unique_ptr<Loader> loader = setup.Must();
  const std::vector<Batch> batches = Take(loader.get(), 2);
  EXPECT_EQ(batches[0].image_ids,
            (std::vector<std::string>{"0", "2", "3", "4"}));
  EXPECT_EQ(batches[0].sample_numbers, (std::vector<int64_t>{0, 2, 3, 4}));
  EXPECT_EQ(batches[0].images.size(0), 4);
  EXPECT_EQ(batches[0].num_texts(), 8);
  EXPECT_EQ(batches[0].text_to_image[7].item<int64_t>(), 3);
  EXPECT_EQ(batches[0].texts[2].id, "2/0");
  EXPECT_EQ(batches[1].image_ids, (std::vector<std::string>{"10", "11"}));
  // Flat red images: what is read off the pixels says that rows moved with
  // their names.
  for (const Batch& batch : batches) {
    for (size_t i = 0; i < batch.image_ids.size(); ++i) {
      const double red =
          batch.images[i][0][0][4][4].item<float>() * 0.26862954 + 0.48145466;
      EXPECT_NEAR(red * 255, 2 * std::stoi(batch.image_ids[i]), 0.5);
    }
  }
  EXPECT_EQ(loader->Next().status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(loader->Next().status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(loader->bad_samples().size(), 6u);
  EXPECT_EQ(loader->samples_read(), 12);
}

TEST(Loader, BadSamplesAreNamedAndReplaced) {
  Fixture setup;
  setup.source->bad_records = {2};
  setup.source->missing = {7};
  setup.source->wordless = {9};
  setup.source->slots[11] = 2;
  std::unique_ptr<Loader> loader = setup.Must();
  std::set<std::string> seen;
  for (const Batch& batch : Take(loader.get(), 10)) {
    EXPECT_EQ(batch.images.size(0), 5);
    seen.insert(batch.image_ids.begin(), batch.image_ids.end());
  }
  EXPECT_EQ(seen.size(), 19u);
  ASSERT_EQ(loader->bad_samples().size(), 4u);
  std::map<int64_t, std::string> what;
  for (const BadSample& bad : loader->bad_samples()) what[bad.index] = bad.what;
  EXPECT_EQ(what[2], "fake.json: record 2: bad");
  EXPECT_EQ(what[7],
            "fake.json: record 7: /nowhere.png: the file does not exist");
  EXPECT_NE(what[9].find("fake.json: record 9: the text '!!' has no words"),
            std::string::npos)
      << what[9];
  EXPECT_NE(what[11].find("got 2 images, expected 1"), std::string::npos)
      << what[11];
}

TEST(Loader, TooManyBadSamplesStop) {
  Fixture setup(100, 1);
  for (int64_t i = 0; i < 100; i += 5)
    setup.source->missing.insert(i);  // 20 %.
  setup.data.set_max_bad_fraction(0.25);
  EXPECT_EQ(Take(setup.Must().get(), 60).size(), 60u);

  setup.data.set_max_bad_fraction(0.05);
  std::unique_ptr<Loader> loader = setup.Must();
  absl::Status status;
  int batches = 0;
  for (; status.ok() && batches < 100; ++batches)
    status = loader->Next().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_GT(loader->bad_samples().size(), 10u);  // Ten are always allowed.
  EXPECT_LE(batches, 20);
  const std::string message(status.message());
  EXPECT_NE(message.find("the stream 'train'"), std::string::npos) << message;
  EXPECT_NE(message.find(loader->bad_samples()[0].what), std::string::npos)
      << message;
  EXPECT_EQ(loader->Next().status(), status);

  // Up to ten are allowed whatever the fraction is.
  Fixture few(20, 1);
  few.source->missing = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  few.data.set_max_bad_fraction(0);
  EXPECT_EQ(Take(few.Must().get(), 20).size(), 20u);
}

// One image in 200 and one caption in 200 are broken, each in another way.
TEST(Loader, OnePercentOfBadSamplesIsCountedExactly) {
  for (const uint64_t seed : {1, 2, 3}) {
    Fixture setup(2000, 1);
    setup.options.seed = seed;
    setup.options.batch_size = 50;
    std::map<int64_t, std::string> expected;
    int64_t i = 17;
    const auto break_image = [&](const std::string& content,
                                 const std::string& why) {
      std::ofstream(setup.source->Path(i), std::ios::binary) << content;
      expected[i] = why;
      i += 199;
    };
    std::string whole;
    {
      std::ifstream in(setup.source->Path(i), std::ios::binary);
      whole.assign(std::istreambuf_iterator<char>(in), {});
    }
    std::string flipped = whole;
    flipped[flipped.size() / 2] ^= 1;
    break_image("", "empty (0 bytes)");
    break_image("<html>404</html>", "starts with '<html>");
    break_image(whole.substr(0, whole.size() - 5), "cut off");
    break_image(flipped, "");
    break_image(std::string(100, '\0'), "not an image");
    for (; i < 2000 && expected.size() < 10; i += 199) {
      setup.source->missing.insert(i);
      expected[i] = "does not exist";
    }
    for (int64_t k = 0; k < 10; ++k) {
      const int64_t bad = 100 + 190 * k;
      (k % 2 == 0 ? setup.source->wordless : setup.source->bad_records)
          .insert(bad);
      expected[bad] = k % 2 == 0 ? "has no words" : "bad";
    }
    ASSERT_EQ(expected.size(), 20u);
    // The default share, 1 %, is just what is there.
    std::unique_ptr<Loader> loader = setup.Must();
    ASSERT_EQ(Take(loader.get(), 3 * 2000 / 50).size(), 120u) << seed;
    EXPECT_EQ(loader->samples_read(), 2000);
    ASSERT_EQ(loader->bad_samples().size(), 20u);
    for (const BadSample& bad : loader->bad_samples()) {
      ASSERT_EQ(expected.count(bad.index), 1u) << bad.index;
      EXPECT_NE(bad.what.find("fake.json: record " + std::to_string(bad.index) +
                              ": "),
                std::string::npos)
          << bad.what;
      EXPECT_NE(bad.what.find(expected[bad.index]), std::string::npos)
          << bad.what;
    }
  }
}

TEST(Loader, EveryImageBrokenStopsAtTheThreshold) {
  Fixture setup(200, 1);
  for (int64_t i = 0; i < 200; ++i)
    std::ofstream(setup.source->Path(i), std::ios::binary) << "no image";
  std::unique_ptr<Loader> loader = setup.Must();
  const absl::Status status = loader->Next().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(status.message());
  for (const char* part : {"the stream 'train'", "samples read so far are bad",
                           "data.max_bad_fraction = 0.01", "Repair the data",
                           "not an image that SemVQ reads"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(Loader, NothingButBadSamplesStopsAtOnce) {
  for (bool training : {true, false}) {
    Fixture setup(8, 1);
    setup.options.training = training;
    for (int64_t i = 0; i < 8; ++i) setup.source->missing.insert(i);
    EXPECT_EQ(setup.Must()->Next().status().code(),
              absl::StatusCode::kFailedPrecondition);
    EXPECT_LT(setup.source->reads_, 5 * 21 * 5);
    for (int64_t i = 0; i < 8; ++i) setup.source->bad_records.insert(i);
    EXPECT_EQ(setup.Create().status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
}

TEST(Loader, RefusesWrongSettingsAllAtOnce) {
  Fixture setup;
  setup.data.set_workers(0);
  setup.data.set_prefetch(0);
  setup.options.max_tokens = 1;
  setup.stream.mutable_transform()->set_size(0);
  const absl::Status status = setup.Create().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* part : {"workers: got 0", "prefetch: got 0",
                           "max_tokens: got 1", "size: got 0"}) {
    EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
        << part;
  }
  Fixture small(4, 1);
  const std::string message(small.Create().status().message());
  EXPECT_NE(
      message.find("the stream 'train': the data set is smaller than a batch"),
      std::string::npos)
      << message;
  small.options.training = false;
  EXPECT_EQ(Take(small.Must().get(), 1)[0].images.size(0), 4);

  // Enough for a batch, but not for those of two ranks; and no such rank.
  Fixture ranks(9, 1);
  ranks.options.ranks = 2;
  const std::string batch(ranks.Create().status().message());
  EXPECT_NE(batch.find("got 9 samples, expected at least 10"),
            std::string::npos)
      << batch;
  ranks.options.rank = 2;
  const std::string rank(ranks.Create().status().message());
  EXPECT_NE(rank.find("rank: got 2 of 2 ranks"), std::string::npos) << rank;
}

TEST(Loader, LimitTakesTheFirstSamples) {
  Fixture setup;
  setup.stream.set_limit(6);
  std::set<std::string> seen;
  for (const Batch& batch : Take(setup.Must().get(), 6))
    seen.insert(batch.image_ids.begin(), batch.image_ids.end());
  EXPECT_EQ(seen, (std::set<std::string>{"0", "1", "2", "3", "4", "5"}));
}

TEST(Loader, WithoutTokenizerThereAreImagesAlone) {
  Fixture setup;
  absl::StatusOr<std::unique_ptr<Loader>> loader = Loader::Create(
      setup.stream, setup.source, nullptr, setup.data, setup.options);
  ASSERT_TRUE(loader.ok());
  const Batch batch = Take(loader->get(), 1)[0];
  EXPECT_EQ(batch.text_ids.sizes(), (std::vector<int64_t>{5, 0}));
  EXPECT_EQ(batch.images.size(0), 5);
}

TEST(Loader, ThreadsRunOperatorsAloneAndStopPromptly) {
  at::set_num_threads(3);
  Fixture setup;
  setup.data.set_workers(3);
  setup.data.set_prefetch(8);
  std::unique_ptr<Loader> loader = setup.Must();
  setup.source->threads_seen_ = 0;  // Create() reads on this thread.
  Take(loader.get(), 30);
  EXPECT_EQ(setup.source->threads_seen_, 1);
  EXPECT_EQ(at::get_num_threads(), 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto start = std::chrono::steady_clock::now();
  loader.reset();
  EXPECT_LT(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count(),
      2.0);
}

TEST(Loader, DecodesAheadButNoFurther) {
  Fixture setup(40, 1);
  setup.data.set_prefetch(2);
  std::unique_ptr<Loader> loader = setup.Must();
  for (int i = 0; i < 200 && setup.source->reads_ < 11; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(setup.source->reads_, 1 + 2 * 5);  // Create() reads one.
  EXPECT_EQ(loader->wait_seconds(), 0);
  Take(loader.get(), 2);
  EXPECT_EQ(loader->wait_seconds(), 0);
}

TEST(Loader, MemoryOfBatchesGoesRound) {
  Fixture setup(40, 1);
  setup.data.set_prefetch(2);
  setup.data.set_workers(3);
  std::unique_ptr<Loader> loader = setup.Must();
  std::set<const void*> places;
  for (int b = 0; b < 60; ++b) {
    const Batch batch = Take(loader.get(), 1)[0];
    places.insert(batch.images.const_data_ptr());
  }
  EXPECT_EQ(places.size(), 3u);  // Two made ahead and the one that is read.
}

TEST(Loader, BatchesOutliveIt) {
  Fixture setup;
  const std::vector<Batch> kept = Take(setup.Must().get(), 12),
                           again = Take(setup.Must().get(), 12);
  ExpectSame(kept, again);
}

TEST(RecycledMemory, LendsAgainWhatNothingHolds) {
  RecycledMemory memory(2);
  at::Tensor a = memory.Lend({2, 6}, at::kFloat),
             b = memory.Lend({3, 4}, at::kFloat);
  const void *first = a.const_data_ptr(), *second = b.const_data_ptr();
  EXPECT_EQ(b.sizes(), (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(b.scalar_type(), at::kFloat);
  EXPECT_NE(first, second);
  at::Tensor view = b.narrow(0, 1, 1);
  b = at::Tensor();
  at::Tensor c = memory.Lend({12}, at::kFloat);  // The view holds the second.
  EXPECT_NE(c.const_data_ptr(), first);
  EXPECT_NE(c.const_data_ptr(), second);
  view = at::Tensor();
  b = memory.Lend({48}, at::kByte);
  EXPECT_EQ(b.const_data_ptr(), second);
}

TEST(RecycledMemory, MakesAllBeforeItLendsOneAgain) {
  RecycledMemory memory(3);
  std::set<const void*> places;
  for (int i = 0; i < 12; ++i)
    places.insert(memory.Lend({4}, at::kFloat).const_data_ptr());
  EXPECT_EQ(places.size(), 3u);
}

TEST(RecycledMemory, GrowsWithWhatIsAskedFor) {
  RecycledMemory memory(1, 100);
  memory.Lend({10}, at::kByte);
  const void* const large = memory.Lend({60}, at::kByte).const_data_ptr();
  EXPECT_EQ(memory.Lend({10}, at::kByte).const_data_ptr(), large);
  {
    const at::Tensor huge = memory.Lend({101}, at::kByte);  // Not kept.
    EXPECT_NE(huge.const_data_ptr(), large);
    EXPECT_EQ(huge.numel(), 101);
  }
  EXPECT_EQ(memory.Lend({60}, at::kByte).const_data_ptr(), large);
  EXPECT_THROW(memory.Lend({int64_t{1} << 40, int64_t{1} << 40}, at::kByte),
               std::exception);
}

TEST(RecycledMemory, WhatIsLentOutlivesIt) {
  at::Tensor kept;
  {
    RecycledMemory memory(2);
    kept = memory.Lend({1000}, at::kLong).fill_(7);
  }
  EXPECT_EQ(kept.sum().item<int64_t>(), 7000);
}

TEST(Loader, LoadAllTextsCleansAndSkipsBadRecords) {
  FakeSource source(4, 2);
  source.bad_records = {1};
  source.wordless = {2};
  using Texts = std::vector<std::vector<std::string>>;
  EXPECT_EQ(LoadAllTexts(source, 30),
            (Texts{{"a cat", "b cat"}, {}, {"a cat", "b cat"}}));
  EXPECT_EQ(LoadAllTexts(source, 1), (Texts{{"a", "b"}, {}, {"a", "b"}}));
}

}  // namespace
}  // namespace semvq

// Asked for by ThreadSanitizer: OpenCV loads GDAL, which takes two locks of its
// own in both orders while it is loaded.
extern "C" const char* __tsan_default_suppressions() {
  return "deadlock:libgdal.so\n";
}
