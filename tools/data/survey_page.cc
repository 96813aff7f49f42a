#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "tools/data/survey.h"

namespace semvq::tools {
namespace {

constexpr size_t kNamesShown = 500;
constexpr int kFewExamples = 12;

constexpr char kStyle[] = R"(
:root { --ink:#1d2430; --soft:#667085; --line:#e3e7ee; --card:#fff; --page:#f6f7f9;
  --bar:#4c6fff; --good:#137a4b; --good-bg:#e7f6ee; --bad:#b42318; --bad-bg:#fdecea;
  --warn:#8a5a00; --warn-bg:#fff5e0; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e9ef; --soft:#98a2b3; --line:#2b3342;
  --card:#171c26; --page:#0f131a; --bar:#7d95ff; --good:#5fd39b; --good-bg:#12281e;
  --bad:#ff9d94; --bad-bg:#331714; --warn:#ffcf70; --warn-bg:#2d230c; } }
* { box-sizing:border-box } body { margin:0; background:var(--page); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif }
main { max-width:1080px; margin:0 auto; padding:32px 20px 64px }
h1 { font-size:24px; margin:0 0 4px; overflow-wrap:anywhere } h2 { font-size:17px; margin:36px 0 12px }
h3 { font-size:14px; margin:0 0 10px; color:var(--soft); font-weight:600 }
.sub { color:var(--soft); margin:0 0 20px }
.verdict { padding:14px 18px; border-radius:10px; font-weight:600; margin:0 0 20px; white-space:pre-wrap }
.ok { background:var(--good-bg); color:var(--good) } .fail { background:var(--bad-bg); color:var(--bad) }
.note { background:var(--warn-bg); color:var(--warn); padding:10px 14px; border-radius:8px; margin:0 0 12px }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px; padding:14px 16px }
.card b { display:block; font-size:22px; font-variant-numeric:tabular-nums }
.card span { color:var(--soft); font-size:13px }
.two { display:grid; grid-template-columns:repeat(auto-fit,minmax(340px,1fr)); gap:16px }
table { border-collapse:collapse; width:100%; font-size:14px } th { text-align:left; color:var(--soft);
  font-weight:600 } th,td { padding:5px 10px 5px 0; border-bottom:1px solid var(--line); vertical-align:top;
  overflow-wrap:anywhere } td.n,th.n { text-align:right; font-variant-numeric:tabular-nums; width:90px }
.bars td { border:0; padding:2px 8px 2px 0 } .bars td.n { color:var(--soft); width:84px }
.bars .track { width:60% } .bars i { display:block; height:14px; border-radius:3px; background:var(--bar); min-width:1px }
details { margin-top:10px } summary { cursor:pointer; color:var(--soft) }
ol.names { font:12px/1.5 ui-monospace,"DejaVu Sans Mono",monospace; padding-left:52px; overflow-wrap:anywhere }
)";

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"},
                                    {"<", "&lt;"},
                                    {">", "&gt;"},
                                    {"\"", "&quot;"},
                                    {"'", "&#39;"}});
}

// 1234567 as 1,234,567.
std::string Number(int64_t value) {
  std::string digits = absl::StrCat(value);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3;
       i > (digits[0] == '-' ? 1 : 0); i -= 3) {
    digits.insert(static_cast<size_t>(i), ",");
  }
  return digits;
}

std::string Percent(int64_t part, int64_t whole) {
  if (whole == 0) return "0 %";
  return absl::StrFormat("%.3g %%", 100.0 * static_cast<double>(part) /
                                        static_cast<double>(whole));
}

std::string Bytes(int64_t bytes) {
  double value = static_cast<double>(bytes);
  for (const char* unit : {"B", "KiB", "MiB", "GiB"}) {
    if (value < 1024)
      return absl::StrFormat(value < 10 ? "%.1f %s" : "%.0f %s", value, unit);
    value /= 1024;
  }
  return absl::StrFormat("%.1f TiB", value);
}

std::string Card(absl::string_view value, absl::string_view label) {
  return absl::StrCat("<div class=card><b>", value, "</b><span>", label,
                      "</span></div>");
}

std::string Bars(absl::string_view title, const Histogram& histogram,
                 absl::string_view unit) {
  std::string out =
      absl::StrCat("<div class=card><h3>", title, "</h3><table class=bars>");
  const int64_t total = histogram.total();
  const int64_t most =
      histogram.counts.empty()
          ? 0
          : *std::max_element(histogram.counts.begin(), histogram.counts.end());
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    const bool last = i + 1 == histogram.from.size();
    const int64_t from = histogram.from[i],
                  to = last ? 0 : histogram.from[i + 1] - 1;
    const std::string range = last ? absl::StrCat(Number(from), "+")
                              : from == to
                                  ? Number(from)
                                  : absl::StrCat(Number(from), "–", Number(to));
    absl::StrAppend(
        &out, "<tr><td class=n>", range, unit,
        "</td><td class=track><i style=\"width:",
        absl::StrFormat("%.1f",
                        most == 0 ? 0.0 : 100.0 * histogram.counts[i] / most),
        "%\"></i></td><td class=n>", Number(histogram.counts[i]),
        "</td><td class=n>", Percent(histogram.counts[i], total),
        "</td></tr>\n");
  }
  return out + "</table></div>\n";
}

std::string CountTable(absl::string_view title, absl::string_view what,
                       const std::vector<Finding>& findings, int64_t whole) {
  if (findings.empty()) return "";
  std::string out =
      absl::StrCat("<div class=card><h3>", title, "</h3><table><tr><th>", what,
                   "</th><th class=n>count</th><th class=n>share</th></tr>\n");
  for (const Finding& f : findings) {
    absl::StrAppend(&out, "<tr><td>", Escaped(f.what), "</td><td class=n>",
                    Number(f.count), "</td><td class=n>",
                    Percent(f.count, whole), "</td></tr>\n");
  }
  return out + "</table></div>\n";
}

std::string PlaceTable(absl::string_view count_of,
                       const std::vector<Finding>& findings) {
  if (findings.empty()) return "";
  std::string out =
      absl::StrCat("<div class=card><table><tr><th class=n>", count_of,
                   "</th><th>first</th><th>another</th></tr>\n");
  for (const Finding& f : findings) {
    absl::StrAppend(&out, "<tr><td class=n>", Number(f.count), "</td><td>",
                    Escaped(f.first), "</td><td>", Escaped(f.second),
                    "</td></tr>\n");
  }
  return out + "</table></div>\n";
}

std::string BadSection(const Survey& s) {
  if (s.bad == 0) return "";
  std::vector<Finding> kinds;
  for (const auto& [kind, count] : s.bad_kinds)
    kinds.push_back({kind, count, "", ""});
  std::stable_sort(
      kinds.begin(), kinds.end(),
      [](const Finding& a, const Finding& b) { return a.count > b.count; });
  kinds.resize(std::min<size_t>(kinds.size(), 20));
  std::string out = absl::StrCat(
      "<h2>Samples that cannot be used</h2>\n",
      CountTable("What is wrong", "reason", kinds, s.samples), "<details",
      s.bad <= 20 ? " open" : "", "><summary>",
      s.bad > static_cast<int64_t>(kNamesShown)
          ? absl::StrCat("the first ", kNamesShown, " of ", Number(s.bad))
          : absl::StrCat("all ", Number(s.bad)),
      "</summary><ol class=names>\n");
  for (size_t i = 0; i < std::min(kNamesShown, s.bad_names.size()); ++i)
    absl::StrAppend(&out, "<li>", Escaped(s.bad_names[i]), "</li>\n");
  return out + "</ol></details>\n";
}

std::string DuplicateSection(const Survey& s) {
  std::string out = "<h2>Duplicates</h2>\n";
  if (s.duplicate_images == 0 && s.ambiguous_ids == 0 &&
      s.repeated_pairs == 0) {
    return out +
           "<p>No image occurs under two ids, no id names two images, "
           "and no text stands twice beside an image.</p>\n";
  }
  if (s.duplicate_images > 0) {
    absl::StrAppend(
        &out, "<p class=note>", Number(s.duplicate_images),
        " images have the bytes of another one, under another image id. "
        "Contrastive losses take them for different images.</p>\n",
        PlaceTable("ids", s.duplicates));
  }
  if (s.ambiguous_ids > 0) {
    absl::StrAppend(
        &out, "<p class=note>", Number(s.ambiguous_ids),
        " image ids name images with different bytes. Losses take them for the "
        "same image.</p>\n",
        PlaceTable("images", s.ambiguous));
  }
  if (s.repeated_pairs > 0) {
    absl::StrAppend(&out, "<p>", Number(s.repeated_pairs),
                    " texts stand beside an image that has the same text "
                    "already.</p>\n");
  }
  return out;
}

std::string TextSection(const Survey& s, int64_t answers) {
  std::string out = "<h2>Texts</h2>\n";
  absl::StrAppend(
      &out, "<div class=cards>", Card(Number(s.texts), "texts"),
      Card(absl::StrFormat(
               "%.1f",
               s.texts == 0 ? 0.0 : static_cast<double>(s.words) / s.texts),
           "words a text"),
      Card(Number(s.distinct_texts),
           absl::StrCat("distinct texts (", Percent(s.distinct_texts, s.texts),
                        ")")),
      Card(Number(s.distinct_words),
           absl::StrCat("distinct words, ", Number(s.words_seen_once),
                        " seen once")),
      Card(Percent(s.cut_texts, s.texts), "are cut to max_words"),
      "</div>\n<p></p><div class=two>",
      Bars("Words in a text, after cleaning", s.text_words, ""),
      Bars("Texts of a sample", s.texts_per_sample, ""),
      CountTable("Most frequent texts", "text", s.frequent_texts, s.texts),
      CountTable("Most frequent words", "word", s.frequent_words, s.words),
      CountTable("Most frequent answers and labels", "answer",
                 s.frequent_answers, answers));
  if (!s.examples.empty()) {
    absl::StrAppend(&out, "<div class=card><h3>Examples</h3><table>");
    for (int i = 0; i < std::min<int>(kFewExamples, s.examples.size()); ++i)
      absl::StrAppend(&out, "<tr><td>", Escaped(s.examples[i]), "</td></tr>\n");
    absl::StrAppend(&out, "</table></div>");
  }
  return out + "</div>\n";
}

}  // namespace

std::string SurveyPage(const Survey& s, const std::string& title,
                       const std::string& verdict) {
  std::string formats;
  for (const auto& [format, count] : s.formats)
    absl::StrAppend(&formats, formats.empty() ? "" : ", ", Number(count), " ",
                    format);
  return absl::StrCat(
      "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8>\n"
      "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n"
      "<title>Data set: ",
      Escaped(title), "</title>\n<style>", kStyle, "</style>\n<main>\n<h1>",
      Escaped(title), "</h1>\n<p class=sub>",
      absl::StrFormat("Every sample read and checked in %.0f s, %.0f a second",
                      s.seconds, s.seconds > 0 ? s.samples / s.seconds : 0.0),
      "</p>\n<div class=\"verdict ", verdict.empty() ? "ok" : "fail", "\">",
      verdict.empty()
          ? (s.bad == 0
                 ? std::string("All samples can be used.")
                 : absl::StrCat("Usable: ", Number(s.bad), " of ",
                                Number(s.samples),
                                " samples are bad, within what is allowed."))
          : Escaped(verdict),
      "</div>\n<div class=cards>", Card(Number(s.samples), "samples"),
      Card(Number(s.good), "can be used"),
      Card(Number(s.bad),
           absl::StrCat("bad (", Percent(s.bad, s.samples), ")")),
      Card(Number(s.images), absl::StrCat("images: ", formats)),
      Card(Bytes(s.image_bytes),
           absl::StrCat("of images, ",
                        Bytes(s.images == 0 ? 0 : s.image_bytes / s.images),
                        " each")),
      Card(Number(s.duplicate_images), "duplicate images"), "</div>\n",
      BadSection(s), DuplicateSection(s), "<h2>Images</h2>\n<div class=two>",
      Bars("Shorter side", s.shorter_side, " px"),
      Bars("File size", s.file_kib, " KiB"),
      "</div>\n<p class=sub>Largest: ", Escaped(s.largest_image), "</p>\n",
      TextSection(s, s.questions_with_answers), "</main></html>\n");
}

}  // namespace semvq::tools
