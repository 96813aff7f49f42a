#include "core/forward/forward.h"

#include <torch/types.h>

#include <any>
#include <functional>
#include <string>
#include <vector>

#include "core/forward/testing.h"
#include "core/forward/testing_eval.h"
#include "gtest/gtest.h"

namespace semvq {
namespace {

// What the error says; "" when there is none.
std::string ErrorOf(const std::function<void()>& f) {
  try {
    f();
  } catch (const c10::Error& e) {
    return e.what_without_backtrace();
  }
  return "";
}

std::vector<std::string> Names(const std::vector<ViewKey>& keys) {
  std::vector<std::string> names;
  for (const ViewKey& key : keys) names.push_back(ToString(key));
  return names;
}

// kTokens as the number of the call.
FakeProvider Counter() {
  auto calls = std::make_shared<int>(0);
  return FakeProvider(
      [calls](const ViewKey&, Forward&) -> std::any { return ++*calls; });
}

TEST(ForwardTest, ComputesAViewOnce) {
  TestForward forward(TestBatch());
  FakeProvider provider = Counter();
  forward.student["a"] = &provider;
  EXPECT_EQ(forward->Get<int>(ImageKey("a", kTokens)), 1);
  EXPECT_EQ(forward->Get<int>(ImageKey("a", kTokens)), 1);
  EXPECT_EQ(provider.asked.size(), 1u);
}

TEST(ForwardTest, ComputesNothingThatNobodyAsksFor) {
  TestForward forward(TestBatch());
  FakeProvider a = Counter(), b = Counter();
  forward.student = {{"a", &a}, {"b", &b}};
  EXPECT_TRUE(a.asked.empty());
  forward->Get<int>(ImageKey("a", kTokens));
  EXPECT_TRUE(b.asked.empty());
  EXPECT_FALSE(forward->Has(ImageKey("b", kTokens)));
}

TEST(ForwardTest, EveryPartOfTheKeyMakesAViewOfItsOwn) {
  TestForward forward(TestBatch());
  FakeProvider provider = Counter();
  forward.student["a"] = &provider;
  Variant image_masked, text_masked;
  image_masked.image_mask = "mim";
  text_masked.text_mask = "mlm";
  const std::vector<ViewKey> keys = {
      ImageKey("a", kTokens),
      ImageKey("a", kQuantized),
      ImageKey("a", kTokens, image_masked),
      TextKey("a", kTokens, text_masked),
      ImageKey("a", kTokens, {}, 1),
      FusedKey("a", kTokens),
      FusedKey("a", kTokens, {}, "itm"),
  };
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < keys.size(); ++i) {
      EXPECT_EQ(forward->Get<int>(keys[i]), static_cast<int>(i) + 1);
    }
  }
  EXPECT_EQ(Names(forward->computed()), Names(keys));
}

// What a view does not depend on is not in its key: an image's tokens are the
// same under any text mask.
TEST(ForwardTest, KeysAreCanonical) {
  TestForward forward(TestBatch());
  FakeProvider provider = Counter();
  forward.student["a"] = &provider;
  Variant both;
  both.image_mask = "mim";
  both.text_mask = "mlm";
  Variant image = both, text = both;
  image.text_mask.clear();
  text.image_mask.clear();
  EXPECT_EQ(forward->Get<int>(ImageKey("a", kTokens, both)),
            forward->Get<int>(ImageKey("a", kTokens, image)));
  EXPECT_EQ(forward->Get<int>(TextKey("a", kTokens, both)),
            forward->Get<int>(TextKey("a", kTokens, text)));
  EXPECT_EQ(provider.asked.size(), 2u);
}

TEST(ForwardTest, ViewsOfViewsAreSharedAndEndFirst) {
  TestForward forward(TestBatch());
  FakeProvider base = Counter();
  FakeProvider sum([](const ViewKey&, Forward& f) -> std::any {
    return 10 + f.Get<int>(ImageKey("base", kTokens));
  });
  forward.student = {{"base", &base}, {"x", &sum}, {"y", &sum}};
  EXPECT_EQ(forward->Get<int>(ImageKey("x", kFused)), 11);
  EXPECT_EQ(forward->Get<int>(ImageKey("y", kFused)), 11);
  EXPECT_EQ(base.asked.size(), 1u);
  EXPECT_EQ(Names(forward->computed()),
            (std::vector<std::string>{"base/tokens", "x/fused", "y/fused"}));
}

TEST(ForwardTest, ReferencesStayValidWhileViewsAreAdded) {
  TestForward forward(TestBatch());
  FakeProvider provider = Counter();
  forward.student["a"] = &provider;
  const int& first = forward->Get<int>(ImageKey("a", kTokens));
  for (int slot = 1; slot < 100; ++slot) {
    forward->Get<int>(ImageKey("a", kTokens, {}, slot));
  }
  EXPECT_EQ(first, 1);
}

TEST(ForwardTest, TheWrongTypeIsAnError) {
  TestForward forward(TestBatch());
  FakeProvider provider = Counter();
  forward.student["a"] = &provider;
  const std::string error =
      ErrorOf([&] { forward->Get<at::Tensor>(ImageKey("a", kTokens, {}, 1)); });
  EXPECT_NE(error.find("view a/tokens[slot=1] is not of the C++ type"),
            std::string::npos)
      << error;
  EXPECT_EQ(forward->Get<int>(ImageKey("a", kTokens, {}, 1)), 1);
}

TEST(ForwardTest, MissingInstanceAndMissingViewAreErrors) {
  TestForward forward(TestBatch());
  ViewProvider nothing;
  forward.student["a"] = &nothing;
  EXPECT_NE(ErrorOf([&] {
              forward->Get<int>(ImageKey("b", kTokens));
            }).find("there is no instance \"b\""),
            std::string::npos);
  EXPECT_NE(ErrorOf([&] {
              forward->Get<int>(ImageKey("a", kTokens));
            }).find("instance \"a\" provides no view tokens"),
            std::string::npos);
}

TEST(ForwardTest, ACircleIsAnErrorAndNoHang) {
  TestForward forward(TestBatch());
  FakeProvider a([](const ViewKey&, Forward& f) -> std::any {
    return f.Get<int>(ImageKey("b", kTokens));
  });
  FakeProvider b([](const ViewKey&, Forward& f) -> std::any {
    return f.Get<int>(ImageKey("a", kTokens));
  });
  forward.student = {{"a", &a}, {"b", &b}};
  for (int round = 0; round < 2; ++round) {
    const std::string error =
        ErrorOf([&] { forward->Get<int>(ImageKey("a", kTokens)); });
    EXPECT_NE(error.find("view a/tokens depends on itself"), std::string::npos)
        << error;
  }
}

TEST(ForwardTest, AProviderThatFailedGivesItsReasonAgain) {
  TestForward forward(TestBatch());
  FakeProvider broken([](const ViewKey&, Forward&) -> std::any {
    TORCH_CHECK(false, "no such file");
  });
  forward.student["a"] = &broken;
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(ErrorOf([&] {
                forward->Get<int>(ImageKey("a", kTokens));
              }).rfind("no such file", 0),
              0u);
  }
  EXPECT_TRUE(forward->computed().empty());
  EXPECT_FALSE(forward->Has(ImageKey("a", kTokens)));
}

TEST(ForwardTest, WhatIsSetIsNotComputed) {
  TestForward forward(TestBatch());
  FakeProvider provider = Counter();
  forward.student["a"] = &provider;
  const ViewKey key = ImageKey("a", kTokens), other = ImageKey("gone", kTokens);
  forward->Set(key, 42);
  forward->Set(other, 43);  // Needs no provider.
  EXPECT_TRUE(forward->Has(key));
  EXPECT_EQ(forward->Get<int>(key), 42);
  EXPECT_EQ(forward->Get<int>(other), 43);
  forward->Set(key, 44);
  EXPECT_EQ(forward->Get<int>(key), 44);
  EXPECT_TRUE(provider.asked.empty());
  EXPECT_TRUE(forward->computed().empty());
}

TEST(ForwardTest, TheTeacherHasItsOwnProvidersAndNoGradient) {
  TestForward forward(TestBatch(), /*with_teacher=*/true);
  const at::Tensor weight = at::ones({2}).requires_grad_(true);
  const at::Tensor average = at::full({2}, 3.0).requires_grad_(true);
  FakeProvider student([&](const ViewKey&, Forward&) -> std::any {
    return at::Tensor(weight * 2);
  });
  FakeProvider teacher([&](const ViewKey&, Forward&) -> std::any {
    return at::Tensor(average * 2);
  });
  forward.student["a"] = &student;
  forward.teacher["a"] = &teacher;
  Variant variant;
  variant.teacher = true;
  // Asked for between two views of the student: gradients come on again.
  EXPECT_TRUE(forward->Get<at::Tensor>(ImageKey("a", kTokens)).requires_grad());
  const at::Tensor target =
      forward->Get<at::Tensor>(ImageKey("a", kTokens, variant));
  EXPECT_FALSE(target.requires_grad());
  EXPECT_EQ(target[0].item<double>(), 6);
  EXPECT_TRUE(
      forward->Get<at::Tensor>(ImageKey("a", kQuantized)).requires_grad());
  EXPECT_EQ(student.asked.size(), 2u);
  EXPECT_EQ(teacher.asked.size(), 1u);

  c10::NoGradGuard no_grad;
  EXPECT_FALSE(forward->Get<at::Tensor>(ImageKey("a", kFused)).requires_grad());
}

TEST(ForwardTest, ATeacherThatIsDisabledIsAnError) {
  TestForward forward(TestBatch());
  FakeProvider provider = Counter();
  forward.student["a"] = &provider;
  Variant variant;
  variant.teacher = true;
  EXPECT_FALSE(forward->has_teacher());
  const std::string error =
      ErrorOf([&] { forward->Get<int>(ImageKey("a", kTokens, variant)); });
  EXPECT_NE(error.find("view a/tokens[teacher] asks for the teacher, which is "
                       "disabled"),
            std::string::npos)
      << error;
  EXPECT_TRUE(provider.asked.empty());
}

TEST(ForwardTest, NamesOfKeysTellEveryPart) {
  Variant variant;
  variant.teacher = true;
  variant.image_mask = "mim";
  variant.text_mask = "mlm";
  EXPECT_EQ(ToString(ViewKey{"fusion", kFused, variant, 1, "itm"}),
            "fusion/fused[teacher, image_mask=mim, text_mask=mlm, pairing=itm, "
            "slot=1]");
  EXPECT_EQ(ToString(FusedKey("fusion", kFused)), "fusion/fused");
}

TEST(BatchTest, ToCastsImagesAndKeepsIds) {
  const Batch batch = TestBatch();
  const Batch half = batch.To(at::kCPU, at::kBFloat16);
  EXPECT_EQ(half.images.scalar_type(), at::kBFloat16);
  EXPECT_EQ(half.text_ids.scalar_type(), at::kLong);
  EXPECT_EQ(half.text_mask.scalar_type(), at::kBool);
  EXPECT_TRUE(at::equal(half.text_ids, batch.text_ids));
  EXPECT_EQ(half.image_ids, batch.image_ids);
  EXPECT_EQ(batch.images.scalar_type(), at::kDouble);
  Batch empty;  // A batch without images or texts moves, too.
  EXPECT_FALSE(empty.To(at::kCPU, at::kFloat).images.defined());
}

}  // namespace
}  // namespace semvq
