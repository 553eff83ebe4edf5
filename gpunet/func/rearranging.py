"""rearrange: dimensions that are named, split, merged and permuted by a pattern, in the notation of einops (Rogozhnikov 2022)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.join import stack

__all__ = ["rearrange"]

_ELLIPSIS = "..."
#: A dimension as the names of its parts, none of one of size 1; an ellipsis outside of parentheses is None.
Group = list[str] | None
_TOKEN = re.compile(r"\s+|\.\.\.|[()]|1(?![\w])|[A-Za-z]\w*(?<!_)(?!\w)")


def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Tensor:
    """Split, permute and merge dimensions by a pattern.

        rearrange(x, "n h w c -> n c h w")
        rearrange(x, "n c (h p) (w q) -> n (h w) (c p q)", p=16, q=16)     # patches
        rearrange(x, "... c -> c ...")

    Args:
        tensor: a tensor, or a sequence of tensors, which are stacked along a new first dimension.
        pattern: two lists of names with ``->`` between.  Parentheses name the parts of one dimension, ``1`` and ``()`` are
            dimensions of size 1, ``...`` stands for any number of dimensions.
        axes_lengths: the sizes of parts, of which one in each dimension may be left out.

    Raises:
        ArgumentError: the pattern is malformed, or a size is of no name in it.
        ShapeError: the tensor does not have the dimensions of the pattern, or they cannot be split so.
    """
    x: Tensor = stack(tensor) if isinstance(tensor, (list, tuple)) else wrap(tensor, "rearrange")
    sides = pattern.split("->")
    if len(sides) != 2:
        raise ArgumentError(f"rearrange: pattern {pattern!r}; expected one '->' between two lists of names")
    left, right = (_groups(side, pattern) for side in sides)
    _check_names(left, right, pattern, axes_lengths)
    num_given = sum(group is not None for group in left)
    num_rest = x.ndim - num_given
    if num_rest < 0 or (num_rest and None not in left):
        raise ShapeError(f"rearrange: pattern {pattern!r} for a tensor of shape {tuple(x.shape)}; expected {num_given} dimensions")
    rest = [f"...{index}" for index in range(num_rest)]
    before, after = _with_rest(left, rest), _with_rest(right, rest)
    sizes: dict[str, int] = dict(axes_lengths)
    for group, size in zip(before, x.shape):
        _find_sizes(group, size, sizes, pattern)
    names = [name for group in before for name in group]
    order = [names.index(name) for group in after for name in group]
    split = x.reshape([sizes[name] for name in names])
    return split.permute(order).reshape([math.prod(sizes[name] for name in group) for group in after])


def _with_rest(groups: list[Group], rest: list[str]) -> list[list[str]]:
    """The dimensions with the names ``rest`` in the place of the ellipsis, each a dimension, or all in one in parentheses."""
    found = []
    for group in groups:
        if group is None:
            found += [[name] for name in rest]
        else:
            found.append([name for item in group for name in (rest if item == _ELLIPSIS else [item])])
    return found


def _groups(side: str, pattern: str) -> list[Group]:
    """The dimensions of one side."""
    found: list[Group] = []
    group: Group = None  # between parentheses
    at = 0
    while at < len(side):
        match = _TOKEN.match(side, at)
        if match is None:
            raise ArgumentError(
                f"rearrange: pattern {pattern!r} has {side[at:].split()[0]!r}; expected names of letters, digits and inner "
                "underscores, parentheses, '...', or 1"
            )
        token, at = match[0], match.end()
        if token.isspace():
            continue
        if token in "()":
            if (token == "(") != (group is None):
                raise ArgumentError(f"rearrange: the parentheses in pattern {pattern!r} do not match, or are nested")
            if group is not None:
                found.append(group)
            group = [] if token == "(" else None
        elif group is not None:
            group += [] if token == "1" else [token]
        else:
            found.append(None if token == _ELLIPSIS else [] if token == "1" else [token])
    if group is not None:
        raise ArgumentError(f"rearrange: the parentheses in pattern {pattern!r} do not match")
    return found


def _check_names(left: list[Group], right: list[Group], pattern: str, sizes: dict[str, int]) -> None:
    """Check that both sides have the same names, each once.

    Raises:
        ArgumentError: they do not.
    """
    before, after = ([name for group in side for name in ([_ELLIPSIS] if group is None else group)] for side in (left, right))
    for names in (before, after):
        for name in names:
            if names.count(name) > 1:
                raise ArgumentError(f"rearrange: {name!r} is twice on one side of pattern {pattern!r}; expected once")
    if different := {*before} ^ {*after}:
        raise ArgumentError(f"rearrange: {min(different)!r} is on one side of pattern {pattern!r} only; expected on both")
    if any(_ELLIPSIS in group for group in left if group is not None):
        raise ArgumentError(f"rearrange: '...' is in parentheses on the left of pattern {pattern!r}; expected it outside there")
    for name, size in sizes.items():
        if name not in before:
            raise ArgumentError(f"rearrange: {name}={size}, but pattern {pattern!r} has no {name!r}")
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ArgumentError(f"rearrange: {name}={size!r}; expected a size of 1 or more")


def _find_sizes(group: Sequence[str], size: int, sizes: dict[str, int], pattern: str) -> None:
    """Add the sizes of the parts of a dimension to ``sizes``; one of them may be unknown.

    Raises:
        ShapeError: the parts do not fit the dimension.
    """
    unknown = [name for name in group if name not in sizes]
    known = math.prod(sizes[name] for name in group if name in sizes)
    if len(unknown) > 1:
        raise ShapeError(f"rearrange: the sizes of {unknown} in pattern {pattern!r} are unknown; pass all but one of them")
    if unknown and known and size % known == 0:
        sizes[unknown[0]] = size // known
    elif unknown or known != size:
        parts = " ".join(group) or "1"
        raise ShapeError(f"rearrange: a dimension of size {size} cannot be ({parts}) in pattern {pattern!r}, with sizes {sizes}")
