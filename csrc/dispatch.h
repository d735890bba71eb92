// SPDX-License-Identifier: Apache-2.0
// Which instruction set's kernels run.
#pragma once

#include <string>
#include <vector>

#include "layout.h"

namespace mlr {

// Names of the compiled instruction sets that this CPU has, narrowest first.
std::vector<std::string> instruction_sets();

// The kernels that run: of the widest instruction set this CPU has, unless set_instruction_set or the environment
// variable MLR_INSTRUCTION_SET (or its older name, MLR_CPU_CAPABILITY) chose another. Throws std::runtime_error if the
// variable asks for an instruction set that the CPU lacks.
const Kernels& current_kernels();

// Choose by name; an empty name restores the natural choice.
void set_instruction_set(const std::string& name);

}  // namespace mlr
