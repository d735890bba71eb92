#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the C++ engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer, from a build of its own in
# build/sanitize: the installed engine stays as it is. Usage: tests/csrc/sanitize.sh [python] [pytest arguments]
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
python=$(readlink -f "$(dirname "${1:-.venv/bin/python}")")/$(basename "${1:-.venv/bin/python}")
[ $# -gt 0 ] && shift
out=$root/build/sanitize
MLR_BUILD_CPP=1 MLR_SANITIZE=address,undefined "$python" setup.py --quiet build --build-base "$out" --build-lib "$out/lib"
# python itself is not instrumented, so the runtimes must come first; its own leaks are not ours to report
preload=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so)
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
# this build, before the sources in the working directory and before an editable installation
export PYTHONPATH=$out/lib
cd "$out"
LD_PRELOAD=$preload "$python" -c 'from mlr import _C; assert _C.build_info()["sanitizer"] == "address", _C.__file__'
LD_PRELOAD=$preload exec "$python" -m pytest -c "$root/pyproject.toml" -p no:cacheprovider \
    "$root"/tests/csrc/test_cpp_engine.py "$root"/tests/csrc/test_cpp_masks.py \
    "$root"/tests/csrc/test_cpp_threads.py "$root"/tests/csrc/test_cpp_weights.py "$@"
