// Prints an ablation's table: arms base=runs/a,runs/b other=runs/c,runs/d
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "core/util/file.h"
#include "tools/report/tables.h"

int main(int argc, char** argv) {
  const bool help = argc > 1 && std::string(argv[1]) == "--help";
  if (argc < 2 || help) {
    std::fprintf(stderr,
                 "usage: bazel run //tools/report:arms -- [--tasks] "
                 "NAME=RUN_FOLDER[,RUN_FOLDER...]...\n"
                 "A Markdown table with a column for each arm of an ablation: "
                 "mean and standard deviation over its runs (seeds).\n"
                 "--tasks: the tasks' metrics alone, beside chance.\n");
    return help ? 0 : 2;
  }
  const char* called_from = std::getenv("BUILD_WORKING_DIRECTORY");
  const bool tasks_only = std::string(argv[1]) == "--tasks";
  std::vector<semvq::Arm> arms;
  for (int i = tasks_only ? 2 : 1; i < argc; ++i) {
    const std::pair<std::string, std::string> named =
        absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    if (named.second.empty()) {
      std::fprintf(stderr, "error: %s: expected NAME=RUN_FOLDER[,...]\n",
                   argv[i]);
      return 2;
    }
    semvq::Arm arm;
    arm.name = named.first;
    for (const std::string& folder :
         std::vector<std::string>(absl::StrSplit(named.second, ','))) {
      auto run = semvq::ReadRun(
          semvq::JoinPath(called_from == nullptr ? "." : called_from, folder));
      if (!run.ok()) {
        std::fprintf(stderr, "error: %s\n",
                     std::string(run.status().message()).c_str());
        return 1;
      }
      arm.runs.push_back(*std::move(run));
    }
    arms.push_back(std::move(arm));
  }
  auto table = semvq::ArmsTable(arms, tasks_only);
  if (!table.ok()) {
    std::fprintf(stderr, "error: %s\n",
                 std::string(table.status().message()).c_str());
    return 1;
  }
  std::printf("%s", table->c_str());
  return 0;
}
