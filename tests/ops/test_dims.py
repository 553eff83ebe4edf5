"""Every function and method with a dimension argument, found by its signature: all spellings, all faces, and PyTorch's answers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.errors import GpunetError

F = gpunet.nn.functional
#: Parameters that hold dimensions.
DIMS = ("dim", "dims", "dim0", "dim1", "axis0", "axis1", "start_dim", "end_dim")
SPELLINGS: dict[str, Any] = {
    "number": 1, "negative": -1, "tuple": (0, 1), "list": [1], "negative tuple": (-1,), "NumPy integer": numpy.int64(1),
    "NumPy integers": (numpy.int32(0), numpy.int64(1)), "empty": (), "True": True, "tuple of a bool": (False,),
    "NumPy bool": numpy.bool_(True), "float": 1.0, "NumPy float": numpy.float64(1.0), "text": "q", "array": numpy.array([0, 1]),
    "out of range": 2, "far below": -4, "tuple out of range": (0, 2), "twice": (0, 0), "twice, once from the end": (0, -2),
    "huge": 2**70,
}  # fmt: skip
def operand(library: Any) -> Any:
    return library.tensor([[3.0, 1.0, 2.0], [0.5, 6.0, -1.0]], dtype=library.float64)


#: What other required parameters get, by the name of the function if it needs its own; a new parameter needs a line here.
EXAMPLES: dict[str, Callable[[Any], Any]] = {
    "index": lambda lib: lib.tensor([[0, 0, 1]]), "index_select.index": lambda lib: lib.tensor([0, 1]), "k": lambda lib: 1,
    "chunks": lambda lib: 2, "sizes": lambda lib: (-1, 1), "split_size_or_sections": lambda lib: 1,
    "tensors": lambda lib: [operand(lib), operand(lib)], "x2": lambda lib: operand(lib), "src": operand, "source": operand,
    "other": operand, "b": operand, "value": lambda lib: 2.0, "q": lambda lib: 0.5, "start": lambda lib: 0, "length": lambda lib: 1,
    "reduce": lambda lib: "sum", "shifts": lambda lib: 1, "indices_or_sections": lambda lib: 2,
    "p": lambda lib: 2.0, "maxnorm": lambda lib: 1.0, "split_size": lambda lib: 1, "split_sizes": lambda lib: [1, 2],
    "indices": lambda lib: lib.tensor([[0, 0, 1]]), "repeats": lambda lib: 2,
    **{f"index_{write}.index": lambda lib: lib.tensor([0, 1]) for write in ("add", "add_", "copy", "copy_", "fill", "fill_")},
}  # fmt: skip
#: Parameters that are given although they are not required: of several, one is.
GIVEN = ("src", "repeats")
#: Accepted here and refused by PyTorch, with the reason.
ACCEPTED = {
    "array": "an array of integers is no dimension in either; PyTorch takes it as the operand of max and min",
    "norm": "PyTorch fails for a NumPy integer",
    "prod": "PyTorch reduces one dimension only",
    "tensordot": "PyTorch refuses a pair of numbers, which NumPy takes",
    "logsumexp": "PyTorch fails for (), which means all dimensions in its other reductions",
}


def dims_of(function: Any) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.name in DIMS and p.kind is not p.VAR_POSITIONAL]


def faces_of(library: Any, name: str) -> list[Any]:
    """The functions and the method of this name."""
    return [f for owner in (library, library.nn.functional, library.Tensor) if callable(f := getattr(owner, name, None))]


def names() -> list[str]:
    found = set()
    for owner in (gpunet, F, gpunet.Tensor):
        for name in gpunet.__all__ if owner is gpunet else dir(owner):
            value = getattr(owner, name)
            if inspect.isfunction(value) and not name.startswith("_") and dims_of(value) and name != "gumbel_softmax":  # random
                found.add(name)
    return sorted(found)


def arguments(library: Any, function: Any, value: Any) -> dict[str, Any]:
    """The arguments of a call as keywords: ``value`` for the first dimension, 0 for others that are required."""
    given: dict[str, Any] = {}
    first_dim = dims_of(function)[0]
    for position, parameter in enumerate(inspect.signature(function).parameters.values()):
        name = parameter.name
        if name == first_dim:
            given[name] = value
        elif parameter.kind is parameter.VAR_POSITIONAL or (parameter.default is not parameter.empty and name not in GIVEN):
            continue
        elif name in dims_of(function):
            given[name] = 0
        elif position == 0 and name not in EXAMPLES:
            given[name] = operand(library)
        else:
            given[name] = (EXAMPLES.get(f"{function.__name__}.{name}") or EXAMPLES[name])(library)
    return given


def outcome(call: Callable[[], Any]) -> Any:
    """The nested values of a result with its shapes, or the exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except Exception as error:
        return error
    return plain(result)


def plain(result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return tuple(map(plain, result))
    if not hasattr(result, "tolist"):
        return result
    return tuple(result.shape), numpy.asarray(result.tolist(), float).round(10).tolist()


def outcomes(library: Any, name: str, value: Any) -> list[Any]:
    """What the faces of a function give for a dimension, by position and by keyword."""
    ours = faces_of(gpunet, name)[0]
    parameters = [*inspect.signature(ours).parameters.values()]

    def call(face: Any, by_keyword: bool) -> Any:
        given = arguments(library, ours, value)  # for each call: methods in place change them
        first, *rest = given.items()
        if by_keyword:
            return face(first[1], **dict(rest))
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return face(first[1], value)
        if any(p.kind is p.KEYWORD_ONLY and p.name in given for p in parameters):
            return face(first[1], **dict(rest))
        last = max(i for i, p in enumerate(parameters) if p.name in given)
        return face(*[given.get(p.name, p.default) for p in parameters[: last + 1]])

    return [
        outcome(lambda face=face, by=by: call(face, by)) for face in faces_of(library, name) for by in (True, False)
    ]


def is_refusal(result: Any) -> bool:
    return isinstance(result, Exception)


@pytest.mark.parametrize("name", names())
def test_faces_agree_and_refuse_in_words_of_ours(name: str, device: str) -> None:
    for spelling, value in SPELLINGS.items():
        found = outcomes(gpunet, name, value)
        refusals = [r for r in found if is_refusal(r)]
        assert all(isinstance(r, GpunetError) for r in refusals), (spelling, found)
        assert all(name.removesuffix("_") in str(r) for r in refusals), (spelling, found)
        values = [r for r in found if not is_refusal(r)]
        assert all(v == values[0] for v in values), (spelling, found)


@pytest.mark.parametrize("name", names())
def test_dimensions_mean_what_they_mean_in_torch(name: str, torch: Any, device: str) -> None:
    """A spelling that a face of PyTorch takes gives its values; a spelling that all of them refuse is refused."""
    if not faces_of(torch, name):
        pytest.skip(f"PyTorch has no {name}")
    wrong = []
    for spelling, value in SPELLINGS.items():
        mine, theirs = outcomes(gpunet, name, value), outcomes(torch, name, value)
        values = [r for r in theirs if not is_refusal(r)]
        if values:
            wrong += [(spelling, values[0], r) for r in mine if not is_refusal(r) and r != values[0]]
            wrong += [(spelling, values[0], mine)] if all(map(is_refusal, mine)) else []
        elif not ACCEPTED.keys() & {name, spelling}:
            wrong += [(spelling, theirs[0], r) for r in mine if not is_refusal(r)]
    assert wrong == []
