#include "tools/report/tables.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/util/file.h"
#include "google/protobuf/text_format.h"

namespace semvq {
namespace {

// One row's values over the runs.
struct Row {
  std::string task, metric, unit;
  std::vector<double> values, chances;
  bool of_task = false;  // Not of training, nor a cost.
};

std::string MeanAndDeviation(const std::vector<double>& values,
                             const std::string& unit) {
  double mean = 0;
  for (double v : values) mean += v / static_cast<double>(values.size());
  double squares = 0;
  for (double v : values) squares += (v - mean) * (v - mean);
  const char* format = std::abs(mean) < 1 ? "%.3f" : "%.1f";
  std::string text =
      absl::StrFormat(*absl::ParsedFormat<'f'>::New(format), mean);
  if (values.size() > 1) {
    absl::StrAppend(
        &text, " ± ",
        absl::StrFormat(
            *absl::ParsedFormat<'f'>::New(format),
            std::sqrt(squares / static_cast<double>(values.size() - 1))));
  }
  return unit.empty() ? text : absl::StrCat(text, " ", unit);
}

class Rows {
 public:
  void Add(const std::string& task, const std::string& metric,
           const std::string& unit, double value, const double* chance,
           bool of_task = false) {
    const auto [at, added] =
        index_.emplace(std::make_pair(task, metric), rows_.size());
    if (added) rows_.push_back({task, metric, unit, {}, {}, of_task});
    Row& row = rows_[at->second];
    row.values.push_back(value);
    if (chance != nullptr) row.chances.push_back(*chance);
  }
  const std::vector<Row>& rows() const { return rows_; }
  const Row* Find(const std::string& task, const std::string& metric) const {
    auto at = index_.find({task, metric});
    return at == index_.end() ? nullptr : &rows_[at->second];
  }

 private:
  std::map<std::pair<std::string, std::string>, size_t> index_;
  std::vector<Row> rows_;
};

void AddStage(const StageResult& stage, Rows& rows) {
  for (const TaskSummary& task : stage.tasks()) {
    for (const Metric& metric : task.metrics()) {
      if (!metric.headline()) continue;
      const double chance = metric.chance();
      rows.Add(task.name(), metric.name(), metric.unit(), metric.value(),
               metric.has_chance() ? &chance : nullptr, /*of_task=*/true);
    }
  }
  for (const LoggedValue& value : stage.values()) {
    for (const char* name : {"/usage", "/revivals", "/perplexity", "top1",
                             "/accuracy", "/explained_variance"}) {
      if (absl::EndsWith(value.name(), name)) {
        rows.Add(absl::StrCat(stage.stage(), ", last of training"),
                 value.name(), "", value.last(), nullptr);
      }
    }
  }
  const std::string cost = absl::StrCat(stage.stage(), ", cost");
  rows.Add(cost, "training", "s", stage.train_seconds(), nullptr);
  rows.Add(cost, "evaluation", "s", stage.eval_seconds(), nullptr);
  rows.Add(cost, "peak memory", "GiB",
           static_cast<double>(stage.peak_memory()) / (1 << 30), nullptr);
}

absl::StatusOr<Rows> RowsOf(const std::vector<std::vector<StageResult>>& runs) {
  Rows rows;
  for (const std::vector<StageResult>& run : runs) {
    for (const StageResult& stage : run) AddStage(stage, rows);
  }
  for (const Row& row : rows.rows()) {
    if (row.values.size() != runs.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          row.task, ": ", row.metric, " is in ", row.values.size(), " of ",
          runs.size(), " runs; give finished runs of one experiment"));
    }
  }
  return rows;
}

}  // namespace

absl::StatusOr<std::vector<StageResult>> ReadRun(const std::string& folder) {
  absl::StatusOr<std::vector<std::string>> names = ListDirectory(folder);
  if (!names.ok()) return names.status();
  std::vector<StageResult> stages;
  for (const std::string& name : *names) {
    const std::string path = JoinPath(JoinPath(folder, name), "result.pbtxt");
    if (!PathExists(path)) continue;
    absl::StatusOr<std::string> text = ReadFile(path);
    if (!text.ok()) return text.status();
    StageResult stage;
    if (!google::protobuf::TextFormat::ParseFromString(*text, &stage)) {
      return absl::DataLossError(absl::StrCat(path, " cannot be read"));
    }
    stages.push_back(std::move(stage));
  }
  if (stages.empty()) {
    return absl::NotFoundError(absl::StrCat(
        folder,
        " holds no finished stage (<stage>/result.pbtxt); give run "
        "folders such as runs/quickstart"));
  }
  return stages;
}

absl::StatusOr<std::string> SeedsTable(
    const std::vector<std::vector<StageResult>>& runs) {
  if (runs.empty()) return absl::InvalidArgumentError("no runs");
  absl::StatusOr<Rows> rows = RowsOf(runs);
  if (!rows.ok()) return rows.status();
  std::string out = absl::StrCat("| Task | Metric | Chance | ", runs.size(),
                                 runs.size() == 1 ? " run" : " runs",
                                 " |\n|---|---|---|---|\n");
  std::string last;
  for (const Row& row : rows->rows()) {
    absl::StrAppend(&out, "| ", row.task == last ? "" : row.task, " | ",
                    row.metric, " | ",
                    row.chances.size() == runs.size()
                        ? MeanAndDeviation(row.chances, row.unit)
                        : "",
                    " | ", MeanAndDeviation(row.values, row.unit), " |\n");
    last = row.task;
  }
  return out;
}

absl::StatusOr<std::string> ArmsTable(const std::vector<Arm>& arms,
                                      bool tasks_only) {
  std::vector<Rows> columns;
  Rows all;  // Every arm's rows, in the order of the first that has them.
  std::string head = "| Task | Metric |", rule = "|---|---|";
  if (tasks_only) {
    head += " Chance |";
    rule += "---|";
  }
  for (const Arm& arm : arms) {
    absl::StatusOr<Rows> rows = RowsOf(arm.runs);
    if (!rows.ok()) {
      return absl::Status(
          rows.status().code(),
          absl::StrCat("arm ", arm.name, ": ", rows.status().message()));
    }
    for (const Row& row : rows->rows()) {
      all.Add(row.task, row.metric, row.unit, 0, nullptr, row.of_task);
    }
    columns.push_back(*std::move(rows));
    absl::StrAppend(&head, " ", arm.name, " |");
    rule += "---|";
  }
  std::string out = absl::StrCat(head, "\n", rule, "\n");
  std::string last;
  for (const Row& row : all.rows()) {
    if (tasks_only && !row.of_task) continue;
    absl::StrAppend(&out, "| ", row.task == last ? "" : row.task, " | ",
                    row.metric, " |");
    if (tasks_only) {
      const Row* chance = nullptr;
      for (size_t c = 0; c < columns.size() && chance == nullptr; ++c) {
        chance = columns[c].Find(row.task, row.metric);
      }
      absl::StrAppend(&out, " ",
                      chance->chances.empty()
                          ? ""
                          : MeanAndDeviation(chance->chances, row.unit),
                      " |");
    }
    for (const Rows& column : columns) {
      const Row* found = column.Find(row.task, row.metric);
      absl::StrAppend(
          &out, " ",
          found == nullptr ? "-" : MeanAndDeviation(found->values, found->unit),
          " |");
    }
    out += "\n";
    last = row.task;
  }
  return out;
}

}  // namespace semvq
