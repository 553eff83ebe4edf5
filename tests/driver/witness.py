"""CuPy's own tests as a witness of the stand-in driver: which share passes, and why the rest does not.

    python -m tests.driver.witness                       all groups
    python -m tests.driver.witness raw runtime           some of them
    python -m tests.driver.witness --list comparison     and the name of each test that does not pass

The tests come with CuPy's source distribution, which ``tests.driver.build`` fetches.  Those that CuPy marks as slow are left out:
arrays of gigabytes, whose elements the emulator computes one by one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.driver import build

#: Files of CuPy's tests that touch what gpunet uses, and the share that must pass.
GROUPS: dict[str, tuple[float, tuple[str, ...]]] = {
    "creation": (0.98, ("creation_tests/test_basic.py", "creation_tests/test_from_data.py", "creation_tests/test_ranges.py")),
    "ufuncs": (0.98, (
        "math_tests/test_explog.py", "math_tests/test_floating.py", "math_tests/test_hyperbolic.py", "math_tests/test_rounding.py",
        "math_tests/test_trigonometric.py", "binary_tests/test_elementwise.py", "core_tests/test_ndarray_unary_op.py",
        "core_tests/test_ndarray_ufunc.py", "core_tests/test_elementwise.py",
    )),
    "comparison": (0.98, ("logic_tests",)),
    "indexing": (0.98, ("indexing_tests", "core_tests/test_ndarray_indexing.py", "core_tests/test_ndarray_adv_indexing.py")),
    "reductions": (0.95, (
        "core_tests/test_ndarray_reduction.py", "core_tests/test_reduction.py", "statistics_tests/test_order.py",
    )),
    "sorting": (0.85, ("sorting_tests/test_sort.py", "sorting_tests/test_search.py")),  # a tenth of them test CUB
    "products": (0.9, ("linalg_tests/test_product.py",)),
    "kernels": (0.85, ("core_tests/test_userkernel.py", "core_tests/test_carray.py")),  # 3 of the 26 use textures
    "raw": (0.8, ("core_tests/test_raw.py",)),
    "runtime": (0.9, (  # memory, streams and graphs
        "cuda_tests/test_memory.py", "cuda_tests/test_pinned_memory.py", "cuda_tests/test_stream.py", "cuda_tests/test_device.py",
        "cuda_tests/test_graph.py",
    )),
}  # fmt: skip

#: Why a test does not pass: the first pattern that its failure matches.
REASONS = (
    ("a kernel of CuPy that takes lanes of a warp to run in lockstep", r"test_(arg)?partition"),
    ("a remainder that depends on a fused multiply-add", r"test_unwrap_1dim_with_(discont_and_)?period"),
    ("cuFFT is not there", r"libcufft"),
    ("cuSOLVER and cuSPARSE are not there", r"libnvJitLink|libcusolver|libcusparse|[Cc]usolver|[Cc]usparse"),
    ("device code that launches kernels", r"cudadevrt|device-side kernel launch|dynamical_parallelism"),
    ("headers that Jitify brings along", r"[Jj]itify"),
    ("textures and CUDA arrays", r"[Tt]exture|Array: cudaErrorNotSupported"),
    ("CUB's machine code", r"TestCub|\bcub\b"),
    ("cuBLAS's batched inverse is not there", r"CUBLAS_STATUS_NOT_SUPPORTED"),
    ("a package that is not installed", r"ModuleNotFoundError|No module named"),
    ("the emulator does not compile the kernel", r"the emulator cannot run it"),
    ("a finding of the emulator", r"cuLaunchKernel: kernel"),
    ("another value", r"AssertionError|Not equal|not almost equal"),
)


class Outcome(NamedTuple):
    """A test that does not pass."""

    test: str
    reason: str
    message: str


class Result(NamedTuple):
    """What a file or folder of tests did."""

    passed: int
    skipped: int
    failed: list[Outcome]
    seconds: float


def _reason(text: str) -> str:
    return next((reason for reason, pattern in REASONS if re.search(pattern, text)), "not looked into")


def run(path: str, devices: int = 2) -> Result:
    """Run a file or folder of CuPy's tests in a process of its own."""
    tests = build.cupy_source() / "tests"
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [
            sys.executable, "-m", "tests.driver", "--devices", str(devices), "-m", "pytest", "-p", "tests.driver.pytest_plugin",
            "-p", "no:cacheprovider", "-m", "not slow", "-q", "--tb=short", f"--junitxml={report}", f"cupy_tests/{path}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tests, capture_output=True, text=True)
        if not report.exists():
            return Result(
                0, 0, [Outcome(path, "the tests did not run", done.stdout + done.stderr)], time.monotonic() - began
            )
        cases = ElementTree.parse(report).getroot().iter("testcase")
        passed, skipped, failed = 0, 0, []
        for case in cases:
            problem = next((e for e in case if e.tag in ("failure", "error")), None)
            if problem is not None:
                name = f"{case.get('classname')}::{case.get('name')}"
                message = problem.get("message") or ""
                failed.append(Outcome(name, _reason(f"{name}\n{problem.text}"), message))
            elif any(e.tag == "skipped" for e in case):
                skipped += 1
            else:
                passed += 1
    return Result(passed, skipped, failed, time.monotonic() - began)


def _print(group: str, path: str, result: Result, names: bool) -> None:
    ran = result.passed + len(result.failed)
    line = f"{group:11} {path:44} {result.passed:5} of {ran:5} pass, {result.skipped} skipped, {result.seconds:.0f} s"
    print(line, flush=True)
    for reason, count in Counter(outcome.reason for outcome in result.failed).most_common():
        print(f"{'':12}{count:5} {reason}", flush=True)
    for outcome in result.failed if names else ():
        print(f"{'':18}{outcome.test}: {' '.join(outcome.message.split())[:300]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.driver.witness", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--list", action="store_true", help="name each test that does not pass")
    given = parser.parse_args()
    if unknown := set(given.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    build.build()
    below = []
    for group in given.groups or GROUPS:
        wanted, paths = GROUPS[group]
        results = []
        for path in paths:
            results.append(run(path))
            _print(group, path, results[-1], given.list)
        passed = sum(result.passed for result in results)
        ran = passed + sum(len(result.failed) for result in results)
        print(f"{group:11} {passed / max(ran, 1):.1%} of {ran} pass; at least {wanted:.0%} should", flush=True)
        if passed < wanted * ran or not ran:
            below.append(group)
    if below:
        sys.exit(f"below its share: {', '.join(below)}")


if __name__ == "__main__":
    main()
