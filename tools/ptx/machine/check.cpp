// SPDX-License-Identifier: Apache-2.0
// What is checked and counted about memory. Checked launches run on one thread.
//
// Every byte of a tensor has two tags: of the program that wrote it last and of the one that read it last,
//     (first_tag + program) << 24 | (barriers passed & 0xffff) << 8 | warp      (bit 63 of a reader: several programs)
// Launches have ascending tags, so that nothing is ever cleared: what is below first_tag is of an earlier launch.
// Shared memory has the same with 32 bits, (barriers passed + 1) << 8 | warp, cleared for every program.
#include <algorithm>
#include <mutex>

#include "memory.h"
#include "warp.h"

void report(Warp& w, Kind kind, u32 pc, u32 lane, u64 address, u32 size, u64 other) {
  static std::mutex one_at_a_time;  // unchecked launches fail on any thread
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  Launch& launch = *w.block->launch;
  u32& index = launch.finding_index[(u64)kind * launch.length + pc];
  if (index) {
    launch.findings[index - 1].count++;
    return;
  }
  if (launch.finding_count == launch.finding_capacity) return;
  const u32* p = w.block->position;
  launch.findings[launch.finding_count] = {kind, pc, {p[0], p[1], p[2]}, w.id, lane, size, address, other, 1};
  index = (u32)++launch.finding_count;
}

static Region* region_of(Launch& launch, u64 address) {
  if (!launch.region_count) return nullptr;
  Region* recent = launch.regions + launch.recent_region;
  if (address - recent->base < recent->size) return recent;
  Region* end = launch.regions + launch.region_count;
  Region* next = std::upper_bound(launch.regions, end, address, [](u64 a, const Region& r) { return a < r.base; });
  if (next == launch.regions || address - next[-1].base >= next[-1].size) return nullptr;
  launch.recent_region = (u64)(next - 1 - launch.regions);
  return next - 1;
}

// Two programs of a launch at one byte, or two warps of a program with no barrier in between. A `same` store, which
// leaves the byte as it is, races with no other warp: small tensors are replicated over warps.
static void check_race(Warp& w, Region& r, u64 offset, u32 pc, u32 lane, u64 address, u32 size, Access access, bool same) {
  constexpr u64 SEVERAL = 1ull << 63;
  const Block& block = *w.block;
  const u64 first = block.launch->first_tag << 24, me = (block.launch->first_tag + block.program) << 24;
  const u64 now = (u64)(block.epoch & 0xffff) << 8, tag = me | now | w.id;
  const auto program = [&](u64 other) { return (other >> 24) - block.launch->first_tag; };
  const auto races = [&](u64 other) { return (other & 0xffff00) == now && (other & 255) != w.id; };

  const u64 writer = r.writer[offset];
  if (writer >= first) {
    if (writer >> 24 != me >> 24)
      report(w, access == READ ? READ_AFTER_WRITE : WRITE_WRITE, pc, lane, address, size, program(writer));
    else if (races(writer) && !same)
      report(w, WARP_RACE, pc, lane, address, size, writer & 255);
  }
  const u64 mark = r.reader[offset], reader = mark & ~SEVERAL;
  const bool by_others = reader >= first && (mark & SEVERAL || reader >> 24 != me >> 24);
  if (access == READ) {
    r.reader[offset] = by_others ? tag | SEVERAL : tag;
    return;
  }
  if (reader >= first) {
    if (by_others)
      report(w, WRITE_AFTER_READ, pc, lane, address, size, program(reader));
    else if (races(reader) && !same)
      report(w, WARP_RACE, pc, lane, address, size, reader & 255);
  }
  r.writer[offset] = tag;
}

bool check_global(Warp& w, u32 pc, u32 lane, u64 address, u32 size, Access access, const u8* value) {
  Launch& launch = *w.block->launch;
  if (address % size) report(w, MISALIGNED, pc, lane, address, size, 0);
  Region* r = region_of(launch, address);
  if (!r || address - r->base + size > r->size) {
    report(w, access == READ ? READ_OUTSIDE : WRITE_OUTSIDE, pc, lane, address, size, 0);
    return false;
  }
  if (!(launch.checks & CHECK)) return true;
  const u64 offset = address - r->base;
  if (access == READ) {
    for (u32 k = 0; k < size; k++)
      if (!r->written[offset + k]) {
        report(w, READ_UNWRITTEN, pc, lane, address + k, size, 0);
        break;
      }
  } else {
    if (r->read_only) report(w, READ_ONLY, pc, lane, address, size, 0);
    memset(r->written + offset, 1, size);
  }
  for (u32 k = 0; k < size; k++)
    check_race(w, *r, offset + k, pc, lane, address + k, size, access,
               access == WRITE && value[k] == ((const u8*)address)[k]);
  return true;
}

bool check_shared(Warp& w, u32 pc, u32 lane, u64 address, u32 size, Access access, const u8* value) {
  constexpr u32 SEVERAL = 1u << 31;
  Block& block = *w.block;
  if (address % size) report(w, MISALIGNED, pc, lane, address, size, 0);
  if (address + size > block.launch->shared_bytes) {
    report(w, SHARED_OUTSIDE, pc, lane, address, size, block.launch->shared_bytes);
    return false;
  }
  if (!(block.launch->checks & CHECK)) return true;
  const u32 now = block.epoch + 1, tag = now << 8 | w.id;
  const auto races = [&](u32 other) { return other >> 8 == now && (other & 255) != w.id; };
  for (u64 at = address; at < address + size; at++) {
    const u32 writer = block.shared_writer[at], mark = block.shared_reader[at], reader = mark & ~SEVERAL;
    const bool same = access == WRITE && block.shared_written[at] && value[at - address] == block.shared[at];
    if (access == READ && !block.shared_written[at]) report(w, SHARED_UNWRITTEN, pc, lane, at, size, 0);
    if (races(writer) && !same) report(w, SHARED_RACE, pc, lane, at, size, writer & 255);
    const bool by_several = reader >> 8 == now && (mark & SEVERAL || reader != tag);
    if (access == READ) {
      block.shared_reader[at] = by_several ? tag | SEVERAL : tag;
      continue;
    }
    if (by_several && !same) report(w, SHARED_RACE, pc, lane, at, size, reader & 255);
    block.shared_writer[at] = tag;
    block.shared_written[at] = 1;
  }
  return true;
}

// --- counts -----------------------------------------------------------------------------------------------------------
// A few dozen numbers, each kept once.
template <int N> struct Distinct {
  u64 items[N];
  int count = 0;
  void add(u64 item) {
    for (int k = count; k-- > 0;)
      if (items[k] == item) return;
    items[count++] = item;
  }
};

void count_global(Warp& w, u32 pc, u32 lanes, const u64* addresses, s64 offset, u32 size, Access access) {
  Launch& launch = *w.block->launch;
  Distinct<2 * WARP * 2> sectors;  // 32 lanes of up to 32 bytes, perhaps misaligned
  Distinct<WARP * 2> lines;
  for (u32 rest = lanes; rest; rest &= rest - 1) {
    const u64 at = addresses[first_lane(rest)] + offset;
    for (u64 sector = at / 32; sector <= (at + size - 1) / 32; sector++) {
      sectors.add(sector);
      lines.add(sector / 4);
    }
  }
  u64* traffic = launch.traffic + (u64)pc * TRAFFIC;
  traffic[REQUESTS]++;
  traffic[SECTORS] += sectors.count;
  traffic[BYTES] += (u64)__builtin_popcount(lanes) * size;
  traffic[LINES] += lines.count;
  // programs run whole, so that the last one to touch a sector tells what is new to a program and to the launch
  const u32 me = (u32)(launch.first_tag + w.block->program), first = (u32)launch.first_tag;
  for (int k = 0; k < sectors.count; k++) {
    const u64 sector = sectors.items[k];
    Region* r = region_of(launch, sector * 32);
    if (!r) r = region_of(launch, sector * 32 + 31);
    if (!r) continue;
    u32& last = (access == WRITE ? r->sector_writer : r->sector_reader)[sector - r->base / 32];
    if (last == me) continue;
    launch.sectors[access]++;
    if (last < first) launch.sectors[2 + access]++;
    last = me;
  }
}

// Passes through the 32 banks of 4 bytes: 32 lanes at once, 16 for 8-byte accesses, 8 for 16-byte ones.
void count_shared(Warp& w, u32 pc, u32 lanes, const u32* addresses, s64 offset, u32 size) {
  u64* traffic = w.block->launch->traffic + (u64)pc * TRAFFIC;
  const int together = size >= 16 ? 8 : size >= 8 ? 16 : 32;
  for (int first = 0; first < WARP; first += together) {
    Distinct<WARP * 2> words;
    u32 load[32] = {}, most = 0;
    for (int i = first; i < first + together; i++) {
      if (!in(lanes, i)) continue;
      const u32 at = addresses[i] + (u32)offset;
      for (u32 word = at / 4; word <= (at + size - 1) / 4; word++) words.add(word);
    }
    for (int k = 0; k < words.count; k++) most = std::max(most, ++load[words.items[k] % 32]);
    traffic[PASSES] += most;
    traffic[PASSES_IDEAL] += most > 0;
  }
  traffic[REQUESTS]++;
  traffic[BYTES] += (u64)__builtin_popcount(lanes) * size;
}
