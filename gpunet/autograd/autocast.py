"""Mixed precision: in an :class:`autocast` block, ops choose the dtype that they compute in.

Where a public function is defined, its rule is declared (:func:`casts`, or ``autocast=`` of the decorators of :mod:`gpunet.ops`):

* "half": floating inputs are cast to the dtype of the block, float16 or bfloat16: products and convolutions;
* "float32": floating inputs are cast to float32: exponentials, losses, norms, sums;
* "widest": floating inputs are cast to the widest of their dtypes;
* "refused": the function raises.

The rules are PyTorch's, which differ between CPU and GPU: "cpu: float32, cuda: widest".  float64 and integers are never cast, and
functions without a rule compute in the dtypes that they get.  An input is cast at each call, by a differentiable op, so the
gradient of a parameter has the parameter's dtype, and no copy of a weight outlives a change of the weight.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import numpy

from gpunet.autograd.mode import autocasting, current
from gpunet.autograd.op import OPS
from gpunet.autograd.tensor import Tensor, make_tensor
from gpunet.backend import devices, dtypes, gpus
from gpunet.errors import ArgumentError, DtypeError, GradientError
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import warn_user

__all__ = [
    "autocast", "autocast_decrement_nesting", "autocast_increment_nesting", "clear_autocast_cache", "get_autocast_cpu_dtype",
    "get_autocast_dtype", "get_autocast_gpu_dtype", "is_autocast_available", "is_autocast_cache_enabled",
    "is_autocast_cpu_enabled", "is_autocast_enabled", "set_autocast_cache_enabled", "set_autocast_cpu_dtype",
    "set_autocast_cpu_enabled", "set_autocast_dtype", "set_autocast_enabled", "set_autocast_gpu_dtype",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

_FLOAT32 = numpy.dtype("float32")
_FLOAT64 = numpy.dtype("float64")
#: Kinds of devices -> the dtype of a block without ``dtype``.
_DEFAULT_DTYPES = {"cpu": "bfloat16", "cuda": "float16", "emulated": "float16"}
_RULES = ("half", "float32", "widest", "refused")
#: Of an op, the rule on each kind of device; kinds on which it has none are absent.
Rules = Mapping[str, str]


# ---- rules ------------------------------------------------------------------------------------------------------------


@functools.cache
def parse_rules(text: str) -> Rules:
    """Parse a declaration such as "half", of all devices, or "cpu: float32, cuda: widest"; the emulated device is a GPU.

    Raises:
        ArgumentError: a rule is unknown.
    """
    rules: dict[str, str] = {}
    for part in filter(None, text.split(", ")):
        kind, _, rule = part.rpartition(": ")
        if rule not in _RULES or kind not in ("", "cpu", "cuda"):
            raise ArgumentError(f"autocast rule {part!r}; expected one of {', '.join(_RULES)}, or one behind 'cpu: ' or 'cuda: '")
        rules |= dict.fromkeys({"": _DEFAULT_DTYPES, "cpu": ("cpu",), "cuda": ("cuda", "emulated")}[kind], rule)
    return MappingProxyType(rules)


def casts(text: str) -> Callable[[F], F]:
    """Decorator of a function on tensors: in an autocast block, cast its arguments by the rules that ``text`` declares.

    Tensors and arrays are found among the arguments, also in lists and tuples.  Inside the function no other rule applies.
    """
    rules = parse_rules(text)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            return call_with_casts(function, rules, args, options) if autocasting else function(*args, **options)

        return call  # type: ignore[return-value]

    return decorate


def call_with_casts(function: Callable[..., Any], rules: Rules, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call ``function``; in an autocast block, on arguments that are cast by ``rules``.

    Raises:
        ArgumentError: the rule is "refused".
    """
    enabled = current.autocast
    if enabled is None:
        return function(*args, **options)
    kind = _kind_of((args, options))
    rule = rules.get(kind or "")
    if kind is None or rule is None or kind not in enabled:
        return function(*args, **options)
    if rule == "refused":
        raise ArgumentError(
            f"{function.__name__} in an autocast block on {kind}: its logarithms of float16 probabilities overflow; leave the last "
            f"sigmoid out and use {function.__name__}_with_logits, or call it on .float() in a block "
            f"autocast({kind!r}, enabled=False)"
        )
    target = _FLOAT32 if rule == "float32" else enabled[kind] if rule == "half" else _widest((args, options), enabled[kind])
    current.autocast = None
    try:
        args, options = _cast((args, options), target, kind)
        return function(*args, **options)
    finally:
        current.autocast = enabled


def _arrays(value: Any) -> Any:
    """The arrays in arguments, of tensors as well."""
    if isinstance(value, Tensor):
        yield value.array
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, dict):
        yield from _arrays([*value.values()])
    elif devices.is_array(value):
        yield value


def _kind_of(arguments: Any) -> str | None:
    """The kind of device that the arguments are on."""
    array = next(_arrays(arguments), None)
    return None if array is None else devices.of(array).type


def _is_cast(dtype: Any) -> bool:
    return dtypes.is_floating(dtype) and dtype != _FLOAT64


def is_cast(tensor: Tensor) -> bool:
    """Whether an autocast block of this thread casts a tensor, so that its dtype does not have to match."""
    enabled = current.autocast
    return enabled is not None and devices.of(tensor.array).type in enabled and _is_cast(tensor.array.dtype)


def _widest(arguments: Any, half: Any) -> Any:
    return functools.reduce(dtypes.promote, [a.dtype for a in _arrays(arguments) if _is_cast(a.dtype)], half)


def _cast(value: Any, dtype: Any, kind: str, casts_arrays: bool = True) -> Any:
    """Arguments with the tensors on a kind of device, and perhaps arrays, cast to ``dtype``, except float64 and integers."""
    if isinstance(value, Tensor):
        source = value.array.dtype
        is_cast = source != dtype and _is_cast(source) and devices.of(value.array).type == kind
        return OPS["cast"].call(value, dtype=dtype) if is_cast else value
    if type(value) in (list, tuple):
        return type(value)([_cast(item, dtype, kind, casts_arrays) for item in value])
    if type(value) is dict:
        return {name: _cast(item, dtype, kind, casts_arrays) for name, item in value.items()}
    if casts_arrays and devices.is_array(value) and _is_cast(value.dtype):
        return _cast(make_tensor(value), dtype, kind)
    return value


# ---- the mode ---------------------------------------------------------------------------------------------------------


class autocast:
    """Context manager and decorator: inside, products run in a half dtype, and sensitive functions in float32.

        with gpunet.autocast("cuda"):
            loss = criterion(model(x), y)
        loss.backward()

    Parameters stay float32 and get float32 gradients.  Call ``backward()`` outside of the block; its ops run in the dtypes of
    the forward pass in any case.  Blocks can be nested, also to switch off; an object can be entered again.

    Args:
        device_type: "cpu", "cuda" or "emulated": tensors on other devices are not cast.
        dtype: float16 or bfloat16; by default :func:`get_autocast_dtype`, which is float16 on a GPU and bfloat16 on the CPU.
            Other dtypes warn and switch the block off, as in PyTorch.
        enabled: False switches autocasting off in the block.
        cache_enabled: has no effect: weights are cast at each use.

    Raises:
        ArgumentError: the device type is unknown.
        DtypeError: an argument has the wrong type.
    """

    def __init__(self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None) -> None:
        self.device = _check_kind("autocast", device_type)
        if not isinstance(enabled, (bool, numpy.bool_, int)):
            raise DtypeError(f"autocast: enabled={enabled!r} has type {type(enabled).__name__}; expected True or False")
        self.fast_dtype = get_autocast_dtype(device_type) if dtype is None else dtypes.as_dtype(dtype)
        self._enabled = bool(enabled)
        if self._enabled and device_type == "cuda" and not gpus.is_available():
            warn_user("autocast('cuda') has no effect: there is no GPU; pass 'cpu' to autocast on the CPU")
            self._enabled = False
        if self._enabled and not dtypes.is_half(self.fast_dtype):
            warn_user(f"autocast(dtype={self.fast_dtype}) has no effect; pass float16 or bfloat16")
            self._enabled = False
        self._previous: list[Any] = []

    def __enter__(self) -> autocast:
        self._previous.append(current.autocast)
        autocasting.append(None)
        _set(self.device, self.fast_dtype if self._enabled else None)
        return self

    def __exit__(self, *exception: object) -> None:
        current.autocast = self._previous.pop()
        autocasting.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


def _check_kind(function: str, device_type: Any) -> str:
    if not isinstance(device_type, str):
        raise DtypeError(f"{function}: device_type={device_type!r} has type {type(device_type).__name__}; expected a string")
    if device_type not in _DEFAULT_DTYPES:
        raise ArgumentError(f"{function}: device_type={device_type!r}; expected one of {', '.join(map(repr, _DEFAULT_DTYPES))}")
    return device_type


def _set(kind: str, dtype: Any) -> None:
    """Autocast to ``dtype`` on a kind of device in this thread, or not if it is None."""
    enabled = {**(current.autocast or {}), kind: dtype}
    current.autocast = {key: value for key, value in enabled.items() if value is not None} or None


def is_autocast_available(device_type: str) -> bool:
    """Return whether :class:`autocast` knows a kind of device."""
    if not isinstance(device_type, str):
        raise DtypeError(f"is_autocast_available: device_type={device_type!r}; expected a string")
    return device_type in _DEFAULT_DTYPES


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Return whether this thread autocasts on a kind of device."""
    return _check_kind("is_autocast_enabled", device_type) in (current.autocast or ())


def set_autocast_enabled(device_type: str | bool, enabled: bool | None = None) -> None:
    """Switch autocasting in this thread on or off; with ``enabled`` alone on GPUs."""
    kind, value = ("cuda", device_type) if enabled is None else (device_type, enabled)
    kind = _check_kind("set_autocast_enabled", kind)
    if not isinstance(value, bool):
        raise DtypeError(f"set_autocast_enabled: enabled={value!r}; expected True or False")
    _set(kind, get_autocast_dtype(kind) if value else None)
    if value and not current.may_autocast:
        current.may_autocast = True
        autocasting.append(None)  # once for the thread, and for good: a block around may switch it on again at its end


def get_autocast_dtype(device_type: str) -> numpy.dtype[Any]:
    """Return the dtype of a block without ``dtype`` on a kind of device; inside of a block that of the block."""
    kind = _check_kind("get_autocast_dtype", device_type)
    chosen = current.autocast_dtypes
    rely_on([], "{}.autocast_dtypes == {}", (current, dict(chosen)), "the default dtype of autocast")
    if current.autocast is not None and kind in current.autocast:
        found: numpy.dtype[Any] = current.autocast[kind]
        return found
    return chosen.get(kind) or dtypes.as_dtype(_DEFAULT_DTYPES[kind])


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Set the dtype of blocks of this thread without ``dtype``, on a kind of device.

    Raises:
        DtypeError: the dtype is not float16 or bfloat16.
    """
    kind, dtype = _check_kind("set_autocast_dtype", device_type), dtypes.as_dtype(dtype)
    if not dtypes.is_half(dtype):
        raise DtypeError(f"set_autocast_dtype: dtype={dtype}; expected float16 or bfloat16")
    current.autocast_dtypes = {**current.autocast_dtypes, kind: dtype}
    if current.autocast is not None and kind in current.autocast:
        _set(kind, dtype)


def is_autocast_cpu_enabled() -> bool:
    """``is_autocast_enabled("cpu")``."""
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """``set_autocast_enabled("cpu", enabled)``."""
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> numpy.dtype[Any]:
    """``get_autocast_dtype("cpu")``."""
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: Any) -> None:
    """``set_autocast_dtype("cpu", dtype)``."""
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> numpy.dtype[Any]:
    """``get_autocast_dtype("cuda")``."""
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: Any) -> None:
    """``set_autocast_dtype("cuda", dtype)``."""
    set_autocast_dtype("cuda", dtype)


def is_autocast_cache_enabled() -> bool:
    """Return False: there is no cache of cast weights."""
    return False


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Do nothing: there is no cache of cast weights."""


def clear_autocast_cache() -> None:
    """Do nothing: there is no cache of cast weights."""


def autocast_increment_nesting() -> int:
    """Count a block that begins, in this thread; return how many there are.  The count has no effect."""
    current.autocast_nesting += 1
    return current.autocast_nesting


def autocast_decrement_nesting() -> int:
    """Count a block that ends, in this thread; return how many there are."""
    current.autocast_nesting -= 1
    return current.autocast_nesting


# ---- for subclasses of Function ----------------------------------------------------------------------------------------


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: Any = None) -> Any:
    """Decorator of ``forward`` of a :class:`gpunet.autograd.Function`, for use in autocast blocks.

    Args:
        device_type: the kind of device of its tensors.
        cast_inputs: in a block, cast floating tensors on the device to this dtype and run ``forward`` without autocasting;
            None runs it in the mode of the caller.
    """
    _check_kind("custom_fwd", device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def call(ctx: Any, *args: Any, **options: Any) -> Any:
        is_enabled = is_autocast_enabled(device_type)
        ctx._autocast = device_type, get_autocast_dtype(device_type), is_enabled and cast_inputs is None
        if cast_inputs is None or not is_enabled:
            return fwd(ctx, *args, **options)
        with autocast(device_type, enabled=False):
            args, options = _cast((args, options), dtypes.as_dtype(cast_inputs), device_type, casts_arrays=False)
            return fwd(ctx, *args, **options)

    return call


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorator of ``backward`` of a :class:`gpunet.autograd.Function`: it runs in the mode of ``forward``.

    The mode is the one that :func:`custom_fwd`, which decorates ``forward``, has found.

    Raises:
        GradientError: when ``backward`` runs and ``forward`` is not decorated.
    """
    _check_kind("custom_bwd", device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def call(ctx: Any, *args: Any, **options: Any) -> Any:
        mode = getattr(ctx, "_autocast", None)
        if mode is None:
            raise GradientError(
                f"custom_bwd decorates {bwd.__qualname__}, but custom_fwd does not decorate its forward; add "
                f"@custom_fwd(device_type={device_type!r}) to forward"
            )
        kind, dtype, is_enabled = mode
        with autocast(kind, dtype, is_enabled):
            return bwd(ctx, *args, **options)

    return call
