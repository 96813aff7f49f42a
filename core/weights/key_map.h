// Names of another project's weights, as data; see protos/key_map.proto.
#ifndef SEMVQ_CORE_WEIGHTS_KEY_MAP_H_
#define SEMVQ_CORE_WEIGHTS_KEY_MAP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "protos/key_map.pb.h"

namespace re2 {
class RE2;
}

namespace semvq {

// A naming, checked and compiled. Names lack both sides' prefixes.
class KeyNames {
 public:
  // One way to make one of our tensors.
  struct Match {
    const KeyRule* rule;              // Lives as long as the KeyNames.
    std::vector<std::string> theirs;  // In the rule's order; empty: zeros.
  };

  // A text-format KeyMap. InvalidArgument with `name` and all that is wrong:
  // text that does not parse, placeholders that do not fit, bad expressions.
  static absl::StatusOr<KeyNames> Parse(const std::string& text,
                                        const std::string& name);
  static absl::StatusOr<KeyNames> Load(const std::string& path);

  KeyNames(KeyNames&&);
  KeyNames& operator=(KeyNames&&);
  ~KeyNames();

  // All rules for our name `ours`, in order. Our layer n is their layer n +
  // first_layer.
  std::vector<Match> Find(const std::string& ours, int64_t first_layer) const;

  // How the rules spell a name of theirs.
  std::string Canonical(std::string theirs) const;

  bool IsOursOnly(const std::string& ours) const;
  // `theirs` is canonical.
  bool IsUnused(const std::string& theirs) const;

  const std::string& summary() const { return map_->summary(); }

 private:
  KeyNames();

  std::unique_ptr<KeyMap> map_;
  std::vector<std::unique_ptr<re2::RE2>> ours_;  // One a rule.
  std::vector<std::unique_ptr<re2::RE2>> renames_, unused_, ours_only_;
};

// The file that `name` means: an absolute path, else looked up in
// `working_folder`, then in each of `config_folders`. NotFound lists the places
// looked at.
absl::StatusOr<std::string> FindKeyMap(
    const std::string& name, const std::string& working_folder,
    const std::vector<std::string>& config_folders);

}  // namespace semvq

#endif  // SEMVQ_CORE_WEIGHTS_KEY_MAP_H_
