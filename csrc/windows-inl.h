// SPDX-License-Identifier: Apache-2.0
// Losses M and Mn (eq. 4 and 5): mean |E - mean E| and mean |E - box_n E|, n = 5, 17, 65, and the sign maps of the
// latter.
//
// box_n is separable. Across a row the three window sums share one doubling chain, s2 = e + e[+1], s4 = s2 + s2[+2], ..
// s64 = s32 + s32[+32], and s5 = s4 + e[+4], s17 = s16 + e[+16], s65 = s64 + e[+64]; it walks from right to left, so
// what it needs from further right is still in registers. Down the columns a running sum adds the row that enters the
// window and subtracts the one that leaves it; clamped row numbers are the replicate padding. Each window finishes
// its own centre row as soon as its last row is there, so a ring of n + 1 rows is all that is kept.
#pragma once

// The vector K pixels to the right, walking right to left: a short shift is made of two registers, a longer one is an
// older register, and where registers are short an older entry of a ring that the nearest cache holds.
template <int K, class V = Vec>
struct Ahead {
  static constexpr int kDepth = K < V::kLanes ? 1 : K / V::kLanes;
  static constexpr bool kRing = kDepth > 4;
  V older[kDepth];
  // what lies right of the first vector: the same number everywhere
  MLR_INLINE explicit Ahead(V beyond) {
    for (int i = 0; i < kDepth; i++) older[i] = beyond;
  }
  // v is the vector at x
  MLR_INLINE V get(V v, int x) {
    V r;
    if constexpr (kRing) {
      V& slot = older[x / V::kLanes % kDepth];
      r = slot;
      slot = v;
      return r;
    }
    if constexpr (K < V::kLanes)
      r = shift<K>(v, older[0]);
    else
      r = older[kDepth - 1];
    for (int i = kDepth - 1; i > 0; i--) older[i] = older[i - 1];
    older[0] = v;
    return r;
  }
  // v[x] + v[x + K]
  MLR_INLINE V add(V v, int x) { return v + get(v, x); }
};

// A window that starts at padded position p = x + offset, stored at x: `kSkip` whole vectors and a shift.
template <int kOffset>
struct AlignedStore {
  static constexpr int kSkip = kOffset / Vec::kLanes, kShift = kOffset % Vec::kLanes;
  Vec right;
  MLR_INLINE void store(float* out, int p, Vec v) {
    Vec r = v;
    if constexpr (kShift != 0) r = shift<kShift>(v, right);
    right = v;
    r.store(out + p - kSkip * Vec::kLanes);
  }
};

// Sums of 5, 17 and 65 pixels around each pixel of a row with replicated borders. Outputs have room for kPad
// pixels on the left, which come out meaningless.
template <bool k5, bool k17, bool k65>
MLR_INLINE void row_sums(const float* row, int w, float* out5, float* out17, float* out65) {
  const float* e = row - kPad;
  // The walk starts behind the last pixel, where the border is one number and the chain its multiples.
  const int last = round_up(w, 16);
  const Vec border(row[w - 1]);
  Ahead<2> a2(border * Vec(2.0f));
  Ahead<4> a4(border * Vec(4.0f));
  Ahead<8> a8(border * Vec(8.0f));
  Ahead<16> a16(border * Vec(16.0f));
  Ahead<32> a32(border * Vec(32.0f));
  AlignedStore<kPad - 2> at5;
  AlignedStore<kPad - 8> at17;
  at5.right = border * Vec(5.0f), at17.right = border * Vec(17.0f);
  for (int p = last + kPad - Vec::kLanes; p >= 0; p -= Vec::kLanes) {
    const Vec s1 = Vec::load(e + p);
    const Vec s4 = a2.add(s1 + Vec::load(e + p + 1), p);
    if constexpr (k5) at5.store(out5, p, s4 + Vec::load(e + p + 4));
    if constexpr (k17 || k65) {
      const Vec s16 = a8.add(a4.add(s4, p), p);
      if constexpr (k17) at17.store(out17, p, s16 + Vec::load(e + p + 16));
      if constexpr (k65) {
        const Vec s64 = a32.add(a16.add(s16, p), p);
        if (p < last) (s64 + Vec::load(e + p + 64)).store(out65 + p);
      }
    }
  }
}

using RowSums = void (*)(const float*, int, float*, float*, float*);
template <bool k5, bool k17, bool k65>
void row_sums_of(const float* row, int w, float* out5, float* out17, float* out65) {
  row_sums<k5, k17, k65>(row, w, out5, out17, out65);
}
inline RowSums choose_row_sums(unsigned kinds) {
  static constexpr RowSums table[8] = {nullptr,
                                       row_sums_of<true, false, false>,
                                       row_sums_of<false, true, false>,
                                       row_sums_of<true, true, false>,
                                       row_sums_of<false, false, true>,
                                       row_sums_of<true, false, true>,
                                       row_sums_of<false, true, true>,
                                       row_sums_of<true, true, true>};
  return table[windows_of(kinds)];
}

inline double sum_doubles(const double* lanes) {
  double sum = 0;
  for (int i = 0; i < Vec::kLanes; i++) sum += lanes[i];
  return sum;
}

// A sum over a strip: in float over a block of rows, in double over the blocks.
struct StripSum {
  Vec block;
  alignas(64) double lanes[Vec::kLanes];
  MLR_INLINE StripSum() : block(Vec::zero()) { __builtin_memset(lanes, 0, sizeof lanes); }
  MLR_INLINE void end_of_row(int y, bool strip_ends, double& strip_sum) {
    if (!strip_ends && (y + 1) % kSumRows) return;
    add_to_doubles(lanes, block);
    block = Vec::zero();
    if (!strip_ends) return;
    strip_sum = sum_doubles(lanes);
    __builtin_memset(lanes, 0, sizeof lanes);
  }
};

// One window's rows of horizontal sums and the column sums that run over them.
struct Window {
  Kind kind;
  int n, radius;
  float* ring;     // n + 1 rows
  float* columns;  // the running sums of one row
  int8_t* signs;   // the map, or null where no gradient is wanted or there is a mask
  // under a mask:
  WindowCounts counts;  // valid pixels of every window of the row
  float* cotangents;    // n^2 sign / count, or null
  StripSum total;       // sum |E - box E|
  MLR_INLINE Window() {}

  MLR_INLINE float* row(int y, int pitch) const { return ring + int64_t(y % (n + 1)) * pitch + kPad; }
};

// The column sums of row y from scratch, in a fixed order: at the top of a strip.
inline void sum_window(const Window& win, int w, int pitch, int y, int h) {
  const float* rows[65];
  for (int i = 0; i < win.n; i++) rows[i] = win.row(clamp(y - win.radius + i, 0, h - 1), pitch);
  constexpr int kSide = 4;  // columns of vectors side by side: an addition must not wait for the one before
  for (int x = 0; x < w; x += kSide * Vec::kLanes) {
    Vec sum[kSide];
    for (Vec& v : sum) v = Vec::zero();
    for (int i = 0; i < win.n; i++)
      for (int j = 0; j < kSide; j++) sum[j] = sum[j] + Vec::load(rows[i] + x + j * Vec::kLanes);
    for (int j = 0; j < kSide; j++) sum[j].store(win.columns + x + j * Vec::kLanes);
  }
}

// Calls use(x, v) for every four vectors v[0] .. v[3] of load(x), load(x + N), .. of a row, zeros past its w pixels:
// four that are added to each other first wait less, and lose fewer digits, than four added to a sum in turn.
template <class Load, class Use>
MLR_INLINE void by_fours(int w, Load load, Use use) {
  int x = 0;
  for (; x + 4 * Vec::kLanes <= w; x += 4 * Vec::kLanes) {
    const Vec v[4] = {load(x), load(x + Vec::kLanes), load(x + 2 * Vec::kLanes), load(x + 3 * Vec::kLanes)};
    use(x, v);
  }
  if (x >= w) return;
  Vec v[4];
  for (int i = 0; i < 4; i++) {
    v[i] = Vec::zero();
    if (x + i * Vec::kLanes < w)
      v[i] = load(x + i * Vec::kLanes) & lane_mask(clamp(w - x - i * Vec::kLanes, 0, Vec::kLanes));
  }
  use(x, v);
}

// |E - box E| and its sign on row y, whose window's last row has just arrived; returns the sum by lanes.
template <bool kSigns, bool kStep>
MLR_INLINE Vec finish_row(const Window& win, const float* error, int8_t* signs, int w, int pitch, int y, int h) {
  float* const v = win.columns;
  const float* const enter = win.row(clamp(y + win.radius, 0, h - 1), pitch);
  const float* const leave = win.row(clamp(y - win.radius - 1, 0, h - 1), pitch);
  const Vec inverse(1.0f / (float(win.n) * float(win.n)));
  auto difference = [&](int x) __attribute__((always_inline)) {
    Vec sum = Vec::load(v + x);
    if constexpr (kStep) {
      sum = sum + (Vec::load(enter + x) - Vec::load(leave + x));
      sum.store(v + x);
    }
    return fnma(sum, inverse, Vec::load(error + x));
  };
  Vec total = Vec::zero();
  by_fours(w, difference, [&](int x, const Vec* d) __attribute__((always_inline)) {
    if constexpr (kSigns) store_signs(signs + x, d[0], d[1], d[2], d[3]);
    total = total + ((abs(d[0]) + abs(d[1])) + (abs(d[2]) + abs(d[3])));
  });
  return total;
}

// The same under a mask: the means run over the valid pixels of a window, the cotangent of its pixels is
// sign(E - box E) / count times the n^2 that a window without holes has, so that it is a whole number there.
template <bool kGradient, bool kStep>
MLR_INLINE Vec finish_masked_row(const Window& win, const uint64_t* valid, const float* error, float* cotangents, int w,
                                 int pitch, int y, int h) {
  float* const v = win.columns;
  const float* const enter = win.row(clamp(y + win.radius, 0, h - 1), pitch);
  const float* const leave = win.row(clamp(y - win.radius - 1, 0, h - 1), pitch);
  const int16_t* const counts = win.counts.columns;
  const Vec per_sign(float(win.n) * float(win.n) * kPerSignUnit), one(1.0f);
  const Vec whole(1.0f / (float(win.n) * float(win.n)));
  const auto window_sum = [&](int x) __attribute__((always_inline)) {
    Vec sum = Vec::load(v + x);
    if constexpr (kStep) {
      sum = sum + (Vec::load(enter + x) - Vec::load(leave + x));
      sum.store(v + x);
    }
    return sum;
  };
  Vec total = Vec::zero();
  for (int x = 0; x < w; x += 4 * Vec::kLanes) {
    Vec d[4];
    const auto each = [&](auto&& difference) __attribute__((always_inline)) {
      for (int i = 0; i < 4; i++) {
        const int at = x + i * Vec::kLanes;
        d[i] = at < w ? difference(at, window_sum(at)) : Vec::zero();
      }
    };
    if (all_equal(counts + x, win.n * win.n)) {
      each([&](int at, Vec sum) __attribute__((always_inline)) {
        const Vec r = fnma(sum, whole, Vec::load(error + at));
        if constexpr (kGradient) (unit_sign(r) * Vec(kPerSignUnit)).store(cotangents + at);
        return r;
      });
    } else if (no_valid_pixel(valid, x)) {
      each([&](int at, Vec) __attribute__((always_inline)) {
        if constexpr (kGradient) Vec::zero().store(cotangents + at);
        return Vec::zero();
      });
    } else {
      each([&](int at, Vec sum) __attribute__((always_inline)) {
        const Vec share = one / load_counts(counts + at) & LaneMask::load(valid, at);
        const Vec r = fnma(sum, share, Vec::load(error + at));
        if constexpr (kGradient) (unit_sign(r) * (share * per_sign)).store(cotangents + at);
        return r;
      });
    }
    if (w - x < 4 * Vec::kLanes)
      for (int i = 0; i < 4; i++) d[i] = d[i] & lane_mask(clamp(w - x - i * Vec::kLanes, 0, Vec::kLanes));
    total = total + ((abs(d[0]) + abs(d[1])) + (abs(d[2]) + abs(d[3])));
  }
  return total;
}

template <bool kGradient>
MLR_INLINE Vec finish_masked_row(const Window& win, const uint64_t* valid, const float* error, float* cotangents, int w,
                                 int pitch, int y, int h, bool restart) {
  if (!restart) return finish_masked_row<kGradient, true>(win, valid, error, cotangents, w, pitch, y, h);
  sum_window(win, w, pitch, y, h);
  return finish_masked_row<kGradient, false>(win, valid, error, cotangents, w, pitch, y, h);
}

template <bool kSigns>
MLR_INLINE Vec finish_row(const Window& win, const float* error, int8_t* signs, int w, int pitch, int y, int h,
                          bool restart) {
  if (!restart) return finish_row<kSigns, true>(win, error, signs, w, pitch, y, h);
  sum_window(win, w, pitch, y, h);
  return finish_row<kSigns, false>(win, error, signs, w, pitch, y, h);
}

// adds |E - mean E| and sign(E - mean E) of one row, the latter in units of kSignUnit
template <bool kMasked>
MLR_INLINE void mean_row(const float* error, const uint64_t* valid, int w, float mean, Vec& total, Vec& signs) {
  const Vec m(mean);
  Vec row = Vec::zero(), row_signs = row;
  auto difference = [&](int x) __attribute__((always_inline)) {
    const Vec d = Vec::load(error + x) - m;
    if constexpr (kMasked) return d & LaneMask::load(valid, x);
    return d;
  };
  by_fours(w, difference, [&](int, const Vec* d) __attribute__((always_inline)) {
    row = row + ((abs(d[0]) + abs(d[1])) + (abs(d[2]) + abs(d[3])));
    row_signs = row_signs + ((unit_sign(d[0]) + unit_sign(d[1])) + (unit_sign(d[2]) + unit_sign(d[3])));
  });
  total = total + row;
  signs = signs + row_signs;
}

inline size_t windows_scratch(const Scale& s, bool masked) {
  size_t rows = 0, counts = RowCounts::bytes(s);
  for (int i = 0; i < kWindows; i++) {
    if (!(s.kinds & bit(kWindowKind[i]))) continue;
    rows += kWindow[i] + 2;
    counts += WindowCounts::bytes(s, kWindow[i]);
  }
  return rows * s.pitch * sizeof(float) + (masked ? counts : 0);
}

template <bool kMasked>
void windows(const ImageTask& im, int k, int first, int last, char* scratch) {
  const Scale& s = im.plan->scale[k];
  const int h = s.h, w = s.w, pitch = s.pitch;
  const int begin = first * s.strip_rows, end = clamp(last * s.strip_rows, 0, h);
  const float* const error = im.error(k);
  const unsigned kinds = im.kinds[k];

  const RowSums sums_of_row = choose_row_sums(kinds);
  Window win[kWindows];
  float* free = reinterpret_cast<float*>(scratch);
  int count = 0;
  Window* of_kind[kWindows] = {};
  for (int i = 0; i < kWindows; i++) {
    if (!(kinds & bit(kWindowKind[i]))) continue;
    Window& v = win[count++];
    of_kind[i] = &v;
    v.kind = kWindowKind[i];
    v.n = kWindow[i];
    v.radius = kWindow[i] / 2;
    v.signs = im.plan->gradient && !kMasked ? im.sign_map(k, i) : nullptr;
    v.cotangents = im.plan->gradient && kMasked ? im.cotangent_map(k, i) : nullptr;
    v.ring = free;
    v.columns = free + int64_t(v.n + 1) * pitch + kPad;
    free += int64_t(v.n + 2) * pitch;
  }
  RowCounts row_counts;
  if constexpr (kMasked) {
    char* counts = reinterpret_cast<char*>(free);
    for (int i = 0; i < count; i++) win[i].counts = WindowCounts(s, win[i].n, counts);
    row_counts = RowCounts(s, counts);
  }
  StripSum m, m_sign;  // |E - mean E| and its sign
  // Row t of E and of its horizontal sums arrives; each window then finishes its centre row t - radius.
  const int lag = count ? win[count - 1].radius : 0;
  for (int t = clamp(begin - lag, 0, h); t < end + lag; t++) {
    if (kinds & bit(Kind::M) && t >= begin && t < end) {
      mean_row<kMasked>(error + int64_t(t) * pitch, kMasked ? im.valid_row(k, t) : nullptr, w, im.mean[k], m.block,
                        m_sign.block);
      StripSums& out = im.strip_sums[k][t / s.strip_rows];
      const bool strip_ends = (t + 1) % s.strip_rows == 0 || t + 1 == h;
      m.end_of_row(t, strip_ends, out.kind[Kind::M]);
      m_sign.end_of_row(t, strip_ends, out.sign);
    }
    if (sums_of_row && t < h) {
      float* rows[kWindows];
      for (int i = 0; i < kWindows; i++) rows[i] = of_kind[i] ? of_kind[i]->row(t, pitch) : nullptr;
      sums_of_row(error + int64_t(t) * pitch, w, rows[0], rows[1], rows[2]);
      if constexpr (kMasked) {
        row_counts.count(im.valid_row(k, t), s);
        for (int i = 0; i < count; i++) win[i].counts.arrived(row_counts, t, s);
      }
    }
    for (int i = 0; i < count; i++) {
      Window& v = win[i];
      const int y = t - v.radius;
      if (y < begin || y >= end) continue;
      const bool restart = y % s.strip_rows == 0;
      const float* const e = error + int64_t(y) * pitch;
      if constexpr (kMasked) {
        v.counts.step(y, s, restart);
        const uint64_t* const valid = im.valid_row(k, y);
        v.total.block =
            v.total.block + (v.cotangents ? finish_masked_row<true>(v, valid, e, v.cotangents + int64_t(y) * pitch, w,
                                                                    pitch, y, h, restart)
                                          : finish_masked_row<false>(v, valid, e, nullptr, w, pitch, y, h, restart));
      } else
        v.total.block =
            v.total.block + (v.signs ? finish_row<true>(v, e, v.signs + int64_t(y) * pitch, w, pitch, y, h, restart)
                                     : finish_row<false>(v, e, nullptr, w, pitch, y, h, restart));
      v.total.end_of_row(y, (y + 1) % s.strip_rows == 0 || y + 1 == h, im.strip_sums[k][y / s.strip_rows].kind[v.kind]);
    }
  }
}

inline void windows(const ImageTask& im, int k, int first, int last, char* scratch) {
  im.holes[k] ? windows<true>(im, k, first, last, scratch) : windows<false>(im, k, first, last, scratch);
}
