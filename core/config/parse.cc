#include "core/config/parse.h"

#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/config/describe.h"
#include "core/config/names.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"

namespace semvq {
namespace {

namespace pb = google::protobuf;
using pb::FieldDescriptor;
using pb::io::Tokenizer;

constexpr int kDeepest = 64;         // Nested messages.
constexpr size_t kMostErrors = 200;  // A text with more is not ours.

class FirstError : public pb::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (failed) return;
    failed = true;
    this->line = line + 1;
    this->column = column + 1;
    this->message = message;
  }
  void AddWarning(int, int, const std::string&) override {}

  bool failed = false;
  int line = 0;
  int column = 0;
  std::string message;
};

class Reader {
 public:
  Reader(const SourceText& source, const Registry& registry,
         Provenance* provenance, std::vector<ConfigError>* errors)
      : source_(source),
        registry_(registry),
        provenance_(provenance),
        errors_(errors) {}

  bool Read(pb::Message* message) {
    return Tokenize() && Body(message, "", nullptr, 0);
  }

 private:
  struct Token {
    Tokenizer::TokenType type;
    std::string text;
    int line;
    int column;
  };

  bool Tokenize() {
    if (source_.text.size() > std::numeric_limits<int>::max()) {
      return Stop({Tokenizer::TYPE_END, "", 1, 1}, "the text is too long");
    }
    FirstError error;
    pb::io::ArrayInputStream stream(source_.text.data(),
                                    static_cast<int>(source_.text.size()));
    Tokenizer tokenizer(&stream, &error);
    // As TextFormat sets it; strings end with their line, so that a missing
    // quote is reported where it is missing.
    tokenizer.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokenizer.set_allow_f_after_float(true);
    tokenizer.set_require_space_after_number(false);
    while (tokenizer.Next() && !error.failed) {
      const Tokenizer::Token& token = tokenizer.current();
      tokens_.push_back(
          {token.type, token.text, token.line + 1, token.column + 1});
    }
    const Tokenizer::Token& end = tokenizer.current();
    tokens_.push_back({Tokenizer::TYPE_END, "", end.line + 1, end.column + 1});
    if (!error.failed) return true;
    return Stop({Tokenizer::TYPE_END, "", error.line, error.column},
                error.message);
  }

  const Token& Peek() const { return tokens_[at_]; }
  const Token& Take() {
    const Token& token = tokens_[at_];
    if (token.type != Tokenizer::TYPE_END) ++at_;
    return token;
  }
  bool Is(absl::string_view symbol) const {
    return Peek().type == Tokenizer::TYPE_SYMBOL && Peek().text == symbol;
  }
  bool Accept(absl::string_view symbol) {
    if (!Is(symbol)) return false;
    Take();
    return true;
  }
  std::string Got() const {
    return Peek().type == Tokenizer::TYPE_END
               ? "the end of the text"
               : absl::StrCat("\"", Shown(Peek().text), "\"");
  }

  void Error(const Token& token, const std::string& path, std::string message) {
    errors_->push_back(
        {source_.name, token.line, token.column, path, std::move(message)});
  }
  void Broken(const Token& token, const std::string& path,
              std::string message) {
    provenance_->MarkBroken(path);
    Error(token, path, std::move(message));
  }
  bool Stop(const Token& token, std::string message) {
    Error(token, "",
          absl::StrCat("syntax error: ", message,
                       "; nothing after this was read"));
    return false;
  }
  SourceLocation At(const Token& token) const {
    return {source_.name, token.line, token.column};
  }

  // Fields up to the bracket that closes `open` (null: to the text's end).
  bool Body(pb::Message* message, const std::string& path, const Token* open,
            int depth) {
    if (depth > kDeepest) {
      return Stop(*open, absl::StrCat("nested deeper than ", kDeepest));
    }
    std::map<const FieldDescriptor*, int> lines;
    std::map<std::string, int> names;
    while (true) {
      if (errors_->size() > kMostErrors) return Stop(Peek(), "too many errors");
      if (open != nullptr && Accept(open->text == "{" ? "}" : ">")) return true;
      if (Peek().type == Tokenizer::TYPE_END) {
        if (open == nullptr) return true;
        return Stop(Peek(), absl::StrCat("the \"", open->text, "\" of line ",
                                         open->line, " is not closed"));
      }
      if (!Field(message, path, depth, &lines, &names)) return false;
      if (!Accept(",")) Accept(";");
    }
  }

  bool Field(pb::Message* message, const std::string& path, int depth,
             std::map<const FieldDescriptor*, int>* lines,
             std::map<std::string, int>* names) {
    const Token key = Peek();
    if (Accept("[")) {
      std::string name;
      if (!BracketedName(&name)) return false;
      Error(key, path,
            absl::StrCat("got extension [", Shown(name),
                         "]; there are no extensions here"));
      return SkipValue();
    }
    if (key.type != Tokenizer::TYPE_IDENTIFIER) {
      return Stop(key, absl::StrCat("got ", Got(), ", expected a field name"));
    }
    Take();
    const pb::Descriptor& type = *message->GetDescriptor();
    const FieldDescriptor* field = type.FindFieldByName(key.text);
    const std::string field_path = FieldPath(path, key.text);
    if (field == nullptr) {
      std::vector<std::string> known;
      for (int i = 0; i < type.field_count(); ++i) {
        known.push_back(type.field(i)->name());
      }
      Broken(key, field_path,
             absl::StrCat("unknown field \"", Shown(key.text), "\" of ",
                          type.full_name(), DidYouMean(key.text, known)));
      return SkipValue();
    }
    if (!field->is_repeated()) {
      if (!OnlyOnce(*message, field, key, field_path, *lines)) {
        return SkipValue();
      }
      (*lines)[field] = key.line;
    }
    const bool colon = Accept(":");
    if (field->is_repeated() && Is("[")) {
      const Token list = Take();
      if (Accept("]")) return true;
      do {
        if (!Value(message, field, key, field_path, colon, depth, names)) {
          return false;
        }
      } while (Accept(","));
      if (Accept("]")) return true;
      return Stop(Peek(), absl::StrCat("got ", Got(),
                                       ", expected \",\" or the "
                                       "\"]\" that closes the list of line ",
                                       list.line));
    }
    return Value(message, field, key, field_path, colon, depth, names);
  }

  // Reports a field, or another member of its oneof, that this text set before.
  bool OnlyOnce(const pb::Message& message, const FieldDescriptor* field,
                const Token& key, const std::string& path,
                const std::map<const FieldDescriptor*, int>& lines) {
    const auto before = lines.find(field);
    if (before != lines.end()) {
      Broken(key, path,
             absl::StrCat("set twice; first in line ", before->second));
      return false;
    }
    const pb::OneofDescriptor* oneof = field->real_containing_oneof();
    if (oneof == nullptr) return true;
    const FieldDescriptor* other =
        message.GetReflection()->GetOneofFieldDescriptor(message, oneof);
    if (other == nullptr) return true;
    const auto line = lines.find(other);
    Broken(key, path,
           absl::StrCat("excludes \"", other->name(), "\"",
                        line == lines.end()
                            ? ""
                            : absl::StrCat(", set in line ", line->second),
                        "; set one of the two"));
    return false;
  }

  bool Value(pb::Message* message, const FieldDescriptor* field,
             const Token& key, const std::string& path, bool colon, int depth,
             std::map<std::string, int>* names) {
    const bool brace = Is("{") || Is("<");
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (brace) {
        return Nested(message, field, key, path, depth, names);
      }
      if (!colon) {
        return Stop(Peek(), absl::StrCat("got ", Got(), " after \"", key.text,
                                         "\", expected ", Expected(*field)));
      }
    } else if (!colon && !brace) {
      return Stop(Peek(),
                  absl::StrCat("got ", Got(), " after \"", key.text,
                               "\", expected \":\" and ", Expected(*field)));
    }
    return Scalar(message, field, key, path);
  }

  // A message, with its brackets.
  bool Nested(pb::Message* message, const FieldDescriptor* field,
              const Token& key, const std::string& list, int depth,
              std::map<std::string, int>* names) {
    const pb::Reflection* reflection = message->GetReflection();
    std::string path = list;
    if (field->is_repeated()) {
      const pb::Descriptor& type = *field->message_type();
      const int index = reflection->FieldSize(*message, field);
      path = EntryPath(list, index);
      if (NameField(type) != nullptr) {
        const std::string name = NameAhead();
        if (name.empty()) {
          Broken(key, path,
                 absl::StrCat("an entry of \"", field->name(),
                              "\" needs a name: \"...\""));
          Take();
          return SkipBalanced(tokens_[at_ - 1]);
        }
        path = EntryPath(list, name);
        const auto [first, is_new] =
            names->emplace(absl::StrCat(field->name(), "/", name), key.line);
        if (!is_new) {
          Error(key, path,
                absl::StrCat("\"", Shown(name),
                             "\" is here twice; first in "
                             "line ",
                             first->second, "; rename or join the two"));
          Take();
          return SkipBalanced(tokens_[at_ - 1]);
        }
      }
    }
    provenance_->Set(path, At(key));
    pb::Message* nested = field->is_repeated()
                              ? reflection->AddMessage(message, field)
                              : reflection->MutableMessage(message, field);
    const Token open = Take();
    if (IsAny(*field->message_type())) {
      return AnyBody(static_cast<pb::Any*>(nested), *field, path, open, depth);
    }
    return Body(nested, path, &open, depth + 1);
  }

  // The value of `name` in the message that starts here.
  std::string NameAhead() const {
    int depth = 0;
    for (size_t i = at_; i < tokens_.size(); ++i) {
      const Token& token = tokens_[i];
      if (token.type == Tokenizer::TYPE_SYMBOL) {
        const char c = token.text[0];
        if (c == '{' || c == '<' || c == '[') ++depth;
        if (c == '}' || c == '>' || c == ']') --depth;
        if (depth == 0) return "";
      } else if (depth == 1 && token.type == Tokenizer::TYPE_IDENTIFIER &&
                 token.text == "name" && i + 2 < tokens_.size() &&
                 tokens_[i + 1].text == ":") {
        std::string name;
        for (i += 2; tokens_[i].type == Tokenizer::TYPE_STRING; ++i) {
          Tokenizer::ParseStringAppend(tokens_[i].text, &name);
        }
        return name;
      }
    }
    return "";
  }

  bool AnyBody(pb::Any* any, const FieldDescriptor& field,
               const std::string& path, const Token& open, int depth) {
    const std::string close = open.text == "{" ? "}" : ">";
    if (Is(close)) {
      Broken(Take(), path,
             absl::StrCat("names no plugin type; expected ", Expected(field)));
      return true;
    }
    bool seen = false;
    while (!Accept(close)) {
      if (!Is("[")) {
        return Stop(Peek(), absl::StrCat("got ", Got(), ", expected ",
                                         Expected(field)));
      }
      const Token key = Take();
      std::string url;
      if (!BracketedName(&url)) return false;
      Accept(":");
      if (!Is("{") && !Is("<")) {
        return Stop(Peek(), absl::StrCat("got ", Got(), ", expected { ... }"));
      }
      const Token inner = Take();
      const std::string name = url.substr(url.rfind('/') + 1);
      const PluginType* type = registry_.Find(name);
      if (type == nullptr || seen) {
        Broken(key, path,
               seen ? "holds two types; expected one"
                    : UnknownType(name, field, registry_));
        if (!SkipBalanced(inner)) return false;
      } else {
        provenance_->Set(path, At(key));
        const std::unique_ptr<pb::Message> value(type->prototype->New());
        if (!Body(value.get(), path, &inner, depth + 1)) return false;
        any->set_type_url(absl::StrCat(kAnyPrefix, name));
        value->SerializePartialToString(any->mutable_value());
      }
      seen = true;
      if (!Accept(",")) Accept(";");
    }
    return true;
  }

  // What stands between "[", already taken, and "]".
  bool BracketedName(std::string* name) {
    while (!Accept("]")) {
      const Token& token = Peek();
      const bool symbol = token.type == Tokenizer::TYPE_SYMBOL;
      if (token.type == Tokenizer::TYPE_END ||
          token.type == Tokenizer::TYPE_STRING ||
          (symbol && token.text != "." && token.text != "/" &&
           token.text != "-" && token.text != "%")) {
        return Stop(token,
                    absl::StrCat("got ", Got(), " in a type's name, expected [",
                                 kAnyPrefix, "<type>]"));
      }
      absl::StrAppend(name, Take().text);
    }
    return true;
  }

  bool Scalar(pb::Message* message, const FieldDescriptor* field,
              const Token& key, const std::string& path) {
    if (Is("{") || Is("<") || Is("[")) {
      Broken(key, path,
             absl::StrCat("got ", Is("[") ? "a list" : "a message",
                          ", expected ", Expected(*field)));
      return SkipValue();
    }
    const Token first = Peek();
    std::string text;
    if (!ScalarText(&text)) return false;
    // TextFormat reads the value itself. It reads into an empty message, as it
    // would replace what is there before it finds a mistake.
    const std::unique_ptr<pb::Message> scratch(message->New());
    pb::TextFormat::Parser parser;
    FirstError ignored;
    parser.RecordErrorsTo(&ignored);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE ||
        !parser.ParseFieldValueFromString(text, field, scratch.get())) {
      std::string near;
      if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
        std::vector<std::string> values;
        for (int i = 0; i < field->enum_type()->value_count(); ++i) {
          values.push_back(field->enum_type()->value(i)->name());
        }
        near = NearestName(text, values);
      }
      Broken(
          first, path,
          absl::StrCat(
              "got ", Shown(text), ", expected ", Expected(*field),
              near.empty() ? "" : absl::StrCat("; did you mean ", near, "?")));
      return true;
    }
    message->MergeFrom(*scratch);
    if (!field->is_repeated() || provenance_->Find(path) == nullptr) {
      provenance_->Set(path, At(key));
    }
    return true;
  }

  // An optional minus and one token, or neighbouring strings.
  bool ScalarText(std::string* text) {
    if (Peek().type == Tokenizer::TYPE_STRING) {
      while (Peek().type == Tokenizer::TYPE_STRING) {
        absl::StrAppend(text, text->empty() ? "" : " ", Take().text);
      }
      return true;
    }
    if (Accept("-")) *text = "-";
    if (Peek().type == Tokenizer::TYPE_END ||
        Peek().type == Tokenizer::TYPE_SYMBOL ||
        Peek().type == Tokenizer::TYPE_STRING) {
      return Stop(Peek(), absl::StrCat("got ", Got(), ", expected a value"));
    }
    absl::StrAppend(text, Take().text);
    return true;
  }

  bool SkipValue() {
    Accept(":");
    if (Is("{") || Is("<") || Is("[")) return SkipBalanced(Take());
    std::string text;
    return ScalarText(&text);
  }

  // To the bracket that closes `open`, which is taken already.
  bool SkipBalanced(Token open) {
    std::vector<Token> stack = {std::move(open)};
    while (!stack.empty()) {
      const Token& token = Take();
      if (token.type == Tokenizer::TYPE_END) {
        return Stop(token,
                    absl::StrCat("the \"", stack.back().text, "\" of line ",
                                 stack.back().line, " is not closed"));
      }
      if (token.type != Tokenizer::TYPE_SYMBOL) continue;
      const char c = token.text[0];
      if (c == '{' || c == '<' || c == '[') {
        stack.push_back(token);
      } else if (c == '}' || c == '>' || c == ']') {
        const char want = stack.back().text[0];
        if (c != (want == '{' ? '}' : want == '<' ? '>' : ']')) {
          return Stop(token, absl::StrCat("got \"", token.text,
                                          "\", which does not close the \"",
                                          stack.back().text, "\" of line ",
                                          stack.back().line));
        }
        stack.pop_back();
      }
    }
    return true;
  }

  const SourceText& source_;
  const Registry& registry_;
  Provenance* provenance_;
  std::vector<ConfigError>* errors_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace

bool ParseText(const SourceText& source, const Registry& registry,
               pb::Message* message, Provenance* provenance,
               std::vector<ConfigError>* errors) {
  return Reader(source, registry, provenance, errors).Read(message);
}

const FieldDescriptor* NameField(const pb::Descriptor& type) {
  const FieldDescriptor* name = type.FindFieldByName("name");
  return name != nullptr && !name->is_repeated() &&
                 name->cpp_type() == FieldDescriptor::CPPTYPE_STRING
             ? name
             : nullptr;
}

bool IsAny(const pb::Descriptor& type) {
  return &type == pb::Any::descriptor();
}

}  // namespace semvq
