// Where an experiment's text comes from, where in it each value was set, and
// what is wrong with it.
#ifndef SEMVQ_CORE_CONFIG_SOURCE_H_
#define SEMVQ_CORE_CONFIG_SOURCE_H_

#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// One text in the language of experiment.proto.
struct SourceText {
  std::string name;  // For messages: the file as the user wrote it, or
                     // "--merge #1".
  std::string text;
};

// Lines and columns count from 1; 0: unknown.
struct SourceLocation {
  std::string file;
  int line = 0;
  int column = 0;
};

// "quickstart.pbtxt:12"; "(default)" when nothing set the value.
std::string ToString(const SourceLocation& location);

struct ConfigError {
  std::string file;
  int line = 0;
  int column = 0;
  std::string path;     // objectives["mlm"].config.mask_ratio
  std::string message;  // What it got, what it expected, what is near.
};

// A config path names a value: fields are joined by '.', an entry of a list
// whose messages have a `name` is list["name"], one of another list list[0].
// What is inside an Any follows the Any's own field.
std::string FieldPath(absl::string_view parent, absl::string_view field);
std::string EntryPath(absl::string_view list, absl::string_view name);
std::string EntryPath(absl::string_view list, int index);

// Which source set each value of an experiment last, and which values could
// not be read (so that no second error is derived from a first one).
class Provenance {
 public:
  void Set(const std::string& path, SourceLocation location) {
    locations_[path] = std::move(location);
  }
  void MarkBroken(const std::string& path) { broken_.insert(path); }
  // A source removed the list entry of this path: to remove it again, as a
  // stage does with what an ablation left out already, is no mistake.
  void MarkRemoved(const std::string& path) { removed_.insert(path); }
  // Forgets `path` and all below it.
  void Erase(const std::string& path);
  // Adds `from`'s entries at `from_path` and below, under `to_path`. An empty
  // path is the experiment's root.
  void CopyFrom(const Provenance& from, const std::string& from_path,
                const std::string& to_path);

  // Null when no source set exactly this value.
  const SourceLocation* Find(const std::string& path) const;
  // The nearest enclosing value that a source set; an empty location when
  // there is none.
  SourceLocation Locate(absl::string_view path) const;
  // The value, or one it lies in, could not be read.
  bool IsBroken(absl::string_view path) const;
  // The value, one it lies in or one in it could not be read.
  bool TouchesBroken(const std::string& path) const;

  bool WasRemoved(const std::string& path) const {
    return removed_.contains(path);
  }

  const absl::btree_map<std::string, SourceLocation>& all() const {
    return locations_;
  }
  const absl::btree_set<std::string>& broken() const { return broken_; }

 private:
  absl::btree_map<std::string, SourceLocation> locations_;
  absl::btree_set<std::string> broken_;
  absl::btree_set<std::string> removed_;
};

// An error at `path`, located by `provenance`.
ConfigError ErrorAt(const Provenance& provenance, std::string path,
                    std::string message);

// For people: a heading and one line an error, sorted by source, line and
// column, each error once. Empty when there are none.
std::string FormatReport(std::vector<ConfigError> errors);

// Where the command was called from: BUILD_WORKING_DIRECTORY under
// `bazel run`, else the current folder.
std::string WorkingFolder();

// The path of the running program, its links resolved; empty when unknown.
std::string ProgramPath();

// The `configs` folders of this program: in its runfiles (`argv0` is main's
// argv[0]) and in the Bazel workspace it was run from. Only those that exist.
std::vector<std::string> ConfigFolders(absl::string_view argv0);

// The file that --config=`argument` means: an absolute path, else looked up in
// `working_folder`, then in each of `config_folders`. NotFound lists the places
// looked at and what is near.
absl::StatusOr<std::string> ResolveConfigPath(
    absl::string_view argument, absl::string_view working_folder,
    const std::vector<std::string>& config_folders);

// Reads a file of at most 16 MiB, to be called `name` in messages (empty:
// `path`).
absl::StatusOr<SourceText> ReadSource(const std::string& path,
                                      absl::string_view name = "");

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_SOURCE_H_
