// SPDX-License-Identifier: Apache-2.0
// One SIMD vector type for the kernel source: AVX-512, AVX2 + FMA, or GCC/Clang vector extensions (SSE2, NEON).
//
// The file is included once per instruction set inside `namespace mlr::MLR_INSTRUCTION_SET`, after <immintrin.h> and
// under that set's `#pragma GCC target`. Nothing here has external linkage outside the namespace, so the linker can
// never pick an AVX-512 copy of a function for a machine that lacks it. One thing the pragma misses: constructors that
// the compiler writes itself; a struct with members of type Vec that are initialised needs a constructor of its own.
#pragma once

#define MLR_INLINE inline __attribute__((always_inline))

#if MLR_SIMD == 512
#include "vec_avx512-inl.h"
#elif MLR_SIMD == 256
#include "vec_avx2-inl.h"
#else
#include "vec_portable-inl.h"
#endif

// 2 N sixteen-bit integers, in the compiler's own vectors but for what it does badly: widening and the shift.
struct Int16Vec {
  static constexpr int kLanes = 2 * Vec::kLanes;
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  typedef int16_t Lanes __attribute__((vector_size(2 * kLanes)));
  typedef int32_t Pairs __attribute__((vector_size(2 * kLanes)));
  typedef float Floats __attribute__((vector_size(2 * kLanes)));
  Lanes v;
  Int16Vec() = default;
  MLR_INLINE Int16Vec(Lanes x) : v(x) {}
  MLR_INLINE explicit Int16Vec(int x) : v(Lanes{} + int16_t(x)) {}
  static MLR_INLINE Int16Vec load(const int16_t* p) {
    Int16Vec r;
    __builtin_memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  MLR_INLINE void store(int16_t* p) const { __builtin_memcpy(p, &v, sizeof v); }
  static MLR_INLINE Bytes bytes(const int8_t* p) {
    Bytes r;
    __builtin_memcpy(&r, p, sizeof r);
    return r;
  }
  static MLR_INLINE Int16Vec widen(Bytes b) {
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
  static MLR_INLINE Int16Vec sum_i8(const int8_t* p) {
    Bytes sum = bytes(p);
    for (int i = 1; i < kCount; i++) sum += bytes(p + i);
    return widen(sum);
  }
  // every other lane times 2^16
  MLR_INLINE Vec even() const { return (decltype(Vec::v))__builtin_convertvector((Pairs)v << 16, Floats); }
  MLR_INLINE Vec odd() const { return (decltype(Vec::v))__builtin_convertvector((Pairs)v & -65536, Floats); }
};
// the 4 N bits from x on of a row of bits as bytes 0 or 1; x is a multiple of 4 N
MLR_INLINE void store_bits_as_bytes(int8_t* p, const uint64_t* row, int x) {
#if MLR_SIMD == 512
  _mm512_storeu_si512(p, _mm512_maskz_set1_epi8(row[x / 64], 1));
#else
  for (int i = 0; i < 4 * Vec::kLanes; i += 8) {
    // eight copies of eight bits, of which byte i keeps bit i
    const uint64_t eight = ((row[x / 64] >> ((x + i) % 64) & 255) * 0x0101010101010101u) & 0x8040201008040201u;
    const uint64_t ones = ((eight + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
    __builtin_memcpy(p + i, &ones, sizeof ones);
  }
#endif
}
// whether the 4 N bits from x on are all 0
MLR_INLINE bool no_valid_pixel(const uint64_t* row, int x) {
  return (row[x / 64] >> (x % 64) << (64 - 4 * Vec::kLanes)) == 0;
}

// whether the 4 N integers from p on are all this number
MLR_INLINE bool all_equal(const int16_t* p, int number) {
  const Int16Vec::Lanes wanted = Int16Vec(number).v;
  const Int16Vec::Lanes other = (Int16Vec::load(p).v ^ wanted) | (Int16Vec::load(p + Int16Vec::kLanes).v ^ wanted);
#if MLR_SIMD == 512
  return _mm512_test_epi32_mask((__m512i)other, (__m512i)other) == 0;
#elif MLR_SIMD == 256
  return _mm256_testz_si256((__m256i)other, (__m256i)other);
#else
  uint64_t halves[2];
  __builtin_memcpy(halves, &other, sizeof halves);
  return !(halves[0] | halves[1]);
#endif
}
MLR_INLINE Int16Vec operator+(Int16Vec a, Int16Vec b) { return a.v + b.v; }
MLR_INLINE Int16Vec operator-(Int16Vec a, Int16Vec b) { return a.v - b.v; }
MLR_INLINE Int16Vec operator*(Int16Vec a, Int16Vec b) { return a.v * b.v; }
template <int K>
MLR_INLINE Int16Vec shift(Int16Vec lo, Int16Vec hi) {
#if MLR_SIMD == 512
  static_assert(K % 2 == 0, "lanes move in pairs");
  return (Int16Vec::Lanes)_mm512_alignr_epi32((__m512i)hi.v, (__m512i)lo.v, K / 2);
#elif MLR_SIMD == 256
  const __m256i l = (__m256i)lo.v, middle = _mm256_permute2x128_si256(l, (__m256i)hi.v, 0x21);
  if constexpr (K == 8) return (Int16Vec::Lanes)middle;
  return (Int16Vec::Lanes)_mm256_alignr_epi8(middle, l, 2 * (K & 7));
#elif defined(__SSE2__)
  return (Int16Vec::Lanes)_mm_or_si128(_mm_srli_si128((__m128i)lo.v, 2 * K), _mm_slli_si128((__m128i)hi.v, 16 - 2 * K));
#elif defined(__aarch64__)
  return (Int16Vec::Lanes)vextq_s16((int16x8_t)lo.v, (int16x8_t)hi.v, K);
#else
  Int16Vec r;  // the lanes of both side by side, from lane K on
  int16_t both[2 * Int16Vec::kLanes];
  __builtin_memcpy(both, &lo.v, sizeof lo.v);
  __builtin_memcpy(both + Int16Vec::kLanes, &hi.v, sizeof hi.v);
  __builtin_memcpy(&r.v, both + K, sizeof r.v);
  return r;
#endif
}

// sign(a) in units of kSignUnit, 0 at 0; one instruction. Weights are divided by the unit once, so that a weight times
// a sign costs this and one multiplication.
MLR_INLINE Vec unit_sign(Vec a) { return clamp_to(a, Vec(kSignUnit)); }

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
MLR_INLINE Vec from_left(Vec left, Vec here) { return shift<Vec::kLanes - 1>(left, here); }
