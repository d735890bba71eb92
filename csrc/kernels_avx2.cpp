// SPDX-License-Identifier: Apache-2.0
// The kernels for CPUs with AVX2, FMA and F16C.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "layout.h"

// Standard headers come before the pragma: their functions are shared by the whole library and must stay baseline.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define MLR_INSTRUCTION_SET avx2
#define MLR_INSTRUCTION_SET_NAME "avx2"
#define MLR_SIMD 256
#include "kernels-inl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
