"""Functions that compiled steps call by address: loop bodies, some of which are written on LLVM (``jit.matmul``).

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
        body: a loop body, or the name of one in ``jit.matmul``.
        arrays: the dtypes of its arrays, as ``expressions.TYPE_NAMES`` names them.
        numbers: "int" or "float", the types of the numbers after them.
    """

    body: LoopBody | str
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]

    def source(self) -> str:
        """The source of a module that defines it, as ``entry``: the body, which takes addresses and makes pointers of them."""
        from gpunet.captured.compiled.jit import matmul  # imports Numba

        body: LoopBody = getattr(matmul, self.body) if isinstance(self.body, str) else self.body
        pointers = [f"{name} = pointer({name}, {dtype})" for name, dtype in zip(body.parameters, self.arrays)]
        kinds = ", ".join([*("int64" for _ in self.arrays), *(f"{kind}64" for kind in self.numbers)])
        called = [getattr(matmul, helper.name) if helper.has_compiled_form else helper for helper in body.called()]
        helpers = {helper.name: f"@jit_helper\n{helper.source()}" for helper in called}
        entry = f'@c_function("int64({kinds})")\n{body.source(pointers)}\n\nentry = {body.name}\n'
        return "\n\n".join((_HEADER, *helpers.values(), entry))


@functools.cache
def compiled(entry: Entry) -> Any:
    """The compiled function; steps call its ``address``."""
    return module.load(entry.source(), "entry").entry
