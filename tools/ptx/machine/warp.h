// SPDX-License-Identifier: Apache-2.0
// Instructions by which the lanes of a warp exchange values. The machine has seen to it that all members have arrived.
#pragma once
#include "machine.h"

void report(Warp& w, Kind kind, u32 pc, u32 lane, u64 address, u32 size, u64 other);  // machine.cpp

enum Shuffle { UP, DOWN, BUTTERFLY, INDEX };

// x: result, predicate "the source lane was in range", value, lane operand, clamp and segment mask
template <Shuffle MODE> inline void shuffle(Warp& w, const Instruction& ins, u32 lanes) {
  const u32 *a = lanes_of<u32>(w, ins.x[2]), *b = lanes_of<u32>(w, ins.x[3]), *c = lanes_of<u32>(w, ins.x[4]);
  u32 value[WARP], in_range = 0, absent = 0;
  for (int i = 0; i < WARP; i++) {
    const int by = b[i] & 31, clamp = c[i] & 31, segment = (c[i] >> 8) & 31;
    const int bound = (i & segment) | (clamp & ~segment);
    int source = MODE == UP ? i - by : MODE == DOWN ? i + by : MODE == BUTTERFLY ? i ^ by : (i & segment) | (by & ~segment);
    const bool valid = MODE == UP ? source >= bound : source <= bound;
    if (!valid) source = i;
    in_range |= (u32)valid << i;
    if (in(lanes, i) && !in(w.active, source)) absent |= 1u << i;
    value[i] = a[source & 31];
  }
  if (absent && w.block->launch->checks) report(w, DIVERGENT, pc_of(w, ins), first_lane(absent), 0, 0, w.active);
  blend(lanes_of<u32>(w, ins.x[0]), value, lanes);
  set_predicate(w, ins.x[1], in_range, lanes);
}

// redux: one value for all lanes
template <class T, class F> inline void reduce(Warp& w, const Instruction& ins, u32 lanes, F f) {
  if (!lanes) return;
  const T* a = lanes_of<T>(w, ins.x[1]);
  T total = a[first_lane(lanes)];
  for (u32 rest = lanes & (lanes - 1); rest; rest &= rest - 1) total = f(total, a[first_lane(rest)]);
  T* d = lanes_of<T>(w, ins.x[0]);
  for (int i = 0; i < WARP; i++) d[i] = in(lanes, i) ? total : d[i];
}

// vote: the predicate x[1] ^ imm over all lanes
inline u32 vote(Warp& w, const Instruction& ins, u32 lanes) { return (predicate(w, ins.x[1]) ^ (u32)ins.imm) & lanes; }
inline void vote_ballot(Warp& w, const Instruction& ins, u32 lanes) {
  const u32 ballot = vote(w, ins, lanes);
  u32* d = lanes_of<u32>(w, ins.x[0]);
  for (int i = 0; i < WARP; i++) d[i] = in(lanes, i) ? ballot : d[i];
}
inline void vote_all(Warp& w, const Instruction& ins, u32 lanes) {
  set_predicate(w, ins.x[0], vote(w, ins, lanes) == lanes ? ALL : 0, lanes);
}
inline void vote_any(Warp& w, const Instruction& ins, u32 lanes) {
  set_predicate(w, ins.x[0], vote(w, ins, lanes) ? ALL : 0, lanes);
}
