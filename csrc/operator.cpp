// SPDX-License-Identifier: Apache-2.0
// mlr::multi_loss for CPU tensors: checks, allocation and the way into the driver. The schema is that of
// mlr/losses/operator.py.
#define TORCH_TARGET_VERSION 0x020A000000000000  // the stable ABI of torch 2.10: built once, runs with any later
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/shim_utils.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.h"
#include "driver.h"
#include "weight_bands.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::string text(const Tensor& t) {
  std::string s = "[";
  for (int64_t i = 0; i < t.dim(); i++) s += (i ? ", " : "") + std::to_string(t.size(i));
  return s + "]";
}

// float64 is the reference's
std::tuple<Tensor, Tensor, Tensor> reference(const Tensor& pred, const Tensor& target,
                                             const std::optional<Tensor>& weights, const std::vector<int64_t>& indices,
                                             const std::string& downsample, const std::optional<Tensor>& mask) {
  using torch::stable::detail::from;
  using torch::stable::detail::to;
  StableIValue stack[6] = {from(pred), from(target), from(weights), from(indices), from(downsample), from(mask)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("mlr::multi_loss_reference", "", stack, TORCH_ABI_VERSION));
  return {to<Tensor>(stack[0]), to<Tensor>(stack[1]), to<Tensor>(stack[2])};
}

// Rows must be contiguous; images and rows may lie anywhere (a slice of a larger tensor is not copied).
Tensor with_dense_rows(const Tensor& t) {
  const int64_t w = t.size(t.dim() - 1);
  return w == 1 || t.stride(t.dim() - 1) == 1 ? t : torch::stable::contiguous(t);
}

std::tuple<Tensor, Tensor, Tensor> multi_loss(const Tensor& pred_in, const Tensor& target_in,
                                              std::optional<Tensor> weights_in, const std::vector<int64_t>& indices,
                                              std::string downsample, std::optional<Tensor> mask_in) {
  STD_TORCH_CHECK((pred_in.dim() == 3 || (pred_in.dim() == 4 && pred_in.size(1) == 1)) && pred_in.numel() > 0,
                  "mlr::multi_loss: pred must be [B, 1, H, W] or [B, H, W] with B, H, W >= 1, got ", text(pred_in));
  const int64_t dim = pred_in.dim(), images = pred_in.size(0), h = pred_in.size(dim - 2), w = pred_in.size(dim - 1);
  STD_TORCH_CHECK(text(target_in) == text(pred_in), "mlr::multi_loss: target must have the shape of pred, ",
                  text(pred_in), ", got ", text(target_in));
  STD_TORCH_CHECK(target_in.scalar_type() == pred_in.scalar_type() && target_in.is_cpu(),
                  "mlr::multi_loss: target must have the type and device of pred");
  STD_TORCH_CHECK(h <= (1 << 24) && w <= (1 << 24), "mlr::multi_loss: maps of more than 2^24 pixels a side, got ",
                  text(pred_in));
  STD_TORCH_CHECK(downsample == "bicubic" || downsample == "area",
                  "mlr::multi_loss: downsample must be bicubic or area, got '", downsample, "'");
  bool seen[mlr::kLosses] = {};
  for (const int64_t t : indices) {
    STD_TORCH_CHECK(t >= 0 && t < mlr::kLosses && !seen[t], "mlr::multi_loss: indices must be distinct numbers ",
                    mlr::kKinds, " * scale + kind in 0..", mlr::kLosses - 1, ", got ", t);
    seen[t] = true;
  }
  STD_TORCH_CHECK(!indices.empty(), "mlr::multi_loss: indices must name at least one loss");
  const int64_t n = int64_t(indices.size());
  if (weights_in)
    STD_TORCH_CHECK(weights_in->dim() == 2 && weights_in->size(0) == images && weights_in->size(1) == n,
                    "mlr::multi_loss: weights must be [", images, ", ", n, "], got ", text(*weights_in));

  if (mask_in) {
    STD_TORCH_CHECK(mask_in->scalar_type() == ScalarType::Bool && mask_in->is_cpu(),
                    "mlr::multi_loss: mask must be bool and on the device of pred");
    const int64_t d = mask_in->dim();
    STD_TORCH_CHECK((d == 3 || (d == 4 && mask_in->size(1) == 1)) && mask_in->size(0) == images &&
                        mask_in->size(d - 2) == h && mask_in->size(d - 1) == w,
                    "mlr::multi_loss: mask must be [B, 1, H, W] or [B, H, W] in the size of pred, ", text(pred_in),
                    ", got ", text(*mask_in));
  }

  mlr::Element element;
  switch (pred_in.scalar_type()) {
    case ScalarType::Float:
      element = mlr::Element::kFloat32;
      break;
    case ScalarType::Half:
      element = mlr::Element::kFloat16;
      break;
    case ScalarType::BFloat16:
      element = mlr::Element::kBFloat16;
      break;
    case ScalarType::Double:
      return reference(pred_in, target_in, weights_in, indices, downsample, mask_in);
    default:
      STD_TORCH_CHECK(false, "mlr::multi_loss: pred must be float32, float16, bfloat16 or float64");
  }

  const Tensor pred = with_dense_rows(pred_in), target = with_dense_rows(target_in);
  std::optional<Tensor> weights;
  if (weights_in) {
    weights = torch::stable::contiguous(weights_in->scalar_type() == ScalarType::Float
                                            ? *weights_in
                                            : torch::stable::to(*weights_in, ScalarType::Float));
  }
  if (weights && element != mlr::Element::kFloat32 &&
      !mlr::all_in_range(static_cast<const float*>(weights->const_data_ptr()), images, n)) {
    // weights of several bands: their gradients are added before they are rounded
    const auto single = [](const Tensor& t) { return torch::stable::to(t, ScalarType::Float); };
    const auto [values, grad, counts] = multi_loss(single(pred), single(target), weights, indices, downsample, mask_in);
    return {values, torch::stable::to(grad, pred_in.scalar_type()), counts};
  }
  const Tensor values = torch::stable::new_empty(pred_in, {images, n}, ScalarType::Float);
  const std::vector<int64_t> none = {0}, shape(pred_in.sizes().begin(), pred_in.sizes().end());
  const Tensor grad = torch::stable::new_empty(pred_in, weights ? shape : none);

  std::optional<Tensor> mask;
  if (mask_in) mask = with_dense_rows(*mask_in);
  const Tensor counts =
      torch::stable::new_empty(pred_in, mask ? std::vector<int64_t>{images, n} : none, ScalarType::Long);

  mlr::Batch batch{};
  batch.images = images;
  batch.pred = static_cast<const char*>(pred.const_data_ptr());
  batch.target = static_cast<const char*>(target.const_data_ptr());
  batch.pred_image_stride = pred.stride(0), batch.pred_row_stride = pred.stride(dim - 2);
  batch.target_image_stride = target.stride(0), batch.target_row_stride = target.stride(dim - 2);
  batch.weights = weights ? static_cast<const float*>(weights->const_data_ptr()) : nullptr;
  batch.terms = static_cast<float*>(values.mutable_data_ptr());
  batch.grad = weights ? static_cast<char*>(grad.mutable_data_ptr()) : nullptr;

  if (mask) {
    batch.mask = static_cast<const uint8_t*>(mask->const_data_ptr());
    batch.mask_image_stride = mask->stride(0), batch.mask_row_stride = mask->stride(mask->dim() - 2);
    batch.counts = static_cast<int64_t*>(counts.mutable_data_ptr());
  }

  const mlr::Plan plan =
      mlr::make_plan(int(h), int(w), downsample == "area", weights.has_value(), mask.has_value(), element, indices);
  const int threads = int(torch::stable::get_num_threads());
  const mlr::ParallelFor parallel_for = [](int64_t count, const std::function<void(int64_t, int64_t)>& body) {
    torch::stable::parallel_for(0, count, 1, body);
  };
  mlr::run_batch_of_any_weights(plan, batch, mlr::current_kernels(), threads, parallel_for);
  return {values, grad, counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mlr, CPU, m) { m.impl("multi_loss", TORCH_BOX(&multi_loss)); }
