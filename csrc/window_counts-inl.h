// SPDX-License-Identifier: Apache-2.0
// Valid pixels in the windows of 5, 17 and 65 around each pixel, with replicated borders: sums of bytes along a row by
// the doubling chain of windows.h, sums of sixteen-bit integers down the columns. Whole numbers, so any order is exact.
#pragma once

// out[x] = a[x] + a[x + K] over n bytes, in the compiler's own vectors.
template <int K>
MLR_INLINE void add_ahead(const uint8_t* __restrict__ a, const uint8_t* __restrict__ b, uint8_t* __restrict__ out,
                          int n) {
  for (int x = 0; x < n; x++) out[x] = uint8_t(a[x] + b[x + K]);
}

// The windows' counts of one row of a mask.
struct RowCounts {
  static constexpr int kRows = 7;
  uint8_t* row[kRows];  // 1, 2, 4, .. 64 pixels from each on, from kPad pixels left of the row

  RowCounts() = default;
  RowCounts(const Scale& s, char*& scratch) {
    for (uint8_t*& r : row) r = reinterpret_cast<uint8_t*>(scratch), scratch += bytes_of_row(s);
  }
  static size_t bytes_of_row(const Scale& s) { return s.pitch + 64; }
  static size_t bytes(const Scale& s) { return kRows * bytes_of_row(s); }

  void count(const uint64_t* valid, const Scale& s) {
    uint8_t* const pixels = row[0] + kPad;
    for (int x = 0; x < s.w; x += 8) {
      // eight copies of eight bits, of which byte i keeps bit i, as 0 or 1
      const uint64_t eight = ((valid[x / 64] >> (x % 64) & 255) * 0x0101010101010101u) & 0x8040201008040201u;
      const uint64_t ones = ((eight + 0x7f7f7f7f7f7f7f7fu) >> 7) & 0x0101010101010101u;
      __builtin_memcpy(pixels + x, &ones, sizeof ones);
    }
    __builtin_memset(row[0], pixels[0], kPad);
    __builtin_memset(pixels + s.w, pixels[s.w - 1], kPad);
    const int n = s.w + 2 * kPad;
    add_ahead<1>(row[0], row[0], row[1], n - 1);
    add_ahead<2>(row[1], row[1], row[2], n - 3);
    add_ahead<4>(row[2], row[2], row[3], n - 7);
    add_ahead<8>(row[3], row[3], row[4], n - 15);
    add_ahead<16>(row[4], row[4], row[5], n - 31);
    add_ahead<32>(row[5], row[5], row[6], n - 63);
  }
};

// Counts of one window: a ring of rows and the sums of the columns.
struct WindowCounts {
  int n;
  uint8_t* ring;      // n + 1 rows
  uint16_t* columns;  // of the row that is finished

  MLR_INLINE WindowCounts() {}
  WindowCounts(const Scale& s, int n, char*& scratch) : n(n) {
    ring = reinterpret_cast<uint8_t*>(scratch);
    columns = reinterpret_cast<uint16_t*>(ring + size_t(n + 1) * s.pitch);
    scratch += bytes(s, n);
  }
  static size_t bytes(const Scale& s, int n) { return size_t(n + 1) * s.pitch + s.pitch * sizeof(uint16_t); }
  MLR_INLINE uint8_t* row(int y, const Scale& s) const { return ring + int64_t(y % (n + 1)) * s.pitch; }

  // row y of the mask: n pixels are a power of two and one
  void arrived(const RowCounts& of, int y, const Scale& s) const {
    const int left = kPad - n / 2;
    uint8_t* const out = row(y, s);
    if (n == 5)
      add_ahead<4>(of.row[2] + left, of.row[0] + left, out, s.w);
    else if (n == 17)
      add_ahead<16>(of.row[4] + left, of.row[0] + left, out, s.w);
    else
      add_ahead<64>(of.row[6] + left, of.row[0] + left, out, s.w);
  }

  void step(int y, const Scale& s, bool restart) const {
    const int r = n / 2;
    uint16_t* const __restrict__ sum = columns;
    if (restart) {
      __builtin_memset(sum, 0, s.pitch * sizeof *sum);
      for (int i = -r; i <= r; i++) {
        const uint8_t* const in = row(clamp(y + i, 0, s.h - 1), s);
        for (int x = 0; x < s.w; x++) sum[x] = uint16_t(sum[x] + in[x]);
      }
      return;
    }
    const uint8_t* const enter = row(clamp(y + r, 0, s.h - 1), s);
    const uint8_t* const leave = row(clamp(y - r - 1, 0, s.h - 1), s);
    for (int x = 0; x < s.w; x++) sum[x] = uint16_t(sum[x] + enter[x] - leave[x]);
  }
};
