// SPDX-License-Identifier: Apache-2.0
// A scale's second pass: block by block of rows, the adjoint of its windows, the gradients of coarser scales, and the
// stencil, which adds its own part and finishes the rows.
#pragma once

struct GradientScratch {
  float *base, *out;         // kBlock rows each
  float *g_rc, *g_cc, *g_c;  // one row each
  float* zeros;              // one row
  BlockPositions positions;  // under a mask
  char* windows;

  GradientScratch(const Scale& s, bool masked, char* scratch) {
    float* p = reinterpret_cast<float*>(scratch);
    auto rows = [&](int n) {
      float* r = p + kPad;
      p += int64_t(n) * s.pitch;
      return r;
    };
    base = rows(kBlock), out = rows(kBlock);
    g_rc = rows(1), g_cc = rows(1), g_c = rows(1), zeros = rows(1);
    char* rest = reinterpret_cast<char*>(p + kPad);
    if (masked) positions = BlockPositions(s, rest);
    windows = rest;
  }
  static size_t bytes(const Scale& s, bool masked) {
    const size_t windows = WindowAdjoint::scratch(s), masked_windows = masked ? MaskedAdjoint::scratch(s) : 0;
    return (size_t(2 * kBlock + 4) * s.pitch + kPad) * sizeof(float) + (masked ? BlockPositions::bytes(s) : 0) +
           (windows > masked_windows ? windows : masked_windows);
  }
};

template <class T>
MLR_INLINE void write_row(typename T::Storage* out, const float* row, int w) {
  int x = 0;
  for (; x + Vec::kLanes <= w; x += Vec::kLanes) T::store(out + x, Vec::load(row + x));
  if (x < w) T::store_first(out + x, Vec::load(row + x), w - x);
}

inline void write_rows(const ImageTask& im, int y0, int y1, const float* rows, int pitch) {
  const int w = im.plan->w;
  for (int y = y0; y < y1; y++, rows += pitch) {
    switch (im.plan->element) {
      case Element::kFloat32:
        break;  // written in place
      case Element::kFloat16:
        write_row<Float16>(reinterpret_cast<uint16_t*>(im.grad) + int64_t(y) * w, rows, w);
        break;
      case Element::kBFloat16:
        write_row<BFloat16>(reinterpret_cast<uint16_t*>(im.grad) + int64_t(y) * w, rows, w);
        break;
    }
  }
}

template <bool kMasked>
void gradient(const ImageTask& im, int k, int first, int last, char* scratch) {
  const Plan& plan = *im.plan;
  const Scale& s = plan.scale[k];
  const GradientScratch g(s, kMasked, scratch);
  const unsigned kinds = im.kinds[k];
  const StencilBlock block = choose_stencil<kMasked>(kinds, plan.gradient);
  using Adjoint = std::conditional_t<kMasked, MaskedAdjoint, WindowAdjoint>;
  const auto window_adjoint = plan.gradient ? Adjoint::choose(kinds) : nullptr;
  const bool pyramid = plan.gradient && has_pyramid_adjoint(plan, k);
  const bool based = window_adjoint || pyramid;
  const int begin = first * s.strip_rows;

  Adjoint adjoint;
  if (window_adjoint) adjoint.start(im, k, begin, g.windows);
  for (float* row : {g.zeros, g.g_rc, g.g_cc, g.g_c}) __builtin_memset(row - kPad, 0, s.pitch * sizeof(float));

  alignas(64) LaneSums sums;
  Stencil st{};
  st.kinds = kinds;
  st.h = s.h, st.w = s.w, st.pitch = s.pitch;
  st.error = im.error(k), st.target = s.target ? im.target_map(k) : nullptr;
  for_each_kind(~0u, [&](Kind kind) {
    st.weight[kind] = Vec(im.weight[k][kind] * (bit(kind) & kNormalKinds ? 1.0f : kPerSignUnit));
  });
  st.mean = Vec(im.mean[k]), st.constant = Vec(-im.weight[k][Kind::M] * im.mean_sign[k]);
  st.g_rc = g.g_rc, st.g_cc = g.g_cc, st.g_c = g.g_c;
  st.sums = &sums;
  st.base = g.zeros, st.base_pitch = 0;
  st.out = g.out, st.out_pitch = s.pitch;
  // the cotangents of the two rows above, where an earlier strip has not just left them
  if (begin > 0 && plan.gradient) {
    if constexpr (kMasked) st.positions = g.positions.fill(im, k, begin - 2, begin);
    block(st, begin - 2, begin, false);
  }
  const bool direct = k == 0 && plan.element == Element::kFloat32;  // the stencil writes the user's rows itself

  for (int strip = first; strip < last; strip++) {
    __builtin_memset(&sums, 0, sizeof sums);
    const int strip_end = clamp((strip + 1) * s.strip_rows, 0, s.h);
    for (int y0 = strip * s.strip_rows; y0 < strip_end; y0 += kBlock) {
      const int y1 = clamp(y0 + kBlock, 0, strip_end);
      if (based) {
        for (int y = y0; y < y1; y++) {
          float* row = g.base + int64_t(y - y0) * s.pitch;
          if (window_adjoint)
            window_adjoint(adjoint, y, row);
          else
            __builtin_memset(row - kPad, 0, s.pitch * sizeof(float));
          if (pyramid) add_pyramid_adjoint(im, k, y, row);
        }
        st.base = g.base, st.base_pitch = s.pitch;
      }
      if (plan.gradient && k > 0) st.out = im.grad_map(k) + int64_t(y0) * s.pitch;
      if (plan.gradient && direct) st.out = reinterpret_cast<float*>(im.grad) + int64_t(y0) * s.w, st.out_pitch = s.w;
      if constexpr (kMasked) st.positions = g.positions.fill(im, k, y0, y1);
      block(st, y0, y1, true);
      if (plan.gradient && k > 0 && plan.area && im.holes[k - 1]) share_gradient(im, k, y0, y1, st.out);
      if (plan.gradient && k == 1 && !plan.area) pad_half_gradient(plan.scale[0], s, st.out, y1 - y0);
      if (plan.gradient && k == 0 && !direct) write_rows(im, y0, y1, g.out, s.pitch);
    }
    StripSums& out = im.strip_sums[k][strip];
    for_each_kind(kinds & (bit(Kind::D) | kStencilKinds),
                  [&](Kind kind) { out.kind[kind] = sum_doubles(sums[kind].lanes); });
  }
}

inline void gradient(const ImageTask& im, int k, int first, int last, char* scratch) {
  im.holes[k] ? gradient<true>(im, k, first, last, scratch) : gradient<false>(im, k, first, last, scratch);
}
