#include "core/config/source.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "core/config/names.h"

namespace semvq {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kLargestSource = 16 << 20;

// `path` is `prefix` or lies in it.
bool Within(absl::string_view path, absl::string_view prefix) {
  if (prefix.empty()) return true;
  if (!absl::StartsWith(path, prefix)) return false;
  return path.size() == prefix.size() || path[prefix.size()] == '.' ||
         path[prefix.size()] == '[';
}

// The enclosing value's path; empty for the root.
absl::string_view Parent(absl::string_view path) {
  size_t end = 0;
  bool quoted = false;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] == '\\') {
      ++i;
    } else if (path[i] == '"') {
      quoted = !quoted;
    } else if (!quoted && (path[i] == '.' || path[i] == '[')) {
      end = i;
    }
  }
  return path.substr(0, end);
}

// `path`, which lies in `from`, moved to lie in `to`.
std::string Moved(absl::string_view path, absl::string_view from,
                  absl::string_view to) {
  path.remove_prefix(from.size());
  if (to.empty()) return std::string(absl::StripPrefix(path, "."));
  return from.empty() ? FieldPath(to, path) : absl::StrCat(to, path);
}

template <class Ordered>
void EraseWithin(
    const std::string& path, Ordered* entries,
    absl::string_view (*key)(const typename Ordered::value_type&)) {
  auto it = entries->lower_bound(path);
  while (it != entries->end() && absl::StartsWith(key(*it), path)) {
    it = Within(key(*it), path) ? entries->erase(it) : std::next(it);
  }
}

bool IsFile(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

bool IsFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

}  // namespace

std::string ToString(const SourceLocation& location) {
  if (location.file.empty()) return "(default)";
  return location.line > 0 ? absl::StrCat(location.file, ":", location.line)
                           : location.file;
}

std::string FieldPath(absl::string_view parent, absl::string_view field) {
  return parent.empty() ? std::string(field) : absl::StrCat(parent, ".", field);
}

std::string EntryPath(absl::string_view list, absl::string_view name) {
  return absl::StrCat(list, "[\"", absl::CHexEscape(name), "\"]");
}

std::string EntryPath(absl::string_view list, int index) {
  return absl::StrCat(list, "[", index, "]");
}

void Provenance::Erase(const std::string& path) {
  using Location = std::pair<const std::string, SourceLocation>;
  EraseWithin(
      path, &locations_,
      +[](const Location& entry) -> absl::string_view { return entry.first; });
  EraseWithin(
      path, &broken_,
      +[](const std::string& entry) { return absl::string_view(entry); });
}

void Provenance::CopyFrom(const Provenance& from, const std::string& from_path,
                          const std::string& to_path) {
  for (auto it = from.locations_.lower_bound(from_path);
       it != from.locations_.end() && absl::StartsWith(it->first, from_path);
       ++it) {
    if (Within(it->first, from_path)) {
      locations_[Moved(it->first, from_path, to_path)] = it->second;
    }
  }
  for (auto it = from.broken_.lower_bound(from_path);
       it != from.broken_.end() && absl::StartsWith(*it, from_path); ++it) {
    if (Within(*it, from_path)) broken_.insert(Moved(*it, from_path, to_path));
  }
  for (auto it = from.removed_.lower_bound(from_path);
       it != from.removed_.end() && absl::StartsWith(*it, from_path); ++it) {
    if (Within(*it, from_path)) removed_.insert(Moved(*it, from_path, to_path));
  }
}

const SourceLocation* Provenance::Find(const std::string& path) const {
  const auto it = locations_.find(path);
  return it == locations_.end() ? nullptr : &it->second;
}

SourceLocation Provenance::Locate(absl::string_view path) const {
  for (; !path.empty(); path = Parent(path)) {
    const auto it = locations_.find(std::string(path));
    if (it != locations_.end()) return it->second;
  }
  return {};
}

bool Provenance::IsBroken(absl::string_view path) const {
  for (; !path.empty(); path = Parent(path)) {
    if (broken_.contains(std::string(path))) return true;
  }
  return false;
}

bool Provenance::TouchesBroken(const std::string& path) const {
  if (IsBroken(path)) return true;
  for (auto it = broken_.lower_bound(path);
       it != broken_.end() && absl::StartsWith(*it, path); ++it) {
    if (Within(*it, path)) return true;
  }
  return false;
}

ConfigError ErrorAt(const Provenance& provenance, std::string path,
                    std::string message) {
  SourceLocation location = provenance.Locate(path);
  return {std::move(location.file), location.line, location.column,
          std::move(path), std::move(message)};
}

std::string FormatReport(std::vector<ConfigError> errors) {
  const auto key = [](const ConfigError& e) {
    return std::tie(e.file, e.line, e.column, e.path, e.message);
  };
  std::sort(errors.begin(), errors.end(),
            [&](const ConfigError& a, const ConfigError& b) {
              return key(a) < key(b);
            });
  errors.erase(std::unique(errors.begin(), errors.end(),
                           [&](const ConfigError& a, const ConfigError& b) {
                             return key(a) == key(b);
                           }),
               errors.end());
  if (errors.empty()) return "";
  std::string report =
      absl::StrCat(errors.size(), errors.size() == 1 ? " error" : " errors",
                   " in the experiment:\n");
  for (const ConfigError& error : errors) {
    absl::StrAppend(&report, "  ");
    if (!error.file.empty()) {
      absl::StrAppend(&report, error.file, ":");
      if (error.line > 0) {
        absl::StrAppend(&report, error.line, ":", error.column, ":");
      }
      absl::StrAppend(&report, " ");
    }
    if (!error.path.empty()) absl::StrAppend(&report, error.path, ": ");
    absl::StrAppend(&report, error.message, "\n");
  }
  return report;
}

std::string WorkingFolder() {
  const char* caller = std::getenv("BUILD_WORKING_DIRECTORY");
  if (caller != nullptr && *caller != '\0') return caller;
  std::error_code error;
  const fs::path current = fs::current_path(error);
  return error ? "." : current.string();
}

std::string ProgramPath() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? "" : program.string();
}

std::vector<std::string> ConfigFolders(absl::string_view argv0) {
  std::vector<fs::path> candidates;
  if (const char* runfiles = std::getenv("RUNFILES_DIR")) {
    candidates.push_back(fs::path(runfiles) / "semvq" / "configs");
  }
  if (const char* sources = std::getenv("TEST_SRCDIR")) {
    candidates.push_back(fs::path(sources) / "semvq" / "configs");
  }
  if (!argv0.empty()) {
    candidates.push_back(fs::path(absl::StrCat(argv0, ".runfiles")) / "semvq" /
                         "configs");
  }
  if (const char* workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY")) {
    candidates.push_back(fs::path(workspace) / "configs");
  }
  std::vector<std::string> folders;
  for (const fs::path& candidate : candidates) {
    if (IsFolder(candidate) && std::find(folders.begin(), folders.end(),
                                         candidate.string()) == folders.end()) {
      folders.push_back(candidate.string());
    }
  }
  return folders;
}

absl::StatusOr<std::string> ResolveConfigPath(
    absl::string_view argument, absl::string_view working_folder,
    const std::vector<std::string>& config_folders) {
  if (argument.empty()) {
    return absl::InvalidArgumentError(
        "no experiment is named; give one, for example "
        "--config=quickstart.pbtxt");
  }
  const fs::path wanted{std::string(argument)};
  std::vector<fs::path> places;
  if (wanted.is_absolute()) {
    places.push_back(wanted);
  } else {
    places.push_back(fs::path(std::string(working_folder)) / wanted);
    for (const std::string& folder : config_folders) {
      places.push_back(fs::path(folder) / wanted);
    }
  }
  std::vector<std::string> looked;
  std::vector<std::string> names;
  for (const fs::path& place : places) {
    if (IsFile(place)) return place.string();
    looked.push_back(
        absl::StrCat(place.string(), IsFolder(place) ? " (a folder)" : ""));
    std::error_code error;
    for (fs::directory_iterator it(place.parent_path(), error), end;
         !error && it != end; it.increment(error)) {
      if (it->path().extension() == ".pbtxt") {
        names.push_back(it->path().filename().string());
      }
    }
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return absl::NotFoundError(absl::StrCat(
      "no experiment file ", argument, "; looked at ",
      absl::StrJoin(looked, ", "),
      names.empty() ? "; no .pbtxt file is there"
                    : DidYouMean(wanted.filename().string(), names)));
}

absl::StatusOr<SourceText> ReadSource(const std::string& path,
                                      absl::string_view name) {
  SourceText source;
  source.name = name.empty() ? path : std::string(name);
  std::error_code error;
  if (!IsFile(path)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  const uintmax_t size = fs::file_size(path, error);
  if (!error && size > kLargestSource) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": ", size, " bytes; an experiment file has at most ",
        kLargestSource));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file.is_open() && size > 0) text << file.rdbuf();
  if (!file.is_open() || file.bad() || text.bad()) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, ": cannot be read: ", std::strerror(errno)));
  }
  source.text = std::move(text).str();
  return source;
}

}  // namespace semvq
