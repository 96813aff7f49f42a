#include "trainer/report.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/config/merge.h"
#include "core/config/print.h"
#include "core/metrics/progress.h"
#include "core/metrics/table.h"

namespace semvq {
namespace {

std::string ShortType(const google::protobuf::Any& any) {
  const PluginType* type = PluginTypeOf(any);
  return type == nullptr ? "?" : type->config->name();
}

template <class List>
std::string Instances(const List& list) {
  return absl::StrJoin(list, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.name(), " (", ShortType(entry.config()), ")");
  });
}

std::string Number(double value) {
  return absl::StrFormat(std::abs(value) >= 100 ? "%.1f" : "%.4g", value);
}

void AddValues(const StageResult& result, Table& table) {
  for (const LoggedValue& value : result.values()) {
    table.AddRow({value.name(), Number(value.first()), Number(value.last())});
  }
}

// "0", "1", "2-3", "4-7", ...
std::string PowersRange(int bucket) {
  if (bucket < 2) return absl::StrCat(bucket);
  const int64_t low = int64_t{1} << (bucket - 1);
  return absl::StrCat(low, "-", 2 * low - 1);
}

std::string CodesTable(const StageResult& result) {
  int buckets = 0;
  for (const CodeUse& use : result.codes()) {
    buckets = std::max({buckets, use.by_count_size(), use.by_age_size()});
  }
  if (buckets == 0) return "";
  std::vector<std::string> header = {
      absl::StrCat("codes of step ", result.codes(0).step())};
  for (int b = 0; b < buckets; ++b) header.push_back(PowersRange(b));
  Table table(header);
  for (const CodeUse& use : result.codes()) {
    const auto row = [&](const char* what, const auto& counts) {
      if (counts.empty()) return;
      std::vector<std::string> cells = {absl::StrCat(use.name(), what)};
      for (const int64_t count : counts) cells.push_back(absl::StrCat(count));
      table.AddRow(std::move(cells));
    };
    row(": times used", use.by_count());
    row(": steps since used", use.by_age());
  }
  return table.Render(Table::Style::kBox);
}

}  // namespace

std::string FormatExperiment(const Experiment& experiment,
                             const std::vector<ResolvedStage>& stages) {
  std::string out = absl::StrCat(experiment.name(), " ", ConfigHash(experiment),
                                 ", seed ", experiment.seed());
  if (experiment.has_summary())
    absl::StrAppend(&out, ": ", experiment.summary());
  absl::StrAppend(&out, "\n");
  for (const ResolvedStage& stage : stages) {
    const Experiment& e = stage.experiment;
    absl::StrAppend(&out, "stage ", stage.name, "\n");
    const auto line = [&out](const char* title, const std::string& text) {
      if (!text.empty()) absl::StrAppend(&out, "  ", title, text, "\n");
    };
    line("encoders:   ", Instances(e.encoders()));
    line("quantizers: ", Instances(e.quantizers()));
    line("objectives: ", Instances(e.objectives()));
    line("tasks:      ", Instances(e.tasks()));
  }
  return out;
}

std::string FormatResults(const std::vector<StageResult>& results) {
  std::string out;
  for (const StageResult& result : results) {
    absl::StrAppend(&out, "stage ", result.stage(), "\n");
    if (result.values_size() > 0) {
      Table table({"training", "start", "end"});
      AddValues(result, table);
      absl::StrAppend(&out, table.Render(Table::Style::kBox));
    }
    absl::StrAppend(&out, CodesTable(result));
    if (result.tasks_size() > 0) {
      Table table({"task", "metric", "value", "chance", "of what"});
      for (const TaskSummary& task : result.tasks()) {
        bool first = true;
        for (const Metric& metric : task.metrics()) {
          if (!metric.headline()) continue;
          const std::string unit =
              metric.unit().empty() ? "" : " " + metric.unit();
          table.AddRow({first ? task.name() : "", metric.name(),
                        absl::StrCat(Number(metric.value()), unit),
                        metric.has_chance()
                            ? absl::StrCat(Number(metric.chance()), unit)
                            : "",
                        first ? task.note() : ""});
          first = false;
        }
      }
      absl::StrAppend(&out, table.Render(Table::Style::kBox));
    }
    if (result.steps() > 0) {
      absl::StrAppendFormat(
          &out,
          "%d steps in %s, %.1f %% of it waiting for data; evaluation %s; "
          "first "
          "step %.2f s after the process started; peak memory %.2f GiB\n",
          result.steps(), FormatDuration(result.train_seconds()),
          100 * result.data_wait_share(), FormatDuration(result.eval_seconds()),
          result.first_step_ms() / 1e3,
          static_cast<double>(result.peak_memory()) / (1 << 30));
    }
    if (result.nonfinite_steps() > 0) {
      absl::StrAppend(&out, result.nonfinite_steps(),
                      " steps were skipped as not finite\n");
    }
    if (result.loss_spikes() > 0) {
      absl::StrAppend(&out, result.loss_spikes(), " spikes of the loss");
      if (result.rollbacks() > 0) {
        absl::StrAppend(&out, "; ", result.rollbacks(),
                        " times went back to an earlier checkpoint");
      }
      absl::StrAppend(&out, "\n");
    }
    if (result.bad_samples() > 0) {
      absl::StrAppend(&out, result.bad_samples(),
                      " bad samples were skipped; they are listed in "
                      "bad_samples.txt\n");
    }
    absl::StrAppend(&out, "\n");
  }
  return out;
}

}  // namespace semvq
