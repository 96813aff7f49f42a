// prepare: turns packaged data sets into ALBEF-style JSON lists and images.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "tools/data/prepare.h"

namespace {

constexpr char kHelp[] =
    R"(prepare: turns packaged data sets into ALBEF-style JSON lists and images.

usage: prepare [--out=FOLDER] [--only=SOURCE,...] [--easy_vqa_dir=FOLDER] ...

  --out=FOLDER           where to write
                         (default: semvq/data in the user's cache folder)
  --only=LIST            of emoji, stamps, easy_vqa (default: all three)
  --easy_vqa_dir=FOLDER  where `pip install --no-deps --target FOLDER
                         easy-vqa==1.0` put the package
  --font=FILE            a bitmap emoji font (default: the file of Debian's
                         fonts-noto-color-emoji)
  --cldr=FILE,...        CLDR annotations (default: annotations/en.xml and
                         annotationsDerived/en.xml of unicode-cldr-core)
  --labels=FILE          CLDR labels (default: properties/labels.txt of
                         unicode-cldr-core)
  --stamps=FOLDER        default: /usr/share/tuxpaint/stamps
                         (tuxpaint-stamps-default)
  --expected=FILE        compare the lists with these SHA-256 hashes, and say
                         which differ (tools/data/expected.sha256)
  --force                rebuild although the folder is complete
  --help                 this text

It writes pairs_{train,val,val_unseen,val_random,unseen,random}.json with
records {image, caption, image_id, concept, source[, keywords]},
easy_vqa_{train,val,test}.json with records {image, image_id, question, answer,
question_id, dataset}, answer_list.json, images/, LICENSES.txt and
manifest.json; and in the formats of the official benchmarks nlvr2_*.jsonl,
snli_ve_*.jsonl, grounding_*.json, v2_easy_vqa_*.json and captions_*.json, with
captions of their training pictures. Image paths are relative to the folder. The
splits depend on nothing but hashes of names, so every machine gets the same ones.
A folder that is complete and unaltered is recognised, and left as it is.
)";

// `bazel run` starts the program elsewhere than the user stands.
std::string Resolve(absl::string_view path) {
  const char* directory = std::getenv("BUILD_WORKING_DIRECTORY");
  if (path.empty() || path[0] == '/' || directory == nullptr) {
    return std::string(path);
  }
  return absl::StrCat(directory, "/", path);
}

std::string DefaultOut() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') {
    return absl::StrCat(cache, "/semvq/data");
  }
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : absl::StrCat(home, "/.cache/semvq/data");
}

int Misuse(absl::string_view message) {
  std::fprintf(stderr, "prepare: %s; see --help\n",
               std::string(message).c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  semvq::tools::PrepareOptions options;
  options.out = DefaultOut();
  for (int i = 1; i < argc; ++i) {
    const absl::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      std::fputs(kHelp, stdout);
      return 0;
    }
    if (argument == "--force") {
      options.force = true;
      continue;
    }
    const size_t equals = argument.find('=');
    const absl::string_view name = argument.substr(0, equals);
    absl::string_view value;
    if (equals != absl::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (absl::StartsWith(name, "--") && i + 1 < argc) {
      value = argv[++i];
    }
    if (!absl::StartsWith(name, "--")) {
      return Misuse(absl::StrCat("unexpected argument \"", argument, "\""));
    }
    if (name == "--out") {
      options.out = Resolve(value);
    } else if (name == "--only") {
      options.sources.clear();
      for (const absl::string_view source : absl::StrSplit(value, ',')) {
        if (source != "emoji" && source != "stamps" && source != "easy_vqa") {
          return Misuse(absl::StrCat("--only got \"", source,
                                     "\", expected emoji, stamps, easy_vqa"));
        }
        options.sources.emplace(source);
      }
    } else if (name == "--easy_vqa_dir") {
      options.easy_vqa_dir = Resolve(value);
    } else if (name == "--font") {
      options.emoji.font = Resolve(value);
    } else if (name == "--cldr") {
      for (const absl::string_view path : absl::StrSplit(value, ',')) {
        options.emoji.annotations.push_back(Resolve(path));
      }
    } else if (name == "--labels") {
      options.emoji.labels = Resolve(value);
    } else if (name == "--stamps") {
      options.stamps_dir = Resolve(value);
    } else if (name == "--expected") {
      options.expected = Resolve(value);
    } else {
      return Misuse(absl::StrCat("unknown flag ", name));
    }
    if (value.empty()) return Misuse(absl::StrCat(name, " needs a value"));
  }
  std::fprintf(stderr, "preparing %s in %s\n",
               absl::StrJoin(options.sources, ", ").c_str(),
               options.out.c_str());
  const auto result = semvq::tools::Prepare(options);
  if (!result.ok()) {
    std::fprintf(stderr, "prepare: %s\n",
                 std::string(result.status().message()).c_str());
    return 1;
  }
  std::fputs(result->summary.c_str(), stdout);
  return 0;
}
