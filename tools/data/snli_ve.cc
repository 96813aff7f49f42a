// The set in SNLI-VE's format.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/data/benchmarks.h"
#include "tools/data/dice.h"
#include "tools/data/picture.h"

namespace semvq::tools {
namespace {

constexpr int kSide = 96;   // Of a picture, in pixels.
constexpr int kPlace = 44;  // Of what is at the top or at the bottom.
constexpr const char* kPlaces[] = {"at the top", "at the bottom"};
constexpr const char* kLabels[] = {"entailment", "contradiction", "neutral"};

struct Part {
  const char* name;
  bool unseen;
  int blocks;
};
constexpr Part kParts[] = {{"train", false, 400},
                           {"dev", false, 40},
                           {"test", false, 80},
                           {"unseen", true, 40}};

class Maker {
 public:
  Maker(OutputFolder* out, SetReport report) : out_(*out), report_(report) {}

  absl::Status Make(const Part& part, const std::vector<Subject>& pool) {
    std::vector<std::vector<const Subject*>> by_kind(Kinds().size());
    for (const Subject& subject : pool) {
      if (subject.kind >= 0) by_kind[subject.kind].push_back(&subject);
    }
    std::vector<int> kinds;
    for (size_t k = 0; k < by_kind.size(); ++k) {
      if (by_kind[k].size() >= 2) kinds.push_back(static_cast<int>(k));
    }
    Dice dice(absl::StrCat("snli_ve ", part.name));
    std::string lines;
    captions_.clear();
    int made = 0;
    for (int b = 0; b < part.blocks && kinds.size() > 1; ++b) {
      const int first = kinds[b % kinds.size()];
      std::vector<int> others;
      for (const int k : kinds) {
        if (!Clash(first, k)) others.push_back(k);
      }
      if (others.empty()) continue;
      const int pair[2] = {first, dice.Pick(others)};
      absl::Status status = Block(part, made++, pair, by_kind, &dice, &lines);
      if (!status.ok()) return status;
    }
    const std::string file = absl::StrCat("snli_ve_", part.name, ".jsonl");
    (*report_.counts)[absl::StrCat("snli_ve_", part.name)] = 12 * made;
    absl::StrAppend(
        report_.summary,
        absl::StrFormat("           %-22s %5d sentences, %4d pictures\n", file,
                        12 * made, 4 * made));
    absl::Status status = out_.Write(file, lines, true);
    if (!status.ok() || absl::string_view(part.name) != "train") return status;
    return out_.Write("snli_ve_train_captions.json",
                      absl::StrCat("[\n", captions_, "\n]\n"), true);
  }

 private:
  // Four pictures: each of two kinds at the top, and at the bottom.
  absl::Status Block(const Part& part, int number, const int (&kinds)[2],
                     const std::vector<std::vector<const Subject*>>& by_kind,
                     Dice* dice, std::string* lines) {
    std::vector<std::string> rows;
    for (int place = 0; place < 2; ++place) {
      for (int k = 0; k < 2; ++k) {
        const Subject& subject = *dice->Pick(by_kind[kinds[k]]);
        const std::string id =
            absl::StrCat(part.name, "_", number, "_", 2 * place + k);
        const std::string image = absl::StrCat("images/snli_ve/", id, ".png");
        absl::Status status = Draw(subject, place, image, dice);
        if (!status.ok()) return status;
        const std::string caption =
            absl::StrCat(subject.name, " ", kPlaces[place], " and a cover ",
                         kPlaces[1 - place]);
        absl::StrAppend(
            &captions_, captions_.empty() ? "" : ",\n",
            "{\"image\": ", JsonString(image), ", \"caption\": [",
            JsonString(absl::StrCat(subject.name, " ", kPlaces[place])), ", ",
            JsonString(
                absl::StrCat(Kinds()[kinds[k]].phrase, " ", kPlaces[place])),
            "]}");
        // The sentence of its kind and place, of the other kind there, and,
        // about the cover, of its kind: over the block each sentence gets
        // each label once.
        const std::pair<int, int> about[] = {
            {k, place}, {1 - k, place}, {k, 1 - place}};
        for (int l = 0; l < 3; ++l) {
          const std::string pair =
              absl::StrCat(id, ".jpg#0r", about[l].first, about[l].second,
                           std::string(1, kLabels[l][0]));
          rows.push_back(absl::StrCat(
              "{\"annotator_labels\": [", JsonString(kLabels[l]),
              "], \"captionID\": ", JsonString(id + ".jpg#0"),
              ", \"gold_label\": ", JsonString(kLabels[l]),
              ", \"pairID\": ", JsonString(pair),
              ", \"sentence1\": ", JsonString(caption), ", \"sentence2\": ",
              JsonString(absl::StrCat("there is ",
                                      Kinds()[kinds[about[l].first]].phrase,
                                      " ", kPlaces[about[l].second])),
              ", \"Flickr30K_ID\": ", JsonString(id), "}\n"));
        }
      }
    }
    dice->Shuffle(&rows);
    for (const std::string& row : rows) *lines += row;
    return absl::OkStatus();
  }

  absl::Status Draw(const Subject& subject, int place, const std::string& path,
                    Dice* dice) {
    auto it = cache_.find(subject.image_id);
    if (it == cache_.end()) {
      auto bytes = ReadFile(absl::StrCat(out_.root(), "/", subject.image));
      if (!bytes.ok()) return bytes.status();
      auto picture = DecodePng(*bytes);
      if (!picture.ok()) return picture.status();
      const int height = kPlace * picture->height / picture->width;
      it = cache_.emplace(subject.image_id, Reduce(*picture, kPlace, height))
               .first;
    }
    const Picture& emoji = it->second;
    Picture canvas(kSide, kSide, 255, 255, 255);
    const auto at = [&](int where, const Picture& what) {
      const int top = where == 0 ? 2 : kSide / 2 + 2;
      Paste(what, dice->Between(2, kSide - what.width - 2),
            top + dice->Below(std::max(1, kSide / 2 - 4 - what.height + 1)),
            &canvas);
    };
    at(place, emoji);
    const uint8_t grey = 128;
    at(1 - place, Picture(kPlace, kPlace - 8, grey, grey, grey));
    auto png = EncodePng(canvas, /*opaque=*/true);
    if (!png.ok()) return png.status();
    return out_.Write(path, *png);
  }

  OutputFolder& out_;
  const SetReport report_;
  std::map<std::string, Picture> cache_;
  std::string captions_;  // The part's pictures' so far, as records.
};

}  // namespace

absl::Status MakeSnliVe(const SubjectPools& pools, OutputFolder* out,
                        SetReport report) {
  absl::StrAppend(report.summary,
                  "snli_ve    an emoji, a cover, and a sentence about one of "
                  "their places (SIL OFL 1.1; names: Unicode licence)\n");
  Maker maker(out, report);
  for (const Part& part : kParts) {
    absl::Status status =
        maker.Make(part, part.unseen ? pools.unseen : pools.trained);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace semvq::tools
