// SPDX-License-Identifier: Apache-2.0
// The adjoint of window_adjoint.h under a mask. d/dE of (weight / V) sum |E - box_n E| is (weight / V) (s - box_n^T u)
// with s the signs and u = s / count of the position, both 0 at invalid pixels. The map holds n^2 u, which is a sign
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
  const Image* im;
  int k, h, w, pitch, strip_rows, begin;

  using Step = void (*)(MaskedAdjoint&, int y, float* row);
  static Step choose(unsigned kinds);
  void start(const Image& im, int k, int y0, char* scratch);
  // whole vectors are read past both ends of a row
  static int columns_pitch(const Scale& s) { return s.pitch + kPad; }
  static size_t scratch(const Scale& s) {
    return s.kinds & kWindowKinds ? 2 * kWindows * columns_pitch(s) * sizeof(float) : 0;
  }
};

inline void MaskedAdjoint::start(const Image& image, int scale, int y0, char* scratch) {
  const Scale& s = image.plan->scale[scale];
  im = &image, k = scale, h = s.h, w = s.w, pitch = s.pitch, strip_rows = s.strip_rows, begin = y0;
  float* p = reinterpret_cast<float*>(scratch);
  __builtin_memset(scratch, 0, MaskedAdjoint::scratch(s));
  for (int i = 0; i < kWindows; i++) {
    MaskedAdjointWindow& v = win[i];
    v.radius = kWindow[i] / 2;
    v.area = float(kWindow[i] * kWindow[i]);
    v.map = image.kinds[k] & bit(M5 + i) ? image.cotangent_map(k, i) : nullptr;
    v.columns = p + 2 * i * columns_pitch(s) + kPad;
    v.edge = v.columns + columns_pitch(s);
    v.scaled = -image.weight[k][M5 + i] / v.area;
  }
}

// out += times map over a row of w pixels; what lies right of it stays 0
MLR_INLINE void add_cotangents(float* out, const float* map, float times, int w) {
  const Vec factor(times);
  int x = 0;
  for (; x + Vec::N <= w; x += Vec::N) fma(Vec::load(map + x), factor, Vec::load(out + x)).store(out + x);
  if (x < w) (fma(Vec::load(map + x), factor, Vec::load(out + x)) & lane_mask(w - x)).store(out + x);
}

inline void step_columns(const MaskedAdjoint& a, const MaskedAdjointWindow& v, int y) {
  const int enter = y + v.radius, leave = y - v.radius - 1;
  if (y == a.begin || y % a.strip_rows == 0) {
    __builtin_memset(v.columns, 0, a.w * sizeof(float));
    for (int i = clamp(leave + 1, 0, a.h); i < clamp(enter + 1, 0, a.h); i++)
      add_cotangents(v.columns, v.map + int64_t(i) * a.pitch, 1, a.w);
  } else {
    if (leave >= 0) add_cotangents(v.columns, v.map + int64_t(leave) * a.pitch, -1, a.w);
    if (enter < a.h) add_cotangents(v.columns, v.map + int64_t(enter) * a.pitch, 1, a.w);
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

template <bool k5, bool k17, bool k65>
void masked_adjoint_step(MaskedAdjoint& a, int y, float* out) {
  const bool used[kWindows] = {k5, k17, k65};
  const float* columns[kWindows];
  for (int i = 0; i < kWindows; i++) {
    if (!used[i]) continue;
    step_columns(a, a.win[i], y);
    columns[i] = folded_columns(a, a.win[i], y);
  }
  const int w = a.w, last = round_up(w, Vec::N);
  const uint64_t* const valid = a.im->valid_row(a.k, y);
  const Vec none = Vec::zero(), one(1.0f);
  Ahead<2> a2(none), b2(none);
  Ahead<4> a4(none), b4(none);
  Ahead<8> a8(none), b8(none);
  Ahead<16> a16(none);
  Ahead<32> a32(none);
  // the walk starts where the widest window begins to touch the row; what lies right of it is zero
  for (int x = last + kPad - Vec::N; x >= 0; x -= Vec::N) {
    Vec box5, box17, box65;
    if constexpr (k65) {
      const float* const c = columns[2] + x - 32;
      const Vec two = Vec::load(c) + Vec::load(c + 1);
      box65 = a32.add(a16.add(a8.add(a4.add(a2.add(two, x), x), x), x), x) + Vec::load(c + 64);
    }
    if constexpr (k17) {
      const float* const c = columns[1] + x - 8;
      const Vec two = Vec::load(c) + Vec::load(c + 1);
      box17 = b8.add(b4.add(b2.add(two, x), x), x) + Vec::load(c + 16);
    }
    if (x >= last) continue;
    if constexpr (k5) {
      const float* const c = columns[0] + x - 2;
      box5 = ((Vec::load(c) + Vec::load(c + 1)) + (Vec::load(c + 2) + Vec::load(c + 3))) + Vec::load(c + 4);
    }
    Vec sum = Vec::zero();
    const auto add = [&](Vec box, const MaskedAdjointWindow& v) __attribute__((always_inline)) {
      const Vec sign = clamp_to(Vec::load(v.map + int64_t(y) * a.pitch + x), one);  // n^2 / count is never below 1
      sum = fma(fnma(sign, Vec(v.area), box), Vec(v.scaled), sum);
    };
    if constexpr (k5) add(box5, a.win[0]);
    if constexpr (k17) add(box17, a.win[1]);
    if constexpr (k65) add(box65, a.win[2]);
    (sum & LaneMask::load(valid, x)).store(out + x);
  }
  const auto add_folds = [&](int i) {
    const MaskedAdjointWindow& v = a.win[i];
    float left = 0, right = 0;
    for (int j = 0; j < v.radius; j++) {
      left += float(v.radius - j) * columns[i][j];
      right += float(j + 1) * columns[i][w - v.radius + j];
    }
    if (valid[0] & 1) out[0] += v.scaled * left;
    if (valid[(w - 1) / 64] >> ((w - 1) % 64) & 1) out[w - 1] += v.scaled * right;
  };
  if constexpr (k5) add_folds(0);
  if constexpr (k17) add_folds(1);
  if constexpr (k65) add_folds(2);
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
  return table[(kinds & kWindowKinds) / bit(M5)];
}
