"""What the kernels of optimizers share: their declaration, and the walk of their NumPy twins over tensors.

The CUDA kernels share the same (``update_tensors`` in optimizers.cu): a kernel adds its update rule.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy

from gpunet.launch import parts
from gpunet.launch.kernel import Arguments, Geometry, Kernel
from gpunet.launch.list_kernel import ListKernel, list_kernel
from gpunet.launch.memory import JoinedArrays, as_0d_arrays, chunks, scratch, scratch_joined
from gpunet.ops.weight_gradients import add_update, linear_backward_weights

#: Join tensors with at most this many elements in total: copying their gradients costs less than a pass per tensor.
MAX_JOINED = 1 << 18


def update_kernel(*, counters: str = "steps", optional: str = "", flags: str = "") -> Callable[[Callable[..., None]], ListKernel]:
    """Decorator: make the kernel of an optimizer from its twin.

    The twin takes ``params``, its lists of states, its counters (arrays (1,), float64, of each tensor) and ``grads``, then the
    vector ``hyperparameters``, ``skip`` and a ``ticket`` (see :func:`gpunet.launch.memory.ticket`).  The launch changes nothing if
    ``skip`` (1,), float64, is given and not 0; the twin itself ignores it.  The options ``decays`` (whether weight_decay is not
    zero) and ``maximize`` (use -g) are those of all optimizers.

    Args:
        counters: names of the counters, separated by spaces.
        optional: names of the lists of states that may be None.
        flags: names of lists and options; whether each is given, or true, is a template argument of the CUDA kernel.
    """

    def decorate(twin: Callable[..., None]) -> ListKernel:
        names = [*inspect.signature(twin).parameters]
        lists = names.index("hyperparameters")
        types = {name: "float64" for name in (*counters.split(), "hyperparameters", "skip")} | {"ticket": "uint32"}
        declared = list_kernel(
            "optimizers.cu", outputs=lists - 1, lists=lists, types=types, optional=f"{optional} skip ticket",
            updates=" ".join(names[: lists - 1]), tickets="ticket",
        )  # fmt: skip
        made = declared(_skippable(twin, names.index("skip"), lists - 1))

        @made.geometry
        def _(*arrays: Any, **options: Any) -> Geometry:
            given = {name: array is not None for name, array in zip(names, arrays)} | options
            template = tuple("true" if given[name] else "false" for name in flags.split())
            return Geometry(0, 256, (int(options["maximize"]),), template)

        if counters == "steps":

            @made.computes
            def _(*arrays: Any, **options: Any) -> parts.Update:
                params, *states, steps, grads, hyperparameters, skip, _ = arrays
                rule = rule_of(made, Arguments(arrays, options))
                apply = functools.partial(_apply, made, options)
                return parts.Update(params, states, steps, grads, hyperparameters, skip, rule, options["maximize"], apply)

            @linear_backward_weights.waits_for(made)
            def _(launch: Arguments, step: Arguments) -> tuple[Kernel, Arguments] | None:
                return add_update(made, rule_of(made, step), launch, step)

        return made

    return decorate


def rule_of(kernel: ListKernel, step: Arguments) -> str:
    """Return the C++ name of the update rule of a launch of an optimizer's kernel, for example ``Adam<false, true>``."""
    name = kernel.name.removesuffix("_step").capitalize()
    *template, _ = kernel.launch_geometry(step.arrays, step.options).template
    return f"{name}<{', '.join(template)}>" if template else name


def _apply(
    kernel: ListKernel, options: Mapping[str, Any], params: Any, states: Any, steps: Any, grads: Any, hyperparameters: Any
) -> None:
    """Run the twin of an optimizer's kernel; ``states`` may have more lists than it uses."""
    kernel.twin(params, *states[: kernel.lists - 3], steps, grads, hyperparameters, None, None, **options)


def _skippable(twin: Callable[..., None], place: int, outputs: int) -> Callable[..., None]:
    """The twin of an optimizer, which changes nothing if the array at ``place`` is given and not 0."""

    @functools.wraps(twin)
    def call(*arrays: Any, **options: Any) -> None:
        skip = arrays[place]
        if skip is None:
            twin(*arrays, **options)
        elif type(skip) is numpy.ndarray:
            if skip[0] == 0.0:
                twin(*arrays, **options)
        else:  # a trace reads no value: compute the step, and take it back
            changed = [tensor for tensors in arrays[:outputs] if tensors is not None for tensor in tensors]
            before = [scratch(tensor.shape, tensor.dtype) for tensor in changed]
            for copy, tensor in zip(before, changed):
                numpy.copyto(copy, tensor)
            twin(*arrays, **options)
            for copy, tensor in zip(before, changed):
                numpy.copyto(tensor, numpy.where(skip != 0.0, copy, tensor))

    return call


def update_tensors(
    params: Sequence[Any],
    states: Sequence[Sequence[Any] | None],
    steps: Sequence[Any],
    grads: Sequence[Any],
    factors: Callable[[int], Sequence[Any]],
    update: Callable[..., None],
    *,
    decays: bool,
    maximize: bool,
    reads_params: bool = False,
) -> None:
    """Update parameters and states in place, in chunks that stay in the cache, or all small tensors as one vector.

    Args:
        states: the lists of states, None for one that is not used.
        factors: called with the number of a tensor, returns the weight decay and the other numbers of the rule, 0-d arrays
            of the dtype of the parameters.
        update: called with vectors ``change``, ``p``, ``g``, the list of state vectors, and the other numbers: it updates
            the states and writes the amount to subtract from the parameters to ``change``.
        decays: add the weight decay times p to the gradient.
        reads_params: ``update`` reads p, which is None otherwise where tensors are joined.
    """
    dtype = params[0].dtype

    def apply(change: Any, p: Any, g: Any, *of_states: Any, numbers: Sequence[Any]) -> None:
        decay, *others = numbers
        if maximize:
            g = numpy.negative(g, out=scratch(g.shape, dtype, 1))
        if decays:
            numpy.multiply(p, decay, out=change)
            g = numpy.add(g, change, out=scratch(g.shape, dtype, 1))
        update(change, p, g, of_states, *others)

    is_joined = has_joined_state(steps) or not any(states)
    if is_joined and len(params) > 1 and sum([p.size for p in params]) <= MAX_JOINED:
        numbers = factors(0)
        change = scratch_joined(tuple([p.shape for p in params]), dtype, 0)
        joined: list[Any] = [change.flat, join(params, 2).flat if decays or reads_params else None, join(grads, 3).flat]
        joined += [state and state.flat for state in states]  # type: ignore[attr-defined]
        for chunk in chunks(joined):
            apply(*chunk, numbers=numbers)
        for p, part in zip(params, change):
            p -= part
        return
    lists = (params, grads, *states)
    for index in range(len(params)):
        numbers = factors(index)
        for chunk in chunks([None if a is None else a[index].reshape(-1) for a in lists]):
            part = scratch(chunk[0].shape, dtype, 0)
            apply(part, *chunk, numbers=numbers)
            chunk[0] -= part


def join(tensors: Sequence[numpy.ndarray], slot: int) -> JoinedArrays:
    """Copy the tensors into one vector in scratch memory."""
    work = scratch_joined(tuple([t.shape for t in tensors]), tensors[0].dtype, slot)
    if type(work.flat) is numpy.ndarray:  # half the time of numpy.concatenate, whose single call is better in a trace
        for part, tensor in zip(work, tensors):
            part[...] = tensor
    else:
        numpy.concatenate([t.reshape(-1) for t in tensors], out=work.flat)
    return work


def has_joined_state(steps: Sequence[numpy.ndarray]) -> bool:
    """Whether the state of all tensors is joined in memory, and their step counts are equal."""
    return isinstance(steps, JoinedArrays) and steps.flat is not None


def vectors_of(*counters: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the counters of all tensors as vectors, or tensor by tensor if they are not joined."""
    return iter([tuple([c.flat for c in counters])]) if has_joined_state(counters[0]) else zip(*counters)


def count(steps: Sequence[Any]) -> None:
    """Add 1 to the step counts."""
    for (vector,) in vectors_of(steps):
        vector += as_0d_arrays(vector.dtype, 1)[0]


def elements(vector: Any) -> list[Any]:
    """Return the elements of a vector as arrays (1,), so that replays use their current values."""
    return [vector[i : i + 1] for i in range(vector.size)]


def scalars(dtype: Any, *values: Any) -> list[Any]:
    """Copy float64 arrays (1,) to 0-d arrays of ``dtype``, so that NumPy does not promote results to float64."""
    work: Any = scratch_joined(((),) * len(values), dtype, 6)
    for index, value in enumerate(values):
        numpy.copyto(work.flat[index : index + 1], value, casting="same_kind")
    return list(work)


def average(state: Any, factors: Sequence[Any], value: Any, change: Any) -> None:
    """Let ``state`` be factors[0] * state + factors[1] * value; ``change`` is scratch, and may be ``value``."""
    numpy.multiply(value, factors[1], out=change)
    state *= factors[0]
    state += change


def average_square(state: Any, factors: Sequence[Any], value: Any, change: Any) -> None:
    """Let ``state`` be factors[0] * state + factors[1] * value^2; ``change`` is scratch, and may be ``value``."""
    numpy.multiply(value, value, out=change)
    average(state, factors, change, change)


def shrink(params: Sequence[Any], rate: Any, weight_decay: Any) -> None:
    """Multiply the parameters by 1 - rate * weight_decay: the decoupled weight decay."""
    (factor,) = scalars(params[0].dtype, 1.0 - rate * weight_decay)
    for p in params:
        p *= factor
