# SPDX-License-Identifier: Apache-2.0
"""D, the derivatives of eq. (6) and the normals of eq. (7) and (8), with the gradient they leave at each pixel.

A warp walks down a strip of 32 columns, one lane a column; what the rows above contributed stays in registers and what
the neighbouring columns hold comes by a shuffle (``tl.gather`` inside the warp). The two lanes at either end are there
for their neighbours only, so a strip yields 28 columns. Row n completes the row n - 2,
whose second derivatives need it.

Loads are clamped to the map, so derivatives vanish by themselves in the last column and row (replicate padding). The
adjoint needs masks where a derivative is the constant 0 (first differences, last column or row) and outside the map.
"""

import triton
import triton.language as tl

from mlr.kernels.geometry import quads_of
from mlr.kernels.windows import sign

LANES = tl.constexpr(32)
HALO = tl.constexpr(2)
STRIP = tl.constexpr(28)


@triton.jit
def normal(e1, e2, a1, a2, b1, b2, aa, bb):
    """1 - cos of a = (a1, a2, 1) and b = a - e, and its derivatives by a1 and a2, from |a|^2 and |b|^2.

    1 - cos = |a x b|^2 / (|a||b| (|a||b| + a.b)) keeps all digits where the angle is acute, and |a x b| is made of the
    differences e. Its derivatives are (a2 c + e1) t and (e2 - a1 c) t with c = e1 b2 - e2 b1, t = |b|^2 / (|a||b|)^3.
    """
    c = e1 * b2 - e2 * b1
    cross = e1 * e1 + e2 * e2 + c * c
    dot = a1 * b1 + (a2 * b2 + 1.0)
    r = tl.math.rsqrt(aa * bb)
    r2 = r * r
    cos = dot * r
    acute = cross * r2 / (1.0 + cos)  # may be infinite where it is not used
    value = tl.where(cos >= 0.0, acute, 1.0 - cos)
    t = bb * (r2 * r)
    return value, (a2 * c + e1) * t, (e2 - a1 * c) * t


@triton.jit
def walk(e_ptr, t_ptr, minus, stride, weights, local, pitch, y0, rows, x0, h, w, partial, keep,
         WARPS: tl.constexpr,
         NORMALS: tl.constexpr, GRAD: tl.constexpr, UNROLL: tl.constexpr):
    """Sums of |.| and 1 - cos over ``rows`` rows from y0 [WARPS, 1] on and the 28 columns from x0 [WARPS, 1] on.

    Stores the local gradient to ``local`` and the sums to the slots of their kinds in ``partial`` [WARPS].
    """
    lane = tl.arange(0, LANES)[None, :]
    zero = tl.zeros([WARPS, LANES], tl.float32)
    x = x0 - HALO + lane
    right = tl.minimum(lane + 1, LANES - 1) + tl.zeros([WARPS, LANES], tl.int32)
    left = tl.maximum(lane - 1, 0) + tl.zeros([WARPS, LANES], tl.int32)
    # The hint, which is not true where columns are clamped, only tells the compiler to lay the lanes along the row: a
    # lane loads one number. Without it Triton 3.6 shuffles every row through shared memory.
    column = tl.max_contiguous(tl.minimum(tl.maximum(x, 0), w - 1), [1, LANES])
    stored = (lane >= HALO) & (lane < HALO + STRIP) & (x < quads_of(w))
    owned = stored & (x < w)
    within = (x >= 0).to(tl.float32) + zero
    differs = ((x >= 0) & (x < w - 1)).to(tl.float32) + zero  # columns whose r is not the constant 0
    w_d = tl.load(weights)
    w_r = tl.load(weights + 5)
    w_c = tl.load(weights + 6)
    w_rr = tl.load(weights + 7)
    w_rc = tl.load(weights + 8)
    w_cc = tl.load(weights + 9)
    w_n = tl.load(weights + 10)
    w_nr = tl.load(weights + 11)
    w_nc = tl.load(weights + 12)

    d = zero
    r = zero
    c = zero
    rr = zero
    rc = zero
    cc = zero
    n = zero
    nr = zero
    nc = zero

    # Rows n - 1 and n - 2 of E and of the target's derivatives. What a value and the value one row older start from
    # must differ: where both are the same constant, Triton 3.8 takes the older one for a constant (the first rows'
    # results are not used, so any number will do).
    older = zero + 1.0
    e1 = zero
    e2 = older
    ex1 = zero
    ex2 = older
    rr1 = zero
    rr2 = older
    ey2 = zero
    rc2 = zero
    t1 = zero
    tx1 = zero
    tx2 = older
    trr1 = zero
    trr2 = older
    ty2 = zero
    trc2 = zero
    # what row m - 1 hands to row m
    g_rc = zero
    g_cc = zero
    g_y = zero
    # row m + 2, clamped to the map, and what is left of the map from row m on
    at = tl.minimum(tl.maximum(y0 - 2, 0), h - 1) * stride + column
    place = (y0 - 4) * pitch + x
    for step in tl.range(0, rows + 4, loop_unroll_factor=UNROLL):
        m = y0 - 4 + step
        here = tl.max_contiguous(at, [1, LANES])
        t0 = tl.load(t_ptr + here).to(tl.float32)
        e0 = tl.load(e_ptr + here).to(tl.float32) - minus * t0
        ex0 = tl.gather(e0, right, 1) - e0
        rr0 = tl.gather(ex0, right, 1) - ex0
        ey1 = e0 - e1
        rc1 = ex0 - ex1
        cc2 = ey1 - ey2
        known = (step >= 4) & (m < h)
        valid = known.to(tl.float32)
        d += valid * tl.abs(e2)
        r += valid * tl.abs(ex2)
        c += valid * tl.abs(ey2)
        rr += valid * tl.abs(rr2)
        rc += valid * tl.abs(rc2)
        cc += valid * tl.abs(cc2)
        gx = w_r * sign(ex2)
        gy = w_c * sign(ey2)
        grr = w_rr * sign(rr2)
        grc = w_rc * sign(rc2)
        gcc = w_cc * sign(cc2)
        if NORMALS:
            tx0 = tl.gather(t0, right, 1) - t0
            trr0 = tl.gather(tx0, right, 1) - tx0
            ty1 = t0 - t1
            trc1 = tx0 - tx1
            tcc2 = ty1 - ty2
            px = tx2 + ex2
            py = ty2 + ey2
            prr = trr2 + rr2
            prc = trc2 + rc2
            pcc = tcc2 + cc2
            pp = prc * prc + 1.0
            tt = trc2 * trc2 + 1.0
            value, g1, g2 = normal(ex2, ey2, px, py, tx2, ty2, px * px + (py * py + 1.0), tx2 * tx2 + (ty2 * ty2 + 1.0))
            n += valid * value
            gx += w_n * g1
            gy += w_n * g2
            value, g1, g2 = normal(rr2, rc2, prr, prc, trr2, trc2, prr * prr + pp, trr2 * trr2 + tt)
            nr += valid * value
            grr += w_nr * g1
            grc += w_nr * g2
            value, g1, g2 = normal(rc2, cc2, prc, pcc, trc2, tcc2, pcc * pcc + pp, tcc2 * tcc2 + tt)
            nc += valid * value
            grc += w_nc * g1
            gcc += w_nc * g2
            t1 = t0
            tx2 = tx1
            tx1 = tx0
            trr2 = trr1
            trr1 = trr0
            ty2 = ty1
            trc2 = trc1
        if GRAD:
            # rows whose c is not the constant 0; a negative number is a large one without its sign
            above = (m.to(tl.uint32, bitcast=True) < (h - 1).to(tl.uint32, bitcast=True)).to(tl.float32)
            grr *= within
            grc *= above
            gcc *= (m >= 0).to(tl.float32)
            gx = (gx - grr + tl.gather(grr, left, 1) - grc + g_rc) * differs
            gy = (gy - gcc + g_cc) * above
            grad = w_d * sign(e2) - gx + tl.gather(gx, left, 1) - gy + g_y
            tl.store(local + place, grad, mask=stored & known)
            g_rc = grc
            g_cc = gcc
            g_y = gy
        at += tl.where((m + 2).to(tl.uint32, bitcast=True) < (h - 1).to(tl.uint32, bitcast=True), stride, 0)
        place += pitch
        e2 = e1
        e1 = e0
        ex2 = ex1
        ex1 = ex0
        rr2 = rr1
        rr1 = rr0
        ey2 = ey1
        rc2 = rc1
    own = owned.to(tl.float32)
    tl.store(partial, tl.sum(d * own, 1), mask=keep)
    tl.store(partial + 5, tl.sum(r * own, 1), mask=keep)
    tl.store(partial + 6, tl.sum(c * own, 1), mask=keep)
    tl.store(partial + 7, tl.sum(rr * own, 1), mask=keep)
    tl.store(partial + 8, tl.sum(rc * own, 1), mask=keep)
    tl.store(partial + 9, tl.sum(cc * own, 1), mask=keep)
    tl.store(partial + 10, tl.sum(n * own, 1), mask=keep)
    tl.store(partial + 11, tl.sum(nr * own, 1), mask=keep)
    tl.store(partial + 12, tl.sum(nc * own, 1), mask=keep)
