#include "core/distributed/agree.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace semvq {

absl::Status AgreeOnStatus(const absl::Status& status, Communicator* group) {
  if (group == nullptr) return status;
  const std::vector<std::string> all = group->AllGatherText(absl::StrCat(
      static_cast<int>(status.code()), " ", std::string(status.message())));
  for (size_t rank = 0; rank < all.size(); ++rank) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(all[rank], absl::MaxSplits(' ', 1));
    int code = 0;
    if (!absl::SimpleAtoi(parts.first, &code) || code == 0) continue;
    return absl::Status(static_cast<absl::StatusCode>(code),
                        absl::StrCat("rank ", rank, ": ", parts.second));
  }
  return absl::OkStatus();
}

}  // namespace semvq
