"""vmap: a function of samples as a function of batches, by a call for each sample."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from gpunet.autograd import Function, Tensor, mode, wrap
from gpunet.backend import devices
from gpunet.backend.devices import to_host
from gpunet.errors import ArgumentError, DtypeError, InPlaceError, ShapeError
from gpunet.func.arguments import check_function, name_of, named_as
from gpunet.func.jacobians import check_chunk_size
from gpunet.func.randomness import SameDraws, check_randomness, refusing_draws
from gpunet.func.trees import Structure, flatten, leaves_like, unflatten
from gpunet.launch.tape import graph_break_on_read
from gpunet.ops.join import stack, unbind

__all__ = ["vmap"]


def vmap(
    func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *, chunk_size: int | None = None
) -> Callable[..., Any]:
    """Return a function that calls ``func`` for each sample of a batch, and stacks the results.

        dot = func.vmap(gpunet.dot)            # (n, k), (n, k) -> (n,)
        per_sample = func.vmap(func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)

    It is a loop: ``func`` may be any function, also one that looks at values, and its results have the bits of single calls; n
    samples take the time of n calls.  A captured step records the calls as one program.

    Args:
        func: its arguments are tensors, nested tuples, lists and dictionaries of tensors, and other values.
        in_dims: the dimension of the samples in each argument; an integer for all, or a tuple with one for each argument: an
            integer, None for an argument that all samples share, or the same for the parts of a nested argument.
        out_dims: the dimension of the samples in the results, in the same way; None for a result that is the same for all samples.
        randomness: "error" refuses random numbers in ``func``; "different" draws other ones for each sample, "same" the same.
        chunk_size: the samples that PyTorch computes at once; it changes nothing here.

    Returns:
        The function; keyword arguments go to ``func`` as they are.

    Raises:
        ArgumentError: ``randomness`` or ``chunk_size`` is invalid; in a call, ``in_dims`` or ``out_dims`` do not fit, ``func``
            draws random numbers although ``randomness="error"``, or a result with out_dims=None depends on the sample.
        DtypeError: in a call, an argument or a result with a dimension of samples is no tensor.
        ShapeError: in a call, the batches have different sizes, or size 0, or the results of samples have different shapes.
        InPlaceError: in a call, ``func`` changes a tensor in place that all samples share.
    """
    check_function("vmap", func)
    check_randomness("vmap", randomness)
    check_chunk_size("vmap", chunk_size)
    where = f"vmap({name_of(func)})"

    @named_as(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        batch = _Batch(where, args, in_dims)
        draws = SameDraws()
        results = []
        with _random(randomness, where), _refusing_shared_changes(where, batch) as next_sample:
            for sample in batch.samples():
                next_sample()
                with draws.call() if randomness == "same" else nullcontext():
                    results.append(func(*sample, **kwargs))
        return _joined(where, results, out_dims)

    return call


def _random(randomness: str, where: str) -> AbstractContextManager[None]:
    return refusing_draws(where, "randomness='different' or 'same'") if randomness == "error" else nullcontext()


class _Batch:
    """The arguments of a call.

    Attributes:
        size: the number of samples.
        mapped: the tensors with a dimension of samples.
    """

    def __init__(self, where: str, args: tuple[Any, ...], in_dims: Any) -> None:
        if isinstance(in_dims, bool) or not isinstance(in_dims, (int, tuple)):
            raise ArgumentError(f"{where}: in_dims={in_dims!r}; expected an integer, or a tuple with one for each argument")
        if not args:
            raise ArgumentError(f"{where}: got no positional arguments; expected a batch")
        self._leaves, self._structure = flatten(args)
        dims = leaves_like(in_dims, self._structure, spreads=True)
        if dims is None:
            raise ArgumentError(
                f"{where}: in_dims={in_dims!r} does not have the structure of the arguments, {self._structure}; expected an "
                "integer or None for each of them, or the same structure of these"
            )
        self._dims = [None if dim is None else self._checked(where, dim, leaf) for dim, leaf in zip(dims, self._leaves)]
        self._leaves = [leaf if dim is None else wrap(leaf) for dim, leaf in zip(self._dims, self._leaves)]
        self.mapped = [leaf for dim, leaf in zip(self._dims, self._leaves) if dim is not None]
        sizes = [leaf.shape[dim] for dim, leaf in zip(self._dims, self._leaves) if dim is not None]
        if not sizes:
            raise ArgumentError(f"{where}: in_dims={in_dims!r} names no dimension of samples; expected it of one argument or more")
        if len({*sizes}) > 1:
            raise ShapeError(f"{where}: the batches have {sizes} samples; expected the same number")
        self.size = sizes[0]
        if not self.size:
            raise ShapeError(
                f"{where}: the batch has no samples, so that no call tells the shape of the results; expected 1 sample or more"
            )

    @staticmethod
    def _checked(where: str, dim: Any, leaf: Any) -> int:
        """The dimension of the samples of an argument, counted from 0."""
        if isinstance(dim, bool) or not hasattr(dim, "__index__"):
            raise ArgumentError(f"{where}: in_dims has {dim!r}; expected integers and None")
        if not isinstance(leaf, Tensor) and not devices.is_array(leaf):
            raise DtypeError(
                f"{where}: in_dims has {dim} for an argument of type {type(leaf).__name__}, {leaf!r}; expected a tensor there, or "
                "None in in_dims"
            )
        position = operator.index(dim)
        if not -leaf.ndim <= position < leaf.ndim:
            raise ArgumentError(f"{where}: in_dims has {dim} for a tensor of shape {tuple(leaf.shape)}, without this dimension")
        return position % leaf.ndim

    def samples(self) -> Iterator[tuple[Any, ...]]:
        """The arguments of each call."""
        slices = [None if dim is None else _samples_of(leaf, dim) for dim, leaf in zip(self._dims, self._leaves)]
        for index in range(self.size):
            yield unflatten(self._structure, [leaf if s is None else s[index] for s, leaf in zip(slices, self._leaves)])


class _Samples(Function):
    """The slices of a tensor as the results of one node, whose backward writes the gradient once, not once for each slice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> tuple[Tensor, ...]:
        ctx.dim = dim
        return unbind(x, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return stack(gradients, ctx.dim), None


def _samples_of(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = _Samples.apply(x, dim) if x.requires_grad and mode.current.enabled else unbind(x, dim)
    return found


@contextmanager
def _refusing_shared_changes(where: str, batch: _Batch) -> Iterator[Callable[[], None]]:
    """Refuse changes in place of tensors that outlive a call but are no samples: a second call changes them again.

    Yields:
        A function to call before each sample.
    """
    own = {id(tensor._version) for tensor in batch.mapped}
    earlier: dict[int, Any] = {}  # version counters of tensors that calls changed, by their ids
    present: dict[int, Any] = {}
    listener = mode.current.change_listener

    def check(tensors: Sequence[Tensor]) -> None:
        if listener is not None:
            listener(tensors)
        for tensor in tensors:
            key = id(tensor._version)
            if key in earlier:
                raise InPlaceError(
                    f"{where}: func changes a tensor of shape {tuple(tensor.shape)} in place that all samples share, such as a "
                    "running statistic, once for each sample; return the new value instead, or pass a copy for each sample"
                )
            if key not in own:
                present[key] = tensor._version

    def next_sample() -> None:
        earlier.update(present)
        present.clear()

    mode.current.change_listener = check
    try:
        yield next_sample
    finally:
        mode.current.change_listener = listener


def _joined(where: str, results: list[Any], out_dims: Any) -> Any:
    """The results of all samples, stacked."""
    first, structure = flatten(results[0])
    dims = _dims_of_results(where, out_dims, structure)
    by_sample = [leaves_like(result, structure) for result in results]
    for index, leaves in enumerate(by_sample):
        if leaves is None:
            raise ArgumentError(
                f"{where}: the result of sample {index} has the structure {flatten(results[index])[1]}, that of sample 0 "
                f"{structure}; expected the same for all samples"
            )
    columns = zip(*[leaves for leaves in by_sample if leaves is not None]) if first else ()
    return unflatten(structure, [_join(where, values, dim) for values, dim in zip(columns, dims)])


def _dims_of_results(where: str, out_dims: Any, structure: Structure) -> list[Any]:
    """``out_dims`` for each leaf of a result."""
    if structure.kind is None and isinstance(out_dims, tuple) and len(out_dims) == 1:  # as in PyTorch
        (out_dims,) = out_dims
    dims = leaves_like(out_dims, structure, spreads=True)
    if dims is None:
        raise ArgumentError(
            f"{where}: out_dims={out_dims!r} does not have the structure of the result, {structure}; expected an integer or None, "
            "or the same structure of these"
        )
    for dim in dims:
        if isinstance(dim, bool) or not (dim is None or isinstance(dim, int)):
            raise ArgumentError(f"{where}: out_dims={out_dims!r}; expected integers and None")
    return dims


def _join(where: str, values: Sequence[Any], dim: int | None) -> Any:
    """One result of all samples: stacked along ``dim``, or with None the one that all samples have."""
    if dim is None:
        for index, value in enumerate(values):
            if not _is_same(value, values[0]):
                raise ArgumentError(
                    f"{where}: a result with out_dims=None differs between samples 0 and {index}; expected the same for all "
                    "samples, or an integer in out_dims"
                )
        return values[0]
    for index, value in enumerate(values):
        if not isinstance(value, Tensor):
            raise DtypeError(
                f"{where}: func returned a {type(value).__name__}, {value!r}; expected tensors, or None in out_dims for a result "
                "that is the same for all samples"
            )
        if value.array.shape != values[0].array.shape:
            raise ShapeError(
                f"{where}: the result of sample {index} has shape {tuple(value.shape)}, that of sample 0 "
                f"{tuple(values[0].shape)}; expected the same for all samples"
            )
    num_dims = values[0].ndim + 1
    if not -num_dims <= dim < num_dims:
        raise ArgumentError(f"{where}: out_dims has {dim} for a result that has {num_dims} dimensions with that of the samples")
    return stack(values, dim)


def _is_same(value: Any, other: Any) -> bool:
    """Whether two results are the same object, equal, or tensors of the same bytes."""
    if value is other:
        return True
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return type(value) is type(other) and bool(value == other)
    if value.array.shape != other.array.shape or value.array.dtype != other.array.dtype:
        return False
    graph_break_on_read("vmap() with out_dims=None")
    return bool(to_host(value.array).tobytes() == to_host(other.array).tobytes())
