// SPDX-License-Identifier: Apache-2.0
// The adjoint of window_adjoint-inl.h under a mask. d/dE of (weight / V) sum |E - box_n E| is (weight / V) (s - box_n^T
// u) with s the signs and u = s / count of the position, both 0 at invalid pixels. The map holds n^2 u, which is a sign
// where the window has no hole, so that dense stretches stay whole numbers and exact; a pixel gets
//   -weight / (V n^2) times (window sum of n^2 u) - n^2 s.
// Column sums run in float from the top of every strip, so that no thread's rows depend on what another has summed.
#pragma once

struct MaskedAdjointWindow {
  int radius;
  const float* map;  // n^2 u, or null where the window is not selected
  float* columns;    // sums of n rows of it, zeros to both sides
  float* edge;       // the same, folded: first and last row of the map only
  float area, scaled;
};

struct MaskedAdjoint {
  MaskedAdjointWindow win[kWindows];
  const ImageTask* im;
  int k, h, w, pitch, strip_rows, begin;

  using Step = void (*)(MaskedAdjoint&, int y, float* row);
  static Step choose(unsigned kinds);
  void start(const ImageTask& im, int k, int y0, char* scratch);
  // whole vectors are read past both ends of a row
  static int columns_pitch(const Scale& s) { return s.pitch + kPad; }
  static size_t scratch(const Scale& s) {
    return s.kinds & kWindowKinds ? 2 * kWindows * columns_pitch(s) * sizeof(float) : 0;
  }
};

inline void MaskedAdjoint::start(const ImageTask& image, int scale, int y0, char* scratch) {
  const Scale& s = image.plan->scale[scale];
  im = &image, k = scale, h = s.h, w = s.w, pitch = s.pitch, strip_rows = s.strip_rows, begin = y0;
  float* p = reinterpret_cast<float*>(scratch);
  __builtin_memset(scratch, 0, MaskedAdjoint::scratch(s));
  for (int i = 0; i < kWindows; i++) {
    MaskedAdjointWindow& v = win[i];
    v.radius = kWindow[i] / 2;
    v.area = float(kWindow[i] * kWindow[i]);
    v.map = image.kinds[k] & bit(kWindowKind[i]) ? image.cotangent_map(k, i) : nullptr;
    v.columns = p + 2 * i * columns_pitch(s) + kPad;
    v.edge = v.columns + columns_pitch(s);
    v.scaled = -image.weight[k][kWindowKind[i]] / v.area;
  }
}

// out += times map over a row of w pixels; what lies right of it stays 0
MLR_INLINE void add_cotangents(float* out, const float* map, float times, int w) {
  const Vec factor(times);
  int x = 0;
  for (; x + Vec::kLanes <= w; x += Vec::kLanes) fma(Vec::load(map + x), factor, Vec::load(out + x)).store(out + x);
  if (x < w) (fma(Vec::load(map + x), factor, Vec::load(out + x)) & lane_mask(w - x)).store(out + x);
}

inline void step_columns(const MaskedAdjoint& a, const MaskedAdjointWindow& v, int y) {
  const int enter = y + v.radius, leave = y - v.radius - 1;
  if (y == a.begin || y % a.strip_rows == 0) {
    __builtin_memset(v.columns, 0, a.w * sizeof(float));
    for (int i = clamp(leave + 1, 0, a.h); i < clamp(enter + 1, 0, a.h); i++)
      add_cotangents(v.columns, v.map + int64_t(i) * a.pitch, 1, a.w);
  } else {
    const float* const __restrict__ in = v.map + int64_t(enter) * a.pitch;
    const float* const __restrict__ out = v.map + int64_t(leave) * a.pitch;
    float* const __restrict__ sum = v.columns;
    const int w = a.w;
    if (enter >= a.h && leave < 0) return;
    if (enter >= a.h) return add_cotangents(sum, out, -1, w);
    if (leave < 0) return add_cotangents(sum, in, 1, w);
    int x = 0;
    for (; x + Vec::kLanes <= w; x += Vec::kLanes)
      (Vec::load(sum + x) + (Vec::load(in + x) - Vec::load(out + x))).store(sum + x);
    if (x < w) ((Vec::load(sum + x) + (Vec::load(in + x) - Vec::load(out + x))) & lane_mask(w - x)).store(sum + x);
  }
}

// The column sums of row y; of the first and last row with what the margins above and below add.
inline const float* folded_columns(const MaskedAdjoint& a, const MaskedAdjointWindow& v, int y) {
  if (y > 0 && y < a.h - 1) return v.columns;
  __builtin_memcpy(v.edge, v.columns, a.w * sizeof(float));
  for (int i = 0; i < v.radius && i < a.h; i++) {
    if (y == 0) add_cotangents(v.edge, v.map + int64_t(i) * a.pitch, float(v.radius - i), a.w);
    if (y == a.h - 1) add_cotangents(v.edge, v.map + int64_t(a.h - 1 - i) * a.pitch, float(v.radius - i), a.w);
  }
  return v.edge;
}

// How often the margins read the pixels next to them: r, r - 1, .. 1 times from the start of a row on, 1, 2, .. r
// times up to its end.
constexpr float kFoldStart[48] = {32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17,
                                  16, 15, 14, 13, 12, 11, 10, 9,  8,  7,  6,  5,  4,  3,  2,  1};
constexpr float kFoldEnd[48] = {0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
                                1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
                                17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};

template <bool k5, bool k17, bool k65>
void masked_adjoint_step(MaskedAdjoint& a, int y, float* out) {
  const bool used[kWindows] = {k5, k17, k65};
  const float* columns[kWindows];
  for (int i = 0; i < kWindows; i++) {
    if (!used[i]) continue;
    step_columns(a, a.win[i], y);
    columns[i] = folded_columns(a, a.win[i], y);
  }
  const int w = a.w, last = round_up(w, Vec::kLanes);
  const uint64_t* const valid = a.im->valid_row(a.k, y);
  const float *maps[kWindows], *sums[kWindows];
  Vec scaled[kWindows], unit[kWindows];  // of a window's sum, of its pixel's sign
  for (int i = 0; i < kWindows; i++) {
    if (!used[i]) continue;
    maps[i] = a.win[i].map + int64_t(y) * a.pitch;
    sums[i] = columns[i];
    scaled[i] = Vec(a.win[i].scaled), unit[i] = Vec(a.win[i].scaled * a.win[i].area);
  }
  const Vec none = Vec::zero(), one(1.0f);
  Ahead<1> a1(none);
  Ahead<2> a2(none);
  Ahead<4> a4(none);
  Ahead<8> a8(none);
  Ahead<16> a16(none);
  Ahead<32> a32(none);
  // One chain for the three windows, each of which joins it where its own length begins. The walk starts where the
  // widest window begins to touch the row; what lies right of it is zero.
  for (int x = last + kPad - Vec::kLanes; x >= 0; x -= Vec::kLanes) {
    Vec sum = none;
    if constexpr (k65) sum = a16.add(a32.add(Vec::load(sums[2] + x - 32) * scaled[2], x), x);
    if constexpr (k17) sum = fma(Vec::load(sums[1] + x - 8), scaled[1], sum);
    if constexpr (k17 || k65) sum = a4.add(a8.add(sum, x), x);
    if constexpr (k5) sum = fma(Vec::load(sums[0] + x - 2), scaled[0], sum);
    sum = a1.add(a2.add(sum, x), x);
    if (x >= last) continue;
    // the last pixel of each window, and the position's own sign: n^2 / count is never below 1
    const auto add = [&](int i, int radius) __attribute__((always_inline)) {
      sum = fma(Vec::load(sums[i] + x + radius), scaled[i], sum);
      sum = fnma(clamp_to(Vec::load(maps[i] + x), one), unit[i], sum);
    };
    if constexpr (k5) add(0, 2);
    if constexpr (k17) add(1, 8);
    if constexpr (k65) add(2, 32);
    (sum & LaneMask::load(valid, x)).store(out + x);
  }
  float left = 0, right = 0;
  const auto add_folds = [&](int i, auto radius) __attribute__((always_inline)) {
    constexpr int r = decltype(radius)::value, kLanes = r < Vec::kLanes ? Vec::kLanes : r;
    Vec from_start = none, from_end = none;
    for (int j = 0; j < kLanes; j += Vec::kLanes) {
      from_start = fma(Vec::load(kFoldStart + 32 - r + j), Vec::load(sums[i] + j), from_start);
      from_end = fma(Vec::load(kFoldEnd + 16 - kLanes + r + j), Vec::load(sums[i] + w - kLanes + j), from_end);
    }
    left += a.win[i].scaled * sum_lanes(from_start);
    right += a.win[i].scaled * sum_lanes(from_end);
  };
  if constexpr (k5) add_folds(0, std::integral_constant<int, 2>());
  if constexpr (k17) add_folds(1, std::integral_constant<int, 8>());
  if constexpr (k65) add_folds(2, std::integral_constant<int, 32>());
  if (valid[0] & 1) out[0] += left;
  if (valid[(w - 1) / 64] >> ((w - 1) % 64) & 1) out[w - 1] += right;
}

inline MaskedAdjoint::Step MaskedAdjoint::choose(unsigned kinds) {
  static constexpr Step table[8] = {nullptr,
                                    masked_adjoint_step<true, false, false>,
                                    masked_adjoint_step<false, true, false>,
                                    masked_adjoint_step<true, true, false>,
                                    masked_adjoint_step<false, false, true>,
                                    masked_adjoint_step<true, false, true>,
                                    masked_adjoint_step<false, true, true>,
                                    masked_adjoint_step<true, true, true>};
  return table[windows_of(kinds)];
}
