// SPDX-License-Identifier: Apache-2.0
// The kernels for CPUs with AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "layout.h"

// Standard headers come before the pragma: their functions are shared by the whole library and must stay baseline.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#define MLR_INSTRUCTION_SET avx512
#define MLR_INSTRUCTION_SET_NAME "avx512"
#define MLR_SIMD 512
#include "kernels-inl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
