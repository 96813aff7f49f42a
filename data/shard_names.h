// Names of shards: brace expansion and commands.
#ifndef SEMVQ_DATA_SHARD_NAMES_H_
#define SEMVQ_DATA_SHARD_NAMES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace semvq {

// "a-{000..331}.tar" and "{cc3m,sbu}-{0..9}.tar" to all names, in the order in
// which a shell gives them. Numbers keep leading zeros. "${NAME}" and braces
// with neither ".." nor a comma stay as they are. InvalidArgument for ranges
// that run backwards and for more than a million names.
absl::StatusOr<std::vector<std::string>> ExpandBraces(absl::string_view name);

// "pipe:aws s3 cp s3://b/0.tar -" has the command "aws s3 cp s3://b/0.tar -".
bool IsCommand(absl::string_view shard);

// Splits a command, with or without "pipe:", into its words: at blanks, with
// '...', "..." and \ as in a shell. Nothing is expanded, and no shell ever sees
// it. InvalidArgument for no word and for quotes that do not end.
absl::StatusOr<std::vector<std::string>> CommandWords(
    absl::string_view command);

}  // namespace semvq

#endif  // SEMVQ_DATA_SHARD_NAMES_H_
