#include "core/metrics/table.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace semvq {
namespace {

std::string Repeat(absl::string_view text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) absl::StrAppend(&out, text);
  return out;
}

// Numbers, also with a unit of one word ("3.5 ms", "80%"), and dashes for none.
bool LooksNumeric(absl::string_view cell) {
  if (cell.empty() || cell == "-" || cell == "\u2013") return true;
  cell = cell.substr(0, cell.find(' '));
  absl::ConsumeSuffix(&cell, "%");
  double value;
  return absl::SimpleAtod(cell, &value);
}

struct Rule {
  absl::string_view left, line, cross, right;
};

}  // namespace

int DisplayWidth(const std::string& text) {
  int width = 0;
  absl::string_view rest = text;
  while (!rest.empty()) {
    utf8proc_int32_t code = 0;
    const utf8proc_ssize_t used =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(rest.data()),
                         rest.size(), &code);
    // A byte that is not UTF-8 shows as one replacement character.
    width += used > 0 ? utf8proc_charwidth(code) : 1;
    rest.remove_prefix(std::max<utf8proc_ssize_t>(used, 1));
  }
  return width;
}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(header_.size());
  for (std::string& cell : cells) {
    std::replace_if(
        cell.begin(), cell.end(),
        [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  }
  rows_.push_back(std::move(cells));
}

std::string Table::Render(Style style) const {
  const size_t columns = header_.size();
  if (columns == 0) return "";
  std::vector<int> widths(columns);
  std::vector<bool> numeric(columns, true);
  std::vector<bool> any(columns, false);
  for (size_t c = 0; c < columns; ++c) {
    widths[c] = DisplayWidth(header_[c]);
    for (const auto& row : rows_) {
      if (row.empty()) continue;
      widths[c] = std::max(widths[c], DisplayWidth(row[c]));
      numeric[c] = numeric[c] && LooksNumeric(row[c]);
      any[c] = any[c] || !row[c].empty();
    }
    numeric[c] = numeric[c] && any[c];
  }

  const bool box = style == Style::kBox;
  std::string out;
  auto add_rule = [&](const Rule& rule) {
    absl::StrAppend(&out, rule.left);
    for (size_t c = 0; c < columns; ++c) {
      if (c > 0) absl::StrAppend(&out, rule.cross);
      absl::StrAppend(&out, Repeat(rule.line, widths[c] + (box ? 2 : 0)));
    }
    absl::StrAppend(&out, rule.right, "\n");
  };
  auto add_row = [&](const std::vector<std::string>& row) {
    if (box) absl::StrAppend(&out, "│ ");
    for (size_t c = 0; c < columns; ++c) {
      if (c > 0) absl::StrAppend(&out, box ? " │ " : "  ");
      const std::string pad(widths[c] - DisplayWidth(row[c]), ' ');
      absl::StrAppend(&out, numeric[c] ? pad : "", row[c],
                      numeric[c] ? "" : pad);
    }
    if (!box) out.resize(out.find_last_not_of(' ') + 1);
    absl::StrAppend(&out, box ? " │\n" : "\n");
  };
  const Rule middle = box ? Rule{"├", "─", "┼", "┤"} : Rule{"", "-", "  ", ""};
  if (box) add_rule({"┌", "─", "┬", "┐"});
  add_row(header_);
  add_rule(middle);
  for (const auto& row : rows_) {
    if (row.empty()) {
      add_rule(middle);
    } else {
      add_row(row);
    }
  }
  if (box) add_rule({"└", "─", "┴", "┘"});
  return out;
}

}  // namespace semvq
