#include "tools/data/stamps.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "tools/data/concept.h"
#include "tools/data/picture.h"

namespace semvq::tools {
namespace {

namespace fs = std::filesystem;

// The first line, without byte-order mark and carriage return.
std::string FirstLine(absl::string_view text) {
  absl::ConsumePrefix(&text, "\xEF\xBB\xBF");
  return std::string(
      absl::StripAsciiWhitespace(text.substr(0, text.find('\n'))));
}

// "fr.utf8=Une fleur": a file that has no English line.
bool IsTranslation(const std::string& line) {
  const size_t at = line.find(".utf8=");
  return at != std::string::npos && at <= 12;
}

absl::Status NoStamps(const std::string& folder, const std::error_code& error) {
  return absl::NotFoundError(absl::StrCat(
      "no stamps in ", folder, error ? ": " + error.message() : "",
      "; install the Debian package tuxpaint-stamps-default or name the folder "
      "with --stamps"));
}

void ReportBroken(const std::string& path, absl::string_view why) {
  std::fprintf(stderr, "  skipped %s: %s\n", path.c_str(),
               std::string(why).c_str());
}

}  // namespace

absl::StatusOr<std::string> ReducePng(std::string bytes, int max_side,
                                      int reduced_side, bool* reduced) {
  *reduced = false;
  int width = 0, height = 0;
  if (absl::Status s = PngSize(bytes, &width, &height); !s.ok()) return s;
  if (std::max(width, height) <= max_side) return bytes;
  const auto picture = DecodePng(bytes);
  if (!picture.ok()) return picture.status();
  const double scale = static_cast<double>(reduced_side) /
                       static_cast<double>(std::max(width, height));
  const auto side = [&](int n) {
    return std::max(1, static_cast<int>(n * scale + 0.5));
  };
  *reduced = true;
  return EncodePng(Reduce(*picture, side(width), side(height)),
                   /*opaque=*/false);
}

absl::Status FindStamps(const std::string& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return absl::OkStatus();
  return NoStamps(folder, error);
}

absl::StatusOr<StampStats> ConvertStamps(const std::string& folder,
                                         OutputFolder* out,
                                         std::vector<Pair>* pairs) {
  std::error_code error;
  StampStats stats;
  std::set<std::string> images, captioned_vectors;
  for (fs::recursive_directory_iterator it(folder, error), end;
       !error && it != end; it.increment(error)) {
    const fs::path relative = it->path().lexically_relative(folder);
    if (relative.extension() == ".png") images.insert(relative.string());
    if (relative.extension() == ".svg" &&
        fs::exists(fs::path(it->path()).replace_extension(".txt"))) {
      captioned_vectors.insert(fs::path(relative).replace_extension().string());
    }
  }
  if (error || images.empty()) {
    return NoStamps(folder, error);
  }
  stats.images = static_cast<int64_t>(images.size());
  std::set<std::string> contents;
  Progress progress("stamps", stats.images);
  for (const std::string& name : images) {
    progress.Add();
    const std::string stem = fs::path(name).replace_extension().string();
    const std::string path = absl::StrCat(folder, "/", name);
    captioned_vectors.erase(stem);
    auto text = ReadFile(absl::StrCat(folder, "/", stem, ".txt"));
    if (absl::IsNotFound(text.status())) {
      ++stats.no_caption;
      continue;
    }
    if (!text.ok()) return text.status();
    const std::string caption = FirstLine(*text);
    if (caption.empty() || IsTranslation(caption) ||
        !simdjson::validate_utf8(caption)) {
      ++stats.bad_caption;
      ReportBroken(path, "its .txt does not begin with a caption in UTF-8");
      continue;
    }
    auto bytes = ReadFile(path);
    if (!bytes.ok()) return bytes.status();
    bool reduced = false;
    auto png = ReducePng(*std::move(bytes), kMaxSide, kReducedSide, &reduced);
    if (!png.ok()) {
      ++stats.bad_image;
      ReportBroken(path, png.status().message());
      continue;
    }
    stats.reduced += reduced;
    ++stats.found;
    Pair pair;
    pair.image = absl::StrCat("images/stamps/", name);
    pair.caption = caption;
    pair.image_id = absl::StrCat("stamps/", stem);
    pair.source = "stamps";
    const std::string hash = Sha256Hex(*png);
    stats.repeated_image += !contents.insert(hash).second;
    pair.group_keys = {absl::StrCat("phrase:", StampConcept(caption)),
                       absl::StrCat("pixels:", hash)};
    absl::Status status = out->Write(pair.image, *png);
    if (!status.ok()) return status;
    pairs->push_back(std::move(pair));
  }
  stats.vector_only = static_cast<int64_t>(captioned_vectors.size());
  progress.Done();
  return stats;
}

}  // namespace semvq::tools
