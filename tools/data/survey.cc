#include "tools/data/survey.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "core/random/stream.h"
#include "core/text/caption.h"
#include "core/util/hash.h"
#include "data/decode.h"
#include "data/image_bytes.h"
#include "data/image_file.h"
#include "tools/data/progress.h"

namespace semvq::tools {
namespace {

constexpr int64_t kChunk = 256;
constexpr size_t kShown = 20;
constexpr size_t kMostWords = 2000000;  // Distinct ones that are counted.

// Equal texts have equal hashes on every machine; others, hardly ever.
uint64_t HashOf(absl::string_view text) {
  return StreamKey(0, std::string_view(text.data(), text.size()));
}

struct ImageFacts {
  uint64_t digest = 0, id = 0;  // Of its bytes, and of its image id.
  int64_t bytes = 0, width = 0, height = 0;
  ImageFormat format = ImageFormat::kPng;
};

struct SampleFacts {
  std::string bad;  // Why it cannot be used, with its name.
  std::vector<ImageFacts> images;
  std::vector<std::string> texts;    // Cleaned.
  std::vector<std::string> answers;  // The most frequent of each text.
  int64_t cut = 0;
};

// Reading, decoding and cleaning: what threads do.
class Reader {
 public:
  Reader(const DataSource& source, const SurveyOptions& options)
      : source_(source), options_(options) {}

  SampleFacts Read(int64_t index) const {
    SampleFacts facts;
    absl::StatusOr<Sample> sample = source_.Read(index);
    if (!sample.ok()) {
      facts.bad = std::string(sample.status().message());
      return facts;
    }
    absl::Status status;
    try {
      status = Images(*sample, &facts);
    } catch (const std::exception& e) {
      status = absl::InternalError(e.what());
    }
    if (status.ok()) status = Texts(*sample, &facts);
    if (!status.ok())
      facts.bad = absl::StrCat(sample->where, ": ", status.message());
    return facts;
  }

 private:
  absl::Status Image(const Sample& sample, size_t slot,
                     ImageFacts* facts) const {
    absl::StatusOr<std::string> bytes =
        ReadSampleImage(sample, slot, kMaxImageBytes);
    if (!bytes.ok()) return bytes.status();
    absl::StatusOr<ImageInfo> info = InspectImage(*bytes);
    if (info.ok() && options_.decode)
      info = [&]() -> absl::StatusOr<ImageInfo> {
        absl::StatusOr<at::Tensor> image =
            DecodeImage(*bytes, options_.max_pixels);
        if (!image.ok()) return image.status();
        return *info;
      }();
    if (!info.ok()) {
      return absl::Status(info.status().code(),
                          absl::StrCat(sample.image_paths[slot], ": ",
                                       info.status().message()));
    }
    facts->bytes = static_cast<int64_t>(bytes->size());
    facts->width = info->width;
    facts->height = info->height;
    facts->format = info->format;
    const std::string digest = Sha256Hex(*bytes);
    (void)absl::SimpleHexAtoi(digest.substr(0, 16), &facts->digest);
    facts->id = HashOf(absl::StrCat(sample.image_id, "\n", slot));
    return absl::OkStatus();
  }

  absl::Status Images(const Sample& sample, SampleFacts* facts) const {
    for (size_t slot = 0; slot < sample.image_paths.size(); ++slot) {
      ImageFacts image;
      const absl::Status status = Image(sample, slot, &image);
      if (!status.ok()) return status;
      facts->images.push_back(image);
    }
    return absl::OkStatus();
  }

  absl::Status Texts(const Sample& sample, SampleFacts* facts) const {
    for (const TextRecord& text : sample.texts) {
      const absl::Status utf8 = ValidateUtf8(text.text);
      if (!utf8.ok()) return utf8;
      std::string cleaned = CleanCaption(text.text, 0);
      if (cleaned.empty()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the text '", absl::string_view(text.text).substr(0, 40),
            "' has no words"));
      }
      if (options_.max_words > 0 &&
          CleanCaption(text.text, options_.max_words) != cleaned) {
        ++facts->cut;
      }
      facts->texts.push_back(std::move(cleaned));
      if (text.answers.empty()) continue;
      const auto most = std::max_element(
          text.answers.begin(), text.answers.end(),
          [](const auto& a, const auto& b) { return a.second < b.second; });
      facts->answers.push_back(most->first);
    }
    return absl::OkStatus();
  }

  const DataSource& source_;
  const SurveyOptions options_;
};

// "x.json: record 3: a.png: the file does not exist" is of the kind "the file
// does not exist".
std::string KindOf(absl::string_view what) {
  const std::vector<absl::string_view> parts = absl::StrSplit(what, ": ");
  std::string kind(parts.size() > 2 ? parts[2] : parts.back());
  if (parts.size() > 3) kind = std::string(parts[3]);
  // Numbers and names differ from one to the next.
  std::string out;
  bool quoted = false;
  for (const char c : kind) {
    if (c == '\'' || c == '"') quoted = !quoted;
    if (absl::ascii_isdigit(c) || quoted) {
      if (out.empty() || out.back() != '#') out.push_back('#');
    } else if (c != '\'' && c != '"') {
      out.push_back(c);
    }
  }
  return out.substr(0, 100);
}

std::string FormatName(ImageFormat format) {
  switch (format) {
    case ImageFormat::kPng:
      return "PNG";
    case ImageFormat::kJpeg:
      return "JPEG";
    default:
      return "WebP";
  }
}

// The largest counts, then the smallest keys: the same on every run.
template <class Map, class Describe>
std::vector<Finding> MostFrequent(const Map& counts, int64_t least,
                                  const Describe& describe) {
  using Entry = std::pair<int64_t, typename Map::key_type>;
  std::vector<Entry> entries;
  for (const auto& [key, value] : counts) {
    if (value.count >= least) entries.emplace_back(-value.count, key);
  }
  const size_t shown = std::min(kShown, entries.size());
  std::partial_sort(entries.begin(), entries.begin() + shown, entries.end());
  std::vector<Finding> findings;
  for (size_t i = 0; i < shown; ++i) {
    findings.push_back(
        describe(entries[i].second, counts.at(entries[i].second)));
    findings.back().count = -entries[i].first;
  }
  return findings;
}

// Adds the samples up, in their order.
class Tally {
 public:
  Tally(const DataSource& source, const SurveyOptions& options, Survey* survey)
      : source_(source), options_(options), survey_(*survey) {
    survey_.samples = source.size();
    survey_.shorter_side.from = {0,   32,  64,  128,  224,  256,
                                 384, 512, 768, 1024, 2048, 4096};
    survey_.file_kib.from = {0, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096};
    survey_.text_words.from = {0,  1,  2,  3,  4,  5,  6,  8,  10,
                               12, 15, 20, 25, 30, 40, 60, 100};
    survey_.texts_per_sample.from = {0, 1, 2, 3, 4, 5, 6, 10, 20};
  }

  void Add(int64_t index, const SampleFacts& facts) {
    if (!facts.bad.empty()) {
      ++survey_.bad;
      ++survey_.bad_kinds[KindOf(facts.bad)];
      if (static_cast<int64_t>(survey_.bad_names.size()) < options_.most_named)
        survey_.bad_names.push_back(facts.bad);
      return;
    }
    ++survey_.good;
    for (const ImageFacts& image : facts.images) AddImage(index, image);
    AddTexts(index, facts);
  }

  void Finish() {
    survey_.duplicates =
        MostFrequent(digests_, 2, [&](uint64_t, const Bytes& bytes) {
          return Finding{"", 0, Where(bytes.first), Where(bytes.other)};
        });
    survey_.ambiguous = MostFrequent(ids_, 2, [&](uint64_t, const Id& id) {
      return Finding{"", 0, Where(id.first), Where(id.other)};
    });
    survey_.frequent_texts =
        MostFrequent(texts_, 2, [&](uint64_t, const Text& text) {
          absl::StatusOr<Sample> sample = source_.Read(text.first);
          return Finding{sample.ok() ? sample->texts[text.number].text : "", 0,
                         Where(text.first), ""};
        });
    const auto name = [](const std::string& key, const Count&) {
      return Finding{key, 0, "", ""};
    };
    survey_.frequent_words = MostFrequent(words_, 1, name);
    survey_.frequent_answers = MostFrequent(answers_, 1, name);
    survey_.distinct_texts = static_cast<int64_t>(texts_.size());
    survey_.distinct_words = static_cast<int64_t>(words_.size());
    for (const auto& [word, count] : words_)
      survey_.words_seen_once += count.count == 1;
    for (int64_t k = 0; k < 12; ++k) {
      const int64_t index = k * survey_.samples / 12;
      absl::StatusOr<Sample> sample = source_.Read(index);
      if (sample.ok()) survey_.examples.push_back(sample->texts[0].text);
    }
  }

 private:
  struct Count {
    int64_t count = 0;
  };
  // Ids that have the same bytes; with `count` of 1 it is one image.
  struct Bytes {
    int64_t count = 0;  // Different ids.
    int64_t first = 0, other = 0;
  };
  struct Id {
    int64_t count = 0;  // Different bytes.
    int64_t first = 0, other = 0;
  };
  struct Text {
    int64_t count = 0;  // Samples.
    int64_t first = 0;
    uint32_t number = 0;
  };

  std::string Where(int64_t index) const {
    absl::StatusOr<Sample> sample = source_.Read(index);
    return sample.ok() ? sample->where : absl::StrCat("sample ", index);
  }

  void AddImage(int64_t index, const ImageFacts& image) {
    ++survey_.images;
    survey_.image_bytes += image.bytes;
    ++survey_.formats[FormatName(image.format)];
    survey_.shorter_side.Add(std::min(image.width, image.height));
    survey_.file_kib.Add(image.bytes / 1024);
    if (image.width * image.height > survey_.largest_pixels) {
      survey_.largest_pixels = image.width * image.height;
      survey_.largest_image =
          absl::StrCat(Where(index), ": ", image.width, " x ", image.height);
    }
    // Each id and each content once: an image with five captions is no
    // duplicate.
    if (!seen_.insert({image.digest, image.id}).second) return;
    Bytes& bytes = digests_[image.digest];
    if (++bytes.count == 1) {
      bytes.first = index;
    } else {
      ++survey_.duplicate_images;
      if (bytes.count == 2) bytes.other = index;
    }
    Id& id = ids_[image.id];
    if (++id.count == 1) {
      id.first = index;
    } else if (id.count == 2) {
      ++survey_.ambiguous_ids;
      id.other = index;
    }
  }

  void AddTexts(int64_t index, const SampleFacts& facts) {
    survey_.texts += static_cast<int64_t>(facts.texts.size());
    survey_.cut_texts += facts.cut;
    survey_.texts_per_sample.Add(static_cast<int64_t>(facts.texts.size()));
    for (size_t t = 0; t < facts.texts.size(); ++t) {
      const std::string& text = facts.texts[t];
      const uint64_t hash = HashOf(text);
      Text& known = texts_[hash];
      if (++known.count == 1) {
        known.first = index;
        known.number = static_cast<uint32_t>(t);
      }
      if (!facts.images.empty() &&
          !pairs_.insert(Mix64(hash ^ facts.images[0].id)).second) {
        ++survey_.repeated_pairs;
      }
      int64_t words = 0;
      for (const absl::string_view word :
           absl::StrSplit(text, ' ', absl::SkipEmpty())) {
        ++words;
        auto it = words_.find(word);
        if (it != words_.end()) {
          ++it->second.count;
        } else if (words_.size() < kMostWords) {
          words_[std::string(word)].count = 1;
        }
      }
      survey_.words += words;
      survey_.text_words.Add(words);
    }
    survey_.questions_with_answers +=
        static_cast<int64_t>(facts.answers.size());
    for (const std::string& answer : facts.answers) ++answers_[answer].count;
  }

  const DataSource& source_;
  const SurveyOptions options_;
  Survey& survey_;
  absl::flat_hash_set<std::pair<uint64_t, uint64_t>> seen_;
  absl::flat_hash_map<uint64_t, Bytes> digests_;
  absl::flat_hash_map<uint64_t, Id> ids_;
  absl::flat_hash_map<uint64_t, Text> texts_;
  absl::flat_hash_set<uint64_t> pairs_;
  absl::flat_hash_map<std::string, Count> words_, answers_;
};

}  // namespace

void Histogram::Add(int64_t value) {
  counts.resize(from.size());
  const auto above = std::upper_bound(from.begin(), from.end(), value);
  if (above != from.begin()) ++counts[above - from.begin() - 1];
}

int64_t Histogram::total() const {
  int64_t sum = 0;
  for (const int64_t count : counts) sum += count;
  return sum;
}

Survey TakeSurvey(const DataSource& source, const SurveyOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Survey survey;
  Tally tally(source, options, &survey);
  const Reader reader(source, options);
  Progress progress("samples", source.size());
  const int64_t chunks = (source.size() + kChunk - 1) / kChunk;
  // Threads read chunks, and hand them over in the order of the data set.
  std::mutex mutex;
  std::condition_variable turn;
  int64_t next = 0, done = 0;
  const auto work = [&] {
    at::NoGradGuard no_grad;
    for (;;) {
      int64_t chunk;
      {
        std::lock_guard<std::mutex> lock(mutex);
        if (next == chunks) return;
        chunk = next++;
      }
      const int64_t begin = chunk * kChunk,
                    end = std::min(source.size(), begin + kChunk);
      std::vector<SampleFacts> facts;
      for (int64_t i = begin; i < end; ++i) facts.push_back(reader.Read(i));
      std::unique_lock<std::mutex> lock(mutex);
      turn.wait(lock, [&] { return done == chunk; });
      for (int64_t i = begin; i < end; ++i) tally.Add(i, facts[i - begin]);
      if (options.progress) progress.Add(end - begin);
      ++done;
      turn.notify_all();
    }
  };
  std::vector<std::thread> threads;
  for (int t = 1; t < options.workers; ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (options.progress) progress.Done();
  tally.Finish();
  survey.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
          .count();
  return survey;
}

}  // namespace semvq::tools
