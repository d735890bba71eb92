# SPDX-License-Identifier: Apache-2.0
"""The PTX runner computes what a GPU would: small kernels, one per feature, against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton")

import ptx  # noqa: E402
import triton.language as tl  # noqa: E402

pytestmark = pytest.mark.skipif(triton.knobs.runtime.interpret, reason="TRITON_INTERPRET=1: nothing is compiled")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- arithmetic -------------------------------------------------------------------------------------------------------


@triton.jit
def multiply_add_kernel(a, b, c, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + i, mask=i < n)
    y = tl.load(b + i, mask=i < n)
    tl.store(c + i, x * y + x, mask=i < n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_arithmetic_in_several_types(sm_90: int, dtype: torch.dtype) -> None:
    n = 1000
    a, b = ((normal(n, seed=k) * 9).abs().to(dtype) for k in (0, 1))
    c = torch.full_like(a, 99)
    multiply_add_kernel[(triton.cdiv(n, 256),)](a, b, c, n, BLOCK=256)
    expected = (a.double() * b.double() + a.double()).to(dtype) if dtype.is_floating_point else a * b + a
    # one rounding or two, as the compiler fuses
    torch.testing.assert_close(c, expected)


@triton.jit
def integer_kernel(a, b, c, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    m = i < n
    x = tl.load(a + i, mask=m, other=1)
    y = tl.load(b + i, mask=m, other=1)
    tl.store(c + i, x // y, mask=m)
    tl.store(c + n + i, x % y, mask=m)
    tl.store(c + 2 * n + i, (x << (y & 7)) ^ (x >> (y & 3)), mask=m)
    tl.store(c + 3 * n + i, tl.minimum(x, y) * tl.maximum(x, y) | (x & ~y), mask=m)
    tl.store(c + 4 * n + i, tl.abs(x), mask=m)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16])
def test_integers(sm_90: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randint(-120, 120, (500,), generator=g).to(dtype), torch.randint(1, 100, (500,), generator=g).to(dtype)
    c = torch.empty(5, 500, dtype=dtype)
    integer_kernel[(1,)](a, b, c, 500, BLOCK=512)
    expected = [
        torch.div(a, b, rounding_mode="trunc"),
        torch.fmod(a, b),
        (a << (b & 7)) ^ (a >> (b & 3)),
        torch.minimum(a, b) * torch.maximum(a, b) | (a & ~b),
        a.abs(),
    ]
    assert torch.equal(c, torch.stack(expected))


@triton.jit
def mathematics_kernel(a, c, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    m = i < n
    x = tl.load(a + i, mask=m, other=1.0)
    tl.store(c + i, tl.exp(x), mask=m)
    tl.store(c + n + i, tl.log(tl.abs(x)), mask=m)
    tl.store(c + 2 * n + i, tl.sqrt(tl.abs(x)), mask=m)
    tl.store(c + 3 * n + i, tl.rsqrt(tl.abs(x)), mask=m)
    tl.store(c + 4 * n + i, tl.floor(x) + 2 * tl.ceil(x), mask=m)
    tl.store(c + 5 * n + i, tl.div_rn(x, 3.0) + tl.sqrt_rn(tl.abs(x)), mask=m)
    tl.store(c + 6 * n + i, 1 / x, mask=m)
    tl.store(c + 7 * n + i, tl.sigmoid(x), mask=m)


def test_mathematics(sm_90: int) -> None:
    x = torch.cat([normal(995) * 3, torch.tensor([1e-3, 50.0, -40.0, 80.0, 1.0])])
    c = torch.empty(8, x.numel())
    mathematics_kernel[(4,)](x, c, x.numel(), BLOCK=256)
    d, size = x.double(), x.double().abs()
    steps = d.floor() + 2 * d.ceil()
    expected = [d.exp(), size.log(), size.sqrt(), size.rsqrt(), steps, d / 3 + size.sqrt(), 1 / d, d.sigmoid()]
    torch.testing.assert_close(c.double(), torch.stack(expected), rtol=2e-6, atol=2e-7)


@triton.jit
def clamp_kernel(a, b, c, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    bound = tl.load(b + i)
    tl.store(c + i, tl.clamp(tl.load(a + i), -bound, bound))


def test_clamping_between_a_number_and_its_negative(sm_90: int) -> None:
    numbers = torch.tensor([0.0, -0.0, 1e-40, 0.5, -0.5, 2.0, -2.0, torch.inf, -torch.inf, 3e38, -3e38])
    bounds = torch.tensor([0.0, 1e-40, 0.5, 1.0, torch.inf])
    a, b = (x.flatten().contiguous() for x in torch.meshgrid(numbers, bounds, indexing="ij"))
    a, b = (torch.cat([x, x.new_ones(64 - x.numel())]) for x in (a, b))
    c = torch.empty(64)
    compiled = clamp_kernel[(1,)](a, b, c, BLOCK=64)
    assert "min.xorsign.abs.f32" in compiled.asm["ptx"]
    assert torch.equal(c, a.clamp(-b, b))


# --- conversions ------------------------------------------------------------------------------------------------------


@triton.jit
def narrow_kernel(x, half, bfloat, byte, unsigned, word, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i)
    tl.store(half + i, v.to(tl.float16))
    tl.store(bfloat + i, v.to(tl.bfloat16))
    tl.store(byte + i, v.to(tl.int8))
    tl.store(unsigned + i, tl.abs(v).to(tl.uint8))
    tl.store(word + i, v.to(tl.int32))


@triton.jit
def widen_kernel(half, bfloat, byte, unsigned, word, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(half + i).to(tl.float32))
    tl.store(out + N + i, tl.load(bfloat + i).to(tl.float32))
    tl.store(out + 2 * N + i, tl.load(byte + i).to(tl.float32))
    tl.store(out + 3 * N + i, tl.load(unsigned + i).to(tl.float32))
    tl.store(out + 4 * N + i, tl.load(word + i).to(tl.float32))


def test_conversions_to_narrow_types(sm_90: int) -> None:
    special = [
        0.0,
        -0.0,
        65504.0,
        65519.9,
        65520.0,
        1e30,
        float("inf"),
        float("-inf"),
        6e-8,
        2.9e-8,
        3.1e-8,
        1e-45,
        2049.0,
    ]
    special += [2050.5, 4097.0, 1.00390625, 1.001953125, 0.3, -0.5]
    x = torch.cat([normal(1500) * 50, normal(500, seed=1) * 1e-6, torch.tensor(special)])
    x = torch.cat([x, torch.zeros(2048 - x.numel())])
    half, bfloat = torch.empty(2048, dtype=torch.float16), torch.empty(2048, dtype=torch.bfloat16)
    whole = [torch.empty(2048, dtype=dtype) for dtype in (torch.int8, torch.uint8, torch.int32)]
    narrow_kernel[(8,)](x, half, bfloat, *whole, BLOCK=256)
    assert torch.equal(half, x.half())
    assert torch.equal(bfloat, x.bfloat16())
    # what a float beyond a byte becomes is undefined, and four bytes share a word: leave out its neighbours
    inside = (x.abs() < 127).view(-1, 4).all(1).repeat_interleave(4)
    for out, value in zip(whole, (x, x.abs(), x), strict=True):
        assert torch.equal(out[inside], value[inside].to(out.dtype))


def test_conversions_of_every_half(sm_90: int) -> None:
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32)
    bits = every.to(torch.int16)
    halves, bfloats = bits.view(torch.float16), bits.view(torch.bfloat16)
    out = torch.empty(5, 1 << 16)
    widen_kernel[(1,)](halves, bfloats, bits.to(torch.int8), bits.to(torch.uint8), every, out, N=1 << 16, num_warps=8)
    expected = [
        halves.float(),
        bfloats.float(),
        bits.to(torch.int8).float(),
        bits.to(torch.uint8).float(),
        every.float(),
    ]
    torch.testing.assert_close(out, torch.stack(expected), rtol=0, atol=0, equal_nan=True)


# --- between lanes and warps ------------------------------------------------------------------------------------------


@triton.jit
def reduce_kernel(a, sums, most, where, least, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    v = tl.load(a + i, mask=i < n, other=0.0)
    tl.store(sums, tl.sum(v, 0))
    tl.store(most, tl.max(v, 0))
    tl.store(where, tl.argmax(v, 0))
    tl.store(least, tl.min((v * 100).to(tl.int32), 0))


@pytest.mark.parametrize("num_warps", [1, 8])
def test_reductions_over_warps(sm_90: int, num_warps: int) -> None:
    a = normal(1000)
    sums, most = torch.empty(1), torch.empty(1)
    where, least = torch.empty(1, dtype=torch.int32), torch.empty(1, dtype=torch.int32)
    with ptx.options(check=True):
        reduce_kernel[(1,)](a, sums, most, where, least, 1000, BLOCK=1024, num_warps=num_warps)
    torch.testing.assert_close(sums.double(), a.double().sum()[None], rtol=1e-5, atol=1e-4)
    assert (most[0], where[0], least[0]) == (a.max(), a.argmax(), (a * 100).int().min())


@triton.jit
def scan_kernel(a, rows, columns, H: tl.constexpr, W: tl.constexpr):
    i = tl.arange(0, H)[:, None] * W + tl.arange(0, W)[None, :]
    tl.store(rows + i, tl.cumsum(tl.load(a + i), 1))
    tl.store(columns + i, tl.cumsum(tl.load(a + i), 0, reverse=True))


def test_scans(sm_90: int) -> None:
    a = normal(16, 128)
    rows, columns = torch.empty_like(a), torch.empty_like(a)
    with ptx.options(check=True):
        scan_kernel[(1,)](a, rows, columns, H=16, W=128)
    torch.testing.assert_close(rows.double(), a.double().cumsum(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(columns.double(), a.double().flip(0).cumsum(0).flip(0), rtol=1e-5, atol=1e-5)


@triton.jit
def exchange_kernel(a, index, transposed, gathered, H: tl.constexpr, W: tl.constexpr):
    i = tl.arange(0, H)[:, None] * W + tl.arange(0, W)[None, :]
    v = tl.load(a + i)
    tl.store(transposed + tl.arange(0, W)[:, None] * H + tl.arange(0, H)[None, :], tl.trans(v))
    tl.store(gathered + i, tl.gather(v, tl.load(index + i), 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_exchange_through_shared_memory(sm_90: int, dtype: torch.dtype) -> None:
    a = normal(32, 64).to(dtype)
    index = torch.randint(0, 64, (32, 64), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    transposed, gathered = torch.empty(64, 32, dtype=dtype), torch.empty_like(a)
    with ptx.options(check=True):
        exchange_kernel[(1,)](a, index, transposed, gathered, H=32, W=64)
    assert torch.equal(transposed, a.t())
    assert torch.equal(gathered, a.gather(1, index.long()))


# --- flow -------------------------------------------------------------------------------------------------------------


@triton.jit
def collatz_kernel(a, steps):
    i = tl.program_id(0)
    v = tl.load(a + i)
    k = 0
    while v != 1:
        if v % 2 == 0:  # noqa: SIM108 - the branch is what is tested
            v = v // 2
        else:
            v = 3 * v + 1
        k += 1
    tl.store(steps + i, k)


def collatz(v: int) -> int:
    k = 0
    while v != 1:
        v, k = (v // 2 if v % 2 == 0 else 3 * v + 1), k + 1
    return k


def test_loops_that_depend_on_data(sm_80: int) -> None:
    a = torch.arange(1, 40, dtype=torch.int32)
    steps = torch.empty_like(a)
    collatz_kernel[(39,)](a, steps)
    assert steps.tolist() == [collatz(v) for v in a.tolist()]


@triton.jit
def grid_kernel(c, NX, NY):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    tl.store(c + (z * NY + y) * NX + x, x + 10 * y + 100 * z + 1000 * tl.num_programs(1))


@pytest.mark.parametrize("threads", [1, 3])
def test_three_dimensional_grid(sm_90: int, threads: int) -> None:
    c = torch.full((3, 4, 5), -1, dtype=torch.int32)
    with ptx.options(threads=threads):
        grid_kernel[(5, 4, 3)](c, 5, 4)
    z, y, x = torch.meshgrid(torch.arange(3), torch.arange(4), torch.arange(5), indexing="ij")
    assert torch.equal(c, (x + 10 * y + 100 * z + 4000).int())


#: Lanes of a warp take different ways, meet again, and some leave early; an inner scope hides a register.
DIVERGENT = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry collatz(.param .u64 a, .param .u64 b)
{
    .reg .pred %p<5>;
    .reg .b32 %r<10>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [a];
    ld.param.u64 %rd2, [b];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.u32 %r2, [%rd4];
    mov.u32 %r3, 0;
LOOP:
    setp.eq.s32 %p1, %r2, 1;
    @%p1 bra DONE;
    and.b32 %r4, %r2, 1;
    setp.ne.s32 %p2, %r4, 0;
    @%p2 bra ODD;
    shr.u32 %r2, %r2, 1;
    bra NEXT;
ODD:
    mad.lo.s32 %r2, %r2, 3, 1;
    { .reg .pred %p1; setp.gt.u32 %p1, %r2, 1000; }
NEXT:
    add.s32 %r3, %r3, 1;
    setp.gt.u32 %p4, %r3, 100;
    @%p4 ret;
    bra LOOP;
DONE:
    bar.warp.sync -1;
    st.global.u32 [%rd5], %r3;
    ret;
}
"""


def test_lanes_diverge_meet_and_leave(sm_80: int) -> None:
    a = torch.arange(1, 65, dtype=torch.int32)
    steps = torch.full_like(a, -7)
    with ptx.options(check=True):
        ptx.launch(DIVERGENT, "collatz", (1,), [a, steps], num_warps=2)
    expected = [collatz(v) if collatz(v) <= 100 else -7 for v in a.tolist()]
    assert -7 in expected
    assert steps.tolist() == expected


# --- errors and set-up ------------------------------------------------------------------------------------------------


def test_an_unknown_instruction_is_named(sm_80: int) -> None:
    text = DIVERGENT.replace("shr.u32 %r2, %r2, 1;", "dp4a.s32.s32 %r2, %r2, %r2, %r2;")
    with pytest.raises(ptx.PtxError, match=r'collatz, PTX line 24: cannot run "dp4a.*unknown instruction dp4a'):
        ptx.launch(text, "collatz", (1,), [torch.ones(32, dtype=torch.int32)] * 2, num_warps=1)


def test_wrong_launches_say_what_is_wrong(sm_80: int) -> None:
    with pytest.raises(ptx.PtxError, match="has 2 parameters, got 1 arguments"):
        ptx.launch(DIVERGENT, "collatz", (1,), [torch.ones(1)])
    with pytest.raises(ptx.PtxError, match=r"no kernel other; it has .'collatz'"):
        ptx.launch(DIVERGENT, "other", (1,), [])
    with pytest.raises(TypeError, match="unknown settings"), ptx.options(checks=True):
        pass


def test_the_driver_comes_and_goes() -> None:
    if ptx.why_not():
        pytest.skip(ptx.why_not())
    before = triton.runtime.driver._active
    with ptx.installed(80):
        assert triton.runtime.driver.active.runs_cpu_tensors
        assert triton.runtime.driver.active.get_current_target().arch == 80
        with ptx.installed(90):
            assert triton.runtime.driver.active.get_current_target().arch == 90
        assert triton.runtime.driver.active.get_current_target().arch == 80
    assert triton.runtime.driver._active is before
    with pytest.raises(ptx.PtxError, match="compute capability must be one of"):
        ptx.install(75)


def test_a_missing_compiler_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from ptx import build

    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    build.missing.cache_clear()
    try:
        assert "g++" in ptx.why_not()
        with pytest.raises(ptx.PtxError, match=r"g\+\+"):
            ptx.install(90)
    finally:
        build.missing.cache_clear()
