// Prints the table of several seeds: seeds runs/a runs/b runs/c
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/util/file.h"
#include "tools/report/tables.h"

int main(int argc, char** argv) {
  if (argc < 2 || std::string(argv[1]) == "--help") {
    std::fprintf(stderr,
                 "usage: bazel run //tools/report:seeds -- RUN_FOLDER...\n"
                 "Mean and standard deviation over finished runs of one "
                 "experiment, as a Markdown table.\n");
    return argc < 2 ? 2 : 0;
  }
  const char* called_from = std::getenv("BUILD_WORKING_DIRECTORY");
  std::vector<std::vector<semvq::StageResult>> runs;
  for (int i = 1; i < argc; ++i) {
    auto run = semvq::ReadRun(
        semvq::JoinPath(called_from == nullptr ? "." : called_from, argv[i]));
    if (!run.ok()) {
      std::fprintf(stderr, "error: %s\n",
                   std::string(run.status().message()).c_str());
      return 1;
    }
    runs.push_back(*std::move(run));
  }
  auto table = semvq::SeedsTable(runs);
  if (!table.ok()) {
    std::fprintf(stderr, "error: %s\n",
                 std::string(table.status().message()).c_str());
    return 1;
  }
  std::printf("%s", table->c_str());
  return 0;
}
