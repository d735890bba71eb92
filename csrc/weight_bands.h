// SPDX-License-Identifier: Apache-2.0
// Gradients for weights of any size.
//
// The kernels multiply a weight by 2^100 and by factors down to 1 / (h w n^2), so in float32 they are right for weights
// from 2^-56 to 2^24, which is every weight that training meets. An image that has others is evaluated once per band:
// its weights of 80 binary orders of magnitude, times a power of two that moves them into that range. The gradients of
// the bands are added in float64. An image without such weights is not touched, whatever its neighbours have.
#pragma once

#include "driver.h"

namespace mlr {

// Whether the kernels' arithmetic covers these weights; weights that are not finite count as covered.
bool in_range(const float* weights, int64_t n);
// The same for every image of a batch, weights [images, n].
bool all_in_range(const float* weights, int64_t images, int64_t n);

// run_batch for weights of any size; maps must be float32.
void run_batch_of_any_weights(const Plan& plan, const Batch& batch, const Kernels& kernels, int threads,
                              const ParallelFor& parallel_for);

}  // namespace mlr
