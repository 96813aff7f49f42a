// Numbers nobody should put into a config: a plugin refuses them, or works.

#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/types.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/message.h"
#include "tests/conformance/neutral.h"

namespace semvq {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// A number in the type of a numeric field.
struct Number {
  int64_t integer = 0;
  double real = 0;
};

std::vector<Number> HostileNumbers(const FieldDescriptor& field) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64: {
      const bool wide = field.cpp_type() == FieldDescriptor::CPPTYPE_INT64;
      return {{-1, 0},
              {0, 0},
              {1, 0},
              {3, 0},
              {std::numeric_limits<int32_t>::min(), 0},
              {std::numeric_limits<int32_t>::max(), 0},
              {wide ? std::numeric_limits<int64_t>::max() : -2, 0}};
    }
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return {{0, -1},   {0, 0},    {0, 1},     {0, 1e-300},
              {0, 1e30}, {0, kInf}, {0, -kInf}, {0, std::nan("")}};
    default:
      return {};
  }
}

void Set(const FieldDescriptor& field, const Number& number, Message& config) {
  const google::protobuf::Reflection* r = config.GetReflection();
  if (field.is_repeated()) r->ClearField(&config, &field);
  const auto set = [&](auto setter, auto adder, auto value) {
    if (field.is_repeated()) {
      (r->*adder)(&config, &field, value);
    } else {
      (r->*setter)(&config, &field, value);
    }
  };
  using R = google::protobuf::Reflection;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return set(&R::SetInt32, &R::AddInt32,
                 static_cast<int32_t>(number.integer));
    case FieldDescriptor::CPPTYPE_INT64:
      return set(&R::SetInt64, &R::AddInt64, number.integer);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return set(&R::SetDouble, &R::AddDouble, number.real);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return set(&R::SetFloat, &R::AddFloat, static_cast<float>(number.real));
    default:
      FAIL();
  }
}

// A numeric field, in the config or in messages within it.
struct NumericField {
  std::vector<const FieldDescriptor*> within;
  const FieldDescriptor* field;
};

void FindNumericFields(const google::protobuf::Descriptor& descriptor,
                       const std::vector<const FieldDescriptor*>& within,
                       std::vector<NumericField>& found) {
  for (int f = 0; f < descriptor.field_count(); ++f) {
    const FieldDescriptor* field = descriptor.field(f);
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      found.push_back({within, field});
    } else if (!field->is_repeated() && within.size() < 4 &&
               field->message_type()->full_name() !=
                   "google.protobuf.Any") {  // A nested plugin has its own
                                             // case.
      std::vector<const FieldDescriptor*> path = within;
      path.push_back(field);
      FindNumericFields(*field->message_type(), path, found);
    }
  }
}

// While it lives, the process may take so many bytes more: what asks for
// terabytes fails at once, as on a full machine.
class MemoryLimit {
 public:
  explicit MemoryLimit(int64_t more) {
    std::ifstream statm("/proc/self/statm");
    int64_t pages = 0;
    statm >> pages;
    getrlimit(RLIMIT_AS, &before_);
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(pages * 4096 + more);
    setrlimit(RLIMIT_AS, &limit);
  }
  ~MemoryLimit() { setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_;
};

class HostileConfig : public testing::TestWithParam<ConformanceCase> {
 protected:
  // What only the data can show may end the first step or the evaluation, if
  // the message names the field.
  static void ExpectWorksOrSaysWhatNot(Trainer& trainer,
                                       const std::vector<Batch>& batches,
                                       const FieldDescriptor& field) {
    std::string error;
    try {
      auto step = trainer.Step(batches);
      if (!step.ok()) error = std::string(step.status().message());
      if (error.empty() && GetParam().type->kind == PluginKind::kTask) {
        auto result = trainer.Evaluate();
        if (!result.ok()) error = std::string(result.status().message());
      }
    } catch (const c10::Error& e) {
      error = e.what_without_backtrace();
    }
    if (!error.empty()) {
      EXPECT_NE(error.find(field.name()), std::string::npos) << error;
    }
  }
};

TEST_P(HostileConfig, IsRefusedOrWorks) {
  auto neutral = Neutral::Create(GetParam());
  ASSERT_TRUE(neutral.ok()) << neutral.status();
  auto batches = (*neutral)->Batches(1);
  ASSERT_TRUE(batches.ok()) << batches.status();
  const std::string folder = FreshFolder("run");
  std::vector<NumericField> fields;
  FindNumericFields(*GetParam().type->config, {}, fields);
  for (const NumericField& numeric : fields) {
    const FieldDescriptor& field = *numeric.field;
    for (const Number& number : HostileNumbers(field)) {
      SCOPED_TRACE(absl::StrCat(field.name(), ": ", number.integer, " or ",
                                number.real));
      Experiment experiment = (*neutral)->experiment();
      (*neutral)->ForEachConfig(experiment, [&](Message& config) {
        Message* message = &config;
        for (const FieldDescriptor* step : numeric.within)
          message = message->GetReflection()->MutableMessage(message, step);
        Set(field, number, *message);
      });
      const absl::Status valid = (*neutral)->Validate(experiment);
      if (!valid.ok()) {
        // Or the instance's dimension, where the field decides over it.
        EXPECT_TRUE(absl::StrContains(valid.message(), field.name()) ||
                    absl::StrContains(valid.message(), "].dim: got"))
            << "the message names no field: " << valid;
        continue;
      }
      EXPECT_TRUE(std::isfinite(number.real)) << "is no number to work with";
      try {
        MemoryLimit limit(int64_t{1} << 30);
        if (GetParam().type->kind == PluginKind::kDataSource) {
          Streams streams;
          (void)streams.Open(experiment, experiment.trainer().stream());
          continue;
        }
        auto trainer = (*neutral)->MakeTrainer(experiment, folder);
        if (!trainer.ok()) {
          EXPECT_FALSE(trainer.status().message().empty());
          continue;
        }
        ExpectWorksOrSaysWhatNot(**trainer, *batches, field);
      } catch (const std::exception& e) {
        ADD_FAILURE() << "throws: " << std::string(e.what()).substr(0, 300);
      }
    }
  }
}

// Bytes that are a config of some other program.
TEST_P(HostileConfig, EmptyOneIsRefusedOrValid) {
  const absl::Status status =
      GetParam().type->validate(*GetParam().type->prototype);
  if (!status.ok()) {
    EXPECT_FALSE(status.message().empty());
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileConfig, testing::ValuesIn(ConformanceCases()),
    [](const testing::TestParamInfo<ConformanceCase>& info) {
      return info.param.Name();
    });

}  // namespace
}  // namespace semvq
