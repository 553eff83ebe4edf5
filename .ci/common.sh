# Steps that .ci/run and .ci/all share.  Source it from the repository's root.

python=.venv/bin/python
export GPUNET_REQUIRE_TORCH=1 GPUNET_REQUIRE_NUMBA=1 GPUNET_REQUIRE_CUDA_STANDIN=1

step() { printf '\n== %s\n' "$*"; }

environment() {
  step "environment"
  command -v g++ >/dev/null || { echo "install g++: without it the tests that run the CUDA sources skip"; exit 1; }
  rm -rf .venv
  python3 -m venv .venv
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  $python -m pip install -q 'torch==2.13.0' # an unpinned torch pulls gigabytes of CUDA
  $python -m pip install -q -e '.[lint]'
}

# CuPy without a GPU; after the test extra is installed.  The build is kept in the user's cache.
stand_in_driver() {
  step "the stand-in driver"
  $python -m pip install -q -e '.[test]'
  $python -m tests.driver.build
}

quick_tier() {
  step "the README's test command"
  local command
  command=$(grep -m 1 -- '-m pytest' README.md)
  echo "$command"
  bash -euo pipefail -c "$command"
  # fail if one of these is missing: the tests that need it would only skip
  $python -c 'from gpunet.backend import compiler; print("NVRTC", compiler.nvrtc_version())'
  $python -c 'from gpunet.tools import machine_code; print(machine_code.nvdisasm())'
  $python -c 'from gpunet.backend import toolkit; print(*toolkit.options("#include <cuda_fp16.h>", "CUDA headers"))'
  $python -c 'from gpunet.backend.blas import choice; print("products by", choice.load("onednn").name)'
}

run_tests() { $python -m pytest -n auto "$@"; }

lint() {
  step "ruff"
  .venv/bin/ruff check
  step "mypy"
  .venv/bin/mypy
  step "files over 500 lines: is each one concept?"
  git ls-files '*.py' '*.cu' '*.cuh' '*.cpp' '*.h' | xargs wc -l | awk '$2 != "total" && $1 > 500' || true
}

package() {
  step "wheel"
  $python -m hatchling build -t wheel -d "$work/wheel"
  local size
  size=$(stat -c %s "$work"/wheel/*.whl)
  echo "$size bytes"
  test "$size" -lt 2000000
}

command_line() {
  step "gpunet train"
  .venv/bin/gpunet train --device cpu --out "$work/run" | tail -n 2
  test -s "$work/run/model.safetensors"
  test -s "$work/run/curves.png"
}

# A warning is an error: a broken link or anchor, a page that the navigation lacks, a docstring that cannot be rendered.
documentation_site() {
  step "documentation site"
  $python -m pip install -q -e '.[docs]'
  NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build -q --strict -d "$work/site"
  test -s "$work/site/course/03-chain-rule/index.html"
}
