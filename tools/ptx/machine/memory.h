// SPDX-License-Identifier: Apache-2.0
// Loads and stores. Global addresses are those of the host; shared ones are offsets in the program's shared memory.
#pragma once
#include "machine.h"

enum Access : u32 { READ, WRITE };

// machine.cpp; each says whether the access may be performed, and reports what is wrong with it
bool check_global(Warp& w, u32 pc, u32 lane, u64 address, u32 size, Access access, const u8* value);
bool check_shared(Warp& w, u32 pc, u32 lane, u64 address, u32 size, Access access, const u8* value);
void count_global(Warp& w, u32 pc, u32 lanes, const u64* addresses, s64 offset, u32 size, Access access);
void count_shared(Warp& w, u32 pc, u32 lanes, const u32* addresses, s64 offset, u32 size);

constexpr u64 POISON = 0xcdcdcdcdcdcdcdcdull;  // what a refused load gives

template <class T> inline T read_as(const u8* p) {
  T v;
  memcpy(&v, p, sizeof v);
  return v;
}

// Memory holds N values of type M side by side, registers hold them as type R.
template <class M, class R, int N> inline void load_global(Warp& w, const Instruction& ins, u32 lanes) {
  constexpr u32 size = sizeof(M) * N;
  const u64* address = lanes_of<u64>(w, ins.x[0]);
  Launch& launch = *w.block->launch;
  if (__builtin_expect(launch.checks != 0, 0)) {
    const u32 pc = pc_of(w, ins);
    if (launch.checks & COUNT) count_global(w, pc, lanes, address, ins.imm, size, READ);
    for (u32 rest = lanes; rest; rest &= rest - 1) {
      const int i = first_lane(rest);
      const u64 at = address[i] + ins.imm;
      const bool good = check_global(w, pc, i, at, size, READ, nullptr);
      for (int k = 0; k < N; k++)
        lanes_of<R>(w, ins.x[1 + k])[i] = good ? (R)read_as<M>((const u8*)at + k * sizeof(M)) : (R)POISON;
    }
    return;
  }
  if (lanes == ALL) {
    u64 scattered = 0;
    for (int i = 0; i < WARP; i++) scattered |= address[i] - address[0] - (u64)i * size;
    if (!scattered) {
      const u8* p = (const u8*)(address[0] + ins.imm);
      for (int k = 0; k < N; k++) {
        R* d = lanes_of<R>(w, ins.x[1 + k]);
        LANE_LOOP d[i] = (R)read_as<M>(p + i * size + k * sizeof(M));
      }
      return;
    }
  }
  u64 at[WARP];  // a result may overwrite the address
  memcpy(at, address, sizeof at);
  for (u32 rest = lanes; rest; rest &= rest - 1) {
    const int i = first_lane(rest);
    for (int k = 0; k < N; k++)
      lanes_of<R>(w, ins.x[1 + k])[i] = (R)read_as<M>((const u8*)(at[i] + ins.imm) + k * sizeof(M));
  }
}

template <class M, class R, int N> inline void store_global(Warp& w, const Instruction& ins, u32 lanes) {
  constexpr u32 size = sizeof(M) * N;
  const u64* address = lanes_of<u64>(w, ins.x[0]);
  Launch& launch = *w.block->launch;
  if (launch.checks & COUNT && lanes) count_global(w, pc_of(w, ins), lanes, address, ins.imm, size, WRITE);
  for (u32 rest = lanes; rest; rest &= rest - 1) {
    const int i = first_lane(rest);
    M values[N];
    for (int k = 0; k < N; k++) values[k] = (M)lanes_of<R>(w, ins.x[1 + k])[i];
    const u64 at = address[i] + ins.imm;
    if (launch.checks && !check_global(w, pc_of(w, ins), i, at, size, WRITE, (const u8*)values)) continue;
    memcpy((u8*)at, values, size);
  }
}

template <class M, class R, int N> inline void load_shared(Warp& w, const Instruction& ins, u32 lanes) {
  constexpr u32 size = sizeof(M) * N;
  Block& block = *w.block;
  u32 address[WARP];
  memcpy(address, lanes_of<u32>(w, ins.x[0]), sizeof address);
  if (block.launch->checks & COUNT) count_shared(w, pc_of(w, ins), lanes, address, ins.imm, size);
  for (u32 rest = lanes; rest; rest &= rest - 1) {
    const int i = first_lane(rest);
    const u32 at = address[i] + (u32)ins.imm;
    const bool good = block.launch->checks ? check_shared(w, pc_of(w, ins), i, at, size, READ, nullptr)
                                           : (u64)at + size <= block.launch->shared_bytes;
    for (int k = 0; k < N; k++)
      lanes_of<R>(w, ins.x[1 + k])[i] = good ? (R)read_as<M>(block.shared + at + k * sizeof(M)) : (R)POISON;
  }
}

template <class M, class R, int N> inline void store_shared(Warp& w, const Instruction& ins, u32 lanes) {
  constexpr u32 size = sizeof(M) * N;
  Block& block = *w.block;
  const u32* address = lanes_of<u32>(w, ins.x[0]);
  if (block.launch->checks & COUNT && lanes) count_shared(w, pc_of(w, ins), lanes, address, ins.imm, size);
  for (u32 rest = lanes; rest; rest &= rest - 1) {
    const int i = first_lane(rest);
    const u32 at = address[i] + (u32)ins.imm;
    M values[N];
    for (int k = 0; k < N; k++) values[k] = (M)lanes_of<R>(w, ins.x[1 + k])[i];
    const bool good = block.launch->checks ? check_shared(w, pc_of(w, ins), i, at, size, WRITE, (const u8*)values)
                                           : (u64)at + size <= block.launch->shared_bytes;
    if (good) memcpy(block.shared + at, values, size);
  }
}

template <class M, class R> inline void load_parameter(Warp& w, const Instruction& ins, u32 lanes) {
  const R value = (R)read_as<M>(w.block->launch->parameters + ins.imm);
  R* d = lanes_of<R>(w, ins.x[0]);
  for (int i = 0; i < WARP; i++) d[i] = in(lanes, i) ? value : d[i];
}

// ldmatrix, stmatrix: N matrices of 8 x 8 16-bit elements. Lane 8 k + r has the address of row r of matrix k; register k
// of lane t holds the elements (t / 4, 2 (t % 4)) and the one after it, or the transposed ones.
template <int N, bool TRANSPOSED, bool LOAD> inline void move_matrix(Warp& w, const Instruction& ins, u32 lanes) {
  if (!lanes) return;
  Block& block = *w.block;
  u32 address[WARP];
  memcpy(address, lanes_of<u32>(w, ins.x[0]), sizeof address);
  for (int k = 0; k < N; k++) {
    u32* registers = lanes_of<u32>(w, ins.x[1 + k]);
    for (int t = 0; t < WARP; t++)
      for (int half = 0; half < 2; half++) {
        const int row = TRANSPOSED ? 2 * (t % 4) + half : t / 4, column = TRANSPOSED ? t / 4 : 2 * (t % 4) + half;
        const u32 at = address[8 * k + row] + (u32)ins.imm + 2 * column;
        const u16 value = (u16)(registers[t] >> (16 * half));
        const Access access = LOAD ? READ : WRITE;
        const bool good = block.launch->checks
                              ? check_shared(w, pc_of(w, ins), t, at, 2, access, LOAD ? nullptr : (const u8*)&value)
                              : (u64)at + 2 <= block.launch->shared_bytes;
        if (LOAD) {
          const u32 got = good ? read_as<u16>(block.shared + at) : (u16)POISON;
          registers[t] = (registers[t] & ~(0xffffu << (16 * half))) | got << (16 * half);
        } else if (good) {
          memcpy(block.shared + at, &value, 2);
        }
      }
  }
}
