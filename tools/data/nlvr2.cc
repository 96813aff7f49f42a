// The set in NLVR2's format.
#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/data/benchmarks.h"
#include "tools/data/dice.h"

namespace semvq::tools {
namespace {

struct Part {
  const char* name;  // Also what the identifiers begin with.
  bool unseen;
  int sets;
  bool directories;  // As the official training images have.
};
constexpr Part kParts[] = {{"train", false, 500, true},
                           {"dev", false, 50, false},
                           {"test1", false, 100, false},
                           {"unseen", true, 50, false}};
constexpr int kSetsInDirectory = 50;
constexpr const char* kSentences[] = {
    "exactly one of the pictures shows ",
    "both of the pictures or neither of them show "};

struct Set {
  int kind;
  const Subject *left[2], *right[2];  // The first of each is of the kind.
};

class Maker {
 public:
  Maker(OutputFolder* out, SetReport report) : out_(*out), report_(report) {}

  absl::Status Make(const Part& part, const std::vector<Subject>& pool) {
    by_kind_.assign(Kinds().size(), {});
    for (const Subject& subject : pool) {
      if (subject.kind >= 0) by_kind_[subject.kind].push_back(&subject);
    }
    std::vector<int> asked;
    for (size_t k = 0; k < by_kind_.size(); ++k) {
      if (by_kind_[k].size() >= 2) asked.push_back(static_cast<int>(k));
    }
    Dice dice(absl::StrCat("nlvr2 ", part.name));
    std::string lines;
    int made = 0;
    for (int s = 0; s < part.sets && !asked.empty(); ++s) {
      Set set;
      set.kind = asked[s % asked.size()];
      if (!Draw(&dice, &set)) continue;
      absl::Status status = Write(part, made++, set, &dice, &lines);
      if (!status.ok()) return status;
    }
    if (part.directories) {
      absl::Status status = WritePictures(part);
      if (!status.ok()) return status;
    }
    const std::string file = absl::StrCat("nlvr2_", part.name, ".jsonl");
    (*report_.counts)[absl::StrCat("nlvr2_", part.name)] = 8 * made;
    absl::StrAppend(report_.summary,
                    absl::StrFormat("           %-22s %5d statements, %3d sets "
                                    "of 4 pairs\n",
                                    file, 8 * made, made));
    return out_.Write(file, lines, true);
  }

 private:
  // False if it finds no pictures that make four new pairs.
  bool Draw(Dice* dice, Set* set) const {
    std::vector<int> others;
    for (size_t k = 0; k < by_kind_.size(); ++k) {
      if (!by_kind_[k].empty() && !Clash(set->kind, static_cast<int>(k))) {
        others.push_back(static_cast<int>(k));
      }
    }
    if (others.size() < 2) return false;
    for (int attempt = 0; attempt < 200; ++attempt) {
      std::vector<const Subject*> kind = by_kind_[set->kind];
      dice->Shuffle(&kind);
      std::vector<int> other = others;
      dice->Shuffle(&other);
      set->left[0] = kind[0];
      set->right[0] = kind[1];
      set->left[1] = dice->Pick(by_kind_[other[0]]);
      set->right[1] = dice->Pick(by_kind_[other[1]]);
      bool fresh = true;
      for (const Subject* left : set->left) {
        for (const Subject* right : set->right) {
          fresh = fresh && used_.count({left->image_id, right->image_id}) == 0;
        }
      }
      if (fresh) return true;
    }
    return false;
  }

  absl::Status Write(const Part& part, int number, const Set& set, Dice* dice,
                     std::string* lines) {
    const std::string directory =
        part.directories ? absl::StrCat(number / kSetsInDirectory) : "";
    const std::string folder =
        absl::StrCat("images/nlvr2/", part.name, "/",
                     directory.empty() ? "" : directory + "/");
    std::vector<int> pairs = {0, 1, 2, 3};
    dice->Shuffle(&pairs);
    for (int p = 0; p < 4; ++p) {
      const int l = pairs[p] / 2, r = pairs[p] % 2;
      const Subject &left = *set.left[l], &right = *set.right[r];
      used_.insert({left.image_id, right.image_id});
      shown_.insert({left.image, left.kind});
      shown_.insert({right.image, right.kind});
      const std::string pair = absl::StrCat(part.name, "-", number, "-", p);
      for (const auto& [subject, image] :
           {std::make_pair(&left, "-img0.png"),
            std::make_pair(&right, "-img1.png")}) {
        absl::Status status =
            out_.Link(subject->image, absl::StrCat(folder, pair, image));
        if (!status.ok()) return status;
      }
      for (int s = 0; s < 2; ++s) {
        const bool exactly_one = l != r;
        const bool label = s == 0 ? exactly_one : !exactly_one;
        absl::StrAppend(
            lines, "{\"sentence\": ",
            JsonString(absl::StrCat(kSentences[s], Kinds()[set.kind].phrase)),
            ", \"identifier\": ", JsonString(absl::StrCat(pair, "-", s)),
            ", \"label\": ", label ? "\"True\"" : "\"False\"",
            directory.empty() ? "" : ", \"directory\": ", directory,
            ", \"left\": ", JsonString(left.name),
            ", \"right\": ", JsonString(right.name), "}\n");
      }
    }
    return absl::OkStatus();
  }

  // The pictures shown so far, each with its kind for a caption. The image_id
  // is the kind: pictures of one kind have the same caption, so none of them is
  // a negative of another.
  absl::Status WritePictures(const Part& part) {
    std::string list;
    for (const auto& [image, kind] : shown_) {
      const char* phrase = Kinds()[kind].phrase;
      absl::StrAppend(&list, list.empty() ? "[\n" : ",\n",
                      "{\"image\": ", JsonString(image), ", \"caption\": ",
                      JsonString(absl::StrCat("the picture shows ", phrase)),
                      ", \"image_id\": ", JsonString(phrase), "}");
    }
    const std::string stem = absl::StrCat("nlvr2_", part.name, "_pictures");
    (*report_.counts)[stem] = static_cast<int64_t>(shown_.size());
    absl::StrAppend(report_.summary,
                    absl::StrFormat("           %-22s %5d pictures with their "
                                    "kinds\n",
                                    stem + ".json", shown_.size()));
    return out_.Write(stem + ".json", list + "\n]\n", true);
  }

  OutputFolder& out_;
  const SetReport report_;
  std::vector<std::vector<const Subject*>> by_kind_;
  // Pairs of pictures in any part: what is tested was not trained on.
  std::set<std::pair<std::string, std::string>> used_;
  std::map<std::string, int> shown_;  // Pictures and their kinds.
};

}  // namespace

absl::Status MakeNlvr2(const SubjectPools& pools, OutputFolder* out,
                       SetReport report) {
  absl::StrAppend(
      report.summary,
      "nlvr2      two emoji and a statement about their kinds (SIL "
      "OFL 1.1; names: Unicode licence); pictures are hard links\n");
  Maker maker(out, report);
  for (const Part& part : kParts) {
    absl::Status status =
        maker.Make(part, part.unseen ? pools.unseen : pools.trained);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace semvq::tools
