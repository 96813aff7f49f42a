#include "data/image_file.h"

#include <isa-l/crc.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace semvq {
namespace {

constexpr absl::string_view kPngSignature("\x89PNG\r\n\x1a\n", 8);

uint64_t BigEndian(absl::string_view s, size_t at, int bytes) {
  uint64_t v = 0;
  for (int i = 0; i < bytes; ++i)
    v = v << 8 | static_cast<unsigned char>(s[at + i]);
  return v;
}

uint64_t LittleEndian(absl::string_view s, size_t at, int bytes) {
  uint64_t v = 0;
  for (int i = bytes; i-- > 0;)
    v = v << 8 | static_cast<unsigned char>(s[at + i]);
  return v;
}

absl::Status CutOff(absl::string_view format, absl::string_view what,
                    size_t size) {
  return absl::InvalidArgumentError(
      absl::StrCat("the ", format, " is cut off: ", what,
                   ", but the file ends at byte ", size));
}

absl::StatusOr<ImageInfo> InspectPng(absl::string_view s) {
  ImageInfo info{ImageFormat::kPng, 0, 0, 0};
  for (size_t at = kPngSignature.size();;) {
    if (at + 12 > s.size())
      return CutOff("PNG", absl::StrCat("a chunk should follow at byte ", at),
                    s.size());
    const uint64_t length = BigEndian(s, at, 4);
    const absl::string_view type = s.substr(at + 4, 4);
    if (length > s.size() - at - 12) {
      return CutOff(
          "PNG",
          absl::StrCat("the chunk at byte ", at, " has ", length, " bytes"),
          s.size());
    }
    const uint32_t crc = crc32_gzip_refl(
        0, reinterpret_cast<const unsigned char*>(s.data()) + at + 4,
        length + 4);
    if (crc != BigEndian(s, at + 8 + length, 4)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the PNG is damaged: the checksum of the chunk '",
                       absl::CHexEscape(type), "' at byte ", at, " is wrong"));
    }
    if (info.width == 0) {
      if (type != "IHDR" || length != 13)
        return absl::InvalidArgumentError(
            "the PNG does not start with its header");
      info.width = static_cast<int64_t>(BigEndian(s, at + 8, 4));
      info.height = static_cast<int64_t>(BigEndian(s, at + 12, 4));
      if (info.width == 0 || info.height == 0)
        return absl::InvalidArgumentError("the PNG's header gives a side of 0");
    }
    if (type == "IEND") return info;
    at += 12 + length;
  }
}

absl::StatusOr<ImageInfo> InspectJpeg(absl::string_view s) {
  ImageInfo info{ImageFormat::kJpeg, 0, 0, 0};
  const auto byte = [s](size_t at) {
    return static_cast<unsigned char>(s[at]);
  };
  size_t at = 2;
  while (true) {
    // Bytes between segments that are not a marker are entropy-coded data (or
    // rubbish that decoders skip, too).
    at = s.find('\xFF', at);
    if (at == absl::string_view::npos || at + 1 >= s.size()) {
      return CutOff("JPEG", "its end marker FF D9 is not there", s.size());
    }
    const int marker = byte(at + 1);
    if (marker == 0xFF) {  // Fill byte.
      ++at;
      continue;
    }
    at += 2;
    if (marker == 0xD9) {
      if (info.width == 0)
        return absl::InvalidArgumentError("the JPEG ends before any image");
      return info;
    }
    if (marker == 0x00 || marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8))
      continue;  // No payload.
    if (at + 2 > s.size())
      return CutOff("JPEG",
                    absl::StrCat("a segment should follow at byte ", at),
                    s.size());
    const uint64_t length = BigEndian(s, at, 2);
    if (length < 2 || length > s.size() - at) {
      return CutOff(
          "JPEG",
          absl::StrCat("the segment at byte ", at, " has ", length, " bytes"),
          s.size());
    }
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 &&
                       marker != 0xC8 && marker != 0xCC;
    if (frame) {
      // The first one's size is what a decoder would make room for.
      if (info.width != 0)
        return absl::InvalidArgumentError(
            "the JPEG is damaged: it has two frame headers");
      if (length < 8)
        return absl::InvalidArgumentError(
            "the JPEG's frame header is too short");
      info.height = static_cast<int64_t>(BigEndian(s, at + 3, 2));
      info.width = static_cast<int64_t>(BigEndian(s, at + 5, 2));
      info.channels = byte(at + 7);
      if (info.width == 0 || info.height == 0)
        return absl::InvalidArgumentError(
            "the JPEG's header gives a side of 0");
    }
    at += length;
  }
}

absl::StatusOr<ImageInfo> InspectWebp(absl::string_view s) {
  if (s.size() < 30) return CutOff("WebP", "its header has 30 bytes", s.size());
  const uint64_t end = LittleEndian(s, 4, 4) + 8;
  if (end > s.size())
    return CutOff("WebP", absl::StrCat("it has ", end, " bytes"), s.size());
  ImageInfo info{ImageFormat::kWebp, 0, 0, 0};
  const absl::string_view kind = s.substr(12, 4);
  if (kind == "VP8X") {
    info.width = static_cast<int64_t>(LittleEndian(s, 24, 3)) + 1;
    info.height = static_cast<int64_t>(LittleEndian(s, 27, 3)) + 1;
  } else if (kind == "VP8L") {
    const uint64_t bits = LittleEndian(s, 21, 4);
    info.width = static_cast<int64_t>(bits & 0x3FFF) + 1;
    info.height = static_cast<int64_t>(bits >> 14 & 0x3FFF) + 1;
  } else if (kind == "VP8 ") {
    info.width = static_cast<int64_t>(LittleEndian(s, 26, 2) & 0x3FFF);
    info.height = static_cast<int64_t>(LittleEndian(s, 28, 2) & 0x3FFF);
  }
  if (info.width == 0 || info.height == 0)
    return absl::InvalidArgumentError("the WebP's header is damaged");
  return info;
}

// "starts with '<html>'", or the bytes where they are no text.
std::string StartsWith(absl::string_view s) {
  const absl::string_view head = s.substr(0, 16);
  const bool text = std::all_of(head.begin(), head.end(), [](char c) {
    return absl::ascii_isprint(c) || absl::ascii_isspace(c);
  });
  return text ? absl::StrCat("it starts with '", absl::CHexEscape(head), "'")
              : absl::StrCat("it starts with the bytes ",
                             absl::BytesToHexString(head.substr(0, 8)));
}

}  // namespace

absl::StatusOr<ImageInfo> InspectImage(absl::string_view s) {
  constexpr absl::string_view kExpected = "expected a PNG, JPEG or WebP image";
  if (s.empty())
    return absl::InvalidArgumentError(
        absl::StrCat("the file is empty (0 bytes); ", kExpected));
  if (absl::StartsWith(s, kPngSignature)) return InspectPng(s);
  if (absl::StartsWith(s, "\xFF\xD8\xFF")) return InspectJpeg(s);
  if (absl::StartsWith(s, "RIFF") && s.size() >= 12 && s.substr(8, 4) == "WEBP")
    return InspectWebp(s);
  return absl::InvalidArgumentError(absl::StrCat(
      "not an image that SemVQ reads: ", StartsWith(s), "; ", kExpected));
}

std::string StripPng(absl::string_view s) {
  std::string out(kPngSignature);
  out.reserve(s.size());
  for (size_t at = kPngSignature.size(); at + 12 <= s.size();) {
    const size_t size = 12 + BigEndian(s, at, 4);
    const absl::string_view type = s.substr(at + 4, 4);
    if (absl::ascii_isupper(type[0]) || type == "tRNS")
      out.append(s.data() + at, size);
    if (type == "IEND") break;
    at += size;
  }
  return out;
}

}  // namespace semvq
