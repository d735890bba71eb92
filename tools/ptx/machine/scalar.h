// SPDX-License-Identifier: Apache-2.0
// Scalar semantics of PTX where C++ differs: rounding, saturation, NaN, shifts by more than the width, division by zero.
#pragma once
#include <cmath>

#include "machine.h"

template <class To, class From> inline To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &x, sizeof to);
  return to;
}
template <class T> constexpr bool is_signed_type = (T)-1 < (T)0;
template <class T> constexpr u32 width = 8 * sizeof(T);

// --- floats -----------------------------------------------------------------------------------------------------------
inline f32 flush(f32 x) { return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x; }
template <class T> inline T saturate(T x) { return x > 0 ? (x < 1 ? x : (T)1) : (T)0; }  // NaN becomes 0

// minimum and maximum: a NaN loses, and -0 < +0
template <class T> inline T least(T a, T b) {
  const T m = a < b || (a == b && __builtin_signbit(a)) ? a : b;
  return a != a ? b : b != b ? a : m;
}
template <class T> inline T greatest(T a, T b) {
  const T m = a > b || (a == b && !__builtin_signbit(a)) ? a : b;
  return a != a ? b : b != b ? a : m;
}
template <class T> inline T least_or_nan(T a, T b) { return a != a || b != b ? (T)__builtin_nan("") : least(a, b); }
template <class T> inline T greatest_or_nan(T a, T b) {
  return a != a || b != b ? (T)__builtin_nan("") : greatest(a, b);
}

// Moves a result by up to `ulps` units in the last place, by a hash of its bits: hardware may approximate differently.
inline f32 jittered(f32 result, u64 ulps) {
  const u32 u = bits_as<u32>(result), exponent = u & 0x7f800000;
  if (!ulps || exponent == 0 || exponent == 0x7f800000) return result;
  return bits_as<f32>(u + (u32)((s32)(((u * 2654435761u) >> 16) % (u32)(2 * ulps + 1)) - (s32)ulps));
}

// --- 16-bit floats ----------------------------------------------------------------------------------------------------
// Results that are NaN are 0x7fff, as the hardware has it.
inline f32 from_half(u16 h) {
  const u32 sign = (u32)(h & 0x8000) << 16, rest = (u32)(h & 0x7fff) << 13;
  const f32 scaled = bits_as<f32>(rest) * 0x1p112f;  // exact, also for subnormal numbers
  return bits_as<f32>(sign | ((h & 0x7c00) == 0x7c00 ? rest | 0x7f800000 : bits_as<u32>(scaled)));
}
inline u16 to_half(f32 x) {
  const u32 u = bits_as<u32>(x), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
  const u32 normal = (a + 0xc8000fff + ((a >> 13) & 1)) >> 13;
  const u32 subnormal = bits_as<u32>(bits_as<f32>(a) + 0.5f) - 0x3f000000;  // units of 2^-24, rounded by the addition
  const u32 finite = a < 0x38800000 ? subnormal : normal;
  return (u16)(a > 0x7f800000 ? 0x7fff : sign | (a >= 0x477ff000 ? 0x7c00 : finite));
}
inline f32 from_bfloat(u16 b) { return bits_as<f32>((u32)b << 16); }
inline u16 to_bfloat(f32 x) {
  const u32 u = bits_as<u32>(x);
  return (u16)((u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
// A double rounded to odd keeps what a second rounding needs to know.
inline f32 to_odd(f64 x) {
  f32 f = (f32)x;
  if ((f64)f == x || f != f) return f;
  u32 u = bits_as<u32>(f);
  if (__builtin_fabs((f64)f) > __builtin_fabs(x)) u -= 1;
  return bits_as<f32>(u | 1);
}

// --- conversions ------------------------------------------------------------------------------------------------------
// A rounded float to an integer: saturating, NaN to 0 (64 bits: to the smallest number).
template <class T, class F> inline T to_integer(F x) {
  constexpr F top = (F)(1ull << (width<T> - 1)) * (is_signed_type<T> ? 1 : 2);
  constexpr T smallest = is_signed_type<T> ? (T)((u64)1 << (width<T> - 1)) : (T)0;
  if (x != x) return width<T> == 64 ? (T)0x8000000000000000ull : (T)0;
  if (x < (is_signed_type<T> ? -top : (F)0)) return smallest;
  return x >= top ? (T)~smallest : (T)x;
}
inline s64 clamped(s64 x, s64 low, s64 high) { return x < low ? low : x > high ? high : x; }

// --- integers ---------------------------------------------------------------------------------------------------------
// Lanes that are not active compute too, so nothing may trap.
template <class T> inline T quotient(T a, T b) {
  if (b == 0) return (T)-1;
  return is_signed_type<T> && b == (T)-1 ? (T)(0 - a) : (T)(a / b);
}
template <class T> inline T remainder(T a, T b) {
  if (b == 0) return a;
  return is_signed_type<T> && b == (T)-1 ? (T)0 : (T)(a % b);
}
template <class T> inline T shift_left(T a, u32 n) { return n < width<T> ? (T)(a << (n & (width<T> - 1))) : (T)0; }
template <class T> inline T shift_right(T a, u32 n) {
  if (is_signed_type<T>) return (T)(a >> (n < width<T> ? n : width<T> - 1));
  return n < width<T> ? (T)(a >> (n & (width<T> - 1))) : (T)0;
}
// bfe: `count` bits from `first` on, with the sign of the last of them
template <class T> inline T bit_field(T a, u32 first, u32 count) {
  first &= 255, count &= 255;
  if (count == 0) return 0;
  T field = shift_right<T>(a, first);
  if (count >= width<T>) return field;
  field &= (T)(((u64)1 << count) - 1);
  if (!is_signed_type<T>) return field;
  const u32 last = first + count - 1 < width<T> - 1 ? first + count - 1 : width<T> - 1;
  return ((u64)a >> last) & 1 ? (T)(field | (T)(~(u64)0 << count)) : field;
}
// bfi: the low `count` bits of a in place of those of b from `first` on
template <class T> inline T insert_bits(T a, T b, u32 first, u32 count) {
  first &= 255, count &= 255;
  if (first >= width<T> || count == 0) return b;
  const T mask = (T)((count >= width<T> ? ~(T)0 : (T)(((T)1 << count) - 1)) << first);
  return (T)((b & ~mask) | ((a << first) & mask));
}
// prmt: four bytes of a and b, chosen (and replicated from their sign) by nibbles
inline u32 permute_bytes(u32 a, u32 b, u32 chosen) {
  const u64 bytes = (u64)b << 32 | a;
  u32 result = 0;
  for (int i = 0; i < 4; i++) {
    const u32 nibble = (chosen >> (4 * i)) & 15;
    u32 byte = (u32)(bytes >> ((nibble & 7) * 8)) & 255;
    if (nibble & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << (8 * i);
  }
  return result;
}
// lop3: any function of three bits, given by its table
inline u32 logic3(u32 a, u32 b, u32 c, u32 table) {
  u32 result = 0;
  for (u32 k = 0; k < 8; k++)
    result |= (table >> k & 1 ? ALL : 0) & (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  return result;
}
inline u32 reverse_bits(u32 x) {
  u32 r = 0;
  for (int i = 0; i < 32; i++) r |= ((x >> i) & 1) << (31 - i);
  return r;
}
