// SPDX-License-Identifier: Apache-2.0
#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace mlr {

namespace baseline {
Kernels kernels();
}
#if defined(__x86_64__)
namespace avx2 {
Kernels kernels();
}
namespace avx512 {
Kernels kernels();
}
#endif

namespace {

const std::vector<Kernels>& available() {
  static const std::vector<Kernels> list = [] {
    std::vector<Kernels> found{baseline::kernels()};
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool has_avx2 =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (has_avx2) found.push_back(avx2::kernels());
    if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
      found.push_back(avx512::kernels());
#endif
    return found;
  }();
  return list;
}

const Kernels* find(const std::string& name, const char* asked_by) {
  std::string names;
  for (const Kernels& k : available()) {
    if (name == k.name) return &k;
    names += (names.empty() ? "" : ", ") + std::string(k.name);
  }
  const bool known = name == "default" || name == "avx2" || name == "avx512";
  throw std::runtime_error(std::string(asked_by) + " asks for the instruction set '" + name + "', " +
                           (known ? "which this CPU lacks" : "which is not one of default, avx2, avx512") +
                           "; here it can be: " + names);
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels& k : available()) names.push_back(k.name);
  return names;
}

void set_instruction_set(const std::string& name) {
  chosen = name.empty() ? nullptr : find(name, "set_instruction_set");
}

const Kernels& current_kernels() {
  if (const Kernels* k = chosen) return *k;
  static const Kernels* const natural = [] {
    for (const char* variable : {"MLR_INSTRUCTION_SET", "MLR_CPU_CAPABILITY"})
      if (const char* name = std::getenv(variable); name && *name) return find(name, variable);
    return &available().back();
  }();
  return *natural;
}

}  // namespace mlr
