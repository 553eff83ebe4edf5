"""Functions that compiled steps call by address: loop bodies, and functions of ``jit`` that are written in LLVM.

Numba compiles each once per dtypes of its arrays, for all steps.  Like a step, it is a module in the disk cache, named after a
digest of its source.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from gpunet.captured.compiled import module
from gpunet.launch.loops import LoopBody

_HEADER = '"""A function that recorded training steps call."""\n\nfrom gpunet.captured.compiled.jit import *\n'


class Entry(NamedTuple):
    """A compiled function.

    Attributes:
        body: a loop body, or the name of a function of ``jit``.
        arrays: the dtypes of its arrays, as ``expressions.TYPE_NAMES`` names them.
        numbers: "int" or "float", the types of the numbers after them.
    """

    body: LoopBody | str
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]

    def source(self) -> str:
        """The source of a module that defines it as ``entry``, with addresses for arrays."""
        sources = {} if isinstance(self.body, str) else self.body.sources()
        name = self.body if isinstance(self.body, str) else self.body.name
        addresses, numbers = [f"a{n}" for n in range(len(self.arrays))], [f"n{n}" for n in range(len(self.numbers))]
        kinds = ", ".join([*("int64" for _ in addresses), *(f"{kind}64" for kind in self.numbers)])
        pointers = [f"pointer({a}, {dtype})" for a, dtype in zip(addresses, self.arrays)]
        entry = (
            f'@c_function("int64({kinds})")\ndef entry({", ".join((*addresses, *numbers))}):\n'
            f"    return {name}({', '.join((*pointers, *numbers))})\n"
        )
        return "\n\n".join([_HEADER, *(f"@jit_helper\n{source}" for source in sources.values()), entry])


@functools.cache
def compiled(entry: Entry) -> Any:
    """The compiled function; steps call its ``address``."""
    return module.load(entry.source(), "entry").entry
