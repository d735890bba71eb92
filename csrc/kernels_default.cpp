// SPDX-License-Identifier: Apache-2.0
// The kernels for any CPU: the compiler's baseline (SSE2 on x86-64, NEON on aarch64).
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <cstdint>
#include <utility>

#include <torch/headeronly/util/Half.h>

#include "layout.h"

#define MLR_INSTRUCTION_SET baseline
#define MLR_INSTRUCTION_SET_NAME "default"
#define MLR_SIMD 128
#include "kernels-inl.h"
