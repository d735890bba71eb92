// SPDX-License-Identifier: Apache-2.0
// Runs warps, programs and grids.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "memory.h"
#include "warp.h"

// Special registers, at the start of the register file: 32 lanes of 32 bits each. The order is that of program.py.
enum Special { TID, TID_Y, TID_Z, LANEID, WARPID, CTAID, NCTAID = CTAID + 3, NTID = NCTAID + 3, SPECIALS = NTID + 3 };

// --- divergence -------------------------------------------------------------------------------------------------------
static void suspend(Warp& w, u32 pc, u32 lanes, u32 members) {
  if (w.pending_count > WARP) abort();  // groups are disjoint and not empty
  w.pending[w.pending_count++] = {pc, lanes, members};
}

// Groups at the same place become one. Goes on with the one that is furthest behind, among those that need not wait.
static bool resume(Warp& w) {
  for (int i = 0; i < w.pending_count; i++)
    for (int j = w.pending_count - 1; j > i; j--)
      if (w.pending[i].pc == w.pending[j].pc) {
        w.pending[i].lanes |= w.pending[j].lanes;
        w.pending[i].members |= w.pending[j].members;
        w.pending[j] = w.pending[--w.pending_count];
      }
  Group* next = nullptr;
  for (Group* g = w.pending; g < w.pending + w.pending_count; g++)
    if (!(g->members & w.live & ~g->lanes) && (!next || g->pc < next->pc)) next = g;
  if (!next) return false;
  w.pc = next->pc;
  w.active = next->lanes;
  *next = w.pending[--w.pending_count];
  return true;
}

static State fail(Warp& w, Kind kind, u32 lane) {
  report(w, kind, w.pc, lane, 0, 0, w.live);
  return FAILED;
}

// Runs until the next barrier or the end.
static State run_warp(Warp& w) {
  Launch& launch = *w.block->launch;
  const Instruction* code = launch.code;
  for (;;) {
    const Instruction& ins = code[w.pc];
    if (ins.members != NONE) {
      const u32 members = lanes_of<u32>(w, ins.members)[first_lane(w.active)];
      if (members & w.live & ~w.active) {
        suspend(w, w.pc, w.active, members);
        if (!resume(w)) return fail(w, DIVERGENT, 0);
        continue;
      }
    }
    const u32 lanes = w.active & (predicate(w, ins.predicate) ^ ins.negate);
    w.executed++;
    if (launch.checks) {
      launch.executions[w.pc]++;
      launch.lanes[w.pc] += __builtin_popcount(lanes);
    }
    switch (ins.op) {
      default:
        launch.handlers[ins.op](w, ins, lanes);
        w.pc++;
        break;
      case NOTHING:
        w.pc++;
        break;
      case JOIN:  // a branch target: others may be on their way to it
        w.executed--;
        w.pc++;
        if (w.pending_count) {
          suspend(w, w.pc, w.active, 0);
          resume(w);
        }
        break;
      case BRANCH: {
        if (w.executed > launch.budget) return fail(w, BUDGET, 0);
        const u32 target = (u32)ins.imm;
        if (lanes == w.active) {
          w.pc = target;
        } else if (lanes) {
          suspend(w, target, lanes, 0);
          suspend(w, w.pc + 1, w.active & ~lanes, 0);
          resume(w);
        } else {
          w.pc++;
        }
        break;
      }
      case RETURN:
        w.live &= ~lanes;
        w.active &= ~lanes;
        w.pc++;
        if (!w.active) {
          if (!w.pending_count) return DONE;
          if (!resume(w)) return fail(w, DIVERGENT, 0);
        }
        break;
      case BARRIER: {
        w.barrier = (u32)ins.imm;
        w.barrier_warps = ins.x[0] == NONE ? 0 : lanes_of<u32>(w, ins.x[0])[first_lane(w.active)] / WARP;
        w.pc++;
        return AT_BARRIER;
      }
      case TRAP:
        if (lanes) return fail(w, ASSERTION, first_lane(lanes));
        w.pc++;
        break;
    }
  }
}

// --- programs ---------------------------------------------------------------------------------------------------------
// A thread of the host with the memory of one program, used for one after another.
class Worker {
 public:
  explicit Worker(Launch& launch) : launch_(launch), warps_(launch.warps) {
    const u64 shared = launch.shared_bytes + 16;
    shared_.resize(shared);
    if (launch.checks) written_.resize(shared), writer_.resize(shared), reader_.resize(shared);
    block_ = {&launch, 0, {}, 0, shared_.data(), written_.data(), writer_.data(), reader_.data()};
    for (Warp& w : warps_) {
      w.registers = static_cast<u8*>(aligned_alloc(64, (launch.register_bytes + 127) / 64 * 64));
      if (!w.registers) abort();
      memset(w.registers, 0xcd, launch.register_bytes);
      memcpy(w.registers + launch.constant_offset, launch.constants, launch.constant_bytes);
      w.block = &block_;
      w.id = (u32)(&w - warps_.data());
    }
  }
  ~Worker() {
    for (Warp& w : warps_) free(w.registers);
  }
  Worker(const Worker&) = delete;

  // Whether the program came to its end.
  bool run(u64 program) {
    start(program);
    for (;;) {
      bool done = true;
      for (size_t k = 0; k < warps_.size(); k++) {
        Warp& w = warps_[launch_.order & 1 ? warps_.size() - 1 - k : k];
        if (w.state == READY) w.state = run_warp(w);
        if (w.state == FAILED) return false;
        done &= w.state == DONE;
      }
      if (done) return true;
      if (!open_barrier()) {
        for (Warp& w : warps_)
          if (w.state == AT_BARRIER) report(w, DEADLOCK, w.pc - 1, 0, 0, 0, 0);
        return false;
      }
    }
  }
  u64 executed() const {
    u64 sum = 0;
    for (const Warp& w : warps_) sum += w.executed;
    return sum;
  }

 private:
  void start(u64 program) {
    const u64* grid = launch_.grid;
    block_.program = program;
    block_.position[0] = (u32)(program % grid[0]);
    block_.position[1] = (u32)(program / grid[0] % grid[1]);
    block_.position[2] = (u32)(program / grid[0] / grid[1]);
    block_.epoch = 0;
    std::fill(shared_.begin(), shared_.end(), 0xcd);
    std::fill(written_.begin(), written_.end(), 0);
    std::fill(writer_.begin(), writer_.end(), 0);
    std::fill(reader_.begin(), reader_.end(), 0);
    for (Warp& w : warps_) {
      w.live = w.active = ALL;
      w.pc = 0;
      w.state = READY;
      w.executed = 0;
      w.pending_count = 0;
      u32* special = lanes_of<u32>(w, 0);
      memset(special, 0, SPECIALS * WARP * sizeof(u32));
      for (u32 i = 0; i < WARP; i++) {
        special[TID * WARP + i] = w.id * WARP + i;
        special[LANEID * WARP + i] = i;
        special[WARPID * WARP + i] = w.id;
        for (int axis = 0; axis < 3; axis++) {
          special[(CTAID + axis) * WARP + i] = block_.position[axis];
          special[(NCTAID + axis) * WARP + i] = (u32)grid[axis];
          special[(NTID + axis) * WARP + i] = axis == 0 ? (u32)launch_.warps * WARP : 1;
        }
      }
    }
  }
  // Lets go the warps of a barrier at which all that it waits for have arrived.
  bool open_barrier() {
    for (u32 barrier = 0; barrier < 16; barrier++) {
      u64 arrived = 0, expected = 0, unfinished = 0;
      for (const Warp& w : warps_) {
        unfinished += w.state != DONE;
        if (w.state != AT_BARRIER || w.barrier != barrier) continue;
        arrived++;
        expected = std::max<u64>(expected, w.barrier_warps);
      }
      if (!arrived || arrived < (expected ? expected : unfinished)) continue;
      for (Warp& w : warps_)
        if (w.state == AT_BARRIER && w.barrier == barrier) w.state = READY;
      block_.epoch++;
      return true;
    }
    return false;
  }

  Launch& launch_;
  std::vector<Warp> warps_;
  std::vector<u8> shared_, written_;
  std::vector<u32> writer_, reader_;
  Block block_;
};

// --- grids ------------------------------------------------------------------------------------------------------------
static std::vector<u32> program_order(u64 programs, u64 order) {
  std::vector<u32> sequence(programs);
  for (u64 i = 0; i < programs; i++) sequence[i] = (u32)(order == 1 ? programs - 1 - i : i);
  u64 state = order * 0x9e3779b97f4a7c15ull;
  for (u64 i = programs; order > 1 && i-- > 1;) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    std::swap(sequence[i], sequence[state % (i + 1)]);
  }
  return sequence;
}

extern "C" void run_launch(Launch* launch) {
  const u64 programs = launch->grid[0] * launch->grid[1] * launch->grid[2];
  const u64 chunk = std::clamp<u64>(programs / 64, 1, 16);
  const std::vector<u32> sequence = program_order(programs, launch->order);
  std::atomic<u64> next{0}, executed{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    Worker worker(*launch);
    u64 count = 0;
    for (u64 first; !failed && (first = next.fetch_add(chunk)) < programs;)
      for (u64 k = first; k < std::min(first + chunk, programs) && !failed; k++) {
        if (!worker.run(sequence[k])) failed = true;
        count += worker.executed();
      }
    executed += count;
  };
  std::vector<std::thread> helpers;
  for (u64 t = 1; t < launch->threads && !launch->checks; t++) helpers.emplace_back(work);
  work();
  for (std::thread& t : helpers) t.join();
  launch->executed = executed;
  launch->failed = failed;
}

// Sizes of the structs that engine.py mirrors.
extern "C" u64 struct_size(int which) {
  constexpr u64 sizes[] = {sizeof(Instruction), sizeof(Region), sizeof(Finding), sizeof(Launch)};
  return sizes[which];
}
