// SPDX-License-Identifier: Apache-2.0
// Valid pixels in the windows of 5, 17 and 65 around each pixel, with replicated borders: sums of bytes along a row by
// the doubling chain of windows-inl.h, sums of sixteen-bit integers down the columns. Whole numbers, so any order is
// exact.
#pragma once

// out[x] = a[x] + b[x + K] for n bytes, and up to a vector more.
template <int K>
MLR_INLINE void add_ahead(const int8_t* a, const int8_t* b, int8_t* out, int n) {
  typedef int8_t Bytes __attribute__((vector_size(4 * Vec::kLanes)));
  for (int x = 0; x < n; x += 4 * Vec::kLanes) {
    Bytes here, ahead;
    __builtin_memcpy(&here, a + x, sizeof here);
    __builtin_memcpy(&ahead, b + x + K, sizeof ahead);
    here += ahead;
    __builtin_memcpy(out + x, &here, sizeof here);
  }
}

// The windows' counts of one row of a mask.
struct RowCounts {
  static constexpr int kRows = 7;
  int8_t* row[kRows];  // 1, 2, 4, .. 64 pixels from each on, from kPad pixels left of the row

  RowCounts() = default;
  RowCounts(const Scale& s, char*& scratch) {
    for (int8_t*& r : row) r = reinterpret_cast<int8_t*>(scratch), scratch += bytes_of_row(s);
  }
  static size_t bytes_of_row(const Scale& s) { return s.pitch + 128; }
  static size_t bytes(const Scale& s) { return kRows * bytes_of_row(s); }

  void count(const uint64_t* valid, const Scale& s) {
    int8_t* const pixels = row[0] + kPad;
    const int w = s.w;
    for (int x = 0; x < w; x += 4 * Vec::kLanes) store_bits_as_bytes(pixels + x, valid, x);
    __builtin_memset(row[0], pixels[0], kPad);
    __builtin_memset(pixels + w, pixels[w - 1], kPad);
    const int n = w + 2 * kPad;
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
  int8_t* ring;      // n + 1 rows
  int16_t* columns;  // of the row that is finished

  MLR_INLINE WindowCounts() {}
  WindowCounts(const Scale& s, int n, char*& scratch) : n(n) {
    ring = reinterpret_cast<int8_t*>(scratch);
    columns = reinterpret_cast<int16_t*>(ring + size_t(n + 1) * s.pitch);
    scratch += bytes(s, n);
  }
  static size_t bytes(const Scale& s, int n) { return size_t(n + 1) * s.pitch + s.pitch * sizeof(int16_t); }
  MLR_INLINE int8_t* row(int y, const Scale& s) const { return ring + int64_t(y % (n + 1)) * s.pitch; }

  // row y of the mask: n pixels are a power of two and one
  void arrived(const RowCounts& of, int y, const Scale& s) const {
    const int left = kPad - n / 2;
    int8_t* const out = row(y, s);
    if (n == 5)
      add_ahead<4>(of.row[2] + left, of.row[0] + left, out, s.w);
    else if (n == 17)
      add_ahead<16>(of.row[4] + left, of.row[0] + left, out, s.w);
    else
      add_ahead<64>(of.row[6] + left, of.row[0] + left, out, s.w);
  }

  // the sums of row y, from those of the row above or from scratch
  void step(int y, const Scale& s, bool restart) const {
    const int r = n / 2, w = s.w;
    int16_t* const sums = columns;
    if (restart) {
      for (int x = 0; x < w; x += Int16Vec::kLanes) {
        Int16Vec sum(0);
        for (int i = -r; i <= r; i++) sum = sum + Int16Vec::sum_i8<1>(row(clamp(y + i, 0, s.h - 1), s) + x);
        sum.store(sums + x);
      }
      return;
    }
    const int8_t* const enter = row(clamp(y + r, 0, s.h - 1), s);
    const int8_t* const leave = row(clamp(y - r - 1, 0, s.h - 1), s);
    for (int x = 0; x < w; x += Int16Vec::kLanes)
      (Int16Vec::load(sums + x) + (Int16Vec::sum_i8<1>(enter + x) - Int16Vec::sum_i8<1>(leave + x))).store(sums + x);
  }
};
