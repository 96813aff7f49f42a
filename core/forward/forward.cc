#include "core/forward/forward.h"

#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace semvq {

Batch Batch::To(at::Device device, at::ScalarType dtype) const {
  Batch moved = *this;
  if (images.defined())
    moved.images = images.to(device, dtype, /*non_blocking=*/true);
  for (at::Tensor* t :
       {&moved.text_ids, &moved.text_mask, &moved.text_to_image}) {
    if (t->defined()) *t = t->to(device, /*non_blocking=*/true);
  }
  return moved;
}

std::string ToString(const ViewKey& key) {
  std::vector<std::string> parts;
  if (key.variant.teacher) parts.push_back("teacher");
  if (!key.variant.image_mask.empty())
    parts.push_back(absl::StrCat("image_mask=", key.variant.image_mask));
  if (!key.variant.text_mask.empty())
    parts.push_back(absl::StrCat("text_mask=", key.variant.text_mask));
  if (!key.pairing.empty())
    parts.push_back(absl::StrCat("pairing=", key.pairing));
  if (key.slot > 0) parts.push_back(absl::StrCat("slot=", key.slot));
  return absl::StrCat(
      key.instance, "/", key.view,
      parts.empty() ? "" : absl::StrCat("[", absl::StrJoin(parts, ", "), "]"));
}

std::any ViewProvider::ComputeView(const ViewKey& key, Forward& /*forward*/) {
  TORCH_CHECK(false, "instance \"", key.instance, "\" provides no view ",
              key.view);
}

const std::any& Forward::Compute(const ViewKey& key) {
  auto found = values_.find(key);
  if (found != values_.end()) return found->second;

  TORCH_CHECK(
      !key.variant.teacher || teacher_ != nullptr, "view ", ToString(key),
      " asks for the teacher, which is disabled (teacher { enabled: true })");
  const Providers& providers = key.variant.teacher ? *teacher_ : student_;
  auto provider = providers.find(key.instance);
  TORCH_CHECK(provider != providers.end(), "view ", ToString(key),
              ": there is no instance \"", key.instance, "\"");
  TORCH_CHECK(pending_.insert(key).second, "view ", ToString(key),
              " depends on itself");
  // Also when the provider throws: asked again, it gives its own reason again.
  const auto done = absl::MakeCleanup([&] { pending_.erase(key); });
  std::any value;
  {
    // Profilers, and --mode=plan, tell the instances apart by this.
    RECORD_USER_SCOPE(key.instance);
    // The teacher is a target: nothing flows back into it.
    c10::AutoGradMode grad(c10::GradMode::is_enabled() && !key.variant.teacher);
    value = provider->second->ComputeView(key, *this);
  }
  computed_.push_back(key);
  return values_.emplace(key, std::move(value)).first->second;
}

void Forward::ThrowWrongType(const ViewKey& key, const char* wanted) {
  TORCH_CHECK(false, "view ", ToString(key),
              " is not of the C++ type it is asked as (", wanted,
              "); see core/forward/views.h");
}

}  // namespace semvq
