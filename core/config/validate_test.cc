// What is reported: bad texts, bad values, contracts.
#include "core/config/validate.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/config/print.h"
#include "core/config/testdata/test.pb.h"
#include "core/config/testdata/test_plugins.h"
#include "core/forward/views.h"
#include "core/plugin/nested.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string Overlaid(const std::string& overlay) {
  return Report({{"base", BaseText()}, {"over", overlay}});
}

// All kinds of mistakes in one file, one report.
TEST(ReportTest, EverythingAtOnce) {
  std::string text = BaseText();
  text = Replaced(text, "mask_ratio: 0.25", "mask_raito: 0.25");
  text = Replaced(text, "testing.MimConfig", "testing.MinConfig");
  text = Replaced(text, "batch_size: 8", "batch_size: \"eight\"");
  text = Replaced(text, "mode: QUANTIZED", "mode: QUANTISED");
  text = Replaced(text, "testing.FusionConfig] {}",
                  "testing.FusionConfig] { dim: 256 }");
  text +=
      "objectives {\n  name: \"mlm2\"\n  config {\n"
      "    [type.googleapis.com/semvq.testing.MlmConfig] {\n"
      "      fusion: \"fuson\" layers: 0 mask_ratio: 2 } } }\n";
  const std::string report = Report({{"bad.pbtxt", text}});
  const auto expect = [&](const std::string& what, const std::string& path,
                          const std::string& message) {
    const std::string place =
        absl::StrCat("bad.pbtxt:", LineOf(text, what), ":");
    const size_t at = report.find(path + ": " + message);
    ASSERT_NE(at, std::string::npos) << path << "\n"
                                     << message << "\n"
                                     << report;
    const size_t line = report.rfind('\n', at) + 1;
    EXPECT_THAT(report.substr(line), StartsWith("  " + place)) << path;
  };
  expect(
      "mask_raito", "objectives[\"mlm\"].config.mask_raito",
      "unknown field \"mask_raito\" of semvq.testing.MlmConfig; did you mean "
      "\"mask_ratio\"?");
  expect("MinConfig", "objectives[\"mim\"].config",
         "no plugin of type \"semvq.testing.MinConfig\" is linked in; did you "
         "mean \"semvq.testing.MimConfig\"? (objective types: "
         "semvq.testing.MimConfig, semvq.testing.MlmConfig)");
  expect("eight", "trainer.batch_size",
         "got \"eight\", expected a whole number in 32 bits");
  expect("QUANTISED", "visual_tokens.mode",
         "got QUANTISED, expected one of QUANTIZED, CONTINUOUS, GATED; did you "
         "mean QUANTIZED?");
  expect("dim: 256", "encoders[\"fusion\"].config.text",
         "binding `text` needs the view \"tokens\" with dimension 256");
  expect("layers: 0", "objectives[\"mlm2\"].config.layers",
         "layers must be positive");
  expect("mask_ratio: 2", "objectives[\"mlm2\"].config.mask_ratio",
         "mask_ratio: got 2, expected between 0 and 1");
  EXPECT_THAT(report, StartsWith("7 errors in the experiment:\n"));

  // The invalid plugin's bindings are checked once it is valid.
  text = Replaced(text, "layers: 0 mask_ratio: 2", "");
  const std::string second = Report({{"bad.pbtxt", text}});
  EXPECT_THAT(second,
              HasSubstr("binding `fusion` names instance \"fuson\", "
                        "which does not exist; did you mean \"fusion\"?"));
  EXPECT_THAT(second, StartsWith("6 errors"));
}

TEST(ReportTest, SeveralSourcesAtOnce) {
  const std::string report =
      Report({{"a", "sed: 2\n"}, {"b", "\nname: 5"}, {"c", "device: GPU"}});
  EXPECT_THAT(report, HasSubstr("a:1:1: sed: unknown field"));
  EXPECT_THAT(report, HasSubstr("b:2:7: name: got 5, expected a \"string\""));
  EXPECT_THAT(report,
              HasSubstr("c:1:9: device: got GPU, expected one of AUTO"));
}

struct BadText {
  std::string text;
  std::string message;
};

class BadTextTest : public ::testing::TestWithParam<BadText> {};

TEST_P(BadTextTest, IsReported) {
  EXPECT_THAT(Report({{"f", GetParam().text}}), HasSubstr(GetParam().message));
}

const BadText kBadTexts[] = {
    {"seed: -1", "f:1:7: seed: got -1, expected a whole number from 0"},
    {"data { workers: 1.5 }", "got 1.5, expected a whole number in 32 bits"},
    {"data { workers: 3000000000 }", "got 3000000000, expected a whole number"},
    {"trainer { bf16: maybe }", "got maybe, expected true or false"},
    {"trainer { bf16 { } }", "trainer.bf16: got a message, expected true"},
    {"trainer: 5", "trainer: got 5, expected { ... }"},
    {"trainer { steps: [1, 2] }", "trainer.steps: got a list, expected"},
    {"trainer { steps: 1\n steps: 2 }",
     "f:2:2: trainer.steps: set twice; first in line 1"},
    {"trainer { steps: 1\n epochs: 2 }",
     "f:2:2: trainer.epochs: excludes \"steps\", set in line 1"},
    {"trainer { }\ntrainer { }", "f:2:1: trainer: set twice"},
    {"encoders { }", "encoders[0]: an entry of \"encoders\" needs a name"},
    {"stages { name: 'a' }\nstages { name: 'a' }",
     "f:2:1: stages[\"a\"]: \"a\" is here twice; first in line 1"},
    {"encoders { name: 'a' config { } }",
     "encoders[\"a\"].config: names no plugin type"},
    {"encoders { name: 'a' config { type_url: 'x' } }",
     "expected { [type.googleapis.com/<type>] { ... } }"},
    {"[semvq.extra]: 5", "got extension [semvq.extra]"},
    {"nonsense { a: [1, { b: 2 }] c < d: 'e' > }\nseeed: 1",
     "f:2:1: seeed: unknown field \"seeed\" of semvq.Experiment; did you mean "
     "\"seed\"?"},
    // Structure: the parser cannot know how to go on.
    {"name: 'a'\ntrainer {\n steps: 3\n",
     "f:4:1: syntax error: the \"{\" of "
     "line 2 is not closed"},
    {"name: 'a'\n}", "f:2:1: syntax error: got \"}\", expected a field name"},
    {"name:", "got the end of the text, expected a value"},
    {"\nname 'a'",
     "f:2:6: syntax error: got \"'a'\" after \"name\", expected "
     "\":\" and a \"string\""},
    {"name: 'a\nseed: 1", "f:1:9: syntax error: String literals cannot cross"},
    {"data { streams [ { name: 'a' } { name: 'b' } ] }",
     "expected \",\" or the \"]\""},
    {"data < workers: 1 }", "syntax error"},
    {"zzz { a: [ } ]", "which does not close the \"[\" of line 1"},
};

INSTANTIATE_TEST_SUITE_P(All, BadTextTest, ::testing::ValuesIn(kBadTexts));

TEST(BadTextTest, AValueThatCannotBeReadCausesNoFurtherError) {
  EXPECT_EQ(
      Overlaid("trainer { stream: 7 }\nteacher { momentum: 'x' }\n"
               "encoders { name: 'image' config { [a/b.C] { } } }"),
      "3 errors in the experiment:\n"
      "  over:1:19: trainer.stream: got 7, expected a \"string\"\n"
      "  over:2:21: teacher.momentum: got 'x', expected a number\n"
      "  over:3:35: encoders[\"image\"].config: no plugin of type \"b.C\" "
      "is linked in (image encoder, text encoder, fusion encoder types: "
      "semvq.testing.ImageConfig, semvq.testing.TextsConfig, "
      "semvq.testing.FusionConfig)\n");
}

TEST(BadTextTest, GarbageIsRefused) {
  std::mt19937 random(7);
  std::string bytes(1 << 20, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  EXPECT_THAT(Report({{"f", bytes}}), HasSubstr("f:1:"));
  // Of the language's own characters, which gets further.
  const std::string letters = "{}[]<>:;,.-'\" \nab1 name seed trainer 0x";
  for (int round = 0; round < 200; ++round) {
    std::string text(1 << 12, ' ');
    for (char& c : text) c = letters[random() % letters.size()];
    EXPECT_THAT(Report({{"f", text}}), HasSubstr("f:"));
  }
  // A good text with a byte changed: no crash, whatever it says.
  const std::string good = BaseText();
  for (int round = 0; round < 300; ++round) {
    std::string text = good;
    text[random() % text.size()] = letters[random() % letters.size()];
    Report({{"f", text}});
  }
  std::string unknown;
  for (int i = 0; i < 50000; ++i)
    absl::StrAppend(&unknown, "field", i, ": 1\n");
  EXPECT_THAT(Report({{"f", unknown}}), HasSubstr("too many errors"));
}

TEST(BadTextTest, DeepNestingIsRefused) {
  std::string known;
  std::string unknown;
  for (int i = 0; i < 100000; ++i) {
    known += "stages { name: 'a' with { ";
    unknown += "a { b [ ";
  }
  EXPECT_THAT(Report({{"f", known}}), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(Report({{"f", unknown}}), HasSubstr("is not closed"));
}

struct BadValue {
  std::string overlay;
  std::string message;  // Empty: there is no error.
};

class BadValueTest : public ::testing::TestWithParam<BadValue> {};

TEST_P(BadValueTest, IsReportedOnce) {
  const std::string report = Overlaid(GetParam().overlay);
  if (GetParam().message.empty()) {
    EXPECT_EQ(report, "");
  } else {
    EXPECT_THAT(report, HasSubstr(GetParam().message));
    EXPECT_THAT(report, StartsWith("1 error in the experiment:\n"));
  }
}

#define TEST_ANY(type) "[type.googleapis.com/semvq.testing." #type "]"

const BadValue kBadValues[] = {
    {"name: 'a/b'", "name: got \"a/b\", expected letters"},
    {"optimizer { lr: 0 } schedule { min_lr: 0 }",
     "optimizer.lr: got 0, expected more than 0"},
    {"optimizer { lr: nan }", "optimizer.lr: not finite"},
    {"optimizer { beta2: 1 }", "optimizer.beta2: got 1, expected at least 0"},
    {"optimizer { groups { name: 'g' pattern: '(' } }",
     "optimizer.groups[\"g\"].pattern: got \"(\", which is no regular"},
    {"schedule { min_lr: 1 }", "expected at most optimizer.lr, 0.0003 (base:"},
    {"schedule { warmup_steps: -1 }", "schedule.warmup_steps: got -1"},
    {"trainer { steps: 0 }", "trainer.steps: got 0, expected at least 1"},
    {"trainer { loss_spikes { window: 3 } }",
     "trainer.loss_spikes.window: got 3, expected at least 4"},
    {"trainer { loss_spikes { action: ROLL_BACK } }",
     "trainer.loss_spikes.action: got ROLL_BACK, but no checkpoints"},
    {"trainer { stream: 'pair' }",
     "trainer.stream: names the stream \"pair\", which does not exist; did you "
     "mean \"pairs\"?"},
    {"data { streams { name: 'pairs' transform { std: [1, 1] } } }",
     "transform.std: got 2 values, expected none or 3"},
    {"data { streams { name: 'pairs' transform { min_scale: 0.9 max_scale: 0.5 "
     "} } }",
     "min_scale: got 0.9, expected at most max_scale, 0.5"},
    {"data { max_bad_fraction: 2 }", "got 2, expected 0 to 1"},
    {"teacher { momentum: -0.5 }", "teacher.momentum: got -0.5"},
    {"text { sentencepiece { train_on: 'pear' } }",
     "text.sentencepiece.train_on: names the stream \"pear\""},
    {"text { sentencepiece { } }", "neither model nor train_on is set"},
    {"text { wordpiece { vocab: '' train_on: 'pear' } }",
     "text.wordpiece.train_on: names the stream \"pear\""},
    {"text { wordpiece { min_images: 0 } }",
     "text.wordpiece.min_images: got 0, expected at least 1"},
    {"text { wordpiece { train_on: 'pairs' } }",
     "both vocab and train_on are set"},
    {"text { wordpiece { vocab: '' } }", "nor train_on is set"},
    {"init_from { allow_missing: '[' path: 'x' }", "init_from.allow_missing"},
    {"tasks { name: 'retrieval' stream: 'x' }",
     "tasks[\"retrieval\"].stream: names the stream \"x\""},
    {"tasks { name: 'mlm' stream: 'pairs' config { " TEST_ANY(
         RetrievalConfig) " {} } }",
     "tasks[\"mlm\"].name: \"mlm\" is the name of objectives[\"mlm\"] (base:"},
    {"objectives { name: 'visual' config { " TEST_ANY(MlmConfig) " {} } }",
     "\"visual\" is what visual_tokens provides"},
    {"objectives { name: 'a b' config { " TEST_ANY(MlmConfig) " {} } }",
     "objectives[\"a b\"].name: got \"a b\""},
    {"objectives { name: 'mlm' config { " TEST_ANY(ImageConfig) " {} } }",
     "objectives[\"mlm\"].config: semvq.testing.ImageConfig is a plugin of "
     "kind "
     "image encoder; expected one of semvq.testing.MimConfig"},
    {"objectives { name: 'x' }", "objectives[\"x\"].config: not set; expected"},
    {"encoders { name: 'image' config { " TEST_ANY(
         ImageConfig) " { patch: 0 } } }",
     "encoders[\"image\"].config.patch: patch: got 0, expected at least 1"},
    // Contracts.
    {"objectives { name: 'mlm' config { " TEST_ANY(
         MlmConfig) " { fusion: 'fuson' } } }",
     "objectives[\"mlm\"].config.fusion: binding `fusion` names instance "
     "\"fuson\", which does not exist; did you mean \"fusion\"?"},
    {"objectives { name: 'mlm' config { " TEST_ANY(
         MlmConfig) " { fusion: '' } } }",
     "binding `fusion` is empty, expected the name of an instance"},
    {"objectives { name: 'mlm' config { " TEST_ANY(
         MlmConfig) " { fusion: 'codebook' } } }",
     "binding `fusion` needs the view \"fused\" of \"codebook\" "
     "(quantizers[\"codebook\"], base:23), which provides quantized"},
    {"encoders { name: 'text' config { " TEST_ANY(
         TextsConfig) " { dim: 128 } } }\n"
                      "encoders { name: 'fusion' config { " TEST_ANY(
                          FusionConfig) " { dim: 192 } } }",
     "over:2:36: encoders[\"fusion\"].config.text: binding `text` needs the "
     "view "
     "\"tokens\" with dimension 192 (encoders[\"fusion\"], over:2), but it has "
     "128 in \"text\" (encoders[\"text\"], over:1)"},
    {"quantizers { name: 'codebook' config { " TEST_ANY(
         NoneConfig) " {} } }\nobjectives { name: 'mim' weight: 1 }",
     "objectives[\"mim\"].config.quantizer: binding `quantizer` needs discrete "
     "codes because it predicts them; \"codebook\" (quantizers[\"codebook\"], "
     "over:1), a semvq.testing.NoneConfig, has none"},
    {"objectives { name: 'mim' config { " TEST_ANY(
         MimConfig) " { target: 'image' } } }",
     "objectives[\"mim\"].config.target: binding `target` needs a fixed "
     "network because it imitates it; \"image\" (encoders[\"image\"]"},
    {"objectives { name: 'mim' config { " TEST_ANY(
         MimConfig) " { teacher: true } } }",
     "objectives[\"mim\"].config: needs a teacher, but there is none"},
    {"teacher { enabled: true } objectives { name: 'mim' config { " TEST_ANY(
         MimConfig) " { teacher: true } } }",
     ""},
    {"quantizers { name: 'codebook' input: 'text' } visual_tokens { mode: "
     "CONTINUOUS }",
     "quantizers[\"codebook\"].input: binding `input` names \"text\" "
     "(encoders[\"text\"], base:15), expected an image encoder"},
    {"quantizers { name: 'codebook' config { " TEST_ANY(
         VqConfig) " { own_dim: 5 } } }",
     "quantizers[\"codebook\"].dim: got codes of dimension 192 (that of "
     "encoder "
     "\"image\"), but this semvq.testing.VqConfig has 5; set dim: 5"},
    {"quantizers { name: 'codebook' dim: 5 config { " TEST_ANY(
         VqConfig) " { own_dim: 5 } } }",
     ""},
    {"visual_tokens { quantizer: 'codebok' }",
     "visual_tokens.quantizer: binding `quantizer` names instance \"codebok\""},
    {"visual_tokens { quantizer: 'codebok' mode: CONTINUOUS }", ""},
    {"visual_tokens { encoder: 'imag' mode: CONTINUOUS }",
     "visual_tokens.encoder: binding `encoder` names instance \"imag\""},
    {"data { streams { name: 'pairs' source { " TEST_ANY(
         SourceConfig) " { keys: 'image' } } } }\ntrainer { stream: 'pairs' }",
     "over:2:11: trainer.stream: stream \"pairs\" holds image, but "
     "objectives[\"mlm\"] needs \"text\" for \"text\""},
    {"data { streams { name: 'pairs' source { " TEST_ANY(
         SourceConfig) " { keys: ['image', 'text'] } } } }",
     ""},
    {"data { streams { name: 'big' transform { size: 96 } source { " TEST_ANY(
         SourceConfig) " {} } } } tasks { name: 'retrieval' stream: 'big' }",
     "data.streams[\"big\"].transform.size: got 96, expected 64 as in "
     "data.streams[\"pairs\"].transform.size, base:7"},
};

INSTANTIATE_TEST_SUITE_P(All, BadValueTest, ::testing::ValuesIn(kBadValues));

// A plugin of the tests as an Any holds it: AsAny("VqConfig", "codes: 1").
std::string AsAny(const std::string& type, const std::string& fields) {
  return absl::StrCat("[type.googleapis.com/semvq.testing.", type, "] { ",
                      fields, " }");
}

// The codebook as a wrapper with these fields.
std::string Wrapper(const std::string& fields) {
  return absl::StrCat("quantizers { name: 'codebook' config { ",
                      AsAny("WrapConfig", fields), " } }");
}

std::string First(const std::string& type, const std::string& fields = "") {
  return absl::StrCat("first { ", AsAny(type, fields), " }");
}

const BadValue kBadNested[] = {
    {Wrapper(First("VqConfig")), ""},
    {Wrapper(""),
     "quantizers[\"codebook\"].config.first: first: not set; expected a "
     "quantizer"},
    {Wrapper(First("VqConfig", "\n codes: 0")),
     "over:2:2: quantizers[\"codebook\"].config.first.codes: codes: got 0, "
     "expected at least 1"},
    {Wrapper(First("VqConfig") + " deep { second { " +
             AsAny("VqConfig", "codes: -1") + " } }"),
     "quantizers[\"codebook\"].config.deep.second.codes: codes: got -1"},
    {Wrapper(First("WrapConfig", First("VqConfig", "decay: nan"))),
     "config.first.first.decay: not finite; expected a finite number"},
    {Wrapper(First("MlmConfig")),
     "quantizers[\"codebook\"].config.first: semvq.testing.MlmConfig is a "
     "plugin of kind objective; expected one of semvq.testing.NoneConfig, "
     "semvq.testing.VqConfig, semvq.testing.WrapConfig"},
    {Wrapper(First("VqCnfig")),
     "quantizers[\"codebook\"].config.first: no plugin of type "
     "\"semvq.testing.VqCnfig\" is linked in; did you mean "
     "\"semvq.testing.VqConfig\"? (quantizer types: "},
    {Wrapper(First("VqConfig", "cods: 1")),
     "quantizers[\"codebook\"].config.first.cods: unknown field \"cods\""},
    {Wrapper(First("NoneConfig")),
     "binding `quantizer` needs discrete codes because it predicts them"},
};

INSTANTIATE_TEST_SUITE_P(Nested, BadValueTest, ::testing::ValuesIn(kBadNested));

TEST(NestedTest, OverlaysMergeIntoThePluginInThePlugin) {
  const std::string inner = AsAny("VqConfig", "codes: 256 decay: 0.9");
  const std::string wrapped = Replaced(
      BaseText(), inner, AsAny("WrapConfig", "first { " + inner + " }"));
  const auto overlaid = [&](const std::string& fields) {
    const LoadResult loaded =
        LoadExperiment({{"base", wrapped}, {"over", Wrapper(fields)}});
    EXPECT_EQ(FormatReport(CheckExperiment(loaded)), "");
    return PrintExperiment(loaded.experiment);
  };
  EXPECT_THAT(overlaid(First("VqConfig", "codes: 7")),
              ::testing::AllOf(HasSubstr("codes: 7"), HasSubstr("decay: 0.9")));
  // Another type replaces all of it.
  EXPECT_THAT(
      overlaid(First("WrapConfig", First("VqConfig", "codes: 7"))),
      ::testing::AllOf(HasSubstr("codes: 7"), Not(HasSubstr("decay: 0.9"))));
}

TEST(NestedTest, NeedsOfTheInnerOneAreItsHosts) {
  Contract inner;
  inner.needs = {{"teacher", "image", kTokens}};
  inner.files = {{"init", "codes.safetensors", "codes"}};
  inner.batch_keys = {"image", "text"};
  inner.needs_teacher = true;
  Contract host;
  host.batch_keys = {"image"};
  AddNestedNeeds("quantizer", inner, &host);
  ASSERT_EQ(host.needs.size(), 1u);
  EXPECT_EQ(host.needs[0].field, "quantizer.teacher");
  ASSERT_EQ(host.files.size(), 1u);
  EXPECT_EQ(host.files[0].field, "quantizer.init");
  EXPECT_EQ(host.batch_keys, (std::vector<std::string>{"image", "text"}));
  EXPECT_TRUE(host.needs_teacher);
}

TEST(NestedTest, UnpackingSaysWhatIsWrong) {
  google::protobuf::Any any;
  EXPECT_EQ(UnpackPlugin(any, PluginKind::kQuantizer).status().code(),
            absl::StatusCode::kNotFound);
  any.PackFrom(testing::VqConfig());
  EXPECT_TRUE(UnpackPlugin(any, PluginKind::kQuantizer).ok());
  EXPECT_EQ(UnpackPlugin(any, PluginKind::kTask).status().code(),
            absl::StatusCode::kInvalidArgument);
  any.set_value("\xff\xff");
  EXPECT_THAT(
      std::string(UnpackPlugin(any, PluginKind::kQuantizer).status().message()),
      HasSubstr("damaged"));
}

TEST(ValueTest, TrainingNeedsALengthAndALoss) {
  std::string text = Replaced(BaseText(), "epochs: 2", "");
  EXPECT_THAT(Report({{"f", text}}),
              HasSubstr("trainer: neither steps nor epochs is set"));
  text = Replaced(text, "stream: \"pairs\"  batch_size", "batch_size");
  EXPECT_EQ(Report({{"f", text}}), "");  // Evaluation only.
  EXPECT_THAT(Overlaid("objectives { name: 'mlm' remove: true }"
                       "objectives { name: 'mim' remove: true }"),
              HasSubstr("there is nothing to train"));
  EXPECT_THAT(Report({{"f", Replaced(BaseText(), "name: \"test\"", "")}}),
              HasSubstr("name: not set"));
}

TEST(ValueTest, TextEncodersNeedATokenizer) {
  EXPECT_THAT(
      Report({{"f", Replaced(BaseText(),
                             "text { wordpiece { vocab: "
                             "\"/data/vocab.txt\" } }",
                             "")}}),
      HasSubstr("encoders[\"text\"]: a text encoder needs a tokenizer"));
}

TEST(ContractsTest, TheBookHoldsEveryInstance) {
  const LoadResult loaded =
      LoadExperiment({{"base", BaseText()},
                      {"over", "quantizers { name: 'codebook' dim: 32 }"}});
  const absl::StatusOr<ContractBook> book = BuildContracts(loaded.experiment);
  ASSERT_TRUE(book.ok()) << book.status();
  EXPECT_EQ(book->all().size(), 8u);
  EXPECT_EQ(book->image_size, 64);
  EXPECT_EQ(book->max_tokens, 25);
  EXPECT_EQ(book->Dim("image", kTokens), 192);
  EXPECT_EQ(book->Dim("codebook", kQuantized), 32);
  EXPECT_EQ(book->Dim(kVisual, kTokens), 192);
  EXPECT_EQ(book->Dim("fusion", kFused), 192);
  EXPECT_EQ(book->Find("codebook")->codes.codes_per_group[0], 256);
}

TEST(ContractsTest, AFrozenEncoderIsAFixedNetwork) {
  const LoadResult loaded =
      LoadExperiment({{"base", BaseText()},
                      {"over",
                       "encoders { name: 'image' frozen: true }\n"
                       "objectives { name: 'mim' config { " TEST_ANY(
                           MimConfig) " { target: 'image' } } }"}});
  EXPECT_EQ(FormatReport(CheckExperiment(loaded)), FormatReport({}));
  const auto book = BuildContracts(loaded.experiment);
  ASSERT_TRUE(book.ok()) << book.status();
  EXPECT_TRUE(book->Find("image")->fixed);
  EXPECT_FALSE(book->Find("text")->fixed);
}

TEST(ContractsTest, VisualTokensByDefault) {
  // Set nowhere, and an encoder `image` is there: its own tokens.
  std::string text =
      Replaced(BaseText(), "visual_tokens { mode: QUANTIZED }", "");
  LoadResult loaded = LoadExperiment({{"f", text}});
  absl::StatusOr<ContractBook> book = BuildContracts(loaded.experiment);
  ASSERT_TRUE(book.ok()) << book.status();
  EXPECT_EQ(book->Dim(kVisual, kTokens), 192);
  // No such encoder: no visual tokens, and whoever asks for them is told why.
  loaded.experiment.mutable_encoders(0)->set_name("pixels");
  loaded.experiment.mutable_quantizers(0)->set_input("pixels");
  book = BuildContracts(loaded.experiment);
  ASSERT_FALSE(book.ok());
  EXPECT_THAT(
      std::string(book.status().message()),
      HasSubstr("binding `visual` names instance \"visual\", which does "
                "not exist; visual_tokens.encoder must name an image "
                "encoder"));
}

TEST(ContractsTest, UnknownTypesAreNoCrash) {
  LoadResult loaded = LoadExperiment({{"f", BaseText()}});
  loaded.experiment.mutable_encoders(0)->mutable_config()->set_type_url(
      "x/no.T");
  loaded.experiment.mutable_objectives(0)->mutable_config()->set_value(
      "\xff\xff");
  const absl::StatusOr<ContractBook> book = BuildContracts(loaded.experiment);
  ASSERT_FALSE(book.ok());
  EXPECT_THAT(
      std::string(book.status().message()),
      ::testing::AllOf(HasSubstr("no plugin of type \"no.T\""),
                       HasSubstr("are damaged"), Not(HasSubstr("binding"))));
}

}  // namespace
}  // namespace semvq
