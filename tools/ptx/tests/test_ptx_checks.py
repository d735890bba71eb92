# SPDX-License-Identifier: Apache-2.0
"""The PTX runner finds planted faults, says where they are, and counts what it executes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

import ptx  # noqa: E402
import triton.language as tl  # noqa: E402
from ptx import Kind  # noqa: E402

pytestmark = pytest.mark.skipif(triton.knobs.runtime.interpret, reason="TRITON_INTERPRET=1: nothing is compiled")


def line_of(function: Callable[..., object], text: str) -> str:
    """file:line of the first line of a kernel that contains some text."""
    kernel = function.fn  # type: ignore[attr-defined]
    first = kernel.__code__.co_firstlineno
    lines = Path(__file__).read_text().splitlines()
    return f"test_ptx_checks.py:{next(n for n, line in enumerate(lines, 1) if n >= first and text in line)}"


@contextmanager
def fault(kind: Kind) -> Iterator[list[ptx.Finding]]:
    """Expects faults of one kind, and hands them over."""
    found: list[ptx.Finding] = []
    with ptx.options(check=True), pytest.raises(ptx.PtxFault) as error:
        yield found
    assert error.value.kinds == {kind}, str(error.value)
    found += error.value.findings


@triton.jit
def copy_kernel(a, b, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(a + i, mask=i < n)
    tl.store(b + i, v, mask=i < n)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_correct_kernel_has_no_findings(sm_90: int) -> None:
    a, b = torch.randn(1000), torch.empty(1000)
    ptx.mark_unwritten(b)
    with ptx.options(check=True):
        copy_kernel[(4,)](a, b, 1000, BLOCK=256)
        copy_kernel[(4,)](b, a, 1000, BLOCK=256)  # what one launch wrote, the next may read
    assert torch.equal(a, b)
    assert ptx.unwritten(b) == 0


def test_read_out_of_bounds(sm_90: int) -> None:
    with fault(Kind.READ_OUTSIDE) as found:
        copy_kernel[(4,)](torch.randn(1007), torch.empty(1016), 1016, BLOCK=256)
    first = min(found, key=lambda finding: finding.where)  # a lane loads two elements, by an instruction each
    assert (first.kernel, first.source) == ("copy_kernel", line_of(copy_kernel, "tl.load"))
    assert (first.program, first.where) == ((3, 0, 0), "a[1007], outside its 1007 elements")
    assert (first.warp, first.lane, first.size) == (3, 23, 4)
    assert sum(finding.count for finding in found) == 9
    assert re.search(r"read out of bounds: copy_kernel, test_ptx_checks.py:\d+, program \(3, 0, 0\)", str(first))


def test_write_out_of_bounds(sm_90: int) -> None:
    kept = torch.zeros(1016)
    with fault(Kind.WRITE_OUTSIDE) as found:
        copy_kernel[(4,)](torch.randn(1016), kept[:1001], 1016, BLOCK=256)  # a view ends where it ends
    assert found[0].source == line_of(copy_kernel, "tl.store")
    assert min(finding.where for finding in found) == "b[1001], outside its 1001 elements"
    assert kept[1001:].eq(0).all()


def test_read_of_what_nobody_wrote(sm_90: int) -> None:
    with ptx.track_empty():
        middle, out = torch.empty(2, 500), torch.empty(1000)
    with ptx.options(check=True):
        copy_kernel[(4,)](torch.randn(1000), middle, 999, BLOCK=256)
    assert ptx.unwritten(middle) == 1
    with fault(Kind.READ_UNWRITTEN) as found:
        copy_kernel[(4,)](middle, out, 1000, BLOCK=256)
    assert (found[0].program, found[0].where) == ((3, 0, 0), "a[999] = a[1, 499]")
    ptx.mark_written(middle)
    with ptx.options(check=True):
        copy_kernel[(4,)](middle, out, 1000, BLOCK=256)


def test_nothing_may_be_read_of_an_empty_tensor(sm_90: int) -> None:
    storage = torch.zeros(256)
    with fault(Kind.READ_OUTSIDE):
        copy_kernel[(1,)](storage[:0], storage, 256, BLOCK=256)


# --- programs ---------------------------------------------------------------------------------------------------------


@triton.jit
def overlap_kernel(a, b, BLOCK: tl.constexpr, STEP: tl.constexpr):
    i = tl.program_id(0) * STEP + tl.arange(0, BLOCK)
    tl.store(b + i, tl.load(a + i) + tl.program_id(0))


@pytest.mark.parametrize("order", [0, 1, 5])
def test_two_programs_write_one_element(sm_90: int, order: int) -> None:
    with ptx.options(order=order), fault(Kind.WRITE_WRITE) as found:
        overlap_kernel[(4,)](torch.zeros(1024), torch.empty(1024), BLOCK=256, STEP=255)
    programs = {found[0].program[0], found[0].other}
    assert abs(max(programs) - min(programs)) == 1
    assert found[0].where == f"b[{255 * max(programs)}]"


@triton.jit
def shift_kernel(a, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(a + i, tl.load(a + i + 1))


@pytest.mark.parametrize(("order", "kind"), [(0, Kind.READ_AFTER_WRITE), (1, Kind.WRITE_AFTER_READ)])
def test_shift_in_place_reads_the_neighbours_block(sm_90: int, order: int, kind: Kind) -> None:
    # either the neighbour wrote before this read, or it will: both orders are a fault
    other = Kind.WRITE_AFTER_READ if order == 0 else Kind.READ_AFTER_WRITE
    with ptx.options(check=True, order=order), pytest.raises(ptx.PtxFault) as error:
        shift_kernel[(3,)](torch.zeros(128 * 3 + 1), BLOCK=128, num_warps=1)
    assert error.value.kinds == {other}


def test_results_show_the_order_of_programs(sm_90: int) -> None:
    results = []
    for order in (0, 1, 7):
        out = torch.empty(1021)
        with ptx.options(order=order):
            overlap_kernel[(4,)](torch.zeros(1024), out, BLOCK=256, STEP=255)
        results.append(out)
    assert not torch.equal(results[0], results[1])


# --- warps ------------------------------------------------------------------------------------------------------------


@triton.jit
def reverse_kernel(a, b, BLOCK: tl.constexpr, SAFE: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(b + i, tl.load(a + i))
    if SAFE:
        tl.debug_barrier()
    tl.store(a + i, tl.load(b + BLOCK - 1 - i))


def test_warps_exchange_through_global_memory(sm_90: int) -> None:
    a = torch.arange(256.0)
    with ptx.options(check=True):
        reverse_kernel[(1,)](a, torch.empty(256), BLOCK=256, SAFE=True)
    assert a.tolist() == list(range(255, -1, -1))
    with fault(Kind.WARP_RACE) as found:
        reverse_kernel[(1,)](a, torch.empty(256), BLOCK=256, SAFE=False)
    assert found[0].where.startswith("b[")


@triton.jit
def total_kernel(a, b, BLOCK: tl.constexpr):
    tl.store(b, tl.sum(tl.load(a + tl.arange(0, BLOCK)), 0))


def test_every_missing_barrier_is_found(sm_90: int) -> None:
    a, b = torch.randn(1024), torch.empty(1)
    compiled = total_kernel[(1,)](a, b, BLOCK=1024, num_warps=4)
    text, name = compiled.asm["ptx"], compiled.metadata.name
    barriers = list(re.finditer(r"bar\.sync\s+0;", text))
    assert barriers
    extra = [0] * (text[: text.index(")")].count(".param") - 2)

    def launch(ptx_text: str) -> None:
        ptx.launch(ptx_text, name, (1,), [a, b, *extra], num_warps=4, shared=compiled.metadata.shared)

    with ptx.options(check=True):
        launch(text)
    for barrier in barriers:
        with ptx.options(check=True), pytest.raises(ptx.PtxFault) as error:
            launch(text[: barrier.start()] + text[barrier.end() :])
        assert error.value.kinds <= {Kind.SHARED_RACE, Kind.SHARED_UNWRITTEN}


# --- kernels that do not end ------------------------------------------------------------------------------------------


@triton.jit
def endless_kernel(a):
    v = tl.load(a)
    while v == 0:
        v = tl.load(a)
    tl.store(a, v + 1)


def test_an_endless_loop_runs_out_of_budget(sm_90: int) -> None:
    with ptx.options(budget=10_000), fault(Kind.BUDGET) as found:
        endless_kernel[(1,)](torch.zeros(1, dtype=torch.int32))
    assert found[0].source.startswith("test_ptx_checks.py")


@triton.jit
def assert_kernel(a, BLOCK: tl.constexpr):
    tl.device_assert(tl.load(a + tl.arange(0, BLOCK)) > 0, "not positive")


def test_device_assert(sm_90: int) -> None:
    a = torch.ones(128)
    assert_kernel[(1,)](a, BLOCK=128, debug=True)
    a[77] = -1
    with fault(Kind.ASSERTION) as found:
        assert_kernel[(1,)](a, BLOCK=128, debug=True)
    assert (found[0].warp, found[0].lane) == (2, 13)


HEADER = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 a)
{
    .reg .pred %p<3>;
    .reg .b32 %r<6>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [a];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
"""


def run(body: str, programs: int = 1, num_warps: int = 1) -> torch.Tensor:
    room = torch.zeros(256 + 32)
    a = room[-room.data_ptr() % 128 // 4 :][:256]  # on a line of 128 bytes, as on a GPU
    ptx.launch(HEADER + body + "ret;\n}\n", "k", (programs,), [a], names=["a"], num_warps=num_warps, shared=128)
    return a


def test_lanes_that_have_left_are_missed(sm_90: int) -> None:
    with fault(Kind.DIVERGENT):
        run("setp.gt.u32 %p1, %r1, 15;\n@%p1 ret;\nshfl.sync.bfly.b32 %r3, %r1, 16, 31, -1;\n")


def test_lanes_on_another_way_are_missed(sm_90: int) -> None:
    body = "setp.gt.u32 %p1, %r1, 15;\n@%p1 bra A;\nvote.sync.ballot.b32 %r3, %p1, 0xffff0000;\nbra B;\nA:\n"
    with fault(Kind.DIVERGENT):
        run(body + "vote.sync.ballot.b32 %r3, %p1, 0x0000ffff;\nB:\n")


def test_a_warp_that_waits_at_another_barrier_is_a_deadlock(sm_90: int) -> None:
    body = "setp.gt.u32 %p1, %r1, 31;\n@%p1 bra A;\nbar.sync 0;\nbra B;\nA:\nbar.sync 1;\nB:\n"
    with fault(Kind.DEADLOCK) as found:
        run(body, num_warps=2)
    assert {f.warp for f in found} == {0, 1}


def test_shared_memory_has_an_end(sm_90: int) -> None:
    with fault(Kind.SHARED_OUTSIDE) as found:
        run("shl.b32 %r3, %r1, 2;\nst.shared.b32 [%r3+4], %r1;\n")
    assert (found[0].lane, found[0].where) == (31, "byte 128 of shared memory")


def test_misaligned_accesses(sm_90: int) -> None:
    with fault(Kind.MISALIGNED) as found:
        run("st.global.v2.b32 [%rd1+4], {%r1, %r1};\n")
    assert found[0].where == "a[1]"


# --- counts -----------------------------------------------------------------------------------------------------------

#: Each of 2 programs of 2 warps stores 64 floats, every second of 128, from program * 512 bytes on; lanes 0-7 of each
#: warp load one float from the start.
COUNTED = """
    mul.wide.u32 %rd2, %r1, 8;
    mul.wide.u32 %rd3, %r2, 512;
    add.s64 %rd4, %rd1, %rd2;
    add.s64 %rd4, %rd4, %rd3;
    and.b32 %r3, %r1, 31;
    setp.lt.u32 %p1, %r3, 8;
    @%p1 ld.global.f32 %f1, [%rd1];
    fma.rn.f32 %f2, %f1, %f1, %f1;
    st.global.f32 [%rd4], %f2;
    shl.b32 %r4, %r3, 3;
    and.b32 %r4, %r4, 127;
    st.shared.b32 [%r4], %r3;
"""


def test_counts_of_a_kernel_counted_by_hand(sm_90: int) -> None:
    ptx.counts.clear()
    with ptx.options(count=True):
        run(COUNTED, programs=2, num_warps=2)
    counts = ptx.counts["k"]
    warps = 4
    assert (counts.launches, counts.programs) == (1, 2)
    per_warp = {
        "parameter": 1, "move": 2, "integer 64": 4, "integer": 3, "compare": 1, "load global": 1, "fma": 1,
        "store global": 1, "store shared": 1, "branch": 1,
    }  # fmt: skip
    assert {k: v for k, v in counts.warp_instructions.items() if v} == {k: warps * v for k, v in per_warp.items()}
    lanes = {k: 32 * warps * v for k, v in per_warp.items()} | {"load global": 8 * warps}
    assert {k: v for k, v in counts.lane_instructions.items() if v} == lanes
    # all lanes load one float of the first sector; in each launch that is one sector, in each program too
    reads = counts.reads
    assert (reads.requests, reads.bytes, reads.sectors, reads.lines) == (warps, 8 * 4 * warps, warps, warps)
    assert (reads.program_sectors, reads.launch_sectors) == (2, 1)
    # a warp stores to 256 bytes in steps of 8: 8 sectors and 2 lines; nobody else stores there
    writes = counts.writes
    assert (writes.requests, writes.bytes, writes.sectors, writes.lines) == (
        warps,
        32 * 4 * warps,
        8 * warps,
        2 * warps,
    )
    assert (writes.program_sectors, writes.launch_sectors) == (8 * warps, 8 * warps)
    # 32 lanes store to 16 words in 16 banks: one pass
    assert (counts.shared_requests, counts.shared_passes, counts.shared_passes_ideal) == (warps, warps, warps)


def test_bank_conflicts_are_counted(sm_90: int) -> None:
    ptx.counts.clear()
    a = torch.zeros(32)
    body = HEADER + "shl.b32 %r3, %r1, 6;\nst.shared.b32 [%r3], %r1;\nret;\n}\n"
    with ptx.options(count=True):
        ptx.launch(body, "k", (1,), [a], num_warps=1, shared=2048)
    # steps of 16 words: banks 0 and 16, 16 words each
    assert (ptx.counts["k"].shared_passes, ptx.counts["k"].shared_passes_ideal) == (16, 1)


# --- jitter -----------------------------------------------------------------------------------------------------------


def test_jitter_moves_approximate_results_by_a_few_ulp(sm_90: int) -> None:
    body = "add.s32 %r3, %r1, 1;\ncvt.rn.f32.u32 %f1, %r3;\nrsqrt.approx.f32 %f2, %f1;\nmul.wide.u32 %rd2, %r1, 4;\n"
    body += "add.s64 %rd3, %rd1, %rd2;\nst.global.f32 [%rd3], %f2;\nst.global.f32 [%rd3+512], %f1;\n"
    exact = run(body, num_warps=4)
    with ptx.options(jitter=2):
        moved = run(body, num_warps=4)
    ulps = (moved.view(torch.int32) - exact.view(torch.int32))[:128]
    assert sorted(ulps.unique().tolist()) == [-2, -1, 0, 1, 2]
    assert torch.equal(moved[128:], exact[128:])
    torch.testing.assert_close(exact[:128].double(), torch.arange(1, 129).double().rsqrt(), rtol=1e-7, atol=0)
