// SPDX-License-Identifier: Apache-2.0
// Vec for AVX2, FMA and F16C: eight floats.
#pragma once

struct Vec {
  static constexpr int kLanes = 8;
  __m256 v;
  Vec() = default;
  MLR_INLINE Vec(__m256 x) : v(x) {}
  MLR_INLINE Vec(float x) : v(_mm256_set1_ps(x)) {}
  static MLR_INLINE Vec zero() { return _mm256_setzero_ps(); }
  static MLR_INLINE __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static MLR_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
  static MLR_INLINE Vec load_first(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
  MLR_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  MLR_INLINE void store_first(float* p, int n) const { _mm256_maskstore_ps(p, first(n), v); }
};
MLR_INLINE Vec operator+(Vec a, Vec b) { return _mm256_add_ps(a.v, b.v); }
MLR_INLINE Vec operator-(Vec a, Vec b) { return _mm256_sub_ps(a.v, b.v); }
MLR_INLINE Vec operator*(Vec a, Vec b) { return _mm256_mul_ps(a.v, b.v); }
MLR_INLINE Vec operator&(Vec a, Vec b) { return _mm256_and_ps(a.v, b.v); }
MLR_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
MLR_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
MLR_INLINE Vec abs(Vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
MLR_INLINE Vec operator/(Vec a, Vec b) { return _mm256_div_ps(a.v, b.v); }
MLR_INLINE Vec sqrt(Vec a) { return _mm256_sqrt_ps(a.v); }
MLR_INLINE Vec clamp_to(Vec a, Vec bound) {
  const __m256 negative = _mm256_xor_ps(bound.v, _mm256_set1_ps(-0.0f));
  return _mm256_max_ps(_mm256_min_ps(a.v, bound.v), negative);
}
template <int K>
MLR_INLINE Vec shift(Vec lo, Vec hi) {
  if constexpr (K == 0) return lo;
  const __m256i l = _mm256_castps_si256(lo.v), h = _mm256_castps_si256(hi.v);
  const __m256i middle = _mm256_permute2x128_si256(l, h, 0x21);
  if constexpr (K == 4) return _mm256_castsi256_ps(middle);
  if constexpr (K < 4) return _mm256_castsi256_ps(_mm256_alignr_epi8(middle, l, 4 * (K & 3)));
  return _mm256_castsi256_ps(_mm256_alignr_epi8(h, middle, 4 * (K & 3)));
}
MLR_INLINE void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
  const __m256d e = _mm256_castps_pd(_mm256_shuffle_ps(a.v, b.v, 0x88));
  const __m256d o = _mm256_castps_pd(_mm256_shuffle_ps(a.v, b.v, 0xdd));
  even = _mm256_castpd_ps(_mm256_permute4x64_pd(e, 0xd8));
  odd = _mm256_castpd_ps(_mm256_permute4x64_pd(o, 0xd8));
}
MLR_INLINE void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
  const __m256 lo = _mm256_unpacklo_ps(even.v, odd.v), hi = _mm256_unpackhi_ps(even.v, odd.v);
  a = _mm256_permute2f128_ps(lo, hi, 0x20);
  b = _mm256_permute2f128_ps(lo, hi, 0x31);
}
MLR_INLINE void add_to_doubles(double* sums, Vec a) {
  __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(a.v)), hi = _mm256_cvtps_pd(_mm256_extractf128_ps(a.v, 1));
  _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), lo));
  _mm256_storeu_pd(sums + 4, _mm256_add_pd(_mm256_loadu_pd(sums + 4), hi));
}
MLR_INLINE void store_signs(int8_t* p, Vec a, Vec b, Vec c, Vec d) {
  __m256i lo = _mm256_packs_epi32(_mm256_castps_si256(a.v), _mm256_castps_si256(b.v));
  __m256i hi = _mm256_packs_epi32(_mm256_castps_si256(c.v), _mm256_castps_si256(d.v));
  __m256i bytes = _mm256_packs_epi16(lo, hi);
  bytes = _mm256_min_epi8(_mm256_max_epi8(bytes, _mm256_set1_epi8(-1)), _mm256_set1_epi8(1));
  bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bytes);
}
MLR_INLINE Vec half_to_float(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
MLR_INLINE void float_to_half(uint16_t* p, Vec a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
MLR_INLINE Vec load_counts(const int16_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
struct LaneMask {
  __m256 m;
  static MLR_INLINE LaneMask load(const uint64_t* row, int x) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i all = _mm256_set1_epi8(reinterpret_cast<const char*>(row)[x / 8]);
    return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(all, bit), bit))};
  }
};
MLR_INLINE LaneMask operator&(LaneMask a, LaneMask b) { return {_mm256_and_ps(a.m, b.m)}; }
MLR_INLINE Vec operator&(Vec a, LaneMask m) { return _mm256_and_ps(a.v, m.m); }
MLR_INLINE uint64_t bits_of_bytes(const uint8_t* p) {
  const auto half = [](const uint8_t* q) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    return uint32_t(~_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
  };
  return half(p) | uint64_t(half(p + 32)) << 32;
}
