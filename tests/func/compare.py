"""Calls of the transforms with gpunet and with PyTorch, whose results must agree."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy

import gpunet

#: library, its module ``func`` and a function that makes float64 tensors -> nested results
Call = Callable[[Any, Any, Callable[..., Any]], Any]


def results(library: Any, call: Call) -> Any:
    """The result of a call with the same numbers for each library."""
    random = numpy.random.default_rng(0)

    def draw(*shape: int, requires_grad: bool = False) -> Any:
        return library.tensor(random.normal(size=shape), dtype=library.float64, requires_grad=requires_grad)

    return call(library, importlib.import_module(f"{library.__name__}.func"), draw)


def compare(torch: Any, call: Call) -> None:
    """Check that gpunet's result of a call has the structure, the values and the ``requires_grad`` of PyTorch's."""
    mine = results(gpunet, call)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch compiles parts of its forward mode in ways that it deprecates
        theirs = results(torch, call)
    agree(mine, theirs)


def agree(mine: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert [*mine] == [*theirs]
        for key, value in theirs.items():
            agree(mine[key], value)
    elif isinstance(theirs, (tuple, list)):
        assert len(mine) == len(theirs)
        assert type(mine).__name__ == type(theirs).__name__
        for a, b in zip(mine, theirs):
            agree(a, b)
    elif hasattr(theirs, "requires_grad"):
        assert tuple(mine.shape) == tuple(theirs.shape)
        assert mine.requires_grad == theirs.requires_grad
        numpy.testing.assert_allclose(mine.detach().cpu().numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-12)
    else:
        assert mine == theirs
