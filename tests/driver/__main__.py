"""Run a Python program with the stand-in driver: see the package's docstring."""

from __future__ import annotations

import argparse
import os
import runpy
import sys

from tests import driver


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.driver", description=driver.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lazy", action="store_true", help="run work when something waits for it")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--peers", action="store_true", help="devices access each other's memory")
    parser.add_argument("--check", action="store_true", help="look for races and accesses out of bounds")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="a module and its arguments")
    parser.add_argument("script", nargs=argparse.REMAINDER, help="a script and its arguments")
    given = parser.parse_args()
    program = given.module or given.script
    if not program:
        parser.error("a script or -m with a module is needed")
    driver.install(given.lazy, given.devices, given.peers, given.check)
    sys.argv = program
    if given.module:
        sys.path[0] = os.getcwd()
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(program[0])
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main()
