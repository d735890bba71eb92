// SPDX-License-Identifier: Apache-2.0
// The gradient of the losses Mn. d/dE of (weight / HW) sum |E - box_n E| is (weight / HW) (s - box_n^T s) with s the
// sign map. box_n^T is the zero-padded window sum of s over the domain extended by n//2, its margin folded back onto
// the border pixels, over n^2. Column sums of signs fit a byte (65) and are exact; across the row the three windows
// share the transposed doubling chain
//   (1+z)(1+z^2)[ u5 + (1+z^4)(1+z^8)[ u17 + (1+z^16)(1+z^32) u65 ] ] + z^4 u5 + z^16 u17 + z^64 u65,
// u_n = -weight_n / (HW n^2) column_n and z = one pixel to the right. The fold adds, at the left border, (r - i) times
// the value i pixels from it, i < r; likewise at the right border, and so do the first and last row.
#pragma once

struct AdjointWindow {
  int radius;
  const int8_t* signs;
  int8_t* columns;       // column sums of signs, one padded row of bytes
  float* edge;           // the same row in float, folded: first and last row of the map only
  float weight, scaled;  // weight / HW and its -1/n^2
};

// The three windows of one scale; one that is not selected has no signs.
struct WindowAdjoint {
  AdjointWindow win[kWindows];
  int h, w, pitch;
  alignas(64) float left[48], right[48];  // ramps of the fold times `scaled`: 32 pixels for 65, then 16 for 17
  alignas(64) float local[32];            // see combined_signs
  int8_t* combined;                       // one row

  static size_t scratch(const Scale& s) {
    return s.kinds & kWindowKinds ? size_t(s.pitch) * (kWindows * (1 + sizeof(float)) + 1) : 0;
  }
};

// c += a - b over n bytes, in the compiler's own vectors; b or a may be null.
MLR_INLINE void add_bytes(int8_t* __restrict__ c, const int8_t* __restrict__ a, const int8_t* __restrict__ b, int n) {
  if (a && b)
    for (int x = 0; x < n; x++) c[x] = int8_t(c[x] + a[x] - b[x]);
  else if (a)
    for (int x = 0; x < n; x++) c[x] = int8_t(c[x] + a[x]);
  else if (b)
    for (int x = 0; x < n; x++) c[x] = int8_t(c[x] - b[x]);
}

// The three signs of a pixel as one number, s5 + 3 s17 + 9 s65 + 13 in 0 .. 26: its own part of the gradient is then
// one look-up instead of three products.
MLR_INLINE void combine_signs(int8_t* __restrict__ out, const int8_t* __restrict__ s5, const int8_t* __restrict__ s17,
                              const int8_t* __restrict__ s65, int n) {
  for (int x = 0; x < n; x++) out[x] = int8_t(s5[x] + 3 * s17[x] + 9 * s65[x] + 13);
}

inline void start_window_adjoint(WindowAdjoint& a, const Image& im, int k, int y0, char* scratch) {
  const Scale& s = im.plan->scale[k];
  a.h = s.h, a.w = s.w, a.pitch = s.pitch;
  float* floats = reinterpret_cast<float*>(scratch);
  int8_t* bytes = reinterpret_cast<int8_t*>(floats + kWindows * s.pitch);
  __builtin_memset(scratch, 0, WindowAdjoint::scratch(s));
  for (int i = 0; i < kWindows; i++) {
    AdjointWindow& v = a.win[i];
    v.radius = kWindow[i] / 2;
    v.edge = floats + int64_t(i) * s.pitch + kPad;
    v.columns = bytes + int64_t(i) * s.pitch + kPad;
    v.signs = s.kinds & bit(M5 + i) ? im.sign_map(k, i) : nullptr;
    v.weight = im.weight[k][M5 + i];
    v.scaled = -v.weight / (float(kWindow[i]) * float(kWindow[i]));
    if (!v.signs) continue;
    // column sums of the row before y0, so that every row makes one step
    const int from = clamp(y0 - 1 - v.radius, 0, s.h), to = clamp(y0 + v.radius, 0, s.h);
    for (int y = from; y < to; y++) add_bytes(v.columns, v.signs + int64_t(y) * s.pitch, nullptr, s.w);
  }
  a.combined = bytes + kWindows * int64_t(s.pitch) + kPad;
  for (int i = 0; i < 48; i++) {
    const AdjointWindow& v = a.win[i < 32 ? 2 : 1];
    const int at = i < 32 ? i : i - 32, length = i < 32 ? 32 : 16;
    a.left[i] = v.scaled * float(at < v.radius ? v.radius - at : 0);
    a.right[i] = v.scaled * float(length - at <= v.radius ? v.radius - (length - 1 - at) : 0);
  }
  for (int i = 0; i < 32; i++)
    a.local[i] = i < 27 ? a.win[0].weight * float(i % 3 - 1) + a.win[1].weight * float(i / 3 % 3 - 1) +
                              a.win[2].weight * float(i / 9 - 1)
                        : 0.0f;
}

// Column sums of the first or last row with their fold, in float: they outgrow a byte.
inline void fold_edge(const AdjointWindow& v, int y, int h, int w, int pitch) {
  for (int x = 0; x < w; x += Vec::N) Vec::load_i8(v.columns + x).store(v.edge + x);
  for (int i = 0; i < v.radius && i < h; i++) {
    const int8_t* top = v.signs + int64_t(i) * pitch;
    const int8_t* bottom = v.signs + int64_t(h - 1 - i) * pitch;
    const Vec ramp(float(v.radius - i));
    for (int x = 0; x < w; x += Vec::N) {
      Vec sum = Vec::load(v.edge + x);
      if (y == 0) sum = fma(Vec::load_i8(top + x), ramp, sum);
      if (y == h - 1) sum = fma(Vec::load_i8(bottom + x), ramp, sum);
      sum.store(v.edge + x);
    }
  }
}

struct FromColumns {
  static MLR_INLINE Vec load(const AdjointWindow& v, int x) { return Vec::load_i8(v.columns + x); }
  static MLR_INLINE float at(const AdjointWindow& v, int x) { return v.columns[x]; }
};
struct FromEdge {
  static MLR_INLINE Vec load(const AdjointWindow& v, int x) { return Vec::load(v.edge + x); }
  static MLR_INLINE float at(const AdjointWindow& v, int x) { return v.edge[x]; }
};

// Row y of (weight / HW) (s - box^T s), summed over the windows, into out.
template <class From, bool k5, bool k17, bool k65>
MLR_INLINE void window_adjoint_row(const WindowAdjoint& a, int y, float* out) {
  const AdjointWindow &v5 = a.win[0], &v17 = a.win[1], &v65 = a.win[2];
  const int w = a.w;
  const Vec u5(v5.scaled), u17(v17.scaled), u65(v65.scaled);
  constexpr bool all = kLookUp && k5 && k17 && k65;
  const SignTable local(a.local);
  // the walk starts where the widest window begins to touch the row; what lies right of it is zero
  const Vec none = Vec::zero();
  Ahead<1> a1(none);
  Ahead<2> a2(none);
  Ahead<4> a4(none), b5(none);
  Ahead<8> a8(none);
  Ahead<16> a16(none), b17(none);
  Ahead<32> a32(none);
  Ahead<64> b65(none);
  const int64_t row = int64_t(y) * a.pitch;
  const int last = round_up(w, 16);
  for (int x = last + kPad - Vec::N; x >= 0; x -= Vec::N) {
    Vec sum, ends;
    if constexpr (k65) {
      const Vec c = From::load(v65, x - kPad);
      sum = a16.add(a32.add(c, x), x) * u65;
      ends = b65.get(c, x) * u65;
    }
    if constexpr (k17) {
      const Vec c = From::load(v17, x - 8);
      sum = k65 ? fma(c, u17, sum) : c * u17;
      ends = k65 ? fma(b17.get(c, x), u17, ends) : b17.get(c, x) * u17;
    }
    if constexpr (k17 || k65) sum = a4.add(a8.add(sum, x), x);
    if constexpr (k5) {
      const Vec c = From::load(v5, x - 2);
      sum = (k17 || k65) ? fma(c, u5, sum) : c * u5;
      ends = (k17 || k65) ? fma(b5.get(c, x), u5, ends) : b5.get(c, x) * u5;
    }
    sum = a1.add(a2.add(sum, x), x) + ends;
    if (x >= last) continue;
    if constexpr (all) {
      sum = sum + local.look_up(a.combined + x);
    } else {
      if constexpr (k5) sum = fma(Vec::load_i8(v5.signs + row + x), Vec(v5.weight), sum);
      if constexpr (k17) sum = fma(Vec::load_i8(v17.signs + row + x), Vec(v17.weight), sum);
      if constexpr (k65) sum = fma(Vec::load_i8(v65.signs + row + x), Vec(v65.weight), sum);
    }
    sum.store(out + x);
  }
  // fold the margins onto the border pixels
  Vec left = Vec::zero(), right = Vec::zero();
  if constexpr (k65) {
    for (int i = 0; i < 32; i += Vec::N) {
      left = fma(From::load(v65, i), Vec::load(a.left + i), left);
      right = fma(From::load(v65, w - 32 + i), Vec::load(a.right + i), right);
    }
  }
  if constexpr (k17) {
    for (int i = 0; i < 16; i += Vec::N) {
      left = fma(From::load(v17, i), Vec::load(a.left + 32 + i), left);
      right = fma(From::load(v17, w - 16 + i), Vec::load(a.right + 32 + i), right);
    }
  }
  float left_sum = sum_lanes(left), right_sum = sum_lanes(right);
  if constexpr (k5) {
    left_sum += v5.scaled * (2 * From::at(v5, 0) + From::at(v5, 1));
    right_sum += v5.scaled * (2 * From::at(v5, w - 1) + From::at(v5, w - 2));
  }
  out[0] += left_sum;
  out[w - 1] += right_sum;
}

template <bool k5, bool k17, bool k65>
void window_adjoint_step(WindowAdjoint& a, int y, float* out) {
  const bool used[kWindows] = {k5, k17, k65};
  const bool edge = y == 0 || y == a.h - 1;
  const int64_t pitch = a.pitch;
  for (int i = 0; i < kWindows; i++) {
    if (!used[i]) continue;
    AdjointWindow& v = a.win[i];
    const int enter = y + v.radius, leave = y - v.radius - 1;
    add_bytes(v.columns, enter < a.h ? v.signs + enter * pitch : nullptr,
              leave >= 0 ? v.signs + leave * pitch : nullptr, a.w);
    if (edge) fold_edge(v, y, a.h, a.w, a.pitch);
  }
  if constexpr (kLookUp && k5 && k17 && k65)
    combine_signs(a.combined, a.win[0].signs + y * pitch, a.win[1].signs + y * pitch, a.win[2].signs + y * pitch, a.w);
  if (edge)
    window_adjoint_row<FromEdge, k5, k17, k65>(a, y, out);
  else
    window_adjoint_row<FromColumns, k5, k17, k65>(a, y, out);
}

using WindowAdjointStep = void (*)(WindowAdjoint&, int, float*);
// Rows must come in order: each is one step of the column sums.
inline WindowAdjointStep choose_window_adjoint(unsigned kinds) {
  static constexpr WindowAdjointStep table[8] = {nullptr,
                                                 window_adjoint_step<true, false, false>,
                                                 window_adjoint_step<false, true, false>,
                                                 window_adjoint_step<true, true, false>,
                                                 window_adjoint_step<false, false, true>,
                                                 window_adjoint_step<true, false, true>,
                                                 window_adjoint_step<false, true, true>,
                                                 window_adjoint_step<true, true, true>};
  return table[(kinds & kWindowKinds) / bit(M5)];
}
