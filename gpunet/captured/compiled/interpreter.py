"""The compiled functions that run a program (see ``program``), and share its regions with helper threads (see ``regions``)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gpunet.captured.compiled import module

_SOURCE = '''"""The interpreter of recorded training steps."""

from gpunet.captured.compiled.jit import *


@jit_helper
def call_chunk(call, chunk):
    """Call a function with the arguments of a chunk."""
    arguments, own = word_at(call, 1), stack_words()
    for number in range(word_at(call, 3)):
        at = arguments + 24 * number
        set_word_at(own, number, min(word_at(at, 0) + chunk * word_at(at, 1), word_at(at, 2)))
    call_address(word_at(call, 0), own)


@jit_helper
def run_region(first_call, call, state, yield_core):
    """Run all chunks of a call, together with the helpers."""
    chunks = word_at(call, 2)
    atomic_store(state + 64, 0)
    atomic_store(state, (call - first_call) // 32 << 40 | chunks << 20)
    mine = 0
    while True:
        chunk = atomic_add(state, 1) & 0xFFFFF
        if chunk >= chunks:
            break
        call_chunk(call, chunk)
        mine += 1
    waited = 0
    while atomic_load(state + 64) < chunks - mine:
        pause()
        waited += 1
        if waited > 5000:
            call_address(yield_core, 0)


@jit_helper
def run_part(part):
    """Run the calls of a part; return the number of a check that has failed, or 0."""
    call, state, yield_core = word_at(part, 0), word_at(part, 2), word_at(part, 3)
    for _ in range(word_at(part, 1)):
        if word_at(call, 2):
            run_region(word_at(part, 6), call, state, yield_core)
        elif call_address(word_at(call, 0), word_at(call, 1)):
            return word_at(call, 3)
        call += 32
    if word_at(part, 4):
        atomic_store(state, -(1 << 62))
    return 0
'''

_HELP = '''

@helper_entry
def help_regions(first_call, state, yield_core, max_spins):
    """Run chunks until there are none for a while; return the number of chunks run."""
    atomic_add(state + 128, 1)
    waited = finished = 0
    while waited < max_spins and atomic_load(state + 192) == 0:
        now = atomic_load(state)
        if now < 0:
            break
        if now & 0xFFFFF < now >> 20 & 0xFFFFF:
            now = atomic_add(state, 1)
            if now >= 0 and now & 0xFFFFF < now >> 20 & 0xFFFFF:
                call_chunk(first_call + 32 * (now >> 40), now & 0xFFFFF)
                atomic_add(state + 64, 1)
                finished += 1
            waited = 0
        else:
            pause()
            waited += 1
            if waited & 255 == 0:
                call_address(yield_core, 0)
    atomic_add(state + 128, -1)
    return finished
'''


@functools.cache
def starter(arrays: tuple[tuple[str, int], ...], is_threaded: bool) -> Callable[..., int]:
    """The function that takes the arrays of a step and runs a part: called with the address of the part, and the arrays.

    It returns minus the bit mask of arrays that cannot be read in place, with nothing run; the number of a check that has
    failed; or 0.

    Args:
        arrays: name of the dtype, and number of dimensions, of each array.
        is_threaded: whether helper threads may take part.
    """
    names = [f"argument{number}" for number in range(len(arrays))]
    kinds = "".join(f", ({dtype}, {ndim})" for dtype, ndim in arrays)
    lines = [f"@{'threaded_' * is_threaded}part(1{kinds})", f"def start({', '.join(('part', *names))}):"]
    if arrays:
        lines += ["    array, rejected = word_at(part, 5), 0"]
        for number, name in enumerate(names):
            lines += [f"    rejected |= borrow_array(array, {name}) << {number}", "    array += 40 + 16 * word_at(array, 4)"]
        lines += ["    if rejected:", "        return -rejected"]
    lines += ["    return run_part(part)"]
    return module.load(_SOURCE + "\n\n" + "\n".join(lines) + "\n", "start").start


@functools.cache
def help_regions() -> Any:
    """The function that helper threads call."""
    return module.load(_SOURCE + _HELP, "help").help_regions
