// SPDX-License-Identifier: Apache-2.0
// The op on a batch: sizes, workspaces, phases and threads.
#pragma once

#include <functional>

#include "layout.h"

namespace mlr {

struct Batch {
  int64_t images;
  const char *pred, *target;
  int64_t pred_image_stride, pred_row_stride, target_image_stride, target_row_stride;  // in elements
  const float* weights;                                                                // [images, n], or null
  const uint8_t* mask;                                                                 // bool, or null
  int64_t mask_image_stride, mask_row_stride;
  float* terms;     // [images, n]
  int64_t* counts;  // [images, n], or null
  char* grad;       // contiguous, or null
};

// Calls body(begin, end) on parts of [0, n), in parallel.
using ParallelFor = std::function<void(int64_t n, const std::function<void(int64_t, int64_t)>& body)>;

void run_batch(const Plan& plan, const Batch& batch, const Kernels& kernels, int threads,
               const ParallelFor& parallel_for);

// Image b of a batch as a batch of its own.
Batch image_of(const Batch& batch, const Plan& plan, int64_t b);

// Bytes of workspace and scratch one thread needs for maps of this size.
size_t thread_bytes(const Plan& plan, const Kernels& kernels);

}  // namespace mlr
