#include "tests/shapes.h"

#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/forward/text_record.h"
#include "core/util/file.h"
#include "data/shard_texts.h"
#include "data/shard_writer.h"
#include "opencv2/core.hpp"
#include "opencv2/imgcodecs.hpp"
#include "opencv2/imgproc.hpp"

namespace semvq {
namespace {

struct Color {
  const char* name;
  cv::Scalar bgr;
};

const Color kColors[] = {
    {"red", {0, 0, 255}},      {"green", {0, 255, 0}},
    {"blue", {255, 0, 0}},     {"yellow", {0, 255, 255}},
    {"purple", {255, 0, 128}}, {"white", {255, 255, 255}},
};
const char* const kStatements[] = {"the color is the color",
                                   "the shape is a shape", "what is the color"};
const char* const kShapes[] = {"circle", "square", "triangle", "cross"};

void Draw(cv::Mat& image, const std::string& shape, const cv::Scalar& color,
          const cv::Point& centre, int radius) {
  const cv::Point r(radius, radius);
  if (shape == "circle") {
    cv::circle(image, centre, radius, color, cv::FILLED);
  } else if (shape == "square") {
    cv::rectangle(image, centre - r, centre + r, color, cv::FILLED);
  } else if (shape == "triangle") {
    const std::vector<cv::Point> corners = {centre + cv::Point(0, -radius),
                                            centre + cv::Point(-radius, radius),
                                            centre + r};
    cv::fillConvexPoly(image, corners, color);
  } else {
    cv::line(image, centre - r, centre + r, color, 3);
    cv::line(image, centre + cv::Point(-radius, radius),
             centre + cv::Point(radius, -radius), color, 3);
  }
}

std::string List(const std::vector<std::string>& records) {
  return absl::StrCat("[\n", absl::StrJoin(records, ",\n"), "\n]\n");
}

// The same pictures in the formats of the official benchmarks.
class Benchmarks {
 public:
  void Caption(int64_t image, const std::string& caption) {
    const std::string split = image % 2 == 0 ? "train" : "test";
    karpathy_.push_back(absl::StrCat(
        R"({"filepath": "images", "filename": ")", image, R"(.png", "imgid": )",
        image, R"(, "split": ")", split, R"(", "sentences": [{"raw": ")",
        caption, R"(", "sentid": )", image, "}]}"));
    images_.push_back(absl::StrCat(
        R"({"id": )", image, R"(, "file_name": "images/)", image, R"(.png"})"));
    captions_.push_back(absl::StrCat(R"({"id": )", image, R"(, "image_id": )",
                                     image, R"(, "caption": ")", caption,
                                     R"("})"));
    const char* labels[] = {"entailment", "neutral", "contradiction"};
    snli_ve_.push_back(absl::StrCat(
        R"({"Flickr30K_ID": ")", image, R"(", "sentence2": ")", caption,
        R"(", "pairID": ")", image, R"(.jpg#0r1", "gold_label": ")",
        labels[image % 3], R"("})"));
  }
  void Question(int64_t image, int64_t id, const std::string& question,
                const std::string& answer) {
    questions_.push_back(absl::StrCat(R"({"image_id": )", image,
                                      R"(, "question": ")", question,
                                      R"(", "question_id": )", id, "}"));
    answers_.push_back(
        absl::StrCat(R"({"question_id": )", id, R"(, "image_id": )", image,
                     R"(, "question_type": "what", "answer_type": "other")",
                     R"(, "answers": [{"answer_id": 1, "answer": ")", answer,
                     R"("}, {"answer_id": 2, "answer": ")", answer,
                     R"("}, {"answer_id": 3, "answer": "red"}]})"));
  }
  void Pair(int64_t set, bool same) {
    nlvr2_.push_back(
        absl::StrCat(R"({"identifier": "dev-)", set, R"(-0-0", "sentence": ")",
                     kStatements[set % std::size(kStatements)],
                     R"(", "label": ")", same ? "True" : "False", R"("})"));
  }
  std::vector<std::pair<std::string, std::string>> Files() const {
    const auto list = [](const std::vector<std::string>& records) {
      return absl::StrCat("[\n", absl::StrJoin(records, ",\n"), "\n]");
    };
    const auto lines = [](const std::vector<std::string>& records) {
      return absl::StrCat(absl::StrJoin(records, "\n"), "\n");
    };
    return {{"vqa_v2_questions.json",
             absl::StrCat(R"({"data_subtype": "shapes", "questions": )",
                          list(questions_), "}\n")},
            {"vqa_v2_annotations.json",
             absl::StrCat(R"({"annotations": )", list(answers_), "}\n")},
            {"karpathy.json",
             absl::StrCat(R"({"images": )", list(karpathy_), "}\n")},
            {"coco_captions.json",
             absl::StrCat(R"({"images": )", list(images_),
                          R"(, "annotations": )", list(captions_), "}\n")},
            {"nlvr2.jsonl", lines(nlvr2_)},
            {"snli_ve.jsonl", lines(snli_ve_)}};
  }

 private:
  std::vector<std::string> karpathy_, images_, captions_, questions_, answers_,
      nlvr2_, snli_ve_;
};

// The questions of two shards, half of the images in each.
absl::Status WriteShards(const std::string& folder, int64_t images,
                         const std::vector<std::vector<TextRecord>>& texts) {
  for (int64_t shard = 0; shard < 2; ++shard) {
    auto writer = ShardWriter::Create(
        JoinPath(folder, absl::StrCat("vqa-", shard, ".tar")));
    if (!writer.ok()) return writer.status();
    for (int64_t i = shard * images / 2; i < (shard + 1) * images / 2; ++i) {
      const std::string key = absl::StrFormat("%06d", i);
      auto image =
          ReadFile(JoinPath(folder, absl::StrCat("images/", i, ".png")));
      if (!image.ok()) return image.status();
      absl::Status status = (*writer)->Add(key + ".png", *image);
      if (status.ok()) {
        status = (*writer)->Add(
            key + ".json",
            ShardTextsJson(absl::StrCat("images/", i, ".png"), texts[i]));
      }
      if (!status.ok()) return status;
    }
    const absl::Status status = (*writer)->Finish();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteShapes(const std::string& folder,
                         const ShapesOptions& options) {
  absl::Status status = MakeDirectories(JoinPath(folder, "images"));
  if (!status.ok()) return status;
  cv::RNG random(options.seed);
  std::vector<std::string> pairs, questions, answers, boxes;
  std::vector<std::vector<TextRecord>> texts(options.images);
  Benchmarks benchmarks;
  for (int64_t i = 0; i < options.images; ++i) {
    const Color& color = kColors[i % std::size(kColors)];
    const std::string shape =
        kShapes[(i / std::size(kColors)) % std::size(kShapes)];
    cv::Mat image(options.size, options.size, CV_8UC3, cv::Scalar(40, 40, 40));
    const int radius = random.uniform(options.size / 6, options.size / 3);
    const cv::Point centre(random.uniform(radius, options.size - radius),
                           random.uniform(radius, options.size - radius));
    Draw(image, shape, color.bgr, centre, radius);
    const std::string file = absl::StrCat("images/", i, ".png");
    // NLVR2's names: picture i is the left one of set i, and the right one of
    // the set before.
    for (const std::string& name :
         {file, absl::StrCat("images/dev-", i, "-0-img0.png"),
          absl::StrCat("images/dev-", (i + options.images - 1) % options.images,
                       "-0-img1.png")}) {
      if (!cv::imwrite(JoinPath(folder, name), image)) {
        return absl::InternalError(absl::StrCat("cannot write ", name));
      }
    }
    benchmarks.Caption(i, absl::StrCat("a ", color.name, " ", shape));
    benchmarks.Pair(i, i % 2 == 0);
    pairs.push_back(absl::StrCat(R"({"image": ")", file, R"(", "caption": "a )",
                                 color.name, " ", shape, R"("})"));
    // Where the question's shape is, and as proposals that, the quarters of
    // the image and all of it.
    const auto locate = [&] {
      const int half = options.size / 2;
      std::vector<std::string> proposals;
      for (const cv::Rect& r :
           {cv::Rect(centre - cv::Point(radius, radius),
                     cv::Size(2 * radius, 2 * radius)),
            cv::Rect(0, 0, half, half), cv::Rect(half, 0, half, half),
            cv::Rect(0, half, half, half), cv::Rect(half, half, half, half),
            cv::Rect(0, 0, options.size, options.size)}) {
        proposals.push_back(absl::StrCat("[", r.x, ", ", r.y, ", ", r.width,
                                         ", ", r.height, "]"));
      }
      boxes.push_back(absl::StrCat(
          "{\"ref_id\": ", questions.size(), ", \"width\": ", options.size,
          ", \"height\": ", options.size, ", \"box\": ", proposals[0],
          ", \"proposals\": [", absl::StrJoin(proposals, ", "), "]}"));
    };
    const auto ask = [&](const std::string& question,
                         const std::string& answer) {
      locate();
      benchmarks.Question(i, static_cast<int64_t>(questions.size()), question,
                          answer);
      TextRecord text;
      text.id = absl::StrCat(questions.size());
      text.text = question;
      text.answers = {{answer, 1.0f}};
      texts[i].push_back(std::move(text));
      questions.push_back(absl::StrCat(
          R"({"image": ")", file, R"(", "question": ")", question,
          R"(", "question_id": )", questions.size(), R"(, "answer": ")", answer,
          R"(", "concept": ")", shape, R"("})"));
    };
    ask(absl::StrCat("what color is the ", shape), color.name);
    ask(absl::StrCat("what shape is ", color.name), shape);
  }
  std::vector<std::string> words = {"[PAD]",  "[UNK]", "[CLS]", "[SEP]",
                                    "[MASK]", "a",     "what",  "color",
                                    "shape",  "is",    "the"};
  for (const Color& color : kColors) answers.push_back(color.name);
  answers.insert(answers.end(), std::begin(kShapes), std::end(kShapes));
  words.insert(words.end(), answers.begin(), answers.end());
  const std::string answer_list =
      absl::StrCat("[\"", absl::StrJoin(answers, "\", \""), "\"]\n");
  std::vector<std::pair<std::string, std::string>> files = benchmarks.Files();
  files.emplace_back("pairs.json", List(pairs));
  files.emplace_back("vqa.json", List(questions));
  files.emplace_back("boxes.json", List(boxes));
  files.emplace_back("answer_list.json", answer_list);
  files.emplace_back("vocab.txt",
                     absl::StrCat(absl::StrJoin(words, "\n"), "\n"));
  for (const auto& [name, text] : files) {
    status = AtomicWriteFile(JoinPath(folder, name), text);
    if (!status.ok()) return status;
  }
  return WriteShards(folder, options.images, texts);
}

}  // namespace semvq
