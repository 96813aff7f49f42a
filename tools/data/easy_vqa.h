// The easy-VQA data set: questions about coloured shapes.
#ifndef SEMVQ_TOOLS_DATA_EASY_VQA_H_
#define SEMVQ_TOOLS_DATA_EASY_VQA_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/data/common.h"

namespace semvq::tools {

struct EasyVqa {
  std::vector<VqaRecord> train, val, test;
  std::vector<std::string> answers;  // sorted
  int64_t train_images = 0, val_images = 0, test_images = 0;
  // What needs no image, on test, learned from train and val together:
  // the most frequent answer, and the most frequent answer to each question
  // text (an unseen text gets the former).
  double majority_accuracy = 0, question_only_accuracy = 0;
  std::string majority_answer;
};

// The share of training images (with all their questions) set aside for
// validation: HashFraction("image:" + image_id) below it.
inline constexpr double kVqaValidationShare = 0.1;

// `folder` is the Python package easy_vqa 1.0, its `data` folder, or the
// folder the package was installed into. Copies the images to
// images/easy_vqa/{train,test}/ and returns the records, by question id:
// 0.. for training and validation in the order of questions.json,
// kFirstTestQuestion.. for test.
inline constexpr int64_t kFirstTestQuestion = 100000;
absl::StatusOr<EasyVqa> ConvertEasyVqa(const std::string& folder,
                                       OutputFolder* out);

// <folder>, <folder>/data or <folder>/easy_vqa/data, whichever holds
// answers.txt; NotFound says how to get the package.
absl::StatusOr<std::string> FindEasyVqa(const std::string& folder);

// Version by the package's METADATA beside it, or "unknown".
std::string EasyVqaVersion(const std::string& data_folder);

}  // namespace semvq::tools

#endif  // SEMVQ_TOOLS_DATA_EASY_VQA_H_
