// The pixels behind the codes.
#ifndef SEMVQ_TASKS_CODEBOOK_SEMANTICS_PATCHES_H_
#define SEMVQ_TASKS_CODEBOOK_SEMANTICS_PATCHES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace semvq {

// How images are cut: into as many cells as there are tokens, a square grid
// where their number is one, else a row of columns.
struct PatchGrid {
  int64_t rows = 0, columns = 0;  // Cells.
  int64_t height = 0, width = 0;  // Pixels of a cell.
};
PatchGrid GridOf(const at::Tensor& images, int64_t tokens);

// Images [B, C, H, W] as cells [B * tokens, C * height * width], row by row.
at::Tensor CutPatches(const at::Tensor& images, const PatchGrid& grid);

// A fixed number of the patches that pass by, each as likely as another. Which
// depends on the seed and on a patch's number, not on how they are batched.
class PatchSample {
 public:
  PatchSample(int64_t size, uint64_t seed) : size_(size), seed_(seed) {}

  // Whether the patch of that number would be kept now. What would not be now
  // never will: it need not be added.
  bool Wants(int64_t number) const;
  // Patches, float [n, P] on the CPU, of those numbers, each once.
  void Add(const at::Tensor& patches, const std::vector<int64_t>& numbers);
  // Those kept, by number: [min(size, n), P]; [0, 0] when there are none.
  at::Tensor Take() const;

 private:
  struct Kept {
    uint64_t priority;
    int64_t number, row;
    bool operator<(const Kept& other) const {
      return priority < other.priority;
    }
  };
  uint64_t Priority(int64_t number) const;

  int64_t size_;
  uint64_t seed_;
  std::vector<Kept> heap_;  // The highest priority, the next to go, in front.
  at::Tensor rows_;         // [size, P]
};

// A token, and how far its feature is from its code's vector.
struct NearPatch {
  double distance = 0;
  int64_t image = 0, position = 0;  // The image's sample number.
  bool operator<(const NearPatch& other) const;
};

// For every code the tokens that lie nearest to its vector.
class NearestPatches {
 public:
  explicit NearestPatches(int64_t per_code) : per_code_(per_code) {}
  void Add(int64_t code, const NearPatch& patch);
  // The nearest first.
  std::vector<NearPatch> Of(int64_t code) const;

 private:
  int64_t per_code_;
  std::map<int64_t, std::vector<NearPatch>> heaps_;
};

// A row of the picture: a code, its words, and pieces of images around patches
// of that code: float [3, h, w] each, as the model sees them, the patch itself
// the box (top, left, height, width).
struct SheetRow {
  int64_t code = 0;
  std::string title, text;
  struct Piece {
    at::Tensor pixels;
    int64_t top = 0, left = 0, height = 0, width = 0;
  };
  std::vector<Piece> pieces;
};

// The patch at `position` with what is around it, as far as the image goes.
SheetRow::Piece CutPiece(const at::Tensor& image, const PatchGrid& grid,
                         int64_t position);

// Writes the rows as one PNG. The lowest and the highest value of a colour on
// the sheet are shown as black and full.
absl::Status WriteSheet(const std::vector<SheetRow>& rows,
                        const std::string& path);

}  // namespace semvq

#endif  // SEMVQ_TASKS_CODEBOOK_SEMANTICS_PATCHES_H_
