// SPDX-License-Identifier: Apache-2.0
// The kernel source, compiled once per instruction set by kernels_*.cpp, which set MLR_INSTRUCTION_SET and MLR_SIMD.
namespace mlr {
namespace MLR_INSTRUCTION_SET {
#include "vec-inl.h"
#include "rows-inl.h"
#include "pyramid-inl.h"
#include "mask-inl.h"
#include "window_counts-inl.h"
#include "windows-inl.h"
#include "window_adjoint-inl.h"
#include "masked_window_adjoint-inl.h"
#include "pyramid_adjoint-inl.h"
#include "stencil-inl.h"
#include "gradient-inl.h"

inline size_t scratch_bytes(const Plan& plan) {
  size_t bytes = size_t(4) * plan.scale[0].pitch * sizeof(float);  // pyramid
  for (const Scale& s : plan.scale) {
    if (!s.exists) continue;
    for (size_t b : {windows_scratch(s, plan.masked), GradientScratch::bytes(s, plan.masked)})
      bytes = b > bytes ? b : bytes;
  }
  return bytes;
}

Kernels kernels() { return {MLR_INSTRUCTION_SET_NAME, mask, pyramid, collapsed, windows, gradient, scratch_bytes}; }
}  // namespace MLR_INSTRUCTION_SET
}  // namespace mlr
