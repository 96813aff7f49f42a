#include "trainer/model.h"

#include <ATen/Context.h>
#include <torch/types.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "core/config/merge.h"
#include "core/plugin/context.h"
#include "core/plugin/registry.h"
#include "core/random/stream.h"
#include "core/text/tokenizer.h"

namespace semvq {
namespace {

// Builds instances with everything that a factory needs.
class Builder {
 public:
  Builder(const Experiment& experiment, const ContractBook& book,
          const Tokenizer* tokenizer, bool planning) {
    context_.planning = planning;
    context_.seed = experiment.seed();
    context_.book = &book;
    context_.tokenizer = tokenizer;
    context_.vocab_size = tokenizer == nullptr ? 0 : tokenizer->vocab_size();
  }

  template <class T>
  absl::StatusOr<std::shared_ptr<T>> Make(const std::string& instance,
                                          const google::protobuf::Any& any) {
    auto config = UnpackConfig(any);
    if (!config.ok()) return config.status();
    SeedFor(instance);
    context_.instance = instance;
    auto made = Registry::Global().Make<T>(**config, context_);
    if (!made.ok()) {
      return absl::Status(made.status().code(),
                          absl::StrCat("building \"", instance,
                                       "\": ", made.status().message()));
    }
    return made;
  }

  void SeedFor(const std::string& instance) {
    // The generator is global; instances are built one after the other.
    at::manual_seed(StreamKey(context_.seed, absl::StrCat("init/", instance)));
  }

 private:
  PluginContext context_;
};

}  // namespace

double Model::QuantizerEntry::LossWeight(const std::string& loss) const {
  for (const NamedWeight& w : config.loss_weights()) {
    if (w.name() == loss) return w.weight();
  }
  return 1.0;
}

double Model::ObjectiveEntry::Weight(int64_t step) const {
  if (config.ramp_steps() <= 0) return config.weight();
  return config.weight() *
         std::min(1.0, static_cast<double>(step) /
                           static_cast<double>(config.ramp_steps()));
}

absl::StatusOr<std::shared_ptr<Model>> Model::Compose(
    const Experiment& experiment, const ContractBook& book,
    const Tokenizer* tokenizer, bool planning) {
  auto model = std::make_shared<Model>();
  Builder builder(experiment, book, tokenizer, planning);

  for (const EncoderConfig& entry : experiment.encoders()) {
    const std::string& name = entry.name();
    std::unique_ptr<ViewProvider> adapter;
    const PluginType* type = PluginTypeOf(entry.config());
    switch (type == nullptr ? PluginKind::kDataSource : type->kind) {
      case PluginKind::kImageEncoder: {
        auto made = builder.Make<ImageEncoder>(name, entry.config());
        if (!made.ok()) return made.status();
        model->register_module(name, *made);
        adapter =
            std::make_unique<ImageEncoderViews>(*made, entry.blank_input());
        model->encoders_.push_back(name);
        break;
      }
      case PluginKind::kTextEncoder: {
        auto made = builder.Make<TextEncoder>(name, entry.config());
        if (!made.ok()) return made.status();
        model->register_module(name, *made);
        adapter =
            std::make_unique<TextEncoderViews>(*made, entry.blank_input());
        model->encoders_.push_back(name);
        break;
      }
      default: {
        auto made = builder.Make<FusionEncoder>(name, entry.config());
        if (!made.ok()) return made.status();
        model->register_module(name, *made);
        std::string text, visual;
        for (const NeededView& need : book.Find(name)->needs) {
          if (need.field == "text") text = need.instance;
          if (need.field == "visual") visual = need.instance;
        }
        adapter = std::make_unique<FusionEncoderViews>(*made, text, visual);
      }
    }
    model->providers_[name] = adapter.get();
    model->adapters_.push_back(std::move(adapter));
    if (entry.frozen()) model->Freeze(name);
  }

  for (const QuantizerConfig& entry : experiment.quantizers()) {
    auto made = builder.Make<Quantizer>(entry.name(), entry.config());
    if (!made.ok()) return made.status();
    builder.SeedFor(absl::StrCat(entry.name(), "/projection"));
    auto views = std::make_shared<QuantizerViews>(
        *made, entry, book.Dim(entry.input(), kTokens));
    model->register_module(entry.name(), views);
    model->providers_[entry.name()] = views.get();
    model->quantizers_.push_back({entry.name(), views, entry});
  }

  if (book.Find(kVisual) != nullptr) {
    builder.SeedFor(kVisual);
    const VisualTokens& config = experiment.visual_tokens();
    auto visual = std::make_shared<VisualTokensViews>(
        config, book.Dim(config.encoder(), kTokens));
    model->register_module(kVisual, visual);
    model->providers_[kVisual] = visual.get();
  }

  for (const ObjectiveConfig& entry : experiment.objectives()) {
    auto made = builder.Make<Objective>(entry.name(), entry.config());
    if (!made.ok()) return made.status();
    model->register_module(entry.name(), *made);
    model->providers_[entry.name()] = made->get();
    model->objectives_.push_back({entry.name(), *made, entry});
  }
  for (const TaskConfig& entry : experiment.tasks()) {
    auto made = builder.Make<Task>(entry.name(), entry.config());
    if (!made.ok()) return made.status();
    if (entry.fine_tune() && !(*made)->can_fine_tune()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tasks[\"", entry.name(), "\"].fine_tune is true, but ",
                       entry.config().type_url(),
                       " can only be evaluated; remove fine_tune"));
    }
    model->register_module(entry.name(), *made);
    model->providers_[entry.name()] = made->get();
    model->tasks_.push_back({entry.name(), *made, entry});
  }
  return model;
}

void Model::Freeze(const std::string& encoder) {
  frozen_.push_back(named_children()[encoder]);
  for (at::Tensor& parameter : frozen_.back()->parameters())
    parameter.requires_grad_(false);
  frozen_.back()->eval();
}

void Model::train(bool on) {
  Module::train(on);
  for (const auto& module : frozen_) module->eval();
}

void CopyState(const torch::nn::Module& from, torch::nn::Module& to) {
  c10::NoGradGuard no_grad;
  const auto copy = [](auto source, auto target) {
    for (auto& item : target) {
      const at::Tensor* found = source.find(item.key());
      TORCH_CHECK(found != nullptr, "no tensor ", item.key(), " to copy from");
      item.value().copy_(*found);
    }
  };
  copy(from.named_parameters(), to.named_parameters());
  copy(from.named_buffers(), to.named_buffers());
}

}  // namespace semvq
