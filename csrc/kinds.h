// SPDX-License-Identifier: Apache-2.0
// The loss kinds that this engine computes, in the order of the table in mlr/losses/kinds.py (a test compares the two).
// A loss has the index kKinds * scale + kind.
#pragma once

#include <cstdint>

// X(name in C++, name in Python)
#define MLR_KINDS(X) \
  X(D, "D")          \
  X(M, "M")          \
  X(M5, "M5")        \
  X(M17, "M17")      \
  X(M65, "M65")      \
  X(R, "r")          \
  X(C, "c")          \
  X(RR, "rr")        \
  X(RC, "rc")        \
  X(CC, "cc")        \
  X(N, "N")          \
  X(NR, "Nr")        \
  X(NC, "Nc")

namespace mlr {

#define MLR_ENUMERATOR(name, text) name,
enum class Kind : int { MLR_KINDS(MLR_ENUMERATOR) };
#undef MLR_ENUMERATOR

#define MLR_NAME_OF_KIND(name, text) text,
constexpr const char* kKindNames[] = {MLR_KINDS(MLR_NAME_OF_KIND)};
#undef MLR_NAME_OF_KIND

constexpr int kKinds = sizeof kKindNames / sizeof *kKindNames;
constexpr int kScales = 6;
constexpr int kLosses = kKinds * kScales;

struct Loss {
  int scale;
  Kind kind;
};
constexpr Loss loss_of_index(int64_t index) { return {int(index / kKinds), Kind(index % kKinds)}; }

// One T for every kind.
template <class T>
struct PerKind {
  T of[kKinds];
  constexpr T& operator[](Kind kind) { return of[int(kind)]; }
  constexpr const T& operator[](Kind kind) const { return of[int(kind)]; }
};

// Sets of kinds: one bit each.
constexpr unsigned bit(Kind kind) { return 1u << int(kind); }
template <class... Kinds>
constexpr unsigned set_of(Kinds... kinds) {
  return (bit(kinds) | ...);
}
// Calls use(kind) for every kind of a set.
template <class Use>
void for_each_kind(unsigned set, Use use) {
  for (int i = 0; i < kKinds; i++)
    if (set & bit(Kind(i))) use(Kind(i));
}

// The kinds Mn and their windows, n x n pixels.
constexpr int kWindows = 3;
constexpr int kWindow[kWindows] = {5, 17, 65};
constexpr Kind kWindowKind[kWindows] = {Kind::M5, Kind::M17, Kind::M65};
// Which windows a set of kinds has, bit i for kWindow[i].
constexpr unsigned windows_of(unsigned set) {
  unsigned windows = 0;
  for (int i = 0; i < kWindows; i++) windows |= set & bit(kWindowKind[i]) ? 1u << i : 0u;
  return windows;
}

constexpr unsigned kWindowKinds = set_of(Kind::M5, Kind::M17, Kind::M65);
constexpr unsigned kMeanKinds = bit(Kind::M) | kWindowKinds;
constexpr unsigned kNormalKinds = set_of(Kind::N, Kind::NR, Kind::NC);
constexpr unsigned kDerivativeKinds = set_of(Kind::R, Kind::C, Kind::RR, Kind::RC, Kind::CC);
// What the stencil computes besides D: kinds that read a pixel's neighbours.
constexpr unsigned kStencilKinds = kDerivativeKinds | kNormalKinds;

}  // namespace mlr
