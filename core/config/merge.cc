#include "core/config/merge.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "core/config/names.h"
#include "core/config/parse.h"
#include "protos/experiment.pb.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;
using pb::FieldDescriptor;

const FieldDescriptor* RemoveField(const pb::Descriptor& type) {
  const FieldDescriptor* field = type.FindFieldByName("remove");
  return field != nullptr && !field->is_repeated() &&
                 field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL
             ? field
             : nullptr;
}

bool IsStageOverlay(const FieldDescriptor& field) {
  return field.containing_type() == Stage::descriptor() &&
         field.number() == Stage::kWithFieldNumber;
}

// Index of the entry of that name in a list; -1 when there is none.
int Find(const pb::Message& message, const FieldDescriptor* field,
         const FieldDescriptor* name_field, const std::string& name) {
  const pb::Reflection* r = message.GetReflection();
  for (int i = 0; i < r->FieldSize(message, field); ++i) {
    const pb::Message& entry = r->GetRepeatedMessage(message, field, i);
    if (entry.GetReflection()->GetString(entry, name_field) == name) return i;
  }
  return -1;
}

void EraseEntry(pb::Message* message, const FieldDescriptor* field, int at) {
  const pb::Reflection* r = message->GetReflection();
  for (int i = at + 1; i < r->FieldSize(*message, field); ++i) {
    r->SwapElements(message, field, i - 1, i);
  }
  r->RemoveLast(message, field);
}

class Merger {
 public:
  Merger(const Registry& registry, const Provenance& from, Provenance* to,
         std::vector<ConfigError>* errors)
      : registry_(registry), from_(from), to_(to), errors_(errors) {}

  void Merge(const pb::Message& from, const std::string& from_path,
             pb::Message* to, const std::string& to_path, bool keep_removals) {
    const pb::Reflection* reflection = from.GetReflection();
    std::vector<const FieldDescriptor*> set;
    reflection->ListFields(from, &set);
    for (const FieldDescriptor* field : set) {
      const std::string source = FieldPath(from_path, field->name());
      const std::string target = FieldPath(to_path, field->name());
      const bool is_message =
          field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
      ForgetOtherMember(*to, field, to_path);
      if (field->is_repeated() && is_message && !field->is_map() &&
          NameField(*field->message_type()) != nullptr) {
        MergeNamed(from, field, source, to, target, keep_removals);
      } else if (field->is_repeated()) {
        ReplaceList(from, field, to);
        to_->Erase(target);
        to_->CopyFrom(from_, source, target);
      } else if (is_message) {
        MoveLocation(source, target);
        const pb::Message& value = reflection->GetMessage(from, field);
        pb::Message* merged = reflection->MutableMessage(to, field);
        if (IsAny(*field->message_type())) {
          MergeAny(static_cast<const pb::Any&>(value), source,
                   static_cast<pb::Any*>(merged), target, keep_removals);
        } else {
          Merge(value, source, merged, target,
                keep_removals || IsStageOverlay(*field));
        }
      } else {
        CopyScalar(from, field, to);
        MoveLocation(source, target);
      }
    }
  }

 private:
  void MoveLocation(const std::string& source, const std::string& target) {
    if (const SourceLocation* location = from_.Find(source)) {
      to_->Set(target, *location);
    }
  }

  // The member of `field`'s oneof that setting `field` clears.
  void ForgetOtherMember(const pb::Message& to, const FieldDescriptor* field,
                         const std::string& to_path) {
    const pb::OneofDescriptor* oneof = field->real_containing_oneof();
    if (oneof == nullptr) return;
    const FieldDescriptor* other =
        to.GetReflection()->GetOneofFieldDescriptor(to, oneof);
    if (other != nullptr && other != field) {
      to_->Erase(FieldPath(to_path, other->name()));
    }
  }

  static void ReplaceList(const pb::Message& from, const FieldDescriptor* field,
                          pb::Message* to) {
    // MergeFrom appends, field by field; only this field is wanted.
    const std::unique_ptr<pb::Message> only(from.New());
    only->CopyFrom(from);
    const pb::Reflection* reflection = from.GetReflection();
    reflection->ClearField(to, field);
    reflection->SwapFields(to, only.get(), {field});
  }

  static void CopyScalar(const pb::Message& from, const FieldDescriptor* field,
                         pb::Message* to) {
    const pb::Reflection* r = from.GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return r->SetInt32(to, field, r->GetInt32(from, field));
      case FieldDescriptor::CPPTYPE_INT64:
        return r->SetInt64(to, field, r->GetInt64(from, field));
      case FieldDescriptor::CPPTYPE_UINT32:
        return r->SetUInt32(to, field, r->GetUInt32(from, field));
      case FieldDescriptor::CPPTYPE_UINT64:
        return r->SetUInt64(to, field, r->GetUInt64(from, field));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return r->SetFloat(to, field, r->GetFloat(from, field));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return r->SetDouble(to, field, r->GetDouble(from, field));
      case FieldDescriptor::CPPTYPE_BOOL:
        return r->SetBool(to, field, r->GetBool(from, field));
      case FieldDescriptor::CPPTYPE_ENUM:
        return r->SetEnumValue(to, field, r->GetEnumValue(from, field));
      case FieldDescriptor::CPPTYPE_STRING:
        return r->SetString(to, field, r->GetString(from, field));
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return;
    }
  }

  void MergeNamed(const pb::Message& from, const FieldDescriptor* field,
                  const std::string& source_list, pb::Message* to,
                  const std::string& target_list, bool keep_removals) {
    const pb::Reflection* r = from.GetReflection();
    const FieldDescriptor* name_field = NameField(*field->message_type());
    const FieldDescriptor* remove_field = RemoveField(*field->message_type());
    for (int i = 0; i < r->FieldSize(from, field); ++i) {
      const pb::Message& entry = r->GetRepeatedMessage(from, field, i);
      const std::string name =
          entry.GetReflection()->GetString(entry, name_field);
      const std::string source = EntryPath(source_list, name);
      const std::string target = EntryPath(target_list, name);
      const bool remove = remove_field != nullptr &&
                          entry.GetReflection()->GetBool(entry, remove_field);
      int at = Find(*to, field, name_field, name);
      if (remove && !keep_removals) {
        if (at < 0) {
          if (to_->WasRemoved(target) || from_.WasRemoved(source)) continue;
          Report(source,
                 absl::StrCat("\"", name,
                              "\" is to be removed, but no "
                              "such entry is there",
                              DidYouMean(name, Names(*to, field, name_field))));
        } else {
          EraseEntry(to, field, at);
          to_->Erase(target);
          to_->MarkRemoved(target);
        }
        continue;
      }
      const bool live =
          at >= 0 &&
          !(remove_field != nullptr &&
            r->GetRepeatedMessage(*to, field, at)
                .GetReflection()
                ->GetBool(r->GetRepeatedMessage(*to, field, at), remove_field));
      if (at < 0) {
        at = r->FieldSize(*to, field);
        r->AddMessage(to, field);
      }
      pb::Message* merged = r->MutableRepeatedMessage(to, field, at);
      if (remove) {
        // Nothing else of the entry matters any more.
        merged->Clear();
        merged->GetReflection()->SetString(merged, name_field, name);
        merged->GetReflection()->SetBool(merged, remove_field, true);
        to_->Erase(target);
        to_->CopyFrom(from_, source, target);
        if (live) to_->MarkRemoved(target);
        continue;
      }
      MoveLocation(source, target);
      Merge(entry, source, merged, target, keep_removals);
      // A later source that names an entry again brings it back.
      if (remove_field != nullptr) {
        merged->GetReflection()->ClearField(merged, remove_field);
        to_->Erase(FieldPath(target, remove_field->name()));
      }
    }
  }

  void MergeAny(const pb::Any& from, const std::string& source, pb::Any* to,
                const std::string& target, bool keep_removals) {
    if (from.type_url().empty()) return;
    absl::StatusOr<std::unique_ptr<pb::Message>> value =
        UnpackConfig(from, registry_);
    if (!value.ok()) {
      *to = from;
      to_->Erase(target);
      to_->CopyFrom(from_, source, target);
      return;
    }
    std::unique_ptr<pb::Message> merged;
    if (AnyTypeName(from) == AnyTypeName(*to)) {
      absl::StatusOr<std::unique_ptr<pb::Message>> before =
          UnpackConfig(*to, registry_);
      if (before.ok()) merged = *std::move(before);
    }
    if (merged == nullptr) {
      merged.reset((*value)->New());
      to_->Erase(target);
      MoveLocation(source, target);
    }
    Merge(**value, source, merged.get(), target, keep_removals);
    to->set_type_url(from.type_url());
    merged->SerializePartialToString(to->mutable_value());
  }

  static std::vector<std::string> Names(const pb::Message& message,
                                        const FieldDescriptor* field,
                                        const FieldDescriptor* name_field) {
    const pb::Reflection* r = message.GetReflection();
    std::vector<std::string> names;
    for (int i = 0; i < r->FieldSize(message, field); ++i) {
      const pb::Message& entry = r->GetRepeatedMessage(message, field, i);
      names.push_back(entry.GetReflection()->GetString(entry, name_field));
    }
    return names;
  }

  void Report(const std::string& path, std::string message) {
    errors_->push_back(ErrorAt(from_, path, std::move(message)));
  }

  const Registry& registry_;
  const Provenance& from_;
  Provenance* to_;
  std::vector<ConfigError>* errors_;
};

// Broken values are in no message, so merging does not come across them.
void CopyBroken(const MergeSide& from, Provenance* to) {
  Provenance broken;
  broken.CopyFrom(*from.provenance, from.path, "");
  for (const std::string& path : broken.broken()) to->MarkBroken(path);
}

class SettledRemovals {
 public:
  explicit SettledRemovals(const Provenance& provenance)
      : provenance_(provenance) {}

  void Drop(const pb::Message& base, const std::string& base_path,
            pb::Message* overlay, const std::string& overlay_path) const {
    std::vector<const FieldDescriptor*> set;
    overlay->GetReflection()->ListFields(*overlay, &set);
    for (const FieldDescriptor* field : set) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE ||
          field->is_map() || IsAny(*field->message_type())) {
        continue;
      }
      const std::string in_base = FieldPath(base_path, field->name());
      const std::string in_overlay = FieldPath(overlay_path, field->name());
      if (!field->is_repeated()) {
        Drop(base.GetReflection()->GetMessage(base, field), in_base,
             overlay->GetReflection()->MutableMessage(overlay, field),
             in_overlay);
      } else if (NameField(*field->message_type()) != nullptr &&
                 RemoveField(*field->message_type()) != nullptr) {
        DropFromList(base, field, in_base, in_overlay, overlay);
      }
    }
  }

 private:
  void DropFromList(const pb::Message& base, const FieldDescriptor* field,
                    const std::string& base_list,
                    const std::string& overlay_list,
                    pb::Message* overlay) const {
    const FieldDescriptor* name_field = NameField(*field->message_type());
    const FieldDescriptor* remove_field = RemoveField(*field->message_type());
    const pb::Reflection* r = overlay->GetReflection();
    for (int i = r->FieldSize(*overlay, field) - 1; i >= 0; --i) {
      const pb::Message& entry = r->GetRepeatedMessage(*overlay, field, i);
      const std::string name =
          entry.GetReflection()->GetString(entry, name_field);
      if (entry.GetReflection()->GetBool(entry, remove_field) &&
          Find(base, field, name_field, name) < 0 &&
          (provenance_.WasRemoved(EntryPath(base_list, name)) ||
           provenance_.WasRemoved(EntryPath(overlay_list, name)))) {
        EraseEntry(overlay, field, i);
      }
    }
  }

  const Provenance& provenance_;
};

}  // namespace

void DropSettledRemovals(const pb::Message& base, const Provenance& provenance,
                         const std::string& overlay_path,
                         pb::Message* overlay) {
  SettledRemovals(provenance).Drop(base, "", overlay, overlay_path);
}

void MergeExperiment(const MergeSide& from, const Registry& registry,
                     pb::Message* to, Provenance* provenance,
                     std::vector<ConfigError>* errors) {
  Merger(registry, *from.provenance, provenance, errors)
      .Merge(*from.message, from.path, to, "", /*keep_removals=*/false);
  CopyBroken(from, provenance);
}

std::string AnyTypeName(const pb::Any& any) {
  return any.type_url().substr(any.type_url().rfind('/') + 1);
}

const PluginType* PluginTypeOf(const pb::Any& any, const Registry& registry) {
  return registry.Find(AnyTypeName(any));
}

absl::StatusOr<std::unique_ptr<pb::Message>> UnpackConfig(
    const pb::Any& any, const Registry& registry) {
  const std::string name = AnyTypeName(any);
  const PluginType* type = PluginTypeOf(any, registry);
  if (type == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("no plugin of type \"", name, "\" is linked in"));
  }
  std::unique_ptr<pb::Message> message(type->prototype->New());
  if (!message->ParsePartialFromString(any.value())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the bytes of a ", name, " are damaged"));
  }
  return message;
}

}  // namespace semvq
