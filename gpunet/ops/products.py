"""Sums of products over labelled dimensions (einsum and its kin), each one matrix product; products that are added to a tensor."""

from __future__ import annotations

import itertools
import math
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.backend.dtypes import is_boolean
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.arrange import _roll
from gpunet.ops.broadcast import broadcasts_to, cast, in_accumulator, result_dtype
from gpunet.ops.complex_numbers import conj
from gpunet.ops.convert import clone
from gpunet.ops.define import elementwise
from gpunet.ops.diagonal import _diagonal
from gpunet.ops.dims import normalize_dim, normalize_dims
from gpunet.ops.elementwise import _add, _mul
from gpunet.ops.face import as_factor, as_integer, public
from gpunet.ops.in_place import overwrite
from gpunet.ops.matmul import _matmul, _product
from gpunet.ops.reduce import _sum
from gpunet.ops.shape import _expand, _permute, _reshape

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "chain_matmul", "cross", "einsum", "ger", "inner", "kron", "mv", "outer",
    "tensordot", "vdot",
]  # fmt: skip


# ---- contraction --------------------------------------------------------------------------------------------------------


def _refuse_booleans(function: str, *tensors: Tensor) -> None:
    for x in tensors:
        if is_boolean(x.dtype):
            raise DtypeError(f"{function}: an operand has dtype {x.dtype}; expected numbers: convert it with .float() or .long()")


def _arranged(x: Tensor, labels: Sequence[Any], order: Sequence[Any]) -> Tensor:
    """The dimensions in another order; labels that x lacks become dimensions of size 1."""
    kept = [label for label in order if label in labels]
    moved = _permute(x, dims=tuple([labels.index(label) for label in kept])) if list(labels) != kept else x
    if len(kept) == len(order):
        return moved
    sizes = dict(zip(labels, x.array.shape))
    return _reshape(moved, shape=tuple([sizes.get(label, 1) for label in order]))


def _contract(a: Tensor, a_labels: list[Any], b: Tensor, b_labels: list[Any], kept: set[Any]) -> tuple[Tensor, list[Any]]:
    """The product of two tensors, summed over the labels that both have and that are not kept.

    One matrix product: the dimensions are permuted to (batch, rows, summed) and (batch, summed, columns).  Without a sum it is
    an elementwise product.
    """
    batch = [label for label in a_labels if label in b_labels and label in kept]
    summed = [label for label in a_labels if label in b_labels and label not in kept]
    rows = [label for label in a_labels if label not in b_labels]
    columns = [label for label in b_labels if label not in a_labels]
    labels = [*batch, *rows, *columns]
    if not summed:
        return _mul(_arranged(a, a_labels, labels), _arranged(b, b_labels, labels)), labels
    sizes = {**dict(zip(a_labels, a.array.shape)), **dict(zip(b_labels, b.array.shape))}
    shape, (n, k, m) = [sizes[label] for label in batch], (math.prod(sizes[d] for d in part) for part in (rows, summed, columns))
    left = _reshape(_arranged(a, a_labels, [*batch, *rows, *summed]), shape=(*shape, n, k))
    right = _reshape(_arranged(b, b_labels, [*batch, *summed, *columns]), shape=(*shape, k, m))
    return _reshape(_matmul(left, right), shape=tuple([sizes[label] for label in labels])), labels


def _drop(x: Tensor, labels: list[Any], dropped: set[Any]) -> tuple[Tensor, list[Any]]:
    """Sum over the dropped labels."""
    axes = tuple([i for i, label in enumerate(labels) if label in dropped])
    if not axes:
        return x, labels
    kept = [label for label in labels if label not in dropped]
    if all(x.array.shape[axis] == 1 for axis in axes):
        return _reshape(x, shape=tuple([n for i, n in enumerate(x.array.shape) if i not in axes])), kept
    return _sum(x, axes=axes, keepdim=False), kept


def _cheapest(terms: list[tuple[Tensor, list[Any]]], output: Sequence[Any]) -> tuple[int, int]:
    """The pair of terms whose product has the fewest elements beside those of the two, the earliest of several."""

    def growth(pair: tuple[int, int]) -> int:
        i, j = pair
        others = {label for k, (_, labels) in enumerate(terms) if k not in pair for label in labels}.union(output)
        sizes: dict[Any, int] = {}
        for x, labels in (terms[i], terms[j]):
            sizes.update((label, n) for label, n in zip(labels, x.array.shape) if label in others)
        return math.prod(sizes.values()) - terms[i][0].array.size - terms[j][0].array.size

    return min(itertools.combinations(range(len(terms)), 2), key=growth)


def _sum_of_products(terms: list[tuple[Tensor, list[Any]]], output: Sequence[Any]) -> Tensor:
    """The product of all terms, summed over the labels that the output lacks."""
    sizes: dict[Any, int] = {}
    for x, labels in terms:
        for label, n in zip(labels, x.array.shape):
            sizes[label] = n if sizes.get(label, 1) == 1 else sizes[label]
    # a dimension of size 1 is broadcast: where another term has the label, it has no effect
    holders = Counter(label for x, labels in terms for label, n in zip(labels, x.array.shape) if n == sizes[label])
    terms = [
        _drop(x, labels, {label for label, n in zip(labels, x.array.shape) if n != sizes[label] and holders[label]})
        for x, labels in terms
    ]
    while True:
        counts = Counter(label for _, labels in terms for label in labels)
        terms = [_drop(x, labels, {d for d in labels if counts[d] == 1 and d not in output}) for x, labels in terms]
        if len(terms) == 1:
            return _arranged(*terms[0], output)
        i, j = _cheapest(terms, output)
        (b, b_labels), (a, a_labels) = terms.pop(j), terms.pop(i)
        kept = {label for _, labels in terms for label in labels}.union(output)
        terms.insert(i, _contract(a, a_labels, b, b_labels, kept))


# ---- einsum -------------------------------------------------------------------------------------------------------------

#: Stands among the labels of an operand for the dimensions of the ellipsis.
_REST = "..."


def _parsed(equation: str, count: int) -> tuple[list[list[Any]], list[Any] | None]:
    """The labels of each operand, and of the output if the equation has an arrow."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = [_labels_of(part, equation) for part in left.split(",")]
    if len(parts) != count:
        raise ArgumentError(f"einsum: equation {equation!r} names {len(parts)} operands, but {count} were passed")
    return parts, _labels_of(right, equation) if arrow else None


def _labels_of(text: str, equation: str) -> list[Any]:
    before, dots, behind = text.partition("...")
    labels = [*before, *([_REST] if dots else []), *behind]
    for label in labels:
        if label != _REST and label not in string.ascii_letters:
            raise ArgumentError(f"einsum: {label!r} in equation {equation!r}; expected letters, '...', ',' and '->'")
    return labels


def _from_lists(operands: Sequence[Any]) -> tuple[list[Any], list[list[Any]], list[Any] | None]:
    """Operands, labels and output of the form einsum(a, [0, 1], b, [1, 2], [0, 2])."""
    output = _checked_labels(operands[-1]) if len(operands) % 2 else None
    tensors, lists = operands[: len(operands) // 2 * 2 : 2], operands[1::2]
    return [*tensors], [_checked_labels(labels) for labels in lists], output


def _checked_labels(labels: Any) -> list[Any]:
    if not isinstance(labels, (list, tuple)):
        raise DtypeError(f"einsum: labels {labels!r}; expected a list of integers from 0 to 51, or '...' as Ellipsis")
    numbers = [-1 if label is Ellipsis else as_integer("einsum", "label", label) for label in labels]
    if not all(label is Ellipsis or 0 <= number < 52 for label, number in zip(labels, numbers)):
        raise ArgumentError(f"einsum: labels {labels!r}; expected integers from 0 to 51, or Ellipsis")
    return [_REST if number < 0 else string.ascii_letters[(number + 26) % 52] for number in numbers]  # capitals sort first


def _expanded(labels: list[Any], x: Tensor) -> tuple[Tensor, list[Any]]:
    """Labels for each dimension, those of the ellipsis numbered from the right; repeated labels give a diagonal."""
    named = [label for label in labels if label != _REST]
    rest = x.ndim - len(named)
    if labels.count(_REST) > 1:
        raise ArgumentError("einsum: more than one '...' in an operand; expected at most one")
    if rest < 0 or (rest and _REST not in labels):
        names = "".join(labels)
        raise ShapeError(f"einsum: labels {names!r} for an operand of shape {tuple(x.shape)}; expected one per dimension")
    full: list[Any] = []
    for label in labels:
        full += range(-rest, 0) if label == _REST else [label]
    while (repeated := next((label for label in full if full.count(label) > 1), None)) is not None:
        first = full.index(repeated)
        second = full.index(repeated, first + 1)
        if x.array.shape[first] != x.array.shape[second]:
            raise ShapeError(f"einsum: label {repeated!r} twice in an operand of shape {tuple(x.shape)}; expected equal sizes")
        x = _diagonal(x, offset=0, dim1=first, dim2=second)
        full = [label for i, label in enumerate(full) if i not in (first, second)] + [repeated]
    return x, full


@public(out=False, autocast="half", takes_complex=True)
def einsum(*args: Any) -> Tensor:
    """The sum of products of tensors over labelled dimensions: ``einsum("ij,jk->ik", a, b)`` is a matrix product.

    A label that the output lacks is summed over; without "->" the output has the labels that occur once, in alphabetical order.
    "..." stands for further dimensions, which broadcast.  A label twice in an operand means its diagonal.  Each two operands are
    one matrix product; more than two are combined in the order of the smallest intermediate results.

    Args:
        args: an equation and the operands, or operands and lists of integer labels: ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.

    Raises:
        ArgumentError: the equation does not fit the operands.
        ShapeError: a label has different sizes, none of which is 1.
    """
    if not args:
        raise ArgumentError("einsum: got no arguments; expected an equation and operands")
    if isinstance(args[0], str):
        given = args[1] if len(args) == 2 and isinstance(args[1], (list, tuple)) else args[1:]
        labels, output = _parsed(args[0], len(given))
    else:
        given, labels, output = _from_lists(args)
    if not given:
        raise ArgumentError("einsum: got no operands; expected at least one")
    tensors = [wrap(x, "einsum") for x in given]
    _refuse_booleans("einsum", *tensors)
    dtype = result_dtype(*tensors)
    terms = [_expanded(parts, x if x.dtype == dtype else cast(x, dtype=dtype)) for x, parts in zip(tensors, labels)]
    sizes: dict[Any, int] = {}
    for x, names in terms:
        for label, n in zip(names, x.array.shape):
            if n != 1 and sizes.setdefault(label, n) not in (1, n):
                raise ShapeError(f"einsum: label {label!r} has sizes {sizes[label]} and {n}; expected equal sizes, or 1")
    found = sorted({label for _, names in terms for label in names if isinstance(label, int)})
    if output is None:
        counts = Counter(label for parts in labels for label in parts if label != _REST)
        names = [*found, *sorted(label for label, count in counts.items() if count == 1)]
    else:
        names = []
        for label in output:
            names += found if label == _REST else [label]
        known = {label for _, parts in terms for label in parts}
        for label in names:
            if label not in known or names.count(label) > 1:
                raise ArgumentError(f"einsum: label {label!r} of the output; expected each once, and one of the operands' labels")
    if len(terms) < 3:
        return _sum_of_products(terms, names)
    operands, labels_of = zip(*terms)
    found_sum: Tensor = in_accumulator(lambda *x: _sum_of_products([*zip(x, labels_of)], names))(*operands)
    return found_sum


# ---- products by name -----------------------------------------------------------------------------------------------------


@public(autocast="cpu: half, cuda: widest", takes_complex=True)
def tensordot(a: Any, b: Any, dims: Any = 2) -> Tensor:
    """The product of two tensors, summed over pairs of dimensions.

    Args:
        dims: a number n: the last n dimensions of a with the first n of b; or two lists, of dimensions of a and of b.

    Returns:
        The other dimensions of a, then those of b.

    Raises:
        ShapeError: the dimensions of a pair have different sizes.
    """
    a, b = wrap(a, "tensordot"), wrap(b, "tensordot")
    if isinstance(dims, (tuple, list)):
        if len(dims) != 2:
            raise ArgumentError(f"tensordot: dims={dims!r}; expected a number, or two lists of dimensions")
        first, second = (
            normalize_dims(side if isinstance(side, (tuple, list)) else (side,), x.ndim, "tensordot", "dims")
            for side, x in zip(dims, (a, b))
        )
    else:
        count = as_integer("tensordot", "dims", dims)
        if not 0 <= count <= min(a.ndim, b.ndim):
            raise ArgumentError(f"tensordot: dims={count} of tensors with {a.ndim} and {b.ndim} dimensions; expected no more")
        first, second = tuple(range(a.ndim - count, a.ndim)), tuple(range(count))
    if (first and not a.ndim) or (second and not b.ndim):
        raise ShapeError(f"tensordot: dims={dims!r} of shapes {tuple(a.shape)} and {tuple(b.shape)}; expected dimensions of both")
    _refuse_booleans("tensordot", a, b)
    if len(first) != len(second) or any(a.array.shape[i] != b.array.shape[j] for i, j in zip(first, second)):
        raise ShapeError(f"tensordot: dims={dims!r} of shapes {tuple(a.shape)} and {tuple(b.shape)}; expected pairs of equal sizes")
    a_labels: list[Any] = [*range(a.ndim)]
    b_labels: list[Any] = [a_labels[first[second.index(j)]] if j in second else a.ndim + j for j in range(b.ndim)]
    kept = {label for label in (*a_labels, *b_labels) if label not in first}
    product, labels = _contract(a, a_labels, b, b_labels, kept)
    return _arranged(product, labels, [label for label in (*a_labels, *b_labels) if label in kept])


def _vectors(function: str, *tensors: Tensor) -> None:
    for x in tensors:
        if x.ndim != 1:
            raise ShapeError(f"{function}: a tensor has shape {tuple(x.shape)}; expected vectors")


def _outer(function: str, input: Tensor, vec2: Any) -> Tensor:
    vec2 = wrap(vec2, function)
    _vectors(function, input, vec2)
    return _mul(_reshape(input, shape=(input.array.size, 1)), vec2)


@public("outer", takes_complex=True)
def outer(input: Any, vec2: Any) -> Tensor:
    """The products of all pairs of elements of two vectors: (n,), (m,) -> (n, m).

    Raises:
        ShapeError: an operand is no vector.
    """
    return _outer("outer", input, vec2)


@public("ger", takes_complex=True)
def ger(input: Any, vec2: Any) -> Tensor:
    """:func:`outer` under another name."""
    return _outer("ger", input, vec2)


@public("mv", autocast="cuda: half", takes_complex=True)
def mv(input: Any, vec: Any) -> Tensor:
    """The product of a matrix and a vector: (n, m), (m,) -> (n,).

    Raises:
        ShapeError: the operands are no matrix and vector, or do not fit.
    """
    vec = wrap(vec, "mv")
    if input.ndim != 2 or vec.ndim != 1:
        raise ShapeError(f"mv: shapes {tuple(input.shape)} and {tuple(vec.shape)}; expected a matrix and a vector")
    return _product("mv", input, vec)


@public("vdot", autocast="cuda: widest", takes_complex=True)
def vdot(input: Any, other: Any) -> Tensor:
    """The dot product of two vectors, a 0-d tensor; a complex first one is conjugated.

    Raises:
        ShapeError: the operands are not two vectors of equal length.
    """
    other = wrap(other, "vdot")
    if input.ndim != 1 or input.shape != other.shape:
        raise ShapeError(f"vdot: shapes {tuple(input.shape)} and {tuple(other.shape)}; expected two vectors of equal length")
    return _product("vdot", conj(input), other)


@public("inner", takes_complex=True)
def inner(input: Any, other: Any) -> Tensor:
    """The dot products along the last dimensions of two tensors: (..., k), (---, k) -> (..., ---); numbers are multiplied.

    Raises:
        ShapeError: the last dimensions differ.
    """
    other = wrap(other, "inner")
    if not input.ndim or not other.ndim:
        return _mul(input, other)
    if input.array.shape[-1] != other.array.shape[-1]:
        raise ShapeError(f"inner: shapes {tuple(input.shape)} and {tuple(other.shape)}; expected equal last dimensions")
    return tensordot(input, other, [[-1], [-1]])


@public("kron", takes_complex=True)
def kron(input: Any, other: Any) -> Tensor:
    """The Kronecker product: blocks of ``other`` multiplied by the elements of ``input``; missing dimensions are of size 1."""
    other = wrap(other, "kron")
    ndim = max(input.ndim, other.ndim)
    a, b = ((1,) * (ndim - x.ndim) + x.array.shape for x in (input, other))
    left = _reshape(input, shape=tuple(n for size in a for n in (size, 1)))
    right = _reshape(other, shape=tuple(n for size in b for n in (1, size)))
    return _reshape(_mul(left, right), shape=tuple(n * m for n, m in zip(a, b)))


def product_of_matrices(function: str, matrices: Sequence[Tensor]) -> Tensor:
    """The product of a chain, in the order of the fewest multiplications.

    Source: Cormen et al., Introduction to Algorithms, 15.2 (dynamic programming over the splits of the chain).
    """
    sizes = [matrices[0].array.shape[0], *(x.array.shape[-1] for x in matrices)]
    cost: dict[tuple[int, int], int] = {(i, i): 0 for i in range(len(matrices))}
    split: dict[tuple[int, int], int] = {}
    for length in range(2, len(matrices) + 1):
        for i in range(len(matrices) - length + 1):
            j = i + length - 1
            costs = {k: cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)}
            split[i, j] = min(costs, key=costs.__getitem__)
            cost[i, j] = costs[split[i, j]]

    found: Tensor = in_accumulator(lambda *factors: _product_of_part(function, factors, split, 0, len(factors) - 1))(*matrices)
    return found


def _product_of_part(
    function: str, factors: Sequence[Tensor], split: dict[tuple[int, int], int], first: int, last: int
) -> Tensor:
    """The product of consecutive factors, divided at ``split[first, last]``."""
    if first == last:
        return factors[first]
    middle = split[first, last]
    left = _product_of_part(function, factors, split, first, middle)
    return _product(function, left, _product_of_part(function, factors, split, middle + 1, last))


@public(autocast="half", takes_complex=True)
def chain_matmul(*matrices: Any) -> Tensor:
    """The product of matrices, in the order of the fewest multiplications.

    Raises:
        ShapeError: an operand is no matrix, or the inner dimensions differ.
    """
    is_listed = len(matrices) == 1 and isinstance(matrices[0], (tuple, list))
    given = [wrap(x, "chain_matmul") for x in (matrices[0] if is_listed else matrices)]
    if not given:
        raise ArgumentError("chain_matmul: got no matrices; expected at least one")
    for x in given:
        if x.ndim != 2:
            raise ShapeError(f"chain_matmul: an operand has shape {tuple(x.shape)}; expected matrices")
    return product_of_matrices("chain_matmul", given) if len(given) > 1 else clone(given[0])


def cross_of(function: str, a: Any, b: Any, dim: int | None) -> Tensor:
    """The cross product, on behalf of ``function``; ``dim`` None is the first dimension of size 3."""
    a, b = wrap(a, function), wrap(b, function)
    if dim is None:
        found = [d for d, n in enumerate(a.array.shape) if n == 3]
        if not found:
            raise ShapeError(f"{function}: the tensor has shape {tuple(a.shape)}; expected a dimension of size 3")
        dim = found[0]
    if a.ndim != b.ndim:
        raise ShapeError(f"{function}: shapes {tuple(a.shape)} and {tuple(b.shape)}; expected the same number of dimensions")
    at = normalize_dim(dim, a.ndim, function)
    if not a.ndim or a.array.shape[at] != 3 or b.array.shape[at] != 3:
        raise ShapeError(f"{function}: dimension {dim} of shapes {tuple(a.shape)} and {tuple(b.shape)}; expected size 3")
    found_cross: Tensor = in_accumulator(_cross)(a, b, at)
    return found_cross


def _cross(a: Tensor, b: Tensor, at: int) -> Tensor:
    """a[i + 1] * b[i + 2] - a[i + 2] * b[i + 1]."""
    first, second = (tuple([step if d == at else 0 for d in range(a.ndim)]) for step in (2, 1))
    return _roll(a, shifts=first) * _roll(b, shifts=second) - _roll(a, shifts=second) * _roll(b, shifts=first)


@public("cross", autocast="cuda: widest", takes_complex=True)
def cross(input: Any, other: Any, dim: int | None = None) -> Tensor:
    """The cross product of vectors of three elements along ``dim``; the tensors broadcast.

    Args:
        dim: None is the first dimension of size 3.

    Raises:
        ShapeError: the size of the dimension is not 3.
    """
    return cross_of("cross", input, other, dim)


# ---- products that are added to a tensor ------------------------------------------------------------------------------------


def _added(
    function: str, product_of: Callable[[Tensor, Tensor], Tensor], input: Tensor, a: Tensor, b: Tensor, beta: Any, alpha: Any
) -> Tensor:
    """beta * input + alpha * product_of(a, b); with beta = 0 the input does not matter, nan included, and its gradient is 0."""
    dtype = result_dtype(input, a, b)
    beta, alpha = as_factor(function, "beta", beta, dtype), as_factor(function, "alpha", alpha, dtype)

    @in_accumulator
    def added(input: Tensor, a: Tensor, b: Tensor) -> Tensor:
        product = product_of(a, b)
        shape = product.array.shape
        if not broadcasts_to(input.array.shape, shape):
            raise ShapeError(f"{function}: input has shape {tuple(input.shape)}; expected one that broadcasts to {shape}")
        if alpha != 1:
            product = _mul(product, alpha)
        if beta == 0:
            return overwrite(_expand(function, input, shape), product)
        return _add(_expand(function, input if beta == 1 else _mul(input, beta), shape), product)

    return added(*(x if x.dtype == dtype else cast(x, dtype=dtype) for x in (input, a, b)))


def _check(function: str, fits: bool, expected: str, a: Tensor, b: Tensor) -> None:
    if not fits:
        raise ShapeError(f"{function}: shapes {tuple(a.shape)} and {tuple(b.shape)}; expected {expected}")


@elementwise("addmm", autocast="half", takes_complex=True)
def addmm(input: Any, mat1: Any, mat2: Any, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2).

    Args:
        input: broadcasts to the product; with beta = 0 it is ignored.

    Raises:
        ShapeError: the operands are no matrices that fit.
    """
    mat1, mat2 = wrap(mat1, "addmm"), wrap(mat2, "addmm")
    _check("addmm", mat1.ndim == mat2.ndim == 2, "two matrices", mat1, mat2)
    return _added("addmm", lambda a, b: _product("addmm", a, b), input, mat1, mat2, beta, alpha)


@elementwise("addmv", autocast="cuda: half", takes_complex=True)
def addmv(input: Any, mat: Any, vec: Any, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (mat @ vec); see :func:`addmm`."""
    mat, vec = wrap(mat, "addmv"), wrap(vec, "addmv")
    _check("addmv", mat.ndim == 2 and vec.ndim == 1, "a matrix and a vector", mat, vec)
    return _added("addmv", lambda a, b: _product("addmv", a, b), input, mat, vec, beta, alpha)


@elementwise("addr", autocast="cuda: half", takes_complex=True)
def addr(input: Any, vec1: Any, vec2: Any, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2); see :func:`addmm`."""
    vec1, vec2 = wrap(vec1, "addr"), wrap(vec2, "addr")
    if not input.ndim:
        input = _expand("addr", input, (1, 1))  # it is promoted like a matrix, as in PyTorch
    dtype = result_dtype(input, vec1, vec2)
    for name, value in {"beta": beta, "alpha": alpha}.items():
        if isinstance(value, bool) and not is_boolean(dtype):
            raise DtypeError(f"addr: {name}={value} for tensors of {dtype}; expected a number")
    return _added("addr", lambda a, b: _outer("addr", a, b), input, vec1, vec2, beta, alpha)


@elementwise("baddbmm", autocast="half", takes_complex=True)
def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2), of batches of matrices of one dtype; see :func:`addmm`.

    Raises:
        DtypeError: the dtypes differ.
    """
    batch1, batch2 = wrap(batch1, "baddbmm"), wrap(batch2, "baddbmm")
    fits = batch1.ndim == batch2.ndim == 3 and batch1.array.shape[0] == batch2.array.shape[0]
    _check("baddbmm", fits, "two batches of matrices of one size", batch1, batch2)
    if not input.dtype == batch1.dtype == batch2.dtype:
        raise DtypeError(
            f"baddbmm: input, batch1 and batch2 of {input.dtype}, {batch1.dtype} and {batch2.dtype}; expected one dtype: convert "
            "with .to(dtype)"
        )
    _refuse_booleans("baddbmm", batch1, batch2)
    return _added("baddbmm", lambda a, b: _product("baddbmm", a, b), input, batch1, batch2, beta, alpha)


@elementwise("addbmm", autocast="half", takes_complex=True)
def addbmm(input: Any, batch1: Any, batch2: Any, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * the sum of batch1[i] @ batch2[i]; see :func:`addmm`.  The sum is part of one matrix product."""
    batch1, batch2 = wrap(batch1, "addbmm"), wrap(batch2, "addbmm")
    fits = batch1.ndim == batch2.ndim == 3 and batch1.array.shape[::2] == (batch2.array.shape[0], batch2.array.shape[1])
    _check("addbmm", fits, "two batches of matrices of one size, (b, n, k) and (b, k, m)", batch1, batch2)
    _refuse_booleans("addbmm", batch1, batch2)

    def summed(a: Tensor, b: Tensor) -> Tensor:
        return _contract(a, [0, 1, 2], b, [0, 2, 3], {1, 3})[0]

    return _added("addbmm", summed, input, batch1, batch2, beta, alpha)
