// SPDX-License-Identifier: Apache-2.0
// Vec for AVX-512: sixteen floats. vec-inl.h says what its functions do.
#pragma once

struct Vec {
  static constexpr int kLanes = 16;
  __m512 v;
  Vec() = default;
  MLR_INLINE Vec(__m512 x) : v(x) {}
  MLR_INLINE Vec(float x) : v(_mm512_set1_ps(x)) {}
  static MLR_INLINE Vec zero() { return _mm512_setzero_ps(); }
  static MLR_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static MLR_INLINE Vec load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p); }
  MLR_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  MLR_INLINE void store_first(float* p, int n) const { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), v); }
};
MLR_INLINE Vec operator+(Vec a, Vec b) { return _mm512_add_ps(a.v, b.v); }
MLR_INLINE Vec operator-(Vec a, Vec b) { return _mm512_sub_ps(a.v, b.v); }
MLR_INLINE Vec operator*(Vec a, Vec b) { return _mm512_mul_ps(a.v, b.v); }
MLR_INLINE Vec operator&(Vec a, Vec b) { return _mm512_and_ps(a.v, b.v); }
MLR_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }    // a b + c
MLR_INLINE Vec fnma(Vec a, Vec b, Vec c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }  // c - a b
MLR_INLINE Vec abs(Vec a) { return _mm512_abs_ps(a.v); }
MLR_INLINE Vec operator/(Vec a, Vec b) { return _mm512_div_ps(a.v, b.v); }
MLR_INLINE Vec sqrt(Vec a) { return _mm512_sqrt_ps(a.v); }
// the smaller magnitude with the sign of a: one instruction of the adder
MLR_INLINE Vec clamp_to(Vec a, Vec bound) { return _mm512_range_ps(a.v, bound.v, 2); }
// lanes K .. K + N - 1 of the row (lo, hi)
template <int K>
MLR_INLINE Vec shift(Vec lo, Vec hi) {
  return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(hi.v), _mm512_castps_si512(lo.v), K));
}
MLR_INLINE void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
  const __m512i e = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  even = _mm512_permutex2var_ps(a.v, e, b.v);
  odd = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b.v);
}
MLR_INLINE void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
  const __m512i lo = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  a = _mm512_permutex2var_ps(even.v, lo, odd.v);
  b = _mm512_permutex2var_ps(even.v, _mm512_add_epi32(lo, _mm512_set1_epi32(8)), odd.v);
}
// sums[i] += lane i
MLR_INLINE void add_to_doubles(double* sums, Vec a) {
  __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a.v));
  __m512d hi = _mm512_cvtps_pd(_mm512_castps512_ps256(
      _mm512_castsi512_ps(_mm512_shuffle_i64x2(_mm512_castps_si512(a.v), _mm512_castps_si512(a.v), 0x4e))));
  _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), lo));
  _mm512_storeu_pd(sums + 8, _mm512_add_pd(_mm512_loadu_pd(sums + 8), hi));
}
// signs of 4 N numbers as bytes -1, 0, 1 (saturating packs of the bit patterns, which order like integers)
MLR_INLINE void store_signs(int8_t* p, Vec a, Vec b, Vec c, Vec d) {
  __m512i lo = _mm512_packs_epi32(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v));
  __m512i hi = _mm512_packs_epi32(_mm512_castps_si512(c.v), _mm512_castps_si512(d.v));
  __m512i bytes = _mm512_packs_epi16(lo, hi);
  bytes = _mm512_min_epi8(_mm512_max_epi8(bytes, _mm512_set1_epi8(-1)), _mm512_set1_epi8(1));
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, bytes));
}
MLR_INLINE Vec half_to_float(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
MLR_INLINE void float_to_half(uint16_t* p, Vec a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
MLR_INLINE Vec load_counts(const int16_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
struct LaneMask {
  __mmask16 m;
  // lanes of pixels x .. x + N - 1 from a row of bits; x is a multiple of N
  static MLR_INLINE LaneMask load(const uint64_t* row, int x) {
    uint16_t bits;
    __builtin_memcpy(&bits, reinterpret_cast<const char*>(row) + x / 8, sizeof bits);
    return {bits};
  }
};
MLR_INLINE LaneMask operator&(LaneMask a, LaneMask b) { return {__mmask16(a.m & b.m)}; }
MLR_INLINE Vec operator&(Vec a, LaneMask m) { return _mm512_maskz_mov_ps(m.m, a.v); }
// bit i tells whether byte i of 64 is not 0
MLR_INLINE uint64_t bits_of_bytes(const uint8_t* p) {
  const __m512i bytes = _mm512_loadu_si512(p);
  return _mm512_test_epi8_mask(bytes, bytes);
}
