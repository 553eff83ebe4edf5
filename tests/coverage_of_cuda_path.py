"""Print the test coverage, per file, of the Python code behind CUDA tensors, measured without a GPU.

    python -m tests.coverage_of_cuda_path            # exit code 1 if the total is below 95 %, or if a test fails

The measured files are those that run when a tensor is on a GPU (devices, launches, compiler, ops and optimizers with
their geometries) and those that check or report it (emulator, self-test, tools).  "cuda" is CuPy on the stand-in driver.  Each
run of pytest is a process; lines that only a process of a test runs do not count.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import coverage

TESTS = Path(__file__).resolve().parent
LIMIT = 95.0  # % of lines

FILES = (
    "cuda/*.py", "backend/*.py", "launch/*.py", "emulator/*.py", "tools/*.py", "ops/*.py", "ops/cases/*.py", "optim/*.py",
)  # fmt: skip

#: The tests of this code; of tests that run the same lines for every kernel and architecture, only some.
PATH = (
    "tools/test_access_table.py", "tools/test_check_kernel.py", "tools/test_kernel_launches.py", "backend/test_signature.py",
    "ops/test_custom.py", "backend/test_cuda_sources.py",
    "emulator/test_emulator.py", "emulator/test_lint.py", "test_errors.py", "tools/test_kernel_table.py", "ops/test_kernels.py",
    "launch/test_launch_errors.py", "autograd/test_memory.py", "launch/test_random.py", "tools/test_selftest.py",
    "backend/test_tensor_map.py", "backend/test_toolkit.py", "tools/test_kernel_cases.py", "launch/test_loops.py",
    "launch/test_faults.py",
    "-k", "not (compiles_as_documented and not erf_forward) and not in_check_mode and not schedules_do_not",
)  # fmt: skip
#: The tests of ops and optimizers.
OPS = (
    "ops/test_in_place.py", "ops/test_losses.py", "ops/test_ops.py", "optim/test_optim.py", "ops/test_special.py",
    "-k", "not test_ops or (forward_is_the_formula and not float64) or slope_of_the_formula or no_row_and_one_row",
)  # fmt: skip
GPUS = (
    "test_smoke.py", "test_other_gpu.py", "backend/test_devices.py", "backend/test_gpu.py", "captured/test_split_graphs.py",
    "launch/test_memory.py", "launch/test_launch_errors.py", "--device", "cuda", "--driver-devices", "2",
)  # fmt: skip
RUNS = (PATH, (*OPS, "--device", "cuda"), (*OPS, "--device", "cpu"), GPUS)


def main() -> int:
    package = TESTS.parent / "gpunet"
    with tempfile.TemporaryDirectory() as folder:
        include = [str(package / pattern) for pattern in FILES]
        measured = coverage.Coverage(data_file=f"{folder}/all", include=include)
        measured.exclude(r"^@\w+\.equivalent$")  # calls of PyTorch, which is not installed everywhere
        command = [sys.executable, "-m", "coverage", "run", f"--data-file={folder}/all", "-p", f"--include={','.join(include)}"]
        command += ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header"]
        codes = [subprocess.run([*command, *_paths(run)], cwd=TESTS.parent).returncode for run in RUNS]
        measured.combine([folder])
        total = measured.report(show_missing=True, skip_empty=True, precision=1, file=sys.stdout)
    print(f"{total:.1f} % of the lines of the CUDA path are covered without a GPU; required: {LIMIT:g} %")
    return int(any(codes) or total < LIMIT)


def _paths(run: tuple[str, ...]) -> list[str]:
    return [str(TESTS / word) if word.endswith(".py") else word for word in run]


if __name__ == "__main__":
    sys.exit(main())
