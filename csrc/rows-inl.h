// SPDX-License-Identifier: Apache-2.0
// Rows of the user's maps (float32, float16 or bfloat16; never padded, never read or written past their end) and the
// replicated borders of our own.
#pragma once

MLR_INLINE float bits_to_float(uint32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
}
MLR_INLINE uint32_t float_to_bits(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  return bits;
}

struct Float32 {
  using Storage = float;
  static MLR_INLINE Vec load(const float* p) { return Vec::load(p); }
  static MLR_INLINE Vec load_first(const float* p, int n) { return Vec::load_first(p, n); }
  static MLR_INLINE void store(float* p, Vec v) { v.store(p); }
  static MLR_INLINE void store_first(float* p, Vec v, int n) { v.store_first(p, n); }
};

// 16-bit types: whole vectors, and the last one through a small buffer
template <class Type>
struct SixteenBits {
  using Storage = uint16_t;
  static MLR_INLINE Vec load_first(const uint16_t* p, int n) {
    uint16_t buffer[Vec::kLanes] = {};
    for (int i = 0; i < n; i++) buffer[i] = p[i];
    return Type::load(buffer);
  }
  static MLR_INLINE void store_first(uint16_t* p, Vec v, int n) {
    uint16_t buffer[Vec::kLanes];
    Type::store(buffer, v);
    for (int i = 0; i < n; i++) p[i] = buffer[i];
  }
};

struct BFloat16 : SixteenBits<BFloat16> {
  static MLR_INLINE Vec load(const uint16_t* p) {
    float f[Vec::kLanes];
    for (int i = 0; i < Vec::kLanes; i++) f[i] = bits_to_float(uint32_t(p[i]) << 16);
    return Vec::load(f);
  }
  static MLR_INLINE void store(uint16_t* p, Vec v) {
    float f[Vec::kLanes];
    v.store(f);
    for (int i = 0; i < Vec::kLanes; i++) {  // round to nearest even; a NaN must not round to infinity
      const uint32_t bits = float_to_bits(f[i]);
      p[i] = f[i] != f[i] ? uint16_t(0x7fc0) : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
  }
};

struct Float16 : SixteenBits<Float16> {
#if MLR_SIMD >= 256 || defined(__aarch64__)
  static MLR_INLINE Vec load(const uint16_t* p) { return half_to_float(p); }
  static MLR_INLINE void store(uint16_t* p, Vec v) { float_to_half(p, v); }
#else
  static MLR_INLINE Vec load(const uint16_t* p) {
    float f[Vec::kLanes];
    for (int i = 0; i < Vec::kLanes; i++) f[i] = torch::headeronly::detail::fp16_ieee_to_fp32_value(p[i]);
    return Vec::load(f);
  }
  static MLR_INLINE void store(uint16_t* p, Vec v) {
    float f[Vec::kLanes];
    v.store(f);
    for (int i = 0; i < Vec::kLanes; i++) p[i] = torch::headeronly::detail::fp16_ieee_from_fp32_value(f[i]);
  }
#endif
};

// Fills what lies beside the w pixels of a row of a float map with its border pixels.
MLR_INLINE void replicate_border(float* row, int w, int pitch) {
  const Vec first(row[0]), last(row[w - 1]);
  for (int x = -kPad; x < 0; x += Vec::kLanes) first.store(row + x);
  const int end = pitch - kPad;
  int x = w;
  for (; x % Vec::kLanes; x++) row[x] = row[w - 1];
  for (; x < end; x += Vec::kLanes) last.store(row + x);
}

// Repeats the last row of a float map, borders and all, in the kBelow rows under it.
MLR_INLINE void replicate_last_row(float* map, int h, int pitch) {
  const float* last = map + int64_t(h - 1) * pitch - kPad;
  for (int i = 1; i <= kBelow; i++)
    __builtin_memcpy(const_cast<float*>(last) + int64_t(i) * pitch, last, pitch * sizeof(float));
}

MLR_INLINE int clamp(int i, int lo, int hi) { return i < lo ? lo : i > hi ? hi : i; }
MLR_INLINE int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }
