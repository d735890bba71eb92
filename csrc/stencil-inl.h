// SPDX-License-Identifier: Apache-2.0
// Losses of a pixel and its neighbours: D (eq. 3), the derivatives r c rr rc cc of E (eq. 6) and the normals N Nr Nc
// (eq. 7, 8), with their gradient and the last sum of the whole gradient of a scale.
//
// Loop: a vector of columns marches down a block of rows, so that everything that reaches one row up or down
// (the derivatives of the row below, the cotangents of the row above) stays in registers; what reaches to the left
// comes from the vector before, kept for the whole block. Between blocks three rows of cotangents are kept.
//
// Clamped reads make a derivative 0 in the last column or row by themselves, and the cotangent of a zero derivative
// is zero (sign(0) = 0; for the normals both products vanish), so only the first differences that do not exist, r in
// the last column and c in the last row, must be masked where second differences lean on them.
//
// Adjoints, with a cotangent written g: g_r[x] += g_rr[x-1] - g_rr[x] and g_r[y] += g_rc[y-1] - g_rc[y] (rc = c(r)),
// g_c[y] += g_cc[y-1] - g_cc[y]; then grad[y, x] = g_r[x-1] - g_r[x] + g_c[y-1] - g_c[y].
#pragma once

struct NormalValue {
  Vec half;
  Vec g1, g2, t;  // the cotangents of the two slopes are g1 t and g2 t
};

// Half of 1 - cos of a = (b1 + e1, b2 + e2, 1) and b = (b1, b2, 1), which is sin^2(angle / 2), by
// |a x b|^2 / (|a x b|^2 + (|a||b| + a.b)^2) with a x b = (e2, -e1, e1 b2 - e2 b1): what cancels in |a||b| + a.b where
// the angle is obtuse is small beside |a x b|. |a|^2 |b|^2 = (a.b)^2 + |a x b|^2.
// Gradient of 1 - cos: (e1 + a2 c3) t and (e2 - a1 c3) t with t = weight |b|^2 / (|a||b|)^3.
// Root and divisions are the hardware's: they are exact and run beside the multipliers, which are what is short here.
// Products of the second slope come first in each sum, so that two normals with a common slope share them.
template <bool kGradient>
MLR_INLINE NormalValue normal_distance(Vec e1, Vec e2, Vec b1, Vec b2, Vec a1, Vec a2, Vec weight) {
  const Vec one(1.0f);
  const Vec dot = fma(a1, b1, fma(a2, b2, one));
  const Vec c3 = fnma(e2, b1, e1 * b2);
  const Vec cross = fma(c3, c3, fma(e1, e1, e2 * e2));
  const Vec square = fma(dot, dot, cross), root = sqrt(square);
  const Vec sum = root + dot;
  NormalValue r;
  r.half = cross / fma(sum, sum, cross);
  if constexpr (kGradient) {
    r.t = fma(b1, b1, fma(b2, b2, one)) * weight / (root * square);
    r.g1 = fma(a2, c3, e1);
    r.g2 = fnma(a1, c3, e2);
  }
  return r;
}

// Where kinds have their valid positions, for the rows of a block.
struct BlockPositions {
  Positions* rows = nullptr;  // [kBlock][words]
  uint64_t* dense = nullptr;  // bits of columns where every row has every position
  int words = 0;

  BlockPositions() = default;
  BlockPositions(const Scale& s, char*& scratch) : words(s.words) {
    rows = reinterpret_cast<Positions*>(scratch);
    dense = reinterpret_cast<uint64_t*>(rows + kBlock * words);
    scratch += bytes(s);
  }
  static size_t bytes(const Scale& s) { return s.words * (kBlock * sizeof(Positions) + sizeof(uint64_t)); }

  const BlockPositions* fill(const ImageTask& im, int k, int y0, int y1) const {
    const int h = im.plan->scale[k].h;
    for (int i = 0; i < words; i++) dense[i] = ~uint64_t(0);
    for (int y = y0; y < y1; y++) {
      const uint64_t* row[3];
      for (int i = 0; i < 3; i++) row[i] = im.valid_row(k, clamp(y + i, 0, h - 1));
      for (int i = 0; i < words; i++) {
        const Positions& p = rows[(y - y0) * words + i] = Positions(row[0], row[1], row[2], i, words);
        dense[i] &= p.rr & p.rc & p.cc;  // all that is read
      }
    }
    return this;
  }
  // whether the columns x .. x + N - 1 have no hole
  bool is_dense(int x) const {
    constexpr uint64_t all = (uint64_t(1) << Vec::kLanes) - 1;
    return (dense[x / 64] >> (x % 64) & all) == all;
  }
};

// A normal's distance and cotangents where it has a valid position, else 0.
template <bool kGradient>
MLR_INLINE NormalValue keep_valid(NormalValue n, LaneMask valid) {
  n.half = n.half & valid;
  if constexpr (kGradient) n.t = n.t & valid;
  return n;
}

enum Group : unsigned { kFirst = 1, kSecond = 2, kNormal = 4, kSecondNormals = 8, kGroups = 16 };
inline unsigned groups(unsigned kinds) {
  return (kinds & (bit(Kind::R) | bit(Kind::C)) ? kFirst : 0u) |
         (kinds & (bit(Kind::RR) | bit(Kind::RC) | bit(Kind::CC)) ? kSecond : 0u) |
         (kinds & bit(Kind::N) ? kNormal : 0u) | (kinds & (bit(Kind::NR) | bit(Kind::NC)) ? kSecondNormals : 0u);
}

// Sums by lanes, one for each kind: members rather than an array, so that each has a register of its own.
struct Sums {
  Vec d, r, c, rr, rc, cc, n, nr, nc;
  MLR_INLINE Sums() { d = r = c = rr = rc = cc = n = nr = nc = Vec::zero(); }
};

// A strip's sums, lane by lane.
struct Lanes {
  double lanes[Vec::kLanes];
};
using LaneSums = PerKind<Lanes>;

// What a block needs besides its rows.
struct Stencil {
  unsigned kinds;
  int h, w, pitch;
  const float *error, *target;
  const float* base;  // gradient so far, kBlock rows, or one row of zeros with base_pitch 0
  int base_pitch;
  float* out;  // finished gradient, kBlock rows
  int out_pitch;
  // whole vectors, so that each is the memory operand of one instruction
  PerKind<Vec> weight;       // of the normals; of the other kinds per unit_sign
  Vec mean, constant;        // mean E; what M adds to every pixel, -weight mean sign(E - mean E)
  float *g_rc, *g_cc, *g_c;  // cotangents of the last row of the block above
  LaneSums* sums;
  const BlockPositions* positions;  // of the block's rows, under a mask
};

template <bool kMasked>
MLR_INLINE Vec keep(Vec v, LaneMask valid) {
  if constexpr (kMasked) return v & valid;
  return v;
}

template <unsigned kMask, bool kGradient, bool kMasked>
void stencil_block(const Stencil& s, int y0, int y1, bool count) {
  constexpr bool first = kMask & kFirst, second = kMask & kSecond, n1 = kMask & kNormal, n2 = kMask & kSecondNormals;
  constexpr bool slopes = first || n1, curves = second || n2, any = slopes || curves, with_target = n1 || n2;
  const int64_t pitch = s.pitch;
  const int rows = y1 - y0, last_row = s.h - 1 - y0;
  Vec left_rr[kBlock], left_r[kBlock];
  for (int i = 0; i < kBlock; i++) left_rr[i] = left_r[i] = Vec::zero();
  Sums sum;
  const PerKind<Vec>& wt = s.weight;
  // Beside other kinds D and M are always made, perhaps with weight 0, which is cheaper than to ask. A scale without
  // any may only pass other scales' gradients on: its E was perhaps never made.
  const bool use_d = any || s.kinds & bit(Kind::D), use_m = any || s.kinds & bit(Kind::M);

  constexpr int kFlush = 4;  // columns of vectors whose sums run on in float
  constexpr int kLine = 16;  // floats of a cache line
  int until_flush = kFlush;
  for (int x = 0; x < s.w; x += Vec::kLanes) {
    const int left = s.w - x;                                          // pixels from here to the edge
    const Vec has_right = lane_mask(clamp(left - 1, 0, Vec::kLanes));  // pixels with a neighbour to the right
    const float* e = s.error + y0 * pitch + x;
    const float* t = s.target + y0 * pitch + x;
    Vec r0, c0, tr0, tc0, g_rc, g_cc, g_c;
    if constexpr (any) {
      r0 = Vec::load(e + 1) - Vec::load(e);
      c0 = Vec::load(e + pitch) - Vec::load(e);
      if constexpr (with_target) {
        tr0 = Vec::load(t + 1) - Vec::load(t);
        tc0 = Vec::load(t + pitch) - Vec::load(t);
      }
      if constexpr (kGradient) {
        g_c = Vec::load(s.g_c + x);
        if constexpr (curves) {
          g_rc = Vec::load(s.g_rc + x);
          g_cc = Vec::load(s.g_cc + x);
        }
      }
    }
    const float* base = s.base + x;
    float* out = s.out + x;
    // kHoles: some position of these columns is invalid
    const auto march = [&](auto holes) __attribute__((always_inline)) {
      constexpr bool kHoles = decltype(holes)::value;
      const Positions* p = kHoles ? s.positions->rows + x / 64 : nullptr;
      const int bit_of = x % 64;
      for (int i = 0; i < rows; i++) {
        // the next columns: a march down so many rows is no pattern that the processor would foresee
        if constexpr (any) __builtin_prefetch(e + 2 * pitch + kLine);
        if constexpr (with_target) __builtin_prefetch(t + 2 * pitch + kLine);
        if constexpr (kGradient) __builtin_prefetch(out + kLine, 1);
        Vec across, down;  // what the cotangents of this pixel and its neighbours come to
        if constexpr (any) {
          // derivatives of this row; r1, c1 belong to the row below
          const Vec e1 = Vec::load(e + pitch);
          const Vec r1 = Vec::load(e + pitch + 1) - e1, c1 = Vec::load(e + 2 * pitch) - e1;
          Vec rr, rc, cc, tr1, tc1, trr, trc, tcc;
          if constexpr (curves) {
            rr = (Vec::load(e + 2) - Vec::load(e + 1)) - r0;
            rc = r1 - r0;
            cc = c1 - c0;
          }
          if constexpr (with_target) {
            const Vec t1 = Vec::load(t + pitch);
            tr1 = Vec::load(t + pitch + 1) - t1;
            tc1 = Vec::load(t + 2 * pitch) - t1;
            if constexpr (n2) {
              trr = (Vec::load(t + 2) - Vec::load(t + 1)) - tr0;
              trc = tr1 - tr0;
              tcc = tc1 - tc0;
            }
          }
          LaneMask has_r{}, has_c{}, has_rr{}, has_rc{}, has_cc{};
          if constexpr (kHoles) {
            has_r = LaneMask::load(&p->r, bit_of), has_c = LaneMask::load(&p->c, bit_of);
            if constexpr (curves) {
              has_rr = LaneMask::load(&p->rr, bit_of), has_rc = LaneMask::load(&p->rc, bit_of);
              has_cc = LaneMask::load(&p->cc, bit_of);
            }
          }
          // Losses, and the cotangent of each derivative. The normals go first: what is quickly done fills the time
          // that their roots and divisions take.
          NormalValue n, nr, nc;
          if constexpr (n1) n = normal_distance<kGradient>(r0, c0, tr0, tc0, tr0 + r0, tc0 + c0, wt[Kind::N]);
          if constexpr (n2) {
            const Vec prc = trc + rc;
            nr = normal_distance<kGradient>(rr, rc, trr, trc, trr + rr, prc, wt[Kind::NR]);
            nc = normal_distance<kGradient>(cc, rc, tcc, trc, tcc + cc, prc, wt[Kind::NC]);
          }
          if constexpr (n1 && kHoles) n = keep_valid<kGradient>(n, has_r & has_c);
          if constexpr (n2 && kHoles) {
            nr = keep_valid<kGradient>(nr, has_rr & has_rc);
            nc = keep_valid<kGradient>(nc, has_rc & has_cc);
          }
          const Vec vr = keep<kHoles>(r0, has_r), vc = keep<kHoles>(c0, has_c);
          Vec vrr, vrc, vcc;
          if constexpr (curves)
            vrr = keep<kHoles>(rr, has_rr), vrc = keep<kHoles>(rc, has_rc), vcc = keep<kHoles>(cc, has_cc);
          if constexpr (first) {
            sum.r = sum.r + abs(vr);
            sum.c = sum.c + abs(vc);
          }
          if constexpr (second) {
            sum.rr = sum.rr + abs(vrr);
            sum.rc = sum.rc + abs(vrc);
            sum.cc = sum.cc + abs(vcc);
          }
          Vec gr = Vec::zero(), gc = gr, grr = gr, grc = gr, gcc = gr;
          if constexpr (first && kGradient) {
            gr = unit_sign(vr) * wt[Kind::R];
            gc = unit_sign(vc) * wt[Kind::C];
          }
          if constexpr (second && kGradient) {
            grr = unit_sign(vrr) * wt[Kind::RR];
            grc = unit_sign(vrc) * wt[Kind::RC];
            gcc = unit_sign(vcc) * wt[Kind::CC];
          }
          if constexpr (n1) {
            sum.n = sum.n + n.half;
            if constexpr (kGradient) {
              gr = fma(n.g1, n.t, gr);
              gc = fma(n.g2, n.t, gc);
            }
          }
          if constexpr (n2) {
            sum.nr = sum.nr + nr.half;
            sum.nc = sum.nc + nc.half;
            if constexpr (kGradient) {
              grr = fma(nr.g1, nr.t, grr);
              grc = fma(nr.g2, nr.t, fma(nc.g2, nc.t, grc));
              gcc = fma(nc.g1, nc.t, gcc);
            }
          }
          if constexpr (kGradient) {
            if constexpr (curves) {
              gr = (gr + (from_left(left_rr[i], grr) - grr) + (g_rc - grc)) & has_right;
              left_rr[i] = grr;
              g_rc = grc;
              gc = gc + (g_cc - gcc);
              if (i == last_row) gc = Vec::zero();
              g_cc = gcc;
            }
            across = from_left(left_r[i], gr) - gr;
            down = g_c - gc;
            left_r[i] = gr;
            g_c = gc;
          }
          r0 = r1, c0 = c1;
          if constexpr (with_target) tr0 = tr1, tc0 = tc1, t += pitch;
        }
        // D, M and the gradient so far: quickly done, and so they come last
        Vec g;
        LaneMask valid{};
        if constexpr (kHoles && kGradient) valid = LaneMask::load(&p->valid, bit_of);
        if constexpr (kGradient) g = Vec::load(base) + keep<kHoles>(s.constant, valid);
        if (use_d) {
          const Vec e0 = Vec::load(e);
          sum.d = sum.d + abs(e0);
          if constexpr (kGradient) g = fma(unit_sign(e0), wt[Kind::D], g);
        }
        if constexpr (kGradient) {
          if (use_m) g = fma(unit_sign(keep<kHoles>(Vec::load(e) - s.mean, valid)), wt[Kind::M], g);
          if constexpr (any) g = g + across + down;
          if (left >= Vec::kLanes)
            g.store(out);
          else
            g.store_first(out, left);
          base += s.base_pitch;
          out += s.out_pitch;
        }
        e += pitch;
        if constexpr (kHoles) p += s.positions->words;
      }
    };
    if constexpr (kMasked) {
      if (s.positions->is_dense(x))
        march(std::false_type());
      else
        march(std::true_type());
    } else {
      march(std::false_type());
    }
    if constexpr (any && kGradient) {
      g_c.store(s.g_c + x);
      if constexpr (curves) {
        g_rc.store(s.g_rc + x);
        g_cc.store(s.g_cc + x);
      }
    }
    // the last vector's sums are taken apart: its lanes past the edge do not count
    if (--until_flush == 0 || left < 2 * Vec::kLanes) {
      until_flush = kFlush;
      const Vec inside = lane_mask(clamp(left, 0, Vec::kLanes));
      auto flush = [&](Kind kind, Vec& v) __attribute__((always_inline)) {
        if (count) add_to_doubles((*s.sums)[kind].lanes, v & inside);
        v = Vec::zero();
      };
      auto flush_halves = [&](Kind kind, Vec& v) __attribute__((always_inline)) {
        v = v + v;
        flush(kind, v);
      };
      flush(Kind::D, sum.d);
      if constexpr (first) flush(Kind::R, sum.r), flush(Kind::C, sum.c);
      if constexpr (second) flush(Kind::RR, sum.rr), flush(Kind::RC, sum.rc), flush(Kind::CC, sum.cc);
      if constexpr (n1) flush_halves(Kind::N, sum.n);
      if constexpr (n2) flush_halves(Kind::NR, sum.nr), flush_halves(Kind::NC, sum.nc);
    }
  }
}

using StencilBlock = void (*)(const Stencil&, int, int, bool);
template <bool kMasked, size_t... i>
constexpr StencilBlock choose_from(std::index_sequence<i...>, unsigned mask, bool gradient) {
  constexpr StencilBlock table[2][kGroups] = {{stencil_block<i, false, kMasked>...},
                                              {stencil_block<i, true, kMasked>...}};
  return table[gradient][mask];
}
template <bool kMasked>
StencilBlock choose_stencil(unsigned kinds, bool gradient) {
  return choose_from<kMasked>(std::make_index_sequence<kGroups>(), groups(kinds), gradient);
}
