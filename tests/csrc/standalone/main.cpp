// SPDX-License-Identifier: Apache-2.0
// The C++ engine's kernels for any CPU as a program without PyTorch, for machines that are emulated.
// stdin:  int64 [images, h, w, area, element, n, masked], indices int64 [n], weights float32 [images, n], pred, target,
//         mask bool like pred if masked
// stdout: terms float32 [images, n], gradient like pred, counts int64 [images, n] if masked
#include <cstdio>
#include <cstdlib>

#include "driver.h"

namespace mlr::baseline {
Kernels kernels();
}

template <class T>
std::vector<T> take(size_t n) {
  std::vector<T> v(n);
  if (std::fread(v.data(), sizeof(T), n, stdin) != n) {
    std::fputs("stdin ended early\n", stderr);
    std::exit(1);
  }
  return v;
}

int main() {
  const auto head = take<int64_t>(7);
  const int64_t images = head[0], h = head[1], w = head[2], n = head[5];
  const auto element = mlr::Element(head[4]);
  const size_t bytes = size_t(images * h * w) * (element == mlr::Element::kFloat32 ? 4 : 2);
  const bool masked = head[6] != 0;
  const auto indices = take<int64_t>(size_t(n));
  const auto weights = take<float>(size_t(images * n));
  const auto pred = take<char>(bytes), target = take<char>(bytes);
  const auto mask = take<uint8_t>(masked ? size_t(images * h * w) : 0);
  std::vector<float> values(size_t(images * n));
  std::vector<int64_t> counts(masked ? size_t(images * n) : 0);
  std::vector<char> grad(bytes);

  mlr::Batch batch{};
  batch.images = images;
  batch.pred = pred.data(), batch.target = target.data();
  batch.pred_image_stride = batch.target_image_stride = h * w;
  batch.pred_row_stride = batch.target_row_stride = w;
  batch.weights = weights.data();
  batch.terms = values.data(), batch.grad = grad.data();
  if (masked) {
    batch.mask = mask.data(), batch.counts = counts.data();
    batch.mask_image_stride = h * w, batch.mask_row_stride = w;
  }
  const mlr::Plan plan = mlr::make_plan(int(h), int(w), head[3] != 0, true, masked, element, indices);
  mlr::run_batch(plan, batch, mlr::baseline::kernels(), 1,
                 [](int64_t count, const std::function<void(int64_t, int64_t)>& body) { body(0, count); });
  std::fwrite(values.data(), sizeof(float), values.size(), stdout);
  std::fwrite(grad.data(), 1, grad.size(), stdout);
  std::fwrite(counts.data(), sizeof(int64_t), counts.size(), stdout);
}
