// SPDX-License-Identifier: Apache-2.0
// mlr._C: importing it registers the CPU kernel of mlr::multi_loss (operator.cpp); its functions say how it was built
// and which instruction set runs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "dispatch.h"
#include "driver.h"

namespace py = pybind11;

#define MLR_STRING2(x) #x
#define MLR_STRING(x) MLR_STRING2(x)

static py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["torch"] = MLR_STRING(MLR_TORCH);
  info["sanitizer"] =
#if defined(__SANITIZE_ADDRESS__)
      "address";
#else
      "";
#endif
  return info;
}

static size_t workspace_bytes(int h, int w, const std::vector<int64_t>& indices, const std::string& downsample,
                              bool gradient, bool mask) {
  const mlr::Plan plan = mlr::make_plan(h, w, downsample == "area", gradient, mask, mlr::Element::kFloat32, indices);
  return mlr::thread_bytes(plan, mlr::current_kernels());
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ engine of mlr: all losses and their gradient in one pass on the CPU.";
  m.def(
      "instruction_set", [] { return std::string(mlr::current_kernels().name); },
      "Instruction set whose kernels run: 'default', 'avx2' or 'avx512'.");
  m.def("instruction_sets", &mlr::instruction_sets, "Instruction sets that this CPU has, narrowest first.");
  m.def("set_instruction_set", &mlr::set_instruction_set, py::arg("name"),
        "Run another instruction set's kernels; '' restores the natural choice.");
  m.def("workspace_bytes", &workspace_bytes, py::arg("height"), py::arg("width"), py::arg("indices"),
        py::arg("downsample") = "bicubic", py::arg("gradient") = true, py::arg("mask") = false,
        "Memory one thread needs beside the tensors.");
  m.def("build_info", &build_info, "Compiler, PyTorch version and sanitizer of the build.");
  m.attr("KINDS") =
      py::tuple(py::cast(std::vector<std::string>(std::begin(mlr::kKindNames), std::end(mlr::kKindNames))));
}
