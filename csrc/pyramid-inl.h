// SPDX-License-Identifier: Apache-2.0
// The pyramids of E = pred - target and of the target. Both are linear in the maps, so E^k = P_k E and the prediction
// of scale k is target^k + E^k: resampling the difference itself keeps the signs that pred^k - target^k rounds away.
//
// bicubic: scale k samples scale 0 directly with four taps per axis, -3/32 19/32 19/32 -3/32, starting at
//          2^k i + 2^(k-1) - 2: pixels 2i-1 .. 2i+2 for k = 1, inside the 2^k x 2^k cell of the output for k >= 2.
// area:    scale k is the 2 x 2 mean of scale k-1.
#pragma once

constexpr float kOuterTap = -3.0f / 32, kInnerTap = 19.0f / 32;

// E and the target of row y of scale 0 into rows of float maps, 0 at invalid pixels; returns the sum of E by lanes.
template <class T, bool kMasked>
MLR_INLINE Vec prepare_row(const ImageTask& im, int y, float* error, float* target) {
  const Plan& plan = *im.plan;
  const auto* p = reinterpret_cast<const typename T::Storage*>(im.pred) + y * im.pred_stride;
  const auto* t = reinterpret_cast<const typename T::Storage*>(im.target) + y * im.target_stride;
  const int w = plan.w, pitch = plan.scale[0].pitch;
  const uint64_t* const valid = kMasked ? im.valid_row(0, y) : nullptr;
  Vec sum = Vec::zero();
  auto keep = [&](int x, Vec pv, Vec tv) __attribute__((always_inline)) {
    if constexpr (kMasked) {
      const LaneMask lanes = LaneMask::load(valid, x);
      pv = pv & lanes, tv = tv & lanes;
    }
    const Vec e = (pv - tv) + Vec::zero();  // + 0 turns -0 (pred -0, target 0) into 0: windows-inl.h reads the sign bit
    e.store(error + x);
    if (target) tv.store(target + x);
    return e;
  };
  auto vector = [&](int x) __attribute__((always_inline)) { return keep(x, T::load(p + x), T::load(t + x)); };
  int x = 0;
  // four by four: sums wait less, and lose fewer digits
  for (; x + 4 * Vec::kLanes <= w; x += 4 * Vec::kLanes) {
    const Vec left = vector(x) + vector(x + Vec::kLanes);
    sum = sum + (left + (vector(x + 2 * Vec::kLanes) + vector(x + 3 * Vec::kLanes)));
  }
  for (; x + Vec::kLanes <= w; x += Vec::kLanes) sum = sum + vector(x);
  if (x < w) sum = sum + keep(x, T::load_first(p + x, w - x), T::load_first(t + x, w - x));
  replicate_border(error, w, pitch);
  if (target) replicate_border(target, w, pitch);
  return sum;
}

template <class T>
MLR_INLINE Vec prepare_row(const ImageTask& im, int y, float* error, float* target) {
  return im.holes[0] ? prepare_row<T, true>(im, y, error, target) : prepare_row<T, false>(im, y, error, target);
}

// Sets the invalid pixels of a row of scale k to 0.
MLR_INLINE void clear_invalid(const ImageTask& im, int k, int y, float* row) {
  const uint64_t* const valid = im.valid_row(k, y);
  for (int x = 0; x < im.plan->scale[k].w; x += Vec::kLanes)
    (Vec::load(row + x) & LaneMask::load(valid, x)).store(row + x);
}

MLR_INLINE Vec taps(Vec a, Vec b, Vec c, Vec d) { return fma(b + c, Vec(kInnerTap), (a + d) * Vec(kOuterTap)); }

// Four rows of a map, with replicated borders, seen through the vertical taps.
struct TapRows {
  const float* row[4];
  MLR_INLINE Vec at(int x) const {
    return taps(Vec::load(row[0] + x), Vec::load(row[1] + x), Vec::load(row[2] + x), Vec::load(row[3] + x));
  }
};

// The horizontal taps follow in registers. A row of scale 1: pixels 2i - 1 .. 2i + 2, in even and odd columns.
MLR_INLINE void half_row(const TapRows& rows, float* out, int w) {
  Vec even, odd, next_even, next_odd, before, last_odd;
  deinterleave(rows.at(-2 * Vec::kLanes), rows.at(-Vec::kLanes), before, last_odd);
  deinterleave(rows.at(0), rows.at(Vec::kLanes), even, odd);
  for (int x = 0; x < w; x += Vec::kLanes) {
    deinterleave(rows.at(2 * x + 2 * Vec::kLanes), rows.at(2 * x + 3 * Vec::kLanes), next_even, next_odd);
    taps(from_left(last_odd, odd), even, odd, shift<1>(even, next_even)).store(out + x);
    last_odd = odd, even = next_even, odd = next_odd;
  }
}

// Scale 2: the four pixels of a cell.
MLR_INLINE void quarter_row(const TapRows& rows, float* out, int w) {
  for (int x = 0; x < w; x += Vec::kLanes) {
    const int p = 4 * x;
    Vec even[2], odd[2], a, b, c, d;
    deinterleave(rows.at(p), rows.at(p + Vec::kLanes), even[0], odd[0]);
    deinterleave(rows.at(p + 2 * Vec::kLanes), rows.at(p + 3 * Vec::kLanes), even[1], odd[1]);
    deinterleave(even[0], even[1], a, c);
    deinterleave(odd[0], odd[1], b, d);
    taps(a, b, c, d).store(out + x);
  }
}

// Scales 3 to 5: the middle four pixels of a cell, one output at a time, for there are few.
MLR_INLINE void coarse_row(const TapRows& rows, int k, float* out, int w) {
  typedef float Float4 __attribute__((vector_size(16)));
  const int step = 1 << k, first = step / 2 - 2;
  const Float4 weights = {kOuterTap, kInnerTap, kInnerTap, kOuterTap};
  for (int x = 0; x < w; x++) {
    Float4 row[4];
    for (int i = 0; i < 4; i++) __builtin_memcpy(&row[i], rows.row[i] + x * step + first, sizeof row[i]);
    const Float4 column = ((row[1] + row[2]) * kInnerTap + (row[0] + row[3]) * kOuterTap) * weights;
    out[x] = (column[0] + column[3]) + (column[1] + column[2]);
  }
}

MLR_INLINE double sum_row(const float* row, int w) {
  Vec sum = Vec::zero();
  int x = 0;
  for (; x + Vec::kLanes <= w; x += Vec::kLanes) sum = sum + Vec::load(row + x);
  if (x < w) sum = sum + Vec::load_first(row + x, w - x);
  return sum_lanes(sum);
}

// Rows [first, last) of scale k as 2 x 2 means of the scale above (of 2 x 1 or 1 x 2 where a side is one pixel).
MLR_INLINE void area_rows(const Scale& above, const Scale& s, int first, int last, const float* in, float* out) {
  const int right = above.w > 1;
  for (int i = first; i < last; i++) {
    const float* a = in + int64_t(above.h > 1 ? 2 * i : 0) * above.pitch;
    const float* b = above.h > 1 ? a + above.pitch : a;
    float* o = out + int64_t(i) * s.pitch;
    if (right) {
      for (int x = 0; x < s.w; x += Vec::kLanes) {
        Vec even, odd;
        deinterleave(Vec::load(a + 2 * x) + Vec::load(b + 2 * x),
                     Vec::load(a + 2 * x + Vec::kLanes) + Vec::load(b + 2 * x + Vec::kLanes), even, odd);
        ((even + odd) * Vec(0.25f)).store(o + x);
      }
    } else {
      o[0] = (a[0] + b[0]) * 0.5f;
    }
    replicate_border(o, s.w, s.pitch);
  }
}

// A row of an area scale and its valid children.
struct AreaRow {
  const uint64_t *a, *b, *valid;
  bool wide;
  MLR_INLINE AreaRow(const ImageTask& im, int k, int i) {
    const Scale& above = im.plan->scale[k - 1];
    wide = above.w > 1;
    a = im.valid_row(k - 1, above.h > 1 ? 2 * i : 0);
    b = above.h > 1 ? a + above.words : a;
    valid = im.valid_row(k, i);
  }
  // v times all children / valid children of pixels x .. x + kLanes - 1, 0 where none is valid: a mean over all
  // becomes the mean over the valid ones, rounded once
  MLR_INLINE Vec over_valid(Vec v, int x) const {
    const Vec one(1.0f);
    const auto pair = [&](int at) { return (one & LaneMask::load(a, at)) + (one & LaneMask::load(b, at)); };
    Vec count;
    if (wide) {
      Vec even, odd;
      deinterleave(pair(2 * x), pair(2 * x + Vec::kLanes), even, odd);
      count = even + odd;
    } else {
      count = pair(x) + pair(x);
    }
    return v * Vec(4.0f) / count & LaneMask::load(valid, x);
  }
};

// The same means over the valid pixels alone.
inline void masked_area_rows(const ImageTask& im, int k, int first, int last, const float* in, float* out) {
  const Scale &above = im.plan->scale[k - 1], &s = im.plan->scale[k];
  area_rows(above, s, first, last, in, out);
  for (int i = first; i < last; i++) {
    const AreaRow row(im, k, i);
    float* const o = out + int64_t(i) * s.pitch;
    for (int x = 0; x < s.w; x += Vec::kLanes) row.over_valid(Vec::load(o + x), x).store(o + x);
    replicate_border(o, s.w, s.pitch);
  }
}

// The two maps of a scale: E, and the target where a normal needs it.
struct Maps {
  float* map[2];
  int count;
  Maps(const ImageTask& im, int k) : map{im.error(k), nullptr}, count(im.plan->scale[k].target ? 2 : 1) {
    if (count == 2) map[1] = im.target_map(k);
  }
};

// Bicubic rows are made as soon as their last tap's row of scale 0 is there, while all four are in the nearest cache.
struct BicubicCell {
  const ImageTask& im;
  int y0, y1;
  const float *above[2], *below[2];  // the rows next to the cell

  MLR_INLINE bool active(int k) const { return im.plan->scale[k].exists && !im.plan->scale[k].collapsed; }
  MLR_INLINE void make_row(int k, int i) const {
    const Scale& s = im.plan->scale[k];
    if (i >= s.h) return;
    const Maps from(im, 0), to(im, k);
    for (int m = 0; m < to.count; m++) {
      TapRows rows;
      for (int t = 0; t < 4; t++) {
        const int y = (i << k) + (1 << k) / 2 - 2 + t;
        rows.row[t] = y < y0 ? above[m] : y >= y1 ? below[m] : from.map[m] + int64_t(y) * im.plan->scale[0].pitch;
      }
      float* out = to.map[m] + int64_t(i) * s.pitch;
      if (k == 1)
        half_row(rows, out, s.w);
      else if (k == 2)
        quarter_row(rows, out, s.w);
      else
        coarse_row(rows, k, out, s.w);
      if (im.holes[k]) clear_invalid(im, k, i, out);
      replicate_border(out, s.w, s.pitch);
    }
  }
  // row y of scale 0 has arrived
  MLR_INLINE void arrived(int y) const {
    if (y % 2 == 0 && y > y0 && active(1)) make_row(1, y / 2 - 1);
    for (int k = 2; k < kScales; k++)
      if ((y & ((1 << k) - 1)) == (1 << k) / 2 + 1 && active(k)) make_row(k, y >> k);
  }
};

// One cell: rows [32 c, 32 c + 32) of scale 0 and the rows of every other scale whose taps start there.
template <class T>
void pyramid_cell(const ImageTask& im, int cell, char* scratch) {
  const Plan& plan = *im.plan;
  const Scale& s0 = plan.scale[0];
  const int y0 = cell * kCell, y1 = clamp(y0 + kCell, 0, plan.h);
  const Maps maps(im, 0);
  BicubicCell bicubic{im, y0, y1, {}, {}};
  const bool half = !plan.area && bicubic.active(1);
  if (half) {
    // taps of k = 1 reach one row above and one below the cell; those are another cell's, perhaps another thread's,
    // and are made again here
    float* rows[4];
    for (int i = 0; i < 4; i++) rows[i] = reinterpret_cast<float*>(scratch) + i * s0.pitch + kPad;
    prepare_row<T>(im, clamp(y0 - 1, 0, plan.h - 1), rows[0], maps.count == 2 ? rows[1] : nullptr);
    prepare_row<T>(im, clamp(y1, 0, plan.h - 1), rows[2], maps.count == 2 ? rows[3] : nullptr);
    for (int m = 0; m < 2; m++) bicubic.above[m] = rows[m], bicubic.below[m] = rows[2 + m];
  }

  Vec sum = Vec::zero();
  double total = 0;
  for (int y = y0; y < y1; y++) {
    if (plan.needed_rows >> (y - y0) & 1) {
      const int64_t at = int64_t(y) * s0.pitch;
      sum = sum + prepare_row<T>(im, y, maps.map[0] + at, maps.count == 2 ? maps.map[1] + at : nullptr);
    }
    if ((y - y0) % kSumRows == kSumRows - 1 || y + 1 == y1) {
      total += sum_lanes(sum);
      sum = Vec::zero();
    }
    if (!plan.area) bicubic.arrived(y);
  }
  if (half) bicubic.make_row(1, (y1 - 1) / 2);
  im.cell_sums[cell] = total;
  if (y1 == plan.h && s0.kinds & kStencilKinds)
    for (int m = 0; m < maps.count; m++) replicate_last_row(maps.map[m], plan.h, s0.pitch);

  for (int k = 1; k < kScales; k++) {
    const Scale& s = plan.scale[k];
    if (!s.exists || s.collapsed) continue;
    const int first = y0 >> k, last = clamp((y0 + kCell) >> k, 0, s.h);
    const Maps out(im, k);
    if (plan.area) {
      const Maps in(im, k - 1);
      for (int m = 0; m < out.count; m++)
        im.holes[k - 1] ? masked_area_rows(im, k, first, last, in.map[m], out.map[m])
                        : area_rows(plan.scale[k - 1], s, first, last, in.map[m], out.map[m]);
    }
    double sum_k = 0;
    if (im.sums_error(k))
      for (int i = first; i < last; i++) sum_k += sum_row(out.map[0] + int64_t(i) * s.pitch, s.w);
    im.cell_sums[k * plan.cells + cell] = sum_k;
    if (first < last && last == s.h)
      for (int m = 0; m < out.count; m++) replicate_last_row(out.map[m], s.h, s.pitch);
  }
}

inline void pyramid(const ImageTask& im, int cell, char* scratch) {
  switch (im.plan->element) {
    case Element::kFloat32:
      return pyramid_cell<Float32>(im, cell, scratch);
    case Element::kFloat16:
      return pyramid_cell<Float16>(im, cell, scratch);
    case Element::kBFloat16:
      return pyramid_cell<BFloat16>(im, cell, scratch);
  }
}

// Taps of an axis of a collapsed scale: the middle of the map, a pixel itself where the side is odd.
struct MiddleTaps {
  int position[4];
  float weight[4];
  explicit MiddleTaps(int length) {
    const bool odd = length % 2;
    const float w[4] = {odd ? 0 : kOuterTap, odd ? 1 : kInnerTap, odd ? 0 : kInnerTap, odd ? 0 : kOuterTap};
    const int first = odd ? (length - 1) / 2 - 1 : length / 2 - 2;
    for (int i = 0; i < 4; i++) {
      position[i] = clamp(first + i, 0, length - 1);
      weight[i] = w[i];
    }
  }
};

// The one pixel of scales that the map is shorter than, from the whole of scale 0.
inline void collapsed(const ImageTask& im) {
  const Plan& plan = *im.plan;
  const MiddleTaps rows(plan.h), columns(plan.w);
  for (int k = 1; k < kScales; k++) {
    const Scale& s = plan.scale[k];
    if (!s.exists || !s.collapsed) continue;
    const Maps from(im, 0), to(im, k);
    for (int m = 0; m < to.count; m++) {
      const float* in = from.map[m];
      float* out = to.map[m];
      float sum = 0;
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
          if (rows.weight[i] != 0 && columns.weight[j] != 0)
            sum += rows.weight[i] * columns.weight[j] *
                   in[int64_t(rows.position[i]) * plan.scale[0].pitch + columns.position[j]];
      if (im.holes[k]) sum = 0;  // of a single pixel: it is invalid
      out[0] = sum;
      replicate_border(out, 1, s.pitch);
      replicate_last_row(out, 1, s.pitch);
      if (m == 0) {
        for (int c = 0; c < plan.cells; c++) im.cell_sums[k * plan.cells + c] = 0;
        im.cell_sums[k * plan.cells] = sum;
      }
    }
  }
}
