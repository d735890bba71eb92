// SPDX-License-Identifier: Apache-2.0
#include "weight_bands.h"

#include <algorithm>
#include <cmath>

namespace mlr {

namespace {

// |w| in [2^kLowest, 2^kHighest)
constexpr int kLowest = -56, kHighest = 24;
constexpr float kSmallest = 0x1p-56f, kBound = 0x1p24f;

// The e with |w| in [2^(e-1), 2^e).
int binary_exponent(float w) {
  int e;
  std::frexp(w, &e);
  return e;
}

// One image's gradient, band by band, into batch.grad.
void run_bands(const Plan& plan, const Batch& image, const Kernels& kernels, int threads,
               const ParallelFor& parallel_for) {
  const size_t n = plan.indices.size(), pixels = size_t(plan.h) * plan.w;
  std::vector<float> weights(n), terms(n), part(pixels), left(image.weights, image.weights + n);
  std::vector<int64_t> counts(n);
  std::vector<double> sum(pixels, 0.0);
  Batch batch = image;
  batch.weights = weights.data(), batch.terms = terms.data(), batch.grad = reinterpret_cast<char*>(part.data());
  if (batch.counts) batch.counts = counts.data();
  while (true) {
    bool any = false;
    int top = 0;
    for (const float w : left)
      if (w != 0) top = any ? std::max(top, binary_exponent(w)) : binary_exponent(w), any = true;
    if (!any) break;
    const int shift = top - kHighest;
    for (size_t j = 0; j < n; j++) {
      const bool here = left[j] != 0 && binary_exponent(left[j]) - shift > kLowest;
      weights[j] = here ? std::ldexp(left[j], -shift) : 0.0f;
      if (here) left[j] = 0;
    }
    run_batch(plan, batch, kernels, threads, parallel_for);
    for (size_t i = 0; i < pixels; i++) sum[i] += std::ldexp(double(part[i]), shift);
  }
  std::transform(sum.begin(), sum.end(), reinterpret_cast<float*>(image.grad), [](double g) { return float(g); });
}

}  // namespace

bool in_range(const float* weights, int64_t n) {
  bool outside = false;
  for (int64_t j = 0; j < n; j++) {
    if (!std::isfinite(weights[j])) return true;
    const float size = std::fabs(weights[j]);
    outside |= size != 0 && (size < kSmallest || size >= kBound);
  }
  return !outside;
}

bool all_in_range(const float* weights, int64_t images, int64_t n) {
  for (int64_t b = 0; b < images; b++)
    if (!in_range(weights + b * n, n)) return false;
  return true;
}

void run_batch_of_any_weights(const Plan& plan, const Batch& batch, const Kernels& kernels, int threads,
                              const ParallelFor& parallel_for) {
  const int64_t n = int64_t(plan.indices.size());
  std::vector<int64_t> outside;
  if (batch.weights)
    for (int64_t b = 0; b < batch.images; b++)
      if (!in_range(batch.weights + b * n, n)) outside.push_back(b);
  if (outside.empty()) return run_batch(plan, batch, kernels, threads, parallel_for);

  std::vector<float> weights(batch.weights, batch.weights + batch.images * n);
  for (const int64_t b : outside) std::fill_n(weights.begin() + b * n, n, 0.0f);
  Batch rest = batch;
  rest.weights = weights.data();
  run_batch(plan, rest, kernels, threads, parallel_for);
  for (const int64_t b : outside) run_bands(plan, image_of(batch, plan, b), kernels, threads, parallel_for);
}

}  // namespace mlr
