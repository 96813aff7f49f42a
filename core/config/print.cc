#include "core/config/print.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "core/config/merge.h"
#include "core/config/parse.h"
#include "core/util/hash.h"
#include "google/protobuf/text_format.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;
using pb::FieldDescriptor;

constexpr size_t kHashDigits = 16;

// Clears what cannot change a result; see ConfigHash.
void KeepResults(Experiment* experiment) {
  experiment->clear_name();
  experiment->clear_summary();
  experiment->clear_device();
  experiment->clear_checkpoint();
  experiment->clear_logging();
  if (experiment->has_data()) {
    DataConfig* data = experiment->mutable_data();
    data->clear_workers();
    data->clear_prefetch();
    data->clear_cache_bytes();
    data->clear_max_bad_fraction();
    if (data->ByteSizeLong() == 0) experiment->clear_data();
  }
  if (experiment->has_trainer()) {
    TrainerConfig* trainer = experiment->mutable_trainer();
    trainer->clear_threads();
    trainer->clear_max_nonfinite_steps();
    trainer->clear_loss_spikes();
    if (trainer->ByteSizeLong() == 0) experiment->clear_trainer();
  }
  for (Stage& stage : *experiment->mutable_stages()) {
    if (!stage.has_with()) continue;
    KeepResults(stage.mutable_with());
    if (stage.with().ByteSizeLong() == 0) stage.clear_with();
  }
}

class Expander {
 public:
  Expander(const Provenance& provenance, const Registry& registry,
           const Environment& environment, std::vector<ConfigError>* errors)
      : provenance_(provenance),
        registry_(registry),
        environment_(environment),
        errors_(errors) {}

  void Expand(pb::Message* message, const std::string& path) {
    const pb::Reflection* r = message->GetReflection();
    std::vector<const FieldDescriptor*> set;
    r->ListFields(*message, &set);
    for (const FieldDescriptor* field : set) {
      const std::string field_path = FieldPath(path, field->name());
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
        ExpandStrings(message, field, field_path);
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        if (!field->is_repeated()) {
          ExpandNested(r->MutableMessage(message, field), field_path);
          continue;
        }
        const FieldDescriptor* name = NameField(*field->message_type());
        for (int i = 0; i < r->FieldSize(*message, field); ++i) {
          pb::Message* entry = r->MutableRepeatedMessage(message, field, i);
          ExpandNested(entry, name == nullptr
                                  ? EntryPath(field_path, i)
                                  : EntryPath(field_path,
                                              entry->GetReflection()->GetString(
                                                  *entry, name)));
        }
      }
    }
  }

 private:
  void ExpandNested(pb::Message* message, const std::string& path) {
    if (!IsAny(*message->GetDescriptor())) return Expand(message, path);
    pb::Any* any = static_cast<pb::Any*>(message);
    absl::StatusOr<std::unique_ptr<pb::Message>> value =
        UnpackConfig(*any, registry_);
    if (!value.ok()) return;  // Reported where types are checked.
    Expand(value->get(), path);
    (*value)->SerializePartialToString(any->mutable_value());
  }

  void ExpandStrings(pb::Message* message, const FieldDescriptor* field,
                     const std::string& path) {
    if (field->type() == FieldDescriptor::TYPE_BYTES) return;
    const pb::Reflection* r = message->GetReflection();
    if (!field->is_repeated()) {
      r->SetString(message, field,
                   Expanded(r->GetString(*message, field), path));
      return;
    }
    for (int i = 0; i < r->FieldSize(*message, field); ++i) {
      r->SetRepeatedString(
          message, field, i,
          Expanded(r->GetRepeatedString(*message, field, i), path));
    }
  }

  std::string Expanded(const std::string& text, const std::string& path) {
    std::string out;
    size_t at = 0;
    while (true) {
      const size_t start = text.find("${", at);
      if (start == std::string::npos) break;
      if (start > at && text[start - 1] == '$') {
        absl::StrAppend(&out, text.substr(at, start - 1 - at), "${");
        at = start + 2;
        continue;
      }
      const size_t end = text.find('}', start);
      if (end == std::string::npos) {
        Report(path, absl::StrCat("\"", text, "\" opens ${ without a }"));
        break;
      }
      const std::string name = text.substr(start + 2, end - start - 2);
      const absl::optional<std::string> value = environment_(name);
      if (!value.has_value()) {
        Report(path, absl::StrCat("the environment variable \"", name,
                                  "\" of \"", text, "\" is not set"));
      }
      absl::StrAppend(
          &out, text.substr(at, start - at),
          value.has_value() ? *value : text.substr(start, end + 1 - start));
      at = end + 1;
    }
    return out + text.substr(at);
  }

  void Report(const std::string& path, std::string message) {
    errors_->push_back(ErrorAt(provenance_, path, std::move(message)));
  }

  const Provenance& provenance_;
  const Registry& registry_;
  const Environment& environment_;
  std::vector<ConfigError>* errors_;
};

std::string TypeName(const FieldDescriptor& field, const PluginType& host) {
  std::string name = field.type_name();
  if (field.message_type() != nullptr) {
    name = IsAny(*field.message_type())
               ? absl::StrCat("any ", PluginKindName(host.kind))
               : field.message_type()->full_name();
  }
  if (field.enum_type() != nullptr) {
    std::vector<std::string> values;
    for (int i = 0; i < field.enum_type()->value_count(); ++i) {
      values.push_back(field.enum_type()->value(i)->name());
    }
    name = absl::StrJoin(values, " | ");
  }
  return absl::StrCat(field.is_repeated() ? "repeated " : "", name);
}

// " = 8192"; empty when the field has no default of its own.
std::string Default(const FieldDescriptor& field) {
  if (field.is_repeated() || !field.has_default_value()) return "";
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(" = ", field.default_value_int32());
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(" = ", field.default_value_int64());
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(" = ", field.default_value_uint32());
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(" = ", field.default_value_uint64());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return absl::StrCat(" = ", field.default_value_float());
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return absl::StrCat(" = ", field.default_value_double());
    case FieldDescriptor::CPPTYPE_BOOL:
      return field.default_value_bool() ? " = true" : " = false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat(" = ", field.default_value_enum()->name());
    case FieldDescriptor::CPPTYPE_STRING:
      return absl::StrCat(" = \"", field.default_value_string(), "\"");
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "";
  }
  return "";
}

}  // namespace

std::string PrintExperiment(const Experiment& experiment) {
  pb::TextFormat::Printer printer;
  printer.SetExpandAny(true);
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  printer.PrintToString(experiment, &text);
  return text;
}

std::string ConfigHash(const Experiment& experiment) {
  Experiment results = experiment;
  KeepResults(&results);
  return Sha256Hex(PrintExperiment(results)).substr(0, kHashDigits);
}

absl::optional<std::string> GetVariable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value != nullptr && *value != '\0') return std::string(value);
  if (name == "SEMVQ_DATA") {
    const absl::optional<std::string> cache = GetVariable("SEMVQ_CACHE");
    if (cache.has_value()) return absl::StrCat(*cache, "/data");
  }
  if (name == "SEMVQ_CACHE") {
    const absl::optional<std::string> user = GetVariable("XDG_CACHE_HOME");
    if (user.has_value()) return absl::StrCat(*user, "/semvq");
    const absl::optional<std::string> home = GetVariable("HOME");
    if (home.has_value()) return absl::StrCat(*home, "/.cache/semvq");
  }
  if (name == "HOME") {
    // Not set in every sandbox.
    const passwd* user = getpwuid(getuid());
    if (user != nullptr && user->pw_dir != nullptr)
      return std::string(user->pw_dir);
  }
  return absl::nullopt;
}

std::vector<ConfigError> ExpandVariables(const Provenance& provenance,
                                         Experiment* experiment,
                                         const Registry& registry,
                                         const Environment& environment) {
  std::vector<ConfigError> errors;
  Expander(provenance, registry, environment, &errors).Expand(experiment, "");
  return errors;
}

std::string ListPlugins(const Registry& registry) {
  std::string out;
  for (const PluginType* type : registry.All()) {
    absl::StrAppend(&out, PluginKindName(type->kind), " ", type->name(), "\n");
    const std::string doc = type->doc();
    if (!doc.empty()) absl::StrAppend(&out, "  ", doc, "\n");
    for (int i = 0; i < type->config->field_count(); ++i) {
      const FieldDescriptor& field = *type->config->field(i);
      absl::StrAppend(&out, "    ", field.name(), ": ", TypeName(field, *type),
                      Default(field), "\n");
    }
  }
  if (out.empty()) out = "no plugins are linked in\n";
  return out;
}

}  // namespace semvq
