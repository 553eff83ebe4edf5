"""Compare an exported model with the original, by onnxruntime."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from gpunet.autograd import Tensor, make_tensor, no_grad
from gpunet.backend.dtypes import is_floating
from gpunet.errors import ExportError, GpunetError, MissingDependencyError
from gpunet.interop.tracing.graph import Graph
from gpunet.interop.tracing.trace import Call, Dynamic, resized, sizes_of
from gpunet.nn import Module

if TYPE_CHECKING:
    import onnx

_NUM_JOINT = 3  # of the variants that change all dimensions at once, see :func:`_variants`
#: The largest difference, as a part of the largest element; see :func:`_compare`.
TOLERANCE = 1e-5


def runtime() -> Any:
    """The module onnxruntime.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "onnx.export compares the file with the model by onnxruntime, which is not installed: pip install 'gpunet[onnx]', or "
            "pass verify=False"
        ) from None
    return onnxruntime


def session(content: bytes) -> Any:
    """A session of onnxruntime on the CPU, without its warnings."""
    library = runtime()
    options = library.SessionOptions()
    options.log_severity_level = 4
    return library.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def check(
    proto: onnx.ModelProto, model: Module, call: Call, graph: Graph, dynamic: Dynamic, has_parameters: bool = True
) -> None:
    """Compare the results for the call, and for other sizes of the dynamic dimensions.

    Raises:
        ExportError: onnxruntime cannot run the model, or results differ.
    """
    weights = {} if has_parameters else graph.parameters
    try:
        running = session(proto.SerializeToString())
    except Exception as error:  # onnxruntime's own classes
        raise ExportError(f"onnxruntime cannot load the exported model: {_first_line(error)}") from None
    expected = {value.name for value in running.get_inputs()}
    random = numpy.random.default_rng(0)
    own = sizes_of(call, dynamic)
    wider = 0  # sizes larger than the call's that the model takes
    traced = ({name: sizes[name] for name in own} for sizes in graph.variants[1:] if own)
    for number, sizes in enumerate((*_variants(own), *traced)):
        if number >= _NUM_JOINT + 2 * len(own) and wider:
            break  # the sizes of the trace are for models that take few
        tensors = resized(call, dynamic, sizes)
        if number:  # other values, too
            tensors = [make_tensor(random.choice(t.array.reshape(-1), t.array.shape).astype(t.dtype)) for t in tensors]
        feed = {name: numpy.array(tensor.array) for (name, _), tensor in zip(graph.inputs, tensors)}
        try:
            with no_grad():
                wanted = [output.array for output in call.run(model, tensors)]
        except Exception:  # of the user's model, which itself does not take this size
            if not number:
                raise
            continue
        wider += any(sizes[name] > size for name, size in own.items())
        try:
            found = running.run(None, {**{n: v for n, v in weights.items() if n in expected}, **feed})
        except Exception as error:
            raise ExportError(f"onnxruntime cannot run the exported model{_for(sizes)}: {_first_line(error)}") from None
        exact = functools.cache(functools.partial(_exact, model, call, tensors))
        for index, (value, ours, theirs) in enumerate(zip(proto.graph.output, wanted, found)):
            _compare(value.name, ours, theirs, sizes, lambda index=index, exact=exact: exact()[index])  # type: ignore[misc]


def _exact(model: Module, call: Call, tensors: Sequence[Tensor]) -> list[numpy.ndarray]:
    """The results in float64."""
    wide = [tensor.double() if is_floating(tensor.dtype) else tensor for tensor in tensors]
    with no_grad():
        return [output.array for output in call.run(copy.deepcopy(model).double(), wide)]


def _variants(own: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """The sizes to compare: the call's, larger ones, and 1; then, one dimension after the other, much larger ones, even and odd."""
    yield {**own}
    if own:
        yield {name: size + 2 for name, size in own.items()}
        yield dict.fromkeys(own, 1)
    for name, size in own.items():
        yield {**own, name: 5 * size + 5}
        yield {**own, name: 5 * size + 6}


def _compare(
    name: str, ours: Any, theirs: Any, sizes: Mapping[str, int], exact: Callable[[], numpy.ndarray] | None = None
) -> None:
    """Compare two results.

    Deep networks round float32 differently by more than the tolerance.  Then both are compared with ``exact()``, the result in
    float64, from which theirs may be twice as far as ours.

    Raises:
        ExportError: they differ.
    """
    if ours.shape != theirs.shape:
        way_out = ". Name the dimensions that the model removes or moves, as by squeeze(1), or fix the sizes by dynamic_axes={}"
        raise ExportError(
            f"onnxruntime's result {name!r} has shape {theirs.shape}{_for(sizes)}; the model's has {ours.shape}"
            f"{way_out if sizes else ''}"
        )
    if not is_floating(ours.dtype):
        if not numpy.array_equal(ours, theirs):
            raise ExportError(f"the results of the exported model differ{_for(sizes)}: {name!r}; the file was not written")
        return
    finite = numpy.isfinite(ours)
    scale, difference = numpy.abs(ours[finite]).max(initial=0.0), _distance(theirs[finite], ours[finite])
    if numpy.array_equal(theirs[~finite], ours[~finite], equal_nan=True):
        if difference <= TOLERANCE * scale + 1e-30:
            return
        if exact is not None and difference <= 10 * TOLERANCE * scale:
            try:
                reference = exact()[finite]
            except GpunetError:  # the model computes in float32 alone
                reference = ours[finite]
            if _distance(theirs[finite], reference) <= 2 * _distance(ours[finite], reference):
                return
    raise ExportError(
        f"the results of the exported model differ{_for(sizes)}: {name!r} by {difference:.3g}, where the largest element is "
        f"{scale:.3g}; the file was not written"
    )


def _distance(a: numpy.ndarray, b: numpy.ndarray) -> float:
    return float(numpy.abs(numpy.subtract(a, b, dtype=numpy.float64)).max(initial=0.0))


def _for(sizes: Mapping[str, int]) -> str:
    return f" for {', '.join(f'{name}={size}' for name, size in sizes.items())}" if sizes else ""


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:500]
