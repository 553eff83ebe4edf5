"""``gpunet check-kernel FILE.cu``: run a kernel on the emulator, and print what is wrong as a compiler would."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Compile a CUDA kernel with g++, run it in check mode under every schedule, and print what is wrong as FILE:LINE: KIND: MESSAGE:
races, accesses out of bounds, missing barriers, uninitialised shared memory, elements that are not written. No card is needed.
"""
_EPILOG = """\
arguments, by the names that the kernel declares:
  --arg n=1000              a scalar
  --arg 'x=[64,10]'         an array: random where the kernel only reads it, where it writes filled with poison, so that
                            elements that it does not write are found
  --arg 'x=[1000]:CONTENTS' random, zeros, ones, arange, a number, A..B (uniform) or FILE.npy
  --arg 'x=float32[1000]'   of this dtype, where the declared type is not understood (int32:5 for a scalar)
  --arg x=FILE.npy          the array of a file
  --arg x=null              a null pointer

--launch takes a Python file with a function launches() that returns or yields dictionaries: entry, grid, block, arguments
(by name: NumPy arrays and scalars), and at need shared, inout, partial (names of arrays), expected (arrays by name) and
tolerance (relative, 1e-5).

exit codes: 0 nothing found, 1 something found or the source does not compile, 2 the command is wrong
"""


def add_parser(subparsers: Any) -> None:
    """Add ``check-kernel`` and its options."""
    parser = subparsers.add_parser(
        "check-kernel",
        help="run a CUDA kernel of your own without a card, and find races, wrong bounds, missing barriers",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.cu", help="the source; it may include headers beside it")
    parser.add_argument("--entry", metavar="NAME", help="the kernel: scale, or 'scale<float>' (default: the only one)")
    parser.add_argument("--grid", type=_extents, default=(1,), metavar="N[,N,N]", help="blocks (default 1)")
    parser.add_argument("--block", type=_extents, metavar="N[,N,N]", help="threads of a block")
    parser.add_argument("--shared", type=int, default=0, metavar="BYTES", help="dynamic shared memory (default 0)")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="an argument; see below")
    parser.add_argument("--partial", action="store_true", help="outputs need not be written whole")
    parser.add_argument("--seed", type=int, default=0, help="of random contents (default 0)")
    parser.add_argument(
        "--launch", type=Path, metavar="FILE.py", help="launches from a Python file, instead of the above"
    )
    parser.add_argument("-I", action="append", default=[], metavar="FOLDER", help='where #include "..." looks, too')
    parser.add_argument("-D", action="append", default=[], metavar="NAME=VALUE", help="define a macro")


def _extents(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one to three whole numbers, as 4 or 4,2") from None


def run(arguments: argparse.Namespace) -> int:
    """Check the launches, and print findings and outputs.

    Returns:
        0 when nothing was found, else 1.

    Raises:
        ArgumentError: the command is wrong.
        CompileError: g++ is not installed.
    """
    from gpunet.backend import cuda_sources
    from gpunet.emulator import compiler
    from gpunet.errors import CompileError
    from gpunet.tools.check_kernel import check

    compiler.version()  # the error of a missing compiler is not a finding
    text = cuda_sources.splice(arguments.file, options=[f"-I{f}" for f in arguments.I] + [f"-D{d}" for d in arguments.D])
    launches = _launches(arguments, text)
    found = 0
    for launch in launches:
        try:
            checked = check(text, launch)
        except CompileError as error:
            print(error, file=sys.stderr)
            return 1
        found += len(checked.findings)
        for finding in checked.findings:
            print(finding)
        verdict = f"{len(checked.findings)} found" if checked.findings else "nothing found"
        grid, block = (",".join(map(str, n if isinstance(n, tuple) else (n,))) for n in (launch.grid, launch.block))
        print(f"{launch.entry}, grid {grid}, block {block}: {verdict}")
        for output in checked.outputs:
            print(f"  {output}")
    return 1 if found else 0


def _launches(arguments: argparse.Namespace, text: Any) -> list[Any]:
    from gpunet.backend.signature import entries, find_entry
    from gpunet.errors import ArgumentError
    from gpunet.tools import kernel_arguments
    from gpunet.tools.check_kernel import Launch

    if arguments.launch is not None:
        if arguments.arg or arguments.block or arguments.entry:
            raise ArgumentError("--launch says all of a launch: leave out --entry, --block and --arg")
        return list(kernel_arguments.from_file(arguments.launch))
    declared = entries(text.text)
    if arguments.entry is None and len(declared) != 1:
        raise ArgumentError(
            f"{text.name} has {', '.join(declared) or 'no __global__ function'}; say which with --entry"
        )
    expression = arguments.entry or next(iter(declared))
    entry = find_entry(text.text, text.name, expression)
    if arguments.block is None:
        raise ArgumentError("--block is missing: the threads of a block, as --block 256")
    values, inout = kernel_arguments.parse(text, expression, arguments.arg, arguments.seed)
    partial = tuple(p.name for p in entry.parameters if p.pointer and not p.constant) if arguments.partial else ()
    return [Launch(expression, arguments.grid, arguments.block, values, arguments.shared, inout, partial)]
