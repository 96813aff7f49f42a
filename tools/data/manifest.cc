#include "tools/data/manifest.h"

#include <simdjson.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace semvq::tools {
namespace {

template <typename Map, typename ToJson>
void AppendObject(absl::string_view name, const Map& map, ToJson to_json,
                  std::string* out) {
  absl::StrAppend(out, ",\n", JsonString(name), ": {");
  const char* separator = "\n";
  for (const auto& [key, value] : map) {
    absl::StrAppend(out, separator, "  ", JsonString(key), ": ",
                    to_json(value));
    separator = ",\n";
  }
  absl::StrAppend(out, "\n}");
}

}  // namespace

std::string ManifestJson(const Manifest& manifest) {
  std::string out =
      absl::StrCat("{\n\"format\": ", manifest.format,
                   ",\n\"sources\": ", StringListJson(manifest.sources));
  out.pop_back();  // the list's line feed
  AppendObject("versions", manifest.versions, JsonString, &out);
  AppendObject(
      "counts", manifest.counts,
      [](int64_t count) { return absl::StrCat(count); }, &out);
  AppendObject("files", manifest.files, JsonString, &out);
  return out + "\n}\n";
}

absl::StatusOr<Manifest> ReadManifest(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", kManifestFile);
  auto bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  simdjson::dom::parser parser;
  simdjson::dom::object root, versions, counts, files;
  simdjson::dom::array sources;
  int64_t format = 0;
  const bool bad = parser.parse(*bytes).get(root) ||
                   root["format"].get(format) || root["sources"].get(sources) ||
                   root["versions"].get(versions) ||
                   root["counts"].get(counts) || root["files"].get(files);
  const absl::Status broken = absl::InvalidArgumentError(
      absl::StrCat(path, " is not a manifest of this tool"));
  if (bad) return broken;
  Manifest manifest;
  manifest.format = static_cast<int>(format);
  for (const simdjson::dom::element source : sources) {
    std::string_view name;
    if (source.get(name)) return broken;
    manifest.sources.emplace_back(name);
  }
  for (const auto [key, value] : versions) {
    std::string_view text;
    if (value.get(text)) return broken;
    manifest.versions.emplace(key, text);
  }
  for (const auto [key, value] : counts) {
    int64_t count = 0;
    if (value.get(count)) return broken;
    manifest.counts.emplace(key, count);
  }
  for (const auto [key, value] : files) {
    std::string_view hash;
    if (value.get(hash)) return broken;
    manifest.files.emplace(key, hash);
  }
  return manifest;
}

absl::Status VerifyFiles(const std::string& folder, const Manifest& manifest) {
  std::vector<const FileHashes::value_type*> files;
  for (const auto& file : manifest.files) files.push_back(&file);
  std::vector<char> wrong(files.size(), 0);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next++) < files.size();) {
      auto bytes = ReadFile(absl::StrCat(folder, "/", files[i]->first));
      wrong[i] = !bytes.ok() || Sha256Hex(*bytes) != files[i]->second;
    }
  };
  std::vector<std::thread> threads;
  const unsigned n =
      std::min(4u, std::max(1u, std::thread::hardware_concurrency()));
  for (unsigned i = 1; i < n; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  const auto first = std::find(wrong.begin(), wrong.end(), 1);
  if (first == wrong.end()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(std::count(wrong.begin(), wrong.end(), 1), " of ",
                   files.size(), " files are missing or altered, the first is ",
                   folder, "/", files[first - wrong.begin()]->first));
}

}  // namespace semvq::tools
