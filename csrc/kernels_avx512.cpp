// SPDX-License-Identifier: Apache-2.0
// The kernels for CPUs with AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cstdint>
#include <utility>

#include "layout.h"

// Standard headers come before the pragma: their functions are shared by the whole library and must stay baseline.
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#define MLR_LEVEL avx512
#define MLR_NAME "avx512"
#define MLR_SIMD 512
#include "kernels.inc"
#endif
