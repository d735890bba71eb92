// SPDX-License-Identifier: Apache-2.0
// The gradient of the losses Mn. d/dE of (weight / HW) sum |E - box_n E| is (weight / HW) (s - box_n^T s) with s the
// sign map. box_n^T is the zero-padded window sum of s over the domain extended by n//2, its margin folded back onto
// the border pixels, over n^2. So a pixel gets -weight / (HW n^2) times the integer
//   (window sum of s) - n^2 s,
// at most 2 65^2: it is made exactly, in sixteen bits, and what cancels, cancels. Column sums of signs fit a byte (65).
// Across the row windows of 5 and the first four pixels of 17 are still added in bytes; the rest doubles as in
// windows-inl.h,
//   17 = (4 + 4 ahead), + 8 ahead, + one pixel      65 = (2 + 2 ahead), + 4, + 8, + 16, + 32 ahead, + one pixel.
// The fold adds, at the left border, (r - i) times the value i pixels from it, i < r; likewise at the right border, and
// so do the first and last row, whose column sums outgrow a byte: their pixels are made one by one.
#pragma once

struct AdjointWindow {
  int radius, area;  // n // 2 and n^2
  const int8_t* signs;
  int8_t* columns;  // column sums of signs, one padded row
  int16_t* edge;    // the same row, folded: first and last row of the map only
  float scaled;     // -weight / (HW n^2)
};

// The three windows of one scale; one that is not selected has no signs.
struct WindowAdjoint {
  // Writes row y of the gradient of the windows. Rows must come in order: each is one step of the column sums.
  using Step = void (*)(WindowAdjoint&, int y, float* row);
  static Step choose(unsigned kinds);
  // the state before row y0
  void start(const ImageTask& im, int k, int y0, char* scratch);

  AdjointWindow win[kWindows];
  int h, w, pitch;

  // whole vectors of sixteen-bit integers are read past both ends of a row
  static int columns_pitch(const Scale& s) { return s.pitch + kPad; }
  static size_t scratch(const Scale& s) {
    return s.kinds & kWindowKinds ? kWindows * (s.pitch * sizeof(int16_t) + columns_pitch(s)) : 0;
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

inline void WindowAdjoint::start(const ImageTask& im, int k, int y0, char* scratch) {
  const Scale& s = im.plan->scale[k];
  h = s.h, w = s.w, pitch = s.pitch;
  int16_t* edges = reinterpret_cast<int16_t*>(scratch);
  int8_t* bytes = reinterpret_cast<int8_t*>(edges + kWindows * s.pitch);
  __builtin_memset(scratch, 0, WindowAdjoint::scratch(s));
  for (int i = 0; i < kWindows; i++) {
    AdjointWindow& v = win[i];
    v.radius = kWindow[i] / 2, v.area = kWindow[i] * kWindow[i];
    v.edge = edges + int64_t(i) * s.pitch + kPad;
    v.columns = bytes + int64_t(i) * WindowAdjoint::columns_pitch(s) + kPad;
    v.signs = im.kinds[k] & bit(kWindowKind[i]) ? im.sign_map(k, i) : nullptr;
    v.scaled = -im.weight[k][kWindowKind[i]] / float(v.area);
    if (!v.signs) continue;
    // column sums of the row before y0, so that every row makes one step
    const int from = clamp(y0 - 1 - v.radius, 0, s.h), to = clamp(y0 + v.radius, 0, s.h);
    for (int y = from; y < to; y++) add_bytes(v.columns, v.signs + int64_t(y) * s.pitch, nullptr, s.w);
  }
}

// 1, 2, .. 32 and back: the weights of what is folded.
alignas(64) constexpr int16_t kRamp[64] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
                                           17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
                                           32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17,
                                           16, 15, 14, 13, 12, 11, 10, 9,  8,  7,  6,  5,  4,  3,  2,  1};

// What the margins left and right of a row of column sums add to its first and last pixel.
template <int kRadius, class T>
MLR_INLINE int fold_left(const T* columns) {
  int sum = 0;
  for (int i = 0; i < kRadius; i++) sum += kRamp[64 - kRadius + i] * int16_t(columns[i]);
  return sum;
}
template <int kRadius, class T>
MLR_INLINE int fold_right(const T* columns, int w) {
  int sum = 0;
  for (int i = 0; i < kRadius; i++) sum += kRamp[i] * int16_t(columns[w - kRadius + i]);
  return sum;
}

// c += times a over a row
MLR_INLINE void add_row(int16_t* __restrict__ c, const int8_t* __restrict__ a, int16_t times, int w) {
  for (int x = 0; x < w; x++) c[x] = int16_t(c[x] + times * a[x]);
}

// Adds a window's part of the first or last row.
template <int kRadius>
void add_edge_row(const AdjointWindow& v, int y, int h, int w, int pitch, float* out) {
  int16_t* const c = v.edge;
  __builtin_memset(c, 0, w * sizeof *c);
  add_row(c, v.columns, 1, w);
  for (int i = 0; i < kRadius && i < h; i++) {
    if (y == 0) add_row(c, v.signs + int64_t(i) * pitch, int16_t(kRadius - i), w);
    if (y == h - 1) add_row(c, v.signs + int64_t(h - 1 - i) * pitch, int16_t(kRadius - i), w);
  }
  const int8_t* const signs = v.signs + int64_t(y) * pitch;
  int sum = 0;
  for (int x = 0; x < kRadius; x++) sum += c[x];
  for (int x = 0; x < w; x++) {
    sum += c[x + kRadius];
    int value = sum - v.area * signs[x];
    if (x == 0) value += fold_left<kRadius>(c);
    if (x == w - 1) value += fold_right<kRadius>(c, w);
    out[x] += v.scaled * float(value);
    sum -= c[x - kRadius];
  }
}

// Row y of (weight / HW) (s - box^T s), summed over the windows, into out; not the first and not the last row.
template <bool k5, bool k17, bool k65>
MLR_INLINE void inner_row(const WindowAdjoint& a, int y, float* out) {
  const AdjointWindow &v5 = a.win[0], &v17 = a.win[1], &v65 = a.win[2];
  const int w = a.w;
  const Int16Vec area5(v5.area), area17(v17.area), area65(v65.area);  // known numbers would become shifts and additions
  const Vec scaled5(v5.scaled * 0x1p-16f), scaled17(v17.scaled * 0x1p-16f), scaled65(v65.scaled * 0x1p-16f);
  const Int16Vec none(0);
  Ahead<2, Int16Vec> a2(none);
  Ahead<4, Int16Vec> a4(none), b4(none);
  Ahead<8, Int16Vec> a8(none), b8(none);
  Ahead<16, Int16Vec> a16(none);
  Ahead<32, Int16Vec> a32(none);
  const int64_t row = int64_t(y) * a.pitch;
  const int last = round_up(w, Int16Vec::kLanes);
  // the walk starts where the widest window begins to touch the row; what lies right of it is zero
  for (int x = last + kPad - Int16Vec::kLanes; x >= 0; x -= Int16Vec::kLanes) {
    Int16Vec box5, box17, box65;
    if constexpr (k65) {
      const int8_t* const c = v65.columns + x - 32;
      const Int16Vec two = Int16Vec::sum_i8<1>(c) + Int16Vec::sum_i8<1>(c + 1);
      box65 = a32.add(a16.add(a8.add(a4.add(a2.add(two, x), x), x), x), x) + Int16Vec::sum_i8<1>(c + 64);
    }
    if constexpr (k17) {
      const int8_t* const c = v17.columns + x - 8;
      box17 = b8.add(b4.add(Int16Vec::sum_i8<4>(c), x), x) + Int16Vec::sum_i8<1>(c + 16);
    }
    if (x >= last) continue;
    if constexpr (k5) box5 = Int16Vec::sum_i8<5>(v5.columns + x - 2);
    Vec even = Vec::zero(), odd = Vec::zero(), first, second;
    auto add = [&](Int16Vec box, const int8_t* signs, Int16Vec area, Vec scaled) __attribute__((always_inline)) {
      const Int16Vec value = box - Int16Vec::sum_i8<1>(signs + row + x) * area;
      even = fma(value.even(), scaled, even);
      odd = fma(value.odd(), scaled, odd);
    };
    if constexpr (k5) add(box5, v5.signs, area5, scaled5);
    if constexpr (k17) add(box17, v17.signs, area17, scaled17);
    if constexpr (k65) add(box65, v65.signs, area65, scaled65);
    interleave(even, odd, first, second);
    first.store(out + x);
    second.store(out + x + Vec::kLanes);
  }
  auto add_folds = [&](const AdjointWindow& v, int left, int right) {
    out[0] += v.scaled * float(left);
    out[w - 1] += v.scaled * float(right);
  };
  if constexpr (k5) add_folds(v5, fold_left<2>(v5.columns), fold_right<2>(v5.columns, w));
  if constexpr (k17) add_folds(v17, fold_left<8>(v17.columns), fold_right<8>(v17.columns, w));
  if constexpr (k65) add_folds(v65, fold_left<32>(v65.columns), fold_right<32>(v65.columns, w));
}

template <bool k5, bool k17, bool k65>
void window_adjoint_step(WindowAdjoint& a, int y, float* out) {
  const bool used[kWindows] = {k5, k17, k65};
  const int64_t pitch = a.pitch;
  for (int i = 0; i < kWindows; i++) {
    if (!used[i]) continue;
    AdjointWindow& v = a.win[i];
    const int enter = y + v.radius, leave = y - v.radius - 1;
    add_bytes(v.columns, enter < a.h ? v.signs + enter * pitch : nullptr,
              leave >= 0 ? v.signs + leave * pitch : nullptr, a.w);
  }
  if (y > 0 && y < a.h - 1) return inner_row<k5, k17, k65>(a, y, out);
  __builtin_memset(out - kPad, 0, pitch * sizeof(float));
  if constexpr (k5) add_edge_row<2>(a.win[0], y, a.h, a.w, a.pitch, out);
  if constexpr (k17) add_edge_row<8>(a.win[1], y, a.h, a.w, a.pitch, out);
  if constexpr (k65) add_edge_row<32>(a.win[2], y, a.h, a.w, a.pitch, out);
}

inline WindowAdjoint::Step WindowAdjoint::choose(unsigned kinds) {
  static constexpr Step table[8] = {nullptr,
                                    window_adjoint_step<true, false, false>,
                                    window_adjoint_step<false, true, false>,
                                    window_adjoint_step<true, true, false>,
                                    window_adjoint_step<false, false, true>,
                                    window_adjoint_step<true, false, true>,
                                    window_adjoint_step<false, true, true>,
                                    window_adjoint_step<true, true, true>};
  return table[windows_of(kinds)];
}
