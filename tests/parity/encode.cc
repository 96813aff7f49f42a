// Runs one encoder with weights under another project's names, and writes its
// tokens:
//   encode --encoder='config { [type.googleapis.com/...] { ... } }'
//          --weights='path: "..." key_map: "..."' --out=tokens.safetensors
// and either --in=FILE, safetensors with `pixels`, or `ids` and `mask`; or
// --texts=FILE --vocab=FILE --max_tokens=N, one text a line, for ids of our own
// tokenizer. `--unused=REGEX` allows tensors of the file that are not read;
// `--save=FILE` writes the parameters under our names, "it.*".
#include <torch/types.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/checkpoint/safetensors.h"
#include "core/config/merge.h"
#include "core/config/source.h"
#include "core/plugin/encoder.h"
#include "core/plugin/registry.h"
#include "core/text/tokenizer.h"
#include "core/util/file.h"
#include "google/protobuf/text_format.h"
#include "protos/experiment.pb.h"
#include "trainer/init_from.h"

namespace semvq {
namespace {

constexpr int64_t kBatch = 50;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "encode: %s\n", what.c_str());
  std::exit(1);
}

template <class T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) Die(std::string(value.status().message()));
  return *std::move(value);
}

class Flags {
 public:
  Flags(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::pair<std::string, std::string> flag =
          absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
      values_[flag.first] = flag.second;
    }
  }
  bool Has(const std::string& name) const {
    return values_.count("--" + name) > 0;
  }
  std::string Get(const std::string& name) const {
    const auto found = values_.find("--" + name);
    if (found == values_.end()) Die("--" + name + " is missing");
    return found->second;
  }
  template <class Message>
  Message Parse(const std::string& name) const {
    Message message;
    if (!google::protobuf::TextFormat::ParseFromString(Get(name), &message))
      Die("--" + name + " cannot be read");
    return message;
  }

 private:
  std::map<std::string, std::string> values_;
};

struct Inputs {
  at::Tensor pixels;     // Of an image encoder, or
  at::Tensor ids, mask;  // of a text encoder.
  int64_t vocab_size = 0;
};

Inputs Read(const Flags& flags) {
  Inputs inputs;
  if (flags.Has("texts")) {
    const auto tokenizer = Must(LoadWordPiece(flags.Get("vocab")));
    std::vector<std::string> texts = absl::StrSplit(
        absl::StripSuffix(Must(ReadFile(flags.Get("texts"))), "\n"), '\n');
    const PaddedTokens padded = Must(EncodePadded(
        *tokenizer, texts, std::atoll(flags.Get("max_tokens").c_str())));
    const std::vector<int64_t> shape = {padded.batch, padded.length};
    inputs.ids = at::tensor(padded.ids, at::kLong).view(shape);
    inputs.mask = at::tensor(padded.mask, at::kLong).view(shape).to(at::kBool);
    inputs.vocab_size = tokenizer->vocab_size();
    return inputs;
  }
  const auto file = Must(SafetensorsFile::Open(flags.Get("in")));
  if (file->contains("pixels")) {
    inputs.pixels = Must(file->Get("pixels"));
  } else {
    inputs.ids = Must(file->Get("ids"));
    inputs.mask = Must(file->Get("mask"));
  }
  return inputs;
}

// The encoder as part of a model, with its weights.
template <class T>
std::shared_ptr<T> Make(const Flags& flags, const EncoderConfig& encoder,
                        int64_t vocab_size) {
  PluginContext context;
  context.instance = "it";
  context.vocab_size = vocab_size;
  const auto config = Must(UnpackConfig(encoder.config()));
  auto made = Must(Registry::Global().Make<T>(*config, context));
  torch::nn::Module model;
  model.register_module("it", made);
  InitFrom init;
  WeightsImport* weights = init.add_weights();
  *weights = flags.Parse<WeightsImport>("weights");
  weights->set_name("it");
  weights->set_to("it.");
  if (flags.Has("unused")) init.add_allow_unexpected(flags.Get("unused"));
  init = Must(
      ResolveInitFrom(init, WorkingFolder(), ConfigFolders(ProgramPath())));
  std::printf("%s\n", ToString(Must(InitParameters(init, "", model))).c_str());
  if (flags.Has("save")) {
    NamedTensors parameters;
    for (const auto& p : model.named_parameters())
      parameters.emplace_back(p.key(), p.value());
    const absl::Status status = WriteSafetensors(flags.Get("save"), parameters);
    if (!status.ok()) Die(std::string(status.message()));
  }
  made->eval();
  return made;
}

int Main(int argc, char** argv) {
  const Flags flags(argc, argv);
  const Inputs inputs = Read(flags);
  const auto encoder = flags.Parse<EncoderConfig>("encoder");
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> tokens;
  NamedTensors out;
  if (inputs.pixels.defined()) {
    const auto image = Make<ImageEncoder>(flags, encoder, 0);
    for (const at::Tensor& pixels : inputs.pixels.split(kBatch))
      tokens.push_back(image->Encode({pixels, {}}).values);
  } else {
    const auto text = Make<TextEncoder>(flags, encoder, inputs.vocab_size);
    const auto ids = inputs.ids.split(kBatch), mask = inputs.mask.split(kBatch);
    for (size_t i = 0; i < ids.size(); ++i)
      tokens.push_back(text->Encode({ids[i], mask[i]}).values);
    out = {{"ids", inputs.ids}, {"mask", inputs.mask}};
  }
  out.emplace_back("tokens", at::cat(tokens));
  const absl::Status status = WriteSafetensors(flags.Get("out"), out);
  if (!status.ok()) Die(std::string(status.message()));
  return 0;
}

}  // namespace
}  // namespace semvq

int main(int argc, char** argv) try {
  return semvq::Main(argc, argv);
} catch (const std::exception& error) {
  std::fprintf(stderr, "encode: %s\n", error.what());
  return 1;
}
