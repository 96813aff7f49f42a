#include "tools/data/emoji.h"

#include <hb-ot.h>
#include <hb.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tools/data/concept.h"

namespace semvq::tools {
namespace {

template <auto Destroy>
struct Deleter {
  template <typename T>
  void operator()(T* p) const {
    Destroy(p);
  }
};
template <typename T, auto Destroy>
using Owned = std::unique_ptr<T, Deleter<Destroy>>;

enum class Missing { kNone, kNoGlyph, kSeveral, kNoBitmap };

class EmojiFont {
 public:
  static absl::StatusOr<EmojiFont> Open(const std::string& path) {
    Owned<hb_blob_t, hb_blob_destroy> blob(
        hb_blob_create_from_file_or_fail(path.c_str()));
    if (blob == nullptr) {
      return absl::NotFoundError(absl::StrCat(
          "cannot read the font ", path,
          "; install the Debian package fonts-noto-color-emoji or name "
          "another font with --font"));
    }
    EmojiFont font;
    Owned<hb_face_t, hb_face_destroy> face(hb_face_create(blob.get(), 0));
    if (hb_face_get_glyph_count(face.get()) == 0 ||
        !hb_ot_color_has_png(face.get())) {
      return absl::InvalidArgumentError(absl::StrCat(
          path,
          " holds no colour bitmaps (a CBDT or sbix table); --font needs "
          "a bitmap emoji font such as NotoColorEmoji.ttf"));
    }
    font.font_.reset(hb_font_create(face.get()));
    font.buffer_.reset(hb_buffer_create());
    return font;
  }

  // The PNG file of the one glyph that `sequence` becomes.
  Missing Png(const std::u32string& sequence, std::string* png) {
    hb_codepoint_t glyph = 0;
    for (const char32_t c : sequence) {
      if (!hb_font_get_nominal_glyph(font_.get(), c, &glyph) || glyph == 0) {
        // The joiners need not be in the font: shaping consumes them.
        if (c != 0x200D && c != 0xFE0F) return Missing::kNoGlyph;
      }
    }
    if (sequence.size() > 1) {
      hb_buffer_clear_contents(buffer_.get());
      // Unused joiners and tags must count, not vanish.
      hb_buffer_set_flags(buffer_.get(),
                          HB_BUFFER_FLAG_PRESERVE_DEFAULT_IGNORABLES);
      hb_buffer_add_utf32(buffer_.get(),
                          reinterpret_cast<const uint32_t*>(sequence.data()),
                          static_cast<int>(sequence.size()), 0,
                          static_cast<int>(sequence.size()));
      hb_buffer_set_direction(buffer_.get(), HB_DIRECTION_LTR);
      hb_buffer_set_script(buffer_.get(), HB_SCRIPT_COMMON);
      hb_buffer_set_language(buffer_.get(), hb_language_from_string("en", -1));
      hb_shape(font_.get(), buffer_.get(), nullptr, 0);
      unsigned int length = 0;
      const hb_glyph_info_t* glyphs =
          hb_buffer_get_glyph_infos(buffer_.get(), &length);
      if (length != 1) return Missing::kSeveral;
      glyph = glyphs[0].codepoint;
      if (glyph == 0) return Missing::kNoGlyph;
    }
    Owned<hb_blob_t, hb_blob_destroy> blob(
        hb_ot_color_glyph_reference_png(font_.get(), glyph));
    unsigned int length = 0;
    const char* data = hb_blob_get_data(blob.get(), &length);
    if (length == 0) return Missing::kNoBitmap;
    png->assign(data, length);
    return Missing::kNone;
  }

 private:
  EmojiFont() = default;
  Owned<hb_font_t, hb_font_destroy> font_;
  Owned<hb_buffer_t, hb_buffer_destroy> buffer_;
};

std::u32string WithoutPresentation(const std::u32string& sequence) {
  std::u32string out;
  for (const char32_t c : sequence) {
    if (c != 0xFE0F) out += c;
  }
  return out;
}

std::string FileName(const std::u32string& sequence) {
  return absl::StrJoin(sequence, "_", [](std::string* out, char32_t c) {
    absl::StrAppend(out, absl::StrFormat("%04x", static_cast<uint32_t>(c)));
  });
}

bool Readable(const std::string& path) {
  return access(path.c_str(), R_OK) == 0;
}

}  // namespace

absl::Status FindEmojiInputs(EmojiOptions* options) {
  if (options->font.empty()) {
    const std::vector<std::string> candidates = {
        "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",
        "/usr/share/fonts/noto/NotoColorEmoji.ttf",
        "/usr/share/fonts/google-noto-emoji/NotoColorEmoji.ttf",
        "/usr/local/share/fonts/NotoColorEmoji.ttf"};
    for (const std::string& path : candidates) {
      if (options->font.empty() && Readable(path)) options->font = path;
    }
    if (options->font.empty()) {
      return absl::NotFoundError(absl::StrCat(
          "no Noto Color Emoji font at ", absl::StrJoin(candidates, ", "),
          "; install the Debian package fonts-noto-color-emoji or name the "
          "file with --font"));
    }
  }
  if (options->annotations.empty()) {
    const std::string root = "/usr/share/unicode/cldr/common/";
    options->annotations = {root + "annotations/en.xml",
                            root + "annotationsDerived/en.xml"};
  }
  if (options->labels.empty()) {
    options->labels = "/usr/share/unicode/cldr/common/properties/labels.txt";
  }
  std::vector<std::string> wanted = options->annotations;
  wanted.push_back(options->labels);
  for (const std::string& path : wanted) {
    if (!Readable(path)) {
      return absl::NotFoundError(absl::StrCat(
          "cannot read the CLDR names ", path,
          "; install the Debian package unicode-cldr-core or name the files "
          "with --cldr and --labels"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::u32string> DecodeUtf8(const std::string& text) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    int length = static_cast<int>(text.size() - i);
    const int c = xmlGetUTF8Char(
        reinterpret_cast<const unsigned char*>(text.data() + i), &length);
    if (c < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("invalid UTF-8 at byte ", i));
    }
    out += static_cast<char32_t>(c);
    i += length;
  }
  return out;
}

absl::StatusOr<std::vector<Annotation>> ReadAnnotations(
    const std::string& path) {
  Owned<xmlDoc, xmlFreeDoc> doc(
      xmlReadFile(path.c_str(), nullptr,
                  XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING));
  if (doc == nullptr) {
    const auto* error = xmlGetLastError();
    return absl::InvalidArgumentError(absl::StrCat(
        path, ":", error == nullptr ? 0 : error->line, ": not valid XML: ",
        error == nullptr || error->message == nullptr
            ? "cannot be read"
            : absl::StripAsciiWhitespace(error->message),
        "; expected a CLDR annotations file (<ldml><annotations>)"));
  }
  const auto is = [](const xmlNode* node, const char* name) {
    return node->type == XML_ELEMENT_NODE &&
           xmlStrcmp(node->name, BAD_CAST name) == 0;
  };
  const auto to_string = [](xmlChar* text) {
    std::string out =
        text == nullptr ? "" : reinterpret_cast<const char*>(text);
    xmlFree(text);
    return out;
  };
  std::vector<Annotation> out;
  std::map<std::string, size_t> position;
  std::map<std::string, std::vector<std::string>> keywords;
  const xmlNode* root = xmlDocGetRootElement(doc.get());
  for (const xmlNode* list = root == nullptr ? nullptr : root->children;
       list != nullptr; list = list->next) {
    if (!is(list, "annotations")) continue;
    for (xmlNode* node = list->children; node != nullptr; node = node->next) {
      if (!is(node, "annotation")) continue;
      const std::string cp = to_string(xmlGetProp(node, BAD_CAST "cp"));
      const std::string type = to_string(xmlGetProp(node, BAD_CAST "type"));
      const std::string text(
          absl::StripAsciiWhitespace(to_string(xmlNodeGetContent(node))));
      const auto sequence = DecodeUtf8(cp);
      if (cp.empty() || text.empty() || !sequence.ok()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ":", xmlGetLineNo(node),
                         ": an annotation needs an attribute cp and a text"));
      }
      if (type == "tts") {
        if (!position.emplace(cp, out.size()).second) {
          return absl::InvalidArgumentError(absl::StrCat(
              path, ":", xmlGetLineNo(node), ": a second name for ", cp));
        }
        out.push_back({*sequence, text, {}});
      } else {
        for (absl::string_view word : absl::StrSplit(text, '|')) {
          word = absl::StripAsciiWhitespace(word);
          if (!word.empty()) keywords[cp].emplace_back(word);
        }
      }
    }
  }
  for (auto& [cp, words] : keywords) {
    const auto it = position.find(cp);
    if (it != position.end()) out[it->second].keywords = std::move(words);
  }
  if (out.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path,
        ": no <annotation cp=\"...\" type=\"tts\">; expected a CLDR "
        "annotations file"));
  }
  return out;
}

absl::StatusOr<EmojiStats> ConvertEmoji(const EmojiOptions& options,
                                        OutputFolder* out,
                                        std::vector<Pair>* pairs) {
  auto font = EmojiFont::Open(options.font);
  if (!font.ok()) return font.status();
  std::vector<Annotation> annotations;
  std::set<std::u32string> seen;
  for (const std::string& path : options.annotations) {
    auto part = ReadAnnotations(path);
    if (!part.ok()) return part.status();
    for (Annotation& annotation : *part) {
      if (!seen.insert(annotation.sequence).second) continue;
      annotations.push_back(std::move(annotation));
    }
  }
  EmojiStats stats;
  stats.names = static_cast<int64_t>(annotations.size());
  std::set<std::string> images;
  Progress progress("emoji", stats.names);
  for (Annotation& annotation : annotations) {
    progress.Add();
    std::string png;
    Missing missing = font->Png(annotation.sequence, &png);
    const std::u32string plain = WithoutPresentation(annotation.sequence);
    if (missing != Missing::kNone && plain != annotation.sequence) {
      missing = font->Png(plain, &png);
    }
    stats.no_glyph += missing == Missing::kNoGlyph;
    stats.several += missing == Missing::kSeveral;
    stats.no_bitmap += missing == Missing::kNoBitmap;
    if (missing != Missing::kNone) continue;
    ++stats.found;
    const std::string name = FileName(annotation.sequence);
    Pair pair;
    pair.image = absl::StrCat("images/emoji/", name, ".png");
    pair.caption = annotation.name;
    pair.image_id = absl::StrCat("emoji/", name);
    pair.source = "emoji";
    pair.keywords = std::move(annotation.keywords);
    const std::string hash = Sha256Hex(png);
    stats.repeated_image += !images.insert(hash).second;
    pair.group_keys = {absl::StrCat("phrase:", EmojiConcept(annotation.name)),
                       absl::StrCat("pixels:", hash)};
    const std::u32string base = EmojiBaseSequence(annotation.sequence);
    if (!base.empty()) {
      pair.group_keys.push_back(absl::StrCat("sequence:", FileName(base)));
    }
    absl::Status status = out->Write(pair.image, png);
    if (!status.ok()) return status;
    pairs->push_back(std::move(pair));
  }
  progress.Done();
  return stats;
}

}  // namespace semvq::tools
