// SPDX-License-Identifier: Apache-2.0
// One SIMD vector type for the kernel source: AVX-512, AVX2 + FMA, or GCC/Clang vector extensions (SSE2, NEON).
//
// The file is included once per instruction set inside `namespace mlr::MLR_LEVEL`, after <immintrin.h> and under that
// set's `#pragma GCC target`. Nothing here has external linkage outside the namespace, so the linker can never pick an
// AVX-512 copy of a function for a machine that lacks it. One thing the pragma misses: constructors that the compiler
// writes itself; a struct with members of type Vec that are initialised needs a constructor of its own.
#pragma once

#define MLR_INLINE inline __attribute__((always_inline))

#if MLR_SIMD == 512

struct Vec {
  static constexpr int N = 16;
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
MLR_INLINE Vec load_counts(const uint16_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
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

#elif MLR_SIMD == 256

struct Vec {
  static constexpr int N = 8;
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
MLR_INLINE Vec load_counts(const uint16_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
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

#else  // four lanes in the compiler's own vectors

struct Vec {
  static constexpr int N = 4;
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
MLR_INLINE Vec half_to_float(const uint16_t* p) {
  return (Vec::Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
MLR_INLINE void float_to_half(uint16_t* p, Vec a) {
  vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)a.v)));
}
#endif
MLR_INLINE Vec load_counts(const uint16_t* p) { return Vec::Floats{float(p[0]), float(p[1]), float(p[2]), float(p[3])}; }
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

#endif

// 2 N sixteen-bit integers, in the compiler's own vectors but for what it does badly: widening and the shift.
struct Shorts {
  static constexpr int N = 2 * Vec::N;
  typedef int8_t Bytes __attribute__((vector_size(N)));
  typedef int16_t Lanes __attribute__((vector_size(2 * N)));
  typedef int32_t Pairs __attribute__((vector_size(2 * N)));
  typedef float Floats __attribute__((vector_size(2 * N)));
  Lanes v;
  Shorts() = default;
  MLR_INLINE Shorts(Lanes x) : v(x) {}
  MLR_INLINE explicit Shorts(int x) : v(Lanes{} + int16_t(x)) {}
  static MLR_INLINE Bytes bytes(const int8_t* p) {
    Bytes r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static MLR_INLINE Shorts widen(Bytes b) {
#if MLR_SIMD == 512
    return (Lanes)_mm512_cvtepi8_epi16((__m256i)b);
#elif MLR_SIMD == 256
    return (Lanes)_mm256_cvtepi8_epi16((__m128i)b);
#else
    return __builtin_convertvector(b, Lanes);
#endif
  }
  // p[i] + .. + p[i + kCount - 1] in lane i, which must fit a byte
  template <int kCount>
  static MLR_INLINE Shorts sum_i8(const int8_t* p) {
    Bytes sum = bytes(p);
    for (int i = 1; i < kCount; i++) sum += bytes(p + i);
    return widen(sum);
  }
  // every other lane times 2^16
  MLR_INLINE Vec even() const { return (decltype(Vec::v))__builtin_convertvector((Pairs)v << 16, Floats); }
  MLR_INLINE Vec odd() const { return (decltype(Vec::v))__builtin_convertvector((Pairs)v & -65536, Floats); }
};
MLR_INLINE Shorts operator+(Shorts a, Shorts b) { return a.v + b.v; }
MLR_INLINE Shorts operator-(Shorts a, Shorts b) { return a.v - b.v; }
MLR_INLINE Shorts operator*(Shorts a, Shorts b) { return a.v * b.v; }
template <int K>
MLR_INLINE Shorts shift(Shorts lo, Shorts hi) {
#if MLR_SIMD == 512
  static_assert(K % 2 == 0, "lanes move in pairs");
  return (Shorts::Lanes)_mm512_alignr_epi32((__m512i)hi.v, (__m512i)lo.v, K / 2);
#elif MLR_SIMD == 256
  const __m256i l = (__m256i)lo.v, middle = _mm256_permute2x128_si256(l, (__m256i)hi.v, 0x21);
  if constexpr (K == 8) return (Shorts::Lanes)middle;
  return (Shorts::Lanes)_mm256_alignr_epi8(middle, l, 2 * (K & 7));
#elif defined(__SSE2__)
  return (Shorts::Lanes)_mm_or_si128(_mm_srli_si128((__m128i)lo.v, 2 * K), _mm_slli_si128((__m128i)hi.v, 16 - 2 * K));
#elif defined(__aarch64__)
  return (Shorts::Lanes)vextq_s16((int16x8_t)lo.v, (int16x8_t)hi.v, K);
#else
  Shorts r;  // the lanes of both side by side, from lane K on
  int16_t both[2 * Shorts::N];
  __builtin_memcpy(both, &lo.v, sizeof lo.v);
  __builtin_memcpy(both + Shorts::N, &hi.v, sizeof hi.v);
  __builtin_memcpy(&r.v, both + K, sizeof r.v);
  return r;
#endif
}

// sign(a) in units of kUnit, 0 at 0: a magnitude below 2^-100 counts in part, which no depth in any unit comes near.
// Weights are divided by the unit once, so that a signed weight costs one clamp and one multiplication.
constexpr float kUnit = 0x1p-100f, kPerUnit = 0x1p100f;
MLR_INLINE Vec unit_sign(Vec a) { return clamp_to(a, Vec(kUnit)); }

// the first n lanes all ones, the others zero, as an operand of &; 0 <= n <= N
alignas(64) constexpr int32_t kLaneMasks[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
MLR_INLINE Vec lane_mask(int n) {
  Vec r;
  __builtin_memcpy(&r.v, kLaneMasks + 16 - n, sizeof r.v);
  return r;
}

// sum of the lanes, always in the same order
MLR_INLINE float sum_lanes(Vec a) {
#if MLR_SIMD == 512
  a = a + shift<8>(a, a);
#endif
#if MLR_SIMD >= 256
  a = a + shift<4>(a, a);
#endif
  a = a + shift<2>(a, a);
  a = a + shift<1>(a, a);
  float first;
  a.store_first(&first, 1);
  return first;
}

// lanes moved one place up: the pixel to the left of each pixel; `left` is the vector before `here`
MLR_INLINE Vec from_left(Vec left, Vec here) { return shift<Vec::N - 1>(left, here); }
