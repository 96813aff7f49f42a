#include "tools/report/tables.h"

#include "core/util/file.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

StageResult Stage(double recall) {
  StageResult stage;
  stage.set_stage("pretrain");
  TaskSummary* task = stage.add_tasks();
  task->set_name("unseen");
  Metric* metric = task->add_metrics();
  metric->set_name("TR R@1");
  metric->set_unit("%");
  metric->set_value(recall);
  metric->set_chance(0.5);
  metric->set_headline(true);
  return stage;
}

TEST(TablesTest, MeanAndSampleDeviation) {
  const auto table = SeedsTable({{Stage(10)}, {Stage(12)}, {Stage(14)}});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_NE(table->find("| unseen | TR R@1 | 0.500 ± 0.000 % | 12.0 ± 2.0 % |"),
            std::string::npos)
      << *table;
}

TEST(TablesTest, RunsMustHaveTheSameMetrics) {
  StageResult other = Stage(1);
  other.mutable_tasks(0)->mutable_metrics(0)->set_name("IR R@1");
  EXPECT_FALSE(SeedsTable({{Stage(1)}, {other}}).ok());
}

TEST(TablesTest, ArmsStandSideBySide) {
  StageResult other = Stage(5);
  other.mutable_tasks(0)->mutable_metrics(0)->set_name("IR R@1");
  const auto table =
      ArmsTable({{"base", {{Stage(10)}, {Stage(12)}}}, {"other", {{other}}}});
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->find("| Task | Metric | base | other |\n"), 0u) << *table;
  EXPECT_NE(table->find("| unseen | TR R@1 | 11.0 ± 1.4 % | - |"),
            std::string::npos)
      << *table;
  EXPECT_NE(table->find("| IR R@1 | - | 5.0 % |"), std::string::npos) << *table;
}

TEST(TablesTest, TheTasksAloneStandBesideChance) {
  StageResult trained = Stage(10);
  LoggedValue* value = trained.add_values();
  value->set_name("itc/i2t_top1");
  value->set_last(0.5);
  StageResult other = Stage(5);
  other.mutable_tasks(0)->mutable_metrics(0)->clear_chance();
  other.mutable_tasks(0)->mutable_metrics(0)->set_name("IR R@1");
  const std::vector<Arm> arms = {{"base", {{trained}}}, {"other", {{other}}}};
  const auto table = ArmsTable(arms, /*tasks_only=*/true);
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(*table,
            "| Task | Metric | Chance | base | other |\n"
            "|---|---|---|---|---|\n"
            "| unseen | TR R@1 | 0.500 % | 10.0 % | - |\n"
            "|  | IR R@1 |  | - | 5.0 % |\n");
  const auto all = ArmsTable(arms);
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_NE(all->find("i2t_top1"), std::string::npos) << *all;
}

TEST(TablesTest, AnArmsRunsMustHaveTheSameMetrics) {
  StageResult other = Stage(1);
  other.mutable_tasks(0)->mutable_metrics(0)->set_name("IR R@1");
  const auto table = ArmsTable({{"mixed", {{Stage(1)}, {other}}}});
  ASSERT_FALSE(table.ok());
  EXPECT_NE(table.status().message().find("arm mixed"), std::string::npos);
}

TEST(TablesTest, ReadsARunFolder) {
  const std::string folder = JoinPath(::testing::TempDir(), "seeds_run");
  ASSERT_TRUE(MakeDirectories(JoinPath(folder, "pretrain")).ok());
  EXPECT_FALSE(ReadRun(folder).ok());
  ASSERT_TRUE(AtomicWriteFile(JoinPath(folder, "pretrain/result.pbtxt"),
                              Stage(3).DebugString())
                  .ok());
  const auto run = ReadRun(folder);
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_EQ(run->size(), 1u);
  EXPECT_EQ((*run)[0].tasks(0).metrics(0).value(), 3);
}

}  // namespace
}  // namespace semvq
