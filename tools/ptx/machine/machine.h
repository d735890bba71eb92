// SPDX-License-Identifier: Apache-2.0
// What the machine is made of: instructions, launches, blocks of warps, and the lane loops that handlers are written in.
//
// A register is a vector of 32 lanes in its warp's register file, a predicate a word of 32 bits. An operand is the byte
// offset of a register in that file; constants and special registers live there too, so that handlers know only one kind
// of operand. Every struct here is mirrored, field by field, in engine.py.
#pragma once
#include <cstdint>
#include <cstring>

using u8 = uint8_t;
using s8 = int8_t;
using u16 = uint16_t;
using s16 = int16_t;
using u32 = uint32_t;
using s32 = int32_t;
using u64 = uint64_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;

constexpr u32 ALL = ~0u;       // every lane
constexpr u32 NONE = ~0u;      // no operand
constexpr int WARP = 32;

struct Warp;
struct Instruction {
  u32 op;          // index into Launch::handlers, or one of Control
  u32 predicate;   // lanes in which it runs: active & (predicate ^ negate)
  u32 negate;
  u32 members;     // operand with the lanes a .sync instruction waits for, or NONE
  u32 x[10];       // operands; the result first
  s64 imm;         // address offset, branch target, parameter offset, ...
};

// Instructions that change the flow; the others have handlers.
enum Control : u32 { NOTHING, JOIN, BRANCH, RETURN, BARRIER, TRAP, CONTROLS };

using Handler = void (*)(Warp&, const Instruction&, u32 lanes);

// A tensor that the kernel may touch, with what is known of each of its bytes and 32-byte sectors.
struct Region {
  u64 base, size;
  u8* written;                       // whether anybody has written the byte
  u64 *writer, *reader;              // tag of the last program that did (see check.h)
  u32 *sector_reader, *sector_writer;
  u64 read_only;
};

enum Kind : u32 {
  READ_OUTSIDE, WRITE_OUTSIDE, READ_UNWRITTEN, WRITE_WRITE, READ_AFTER_WRITE, WRITE_AFTER_READ, WARP_RACE, READ_ONLY,
  MISALIGNED, SHARED_OUTSIDE, SHARED_UNWRITTEN, SHARED_RACE, DIVERGENT, BUDGET, DEADLOCK, ASSERTION,
};
struct Finding {
  u32 kind, pc, program[3], warp, lane, size;
  u64 address, other, count;
};

enum Checks : u64 { CHECK = 1, COUNT = 2 };
enum Traffic { REQUESTS, SECTORS, BYTES, PASSES_IDEAL, PASSES, LINES, TRAFFIC };

struct Launch {
  const Instruction* code;
  const Handler* handlers;
  u64 length;                        // instructions in code
  u64 checks;
  Region* regions;                   // ascending by base
  u64 region_count;
  u64 register_bytes, constant_offset;
  const u8* constants;
  u64 constant_bytes;
  const u8* parameters;
  u64 shared_bytes;
  u64 grid[3], warps;
  u64 first_tag;                     // tag of program 0; tags of earlier launches are smaller
  u64 budget;                        // instructions a warp may execute
  u64 jitter;                        // ulps by which approximate results may move
  u64 order;                         // 0 ascending, 1 descending, else the seed of a permutation
  u64 threads;
  u64 *executions, *lanes;           // per instruction
  u64* traffic;                      // per instruction, TRAFFIC numbers
  u64* sectors;                      // distinct ones: per program read and written, per launch read and written
  Finding* findings;
  u64 finding_capacity, finding_count;
  u32* finding_index;                // [kind, pc] -> 1 + index of the finding
  u64 executed;                      // warp instructions
  u64 failed;                        // a program could not finish
  u64 recent_region;                 // where the last checked access was
};

// One program ("thread block"). Its warps run one after another, each until the next barrier.
struct Block {
  Launch* launch;
  u64 program;                       // its number in the grid
  u32 position[3];
  u32 epoch;                         // barriers passed
  u8 *shared, *shared_written;
  u32 *shared_writer, *shared_reader;
};

// Lanes that wait at a place: because others took another way, or for `members` to arrive.
struct Group {
  u32 pc, lanes, members;
};
enum State : u32 { READY, AT_BARRIER, DONE, FAILED };
struct Warp {
  u8* registers;
  Block* block;
  u32 id, live, active, pc;
  State state;
  u32 barrier, barrier_warps;
  u64 executed;
  Group pending[WARP + 1];
  int pending_count;
};

inline u32 pc_of(const Warp& w, const Instruction& i) { return (u32)(&i - w.block->launch->code); }

// --- operands ---------------------------------------------------------------------------------------------------------
template <class T> inline T* lanes_of(Warp& w, u32 operand) { return reinterpret_cast<T*>(w.registers + operand); }
inline u32& predicate(Warp& w, u32 operand) { return *reinterpret_cast<u32*>(w.registers + operand); }
inline bool in(u32 lanes, int lane) { return (lanes >> lane) & 1; }
inline int first_lane(u32 lanes) { return __builtin_ctz(lanes); }

// Lane by lane into a predicate: bits outside `lanes` keep their value.
inline void set_predicate(Warp& w, u32 operand, u32 value, u32 lanes) {
  u32& p = predicate(w, operand);
  p = (p & ~lanes) | (value & lanes);
}

template <class T> void blend(T* to, const T* from, u32 lanes) {
  for (int i = 0; i < WARP; i++) to[i] = in(lanes, i) ? from[i] : to[i];
}

// Bit i of the result is bit 31 of word i.
inline u32 sign_bits(const u32* words) {
  u32 bits = 0;
#ifdef __AVX2__
  using F8 = float __attribute__((vector_size(32)));
  for (int k = 0; k < 4; k++) bits |= (u32)__builtin_ia32_movmskps256(((const F8*)words)[k]) << (8 * k);
#else
  for (int i = 0; i < WARP; i++) bits |= (words[i] >> 31) << i;
#endif
  return bits;
}

// --- lane loops -------------------------------------------------------------------------------------------------------
// `f` is applied to all 32 lanes, also to inactive ones: it must not trap. Then the active lanes are kept.
#define LANE_LOOP _Pragma("GCC ivdep") for (int i = 0; i < WARP; i++)
#define MAP(VALUE)                                            \
  alignas(64) D kept[WARP];                                   \
  D* const d = lanes_of<D>(w, ins.x[0]);                      \
  D* const out = lanes == ALL ? d : kept;                     \
  LANE_LOOP out[i] = VALUE;                                   \
  if (lanes != ALL) blend(d, kept, lanes);

template <class D, class A, class F> inline void map(Warp& w, const Instruction& ins, u32 lanes, F f) {
  const A* a = lanes_of<A>(w, ins.x[1]);
  MAP(f(a[i]))
}
template <class D, class A, class B, class F> inline void map(Warp& w, const Instruction& ins, u32 lanes, F f) {
  const A* a = lanes_of<A>(w, ins.x[1]);
  const B* b = lanes_of<B>(w, ins.x[2]);
  MAP(f(a[i], b[i]))
}
template <class D, class A, class B, class C, class F> inline void map(Warp& w, const Instruction& ins, u32 lanes, F f) {
  const A* a = lanes_of<A>(w, ins.x[1]);
  const B* b = lanes_of<B>(w, ins.x[2]);
  const C* c = lanes_of<C>(w, ins.x[3]);
  MAP(f(a[i], b[i], c[i]))
}
template <class D, class A, class B, class C, class E, class F>
inline void map(Warp& w, const Instruction& ins, u32 lanes, F f) {
  const A* a = lanes_of<A>(w, ins.x[1]);
  const B* b = lanes_of<B>(w, ins.x[2]);
  const C* c = lanes_of<C>(w, ins.x[3]);
  const E* e = lanes_of<E>(w, ins.x[4]);
  MAP(f(a[i], b[i], c[i], e[i]))
}

// selp: b where the predicate x[3] holds in place of c
template <class D> inline void select(Warp& w, const Instruction& ins, u32 lanes) {
  const D* a = lanes_of<D>(w, ins.x[1]);
  const D* b = lanes_of<D>(w, ins.x[2]);
  const u32 chosen = predicate(w, ins.x[3]);
  MAP(in(chosen, i) ? a[i] : b[i])
}

// setp: x[0] = join(a ? b, p), x[1] = join(not (a ? b), p) with the predicate p = x[4] ^ imm
template <class T, class F, class J>
inline void compare(Warp& w, const Instruction& ins, u32 lanes, F holds, J join) {
  const T* a = lanes_of<T>(w, ins.x[2]);
  const T* b = lanes_of<T>(w, ins.x[3]);
  alignas(32) u32 words[WARP];
  LANE_LOOP words[i] = holds(a[i], b[i]) ? ALL : 0u;
  const u32 result = sign_bits(words), p = predicate(w, ins.x[4]) ^ (u32)ins.imm;
  set_predicate(w, ins.x[1], join(~result, p), lanes);
  set_predicate(w, ins.x[0], join(result, p), lanes);
}

// logic on predicates
template <class F> inline void logic(Warp& w, const Instruction& ins, u32 lanes, F f) {
  set_predicate(w, ins.x[0], f(predicate(w, ins.x[1]), predicate(w, ins.x[2])), lanes);
}

// mov between a wide register and a vector of narrow ones
template <class Wide, class Narrow, int N> inline void pack(Warp& w, const Instruction& ins, u32 lanes) {
  using D = Wide;
  const Narrow* parts[N];
  for (int k = 0; k < N; k++) parts[k] = lanes_of<Narrow>(w, ins.x[1 + k]);
  const auto value = [&](int i) {
    Wide v = 0;
    for (int k = 0; k < N; k++) v |= (Wide)parts[k][i] << (8 * sizeof(Narrow) * k);
    return v;
  };
  MAP(value(i))
}
template <class Wide, class Narrow, int N> inline void unpack(Warp& w, const Instruction& ins, u32 lanes) {
  alignas(64) Wide whole[WARP];  // a part may be written over the whole
  memcpy(whole, lanes_of<Wide>(w, ins.x[0]), sizeof whole);
  for (int k = 0; k < N; k++) {
    Narrow* part = lanes_of<Narrow>(w, ins.x[1 + k]);
    for (int i = 0; i < WARP; i++)
      if (in(lanes, i)) part[i] = (Narrow)(whole[i] >> (8 * sizeof(Narrow) * k));
  }
}
