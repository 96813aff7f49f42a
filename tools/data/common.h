// Records, hashing, JSON and file writing shared by the data converters.
#ifndef SEMVQ_TOOLS_DATA_COMMON_H_
#define SEMVQ_TOOLS_DATA_COMMON_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/data/progress.h"

namespace semvq::tools {

// One image with one caption, before it is assigned to a split.
struct Pair {
  std::string image;     // path relative to the output folder
  std::string caption;   // UTF-8, as the source gives it
  std::string image_id;  // unique and stable: "<source>/<name>"
  std::string source;    // "emoji" or "stamps"
  // Keys that tie siblings together (AssignConcepts): pairs that share any key
  // belong to one concept group.
  std::vector<std::string> group_keys;
  std::string concept_name;  // filled in by AssignConcepts
  std::vector<std::string> keywords;
};

// One question about one image.
struct VqaRecord {
  std::string image;  // path relative to the output folder
  std::string image_id;
  std::string question;
  std::string answer;
  int64_t question_id = 0;  // unique over all splits
};

// Everything the tool writes, with what the manifest says of it.
// Paths are relative to the output folder, and ordered.
using FileHashes = std::map<std::string, std::string>;  // path -> SHA-256, hex
using Counts = std::map<std::string, int64_t>;

// Lower-case hexadecimal SHA-256.
std::string Sha256Hex(absl::string_view bytes);

// The first 8 bytes of SHA-256(text), big-endian, as a fraction in [0, 1).
// Stable over machines, runs and versions: every split is a threshold on it.
double HashFraction(absl::string_view text);

// `text` as a JSON string with its quotes. UTF-8 stays as it is.
std::string JsonString(absl::string_view text);

// A JSON list with one record in a line: compact and friendly to diff.
std::string PairsJson(const std::vector<Pair>& pairs);
std::string VqaJson(const std::vector<VqaRecord>& records);
std::string StringListJson(const std::vector<std::string>& values);

// The whole file. NotFound or Internal, naming the path.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Creates missing parent folders, writes a temporary sibling and renames it:
// a reader never sees half a file. `durable` also flushes it to the disk.
absl::Status WriteFileAtomically(const std::string& path,
                                 absl::string_view bytes, bool durable);

// Files written below one output folder, with their hashes.
class OutputFolder {
 public:
  explicit OutputFolder(std::string root) : root_(std::move(root)) {}
  // Writes root/path and records its hash.
  absl::Status Write(const std::string& path, absl::string_view bytes,
                     bool durable = false);
  // Makes root/path a second name of root/existing, which this wrote: a hard
  // link, or a copy where the file system has none. A link counts no bytes.
  absl::Status Link(const std::string& existing, const std::string& path);
  const std::string& root() const { return root_; }
  const FileHashes& files() const { return files_; }
  // Bytes written to paths that start with `prefix`.
  int64_t BytesUnder(absl::string_view prefix) const;

 private:
  std::string root_;
  FileHashes files_;
  std::map<std::string, int64_t> sizes_;
};

// The version of an installed Debian package from a dpkg status file;
// "unknown" if it is not listed or the file cannot be read.
std::string DebianVersion(
    absl::string_view package,
    const std::string& status_file = "/var/lib/dpkg/status");

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_COMMON_H_
