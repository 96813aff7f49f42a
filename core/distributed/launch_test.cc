#include "core/distributed/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace semvq {
namespace {

using testing::HasSubstr;

Launch Parse(const EnvironmentVariables& environment) {
  const auto launch = ParseLaunch(environment);
  EXPECT_TRUE(launch.ok()) << launch.status();
  EXPECT_TRUE(launch.ok() && launch->has_value());
  return launch.ok() && launch->has_value() ? **launch : Launch();
}

void ExpectBad(const EnvironmentVariables& environment,
               const std::string& says) {
  const auto launch = ParseLaunch(environment);
  EXPECT_EQ(launch.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(launch.status().message()), HasSubstr(says));
}

EnvironmentVariables Torchrun() {
  return {{"RANK", "5"},
          {"WORLD_SIZE", "8"},
          {"LOCAL_RANK", "1"},
          {"MASTER_ADDR", "node7"},
          {"MASTER_PORT", "4711"},
          {"TORCHELASTIC_RUN_ID", "none"},
          {"TORCHELASTIC_USE_AGENT_STORE", "True"},
          {"TORCHELASTIC_RESTART_COUNT", "2"}};
}

EnvironmentVariables Slurm() {
  return {{"SLURM_PROCID", "3"},  {"SLURM_NTASKS", "4"},
          {"SLURM_LOCALID", "1"}, {"SLURM_JOB_ID", "12345"},
          {"SLURM_STEP_ID", "2"}, {"SLURM_JOB_NODELIST", "gpu[017-019,030]"}};
}

TEST(LaunchTest, AloneWithoutALauncher) {
  for (const EnvironmentVariables& environment :
       {EnvironmentVariables(),
        EnvironmentVariables{{"PATH", "/bin"}, {"MASTER_PORT", "1"}}}) {
    const auto launch = ParseLaunch(environment);
    ASSERT_TRUE(launch.ok()) << launch.status();
    EXPECT_FALSE(launch->has_value());
  }
}

TEST(LaunchTest, Torchrun) {
  EnvironmentVariables environment = Torchrun();
  Launch launch = Parse(environment);
  EXPECT_EQ(launch.launcher, "torchrun");
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.size, 8);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.host, "node7");
  EXPECT_EQ(launch.port, 4711);
  EXPECT_TRUE(launch.agent_serves);
  EXPECT_EQ(launch.restarts, 2);
  environment["TORCHELASTIC_USE_AGENT_STORE"] = "False";
  EXPECT_FALSE(Parse(environment).agent_serves);
}

TEST(LaunchTest, TheSameVariablesWithoutAnAgent) {
  const Launch launch = Parse({{"RANK", "0"},
                               {"WORLD_SIZE", "2"},
                               {"MASTER_ADDR", "127.0.0.1"},
                               {"MASTER_PORT", "2000"}});
  EXPECT_FALSE(launch.agent_serves);
  EXPECT_EQ(launch.local_rank, 0);
  EXPECT_EQ(launch.restarts, 0);
  EXPECT_EQ(Parse({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).size, 1);
}

TEST(LaunchTest, TorchrunStartedBySrunOrMpirun) {
  EnvironmentVariables environment = Torchrun();
  for (const auto& [name, value] : Slurm()) environment[name] = value;
  environment["OMPI_COMM_WORLD_RANK"] = "1";
  environment["OMPI_COMM_WORLD_SIZE"] = "2";
  EXPECT_EQ(Parse(environment).rank, 5);
}

TEST(LaunchTest, Slurm) {
  EnvironmentVariables environment = Slurm();
  Launch launch = Parse(environment);
  EXPECT_EQ(launch.launcher, "srun");
  EXPECT_EQ(launch.rank, 3);
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.host, "gpu017");
  EXPECT_GE(launch.port, 1024);
  EXPECT_LT(launch.port, 32768);
  EXPECT_FALSE(launch.agent_serves);
  // A step with fewer tasks and other nodes than its job.
  environment["SLURM_NTASKS"] = "16";
  environment["SLURM_STEP_NUM_TASKS"] = "4";
  environment["SLURM_STEP_NODELIST"] = "gpu030";
  launch = Parse(environment);
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.host, "gpu030");
  environment["MASTER_ADDR"] = "10.0.0.1";
  environment["MASTER_PORT"] = "999";
  launch = Parse(environment);
  EXPECT_EQ(launch.host, "10.0.0.1");
  EXPECT_EQ(launch.port, 999);
}

// The variables of the allocation are there, and nobody else will come.
TEST(LaunchTest, ABatchScriptOrShellOfSlurmIsAlone) {
  EnvironmentVariables environment = Slurm();
  for (const char* step : {"", "4294967291", "4294967290"}) {
    environment["SLURM_STEP_ID"] = step;
    const auto launch = ParseLaunch(environment);
    ASSERT_TRUE(launch.ok()) << launch.status();
    EXPECT_FALSE(launch->has_value()) << step;
  }
}

TEST(LaunchTest, OpenMpi) {
  EnvironmentVariables environment = {{"OMPI_COMM_WORLD_RANK", "1"},
                                      {"OMPI_COMM_WORLD_SIZE", "2"},
                                      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
  Launch launch = Parse(environment);
  EXPECT_EQ(launch.rank, 1);
  EXPECT_EQ(launch.size, 2);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.host, "127.0.0.1");
  // Under Slurm, whose variables are of mpirun's own helpers.
  for (const auto& [name, value] : Slurm()) environment[name] = value;
  EXPECT_EQ(Parse(environment).size, 2);
  environment["OMPI_COMM_WORLD_LOCAL_SIZE"] = "1";
  ExpectBad(environment, "mpirun -x MASTER_ADDR");
  environment["MASTER_ADDR"] = "node1";
  EXPECT_EQ(Parse(environment).host, "node1");
}

TEST(LaunchTest, Pmi) {
  const Launch launch = Parse({{"PMI_RANK", "2"},
                               {"PMI_SIZE", "3"},
                               {"MPI_LOCALRANKID", "2"},
                               {"MPI_LOCALNRANKS", "3"}});
  EXPECT_EQ(launch.rank, 2);
  EXPECT_EQ(launch.size, 3);
  EXPECT_EQ(launch.local_rank, 2);
}

TEST(LaunchTest, SaysWhatIsWrong) {
  ExpectBad({{"RANK", "0"}}, "RANK is set and WORLD_SIZE is not");
  ExpectBad({{"WORLD_SIZE", "2"}}, "WORLD_SIZE is set and RANK is not");
  ExpectBad({{"PMI_SIZE", "2"}}, "PMI_SIZE is set and PMI_RANK is not");
  ExpectBad({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "2000"}},
            "MASTER_ADDR is not set");
  ExpectBad({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}},
            "MASTER_PORT is not set");
  EnvironmentVariables environment = Torchrun();
  environment["RANK"] = "8";
  ExpectBad(environment, "RANK is \"8\", expected a whole number from 0 to 7");
  environment = Torchrun();
  environment["WORLD_SIZE"] = "many";
  ExpectBad(environment, "WORLD_SIZE is \"many\"");
  environment = Torchrun();
  environment["MASTER_PORT"] = "70000";
  ExpectBad(environment, "MASTER_PORT is \"70000\"");
  environment = Torchrun();
  environment["TORCHELASTIC_USE_AGENT_STORE"] = "yes";
  ExpectBad(environment, "expected True or False");
  environment = Torchrun();
  environment["LOCAL_RANK"] = "-1";
  ExpectBad(environment, "LOCAL_RANK is \"-1\"");
  ExpectBad({{"RANK", "1"},
             {"WORLD_SIZE", "2"},
             {"MASTER_ADDR", "a"},
             {"MASTER_PORT", "1"},
             {"OMPI_COMM_WORLD_RANK", "1"},
             {"OMPI_COMM_WORLD_SIZE", "4"}},
            "contradict each other: RANK=1 and WORLD_SIZE=2");
  environment = Slurm();
  environment["SLURM_JOB_NODELIST"] = "gpu[017-019";
  ExpectBad(environment, "SLURM_JOB_NODELIST");
}

TEST(LaunchTest, FirstHostOfANodeList) {
  for (const auto& [list, host] :
       std::vector<std::pair<std::string, std::string>>{
           {"a", "a"},
           {"a1,b2", "a1"},
           {"n[3,5]", "n3"},
           {"n[008-011]", "n008"},
           {"rack[2-3]n[01-16]-ib,x", "rack2n01-ib"}}) {
    const auto first = FirstHost(list);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(*first, host);
  }
  for (const char* list : {"", ",a", "n[", "n[]", "n]"}) {
    EXPECT_FALSE(FirstHost(list).ok()) << list;
  }
}

TEST(LaunchTest, NamesRanks) {
  EXPECT_EQ(RankNames({3}), "rank 3");
  EXPECT_EQ(RankNames({0, 1}), "ranks 0, 1");
  EXPECT_EQ(RankNames({0, 4, 5, 6, 9}), "ranks 0, 4-6, 9");
}

}  // namespace
}  // namespace semvq
