// verify: looks at every sample of a data set.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/util/file.h"
#include "tools/data/dataset.h"
#include "tools/data/survey.h"

namespace semvq::tools {
namespace {

constexpr int64_t kAlwaysTolerated = 10;
constexpr size_t kNamedInMessage = 10;

constexpr char kHelp[] =
    R"(verify: reads and decodes every sample of a data set, as training would.

usage: verify --list=FILE --html=report.html ...

)";
constexpr char kOptions[] =
    R"(
What to look for, and where to tell it:
  --html=FILE            a page with counts, broken samples, duplicates, sizes
                         and caption statistics; it needs nothing else
  --bad_list=FILE        every bad sample, one a line
  --max_bad_fraction=X   fail above this share of bad samples, and more than 10
                         (default: the experiment's, 0.01)
  --headers_only         look at each image's header and end without decoding:
                         several times faster
  --title=TEXT           of the page
  --workers=N            threads (default: the cores)
  --help                 this text

The exit code is 0 when the data set can be trained on, 1 when too much of it is
bad or it cannot be opened, and 2 for wrong flags. Duplicates do not fail.
)";

struct Flags {
  DatasetFlags dataset;
  SurveyOptions options;
  std::string html, bad_list, title;
  double max_bad_fraction = -1;
  bool help = false;
};

absl::StatusOr<Flags> Parse(int argc, char** argv) {
  auto split =
      SplitFlags(argc, argv, {"help", "group_by_image", "headers_only"});
  if (!split.ok()) return split.status();
  Flags flags;
  flags.options.progress = true;
  flags.options.workers =
      static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (const auto& [name, value] : *split) {
    if (name == "help") {
      flags.help = true;
      return flags;
    } else if (flags.dataset.Take(name, value)) {
      continue;
    } else if (name == "html") {
      flags.html = FromWorkingFolder(value);
    } else if (name == "bad_list") {
      flags.bad_list = FromWorkingFolder(value);
    } else if (name == "title") {
      flags.title = value;
    } else if (name == "headers_only") {
      flags.options.decode = false;
    } else if (name == "max_bad_fraction") {
      absl::StatusOr<double> share = FlagShare(name, value);
      if (!share.ok()) return share.status();
      flags.max_bad_fraction = *share;
    } else if (name == "workers") {
      absl::StatusOr<int64_t> number = FlagNumber(name, value, 1);
      if (!number.ok()) return number.status();
      flags.options.workers = static_cast<int>(std::min<int64_t>(*number, 256));
    } else {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag --", name));
    }
  }
  if (!flags.dataset.given()) {
    return absl::InvalidArgumentError(
        "no data set: give --list, --shards, --source or --config");
  }
  return flags;
}

// Why the data set fails; empty when it does not.
std::string Verdict(const Survey& survey, double max_bad_fraction) {
  if (survey.samples == 0) return "There is no sample.";
  if (survey.good == 0) return "Not one sample can be used.";
  if (survey.bad <= kAlwaysTolerated ||
      static_cast<double>(survey.bad) <=
          max_bad_fraction * static_cast<double>(survey.samples)) {
    return "";
  }
  return absl::StrFormat(
      "%d of %d samples are bad; %d and max_bad_fraction = %g of them are "
      "allowed. Training would stop.",
      survey.bad, survey.samples, kAlwaysTolerated, max_bad_fraction);
}

void Print(const Survey& s, const std::string& verdict) {
  std::printf("%lld samples: %lld good, %lld bad\n",
              static_cast<long long>(s.samples), static_cast<long long>(s.good),
              static_cast<long long>(s.bad));
  for (size_t i = 0; i < std::min(kNamedInMessage, s.bad_names.size()); ++i)
    std::printf("  %s\n", s.bad_names[i].c_str());
  if (s.bad > static_cast<int64_t>(kNamedInMessage))
    std::printf("  ... and %lld more (--bad_list=FILE has all)\n",
                static_cast<long long>(s.bad) -
                    static_cast<long long>(kNamedInMessage));
  std::printf(
      "%lld images, %.1f MB; %lld repeat the bytes of another id's, %lld ids "
      "have several\n",
      static_cast<long long>(s.images),
      static_cast<double>(s.image_bytes) / 1e6,
      static_cast<long long>(s.duplicate_images),
      static_cast<long long>(s.ambiguous_ids));
  std::printf("%lld texts, %lld distinct; %lld words, %lld distinct\n",
              static_cast<long long>(s.texts),
              static_cast<long long>(s.distinct_texts),
              static_cast<long long>(s.words),
              static_cast<long long>(s.distinct_words));
  if (!verdict.empty()) std::printf("%s\n", verdict.c_str());
}

int Run(const Flags& flags, const char* program) {
  auto opened = flags.dataset.Open(program);
  if (!opened.ok()) {
    std::fprintf(stderr, "verify: %s\n",
                 std::string(opened.status().message()).c_str());
    return 1;
  }
  SurveyOptions options = flags.options;
  options.max_pixels = opened->limits.max_pixels();

  const Survey survey = TakeSurvey(*opened->source, options);
  const std::string verdict = Verdict(
      survey, flags.max_bad_fraction >= 0 ? flags.max_bad_fraction
                                          : opened->limits.max_bad_fraction());
  Print(survey, verdict);
  absl::Status status;
  if (!flags.html.empty()) {
    status = AtomicWriteFile(
        flags.html,
        SurveyPage(survey,
                   flags.title.empty() ? opened->stream.name() : flags.title,
                   verdict));
  }
  if (status.ok() && !flags.bad_list.empty()) {
    status = AtomicWriteFile(
        flags.bad_list,
        survey.bad_names.empty()
            ? std::string()
            : absl::StrCat(absl::StrJoin(survey.bad_names, "\n"), "\n"));
  }
  if (!status.ok()) {
    std::fprintf(stderr, "verify: %s\n", std::string(status.message()).c_str());
    return 1;
  }
  return verdict.empty() ? 0 : 1;
}

int Main(int argc, char** argv) {
  absl::StatusOr<Flags> flags = Parse(argc, argv);
  if (!flags.ok()) {
    std::fprintf(stderr, "verify: %s\nSee --help.\n",
                 std::string(flags.status().message()).c_str());
    return 2;
  }
  if (flags->help) {
    std::fputs(absl::StrCat(kHelp, kDatasetHelp, kOptions).c_str(), stdout);
    return 0;
  }
  return Run(*flags, argv[0]);
}

}  // namespace
}  // namespace semvq::tools

int main(int argc, char** argv) {
  try {
    return semvq::tools::Main(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "verify: %s\n", e.what());
    return 1;
  }
}
