// Scenes of several emoji, with their boxes.
#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tools/data/benchmarks.h"
#include "tools/data/dice.h"
#include "tools/data/picture.h"

namespace semvq::tools {
namespace {

constexpr int kSide = 128;  // Of a scene, in pixels.
constexpr int kMinObjects = 4, kMaxObjects = 9;

struct Part {
  const char* name;
  bool unseen;
  int scenes;
  int queries;  // A scene; 0: one for each object.
};
constexpr Part kParts[] = {{"train", false, 800, 0},
                           {"val", false, 80, 3},
                           {"test", false, 200, 3},
                           {"unseen", true, 80, 3}};

struct Object {
  const Subject* subject;
  Box box;
};

std::set<std::string> Words(const std::string& name) {
  static const std::set<std::string>* small = new std::set<std::string>{
      "a", "an", "and", "in", "of", "on", "the", "with"};
  std::set<std::string> words;
  for (const absl::string_view word :
       absl::StrSplit(absl::AsciiStrToLower(name), absl::ByAnyChar(" -"),
                      absl::SkipEmpty())) {
    if (small->count(std::string(word)) == 0) words.emplace(word);
  }
  return words;
}

std::string JsonBox(const Box& box) {
  return absl::StrCat("[", box.x, ", ", box.y, ", ", box.w, ", ", box.h, "]");
}

Box Inside(Box box) {
  box.w = std::min(box.w, kSide);
  box.h = std::min(box.h, kSide);
  box.x = std::clamp(box.x, 0, kSide - box.w);
  box.y = std::clamp(box.y, 0, kSide - box.h);
  return box;
}

// As a detector would give: each object's box somewhat off, but with an IoU of
// at least 0.6; and as many boxes of nothing, with an IoU below 0.4 to every
// object.
std::vector<Box> Proposals(const std::vector<Object>& objects, Dice* dice) {
  std::vector<Box> boxes;
  for (const Object& object : objects) {
    const Box& truth = object.box;
    Box box = truth;
    for (int attempt = 0; attempt < 100; ++attempt) {
      const int dx = std::max(1, truth.w / 6), dy = std::max(1, truth.h / 6);
      const Box off = Inside({truth.x + dice->Between(-dx, dx),
                              truth.y + dice->Between(-dy, dy),
                              std::max(2, truth.w + dice->Between(-dx, dx)),
                              std::max(2, truth.h + dice->Between(-dy, dy))});
      if (Iou(off, truth) >= 0.6) {
        box = off;
        break;
      }
    }
    boxes.push_back(box);
  }
  for (size_t n = 0; n < objects.size(); ++n) {
    for (int attempt = 0; attempt < 100; ++attempt) {
      const int w = dice->Between(16, 56), h = dice->Between(16, 56);
      const Box box{dice->Below(kSide - w + 1), dice->Below(kSide - h + 1), w,
                    h};
      const bool apart = std::all_of(
          objects.begin(), objects.end(),
          [&](const Object& object) { return Iou(box, object.box) < 0.4; });
      if (!apart) continue;
      boxes.push_back(box);
      break;
    }
  }
  dice->Shuffle(&boxes);
  return boxes;
}

// "rocket, cow and tulip"
std::string Enumerate(std::vector<std::string> names) {
  const std::string last = names.back();
  names.pop_back();
  return absl::StrCat(absl::StrJoin(names, ", "), " and ", last);
}

class Maker {
 public:
  Maker(OutputFolder* out, SetReport report) : out_(*out), report_(report) {}

  absl::Status Make(const Part& part, const std::vector<Subject>& pool) {
    if (pool.size() < kMinObjects) return absl::OkStatus();
    Dice dice(absl::StrCat("grounding ", part.name));
    std::vector<std::string> queries, boxes, captions;
    int made = 0;
    for (int s = 0; s < part.scenes; ++s) {
      auto objects = Choose(pool, &dice);
      if (objects.size() < kMinObjects) continue;
      const std::string image =
          absl::StrCat("images/scenes/", part.name, "/", made++, ".png");
      absl::Status status = Draw(image, &dice, &objects);
      if (!status.ok()) return status;
      const std::string proposals = absl::StrJoin(
          Proposals(objects, &dice), ", ",
          [](std::string* text, const Box& box) { *text += JsonBox(box); });
      std::vector<std::string> names;
      for (const Object& object : objects)
        names.push_back(object.subject->name);
      captions.push_back(
          absl::StrCat("{\"image\": ", JsonString(image),
                       ", \"caption\": ", JsonString(Enumerate(names)), "}"));
      const size_t asked = part.queries == 0
                               ? objects.size()
                               : static_cast<size_t>(part.queries);
      for (size_t q = 0; q < asked; ++q, ++next_id_) {
        queries.push_back(absl::StrCat("{\"image\": ", JsonString(image),
                                       ", \"text\": ", JsonString(names[q]),
                                       ", \"ref_id\": ", next_id_, "}"));
        boxes.push_back(absl::StrCat(
            "{\"ref_id\": ", next_id_, ", \"width\": ", kSide,
            ", \"height\": ", kSide, ", \"box\": ", JsonBox(objects[q].box),
            ", \"proposals\": [", proposals, "]}"));
      }
    }
    const std::string stem = absl::StrCat("grounding_", part.name);
    (*report_.counts)[stem] = static_cast<int64_t>(queries.size());
    (*report_.counts)[stem + "_scenes"] = made;
    absl::StrAppend(
        report_.summary,
        absl::StrFormat("           %-22s %5d queries, %4d scenes\n",
                        stem + ".json", queries.size(), made));
    absl::Status status = WriteList(stem + ".json", queries);
    if (status.ok()) status = WriteList(stem + "_boxes.json", boxes);
    if (status.ok() && part.queries == 0) {
      status = WriteList(stem + "_captions.json", captions);
    }
    return status;
  }

 private:
  absl::Status WriteList(const std::string& file,
                         const std::vector<std::string>& records) {
    return out_.Write(
        file, absl::StrCat("[\n", absl::StrJoin(records, ",\n"), "\n]\n"),
        true);
  }

  std::vector<Object> Choose(const std::vector<Subject>& pool,
                             Dice* dice) const {
    const size_t wanted =
        static_cast<size_t>(dice->Between(kMinObjects, kMaxObjects));
    std::vector<Object> objects;
    std::set<std::string> words;
    for (int attempt = 0; attempt < 400 && objects.size() < wanted; ++attempt) {
      const Subject& subject = dice->Pick(pool);
      const std::set<std::string> own = Words(subject.name);
      const bool told_apart = std::none_of(
          own.begin(), own.end(),
          [&](const std::string& word) { return words.count(word) != 0; });
      if (!told_apart || own.empty()) continue;
      words.insert(own.begin(), own.end());
      objects.push_back({&subject, {}});
    }
    return objects;
  }

  absl::Status Load(const Subject& subject, Picture* picture) {
    auto it = cache_.find(subject.image_id);
    if (it == cache_.end()) {
      auto bytes = ReadFile(absl::StrCat(out_.root(), "/", subject.image));
      if (!bytes.ok()) return bytes.status();
      auto decoded = DecodePng(*bytes);
      if (!decoded.ok()) return decoded.status();
      it = cache_.emplace(subject.image_id, *std::move(decoded)).first;
    }
    *picture = it->second;
    return absl::OkStatus();
  }

  // Each object gets a cell of a grid, and within it a place and a size.
  absl::Status Draw(const std::string& path, Dice* dice,
                    std::vector<Object>* objects) {
    int columns = 2, rows = 2;
    if (objects->size() > 4) (dice->Below(2) == 0 ? columns : rows) = 3;
    if (objects->size() > 6) columns = rows = 3;
    std::vector<int> cells(columns * rows);
    for (size_t c = 0; c < cells.size(); ++c) cells[c] = static_cast<int>(c);
    dice->Shuffle(&cells);
    Picture canvas(kSide, kSide, 255, 255, 255);
    const int cell_w = kSide / columns, cell_h = kSide / rows;
    for (size_t o = 0; o < objects->size(); ++o) {
      Picture picture;
      absl::Status status = Load(*(*objects)[o].subject, &picture);
      if (!status.ok()) return status;
      const int most = std::min(cell_w, cell_h) - 2;
      const int w = dice->Between(most * 3 / 4, most);
      const int h = std::max(1, w * picture.height / picture.width);
      const Picture small = Reduce(picture, w, h);
      const Box seen = VisibleBox(small);
      if (seen.w == 0) {
        return absl::InvalidArgumentError(
            absl::StrCat((*objects)[o].subject->image, " shows nothing"));
      }
      const int x =
          cells[o] % columns * cell_w + 1 + dice->Below(cell_w - 1 - w);
      const int y = cells[o] / columns * cell_h + 1 +
                    dice->Below(std::max(1, cell_h - 1 - h));
      Paste(small, x, y, &canvas);
      (*objects)[o].box = {x + seen.x, y + seen.y, seen.w, seen.h};
    }
    auto png = EncodePng(canvas, /*opaque=*/true);
    if (!png.ok()) return png.status();
    return out_.Write(path, *png);
  }

  OutputFolder& out_;
  const SetReport report_;
  std::map<std::string, Picture> cache_;
  int64_t next_id_ = 1;
};

}  // namespace

absl::Status MakeGrounding(const SubjectPools& pools, OutputFolder* out,
                           SetReport report) {
  absl::StrAppend(report.summary,
                  "grounding  scenes of 4 to 9 emoji, and the name of one (SIL "
                  "OFL 1.1; names: Unicode licence)\n");
  Maker maker(out, report);
  for (const Part& part : kParts) {
    absl::Status status =
        maker.Make(part, part.unseen ? pools.unseen : pools.trained);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace semvq::tools
