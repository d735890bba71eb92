// SPDX-License-Identifier: Apache-2.0
// What the gradients of coarser scales give to a row: P_k^T g for one row y of scale 0.
// k = 1: along each axis pixel 2i gets the inner tap of i and the outer tap of i - 1, pixel 2i + 1 the inner tap of i
// and the outer tap of i + 1; a clamped tap falls on the border pixel itself.
// k >= 2: each output's taps lie inside its own cell of 2^k pixels.

#pragma once

// Prepares rows of the gradient of scale 1 for that: the neighbours that the border pixels see.
inline void pad_half_gradient(const Scale& fine, const Scale& s, float* grad, int rows) {
  for (int i = 0; i < rows; i++) {
    float* row = grad + int64_t(i) * s.pitch;
    const float last = fine.w % 2 ? 0.0f : row[s.w - 1];  // no output has a tap past an odd side's end
    row[-1] = row[0];
    for (int x = s.w; x < round_up(s.w, Vec::kLanes) + 2 * Vec::kLanes; x += Vec::kLanes) Vec::zero().store(row + x);
    row[s.w] = last;
  }
}

// The two rows of scale 1 that reach row y, with their taps.
struct HalfAdjoint {
  const float *inner, *outer;
  Vec inner_tap, outer_tap, before, here;
  MLR_INLINE HalfAdjoint(const Scale& fine, const Scale& s, const float* grad, int y) {
    const int i = y >> 1, j = clamp(y % 2 ? i + 1 : i - 1, 0, s.h);
    inner = grad + int64_t(clamp(i, 0, s.h - 1)) * s.pitch;
    outer = grad + int64_t(clamp(j, 0, s.h - 1)) * s.pitch;
    inner_tap = Vec(i < s.h ? kInnerTap : 0.0f);
    outer_tap = Vec(j == s.h && fine.h % 2 ? 0.0f : kOuterTap);
    before = at(-Vec::kLanes), here = at(0);
  }
  MLR_INLINE Vec at(int x) const { return fma(Vec::load(inner + x), inner_tap, Vec::load(outer + x) * outer_tap); }
  // pixels 2x .. 2x + 2N - 1; x must go up by N
  MLR_INLINE void step(int x, Vec& a, Vec& b) {
    const Vec next = at(x + Vec::kLanes), inner_part = here * Vec(kInnerTap), tap(kOuterTap);
    interleave(fma(from_left(before, here), tap, inner_part), fma(shift<1>(here, next), tap, inner_part), a, b);
    before = here, here = next;
  }
};

// v repeated 2^k times lane by lane, into 2^k vectors.
template <int k>
MLR_INLINE void spread(Vec v, Vec* out) {
  if constexpr (k == 0) {
    out[0] = v;
  } else {
    Vec a, b;
    interleave(v, v, a, b);
    spread<k - 1>(a, out);
    spread<k - 1>(b, out + (1 << (k - 1)));
  }
}

// Row y of scales k >= 2: which of the four taps it is, and where its outputs lie.
struct CellRow {
  const float* grad;  // null where no tap reaches the row
  float tap;
  MLR_INLINE CellRow(const Scale& s, int k, const float* map, int y) : grad(nullptr), tap(0) {
    const int i = y >> k, t = (y & ((1 << k) - 1)) - ((1 << k) / 2 - 2);
    if (!s.exists || s.collapsed || i >= s.h || t < 0 || t > 3) return;
    grad = map + int64_t(i) * s.pitch;
    tap = t == 0 || t == 3 ? kOuterTap : kInnerTap;
  }
};

template <int k>
MLR_INLINE void cells_row(const CellRow& row, int w, float* out) {
  constexpr int step = 1 << k, first = step / 2 - 2;
  alignas(64) float taps[step < Vec::kLanes ? Vec::kLanes : step] = {};
  for (int i = 0; i < int(sizeof taps / sizeof *taps); i += step) {
    taps[i + first] = taps[i + first + 3] = row.tap * kOuterTap;
    taps[i + first + 1] = taps[i + first + 2] = row.tap * kInnerTap;
  }
  for (int x = 0; x < w; x += Vec::kLanes) {
    Vec v[step];
    spread<k>(x + Vec::kLanes <= w ? Vec::load(row.grad + x) : Vec::load(row.grad + x) & lane_mask(w - x), v);
    float* o = out + x * step;
    // a whole vector of outputs may reach past the row: its cells there are no pixels
    const int used = clamp((w - x) * step, 0, step * Vec::kLanes);
    for (int i = 0; i < step && i * Vec::kLanes < used; i++)
      fma(v[i], Vec::load(taps + i * Vec::kLanes % step), Vec::load(o + i * Vec::kLanes)).store(o + i * Vec::kLanes);
  }
}

// Scales 1 and 2, which reach every row, in one pass: row = base + both.
MLR_INLINE void fine_adjoint_row(const Scale* scale, const float* half_grad, const CellRow& quarter, int y,
                                 float* out) {
  HalfAdjoint half(scale[0], scale[1], half_grad, y);
  alignas(64) float pattern[Vec::kLanes];
  for (int i = 0; i < Vec::kLanes; i++) pattern[i] = quarter.tap * (i % 4 == 0 || i % 4 == 3 ? kOuterTap : kInnerTap);
  const Vec taps = Vec::load(pattern);
  const int w = scale[2].w;
  for (int x = 0; 4 * x < scale[0].w; x += Vec::kLanes) {
    Vec v[4], a[4];
    spread<2>(x + Vec::kLanes <= w ? Vec::load(quarter.grad + x)
                                   : Vec::load(quarter.grad + x) & lane_mask(clamp(w - x, 0, Vec::kLanes)),
              v);
    half.step(2 * x, a[0], a[1]);
    half.step(2 * x + Vec::kLanes, a[2], a[3]);
    float* o = out + 4 * x;
    for (int i = 0; i < 4; i++) (fma(v[i], taps, a[i]) + Vec::load(o + i * Vec::kLanes)).store(o + i * Vec::kLanes);
  }
}

MLR_INLINE void coarse_cells_row(const CellRow& row, int k, int w, float* out) {
  const int step = 1 << k, first = step / 2 - 2;
  const float inner = row.tap * kInnerTap, outer = row.tap * kOuterTap;
  for (int x = 0; x < w; x++) {
    float* o = out + x * step + first;
    const float g = row.grad[x];
    o[0] += g * outer;
    o[1] += g * inner;
    o[2] += g * inner;
    o[3] += g * outer;
  }
}

inline void collapsed_adjoint_row(const Plan& plan, const float* grad, int y, float* out) {
  const MiddleTaps rows(plan.h), columns(plan.w);
  for (int i = 0; i < 4; i++)
    if (rows.position[i] == y)
      for (int j = 0; j < 4; j++) out[columns.position[j]] += rows.weight[i] * columns.weight[j] * grad[0];
}

inline void bicubic_adjoint_row(const ImageTask& im, int y, float* out) {
  const Scale* const scale = im.plan->scale;
  const bool half = scale[1].exists && !scale[1].collapsed;
  const CellRow quarter(scale[2], 2, im.grad_map(2), y);
  if (half && quarter.grad) {
    fine_adjoint_row(scale, im.grad_map(1), quarter, y, out);
  } else if (half) {
    HalfAdjoint step(scale[0], scale[1], im.grad_map(1), y);
    for (int x = 0; 2 * x < scale[0].w; x += Vec::kLanes) {
      Vec a, b;
      step.step(x, a, b);
      (Vec::load(out + 2 * x) + a).store(out + 2 * x);
      (Vec::load(out + 2 * x + Vec::kLanes) + b).store(out + 2 * x + Vec::kLanes);
    }
  } else if (quarter.grad) {
    cells_row<2>(quarter, scale[2].w, out);
  }
  for (int k = 3; k < kScales; k++) {
    const CellRow row(scale[k], k, im.grad_map(k), y);
    if (row.grad) k == 3 ? cells_row<3>(row, scale[k].w, out) : coarse_cells_row(row, k, scale[k].w, out);
  }
  for (int k = 1; k < kScales; k++)
    if (scale[k].exists && scale[k].collapsed) collapsed_adjoint_row(*im.plan, im.grad_map(k), y, out);
}

MLR_INLINE void area_adjoint_row(const Scale& fine, const Scale& s, const float* grad, int y, float* out) {
  const int i = fine.h > 1 ? y >> 1 : 0;
  if (i >= s.h) return;
  const float* g = grad + int64_t(i) * s.pitch;
  const float part = (fine.h > 1 ? 0.5f : 1.0f) * (fine.w > 1 ? 0.5f : 1.0f);
  if (fine.w == 1) {
    out[0] += part * g[0];
    return;
  }
  for (int x = 0; x < s.w; x++) {
    out[2 * x] += part * g[x];
    out[2 * x + 1] += part * g[x];
  }
}

// Prepares rows of the gradient of an area scale whose children are not all valid: a valid child gets
// gradient / valid children.
inline void share_gradient(const ImageTask& im, int k, int y0, int y1, float* grad) {
  const Scale& s = im.plan->scale[k];
  for (int y = y0; y < y1; y++, grad += s.pitch) {
    const AreaRow row(im, k, y);
    for (int x = 0; x < s.w; x += Vec::kLanes) row.over_valid(Vec::load(grad + x), x).store(grad + x);
  }
}

// What the gradients of coarser scales give to row y of scale k: all of them to scale 0 (bicubic), each to the next
// finer one (area).
inline bool has_pyramid_adjoint(const Plan& plan, int k) {
  if (plan.area) return k + 1 < kScales && plan.scale[k + 1].exists;
  for (int c = 1; c < kScales; c++)
    if (k == 0 && plan.scale[c].exists) return true;
  return false;
}

inline void add_pyramid_adjoint(const ImageTask& im, int k, int y, float* out) {
  const Scale* const scale = im.plan->scale;
  if (im.plan->area) {
    area_adjoint_row(scale[k], scale[k + 1], im.grad_map(k + 1), y, out);
    if (im.holes[k]) clear_invalid(im, k, y, out);
  } else {
    bicubic_adjoint_row(im, y, out);
  }
}
