#include "data/sources/mixture/mixture.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/plugin/field_errors.h"
#include "core/plugin/nested.h"
#include "core/plugin/registry.h"

namespace semvq {
namespace {

std::string FieldOf(int i) { return absl::StrCat("sources[", i, "]"); }

class MixtureSource : public DataSource {
 public:
  void Add(std::shared_ptr<const DataSource> source, double weight) {
    begins_.push_back(begins_.back() + source->size());
    sources_.push_back(std::move(source));
    weights_.push_back(weight);
  }

  int64_t size() const override { return begins_.back(); }

  absl::StatusOr<Sample> Read(int64_t index) const override {
    if (index < 0 || index >= size()) {
      return absl::OutOfRangeError(
          absl::StrCat("sample ", index, " of ", size(), " does not exist"));
    }
    const size_t s = std::upper_bound(begins_.begin(), begins_.end(), index) -
                     begins_.begin() - 1;
    absl::StatusOr<Sample> sample = sources_[s]->Read(index - begins_[s]);
    // Numbers and names of one data set mean other images in another.
    if (sample.ok()) sample->image_id = absl::StrCat(s, "/", sample->image_id);
    return sample;
  }

  // A mixture in a mixture shares its weight out.
  std::vector<SourcePart> Parts() const override {
    std::vector<SourcePart> parts;
    for (size_t s = 0; s < sources_.size(); ++s) {
      std::vector<SourcePart> inner = sources_[s]->Parts();
      double sum = 0;
      for (const SourcePart& part : inner) sum += part.weight;
      for (SourcePart& part : inner) {
        part.begin += begins_[s];
        part.weight *= weights_[s] / sum;
        parts.push_back(std::move(part));
      }
    }
    return parts;
  }

 private:
  std::vector<std::shared_ptr<const DataSource>> sources_;
  std::vector<int64_t> begins_{0};
  std::vector<double> weights_;
};

}  // namespace

absl::Status ValidateMixture(const MixtureConfig& config) {
  FieldErrors errors;
  errors.Require(config.sources_size() > 0, "sources", "none",
                 "at least one data source");
  double sum = 0;
  int weights = 0;
  for (const MixtureConfig::Part& part : config.sources()) {
    sum += part.weight();
    weights += part.has_weight() ? 1 : 0;
  }
  errors.Require(weights == 0 || weights == config.sources_size(), "sources",
                 absl::StrCat(weights, " weights"),
                 "a weight for each source, or for none");
  for (int i = 0; i < config.sources_size(); ++i) {
    const MixtureConfig::Part& part = config.sources(i);
    const std::string field = FieldOf(i);
    errors.Require(!part.source().type_url().empty(), field + ".source",
                   "nothing", "a data source");
    if (!part.has_weight()) continue;
    errors.RequirePositive(field + ".weight", part.weight());
    errors.Require(part.weight() <= 0 || part.weight() * 2000 >= sum,
                   field + ".weight", part.weight(),
                   absl::StrCat("at least one in 2,000 of the sum, ", sum));
  }
  return errors.status();
}

Contract MixtureContract(const std::string& instance,
                         const MixtureConfig& config,
                         const ContractBook& book) {
  Contract contract;
  for (int i = 0; i < config.sources_size(); ++i) {
    absl::StatusOr<UnpackedPlugin> inner =
        UnpackPlugin(config.sources(i).source(), PluginKind::kDataSource);
    if (!inner.ok()) continue;  // The checker says so.
    AddNestedNeeds(absl::StrCat(FieldOf(i), ".source"),
                   inner->type->contract(instance, *inner->config, book),
                   &contract);
  }
  return contract;
}

absl::StatusOr<std::shared_ptr<DataSource>> MakeMixture(
    const MixtureConfig& config, const PluginContext& context) {
  auto mixture = std::make_shared<MixtureSource>();
  for (int i = 0; i < config.sources_size(); ++i) {
    const MixtureConfig::Part& part = config.sources(i);
    absl::StatusOr<UnpackedPlugin> inner =
        UnpackPlugin(part.source(), PluginKind::kDataSource);
    if (!inner.ok()) return inner.status();
    absl::StatusOr<std::shared_ptr<DataSource>> source =
        Registry::Global().Make<DataSource>(*inner->config, context);
    if (!source.ok()) {
      return absl::Status(
          source.status().code(),
          absl::StrCat(FieldOf(i), ": ", source.status().message()));
    }
    if ((*source)->size() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(FieldOf(i), ": has no samples; leave it out"));
    }
    mixture->Add(*source, part.has_weight()
                              ? part.weight()
                              : static_cast<double>((*source)->size()));
  }
  return std::shared_ptr<DataSource>(std::move(mixture));
}

}  // namespace semvq
