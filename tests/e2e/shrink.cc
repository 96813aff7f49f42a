#include "tests/e2e/shrink.h"

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/plugin/registry.h"
#include "core/util/file.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;

constexpr int kImageSize = 32;

constexpr int64_t kNoLimit = -1;

// The most a number of that name may be. 0 often means "derived": it stays.
int64_t Limit(const std::string& field) {
  static const auto* limits =
      new std::map<std::string, int64_t>{{"dim", 32},
                                         {"hidden", 16},
                                         {"depth", 1},
                                         {"layers", 1},
                                         {"decoder_dim", 32},
                                         {"decoder_depth", 1},
                                         {"decoder_heads", 2},
                                         {"prior_dim", 32},
                                         {"prior_depth", 1},
                                         {"prior_heads", 2},
                                         {"fusion_layers", 1},
                                         {"heads", 2},
                                         {"fusion_heads", 2},
                                         {"intermediate", 64},
                                         {"num_codes", 16},
                                         {"code_dim", 8},
                                         {"queue_size", 16},
                                         {"reservoir", 64},
                                         {"kmeans_samples", 256},
                                         {"permutations", 2},
                                         {"kmeans_iterations", 2},
                                         {"rerank_top_k", 4},
                                         {"min_word_count", 1},
                                         {"layer", 0},  // From 0.
                                         {"heat_maps", 1},
                                         {"max_iterations", 5},
                                         {"image_size", kImageSize}};
  auto found = limits->find(field);
  return found == limits->end() ? kNoLimit : found->second;
}

// `defaults`: also where a field is not set. Within groups of options that
// would be wrong: a plugin may refuse an option that it has no use for.
void ShrinkNumbers(const std::string& file, pb::Message& config, bool defaults);

void ShrinkPlugin(const std::string& file, pb::Any& any);

// Groups of options and plugins that are set in `config`, such as the sources
// that a mixture lists.
void ShrinkNested(const std::string& file, pb::Message& config) {
  const pb::Reflection* r = config.GetReflection();
  std::vector<const pb::FieldDescriptor*> set;
  r->ListFields(config, &set);
  for (const pb::FieldDescriptor* field : set) {
    if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (field->is_repeated()) {
      for (int i = 0; i < r->FieldSize(config, field); ++i)
        ShrinkNested(file, *r->MutableRepeatedMessage(&config, field, i));
      continue;
    }
    pb::Message& nested = *r->MutableMessage(&config, field);
    if (field->message_type() == pb::Any::descriptor()) {
      ShrinkPlugin(file, static_cast<pb::Any&>(nested));
    } else {
      ShrinkNumbers(file, nested, /*defaults=*/false);
    }
  }
}

void ShrinkNumbers(const std::string& file, pb::Message& config,
                   bool defaults) {
  ShrinkNested(file, config);
  const pb::Reflection* r = config.GetReflection();
  const pb::Descriptor* d = config.GetDescriptor();
  for (int i = 0; i < d->field_count(); ++i) {
    const pb::FieldDescriptor* field = d->field(i);
    const int64_t limit = Limit(field->name());
    if (limit == kNoLimit || field->is_repeated()) continue;
    if (!defaults && !r->HasField(config, field)) continue;
    if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_INT64) {
      if (r->GetInt64(config, field) > limit)
        r->SetInt64(&config, field, limit);
    } else if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_INT32) {
      if (r->GetInt32(config, field) > limit)
        r->SetInt32(&config, field, static_cast<int32_t>(limit));
    }
  }
}

// The data set's file (tests/shapes.h) in the format of a plugin's field.
std::string FileName(const PluginType& type, const std::string& field,
                     const std::string& otherwise) {
  static const auto* names = new std::map<std::string, std::string>{
      {"GroundingConfig.boxes", "boxes.json"},
      {"VqaConfig.annotations", "vqa_v2_annotations.json"},
      {"CaptioningConfig.references", "coco_captions.json"},
      {"VqaV2Config.questions", "vqa_v2_questions.json"},
      {"VqaV2Config.annotations", "vqa_v2_annotations.json"},
      {"KarpathyJsonConfig.path", "karpathy.json"},
      {"CocoCaptionsConfig.path", "coco_captions.json"},
      {"Nlvr2JsonlConfig.path", "nlvr2.jsonl"},
      {"SnliVeJsonlConfig.path", "snli_ve.jsonl"},
      {"WebDatasetConfig.shards", "vqa-{0..1}.tar"}};
  auto found = names->find(absl::StrCat(type.config->name(), ".", field));
  return found == names->end() ? otherwise : found->second;
}

// Where the data set's images are, for sources that do not say it themselves.
void ReplaceImages(const PluginType& type, const std::string& folder,
                   pb::Message& config) {
  const auto set = [&](const char* name, const std::string& value) {
    const auto* field = type.config->FindFieldByName(name);
    if (field == nullptr) return;
    const pb::Reflection* r = config.GetReflection();
    if (!field->is_repeated()) return r->SetString(&config, field, value);
    r->ClearField(&config, field);
    r->AddString(&config, field, value);
  };
  const std::string& source = type.config->name();
  if (source == "Nlvr2JsonlConfig")
    set("image_root", JoinPath(folder, "images"));
  if (source == "SnliVeJsonlConfig") set("image_pattern", "images/{id}.png");
  if (source == "VqaV2Config") set("image_pattern", "images/{image_id}.png");
}

// Files a plugin wants are the data set's: `file`, or one beside it.
void ReplaceFiles(const PluginType& type, const std::string& file,
                  pb::Message& config) {
  const pb::Reflection* r = config.GetReflection();
  const Contract contract = type.contract("x", config, ContractBook());
  for (const NeededFile& needed : contract.files) {
    const auto* field = type.config->FindFieldByName(needed.field);
    if (field == nullptr) continue;
    r->ClearField(&config, field);
    const std::string path =
        JoinPath(DirName(file), FileName(type, needed.field, BaseName(file)));
    if (field->is_repeated()) {
      r->AddString(&config, field, path);
    } else {
      r->SetString(&config, field, path);
    }
  }
}

void ShrinkPlugin(const std::string& file, pb::Any& any) {
  const PluginType* type = PluginTypeOf(any);
  auto config = UnpackConfig(any);
  if (type == nullptr || !config.ok()) return;
  ShrinkNumbers(file, **config, /*defaults=*/true);
  ReplaceFiles(*type, file, **config);
  // Said of the files that were replaced.
  for (const char* name : {"image_root", "expected_answers"}) {
    if (const auto* field = type->config->FindFieldByName(name))
      (*config)->GetReflection()->ClearField(config->get(), field);
  }
  // Of the files' records only those of the first samples are evaluated.
  if (const auto* field = type->config->FindFieldByName("partial"))
    (*config)->GetReflection()->SetBool(config->get(), field, true);
  ReplaceImages(*type, DirName(file), **config);
  any.PackFrom(**config);
}

}  // namespace

void Shrink(const std::string& shapes, Experiment& e) {
  const std::string records = JoinPath(shapes, "vqa.json");
  for (DataStream& stream : *e.mutable_data()->mutable_streams()) {
    if (stream.has_source()) ShrinkPlugin(records, *stream.mutable_source());
    stream.mutable_transform()->set_size(kImageSize);
    // A mixture has no first samples.
    if (!absl::EndsWith(stream.source().type_url(), ".MixtureConfig"))
      stream.set_limit(24);
  }
  if (e.text().sentencepiece().has_model()) {
    e.mutable_text()->mutable_sentencepiece()->clear_model();
    e.mutable_text()->mutable_sentencepiece()->add_train_on(
        e.data().streams(0).name());
  }
  if (e.text().has_sentencepiece())
    e.mutable_text()->mutable_sentencepiece()->set_vocab_size(60);
  if (e.text().wordpiece().has_vocab()) {
    e.mutable_text()->mutable_wordpiece()->set_vocab(
        JoinPath(shapes, "vocab.txt"));
  }
  for (EncoderConfig& x : *e.mutable_encoders())
    if (x.has_config()) ShrinkPlugin(records, *x.mutable_config());
  for (QuantizerConfig& x : *e.mutable_quantizers()) {
    if (x.has_config()) ShrinkPlugin(records, *x.mutable_config());
    if (x.dim() > 8) x.set_dim(8);
  }
  for (ObjectiveConfig& x : *e.mutable_objectives())
    if (x.has_config()) ShrinkPlugin(records, *x.mutable_config());
  for (TaskConfig& x : *e.mutable_tasks()) {
    if (x.has_config())
      ShrinkPlugin(JoinPath(shapes, "answer_list.json"), *x.mutable_config());
    x.set_batch_size(8);
  }
  if (e.has_trainer()) {
    TrainerConfig& trainer = *e.mutable_trainer();
    if (trainer.length_case() != TrainerConfig::LENGTH_NOT_SET)
      trainer.set_steps(2);
    trainer.set_batch_size(4);
    trainer.set_accumulation(std::min(trainer.accumulation(), 2));
    trainer.set_threads(1);
  }
  if (e.has_logging()) e.mutable_logging()->set_every(1);
  if (e.init_from().has_path() || e.init_from().weights_size() > 0)
    e.clear_init_from();
  for (Stage& stage : *e.mutable_stages())
    if (stage.has_with()) Shrink(shapes, *stage.mutable_with());
}

}  // namespace semvq
