"""Tensor: an array with a gradient and a position in the graph."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy
from numpy import ndarray

from gpunet.autograd import mode
from gpunet.backend import devices, dtypes
from gpunet.backend.devices import Array, Device
from gpunet.errors import DeviceError, DtypeError, GradientError, ShapeError
from gpunet.launch.stateful import settings_changed
from gpunet.launch.tape import ANY, active, constant, graph_break_on_read

if TYPE_CHECKING:
    from gpunet.autograd.graph import Node
    from gpunet.autograd.methods import TensorMethods
else:
    TensorMethods = object

__all__ = ["Tensor"]

F = TypeVar("F", bound=Callable[..., Any])


class Tensor(TensorMethods):
    """An array with a gradient.

    Methods have PyTorch's names and are attached by the ops in ``gpunet.ops``.

    Attributes:
        array: the NumPy or CuPy array, not a copy.
        grad: the gradient accumulated by ``backward``, a Tensor of the same shape, or None.
    """

    __slots__ = (
        "__weakref__",
        "_grad",
        "_hooks",
        "_index",
        "_node",
        "_requires_grad",
        "_version",
        "_view_version",
        "array",
    )
    __array_ufunc__ = None  # ndarray + Tensor calls Tensor.__radd__

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        self.array = array
        self._grad: Tensor | None = None
        self._requires_grad = False
        self._node: Node | None = None
        self._index = 0
        self._version = [0]  # counts changes in place; shared by all tensors that share this memory
        self._view_version: int | None = None  # the version at which a view was created; None if not a view
        self._hooks: dict[int, Callable[[Tensor], Tensor | None]] | None = None
        if requires_grad:
            self.requires_grad_()

    # -- properties
    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> numpy.dtype[Any]:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def device(self) -> Device:
        return devices.of(self.array)

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made this tensor; ``backward`` accumulates gradients in the ``grad`` of leaves."""
        return self._node is None

    @property
    def grad_fn(self) -> Node | None:
        return self._node

    def is_floating_point(self) -> bool:
        return dtypes.is_floating(self.array.dtype)

    # -- gradients
    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated by ``backward``, or None.

        Raises:
            GradientError: when set to anything but None or a tensor of the same shape, dtype and device.
        """
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not self._matches(value):
            raise GradientError(
                f"grad of a tensor of shape {self.shape}, {self.dtype} on {self.device}: got "
                + (f"a tensor of {value.shape}, {value.dtype} on {value.device}" if isinstance(value, Tensor) else repr(value))
                + "; expected a tensor of the same shape, dtype and device, or None"
            )
        self._grad = value
        if active.tape is not None:
            active.tape.record_gradient(self, ANY)

    def _matches(self, other: Any) -> bool:
        """Whether ``other`` is a tensor of the same shape, dtype and device."""
        return (
            isinstance(other, Tensor) and other.shape == self.shape and other.dtype == self.dtype and other.device == self.device
        )

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether ``backward`` computes a gradient for this tensor; return the tensor.

        Raises:
            DtypeError: the dtype is not floating.
            GradientError: ``requires_grad`` is False and the tensor is not a leaf.
        """
        if requires_grad and not dtypes.is_floating(self.array.dtype):
            raise DtypeError(
                f"requires_grad on a tensor of dtype {self.array.dtype}: only floating tensors can have gradients; "
                "convert it with .float() first"
            )
        if not requires_grad and self._node is not None:
            raise GradientError(
                f"requires_grad = False on the result of {self._node.public_name}: it can be set on leaf tensors only; "
                "use .detach() to leave the graph"
            )
        self._requires_grad = bool(requires_grad)
        return self

    def detach(self) -> Tensor:
        """Return a tensor outside of the graph that shares this tensor's memory."""
        result = Tensor(self.array)
        result._version = self._version
        return result

    @property
    def data(self) -> Tensor:
        """A tensor outside of the graph that shares this tensor's memory.

        Unlike in PyTorch, ``backward`` detects changes in place through it.
        """
        return self.detach()

    @data.setter
    def data(self, value: Tensor | Array) -> None:
        self.array = value.array if isinstance(value, Tensor) else value
        bump_version(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(gradient)`` when the gradient of this tensor is complete.

        Args:
            hook: returns a replacement for the gradient, or None to keep it.

        Raises:
            GradientError: the tensor does not require grad.
        """
        if not self._requires_grad:
            raise GradientError("register_hook on a tensor that does not require grad; call .requires_grad_() first")
        if self._node is not None:
            hooks = self._node.hooks.setdefault(self._index, {})
        else:
            if self._hooks is None:
                self._hooks = {}
            hooks = self._hooks
        return RemovableHandle(hooks, hook)

    def retain_grad(self) -> None:
        """Make ``backward`` store the gradient in ``grad`` although this tensor is not a leaf."""
        if self._node is None:
            return
        reference = weakref.ref(self)

        def keep(gradient: Tensor) -> None:
            tensor = reference()
            if tensor is not None:
                tensor.grad = gradient if tensor.grad is None else tensor.grad + gradient

        self.register_hook(keep)

    # -- conversion to NumPy and Python
    def numpy(self) -> ndarray:
        """Return the NumPy array, not a copy.

        Raises:
            DeviceError: the tensor is on a GPU; call ``.cpu()`` first.
            GradientError: the tensor requires grad; call ``.detach()`` first.
        """
        graph_break_on_read("numpy()", self.array)
        if self._requires_grad:
            raise GradientError("numpy() on a tensor that requires grad; call .detach().numpy()")
        if devices.of(self.array) != devices.CPU:
            raise DeviceError(f"numpy() on a tensor on {self.device}; call .cpu().numpy()")
        return self.array

    def __array__(self, dtype: Any = None, copy: Any = None) -> ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def item(self) -> Any:
        """Return the value of a one-element tensor as a Python number.

        Raises:
            ShapeError: the tensor does not have exactly one element.
        """
        if self.array.size != 1:
            raise ShapeError(f"item() on a tensor of shape {self.shape}; expected a one-element tensor")
        graph_break_on_read("item()", self.array)
        return (self.array if type(self.array) is ndarray else devices.to_host(self.array)).item()

    def tolist(self) -> Any:
        graph_break_on_read("tolist()", self.array)
        return devices.to_host(self.array).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if not dtypes.is_integer(self.array.dtype):
            raise DtypeError(f"a tensor of dtype {self.dtype} cannot be an index; expected an integer tensor")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ShapeError(f"the truth value of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        graph_break_on_read("the truth value of a tensor (if, while, and, or)", self.array)
        return bool((self.array if type(self.array) is ndarray else devices.to_host(self.array)).item())

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise ShapeError("len() of a 0-d tensor, which has no dimensions")
        return self.array.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        graph_break_on_read("printing a tensor", self.array)
        body = numpy.array2string(
            devices.to_host(self.array), separator=", ", prefix="tensor(", precision=4, suppress_small=True
        )
        extra = "" if self.array.dtype in (mode.float32, numpy.int64, numpy.bool_) else f", dtype={self.dtype}"
        extra += "" if self.device == devices.CPU else f", device='{self.device}'"
        if self._node is not None:
            extra += f", grad_fn=<{self._node.public_name}>"
        elif self._requires_grad:
            extra += ", requires_grad=True"
        return f"tensor({body}{extra})"

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.array.ndim == 0 else format(repr(self), spec)

    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        raise DtypeError("tensors cannot be pickled; save a state_dict with gpunet.save, or pickle .numpy()")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise GradientError("only leaf tensors can be deep-copied; call .detach() first")
        result = type(self).__new__(type(self))
        Tensor.__init__(result, devices.copy(self.array), self._requires_grad)
        result.grad = None if self.grad is None else Tensor(devices.copy(self.grad.array))
        memo[id(self)] = result
        return result


def bump_version(tensor: Tensor) -> None:
    """Count a change in place, so that backward detects it.

    A view that is changed itself stays valid; other views of the same memory become out of date.
    """
    version = tensor._version
    version[0] += 1
    if tensor._view_version is not None:
        tensor._view_version = version[0]
    if active.tape is not None:
        active.tape.changed[id(version)] = version


class RemovableHandle:
    """Handle of a registered hook; ``remove()`` unregisters the hook."""

    _numbers = itertools.count()

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self._hooks, self._number = hooks, next(self._numbers)
        hooks[self._number] = hook
        settings_changed[0] += 1

    def remove(self) -> None:
        """Unregister the hook."""
        self._hooks.pop(self._number, None)
        settings_changed[0] += 1


def method(names: str) -> Callable[[F], F]:
    """Decorator: attach a function that is composed of ops to Tensor as a method.

    Args:
        names: names of the method, separated by spaces.
    """

    def decorate(function: F) -> F:
        for name in names.split():
            setattr(Tensor, name, function)
        return function

    return decorate


def wrap(value: Any) -> Tensor:
    """Return a Tensor unchanged; convert an array, a number or a list of numbers to a Tensor.

    Arrays are not copied.  Python floats become tensors of the default dtype.

    Raises:
        DtypeError: ``value`` cannot be converted.
    """
    if isinstance(value, Tensor):
        return value
    if devices.is_array(value):
        return Tensor(value)
    if isinstance(value, (bool, int, float, list, tuple, numpy.generic)):
        array = numpy.asarray(value)
        if dtypes.is_numeric(array.dtype):
            is_python_float = array.dtype == numpy.float64 and not isinstance(value, numpy.generic)
            return Tensor(constant(array.astype(mode.get_default_dtype()) if is_python_float else array))
    raise DtypeError(f"{value!r} has type {type(value).__name__}; expected a tensor, an array or a number")
