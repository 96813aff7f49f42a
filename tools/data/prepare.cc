#include "tools/data/prepare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "tools/data/benchmarks.h"
#include "tools/data/common.h"
#include "tools/data/concept.h"
#include "tools/data/easy_vqa.h"
#include "tools/data/manifest.h"
#include "tools/data/split.h"
#include "tools/data/stamps.h"
#include "tools/data/subject.h"

namespace semvq::tools {
namespace {

using Versions = std::map<std::string, std::string>;
constexpr char kUnknown[] = "unknown";

// Holds `<out>/.lock` while it lives, so that two runs do not interleave.
class FolderLock {
 public:
  ~FolderLock() {
    if (fd_ >= 0) close(fd_);
  }
  absl::Status Acquire(const std::string& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    const std::string path = folder + "/.lock";
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) {
      return absl::PermissionDeniedError(
          absl::StrCat("cannot write into ", folder, ": ", std::strerror(errno),
                       "; choose a folder of yours with --out"));
    }
    if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
    std::fprintf(stderr, "waiting for another run that prepares %s\n",
                 folder.c_str());
    while (flock(fd_, LOCK_EX) != 0) {
      if (errno != EINTR) {
        return absl::InternalError(
            absl::StrCat("cannot lock ", path, ": ", std::strerror(errno)));
      }
    }
    return absl::OkStatus();
  }

 private:
  int fd_ = -1;
};

// What the output depends on. A file of the user's own goes by its hash.
Versions InputVersions(const PrepareOptions& options) {
  Versions versions;
  const auto custom = [](const std::string& path) -> std::string {
    auto bytes = ReadFile(path);
    return bytes.ok() ? "sha256:" + Sha256Hex(*bytes) : kUnknown;
  };
  if (options.sources.count("emoji") != 0) {
    versions["fonts-noto-color-emoji"] =
        options.emoji.font.empty() ? DebianVersion("fonts-noto-color-emoji")
                                   : custom(options.emoji.font);
    versions["unicode-cldr-core"] = DebianVersion("unicode-cldr-core");
    if (!options.emoji.annotations.empty()) {
      std::vector<std::string> hashes;
      for (const std::string& path : options.emoji.annotations) {
        hashes.push_back(custom(path));
      }
      versions["unicode-cldr-core"] = absl::StrJoin(hashes, " ");
    }
    if (!options.emoji.labels.empty()) {
      versions["cldr-labels"] = custom(options.emoji.labels);
    }
  }
  if (options.sources.count("stamps") != 0) {
    versions["tuxpaint-stamps-default"] =
        options.stamps_dir == PrepareOptions::kDefaultStamps
            ? DebianVersion("tuxpaint-stamps-default")
            : "folder:" + options.stamps_dir;
  }
  if (options.sources.count("easy_vqa") != 0) {
    auto folder = FindEasyVqa(options.easy_vqa_dir);
    versions["easy-vqa"] = folder.ok() ? EasyVqaVersion(*folder) : kUnknown;
  }
  return versions;
}

// A version nobody can tell (the package was removed since) is no change.
bool SameInputs(const Versions& before, const Versions& now) {
  return std::all_of(now.begin(), now.end(), [&](const auto& input) {
    const auto it = before.find(input.first);
    return input.second == kUnknown ||
           (it != before.end() && it->second == input.second);
  });
}

// Whether the inputs are there, before anything is replaced.
absl::Status CheckInputs(const PrepareOptions& options) {
  if (options.sources.count("emoji") != 0) {
    EmojiOptions inputs = options.emoji;
    if (absl::Status s = FindEmojiInputs(&inputs); !s.ok()) return s;
  }
  if (options.sources.count("stamps") != 0) {
    if (absl::Status s = FindStamps(options.stamps_dir); !s.ok()) return s;
  }
  if (options.sources.count("easy_vqa") != 0) {
    return FindEasyVqa(options.easy_vqa_dir).status();
  }
  return absl::OkStatus();
}

std::string Licences(const PrepareOptions& options) {
  struct Notice {
    const char *source, *package, *line;
  };
  constexpr Notice kNotices[] = {
      {"emoji", "fonts-noto-color-emoji",
       "images/emoji, images/nlvr2, images/snli_ve, images/scenes: Noto Color "
       "Emoji, SIL Open Font License 1.1, copyright Google Inc."},
      {"emoji", "unicode-cldr-core",
       "captions, keywords and kinds of emoji, also in nlvr2_*, snli_ve_*, "
       "grounding_* and captions_*: Unicode CLDR, Unicode licence "
       "(Unicode-DFS-2016), copyright Unicode, Inc."},
      {"stamps", "tuxpaint-stamps-default",
       "images/stamps and their captions, also in captions_*.json: Tux Paint "
       "stamps, GNU GPL version 2 "
       "or later, copyright Bill Kendrick and contributors"},
      {"easy_vqa", "easy-vqa",
       "images/easy_vqa, easy_vqa_*.json and v2_easy_vqa_*: easy-VQA 1.0, MIT "
       "licence, "
       "copyright Victor Zhou"}};
  std::string head =
      "This folder was made from the packages below by SemVQ's "
      "//tools/data:prepare.\nCaptions and questions are unchanged; images "
      "are unchanged but for stamps larger than 512 pixels, which were "
      "reduced. images/snli_ve and images/scenes are made of reduced emoji; "
      "the statements and questions about emoji are SemVQ's.\n\n";
  std::string texts;
  for (const Notice& notice : kNotices) {
    if (options.sources.count(notice.source) == 0) continue;
    absl::StrAppend(&head, "- ", notice.line, " (package ", notice.package,
                    ")\n");
    std::string path =
        absl::StrCat("/usr/share/doc/", notice.package, "/copyright");
    if (absl::string_view(notice.source) == "easy_vqa") {
      auto folder = FindEasyVqa(options.easy_vqa_dir);
      if (folder.ok()) {
        path = std::filesystem::path(*folder).parent_path().parent_path() /
               absl::StrCat("easy_vqa-", EasyVqaVersion(*folder),
                            ".dist-info/LICENSE");
      }
    }
    auto text = ReadFile(path);
    if (text.ok()) {
      absl::StrAppend(&texts, "\n", std::string(72, '='), "\n", notice.package,
                      "\n", std::string(72, '='), "\n", *text);
    }
  }
  return head + texts;
}

std::string CountLine(const std::vector<Pair>& pairs) {
  std::set<std::string> concepts;
  for (const Pair& pair : pairs) concepts.insert(pair.concept_name);
  return absl::StrFormat("%5d pairs, %4d concepts", pairs.size(),
                         concepts.size());
}

double Chance(const std::vector<Pair>& pairs) {
  return pairs.empty() ? 0 : 100.0 / static_cast<double>(pairs.size());
}

class Job {
 public:
  Job(const PrepareOptions& options, OutputFolder* out)
      : options_(options), out_(out) {}

  absl::Status Run() {
    if (Asked("emoji")) {
      if (absl::Status s = Emoji(); !s.ok()) return s;
    }
    if (Asked("stamps")) {
      if (absl::Status s = Stamps(); !s.ok()) return s;
    }
    if (Asked("emoji") || Asked("stamps")) {
      if (absl::Status s = Pairs(); !s.ok()) return s;
    }
    if (Asked("easy_vqa")) {
      if (absl::Status s = Vqa(); !s.ok()) return s;
    }
    return out_->Write("LICENSES.txt", Licences(options_), true);
  }

  const Counts& counts() const { return counts_; }
  const std::string& summary() const { return summary_; }

 private:
  bool Asked(const char* source) const {
    return options_.sources.count(source) != 0;
  }
  void Line(const std::string& text) { absl::StrAppend(&summary_, text, "\n"); }
  std::string Megabytes(absl::string_view prefix) const {
    return absl::StrFormat("%.1f MB", out_->BytesUnder(prefix) / 1e6);
  }

  absl::Status Emoji() {
    EmojiOptions inputs = options_.emoji;
    if (absl::Status s = FindEmojiInputs(&inputs); !s.ok()) return s;
    const auto stats = ConvertEmoji(inputs, out_, &pairs_);
    if (!stats.ok()) return stats.status();
    counts_["emoji_names"] = stats->names;
    counts_["emoji_found"] = stats->found;
    counts_["emoji_missing_no_glyph"] = stats->no_glyph;
    counts_["emoji_missing_sequence"] = stats->several;
    counts_["emoji_missing_no_bitmap"] = stats->no_bitmap;
    counts_["emoji_repeated_image"] = stats->repeated_image;
    Line(absl::StrFormat(
        "emoji      %d of %d CLDR names have a bitmap, %s (SIL OFL 1.1; names: "
        "Unicode licence)",
        stats->found, stats->names, Megabytes("images/emoji/")));
    Line(absl::StrFormat(
        "           missing: %d not in the font, %d sequences without a glyph "
        "of their own, %d glyphs without a bitmap",
        stats->no_glyph, stats->several, stats->no_bitmap));
    Line(absl::StrFormat(
        "           kept: %d images that equal another name's (same flag or "
        "drawing), put into one concept with it",
        stats->repeated_image));
    return absl::OkStatus();
  }

  absl::Status Stamps() {
    const auto stats = ConvertStamps(options_.stamps_dir, out_, &pairs_);
    if (!stats.ok()) return stats.status();
    counts_["stamps_images"] = stats->images;
    counts_["stamps_found"] = stats->found;
    counts_["stamps_no_caption"] = stats->no_caption;
    counts_["stamps_bad_caption"] = stats->bad_caption;
    counts_["stamps_bad_image"] = stats->bad_image;
    counts_["stamps_vector_only"] = stats->vector_only;
    counts_["stamps_reduced"] = stats->reduced;
    counts_["stamps_repeated_image"] = stats->repeated_image;
    Line(absl::StrFormat(
        "stamps     %d of %d PNG images have a caption, %s "
        "(GNU GPL 2 or later)",
        stats->found, stats->images, Megabytes("images/stamps/")));
    Line(absl::StrFormat(
        "           skipped: %d without a caption (mirrored variants, poses), "
        "%d bad captions, %d bad images, %d captioned drawings only as SVG",
        stats->no_caption, stats->bad_caption, stats->bad_image,
        stats->vector_only));
    Line(absl::StrFormat(
        "           %d larger than %d pixels were reduced to %d; %d equal "
        "another stamp",
        stats->reduced, kMaxSide, kReducedSide, stats->repeated_image));
    return absl::OkStatus();
  }

  absl::Status Pairs() {
    const int concepts = AssignConcepts(&pairs_);
    const int64_t total = static_cast<int64_t>(pairs_.size());
    const PairSplits splits = SplitPairs(std::move(pairs_), DefaultShares());
    if (absl::Status s = CheckSplits(splits); !s.ok()) return s;
    std::vector<Pair> val = splits.val_unseen;
    val.insert(val.end(), splits.val_random.begin(), splits.val_random.end());
    std::sort(val.begin(), val.end(), [](const Pair& a, const Pair& b) {
      return a.image_id < b.image_id;
    });
    const std::pair<const char*, const std::vector<Pair>*> parts[] = {
        {"train", &splits.train},           {"val", &val},
        {"val_unseen", &splits.val_unseen}, {"val_random", &splits.val_random},
        {"unseen", &splits.unseen},         {"random", &splits.random}};
    Line(absl::StrFormat("pairs      %d pairs in %d concept groups", total,
                         concepts));
    for (const auto& [name, part] : parts) {
      const std::string file = absl::StrCat("pairs_", name, ".json");
      if (absl::Status s = out_->Write(file, PairsJson(*part), true); !s.ok()) {
        return s;
      }
      counts_[absl::StrCat("pairs_", name)] =
          static_cast<int64_t>(part->size());
      Line(absl::StrFormat("           %-22s %s", file, CountLine(*part)));
    }
    int64_t first_id = 1;
    for (const auto& [name, part] :
         {std::make_pair("train", &splits.train),
          std::make_pair("val", &std::as_const(val)),
          std::make_pair("unseen", &splits.unseen),
          std::make_pair("random", &splits.random)}) {
      absl::Status s = MakeCocoCaptions(name, *part, first_id, out_, Report());
      if (!s.ok()) return s;
      first_id += static_cast<int64_t>(part->size());
    }
    if (Asked("emoji")) {
      if (absl::Status s = Benchmarks(splits); !s.ok()) return s;
    }
    counts_["pairs_concepts"] = concepts;
    counts_["pairs_dropped"] = splits.dropped;
    counts_["pairs_returned_to_train"] = splits.returned;
    counts_["pairs_keywords_held_out"] = splits.keywords_held_out;
    counts_["pairs_keywords_shared"] = splits.keywords_shared;
    Line(absl::StrFormat(
        "           chance R@1: %.2f %% unseen, %.2f %% random; %d held-out "
        "pairs dropped because their set has the phrase already, %d returned "
        "to training for it",
        Chance(splits.unseen), Chance(splits.random), splits.dropped,
        splits.returned));
    Line(absl::StrFormat(
        "           %d keywords of training pairs are left out because a "
        "held-out pair is called so, all of %d pairs because others have the "
        "same",
        splits.keywords_held_out, splits.keywords_shared));
    return absl::OkStatus();
  }

  SetReport Report() { return {&counts_, &summary_}; }

  // Subjects are of concept groups that the training pairs show, or of ones
  // that they do not: "unseen", as in the pairs.
  absl::Status Benchmarks(const PairSplits& splits) {
    EmojiOptions inputs = options_.emoji;
    if (absl::Status s = FindEmojiInputs(&inputs); !s.ok()) return s;
    const auto labels = ReadLabels(inputs.labels);
    if (!labels.ok()) return labels.status();
    const SubjectPools pools = {Subjects(splits.train, *labels),
                                Subjects(splits.unseen, *labels)};
    counts_["subjects_trained"] = static_cast<int64_t>(pools.trained.size());
    counts_["subjects_unseen"] = static_cast<int64_t>(pools.unseen.size());
    Line(absl::StrFormat(
        "benchmarks %d emoji of trained and %d of unseen concept groups",
        pools.trained.size(), pools.unseen.size()));
    for (const auto make : {MakeNlvr2, MakeSnliVe, MakeGrounding}) {
      if (absl::Status s = make(pools, out_, Report()); !s.ok()) return s;
    }
    Line(absl::StrFormat("           pictures: nlvr2 %s, snli_ve %s, scenes %s",
                         Megabytes("images/nlvr2/"),
                         Megabytes("images/snli_ve/"),
                         Megabytes("images/scenes/")));
    return absl::OkStatus();
  }

  absl::Status Vqa() {
    const auto data = ConvertEasyVqa(options_.easy_vqa_dir, out_);
    if (!data.ok()) return data.status();
    struct Part {
      const char* name;
      const std::vector<VqaRecord>* records;
      int64_t images;
    };
    const Part parts[] = {{"train", &data->train, data->train_images},
                          {"val", &data->val, data->val_images},
                          {"test", &data->test, data->test_images}};
    Line(absl::StrFormat(
        "easy_vqa   %d images, %s, %d answers (MIT licence)",
        data->train_images + data->val_images + data->test_images,
        Megabytes("images/easy_vqa/"), data->answers.size()));
    for (const Part& part : parts) {
      const std::string file = absl::StrCat("easy_vqa_", part.name, ".json");
      absl::Status s = out_->Write(file, VqaJson(*part.records), true);
      if (!s.ok()) return s;
      counts_[absl::StrCat("easy_vqa_", part.name, "_questions")] =
          static_cast<int64_t>(part.records->size());
      counts_[absl::StrCat("easy_vqa_", part.name, "_images")] = part.images;
      Line(absl::StrFormat("           %-22s %5d questions, %4d images", file,
                           part.records->size(), part.images));
    }
    if (absl::Status s = MakeVqaV2(*data, out_, Report()); !s.ok()) return s;
    Line(absl::StrFormat(
        "           test without the image: majority answer \"%s\" %.1f %%, "
        "best answer per question text %.1f %%",
        data->majority_answer, 100 * data->majority_accuracy,
        100 * data->question_only_accuracy));
    return out_->Write("answer_list.json", StringListJson(data->answers), true);
  }

  const PrepareOptions& options_;
  OutputFolder* out_;
  std::vector<Pair> pairs_;
  Counts counts_;
  std::string summary_;
};

// Compares the JSON lists with hashes recorded earlier. Other package versions
// give other lists, so a difference is told, not refused.
absl::StatusOr<std::string> CompareExpected(const std::string& path,
                                            const FileHashes& files) {
  auto text = ReadFile(path);
  if (!text.ok()) return text.status();
  std::istringstream lines(*text);
  std::string line, made_from;
  std::vector<std::string> different;
  int same = 0;
  while (std::getline(lines, line)) {
    if (absl::StartsWith(line, "#")) {
      absl::StrAppend(&made_from, made_from.empty() ? "" : ",", line.substr(1));
      continue;
    }
    std::istringstream fields(line);
    std::string hash, file;
    if (!(fields >> hash >> file)) continue;
    const auto it = files.find(file);
    if (it == files.end()) continue;
    if (it->second == hash) {
      ++same;
    } else {
      different.push_back(file);
    }
  }
  if (different.empty()) {
    return absl::StrFormat("%d lists equal the recorded ones\n", same);
  }
  return absl::StrCat("note: ", absl::StrJoin(different, ", "),
                      " differ from the recorded lists, made from", made_from,
                      "; results will not compare exactly\n");
}

}  // namespace

absl::StatusOr<PrepareResult> Prepare(PrepareOptions options) {
  const auto start = std::chrono::steady_clock::now();
  if (options.out.empty()) {
    return absl::InvalidArgumentError("no output folder; pass --out=FOLDER");
  }
  FolderLock lock;
  if (absl::Status s = lock.Acquire(options.out); !s.ok()) return s;
  const Versions versions = InputVersions(options);

  PrepareResult result;
  auto old = ReadManifest(options.out);
  if (old.ok()) {
    const bool covered =
        std::all_of(options.sources.begin(), options.sources.end(),
                    [&](const std::string& source) {
                      return std::count(old->sources.begin(),
                                        old->sources.end(), source) != 0;
                    });
    std::string reason = options.force ? "--force was given" : "";
    if (reason.empty() && !covered) reason = "it lacks some of the sources";
    if (reason.empty() && old->format != kManifestFormat) {
      reason = "another version of this tool made it";
    }
    if (reason.empty() && !SameInputs(old->versions, versions)) {
      reason = "the installed packages changed";
    }
    if (reason.empty()) {
      absl::Status intact = VerifyFiles(options.out, *old);
      if (!intact.ok()) reason = std::string(intact.message());
    }
    if (reason.empty()) {
      result.already_complete = true;
      result.summary = absl::StrFormat(
          "%s is complete: %s; %d files verified in %.2f s\n", options.out,
          absl::StrJoin(old->sources, ", "), old->files.size(),
          std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                        start)
              .count());
      if (!options.expected.empty()) {
        auto compared = CompareExpected(options.expected, old->files);
        if (!compared.ok()) return compared.status();
        result.summary += *compared;
      }
      return result;
    }
    for (const std::string& source : old->sources) {
      if (options.sources.count(source) == 0) {
        return absl::AlreadyExistsError(absl::StrCat(
            options.out, " holds ", absl::StrJoin(old->sources, ", "),
            " and must be rebuilt (", reason, "), but only ",
            absl::StrJoin(options.sources, ", "),
            " would be; ask for all of them, or choose another --out"));
      }
    }
    std::fprintf(stderr, "rebuilding %s: %s\n", options.out.c_str(),
                 reason.c_str());
  } else if (!absl::IsNotFound(old.status())) {
    std::fprintf(stderr, "rebuilding %s: %s\n", options.out.c_str(),
                 std::string(old.status().message()).c_str());
  }

  if (absl::Status s = CheckInputs(options); !s.ok()) return s;
  // From here on the folder is incomplete, and says so by lacking a manifest.
  unlink((options.out + "/" + kManifestFile).c_str());
  OutputFolder out(options.out);
  Job job(options, &out);
  if (absl::Status s = job.Run(); !s.ok()) return s;
  if (old.ok()) {
    for (const auto& [path, hash] : old->files) {
      if (out.files().count(path) == 0) {
        unlink(absl::StrCat(options.out, "/", path).c_str());
      }
    }
  }
  Manifest manifest;
  manifest.sources.assign(options.sources.begin(), options.sources.end());
  manifest.versions = versions;
  manifest.counts = job.counts();
  manifest.files = out.files();
  absl::Status s =
      WriteFileAtomically(absl::StrCat(options.out, "/", kManifestFile),
                          ManifestJson(manifest), /*durable=*/true);
  if (!s.ok()) return s;

  result.summary = job.summary();
  std::vector<std::string> inputs;
  for (const auto& [package, version] : versions) {
    inputs.push_back(absl::StrCat(package, " ", version));
  }
  absl::StrAppend(&result.summary, "made from  ", absl::StrJoin(inputs, ", "),
                  "\n");
  if (!options.expected.empty()) {
    auto compared = CompareExpected(options.expected, out.files());
    if (!compared.ok()) return compared.status();
    result.summary += *compared;
  }
  absl::StrAppend(
      &result.summary,
      absl::StrFormat(
          "%s: %d files, %.1f MB, in %.1f s; licences in LICENSES.txt\n",
          options.out, out.files().size(), out.BytesUnder("") / 1e6,
          std::chrono::duration<double>(std::chrono::steady_clock::now() -
                                        start)
              .count()));
  return result;
}

}  // namespace semvq::tools
