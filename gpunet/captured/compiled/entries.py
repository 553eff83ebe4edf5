"""Functions that programs call: loop nests, and loop bodies, some of which are written on LLVM (``jit.matmul``).

Numba compiles each once, for all steps.  It is a module in the disk cache, named after a digest of its source.  The function takes
the address of its arguments, 64-bit words, and returns an int64.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunet.captured.compiled import module
from gpunet.launch.loops import LoopBody

_HEADER = '"""A function that recorded training steps call."""\n\nfrom gpunet.captured.compiled.jit import *\n'


class NestEntry(NamedTuple):
    """A loop nest.

    Attributes:
        text: its source, as ``nest``.
    """

    text: str

    @property
    def name(self) -> str:
        """A name that depends on the source."""
        return f"nest_{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    def source(self) -> str:
        """The source of a module that defines it, as ``entry``."""
        return f"{_HEADER}\n\n@c_function\n{self.text}\n\nentry = nest\n"


class Entry(NamedTuple):
    """A loop body.

    Attributes:
        body: a loop body, or the name of one in ``jit.matmul``.
        arrays: the dtypes of its arrays, as ``expressions.TYPE_NAMES`` names them.
        numbers: "int" or "float", the types of the numbers after them.
    """

    body: LoopBody | str
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the body."""
        return self.body if isinstance(self.body, str) else self.body.name

    def source(self) -> str:
        """The source of a module that defines it, as ``entry``: the body, after its arguments."""
        from gpunet.captured.compiled.jit import matmul  # imports Numba

        body: LoopBody = getattr(matmul, self.body) if isinstance(self.body, str) else self.body
        kinds = [*(f"pointer(word_at(argument_words, {{}}), {dtype})" for dtype in self.arrays)]
        kinds += ["word_at(argument_words, {})" if kind == "int" else "real_at(argument_words, {})" for kind in self.numbers]
        lines = [f"{name} = {kind.format(n)}" for n, (name, kind) in enumerate(zip(body.parameters, kinds, strict=True))]
        called = [getattr(matmul, helper.name) if helper.has_compiled_form else helper for helper in body.called()]
        helpers = {helper.name: f"@jit_helper\n{helper.source()}" for helper in called}
        entry = f"@c_function\n{body.source(lines, 'argument_words')}\n\nentry = {body.name}\n"
        return "\n\n".join((_HEADER, *helpers.values(), entry))


@functools.cache
def compiled(entry: Entry | NestEntry) -> Any:
    """The compiled function; programs call its ``address``."""
    return module.load(entry.source(), "entry").entry


def addresses(entries: Sequence[Entry | NestEntry]) -> list[int]:
    """The addresses of compiled functions."""
    return [compiled(entry).address for entry in entries]
