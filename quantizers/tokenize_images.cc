// Prints the codes of images, a patch of 16 x 16 pixels each, row by row.
#include <ATen/ATen.h>

#include <iostream>

#include "core/objective/decoding.h"
#include "data/decode.h"
#include "data/transforms.h"
#include "quantizers/make_quantizer.h"

int main(int argc, char** argv) {
  auto quantizer = semvq::MakeQuantizer(
      "[type.googleapis.com/semvq.RandomProjectionConfig] { num_codes: 512 }",
      /*dim=*/3 * 16 * 16);
  if (!quantizer.ok()) return std::cerr << quantizer.status() << "\n", 1;
  semvq::ImageTransform transform;
  transform.set_size(64);
  for (int i = 1; i < argc; ++i) {
    auto image = semvq::DecodeImageFile(argv[i], /*max_pixels=*/100000000);
    if (!image.ok()) return std::cerr << image.status() << "\n", 1;
    const at::Tensor pixels = semvq::TransformImage(
        *image, transform, /*training=*/false, semvq::RandomStream(0));
    const auto patches = semvq::Patchify(pixels.unsqueeze(0), 16);
    const auto out = (*quantizer)->Quantize(patches, semvq::QuantizeContext());
    std::cout << argv[i] << ":" << out.codes.view({-1}) << "\n";
  }
}
