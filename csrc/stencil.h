// SPDX-License-Identifier: Apache-2.0
// Losses of a pixel and its neighbours: D (eq. 3), the derivatives r c rr rc cc of E (eq. 6) and the normals N Nr Nc
// (eq. 7, 8), with their gradient and the last sum of the whole gradient of a scale.
//
// Loop: a vector of columns marches down a block of eight rows, so that everything that reaches one row up or down
// (the derivatives of the row below, the cotangents of the row above) stays in registers; what reaches to the left comes from
// the vector before, kept for the eight rows. Between blocks three rows of cotangents are kept.
//
// Clamped reads make a derivative 0 in the last column or row by themselves, and the cotangent of a zero derivative
// is zero (sign(0) = 0; for the normals both products vanish), so only the first differences that do not exist, r in the last column and c
// in the last row, must be masked where second differences lean on them.
//
// Adjoints, with a cotangent written g: g_r[x] += g_rr[x-1] - g_rr[x] and g_rc[y-1] - g_rc[y] (rc = c(r)), g_c[y] += g_cc[y-1] - g_cc[y],
// then grad[y, x] = g_r[x-1] - g_r[x] + g_c[y-1] - g_c[y].
#pragma once

struct NormalValue {
  Vec value;
  Vec g1, g2;  // cotangents of the two slopes, times the weight
};

// 1 - cos of a = (b1 + e1, b2 + e2, 1) and b = (b1, b2, 1), by 1 - cos = |a x b|^2 / (|a||b| (|a||b| + a.b)), where
// a x b = (e2, -e1, e1 b2 - e2 b1): nothing cancels. |a|^2 |b|^2 = (a.b)^2 + |a x b|^2. Where a.b < 0 the plain
// form is the exact one. Gradient: (e1 + a2 c3) t and (e2 - a1 c3) t with t = |b|^2 / (|a||b|)^3.
template <bool kGradient>
MLR_INLINE NormalValue normal_distance(Vec e1, Vec e2, Vec b1, Vec b2, Vec a1, Vec a2, Vec weight) {
  const Vec one(1.0f);
  const Vec bb = fma(b1, b1, fma(b2, b2, one));
  const Vec dot = fma(e1, b1, fma(e2, b2, bb));
  const Vec c3 = fnma(e2, b1, e1 * b2);
  const Vec cross = fma(e1, e1, fma(e2, e2, c3 * c3));
  const Vec square = fma(dot, dot, cross);
  // one Newton step for 1 / |a||b|
  const Vec y = rsqrt_estimate(square);
  const Vec root0 = square * y, half = y * Vec(0.5f), miss = fnma(root0, half, Vec(0.5f));
  const Vec root = fma(root0, miss, root0), inverse = fma(y, miss, y);
  const Vec q = fma(dot, root, square);
  const Vec z = rcp_estimate(q), quotient = cross * z, rest = fnma(q, z, one);
  NormalValue r;
  r.value = where_negative(dot, fnma(dot, inverse, one), fma(quotient, rest, quotient));
  if constexpr (kGradient) {
    const Vec t = (inverse * inverse) * (inverse * weight) * bb;
    r.g1 = fma(a2, c3, e1) * t;
    r.g2 = fnma(a1, c3, e2) * t;
  }
  return r;
}

enum Group : unsigned { kFirst = 1, kSecond = 2, kNormal = 4, kSecondNormals = 8, kGroups = 16 };
inline unsigned groups(unsigned kinds) {
  return (kinds & (bit(R) | bit(C)) ? kFirst : 0u) | (kinds & (bit(RR) | bit(RC) | bit(CC)) ? kSecond : 0u) |
         (kinds & bit(N) ? kNormal : 0u) | (kinds & (bit(NR) | bit(NC)) ? kSecondNormals : 0u);
}

// What a block needs besides its rows.
struct Stencil {
  int h, w, pitch;
  const float *error, *target;
  const float* base;  // gradient so far, kBlock rows, or one row of zeros with base_pitch 0
  int base_pitch;
  float* out;         // finished gradient, kBlock rows
  int out_pitch;
  float weight[kKinds];
  float mean, mean_sign;
  float *g_rc, *g_cc, *g_c;  // cotangents of the last row of the block above
  double (*sums)[Vec::N];      // [kKinds]
};

template <unsigned kMask, bool kGradient>
void stencil_block(const Stencil& s, int y0, int y1, bool count) {
  constexpr bool first = kMask & kFirst, second = kMask & kSecond, n1 = kMask & kNormal, n2 = kMask & kSecondNormals;
  constexpr bool slopes = first || n1, curves = second || n2, any = slopes || curves;
  constexpr bool with_target = n1 || n2;
  const int rows = y1 - y0;
  const float *e_row[kBlock + 2], *t_row[kBlock + 2];
  for (int i = 0; i < rows + 2; i++) {
    const int64_t y = clamp(y0 + i, 0, s.h - 1);
    e_row[i] = s.error + y * s.pitch;
    t_row[i] = with_target ? s.target + y * s.pitch : nullptr;
  }
  Vec left_rr[kBlock], left_r[kBlock];
  for (int i = 0; i < kBlock; i++) left_rr[i] = left_r[i] = Vec::zero();
  Vec sum[kKinds];
  for (Vec& v : sum) v = Vec::zero();
  const float* const wt = s.weight;
  const bool use_m = kGradient && wt[M] != 0.0f;
  const Vec mean(s.mean), constant(use_m ? -wt[M] * s.mean_sign : 0.0f);

  int until_flush = 8;
  for (int x = 0; x < s.w; x += Vec::N) {
    const Vec has_right = lane_mask(clamp(s.w - 1 - x, 0, Vec::N));  // pixels with a neighbour to the right
    Vec e0 = Vec::load(e_row[0] + x), e1, er, r0, c0, t1, tr, tr0, tc0, g_rc, g_cc, g_c;
    if constexpr (any) {
      e1 = Vec::load(e_row[1] + x);
      er = Vec::load(e_row[0] + x + 1);
      r0 = er - e0;
      c0 = e1 - e0;
      if constexpr (with_target) {
        const Vec t0 = Vec::load(t_row[0] + x);
        t1 = Vec::load(t_row[1] + x);
        tr = Vec::load(t_row[0] + x + 1);
        tr0 = tr - t0;
        tc0 = t1 - t0;
      }
      if constexpr (kGradient) {
        g_c = Vec::load(s.g_c + x);
        if constexpr (curves) {
          g_rc = Vec::load(s.g_rc + x);
          g_cc = Vec::load(s.g_cc + x);
        }
      }
    }
    for (int i = 0; i < rows; i++) {
      const Vec sd = sign(e0);
      sum[D] = add_abs(sum[D], e0, sd);
      Vec g;
      if constexpr (kGradient) {
        g = fma(sd, Vec(wt[D]), Vec::load(s.base + int64_t(i) * s.base_pitch + x) + constant);
        if (use_m) g = fma(sign(e0 - mean), Vec(wt[M]), g);
      }
      if constexpr (any) {
        // derivatives of this row; r1, c1 belong to the row below
        Vec e2, er1, r1, c1, rr, rc, cc, t2, tr1v, tr1, tc1, trr, trc, tcc;
        er1 = Vec::load(e_row[i + 1] + x + 1);
        r1 = er1 - e1;
        e2 = Vec::load(e_row[i + 2] + x);
        c1 = e2 - e1;
        if constexpr (curves) {
          rr = (Vec::load(e_row[i] + x + 2) - er) - r0;
          rc = r1 - r0;
          cc = c1 - c0;
        }
        if constexpr (with_target) {
          tr1v = Vec::load(t_row[i + 1] + x + 1);
          tr1 = tr1v - t1;
          t2 = Vec::load(t_row[i + 2] + x);
          tc1 = t2 - t1;
          if constexpr (n2) {
            trr = (Vec::load(t_row[i] + x + 2) - tr) - tr0;
            trc = tr1 - tr0;
            tcc = tc1 - tc0;
          }
        }
        // losses, and the cotangent of each derivative
        Vec gr = Vec::zero(), gc = Vec::zero(), grr = Vec::zero(), grc = Vec::zero(), gcc = Vec::zero();
        auto absolute = [&](Kind kind, Vec v, Vec& cotangent) __attribute__((always_inline)) {
          const Vec sv = sign(v);
          sum[kind] = add_abs(sum[kind], v, sv);
          if constexpr (kGradient) cotangent = sv * Vec(wt[kind]);
        };
        if constexpr (first) {
          absolute(R, r0, gr);
          absolute(C, c0, gc);
        }
        if constexpr (second) {
          absolute(RR, rr, grr);
          absolute(RC, rc, grc);
          absolute(CC, cc, gcc);
        }
        if constexpr (n1) {
          const NormalValue v = normal_distance<kGradient>(r0, c0, tr0, tc0, tr0 + r0, tc0 + c0, Vec(wt[N]));
          sum[N] = sum[N] + v.value;
          if constexpr (kGradient) gr = gr + v.g1, gc = gc + v.g2;
        }
        if constexpr (n2) {
          const Vec prc = trc + rc;
          const NormalValue v = normal_distance<kGradient>(rr, rc, trr, trc, trr + rr, prc, Vec(wt[NR]));
          const NormalValue u = normal_distance<kGradient>(rc, cc, trc, tcc, prc, tcc + cc, Vec(wt[NC]));
          sum[NR] = sum[NR] + v.value;
          sum[NC] = sum[NC] + u.value;
          if constexpr (kGradient) {
            grr = grr + v.g1;
            grc = grc + v.g2 + u.g1;
            gcc = gcc + u.g2;
          }
        }
        if constexpr (kGradient) {
          if constexpr (curves) {
            gr = (gr + (from_left(left_rr[i], grr) - grr) + (g_rc - grc)) & has_right;
            left_rr[i] = grr;
            g_rc = grc;
            gc = y0 + i == s.h - 1 ? Vec::zero() : gc + (g_cc - gcc);
            g_cc = gcc;
          }
          g = g + (from_left(left_r[i], gr) - gr) + (g_c - gc);
          left_r[i] = gr;
          g_c = gc;
        }
        e0 = e1, e1 = e2, er = er1, r0 = r1, c0 = c1;
        if constexpr (with_target) t1 = t2, tr = tr1v, tr0 = tr1, tc0 = tc1;
      } else {
        if (i + 1 < rows) e0 = Vec::load(e_row[i + 1] + x);
      }
      if constexpr (kGradient) g.store(s.out + int64_t(i) * s.out_pitch + x);
    }
    if constexpr (any && kGradient) {
      g_c.store(s.g_c + x);
      if constexpr (curves) {
        g_rc.store(s.g_rc + x);
        g_cc.store(s.g_cc + x);
      }
    }
    // the last vector's sums are taken apart: its lanes past the edge do not count
    const int left = s.w - x - Vec::N;
    if (--until_flush == 0 || left < Vec::N) {
      until_flush = 8;
      const Vec inside = lane_mask(clamp(s.w - x, 0, Vec::N));
      constexpr unsigned kinds = bit(D) | (first ? bit(R) | bit(C) : 0) | (second ? bit(RR) | bit(RC) | bit(CC) : 0) |
                                 (n1 ? bit(N) : 0) | (n2 ? bit(NR) | bit(NC) : 0);
      for (int kind = 0; kind < kKinds; kind++) {
        if (!(kinds & bit(kind))) continue;
        if (count) add_to_doubles(s.sums[kind], sum[kind] & inside);
        sum[kind] = Vec::zero();
      }
    }
  }
}

using StencilBlock = void (*)(const Stencil&, int, int, bool);
template <size_t... i>
constexpr StencilBlock choose_from(std::index_sequence<i...>, unsigned mask, bool gradient) {
  constexpr StencilBlock table[2][kGroups] = {{stencil_block<i, false>...}, {stencil_block<i, true>...}};
  return table[gradient][mask];
}
inline StencilBlock choose_stencil(unsigned kinds, bool gradient) {
  return choose_from(std::make_index_sequence<kGroups>(), groups(kinds), gradient);
}
