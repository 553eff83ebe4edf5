"""Options of ``gpunet check-kernel``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Compile a CUDA kernel with g++, run it in check mode under every schedule, and print errors as FILE:LINE: KIND: MESSAGE:
races, accesses out of bounds, missing barriers, reads of uninitialised shared memory, outputs that are not fully written.
No GPU is needed.
"""
_EPILOG = """\
arguments, by the parameter names of the kernel:
  --arg n=1000              a scalar
  --arg 'x=[64,10]'         an array; filled with random numbers if the kernel only reads it, and with poison if the kernel
                            writes it, so that unwritten elements are detected
  --arg 'x=[1000]:CONTENTS' random, zeros, ones, arange, a number, A..B (uniform) or FILE.npy
  --arg 'x=float32[1000]'   with this dtype, for parameters of an unknown type (int32:5 for a scalar)
  --arg x=FILE.npy          the array in a file
  --arg x=null              a null pointer

--launch takes a Python file with a function launches() that returns or yields dictionaries with the keys entry, grid, block,
arguments (NumPy arrays and scalars by name), and optionally shared, inout, partial (names of arrays), expected (arrays by
name) and tolerance (relative, default 1e-5).

exit codes: 0 no errors found, 1 errors found or the source does not compile, 2 invalid command
"""


def add_parser(subparsers: Any) -> None:
    """Add ``check-kernel`` and its options."""
    parser = subparsers.add_parser(
        "check-kernel",
        help="run a CUDA kernel without a GPU, and find races, accesses out of bounds and missing barriers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.cu", help="the source; it may include headers from its folder")
    parser.add_argument("--entry", metavar="NAME", help="the kernel: scale, or 'scale<float>' (default: the only one)")
    parser.add_argument("--grid", type=_extents, default=(1,), metavar="N[,N,N]", help="blocks (default 1)")
    parser.add_argument("--block", type=_extents, metavar="N[,N,N]", help="threads per block")
    parser.add_argument("--shared", type=int, default=0, metavar="BYTES", help="dynamic shared memory (default 0)")
    parser.add_argument(
        "--arg", action="append", default=[], metavar="NAME=VALUE", help="an argument of the kernel; see below"
    )
    parser.add_argument("--partial", action="store_true", help="allow outputs that are not fully written")
    parser.add_argument("--seed", type=int, default=0, help="seed of random contents (default 0)")
    parser.add_argument(
        "--launch", type=Path, metavar="FILE.py", help="a Python file with the launches, instead of the options above"
    )
    parser.add_argument("-I", action="append", default=[], metavar="FOLDER", help='a folder for #include "..."')
    parser.add_argument("-D", action="append", default=[], metavar="NAME=VALUE", help="define a macro")


def _extents(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one to three integers, such as 4 or 4,2") from None


def run(arguments: argparse.Namespace) -> int:
    """Check the launches; see :func:`gpunet.tools.check_kernel.check_file`."""
    from gpunet.tools.check_kernel import check_file
    from gpunet.tools.kernel_launches import Options

    return check_file(
        Options(
            arguments.file,
            entry=arguments.entry,
            grid=arguments.grid,
            block=arguments.block,
            shared=arguments.shared,
            arguments=tuple(arguments.arg),
            partial=arguments.partial,
            seed=arguments.seed,
            launch_file=arguments.launch,
            include_folders=tuple(arguments.I),
            macros=tuple(arguments.D),
        )
    )
