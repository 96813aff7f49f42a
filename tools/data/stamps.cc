#include "tools/data/stamps.h"

#include <png.h>
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

namespace semvq::tools {
namespace {

namespace fs = std::filesystem;

// Source pixels that one target pixel covers along one axis, with the share of
// each that it covers.
struct Span {
  int first;
  std::vector<float> weights;
};

std::vector<Span> AreaSpans(int from, int to) {
  std::vector<Span> spans(to);
  const double scale = static_cast<double>(from) / to;
  for (int i = 0; i < to; ++i) {
    const double begin = i * scale, end = std::min((i + 1) * scale, 1.0 * from);
    spans[i].first = static_cast<int>(begin);
    for (int s = spans[i].first; s < end; ++s) {
      spans[i].weights.push_back(static_cast<float>(std::min(end, s + 1.0) -
                                                    std::max(begin, 1.0 * s)));
    }
  }
  return spans;
}

std::vector<png_byte> ReduceArea(const std::vector<png_byte>& rgba, int width,
                                 int height, int new_width, int new_height) {
  const auto columns = AreaSpans(width, new_width);
  const auto rows = AreaSpans(height, new_height);
  std::vector<png_byte> out(size_t{4} * new_width * new_height);
  for (int y = 0; y < new_height; ++y) {
    for (int x = 0; x < new_width; ++x) {
      double color[3] = {0, 0, 0}, alpha = 0, area = 0;
      for (size_t v = 0; v < rows[y].weights.size(); ++v) {
        for (size_t u = 0; u < columns[x].weights.size(); ++u) {
          const double weight = rows[y].weights[v] * columns[x].weights[u];
          const png_byte* p = &rgba[4 * (size_t(rows[y].first + v) * width +
                                         columns[x].first + u)];
          for (int c = 0; c < 3; ++c) color[c] += weight * p[3] * p[c];
          alpha += weight * p[3];
          area += weight;
        }
      }
      png_byte* q = &out[4 * (size_t{static_cast<size_t>(y)} * new_width + x)];
      for (int c = 0; c < 3; ++c) {
        q[c] = alpha > 0 ? static_cast<png_byte>(color[c] / alpha + 0.5) : 0;
      }
      q[3] = static_cast<png_byte>(alpha / area + 0.5);
    }
  }
  return out;
}

struct PngImage {
  png_image image{};
  PngImage() { image.version = PNG_IMAGE_VERSION; }
  ~PngImage() { png_image_free(&image); }
  absl::Status Error(absl::string_view doing) const {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot ", doing, " the PNG: ", image.message));
  }
};

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
  PngImage in;
  if (!png_image_begin_read_from_memory(&in.image, bytes.data(),
                                        bytes.size())) {
    return in.Error("read");
  }
  const int width = static_cast<int>(in.image.width);
  const int height = static_cast<int>(in.image.height);
  if (std::max(width, height) <= max_side) return bytes;
  constexpr int kMaxPixelSide = 20000;
  if (std::max(width, height) > kMaxPixelSide) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the PNG is ", width, "x", height, " pixels; expected at most ",
        kMaxPixelSide, " on a side"));
  }
  in.image.format = PNG_FORMAT_RGBA;
  std::vector<png_byte> rgba(PNG_IMAGE_SIZE(in.image));
  if (!png_image_finish_read(&in.image, nullptr, rgba.data(), 0, nullptr)) {
    return in.Error("decode");
  }
  const double scale = static_cast<double>(reduced_side) /
                       static_cast<double>(std::max(width, height));
  const auto side = [&](int n) {
    return std::max(1, static_cast<int>(n * scale + 0.5));
  };
  PngImage out;
  out.image.width = side(width);
  out.image.height = side(height);
  out.image.format = PNG_FORMAT_RGBA;
  const auto small =
      ReduceArea(rgba, width, height, static_cast<int>(out.image.width),
                 static_cast<int>(out.image.height));
  png_alloc_size_t size = 0;
  if (!png_image_write_get_memory_size(out.image, size, 0, small.data(), 0,
                                       nullptr)) {
    return out.Error("encode");
  }
  std::string encoded(size, '\0');
  if (!png_image_write_to_memory(&out.image, encoded.data(), &size, 0,
                                 small.data(), 0, nullptr)) {
    return out.Error("encode");
  }
  encoded.resize(size);
  *reduced = true;
  return encoded;
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
