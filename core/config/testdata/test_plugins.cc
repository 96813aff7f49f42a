#include "core/config/testdata/test_plugins.h"

#include <algorithm>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "core/config/testdata/test.pb.h"
#include "core/config/validate.h"
#include "core/forward/views.h"
#include "core/plugin/nested.h"
#include "core/plugin/registry.h"
#include "gtest/gtest.h"

namespace semvq {
namespace testing {
namespace {

template <class T, class Config>
absl::StatusOr<std::shared_ptr<T>> Make(const Config&, const PluginContext&) {
  return absl::UnimplementedError("only its config is tested");
}

template <class Config>
absl::Status Valid(const Config&) {
  return absl::OkStatus();
}

absl::Status ValidImage(const ImageConfig& config) {
  if (config.patch() > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("patch: got ", config.patch(), ", expected at least 1"));
}

absl::Status ValidMlm(const MlmConfig& config) {
  std::string errors;
  if (!(config.mask_ratio() > 0 && config.mask_ratio() < 1)) {
    absl::StrAppend(&errors, "mask_ratio: got ", config.mask_ratio(),
                    ", expected between 0 and 1\n");
  }
  if (config.layers() < 1)
    absl::StrAppend(&errors, "layers must be positive\n");
  return errors.empty() ? absl::OkStatus() : absl::InvalidArgumentError(errors);
}

Contract OfImage(const std::string&, const ImageConfig& config,
                 const ContractBook&) {
  Contract contract;
  contract.provides = {{kTokens, config.dim()}};
  contract.batch_keys = {"image"};
  return contract;
}

Contract OfTexts(const std::string&, const TextsConfig& config,
                 const ContractBook&) {
  Contract contract;
  contract.provides = {{kTokens, config.dim()}};
  contract.batch_keys = {"text"};
  return contract;
}

Contract OfFusion(const std::string&, const FusionConfig& config,
                  const ContractBook&) {
  Contract contract;
  contract.provides = {{kFused, config.dim()}};
  contract.needs = {{"text", config.text(), kTokens, config.dim()},
                    {"visual", config.visual(), kTokens}};
  return contract;
}

Contract OfVq(const std::string&, const VqConfig& config, const ContractBook&) {
  Contract contract;
  contract.codes.codes_per_group = {config.codes()};
  if (config.has_own_dim())
    contract.provides = {{kQuantized, config.own_dim()}};
  return contract;
}

absl::Status ValidVq(const VqConfig& config) {
  if (config.codes() > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("codes: got ", config.codes(), ", expected at least 1"));
}

absl::Status ValidWrap(const WrapConfig& config) {
  if (!config.first().type_url().empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("first: not set; expected a quantizer");
}

Contract OfWrap(const std::string& instance, const WrapConfig& config,
                const ContractBook& book) {
  Contract contract;
  const auto inner = UnpackPlugin(config.first(), PluginKind::kQuantizer);
  if (!inner.ok()) return contract;
  contract.codes =
      inner->type->contract(instance + "/0", *inner->config, book).codes;
  return contract;
}

template <class Config>
Contract Nothing(const std::string&, const Config&, const ContractBook&) {
  return Contract();
}

Contract OfMlm(const std::string&, const MlmConfig& config,
               const ContractBook&) {
  Contract contract;
  contract.needs = {{"fusion", config.fusion(), kFused}};
  return contract;
}

Contract OfMim(const std::string&, const MimConfig& config,
               const ContractBook&) {
  Contract contract;
  contract.needs = {{"quantizer", config.quantizer(), kQuantized, 0,
                     /*needs_codes=*/true, "it predicts them"}};
  contract.needs_teacher = config.teacher();
  if (config.has_target()) {
    NeededView target{"target", config.target(), kTokens,
                      0,        false,           "it imitates it"};
    target.needs_fixed = true;
    contract.needs.push_back(target);
  }
  return contract;
}

Contract OfRetrieval(const std::string&, const RetrievalConfig& config,
                     const ContractBook&) {
  Contract contract;
  contract.needs = {{"image", config.image(), kTokens}};
  return contract;
}

Contract OfSource(const std::string&, const SourceConfig& config,
                  const ContractBook&) {
  Contract contract;
  contract.batch_keys.assign(config.keys().begin(), config.keys().end());
  return contract;
}

SEMVQ_REGISTER(ImageEncoder, ImageConfig, Make, ValidImage, OfImage);
SEMVQ_REGISTER(TextEncoder, TextsConfig, Make, Valid, OfTexts);
SEMVQ_REGISTER(FusionEncoder, FusionConfig, Make, Valid, OfFusion);
SEMVQ_REGISTER(Quantizer, VqConfig, Make, ValidVq, OfVq);
SEMVQ_REGISTER(Quantizer, WrapConfig, Make, ValidWrap, OfWrap);
SEMVQ_REGISTER(Quantizer, NoneConfig, Make, Valid, Nothing);
SEMVQ_REGISTER(Objective, MlmConfig, Make, ValidMlm, OfMlm);
SEMVQ_REGISTER(Objective, MimConfig, Make, Valid, OfMim);
SEMVQ_REGISTER(Task, RetrievalConfig, Make, Valid, OfRetrieval);
SEMVQ_REGISTER(DataSource, SourceConfig, Make, Valid, OfSource);

}  // namespace
}  // namespace testing

std::string BaseText() {
  // The tests know its lines; clang-format leaves it alone.
  return R"(# A valid experiment.
name: "test"
data {
  streams {
    name: "pairs"
    source { [type.googleapis.com/semvq.testing.SourceConfig] { path: "/data/pairs.json" } }
    transform { size: 64 mean: 0.5 mean: 0.5 mean: 0.5 }
  }
}
text { wordpiece { vocab: "/data/vocab.txt" } }
encoders {
  name: "image"
  config { [type.googleapis.com/semvq.testing.ImageConfig] { patch: 8 } }
}
encoders {
  name: "text"
  config { [type.googleapis.com/semvq.testing.TextsConfig] { pool: FIRST } }
}
encoders {
  name: "fusion"
  config { [type.googleapis.com/semvq.testing.FusionConfig] {} }
}
quantizers {
  name: "codebook"
  config { [type.googleapis.com/semvq.testing.VqConfig] { codes: 256 decay: 0.9 } }
}
visual_tokens { mode: QUANTIZED }
objectives {
  name: "mlm"
  config {
    [type.googleapis.com/semvq.testing.MlmConfig] {
      mask_ratio: 0.25
      sizes: [ 1, 2 ]
      parts { name: "a" value: 1 }
      parts { name: "b" value: 2 }
      linear: 3
    }
  }
}
objectives {
  name: "mim"
  config { [type.googleapis.com/semvq.testing.MimConfig] {} }
}
tasks {
  name: "retrieval"
  config { [type.googleapis.com/semvq.testing.RetrievalConfig] {} }
  stream: "pairs"
}
optimizer { lr: 3e-4 }
trainer { stream: "pairs" epochs: 2 batch_size: 8 }
)";
}

std::string Replaced(std::string text, const std::string& from,
                     const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at == std::string::npos) return text;
  EXPECT_EQ(text.find(from, at + 1), std::string::npos) << from << " is twice";
  return text.replace(at, from.size(), to);
}

std::string Report(const std::vector<SourceText>& sources) {
  return FormatReport(CheckExperiment(LoadExperiment(sources)));
}

int LineOf(const std::string& text, const std::string& what) {
  const size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return 1 + static_cast<int>(std::count(
                 text.begin(), text.begin() + std::min(at, text.size()), '\n'));
}

}  // namespace semvq
