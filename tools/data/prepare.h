// Converts the packaged data sets into one folder of ALBEF-style JSON lists
// and images.
#ifndef SEMVQ_TOOLS_DATA_PREPARE_H_
#define SEMVQ_TOOLS_DATA_PREPARE_H_

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/data/emoji.h"

namespace semvq::tools {

struct PrepareOptions {
  std::string out;
  std::set<std::string> sources = {"easy_vqa", "emoji", "stamps"};
  EmojiOptions emoji;
  std::string stamps_dir = kDefaultStamps;
  std::string easy_vqa_dir;
  std::string expected;  // "<sha256>  <file>" lines to compare with, or empty
  bool force = false;    // rebuild although the folder is complete
  static constexpr char kDefaultStamps[] = "/usr/share/tuxpaint/stamps";
};

struct PrepareResult {
  bool already_complete = false;
  std::string summary;  // lines for the user
};

// Writes into options.out:
//   images/<source>/...
//   pairs_{train,val,val_unseen,val_random,unseen,random}.json  (emoji, stamps)
//   captions_{train,val,unseen,random}.json                     (the same)
//   nlvr2_*.jsonl, snli_ve_*.jsonl, grounding_*.json               (emoji)
//   easy_vqa_{train,val,test}.json, answer_list.json            (easy_vqa)
//   v2_easy_vqa_{train,val,test}_{questions,annotations}.json   (easy_vqa)
//   LICENSES.txt, manifest.json (last: a folder with it is complete)
// A folder that is complete, verified by its hashes, and made from the same
// package versions is left as it is. AlreadyExists if it holds other sources
// than the ones asked for.
absl::StatusOr<PrepareResult> Prepare(PrepareOptions options);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_PREPARE_H_
