// Reading, merging, stages, printing, hashing, variables, look-up.
#include "core/config/load.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/config/names.h"
#include "core/config/print.h"
#include "core/config/testdata/test.pb.h"
#include "core/config/testdata/test_plugins.h"
#include "core/config/validate.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

using google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Any(const std::string& type, const std::string& body) {
  return absl::StrCat("[type.googleapis.com/semvq.testing.", type, "] {", body,
                      "}");
}

LoadResult LoadGood(const std::vector<std::string>& texts) {
  std::vector<SourceText> sources;
  for (const std::string& text : texts) {
    sources.push_back({absl::StrCat("source", sources.size()), text});
  }
  LoadResult result = LoadExperiment(sources);
  EXPECT_EQ(FormatReport(result.errors), "");
  return result;
}

template <class Config>
Config Unpacked(const google::protobuf::Any& any) {
  Config config;
  EXPECT_TRUE(any.UnpackTo(&config)) << any.type_url();
  return config;
}

TEST(NamesTest, DistancesAndSuggestions) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("mask_raito", "mask_ratio"), 1);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("CPU", "cpu"), 0);
  EXPECT_EQ(NearestName("fuson", {"image", "fusion", "text"}), "fusion");
  EXPECT_EQ(NearestName("zebra", {"image", "fusion", "text"}), "");
  EXPECT_EQ(DidYouMean("zebra", {"image", "text"}), "; there are: image, text");
}

TEST(LoadTest, ReadsEveryKindOfValue) {
  const LoadResult base = LoadGood({BaseText()});
  EXPECT_EQ(Report({{"base", BaseText()}}), "");
  const auto mlm =
      Unpacked<testing::MlmConfig>(base.experiment.objectives(0).config());
  EXPECT_EQ(mlm.mask_ratio(), 0.25);
  EXPECT_EQ(mlm.sizes_size(), 2);
  EXPECT_EQ(mlm.parts(1).value(), 2);
  EXPECT_EQ(base.experiment.data().streams(0).transform().mean_size(), 3);
  EXPECT_EQ(base.experiment.optimizer().lr(), 3e-4);
  EXPECT_EQ(LoadGood({"device: CUDA seed: 18446744073709551615;"
                      "optimizer < clip_norm: -inf, > summary: 'a' \"b\\n\""})
                .experiment.summary(),
            "ab\n");
  EXPECT_EQ(LoadGood({""}).experiment.ByteSizeLong(), 0u);
}

TEST(LoadTest, OverlaysMergeByName) {
  const LoadResult merged = LoadGood(
      {BaseText(),
       absl::StrCat("objectives { name: 'mlm' weight: 0.5 config {",
                    Any("MlmConfig",
                        "mask_ratio: 0.4 sizes: 7 mlp: 9 "
                        "parts { name: 'b' value: 5 } "
                        "parts { name: 'a' remove: true } "
                        "parts { name: 'c' }"),
                    "} }\nencoders { name: 'extra' config {",
                    Any("ImageConfig", ""), "} }"),
       "trainer { steps: 10 }\nobjectives { name: 'mim' remove: true }"});
  const Experiment& x = merged.experiment;
  ASSERT_EQ(x.objectives_size(), 1);
  EXPECT_EQ(x.objectives(0).weight(), 0.5);
  const auto mlm = Unpacked<testing::MlmConfig>(x.objectives(0).config());
  EXPECT_EQ(mlm.mask_ratio(), 0.4);
  EXPECT_THAT(mlm.sizes(), ElementsAre(7));
  ASSERT_EQ(mlm.parts_size(), 2);
  EXPECT_EQ(mlm.parts(0).name(), "b");
  EXPECT_EQ(mlm.parts(0).value(), 5);
  EXPECT_EQ(mlm.parts(1).name(), "c");
  EXPECT_FALSE(mlm.has_linear());
  EXPECT_EQ(mlm.mlp(), 9);
  ASSERT_EQ(x.encoders_size(), 4);
  EXPECT_EQ(x.encoders(3).name(), "extra");
  EXPECT_TRUE(x.trainer().has_steps());
  EXPECT_FALSE(x.trainer().has_epochs());
  EXPECT_EQ(x.trainer().batch_size(), 8);
  EXPECT_THAT(PrintExperiment(x), Not(HasSubstr("remove")));
}

TEST(LoadTest, AnotherTypeReplacesTheWholeConfig) {
  const LoadResult merged =
      LoadGood({BaseText(),
                absl::StrCat("quantizers { name: 'codebook' config {",
                             Any("NoneConfig", ""), "} }"),
                absl::StrCat("quantizers { name: 'codebook' config {",
                             Any("VqConfig", "codes: 64"), "} }")});
  const auto vq =
      Unpacked<testing::VqConfig>(merged.experiment.quantizers(0).config());
  EXPECT_EQ(vq.codes(), 64);
  EXPECT_FALSE(vq.has_decay());
  EXPECT_EQ(merged.provenance.Find("quantizers[\"codebook\"].config.decay"),
            nullptr);
  EXPECT_EQ(
      merged.provenance.Find("quantizers[\"codebook\"].config.codes")->file,
      "source2");
}

TEST(LoadTest, ProvenanceFollowsTheLastSource) {
  const std::string base = BaseText();
  const LoadResult merged = LoadGood(
      {base,
       absl::StrCat("\n\nobjectives { name: 'mlm' config {\n",
                    Any("MlmConfig", "\n  mask_ratio: 0.4"), "} }"),
       "\n\n\n  trainer { batch_size: 4 }\n optimizer { beta1: 0.5 }"});
  const auto at = [&](const std::string& path) {
    return ToString(merged.provenance.Locate(path));
  };
  EXPECT_EQ(at("objectives[\"mlm\"].config.mask_ratio"), "source1:5");
  EXPECT_EQ(at("objectives[\"mlm\"].config.sizes"),
            absl::StrCat("source0:", LineOf(base, "sizes:")));
  EXPECT_EQ(at("objectives[\"mlm\"].config.parts[\"b\"].value"),
            absl::StrCat("source0:", LineOf(base, "name: \"b\"")));
  EXPECT_EQ(at("trainer.batch_size"), "source2:4");
  EXPECT_EQ(merged.provenance.Find("trainer.batch_size")->column, 13);
  EXPECT_EQ(at("trainer.epochs"),
            absl::StrCat("source0:", LineOf(base, "epochs")));
  // What no source set: where the message is.
  EXPECT_EQ(at("optimizer.beta2"), "source2:5");
  EXPECT_EQ(at("logging.every"), "(default)");
  // A validation error names the overlay.
  EXPECT_THAT(
      Report({{"base", base}, {"--merge #1", "\ntrainer { batch_size: 0 }"}}),
      HasSubstr("--merge #1:2:11: trainer.batch_size: got 0"));
}

TEST(LoadTest, RemovingWhatIsNotThereIsAnError) {
  EXPECT_THAT(
      Report({{"base", BaseText()},
              {"over", "\nobjectives { name: 'mln' remove: true }"}}),
      HasSubstr("over:2:1: objectives[\"mln\"]: \"mln\" is to be removed, "
                "but no such entry is there; did you mean \"mlm\"?"));
}

constexpr char kStages[] = R"pb(
  stages { name: "pretrain" }
  stages {
    name: "tune"
    with {
      objectives { name: "mim" remove: true }
      tasks { name: "retrieval" fine_tune: true }
      trainer { steps: 3 }
      init_from { stage: "pretrain" }
    }
  }
)pb";

TEST(StagesTest, OverlaysAreMergedIn) {
  const LoadResult loaded =
      LoadGood({BaseText(), kStages,
                "stages { name: 'tune' with { trainer { steps: 4 }\n"
                " objectives { name: 'mlm' remove: true } } }"});
  const StagesResult resolved =
      ResolveStages(loaded.experiment, loaded.provenance);
  EXPECT_EQ(FormatReport(resolved.errors), "");
  ASSERT_EQ(resolved.stages.size(), 2u);
  const ResolvedStage& first = resolved.stages[0];
  EXPECT_EQ(first.name, "pretrain");
  EXPECT_EQ(first.experiment.objectives_size(), 2);
  EXPECT_EQ(first.experiment.stages_size(), 0);
  const ResolvedStage& second = resolved.stages[1];
  EXPECT_EQ(second.experiment.objectives_size(), 0);
  EXPECT_TRUE(second.experiment.tasks(0).fine_tune());
  EXPECT_EQ(second.experiment.tasks(0).stream(), "pairs");
  EXPECT_EQ(second.experiment.trainer().steps(), 4);
  EXPECT_FALSE(second.experiment.trainer().has_epochs());
  EXPECT_EQ(ToString(second.provenance.Locate("trainer.steps")), "source2:1");
  EXPECT_EQ(ToString(second.provenance.Locate("init_from.stage")), "source1:9");
  EXPECT_EQ(Report({{"base", BaseText()}, {"stages", kStages}}), "");

  const LoadResult back = LoadGood({BaseText(), kStages,
                                    "stages { name: 'tune' with { objectives { "
                                    "name: 'mim' weight: 2 } } }"});
  const StagesResult again = ResolveStages(back.experiment, back.provenance);
  ASSERT_EQ(again.stages[1].experiment.objectives_size(), 2);
  EXPECT_EQ(again.stages[1].experiment.objectives(1).weight(), 2);
}

// An ablation may leave out what a stage removes anyway, and drop what only a
// stage has.
TEST(StagesTest, RemovingTwiceIsNoMistake) {
  std::vector<SourceText> twice = {
      {"base", BaseText()},
      {"stages",
       "stages { name: 'tune' with { objectives { "
       "name: 'mlm' remove: true } } }"},
      {"no_mlm", "objectives { name: 'mlm' remove: true }"}};
  EXPECT_EQ(Report(twice), "");
  // Never there at all: still a mistake.
  twice[2].text = "objectives { name: 'mlmm' remove: true }";
  EXPECT_THAT(Report(twice), HasSubstr("objectives[\"mlmm\"]"));
}

// The saved experiment alone reproduces the run.
TEST(StagesTest, WhatIsLeftAfterRemovalsReadsBack) {
  const LoadResult loaded =
      LoadGood({BaseText(),
                "stages { name: 'tune' with { objectives { name: 'mlm' remove: "
                "true } trainer { steps: 7 } } }",
                "objectives { name: 'mlm' remove: true }"});
  const std::string printed = PrintExperiment(loaded.experiment);
  EXPECT_EQ(Report({{"printed", printed}}), "");
  const LoadResult back = LoadGood({printed});
  EXPECT_EQ(PrintExperiment(back.experiment), printed);
  EXPECT_EQ(back.experiment.stages(0).with().trainer().steps(), 7);
}

TEST(StagesTest, AnOverlayDropsWhatOnlyAStageHas) {
  const LoadResult loaded = LoadGood(
      {BaseText(),
       "stages { name: 'a' with { optimizer { groups { name: 'g' pattern: 'x' "
       "} } } }",
       "stages { name: 'a' with { optimizer { groups { name: 'g' remove: true "
       "} } } }"});
  const StagesResult resolved =
      ResolveStages(loaded.experiment, loaded.provenance);
  EXPECT_EQ(FormatReport(resolved.errors), "");
  EXPECT_EQ(resolved.stages[0].experiment.optimizer().groups_size(), 0);
}

TEST(StagesTest, ErrorsNameTheStage) {
  EXPECT_THAT(
      Report({{"base", BaseText()},
              {"s",
               "stages { name: 'a' with {\n"
               "objectives { name: 'mum' remove: true }\n"
               "init_from { stage: 'b' }\n"
               "trainer { batch_size: -1 }\n"
               "stages {\n name: 'c' } } }\n"
               "stages { name: 'b' }"}}),
      ::testing::AllOf(
          HasSubstr("s:2:1: stages[\"a\"].with.objectives[\"mum\"]: "),
          HasSubstr("s:3:13: init_from.stage: stage \"a\" starts from \"b\", "
                    "which is no earlier stage"),
          HasSubstr("s:4:11: trainer.batch_size: got -1"),
          HasSubstr("a stage cannot hold stages")));
}

TEST(StagesTest, WithoutStagesThereIsOne) {
  const LoadResult loaded = LoadGood({BaseText()});
  const StagesResult resolved =
      ResolveStages(loaded.experiment, loaded.provenance);
  ASSERT_EQ(resolved.stages.size(), 1u);
  EXPECT_EQ(resolved.stages[0].name, "train");
  EXPECT_TRUE(MessageDifferencer::Equals(resolved.stages[0].experiment,
                                         loaded.experiment));
}

TEST(PrintTest, ReadsBackEqual) {
  const LoadResult loaded = LoadGood(
      {BaseText(), kStages,
       "summary: 'caf\xc3\xa9 \\'\"\\n' optimizer { lr: 0.1000000000000001 }"});
  const std::string text = PrintExperiment(loaded.experiment);
  EXPECT_THAT(text, HasSubstr("[type.googleapis.com/semvq.testing.MlmConfig]"));
  EXPECT_THAT(text, HasSubstr("caf\xc3\xa9"));
  const LoadResult again = LoadGood({text});
  EXPECT_EQ(PrintExperiment(again.experiment), text);
  EXPECT_TRUE(MessageDifferencer::Equals(again.experiment, loaded.experiment));
}

TEST(HashTest, ChangesWithResultsOnly) {
  const auto hash = [](const std::string& overlay) {
    return ConfigHash(LoadGood({BaseText(), overlay}).experiment);
  };
  const std::string base = hash("");
  EXPECT_EQ(base.size(), 16u);
  EXPECT_EQ(base.find_first_not_of("0123456789abcdef"), std::string::npos);
  for (const char* same :
       {"name: 'other'", "summary: 'x'", "device: CPU",
        "checkpoint { folder: '/x' every: 3 }", "logging { every: 1 }",
        "data { workers: 9 prefetch: 2 cache_bytes: 5 max_bad_fraction: 1 }",
        "trainer { threads: 4 max_nonfinite_steps: 3 }",
        "trainer { loss_spikes { threshold: 5 } }", "data {}"}) {
    EXPECT_EQ(hash(same), base) << same;
  }
  for (const char* other :
       {"seed: 2", "optimizer { lr: 1e-3 }", "trainer { batch_size: 9 }",
        "objectives { name: 'mlm' config { "
        "[type.googleapis.com/semvq.testing.MlmConfig] { layers: 2 } } }",
        "data { max_pixels: 5 }", "stages { name: 'a' }"}) {
    EXPECT_NE(hash(other), base) << other;
  }
  EXPECT_EQ(hash("stages { name: 'a' }"),
            hash("stages { name: 'a' with { logging { every: 2 } } }"));
  // How the text is written does not matter; variables stay variables.
  EXPECT_EQ(
      ConfigHash(LoadGood({PrintExperiment(LoadGood({BaseText()}).experiment)})
                     .experiment),
      base);
}

TEST(VariablesTest, AreExpandedEverywhere) {
  LoadResult loaded = LoadGood(
      {Replaced(BaseText(), "/data/pairs.json", "${DATA}/x/${N}.json$"),
       "text { wordpiece { vocab: '${DATA}' } }\ninit_from { path: '$${DATA}'\n"
       "allow_missing: 'a$' allow_missing: '${DATA}' }"});
  const Experiment before = loaded.experiment;
  const Environment environment =
      [](const std::string& name) -> absl::optional<std::string> {
    if (name == "DATA") return "/d";
    if (name == "N") return "1";
    return absl::nullopt;
  };
  EXPECT_EQ(FormatReport(ExpandVariables(loaded.provenance, &loaded.experiment,
                                         Registry::Global(), environment)),
            "");
  const Experiment& x = loaded.experiment;
  EXPECT_EQ(
      Unpacked<testing::SourceConfig>(x.data().streams(0).source()).path(),
      "/d/x/1.json$");
  EXPECT_EQ(x.text().wordpiece().vocab(), "/d");
  EXPECT_EQ(x.init_from().path(), "${DATA}");
  EXPECT_THAT(x.init_from().allow_missing(), ElementsAre("a$", "/d"));
  EXPECT_NE(ConfigHash(x), ConfigHash(before));
}

TEST(VariablesTest, UndefinedOnesAreLocated) {
  const std::string base =
      Replaced(BaseText(), "/data/pairs.json", "${SEMVQ_NO_SUCH}/x");
  EXPECT_THAT(Report({{"base", base},
                      {"over", "text { wordpiece {\n vocab: '${x' } }"}}),
              ::testing::AllOf(
                  HasSubstr(absl::StrCat(
                      "base:", LineOf(base, "SEMVQ_NO_SUCH"),
                      ":65: data.streams[\"pairs\"].source.path: the "
                      "environment variable \"SEMVQ_NO_SUCH\"")),
                  HasSubstr("over:2:2: text.wordpiece.vocab: \"${x\" opens")));
}

TEST(VariablesTest, TheCacheHasDefaults) {
  ASSERT_EQ(unsetenv("SEMVQ_CACHE"), 0);
  ASSERT_EQ(unsetenv("SEMVQ_DATA"), 0);
  ASSERT_EQ(unsetenv("XDG_CACHE_HOME"), 0);
  ASSERT_EQ(setenv("HOME", "/u/me", 1), 0);
  EXPECT_EQ(GetVariable("SEMVQ_DATA"), "/u/me/.cache/semvq/data");
  ASSERT_EQ(setenv("XDG_CACHE_HOME", "/c", 1), 0);
  EXPECT_EQ(GetVariable("SEMVQ_DATA"), "/c/semvq/data");
  ASSERT_EQ(setenv("SEMVQ_CACHE", "/s", 1), 0);
  EXPECT_EQ(GetVariable("SEMVQ_DATA"), "/s/data");
  ASSERT_EQ(setenv("SEMVQ_DATA", "/d", 1), 0);
  EXPECT_EQ(GetVariable("SEMVQ_DATA"), "/d");
  EXPECT_EQ(GetVariable("SEMVQ_NO_SUCH"), absl::nullopt);
}

TEST(PathTest, LooksInBothPlacesAndNamesThem) {
  namespace fs = std::filesystem;
  const fs::path root = fs::path(::testing::TempDir()) / "lookup";
  fs::create_directories(root / "here");
  fs::create_directories(root / "configs" / "ablations");
  for (const char* name :
       {"here/mine.pbtxt", "configs/mine.pbtxt", "configs/paper.pbtxt",
        "configs/ablations/a.pbtxt"}) {
    std::ofstream(root / name) << "name: 'x'";
  }
  const std::string here = root / "here";
  const std::vector<std::string> configs = {root / "configs"};
  EXPECT_EQ(*ResolveConfigPath("mine.pbtxt", here, configs),
            here + "/mine.pbtxt");
  EXPECT_EQ(*ResolveConfigPath("paper.pbtxt", here, configs),
            configs[0] + "/paper.pbtxt");
  EXPECT_EQ(*ResolveConfigPath("ablations/a.pbtxt", here, configs),
            configs[0] + "/ablations/a.pbtxt");
  EXPECT_EQ(*ResolveConfigPath(here + "/mine.pbtxt", "/", {}),
            here + "/mine.pbtxt");
  const std::string missing = std::string(
      ResolveConfigPath("papre.pbtxt", here, configs).status().message());
  EXPECT_THAT(missing, HasSubstr(here + "/papre.pbtxt"));
  EXPECT_THAT(missing, HasSubstr(configs[0] + "/papre.pbtxt"));
  EXPECT_THAT(missing, HasSubstr("did you mean \"paper.pbtxt\"?"));
  EXPECT_FALSE(ResolveConfigPath("ablations", here, configs).ok());
  EXPECT_FALSE(ResolveConfigPath("", here, configs).ok());
  EXPECT_EQ(ReadSource(here + "/mine.pbtxt", "mine")->text, "name: 'x'");
  EXPECT_EQ(ReadSource(here + "/none").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadSource(here).ok());
}

TEST(ListTest, DescribesEveryType) {
  const std::string list = ListPlugins();
  EXPECT_THAT(list, HasSubstr("image encoder semvq.testing.ImageConfig\n"
                              "  An image encoder of the tests\n"
                              "    dim: int64 = 192\n"));
  EXPECT_THAT(list, HasSubstr("pool: FIRST | MEAN = MEAN"));
  EXPECT_THAT(list, HasSubstr("sizes: repeated int32\n"));
  EXPECT_THAT(list, HasSubstr("fusion: string = \"fusion\""));
  EXPECT_THAT(list, HasSubstr("first: any quantizer\n"));
  EXPECT_EQ(ListPlugins(Registry()), "no plugins are linked in\n");
}

}  // namespace
}  // namespace semvq
