# SPDX-License-Identifier: Apache-2.0
"""D, the derivatives of eq. (6) and the normals of eq. (7) and (8), with the gradient they leave at each pixel.

A warp, or half a wavefront, walks down a strip of 32 columns, one lane a column; what the rows above contributed stays
in registers and what the neighbouring columns hold comes by a shuffle (``tl.gather`` inside the warp). The two lanes at
either end are there for their neighbours only, so a strip yields 28 columns. Row n completes the row n - 2, whose
second derivatives need it.

Loads are clamped to the map, so derivatives vanish by themselves in the last column and row (replicate padding). The
adjoint needs masks where a derivative is the constant 0 (first differences, last column or row) and outside the map.
"""

import triton
import triton.language as tl

from mlr.kernels import slots
from mlr.kernels.geometry import quads_of
from mlr.kernels.masks import known, over
from mlr.kernels.slots import SLOTS
from mlr.kernels.windows import HUGE

LANES = tl.constexpr(32)
HALO = tl.constexpr(2)
STRIP = tl.constexpr(28)


@triton.jit
def load_row(e_ptr, t_ptr, at, target_sign):
    """E and the target at ``at``, a row of every strip.

    The contiguity hint is false where columns are clamped. It only steers Triton's layout: lanes lie along the row and
    load one number each. Without it Triton 3.6 shuffles every row through shared memory.
    """
    at = tl.max_contiguous(at, [1, LANES])
    t = tl.load(t_ptr + at).to(tl.float32)
    e = tl.load(e_ptr + at).to(tl.float32)
    if target_sign is not None:
        e += target_sign * t
    return e, t


@triton.jit
def row_flags(e, right):
    """Bits 6, 7 and 8: whether this pixel of a row of E and the next two to the right are known."""
    flag = known(e).to(tl.int32) << 6
    pair = flag | (tl.gather(flag, right, 1) << 1)
    return pair | ((tl.gather(pair, right, 1) << 1) & 0x100)


@triton.jit
def slot_weight(weights, counts, SLOT: tl.constexpr):
    """The weight of a kind; under a mask over the number of its positions, of which ``counts`` [SLOTS] has all."""
    weight = tl.load(weights + SLOT)
    if counts is not None:
        number = tl.sum(tl.where(tl.arange(0, SLOTS) == SLOT, counts, 0), 0)
        weight = over(weight, number.to(tl.float32))
    return weight


@triton.jit
def where_known(x, window, READS: tl.constexpr):
    """x, or 0 where the window has an unknown pixel that the kind reads; all of x without a window."""
    if window is not None:
        x = tl.where((window & READS) == READS, x, 0.0)
    return x


@triton.jit
def differences(m, right):
    """First and second difference along the row."""
    first = tl.gather(m, right, 1) - m
    return first, tl.gather(first, right, 1) - first


@triton.jit
def normal(e1, minus_e2, a1, a2, b1, b2, bb):
    """Half of 1 - cos of a = (a1, a2, 1) and b = a - e, and its derivatives by a1 and -a2: (half, t, u1, u2).

    With S = |a x b|^2, which is made of the differences e, and m = |a||b| = sqrt((a.b)^2 + S)

        (1 - cos) / 2 = sin^2(angle / 2) = S / (S + (m + a.b)^2)

    keeps all digits at any angle: what cancels in m + a.b where the angle is obtuse is small beside S. The derivatives
    of 1 - cos are t u1 = (a2 c + e1) t and t u2 = (a1 c - e2) t with c = e1 b2 - e2 b1 and t = |b|^2 / m^3; ``bb`` is
    |b|^2.
    """
    c = e1 * b2 + minus_e2 * b1
    cross = e1 * e1 + minus_e2 * minus_e2 + c * c
    dot = a1 * b1 + (a2 * b2 + 1.0)
    m2 = dot * dot + cross
    r = tl.math.rsqrt(m2)
    sum = m2 * r + dot
    q = tl.math.rsqrt(sum * sum + cross)  # a fourth of the instructions of a division, and positive
    return cross * q * q, bb * (r * r * r), a2 * c + e1, a1 * c + minus_e2


@triton.jit
def signed_weight(weight):
    """What ``weighted_sign`` needs to know of a weight."""
    return tl.where(weight < 0.0, -HUGE, HUGE), tl.abs(weight)


@triton.jit
def weighted_sign(x, weight):
    """weight * sign(x)."""
    factor, size = weight
    return tl.clamp(x * factor, -size, size)


@triton.jit
def walk(e_ptr, t_ptr, target_sign, stride, weights, counts, local, pitch, y0, rows, x0, h, w, partial, active,
         STRIPS: tl.constexpr, NORMALS: tl.constexpr, GRAD: tl.constexpr, UNROLL: tl.constexpr):
    """Sums of |.| and 1 - cos over ``rows`` rows from y0 [STRIPS, 1] on and the 28 columns from x0 [STRIPS, 1] on.

    E is what ``e_ptr`` points to plus ``target_sign`` (-1 or 0) times the target. Stores the local gradient to
    ``local`` and the sums to the slots of their kinds in ``partial`` [STRIPS] where ``active``.

    Under a mask ``counts`` are the numbers of positions of all kinds, ``e_ptr`` points to E with unknown pixels marked,
    ``target_sign`` is None, and ``window`` holds the flags of the 3 x 3 pixels from a position on.
    """
    lane = tl.arange(0, LANES)[None, :]
    zero = tl.zeros([STRIPS, LANES], tl.float32)
    x = x0 - HALO + lane
    right = tl.minimum(lane + 1, LANES - 1) + tl.zeros([STRIPS, LANES], tl.int32)
    left = tl.maximum(lane - 1, 0) + tl.zeros([STRIPS, LANES], tl.int32)
    column = tl.minimum(tl.maximum(x, 0), w - 1)
    stored = (lane >= HALO) & (lane < HALO + STRIP) & (x < quads_of(w))
    owned = stored & (x < w)
    differs = x < w - 1 + tl.zeros([STRIPS, LANES], tl.int32)  # columns whose r is not the constant 0
    # left of the map there is no rr; what else the clamped loads make there is 0 already
    within = (x >= 0).to(tl.float32) + zero
    w_d = signed_weight(slot_weight(weights, counts, slots.D))
    w_r = signed_weight(slot_weight(weights, counts, slots.R))
    w_c = signed_weight(slot_weight(weights, counts, slots.C))
    w_rr = signed_weight(slot_weight(weights, counts, slots.RR) * within)
    w_rc = signed_weight(slot_weight(weights, counts, slots.RC))
    w_cc = signed_weight(slot_weight(weights, counts, slots.CC))
    w_n = slot_weight(weights, counts, slots.N)
    w_nr = slot_weight(weights, counts, slots.NR) * within
    w_nc = slot_weight(weights, counts, slots.NC)

    d = zero
    r = zero
    c = zero
    rr = zero
    rc = zero
    cc = zero
    n = zero
    nr = zero
    nc = zero

    # The two rows above the strip. Of E's c and rc the negatives are kept, which saves negating products.
    last = (h - 1) * stride + column
    e2, t2 = load_row(e_ptr, t_ptr, tl.minimum(tl.maximum(y0 - 2, 0) * stride + column, last), target_sign)
    e1, t1 = load_row(e_ptr, t_ptr, tl.minimum(tl.maximum(y0 - 1, 0) * stride + column, last), target_sign)
    ex2, rr2 = differences(e2, right)
    ex1, rr1 = differences(e1, right)
    minus_ey2 = e2 - e1
    minus_rc2 = ex2 - ex1
    tx2, trr2 = differences(t2, right)
    tx1, trr1 = differences(t1, right)
    ty2 = t1 - t2
    trc2 = tx1 - tx2
    window = None
    if counts is not None:
        window = (row_flags(e2, right) >> 3) | row_flags(e1, right)
    # what row m - 1 hands to row m
    minus_grc1 = zero
    gcc1 = zero
    minus_gy1 = zero
    at = tl.minimum(y0 * stride + column, last)  # row m + 2
    place = (y0 - 2) * pitch + x
    left_rows = tl.maximum(h - y0, 0)  # none for a strip beyond the last
    for step in tl.range(-2, rows, loop_unroll_factor=UNROLL):  # row m = y0 + step; the first two hand down only
        e0, t0 = load_row(e_ptr, t_ptr, at, target_sign)
        ex0, rr0 = differences(e0, right)
        minus_ey1 = e1 - e0
        minus_rc1 = ex1 - ex0
        cc2 = minus_ey2 - minus_ey1
        if counts is not None:
            window = (window >> 3) | row_flags(e0, right)
        ex = where_known(ex2, window, slots.READS_R)
        minus_ey = where_known(minus_ey2, window, slots.READS_C)
        second = where_known(rr2, window, slots.READS_RR)
        minus_rc = where_known(minus_rc2, window, slots.READS_RC)
        cc2 = where_known(cc2, window, slots.READS_CC)
        # as an unsigned number a negative step is a huge one
        inside = tl.cast(step, tl.uint32, bitcast=True) < left_rows.to(tl.uint32, bitcast=True)
        valid = inside.to(tl.float32)
        d += valid * tl.abs(e2)
        r += valid * tl.abs(ex)
        c += valid * tl.abs(minus_ey)
        rr += valid * tl.abs(second)
        rc += valid * tl.abs(minus_rc)
        cc += valid * tl.abs(cc2)
        gx = weighted_sign(ex, w_r)
        minus_gy = weighted_sign(minus_ey, w_c)
        grr = weighted_sign(second, w_rr)
        minus_grc = weighted_sign(minus_rc, w_rc)
        gcc = weighted_sign(cc2, w_cc)
        if NORMALS:
            tx0, trr0 = differences(t0, right)
            ty1 = t0 - t1
            trc1 = tx0 - tx1
            tcc2 = ty1 - ty2
            px = tx2 + ex
            py = ty2 - minus_ey
            prr = trr2 + second
            prc = trc2 - minus_rc
            pcc = tcc2 + cc2
            tt = trc2 * trc2 + 1.0
            half, t, u1, u2 = normal(ex, minus_ey, px, py, tx2, ty2, tx2 * tx2 + (ty2 * ty2 + 1.0))
            n += valid * where_known(half, window, slots.READS_N)
            t = where_known(t * w_n, window, slots.READS_N)
            gx += t * u1
            minus_gy += t * u2
            half, t, u1, u2 = normal(second, minus_rc, prr, prc, trr2, trc2, trr2 * trr2 + tt)
            nr += valid * where_known(half, window, slots.READS_NR)
            t = where_known(t * w_nr, window, slots.READS_NR)
            grr += t * u1
            minus_grc += t * u2
            half, t, u1, u2 = normal(cc2, minus_rc, pcc, prc, tcc2, trc2, tcc2 * tcc2 + tt)
            nc += valid * where_known(half, window, slots.READS_NC)
            t = where_known(t * w_nc, window, slots.READS_NC)
            gcc += t * u1
            minus_grc += t * u2
            t1 = t0
            tx2 = tx1
            tx1 = tx0
            trr2 = trr1
            trr1 = trr0
            ty2 = ty1
            trc2 = trc1
        if GRAD:
            gcc = tl.where(step >= -y0, gcc, 0.0)  # above the map there is no cc
            gx = tl.where(differs, gx - grr + tl.gather(grr, left, 1) + minus_grc - minus_grc1, 0.0)
            minus_gy = tl.where(step < left_rows - 1, minus_gy + gcc - gcc1, 0.0)  # c is the constant 0 in the last row
            grad = weighted_sign(e2, w_d) - gx + tl.gather(gx, left, 1) + minus_gy - minus_gy1
            tl.store(local + place, grad, mask=stored & inside)
            minus_grc1 = minus_grc
            gcc1 = gcc
            minus_gy1 = minus_gy
        at = tl.minimum(at + stride, last)
        place += pitch
        e2 = e1
        e1 = e0
        ex2 = ex1
        ex1 = ex0
        rr2 = rr1
        rr1 = rr0
        minus_ey2 = minus_ey1
        minus_rc2 = minus_rc1
    own = owned.to(tl.float32)
    tl.store(partial + slots.D, tl.sum(d * own, 1), mask=active)
    tl.store(partial + slots.R, tl.sum(r * own, 1), mask=active)
    tl.store(partial + slots.C, tl.sum(c * own, 1), mask=active)
    tl.store(partial + slots.RR, tl.sum(rr * own, 1), mask=active)
    tl.store(partial + slots.RC, tl.sum(rc * own, 1), mask=active)
    tl.store(partial + slots.CC, tl.sum(cc * own, 1), mask=active)
    tl.store(partial + slots.N, tl.sum(n * (2.0 * own), 1), mask=active)
    tl.store(partial + slots.NR, tl.sum(nr * (2.0 * own), 1), mask=active)
    tl.store(partial + slots.NC, tl.sum(nc * (2.0 * own), 1), mask=active)
