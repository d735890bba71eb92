// SPDX-License-Identifier: Apache-2.0
// Vec in the compiler's own vectors: four floats (SSE2, NEON, or whatever the compiler makes of them).
#pragma once

struct Vec {
  static constexpr int kLanes = 4;
  typedef float Floats __attribute__((vector_size(16)));
  typedef int32_t Ints __attribute__((vector_size(16)));
  Floats v;
  Vec() = default;
  MLR_INLINE Vec(Floats x) : v(x) {}
  MLR_INLINE Vec(float x) : v{x, x, x, x} {}
  static MLR_INLINE Vec zero() { return Vec(0.0f); }
  static MLR_INLINE Vec load(const float* p) {
    Vec r;
    __builtin_memcpy(&r.v, p, 16);
    return r;
  }
  static MLR_INLINE Vec load_first(const float* p, int n) {
    Vec r = zero();
    for (int i = 0; i < n; i++) r.v[i] = p[i];
    return r;
  }
  MLR_INLINE void store(float* p) const { __builtin_memcpy(p, &v, 16); }
  MLR_INLINE void store_first(float* p, int n) const {
    for (int i = 0; i < n; i++) p[i] = v[i];
  }
};
MLR_INLINE Vec operator+(Vec a, Vec b) { return a.v + b.v; }
MLR_INLINE Vec operator-(Vec a, Vec b) { return a.v - b.v; }
MLR_INLINE Vec operator*(Vec a, Vec b) { return a.v * b.v; }
MLR_INLINE Vec operator&(Vec a, Vec b) { return (Vec::Floats)((Vec::Ints)a.v & (Vec::Ints)b.v); }
MLR_INLINE Vec fma(Vec a, Vec b, Vec c) { return a.v * b.v + c.v; }  // one instruction where the baseline has it
MLR_INLINE Vec fnma(Vec a, Vec b, Vec c) { return c.v - a.v * b.v; }
MLR_INLINE Vec abs(Vec a) { return (Vec::Floats)((Vec::Ints)a.v & 0x7fffffff); }
MLR_INLINE Vec operator/(Vec a, Vec b) { return a.v / b.v; }
MLR_INLINE Vec sqrt(Vec a) {
#if defined(__SSE2__)
  return (Vec::Floats)_mm_sqrt_ps((__m128)a.v);
#elif defined(__aarch64__)
  return (Vec::Floats)vsqrtq_f32((float32x4_t)a.v);
#else
  for (int i = 0; i < 4; i++) a.v[i] = __builtin_sqrtf(a.v[i]);
  return a;
#endif
}
MLR_INLINE Vec clamp_to(Vec a, Vec bound) {
#if defined(__SSE2__)
  return (Vec::Floats)_mm_max_ps(_mm_min_ps((__m128)a.v, (__m128)bound.v), (__m128)-bound.v);
#elif defined(__aarch64__)
  return (Vec::Floats)vmaxq_f32(vminq_f32((float32x4_t)a.v, (float32x4_t)bound.v), (float32x4_t)-bound.v);
#else
  const Vec::Floats low = a.v < bound.v ? a.v : bound.v;
  return low > -bound.v ? low : -bound.v;
#endif
}
#if defined(__clang__)
#define MLR_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define MLR_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, Vec::Ints{i, j, k, l})
#endif
template <int K>
MLR_INLINE Vec shift(Vec lo, Vec hi) {
  return MLR_SHUFFLE(lo.v, hi.v, K, K + 1, K + 2, K + 3);
}
MLR_INLINE void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
  even = MLR_SHUFFLE(a.v, b.v, 0, 2, 4, 6);
  odd = MLR_SHUFFLE(a.v, b.v, 1, 3, 5, 7);
}
MLR_INLINE void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
  a = MLR_SHUFFLE(even.v, odd.v, 0, 4, 1, 5);
  b = MLR_SHUFFLE(even.v, odd.v, 2, 6, 3, 7);
}
#undef MLR_SHUFFLE
MLR_INLINE void add_to_doubles(double* sums, Vec a) {
  for (int i = 0; i < 4; i++) sums[i] += double(a.v[i]);
}
MLR_INLINE void store_signs(int8_t* p, Vec a, Vec b, Vec c, Vec d) {
  const auto sign = [](Vec v) { return (Vec::Ints)(v.v < 0) - (Vec::Ints)(v.v > 0); };  // true is -1
#if defined(__SSE2__)
  const __m128i lo = _mm_packs_epi32((__m128i)sign(a), (__m128i)sign(b));
  const __m128i hi = _mm_packs_epi32((__m128i)sign(c), (__m128i)sign(d));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(lo, hi));
#elif defined(__aarch64__)
  const auto narrow = [&](Vec u, Vec v) { return vuzp1q_s16((int16x8_t)sign(u), (int16x8_t)sign(v)); };
  vst1q_s8(p, vuzp1q_s8((int8x16_t)narrow(a, b), (int8x16_t)narrow(c, d)));
#else
  typedef int8_t Bytes __attribute__((vector_size(4)));
  const Bytes all[4] = {__builtin_convertvector(sign(a), Bytes), __builtin_convertvector(sign(b), Bytes),
                        __builtin_convertvector(sign(c), Bytes), __builtin_convertvector(sign(d), Bytes)};
  __builtin_memcpy(p, all, 16);
#endif
}
#if defined(__aarch64__)
MLR_INLINE Vec half_to_float(const uint16_t* p) { return (Vec::Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
MLR_INLINE void float_to_half(uint16_t* p, Vec a) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)a.v))); }
#endif
MLR_INLINE Vec load_counts(const int16_t* p) { return Vec::Floats{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
struct LaneMask {
  Vec::Ints m;
  static MLR_INLINE LaneMask load(const uint64_t* row, int x) {
    const Vec::Ints bit = {1, 2, 4, 8};
    return {((Vec::Ints{} + int32_t(row[x / 64] >> (x % 64))) & bit) == bit};
  }
};
MLR_INLINE LaneMask operator&(LaneMask a, LaneMask b) { return {a.m & b.m}; }
MLR_INLINE Vec operator&(Vec a, LaneMask m) { return (Vec::Floats)((Vec::Ints)a.v & m.m); }
MLR_INLINE uint64_t bits_of_bytes(const uint8_t* p) {
  uint64_t bits = 0;
  for (int i = 0; i < 64; i += 8) {
    uint64_t bytes;
    __builtin_memcpy(&bytes, p + i, sizeof bytes);
    // the top bit of each byte that is not 0; the product gathers them in the highest byte
    bytes = (((bytes & ~0x8080808080808080u) + ~0x8080808080808080u) | bytes) & 0x8080808080808080u;
    bits |= ((bytes >> 7) * 0x0102040810204080u >> 56) << i;
  }
  return bits;
}
