#include <torch/types.h>

#include "absl/strings/str_cat.h"
#include "core/forward/testing.h"
#include "core/plugin/context.h"
#include "core/plugin/contract.h"
#include "core/plugin/objective.h"
#include "objectives/itc/config.pb.h"
#include "objectives/itc/itc.h"
#include "objectives/itm/config.pb.h"
#include "objectives/itm/itm.h"
#include "objectives/mlm/config.pb.h"
#include "objectives/mlm/mlm.h"
#include "tests/golden/cases.h"

namespace semvq {
namespace {

// Reads inputs that must be there; `status` keeps the first that is not.
class Reader {
 public:
  Reader(const Tensors& in, std::string prefix)
      : in_(in), prefix_(std::move(prefix)) {}
  at::Tensor operator()(const std::string& name) {
    auto tensor = Input(in_, prefix_ + name);
    if (tensor.ok()) return *tensor;
    if (status_.ok()) status_ = tensor.status();
    return at::zeros({1, 1, 1}, at::kDouble);
  }
  double Number(const std::string& name, int64_t index) {
    const at::Tensor row = (*this)(name).to(at::kDouble).flatten();
    return index < row.numel() ? row[index].item<double>() : 0.0;
  }
  const absl::Status& status() const { return status_; }

 private:
  const Tensors& in_;
  std::string prefix_;
  absl::Status status_;
};

at::Tensor Leaf(const at::Tensor& x) {
  return x.to(at::kDouble).clone().requires_grad_(true);
}

// Copies <prefix><name> into every parameter, in float64.
absl::Status FillParameters(const Tensors& in, const std::string& prefix,
                            Objective& objective) {
  c10::NoGradGuard no_grad;
  objective.to(at::kDouble);
  for (const auto& p : objective.named_parameters()) {
    auto value = Input(in, prefix + p.key());
    if (!value.ok()) return value.status();
    at::Tensor target = p.value();
    TORCH_CHECK(value->sizes() == target.sizes(), prefix, p.key(), ": got ",
                value->sizes(), ", expected ", target.sizes());
    target.copy_(*value);
  }
  return absl::OkStatus();
}

void AddGradients(const std::string& prefix, Objective& objective,
                  Tensors* out) {
  for (const auto& p : objective.named_parameters()) {
    (*out)[prefix + p.key()] = p.value().grad().defined()
                                   ? p.value().grad().clone()
                                   : at::zeros_like(p.value());
    at::Tensor parameter = p.value();
    parameter.mutable_grad() = at::Tensor();
  }
}

Tokens TokensOf(const at::Tensor& values) {
  Tokens tokens;
  tokens.values = values;
  tokens.has_cls = true;
  return tokens;
}

Batch BatchOf(const at::Tensor& ids, const at::Tensor& text_to_image) {
  Batch batch;
  batch.text_to_image = text_to_image;
  batch.text_ids = at::zeros({text_to_image.size(0), 1}, at::kLong);
  for (int64_t i = 0; i < ids.size(0); ++i) {
    batch.image_ids.push_back(absl::StrCat(ids[i].item<int64_t>()));
    batch.sample_numbers.push_back(i);
  }
  return batch;
}

ContractBook BookOf(const std::string& instance, const std::string& view,
                    int64_t dim) {
  ContractBook book;
  Contract contract;
  contract.provides = {{view, dim}};
  book.Add(instance, contract);
  return book;
}

Variant Teacher() {
  Variant variant;
  variant.teacher = true;
  return variant;
}

}  // namespace

absl::StatusOr<Tensors> RunItc(const Tensors& in) {
  Reader get(in, "");
  const int64_t queue = get("image_queue").size(0);
  ItcConfig config;
  config.set_dim(get("image_queue").size(1));
  config.set_queue_size(queue);
  config.set_alpha(get.Number("settings", 0));
  config.set_alpha_ramp_steps(static_cast<int64_t>(get.Number("settings", 1)));
  const auto first_step = static_cast<int64_t>(get.Number("settings", 2));
  ContractBook book =
      BookOf("image", kTokens, get("param/image_proj.weight").size(1));
  Contract text;
  text.provides = {{kTokens, get("param/text_proj.weight").size(1)}};
  book.Add("text", text);
  if (!get.status().ok()) return get.status();
  PluginContext context;
  context.instance = "itc";
  context.book = &book;
  auto student = MakeItc(config, context), teacher = MakeItc(config, context);
  for (const auto* made : {&student, &teacher}) {
    if (!made->ok()) return made->status();
  }
  absl::Status status = FillParameters(in, "param/", **student);
  if (status.ok()) status = FillParameters(in, "teacher/", **teacher);
  if (!status.ok()) return status;
  {
    c10::NoGradGuard no_grad;
    for (const char* name : {"image_queue", "text_queue"}) {
      (*student)->named_buffers()[name].copy_(get(name));
    }
  }

  Tensors out;
  for (int64_t s = 0; in.count(absl::StrCat(s, "/image")) > 0; ++s) {
    const std::string prefix = absl::StrCat(s, "/");
    Reader of_step(in, prefix);
    const Batch batch = BatchOf(of_step("ids"), of_step("text_to_image"));
    TestForward forward(batch, /*with_teacher=*/true,
                        {/*training=*/true, /*seed=*/1, first_step + s});
    forward.student["itc"] = student->get();
    forward.teacher["itc"] = teacher->get();
    const at::Tensor image = Leaf(of_step("image")),
                     words = Leaf(of_step("text"));
    forward->Set(ImageKey("image", kTokens), TokensOf(image));
    forward->Set(TextKey("text", kTokens), TokensOf(words));
    forward->Set(ImageKey("image", kTokens, Teacher()),
                 TokensOf(of_step("teacher_image").to(at::kDouble)));
    forward->Set(TextKey("text", kTokens, Teacher()),
                 TokensOf(of_step("teacher_text").to(at::kDouble)));
    if (!of_step.status().ok()) return of_step.status();

    const at::Tensor loss = SumOf((*student)->Compute(*forward).losses);
    loss.backward();
    out[prefix + "loss"] = loss.detach();
    out[prefix + "grad/image"] = image.grad();
    out[prefix + "grad/text"] = words.grad();
    AddGradients(prefix + "grad/", **student, &out);
    (*student)->AfterStep();
    for (const char* name : {"image_queue", "text_queue"}) {
      out[prefix + name] = (*student)->named_buffers()[name].clone();
    }
    out[prefix + "temperature"] =
        (*student)->named_parameters()["temperature"].detach().clone();
  }
  return out;
}

absl::StatusOr<Tensors> RunItm(const Tensors& in) {
  Reader get(in, "");
  const at::Tensor fused = Leaf(get("fused"));
  const Batch batch = BatchOf(get("ids"), get("text_to_image"));
  const Pairing pairing{get("text_index"), get("image_index")};
  if (!get.status().ok()) return get.status();
  const ContractBook book = BookOf("fusion", kFused, fused.size(2));
  PluginContext context;
  context.instance = "itm";
  context.book = &book;
  auto itm = MakeItm(ItmConfig(), context);
  if (!itm.ok()) return itm.status();
  absl::Status status = FillParameters(in, "param/", **itm);
  if (!status.ok()) return status;

  TestForward forward(batch);
  forward.student["itm"] = itm->get();
  forward->Set(ViewKey{"itm", kPairing, Variant{}, 0, ""}, pairing);
  forward->Set(FusedKey("fusion", kFused, Variant{}, "itm"), TokensOf(fused));
  const at::Tensor loss = SumOf((*itm)->Compute(*forward).losses);
  loss.backward();
  Tensors out = {{"loss", loss.detach()}, {"grad/fused", fused.grad()}};
  AddGradients("grad/", **itm, &out);
  return out;
}

absl::StatusOr<Tensors> RunMlm(const Tensors& in) {
  Reader get(in, "");
  const at::Tensor fused = Leaf(get("fused"));
  MlmConfig config;
  config.set_alpha(get.Number("settings", 0));
  config.set_alpha_ramp_steps(static_cast<int64_t>(get.Number("settings", 1)));
  const auto step = static_cast<int64_t>(get.Number("settings", 2));
  TextMask mask;
  mask.positions = get("positions");
  mask.targets = get("targets");
  mask.valid = get("valid").to(at::kBool);
  const at::Tensor teacher_fused = get("teacher_fused").to(at::kDouble);
  const at::Tensor decoder = get("param/decoder.weight");
  if (!get.status().ok()) return get.status();

  auto tokenizer = SizedTokenizer(decoder.size(0));
  if (!tokenizer.ok()) return tokenizer.status();
  const ContractBook book = BookOf("fusion", kFused, fused.size(2));
  PluginContext context;
  context.instance = "mlm";
  context.book = &book;
  context.tokenizer = tokenizer->get();
  context.vocab_size = decoder.size(0);
  auto student = MakeMlm(config, context), teacher = MakeMlm(config, context);
  for (const auto* made : {&student, &teacher}) {
    if (!made->ok()) return made->status();
  }
  absl::Status status = FillParameters(in, "param/", **student);
  if (status.ok()) status = FillParameters(in, "teacher/", **teacher);
  if (!status.ok()) return status;

  TestForward forward(Batch(), /*with_teacher=*/true, {true, 1, step});
  forward.student["mlm"] = student->get();
  forward.teacher["mlm"] = teacher->get();
  Variant masked, masked_teacher = Teacher();
  masked.text_mask = masked_teacher.text_mask = "mlm";
  forward->Set(TextKey("mlm", kTextMask), mask);
  forward->Set(FusedKey("fusion", kFused, masked), TokensOf(fused));
  forward->Set(FusedKey("fusion", kFused, masked_teacher),
               TokensOf(teacher_fused));
  const at::Tensor loss = SumOf((*student)->Compute(*forward).losses);
  loss.backward();
  Tensors out = {{"loss", loss.detach()}, {"grad/fused", fused.grad()}};
  AddGradients("grad/", **student, &out);
  return out;
}

}  // namespace semvq
