// What a plugin consumes and provides, matched over the whole experiment before
// anything is built.
#ifndef SEMVQ_CORE_PLUGIN_CONTRACT_H_
#define SEMVQ_CORE_PLUGIN_CONTRACT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/strings/string_view.h"

namespace semvq {

// What is known of an instance's codes before it is built. `codes_per_group` is
// empty when it has none.
struct CodeSpec {
  std::vector<int64_t> codes_per_group;
  bool exact_lookup = true;  // As in CodebookInfo.
};

// A view an instance provides to others (see core/forward/views.h for the
// names). `dim` is its last dimension, 0 when that has no meaning for the view.
struct ProvidedView {
  std::string view;
  int64_t dim = 0;
};

// A view this plugin asks another instance for.
struct NeededView {
  std::string field;  // The config field that names the instance, for messages:
                      // "fusion".
  std::string instance;  // Its value: the instance's name.
  std::string view;
  int64_t dim = 0;           // The dimension it must have; 0: any.
  bool needs_codes = false;  // The instance must have discrete codes.
  std::string why{};         // Completes "... because"; may be empty.
  bool needs_fixed = false;  // The instance must be a frozen encoder.
};

// A file the plugin reads. The trainer looks for all of them before the first
// stage starts, so that a run does not fail hours later.
struct NeededFile {
  std::string field;   // The config field that names it.
  std::string path;    // As in the config, variables not expanded.
  std::string format;  // What must be in it: "JSON list of answers".
};

struct Contract {
  std::vector<ProvidedView> provides;
  std::vector<NeededView> needs;
  CodeSpec codes;  // Quantizers only.
  std::vector<std::string>
      batch_keys;  // What the batch must hold: "image", "text", "answers".
  std::vector<NeededFile> files;
  bool needs_teacher = false;
  // Which parameters get a gradient may differ from step to step. Where no
  // plugin says so, several ranks do not search each step's graph for them.
  bool varying_graph = false;
  bool fixed =
      false;  // A frozen encoder; set by the experiment, not the plugin.

  const ProvidedView* Find(absl::string_view view) const {
    for (const ProvidedView& p : provides) {
      if (p.view == view) return &p;
    }
    return nullptr;
  }
};

// Facts of the experiment that contracts may depend on, and the contracts of
// the instances resolved so far. Order: image and text encoders, quantizers,
// the visual tokens, fusion encoders, objectives, tasks.
class ContractBook {
 public:
  int64_t image_size = 0;  // Side in pixels of the trained stream's images.
  int64_t max_tokens = 0;  // Static length of a text.

  void Add(std::string instance, Contract contract) {
    contracts_[std::move(instance)] = std::move(contract);
  }
  // Null when no such instance is known (yet).
  const Contract* Find(absl::string_view instance) const {
    auto it = contracts_.find(std::string(instance));
    return it == contracts_.end() ? nullptr : &it->second;
  }
  // Dimension of a view; 0 when unknown. The matcher reports the missing
  // instance, so a contract need not.
  int64_t Dim(absl::string_view instance, absl::string_view view) const {
    const Contract* contract = Find(instance);
    const ProvidedView* provided =
        contract == nullptr ? nullptr : contract->Find(view);
    return provided == nullptr ? 0 : provided->dim;
  }
  const absl::btree_map<std::string, Contract>& all() const {
    return contracts_;
  }

 private:
  absl::btree_map<std::string, Contract> contracts_;
};

}  // namespace semvq

#endif  // SEMVQ_CORE_PLUGIN_CONTRACT_H_
