#include "data/sources/mixture/mixture.h"

#include <google/protobuf/wrappers.pb.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "core/plugin/registry.h"
#include "data/sampler.h"

namespace semvq {
namespace {

// A source of so many samples.
using Numbers = google::protobuf::Int64Value;

class NumberSource : public DataSource {
 public:
  explicit NumberSource(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  absl::StatusOr<Sample> Read(int64_t index) const override {
    if (index == 3) return absl::InvalidArgumentError("numbers: record 3: bad");
    Sample sample;
    sample.image_id = absl::StrCat(index);
    sample.image_paths = {"x"};
    sample.texts.resize(1);
    sample.texts[0].text = absl::StrCat(index, " of ", size_);
    return sample;
  }

 private:
  const int64_t size_;
};

absl::StatusOr<std::shared_ptr<DataSource>> MakeNumbers(const Numbers& config,
                                                        const PluginContext&) {
  if (config.value() < 0) return absl::NotFoundError("no such file");
  return std::shared_ptr<DataSource>(
      std::make_shared<NumberSource>(config.value()));
}

absl::Status ValidateNumbers(const Numbers&) { return absl::OkStatus(); }

Contract NumbersContract(const std::string&, const Numbers& config,
                         const ContractBook&) {
  Contract contract;
  contract.files.push_back({"path", absl::StrCat(config.value()), "numbers"});
  return contract;
}

SEMVQ_REGISTER(DataSource, Numbers, MakeNumbers, ValidateNumbers,
               NumbersContract);

void Add(int64_t size, double weight, MixtureConfig* config) {
  Numbers numbers;
  numbers.set_value(size);
  MixtureConfig::Part* part = config->add_sources();
  part->mutable_source()->PackFrom(numbers);
  if (weight > 0) part->set_weight(weight);
}

void ExpectPart(const absl::Status& status, const std::string& part) {
  EXPECT_FALSE(status.ok()) << "expected an error with: " << part;
  EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
      << status;
}

std::shared_ptr<DataSource> Must(const MixtureConfig& config) {
  EXPECT_TRUE(ValidateMixture(config).ok()) << ValidateMixture(config);
  auto source = MakeMixture(config, PluginContext());
  EXPECT_TRUE(source.ok()) << source.status();
  return source.ok() ? *source : nullptr;
}

TEST(Mixture, HasTheSamplesOfAll) {
  MixtureConfig config;
  Add(5, 1, &config);
  Add(7, 3, &config);
  auto source = Must(config);
  ASSERT_NE(source, nullptr);
  ASSERT_EQ(source->size(), 12);
  EXPECT_EQ(source->Read(4)->texts[0].text, "4 of 5");
  EXPECT_EQ(source->Read(5)->texts[0].text, "0 of 7");
  EXPECT_EQ(source->Read(11)->texts[0].text, "6 of 7");
  // Number 2 of one is not number 2 of the other.
  EXPECT_EQ(source->Read(2)->image_id, "0/2");
  EXPECT_EQ(source->Read(7)->image_id, "1/2");
  ExpectPart(source->Read(8).status(), "numbers: record 3: bad");
  EXPECT_EQ(source->Read(12).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(source->Read(-1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(Mixture, IsDrawnByWeight) {
  MixtureConfig config;
  Add(50, 1, &config);
  Add(5000, 4, &config);
  absl::StatusOr<Sampler> sampler =
      Sampler::Create(Must(config)->Parts(), 10, 7);
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  int small = 0;
  for (int64_t n = 0; n < 3000; ++n) small += sampler->Index(n) < 50;
  EXPECT_EQ(small, 600);
}

TEST(Mixture, WithoutWeightsItIsOneDataSet) {
  MixtureConfig config;
  Add(100, 0, &config);
  Add(300, 0, &config);
  const auto parts = Must(config)->Parts();
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].weight * 3, parts[1].weight);
  EXPECT_EQ(parts[1].begin, 100);
}

TEST(Mixture, OfMixtures) {
  MixtureConfig inner, outer;
  Add(10, 1, &inner);
  Add(20, 3, &inner);
  Add(40, 2, &outer);
  outer.add_sources()->mutable_source()->PackFrom(inner);
  outer.mutable_sources(1)->set_weight(2);
  auto source = Must(outer);
  const auto parts = source->Parts();
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].weight, 2);
  EXPECT_EQ(parts[1].weight, 0.5);
  EXPECT_EQ(parts[2].weight, 1.5);
  EXPECT_EQ(parts[2].begin, 50);
  EXPECT_EQ(source->Read(50)->texts[0].text, "0 of 20");
}

TEST(Mixture, Validate) {
  MixtureConfig config;
  ExpectPart(ValidateMixture(config), "sources: got none");
  config.add_sources();
  ExpectPart(ValidateMixture(config), "sources[0].source: got nothing");
  config.Clear();
  Add(5, 1, &config);
  Add(5, 0, &config);
  ExpectPart(ValidateMixture(config), "sources: got 1 weights");
  config.mutable_sources(1)->set_weight(-1);
  ExpectPart(ValidateMixture(config), "sources[1].weight: got -1");
  config.mutable_sources(1)->set_weight(0.0001);
  ExpectPart(ValidateMixture(config), "sources[1].weight: got 0.0001");
}

TEST(Mixture, ErrorsNameTheSource) {
  MixtureConfig config;
  Add(5, 1, &config);
  Add(-1, 1, &config);
  ExpectPart(MakeMixture(config, PluginContext()).status(),
             "sources[1]: no such file");
  config.Clear();
  Add(0, 1, &config);
  ExpectPart(MakeMixture(config, PluginContext()).status(),
             "sources[0]: has no samples");
}

TEST(Mixture, WantsTheFilesOfAll) {
  MixtureConfig config;
  Add(5, 1, &config);
  Add(6, 1, &config);
  const Contract contract = MixtureContract("x", config, ContractBook());
  ASSERT_EQ(contract.files.size(), 2u);
  EXPECT_EQ(contract.files[1].field, "sources[1].source.path");
  EXPECT_EQ(contract.files[1].path, "6");
}

}  // namespace
}  // namespace semvq
