// SPDX-License-Identifier: Apache-2.0
// Which instruction set's kernels run.
#pragma once

#include <string>
#include <vector>

#include "layout.h"

namespace mlr {

// Names of the compiled instruction sets that this CPU has, narrowest first.
std::vector<std::string> capabilities();

// The kernels in force: the widest this CPU has, unless MLR_CPU_CAPABILITY or set_capability chose.
// Throws std::runtime_error where MLR_CPU_CAPABILITY asks for what the CPU lacks.
const Kernels& current_kernels();

// Choose by name; an empty name restores the natural choice.
void set_capability(const std::string& name);

}  // namespace mlr
