// SPDX-License-Identifier: Apache-2.0
// What one call works on: the selected losses, the sizes of the scales, and where each map of an image lies in a
// workspace. Plain data, shared by the driver and by every instruction set's kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kinds.h"

namespace mlr {

// Float maps have replicated borders, 32 pixels on the left and at least 32 on the right, so that a window of 65 and
// every derivative read without a test.
constexpr int kPad = 32;
// Rows repeated below a float map: what a second difference reads.
constexpr int kBelow = 2;
// Scale 0 is resampled in cells of 32 rows: every row of every scale belongs to one of them.
constexpr int kCell = 32;
// Rows over which sums run in float before they go on in double.
constexpr int kSumRows = 8;
// About how many rows a strip has.
constexpr int kStripRows = 72;
// Rows of a block of the second pass: the longer, the rarer its columns begin anew.
constexpr int kBlock = 36;

// The stencil makes signs by clamping to +-2^-100 and takes weights per 2^-100. A difference smaller than that counts
// as a part of a sign; differences of depths in any unit are far larger or 0.
constexpr float kSignUnit = 0x1p-100f, kPerSignUnit = 0x1p100f;

enum class Element { kFloat32, kFloat16, kBFloat16 };

// Bytes past a sign map that the last vectors of its last row may write: four vectors of the widest set are 64 signs.
constexpr int kSignOverrun = 64;

struct Scale {
  int h = 0, w = 0;
  int pitch = 0;                   // floats of a row of a float map, bytes of a row of a sign map
  bool collapsed = false;          // shorter than 2^k along a side: one pixel from the middle (bicubic only)
  unsigned kinds = 0;              // selected kinds
  bool exists = false;             // something is computed on this scale (or, for the area pyramid, passes through it)
  bool target = false;             // its target map is needed
  int strip_rows = 0, strips = 0;  // the unit of work and of summation: fixed by the size alone, so that neither the
                                   // number of threads nor the batch can change a sum
  int words = 0;                   // 64-bit words of a row of the mask
  // offsets in bytes in an image's workspace; a window has one map: signs as bytes, or under a mask its cotangents
  size_t error = 0, target_map = 0, grad = 0, sums = 0, valid = 0, sign[kWindows] = {};
};

struct Plan {
  int h = 0, w = 0;
  bool area = false;
  bool gradient = false;
  bool masked = false;
  Element element = Element::kFloat32;
  std::vector<int64_t> indices;
  Scale scale[kScales];
  int cells = 0;
  uint32_t needed_rows = 0;       // rows of a cell that anything reads, bit by bit
  size_t cell_sums = 0;           // offset in an image's workspace
  size_t image_bytes = 0;         // workspace of one image
  std::vector<size_t> red_zones;  // offsets behind its maps, only under AddressSanitizer
};

// Sums of one strip of one scale.
struct StripSums {
  PerKind<double> kind;
  double sign;  // of E - mean E
};

// One image of the batch: its maps, masks, weights and sums in the workspace of a thread, handed from kernel to kernel.
struct ImageTask {
  const Plan* plan;
  const char *pred, *target;           // first pixel
  int64_t pred_stride, target_stride;  // of rows, in elements
  char* grad;                          // contiguous, or null
  char* work;                          // plan->image_bytes
  const uint8_t* mask;                 // bool, its first pixel; null if every pixel is valid
  int64_t mask_stride;                 // of rows
  double* cell_sums;                   // [kScales][cells]: sums of E, per cell
  StripSums* strip_sums[kScales];
  unsigned kinds[kScales];          // kinds to compute: selected, with a valid position, not 0 by definition
  bool holes[kScales];              // some pixel of the scale is invalid
  PerKind<int64_t> count[kScales];  // valid positions of the selected kinds and of D; h w without a mask
  PerKind<float> weight[kScales];   // weight / count, 0 where not selected
  float mean[kScales];              // mean of E
  float mean_sign[kScales];         // mean of sign(E - mean E)

  // whether the sum of E of a scale is wanted: for its mean, or as the only pixel's value
  bool sums_error(int k) const {
    return kinds[k] & bit(Kind::M) || (count[k][Kind::D] == 1 && plan->scale[k].kinds & kMeanKinds);
  }

  template <class T>
  T* map(size_t offset) const {
    return reinterpret_cast<T*>(work + offset);
  }
  float* error(int k) const { return map<float>(plan->scale[k].error); }
  float* target_map(int k) const { return map<float>(plan->scale[k].target_map); }
  float* grad_map(int k) const { return map<float>(plan->scale[k].grad); }
  int8_t* sign_map(int k, int window) const { return map<int8_t>(plan->scale[k].sign[window]); }
  float* cotangent_map(int k, int window) const { return map<float>(plan->scale[k].sign[window]); }
  uint64_t* valid_row(int k, int y) const {
    return map<uint64_t>(plan->scale[k].valid) + int64_t(y) * plan->scale[k].words;
  }
};

Plan make_plan(int h, int w, bool area, bool gradient, bool masked, Element element,
               const std::vector<int64_t>& indices);

// The kernels of one instruction set.
struct Kernels {
  const char* name;
  // the mask of every scale and the counts, of an image that has a mask
  void (*mask)(ImageTask&, char* scratch);
  // E and the target of one cell of rows of scale 0, and the rows of all scales that belong to it
  void (*pyramid)(const ImageTask&, int cell, char* scratch);
  // what needs the whole of scale 0: the one pixel of scales that the map is too small for
  void (*collapsed)(const ImageTask&);
  // losses M, M5, M17, M65 of strips [first, last) of a scale, and their sign maps
  void (*windows)(const ImageTask&, int scale, int first, int last, char* scratch);
  // the other losses of these strips, and the whole gradient of the scale
  void (*gradient)(const ImageTask&, int scale, int first, int last, char* scratch);
  // bytes of scratch that the above need
  size_t (*scratch_bytes)(const Plan&);
};

}  // namespace mlr
