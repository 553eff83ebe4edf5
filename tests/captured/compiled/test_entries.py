"""The functions that compiled steps call by address: their source, and when the disk cache may serve them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import gpunet

pytest.importorskip("numba", reason="pip install 'gpunet[jit]'")

from gpunet.captured.compiled.entries import Entry, compiled
from gpunet.captured.compiled.library_calls import LibraryUnit, _take_rows, units_of
from gpunet.captured.ir import Call, View
from gpunet.launch.loops import Loops


def test_entries_with_other_dtypes_are_other_functions() -> None:
    single, double = (Entry(_take_rows, (dtype, dtype, "i8"), ("int",) * 3) for dtype in ("f4", "f8"))
    assert compiled(single) is compiled(Entry(_take_rows, ("f4", "f4", "i8"), ("int",) * 3))
    assert "out = pointer(word_at(argument_words, 0), f4)" in single.source()
    assert "out = pointer(word_at(argument_words, 0), f8)" in double.source()


def test_numbers_of_loops_may_be_of_numpy_and_booleans() -> None:
    """The word of a number has the bits of the type that the function reads."""
    view = View(0, 0, (4,), (4,), numpy.dtype("float32"))
    loops = Loops(_take_rows, (view,), (True, numpy.int64(3), numpy.bool_(True), numpy.float32(0.5)))
    [unit] = units_of(Call("opaque", print, (), {}, [view], [view], loops=lambda: loops))
    assert isinstance(unit, LibraryUnit)
    [call] = unit.library_calls
    assert call.arguments == (view, 1, 3, 1, 0.5) and call.entry.numbers == ("int", "int", "int", "float")


# ---- the disk cache -------------------------------------------------------------------------------------------------

_SCRIPT = """
import gpunet, numpy
from gpunet.captured.compiled.entries import Entry, compiled
from gpunet.launch.random import _bernoulli_loop
entry = compiled(Entry(_bernoulli_loop, ("b1", "u8"), ("int", "int")))
mask, state = numpy.zeros(64, bool), numpy.zeros(2, numpy.uint64)
words = numpy.array([mask.ctypes.data, state.ctypes.data, 64, 1 << 30])
entry.ctypes(words.ctypes.data)
print(gpunet.__file__, bool(entry.cache_hits), mask.sum())
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, whose machine code is in the cache."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(gpunet.__file__).parent, folder / "gpunet", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(folder) == (False, PLAIN) and run(folder) == (True, PLAIN)
    return folder


#: The number of True elements that the unedited code draws.
PLAIN = int((numpy.random.Philox(key=0, counter=0).random_raw(32).view("uint32") < 1 << 30).sum())


def run(folder: Path) -> tuple[bool, int]:
    """Whether the cache served the function in a new process, and the number of True elements."""
    environment = {**os.environ, "GPUNET_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    path, hit, count = done.stdout.split()
    assert Path(path).is_relative_to(folder)
    return hit == "True", int(count)


@pytest.mark.parametrize(
    "file, before, after",
    [
        ("launch/random.py", "uint8(half < uint64(threshold))", "uint8(1)"),
        ("launch/random.py", "multiplier_0, multiplier_1 = uint64(0xD2", "multiplier_0, multiplier_1 = uint64(0x12"),
        ("captured/compiled/jit/arithmetic.py", "builder.lshr(product, wide(64))", "builder.lshr(product, wide(60))"),
    ],
    ids=["body", "helper of the body", "jit helper"],
)
def test_an_edited_file_is_compiled_anew(copy: Path, file: str, before: str, after: str) -> None:
    path = copy / "gpunet" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")
    hit, count = run(copy)
    path.write_text(text, encoding="utf-8")
    assert not hit and count != PLAIN, "the machine code is that of before the edit"
    assert run(copy) == (True, PLAIN)
