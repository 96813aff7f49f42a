#include "data/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <string>

// clang-format off
#include <jpeglib.h>  // Needs FILE, so it stands last.
// clang-format on

#include "absl/strings/str_cat.h"
#include "data/recycled_memory.h"

namespace semvq {
namespace {

constexpr int kMaxScans = 500;
constexpr int kRowsAtATime = 16;

// libjpeg leaves an error by a jump. What the jump passes over must have no
// destructors: the functions below that call libjpeg have none.
struct Decoder {
  jpeg_decompress_struct info;
  jpeg_error_mgr error;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

Decoder* Of(j_common_ptr info) {
  return static_cast<Decoder*>(info->client_data);
}

void Fail(j_common_ptr info) {
  info->err->format_message(info, Of(info)->message);
  std::longjmp(Of(info)->jump, 1);
}

void CountScans(j_common_ptr info) {
  Decoder* decoder = Of(info);
  if (decoder->info.input_scan_number <= kMaxScans) return;
  std::snprintf(decoder->message, sizeof(decoder->message),
                "more than %d scans", kMaxScans);
  std::longjmp(decoder->jump, 1);
}

// Damaged data is decoded as far as it goes, as in Pillow.
void Ignore(j_common_ptr, int) {}
void Silent(j_common_ptr) {}

// Up to the size of the output, which info then holds.
bool Start(Decoder* decoder, absl::string_view bytes, int denominator) {
  if (setjmp(decoder->jump) != 0) return false;
  jpeg_create_decompress(&decoder->info);
  decoder->info.client_data = decoder;
  decoder->info.progress = &decoder->progress;
  jpeg_mem_src(&decoder->info,
               reinterpret_cast<const unsigned char*>(bytes.data()),
               static_cast<unsigned long>(bytes.size()));
  jpeg_read_header(&decoder->info, TRUE);
  decoder->info.out_color_space = JCS_RGB;
  decoder->info.scale_num = 1;
  decoder->info.scale_denom = static_cast<unsigned>(denominator);
  return jpeg_start_decompress(&decoder->info) == TRUE;
}

bool ReadRows(Decoder* decoder, uint8_t* rgb) {
  if (setjmp(decoder->jump) != 0) return false;
  const size_t stride = size_t{3} * decoder->info.output_width;
  while (decoder->info.output_scanline < decoder->info.output_height) {
    JSAMPROW rows[kRowsAtATime];
    const JDIMENSION count =
        std::min<JDIMENSION>(kRowsAtATime, decoder->info.output_height -
                                               decoder->info.output_scanline);
    for (JDIMENSION i = 0; i < count; ++i)
      rows[i] = rgb + (decoder->info.output_scanline + i) * stride;
    jpeg_read_scanlines(&decoder->info, rows, count);
  }
  return true;
}

}  // namespace

absl::StatusOr<at::Tensor> DecodeJpeg(absl::string_view bytes,
                                      int denominator) {
  Decoder decoder = {};
  decoder.info.err = jpeg_std_error(&decoder.error);
  decoder.info.client_data = &decoder;
  decoder.error.error_exit = Fail;
  decoder.error.emit_message = Ignore;
  decoder.error.output_message = Silent;
  decoder.progress.progress_monitor = CountScans;
  at::Tensor rgb;
  bool good = Start(&decoder, bytes, denominator);
  try {
    if (good) {
      rgb = LendPixels(decoder.info.output_height, decoder.info.output_width);
      good = ReadRows(&decoder, rgb.data_ptr<uint8_t>());
    }
  } catch (...) {
    jpeg_destroy_decompress(&decoder.info);
    throw;
  }
  jpeg_destroy_decompress(&decoder.info);
  if (!good) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the pixel data is damaged: libjpeg says ", decoder.message));
  }
  return rgb;
}

}  // namespace semvq
