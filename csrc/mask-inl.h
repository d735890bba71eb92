// SPDX-License-Identifier: Apache-2.0
// The mask of every scale, one bit a pixel, and the number of valid positions of every kind.
//
// A row of bits fills whole words: bits past the last pixel repeat it, as the replicated border of a float map does, so
// that a shift of the row is the neighbour clamped at the border.
//
// bicubic: a pixel is valid if all pixels are that it reads with a weight other than 0.
// area:    if any of its four children is.
#pragma once

// Word i of a row whose words go on to the right as its last pixel does; of a row moved K pixels to the left.
template <int K>
MLR_INLINE uint64_t pixels_ahead(const uint64_t* row, int i, int words) {
  if constexpr (K == 0) return row[i];
  const uint64_t next = i + 1 < words ? row[i + 1] : uint64_t(int64_t(row[i]) >> 63);
  return row[i] >> K | next << (64 - K);
}

// Where the kinds of the stencil have their valid positions, for 64 pixels of a row: N wants r and c, Nr rr and rc,
// Nc rc and cc.
struct Positions {
  uint64_t valid, r, c, rr, rc, cc;

  // from rows y, y + 1, y + 2, clamped at the border
  MLR_INLINE Positions(const uint64_t* row, const uint64_t* below, const uint64_t* second, int i, int words) {
    valid = row[i];
    r = valid & pixels_ahead<1>(row, i, words);
    c = valid & below[i];
    rr = r & pixels_ahead<2>(row, i, words);
    rc = r & c & pixels_ahead<1>(below, i, words);
    cc = c & second[i];
  }
};

// Sets the bits past the w pixels of a row to its last pixel.
MLR_INLINE void repeat_last_bit(uint64_t* row, int w) {
  const int used = w % 64;
  if (!used) return;
  uint64_t& last = row[w / 64];
  const uint64_t past = ~uint64_t(0) << used;
  last = last >> (used - 1) & 1 ? last | past : last & ~past;
}

// Bits 0, 2, 4, .. of a word in its lower half.
MLR_INLINE uint64_t even_bits(uint64_t v) {
  v &= 0x5555555555555555u;
  v = (v | v >> 1) & 0x3333333333333333u;
  v = (v | v >> 2) & 0x0f0f0f0f0f0f0f0fu;
  v = (v | v >> 4) & 0x00ff00ff00ff00ffu;
  v = (v | v >> 8) & 0x0000ffff0000ffffu;
  return (v | v >> 16) & 0xffffffffu;
}

// Keeps every other pixel of a row, in place: `words` words become half of them, rounded up.
MLR_INLINE void keep_even_pixels(uint64_t* row, int words) {
  for (int i = 0; i < words; i += 2) row[i / 2] = even_bits(row[i]) | (i + 1 < words ? even_bits(row[i + 1]) << 32 : 0);
}

MLR_INLINE void pack_row(const uint8_t* bools, int w, uint64_t* row) {
  int x = 0;
  for (; x + 64 <= w; x += 64) row[x / 64] = bits_of_bytes(bools + x);
  if (x < w) {
    uint8_t last[64] = {};
    __builtin_memcpy(last, bools + x, w - x);
    row[x / 64] = bits_of_bytes(last);
    repeat_last_bit(row, w);
  }
}

// A row of scale k from four rows of scale 0, scratch of a row of scale 0's words.
inline void bicubic_mask_row(const ImageTask& im, int k, int i, uint64_t* scratch) {
  const Scale &s0 = im.plan->scale[0], &s = im.plan->scale[k];
  const uint64_t* rows[4];
  for (int t = 0; t < 4; t++) rows[t] = im.valid_row(0, clamp((i << k) + (1 << k) / 2 - 2 + t, 0, s0.h - 1));
  for (int j = 0; j < s0.words; j++) scratch[j] = rows[0][j] & rows[1][j] & rows[2][j] & rows[3][j];
  uint64_t* const row = im.valid_row(k, i);
  // four columns each, the first of them at 2^k x + 2^(k-1) - 2; of scale 1 that is -1 for the first pixel
  uint64_t carry = scratch[0] << 63;
  for (int j = 0; j < s0.words; j++) {
    const uint64_t from_here = pixels_ahead<1>(scratch, j, s0.words) & pixels_ahead<2>(scratch, j, s0.words);
    const uint64_t before = scratch[j] << 1 | carry >> 63, fourth = pixels_ahead<3>(scratch, j, s0.words);
    carry = scratch[j];
    scratch[j] = scratch[j] & from_here & (k == 1 ? before : fourth);
  }
  if (k > 1) {
    const int first = (1 << k) / 2 - 2;
    for (int j = 0; j < s0.words && first; j++)
      scratch[j] = scratch[j] >> first | (j + 1 < s0.words ? scratch[j + 1] << (64 - first) : 0);
  }
  for (int halving = 0, words = s0.words; halving < k; halving++, words = (words + 1) / 2)
    keep_even_pixels(scratch, words);
  for (int j = 0; j < s.words; j++) row[j] = scratch[j];
  repeat_last_bit(row, s.w);
}

inline void collapsed_mask(const ImageTask& im, int k) {
  const MiddleTaps rows(im.plan->h), columns(im.plan->w);
  bool valid = true;
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++)
      if (rows.weight[i] != 0 && columns.weight[j] != 0)
        valid &= im.valid_row(0, rows.position[i])[columns.position[j] / 64] >> (columns.position[j] % 64) & 1;
  *im.valid_row(k, 0) = valid ? ~uint64_t(0) : 0;
}

inline void area_mask_row(const ImageTask& im, int k, int i, uint64_t* scratch) {
  const Scale &above = im.plan->scale[k - 1], &s = im.plan->scale[k];
  const uint64_t* a = im.valid_row(k - 1, above.h > 1 ? 2 * i : 0);
  const uint64_t* b = above.h > 1 ? a + above.words : a;
  for (int j = 0; j < above.words; j++) scratch[j] = a[j] | b[j];
  if (above.w > 1) {
    for (int j = 0; j < above.words; j++) scratch[j] |= scratch[j] >> 1;
    keep_even_pixels(scratch, above.words);
  }
  uint64_t* const row = im.valid_row(k, i);
  for (int j = 0; j < s.words; j++) row[j] = scratch[j];
  repeat_last_bit(row, s.w);
}

// Counts of the selected kinds of a scale, and whether it has an invalid pixel.
inline void count_positions(ImageTask& im, int k) {
  const Scale& s = im.plan->scale[k];
  const bool stencil = s.kinds & kStencilKinds;
  int64_t valid = 0, r = 0, c = 0, rr = 0, rc = 0, cc = 0, n = 0, nr = 0, nc = 0;
  const uint64_t last = s.w % 64 ? ~(~uint64_t(0) << s.w % 64) : ~uint64_t(0);
  const auto count = [](uint64_t v) { return __builtin_popcountll(v); };
  for (int y = 0; y < s.h; y++) {
    const uint64_t* rows[3];
    for (int i = 0; i < 3; i++) rows[i] = im.valid_row(k, clamp(y + i, 0, s.h - 1));
    for (int i = 0; i < s.words; i++) {
      const uint64_t inside = i + 1 < s.words ? ~uint64_t(0) : last;
      if (!stencil) {
        valid += count(rows[0][i] & inside);
        continue;
      }
      const Positions p(rows[0], rows[1], rows[2], i, s.words);
      valid += count(p.valid & inside);
      r += count(p.r & inside), c += count(p.c & inside);
      rr += count(p.rr & inside), rc += count(p.rc & inside), cc += count(p.cc & inside);
      n += count(p.r & p.c & inside), nr += count(p.rr & p.rc & inside), nc += count(p.rc & p.cc & inside);
    }
  }
  im.holes[k] = valid != int64_t(s.h) * s.w;
  for_each_kind(bit(Kind::D) | kMeanKinds, [&](Kind kind) { im.count[k][kind] = valid; });
  im.count[k][Kind::R] = r, im.count[k][Kind::C] = c;
  im.count[k][Kind::RR] = rr, im.count[k][Kind::RC] = rc, im.count[k][Kind::CC] = cc;
  im.count[k][Kind::N] = n, im.count[k][Kind::NR] = nr, im.count[k][Kind::NC] = nc;
}

inline void mask(ImageTask& im, char* scratch) {
  const Plan& plan = *im.plan;
  bool holes = false;
  for (int y = 0; y < plan.h; y++) {
    uint64_t* const row = im.valid_row(0, y);
    pack_row(im.mask + y * im.mask_stride, plan.w, row);
    for (int i = 0; i < plan.scale[0].words; i++) holes |= row[i] != ~uint64_t(0);
  }
  if (!holes) return;  // then no scale has one, and the counts are those of whole maps
  uint64_t* const row = reinterpret_cast<uint64_t*>(scratch);
  for (int k = 0; k < kScales; k++) {
    const Scale& s = plan.scale[k];
    if (!s.exists) continue;
    if (s.collapsed) collapsed_mask(im, k);
    for (int i = 0; i < s.h && k > 0 && !s.collapsed; i++)
      plan.area ? area_mask_row(im, k, i, row) : bicubic_mask_row(im, k, i, row);
    count_positions(im, k);
  }
}
