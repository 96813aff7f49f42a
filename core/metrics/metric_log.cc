#include "core/metrics/metric_log.h"

#include <simdjson.h>

#include <charconv>
#include <chrono>
#include <cmath>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace semvq {
namespace {

void AppendString(absl::string_view text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(out, "\\u%04x", c);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

void AppendNumber(double value, std::string* out) {
  if (std::isnan(value)) {
    out->append("\"NaN\"");
  } else if (std::isinf(value)) {
    out->append(value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
  } else {
    char digits[32];  // the shortest that reads back to the same double
    const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
    out->append(digits, end);
  }
}

// The step of one line.
absl::StatusOr<int64_t> ParseStep(simdjson::dom::parser* parser,
                                  absl::string_view line) {
  int64_t step = 0;
  const auto error =
      parser->parse(line.data(), line.size())["step"].get_int64().get(step);
  if (error != simdjson::SUCCESS) {
    return absl::DataLossError(simdjson::error_message(error));
  }
  return step;
}

}  // namespace

double WallTime() {
  return std::chrono::duration<double>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

absl::StatusOr<std::unique_ptr<MetricLogger>> MetricLogger::Create(
    const std::string& path) {
  // Emptied by a rename, so that a reader of the old log keeps it.
  if (absl::Status s = AtomicWriteFile(path, ""); !s.ok()) return s;
  auto file = FileWriter::Append(path);
  if (!file.ok()) return file.status();
  return std::unique_ptr<MetricLogger>(new MetricLogger(*std::move(file)));
}

absl::StatusOr<std::unique_ptr<MetricLogger>> MetricLogger::Resume(
    const std::string& path, int64_t step) {
  absl::StatusOr<std::string> log = ReadFile(path);
  if (absl::IsNotFound(log.status())) return Create(path);
  if (!log.ok()) return log.status();
  std::string kept;
  simdjson::dom::parser parser;
  absl::string_view rest = *log;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const size_t end = rest.find('\n');
    if (end == absl::string_view::npos) break;  // cut short
    const absl::string_view line = rest.substr(0, end + 1);
    const absl::StatusOr<int64_t> at = ParseStep(&parser, line);
    if (!at.ok()) {
      return absl::DataLossError(absl::StrCat(
          path, ":", number, ": expected a JSON record with a \"step\": ",
          at.status().message(), "; move the file away to start a new log"));
    }
    if (*at <= step) absl::StrAppend(&kept, line);
    rest.remove_prefix(end + 1);
  }
  if (kept.size() != log->size()) {
    if (absl::Status s = AtomicWriteFile(path, kept); !s.ok()) return s;
  }
  auto file = FileWriter::Append(path);
  if (!file.ok()) return file.status();
  return std::unique_ptr<MetricLogger>(new MetricLogger(*std::move(file)));
}

absl::Status MetricLogger::Log(int64_t step, const MetricValues& values) {
  return Log(step, values, WallTime());
}

absl::Status MetricLogger::Log(int64_t step, const MetricValues& values,
                               double time) {
  if (step < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path(), ": cannot log step ", step));
  }
  std::string line = absl::StrCat("{\"step\":", step, ",\"time\":");
  absl::StrAppendFormat(&line, "%.3f", time);
  absl::flat_hash_set<absl::string_view> names = {"step", "time"};
  for (const auto& [name, value] : values) {
    if (!names.insert(name).second ||
        !simdjson::validate_utf8(name.data(), name.size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          path(), ": step ", step, ": metric name \"", name,
          "\" is given twice, is reserved (step, time) or is not UTF-8"));
    }
    line.push_back(',');
    AppendString(name, &line);
    line.push_back(':');
    AppendNumber(value, &line);
  }
  line.append("}\n");
  return file_->Write(line);
}

}  // namespace semvq
