#ifndef SEMVQ_CORE_METRICS_TABLE_H_
#define SEMVQ_CORE_METRICS_TABLE_H_

#include <string>
#include <utility>
#include <vector>

namespace semvq {

// A table of text for a terminal: columns as wide as their widest cell, those
// of numbers set to the right.
class Table {
 public:
  enum class Style { kPlain, kBox };

  explicit Table(std::vector<std::string> header)
      : header_(std::move(header)) {}

  // A row may be shorter than the header; cells beyond it are dropped. Line
  // breaks and control characters in a cell become spaces.
  void AddRow(std::vector<std::string> cells);

  // A rule between the rows before and after.
  void AddRule() { rows_.emplace_back(); }

  // Ends with a line break. kBox draws with Unicode lines.
  std::string Render(Style style = Style::kPlain) const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;  // an empty row is a rule
};

// Columns that UTF-8 text takes on a terminal: two for CJK and emoji, none for
// combining marks.
int DisplayWidth(const std::string& text);

}  // namespace semvq

#endif  // SEMVQ_CORE_METRICS_TABLE_H_
