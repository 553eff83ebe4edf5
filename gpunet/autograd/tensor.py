"""Tensor: an array with a gradient and a position in the graph."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy
from numpy import ndarray

from gpunet.autograd import data as data_of
from gpunet.autograd import mode
from gpunet.autograd.printing import format_tensor
from gpunet.autograd.size import Size
from gpunet.backend import devices, dtypes
from gpunet.backend.devices import Array, Device
from gpunet.backend.formats import Layout, strided
from gpunet.errors import ArgumentError, DeviceError, DtypeError, GradientError, ShapeError
from gpunet.launch.stateful import settings_changed
from gpunet.launch.tape import ANY, active, constant, graph_break_on_read

if TYPE_CHECKING:
    from gpunet.autograd.graph import Node
    from gpunet.autograd.methods import TensorMethods
else:
    TensorMethods = data_of.ArrayHolder

__all__ = ["Tensor"]

_make_size = tuple.__new__
F = TypeVar("F", bound=Callable[..., Any])


class Tensor(TensorMethods):
    """An array with a gradient.

    Methods have PyTorch's names and are attached by the ops in ``gpunet.ops``.

    As in PyTorch, ``Tensor(2, 3)`` is uninitialised, ``Tensor([1, 2])`` has the default dtype, and ``Tensor(tensor)`` shares
    its memory; :func:`gpunet.tensor` is the function to use.  The library itself calls :func:`make_tensor`.

    Args:
        data: sizes, or nested lists of numbers, an array or a tensor.
        device: None is the default device, or that of the data.

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
    array: Array
    _grad: Tensor | None
    _hooks: dict[int, Any] | None  # functions of the gradient, and PostAccumulateHook
    _index: int
    _node: Node | None
    _requires_grad: bool
    _version: list[int]
    _view_version: int | None
    __array_ufunc__ = None  # ndarray + Tensor calls Tensor.__radd__

    def __init__(self, *data: Any, device: Any = None, **named: Any) -> None:
        if named.keys() - {"data"} or (named and data):
            raise ArgumentError(f"Tensor: got {', '.join(sorted(named))}=; expected sizes, or data, and device=")
        self._initialize(array_of_call(data or tuple(named.values()), device, mode.get_default_dtype(), "Tensor"))

    def _initialize(self, array: Array, requires_grad: bool = False) -> None:
        """Initialize a tensor, also of a subclass, as :func:`make_tensor` does."""
        self._assign(make_tensor(array, requires_grad))

    def _assign(self, other: Tensor) -> None:
        """Take the array, the gradient and the place in the graph of another tensor."""
        for name in _FIELDS:
            setattr(self, name, getattr(other, name))

    def _facts(self) -> Any:
        """Return what a subclass says of the tensor beside its array, to be compared; None if it says nothing."""
        return None

    @classmethod
    def _from_facts(cls, array: Array, facts: Any) -> Tensor:
        """Return a tensor with these ``_facts``: unpickled, copied, or an argument or a result of a captured step."""
        return make_tensor(array)

    # -- properties
    @property
    def shape(self) -> Size:
        return _make_size(Size, self.array.shape)  # the library's own hot paths read array.shape

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
    def is_cpu(self) -> bool:
        return self.device.type == "cpu"

    @property
    def is_sparse(self) -> bool:
        return False

    @property
    def is_meta(self) -> bool:
        return False

    @property
    def is_nested(self) -> bool:
        return False

    @property
    def name(self) -> None:
        return None

    @property
    def volatile(self) -> bool:
        """Whether the graph is not recorded, of PyTorch 0.3: False; use ``no_grad()``."""
        return False

    @property
    def output_nr(self) -> int:
        """The number of the tensor among the results of ``grad_fn``."""
        return self._index

    @property
    def grad_dtype(self) -> numpy.dtype[Any]:
        """The dtype of the gradient of a leaf: that of the tensor.

        Raises:
            GradientError: the tensor is no leaf.
        """
        if self._node is not None:
            raise GradientError("grad_dtype of a tensor that is no leaf; its gradient has the dtype of the tensor")
        return self.array.dtype

    def is_inference(self) -> bool:
        """Return False: tensors that are made in ``inference_mode()`` can be used as any others."""
        return False

    @property
    def layout(self) -> Layout:
        return strided

    @property
    def itemsize(self) -> int:
        """The number of bytes of an element."""
        return int(self.array.itemsize)

    @property
    def nbytes(self) -> int:
        """The number of bytes of all elements."""
        return int(self.array.nbytes)

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
            DtypeError: the dtype is neither floating nor complex.
            GradientError: ``requires_grad`` is False and the tensor is not a leaf.
        """
        if requires_grad is not True and requires_grad is not False:
            raise DtypeError(f"requires_grad={requires_grad!r} has type {type(requires_grad).__name__}; expected True or False")
        if requires_grad and not dtypes.is_inexact(self.array.dtype):
            raise DtypeError(
                f"requires_grad on a tensor of dtype {self.array.dtype}: only floating and complex tensors can have gradients; "
                "convert it with .float() first"
            )
        if not requires_grad and self._node is not None:
            raise GradientError(
                f"requires_grad = False on the result of {self._node.public_name}: it can be set on leaf tensors only; "
                "use .detach() to leave the graph"
            )
        self._requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """Return a tensor outside of the graph that shares this tensor's memory."""
        result = make_tensor(self.array)
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
        self.array = wrap(value, "data").array
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

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``hook(tensor)`` in each backward pass that adds to the ``grad`` of this leaf, as soon as it is complete.

        Raises:
            GradientError: the tensor is no leaf that requires grad.
        """
        if not self._requires_grad or self._node is not None:
            raise GradientError(
                "register_post_accumulate_grad_hook on a tensor that is no leaf that requires grad; use register_hook()"
            )
        return add_post_accumulate_hook(self, hook)

    def retain_grad(self) -> None:
        """Make ``backward`` store the gradient in ``grad`` although this tensor is not a leaf.

        Raises:
            GradientError: the tensor does not require grad.
        """
        if not self._requires_grad:
            raise GradientError("retain_grad on a tensor that does not require grad; call .requires_grad_() first")
        if self._node is not None and not self.retains_grad:
            self.register_hook(_KeepGradient(self))

    @property
    def retains_grad(self) -> bool:
        """Whether ``backward`` stores the gradient of this tensor, which is not a leaf (see :meth:`retain_grad`)."""
        hooks = () if self._node is None else self._node.hooks.get(self._index, {}).values()
        return any(type(hook) is _KeepGradient and hook.tensor() is self for hook in hooks)

    # -- conversion to NumPy and Python
    def numpy(self, *, force: bool = False) -> ndarray:
        """Return the NumPy array, not a copy.

        Args:
            force: detach the tensor and copy it to the CPU, if need be.

        Raises:
            DeviceError: the tensor is on a GPU; call ``.cpu()`` first.
            GradientError: the tensor requires grad; call ``.detach()`` first.
        """
        graph_break_on_read("numpy()")
        if not isinstance(force, bool):
            raise DtypeError(f"numpy: force={force!r} has type {type(force).__name__}; expected True or False")
        if force:
            array: ndarray = devices.to_host(self.array)
            return array
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
        graph_break_on_read("item()")
        return (self.array if type(self.array) is ndarray else devices.to_host(self.array)).item()

    def tolist(self) -> Any:
        graph_break_on_read("tolist()")
        return devices.to_host(self.array).tolist()

    def __float__(self) -> float:
        return float(self._real_item("float"))

    def __int__(self) -> int:
        return int(self._real_item("int"))

    def __complex__(self) -> complex:
        return complex(self.item())

    def _real_item(self, function: str) -> Any:
        """:meth:`item`, of a complex number its real part.

        Raises:
            DtypeError: the imaginary part is not 0.
        """
        value = self.item()
        if isinstance(value, complex):
            if value.imag:
                raise DtypeError(f"{function}() of a tensor of {value}: the imaginary part is not 0; use complex(x) or x.real")
            return value.real
        return value

    def __index__(self) -> int:
        if not dtypes.is_integer(self.array.dtype):
            raise DtypeError(f"a tensor of dtype {self.dtype} cannot be an index; expected an integer tensor")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise ShapeError(f"the truth value of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        graph_break_on_read("the truth value of a tensor (if, while, and, or)")
        return bool((self.array if type(self.array) is ndarray else devices.to_host(self.array)).item())

    def __len__(self) -> int:
        if self.array.ndim == 0:
            raise ShapeError("len() of a 0-d tensor, which has no dimensions")
        return self.array.shape[0]

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, (Tensor, bool, int, float, complex, numpy.generic)):
            raise DtypeError(f"{element!r} in a tensor: it has type {type(element).__name__}; expected a number or a tensor")
        return bool((self == element).any())

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        graph_break_on_read("printing a tensor")
        array, dtype = devices.to_host(self.array), self.array.dtype
        remarks = [] if self.device == devices.CPU else [f"device='{self.device}'"]
        default = mode.get_default_dtype()
        usual = dtypes.to_complex(default) if dtypes.is_complex(dtype) else default
        if dtype != default and (array.size == 0 or dtype not in (usual, numpy.int64, numpy.bool_)):
            remarks.append(f"dtype={dtype}")
        if self._node is not None:
            remarks.append(f"grad_fn=<{self._node.public_name}>")
        elif self._requires_grad:
            remarks.append("requires_grad=True")
        return format_tensor(array.astype("float32") if dtypes.is_half(dtype) else array, dtypes.is_floating(dtype), remarks)

    def __format__(self, spec: str) -> str:
        if self.array.ndim == 0:
            return format(self.item(), spec)
        if spec:
            raise DtypeError(f"format {spec!r} of a tensor of shape {self.shape}; expected a 0-d tensor, or no format")
        return repr(self)

    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        """Pickle the values, the device and ``requires_grad``, but neither the gradient nor the graph."""
        graph_break_on_read("pickling a tensor")
        state = getattr(self, "__dict__", None)
        return _unpickle, (type(self), devices.to_host(self.array), str(self.device), self._requires_grad, self._facts()), state

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise GradientError("only leaf tensors can be deep-copied; call .detach() first")
        result = _restored(type(self), devices.copy(self.array), self._requires_grad, self._facts())
        result.grad = None if self.grad is None else make_tensor(devices.copy(self.grad.array))
        memo[id(self)] = result
        return result


def _unpickle(kind: type[Tensor], array: ndarray, device: str, requires_grad: bool, facts: Any = None) -> Tensor:
    return _restored(kind, devices.move(data_of.plain_array(array), Device(device)), requires_grad, facts)


def _restored(kind: type[Tensor], array: Array, requires_grad: bool, facts: Any) -> Tensor:
    """Return a tensor of the class ``kind`` with these ``_facts``."""
    if facts is None:
        result = kind.__new__(kind)
        result._initialize(array, requires_grad)
        return result
    return kind._from_facts(array, facts).requires_grad_(requires_grad)


class PostAccumulateHook(NamedTuple):
    """A hook among those of a leaf that is called with the leaf, as soon as its gradient was accumulated.

    Attributes:
        at_end: called once at the end of a backward pass.
    """

    function: Callable[[Tensor], None]
    at_end: Callable[[], None] | None = None


#: Whether a leaf has had such a hook: without any, backward need not know when a leaf is complete.
post_accumulate_hooks_exist = [False]


def add_post_accumulate_hook(
    leaf: Tensor, function: Callable[[Tensor], None], at_end: Callable[[], None] | None = None
) -> RemovableHandle:
    """Add a :class:`PostAccumulateHook` to a leaf."""
    post_accumulate_hooks_exist[0] = True
    if leaf._hooks is None:
        leaf._hooks = {}
    return RemovableHandle(leaf._hooks, PostAccumulateHook(function, at_end))


_FIELDS = [name for name in Tensor.__slots__ if name != "__weakref__"]
_new_object = object.__new__


def make_tensor(array: Array, requires_grad: bool = False) -> Tensor:
    """Return a tensor of an array, which is neither checked nor copied (see :func:`wrap`)."""
    tensor = _new_object(Tensor)
    tensor.array = array
    tensor._grad = None
    tensor._requires_grad = False
    tensor._node = None
    tensor._index = 0
    tensor._version = [0]  # counts changes in place; shared by all tensors that share this memory
    tensor._view_version = None  # the version at which a view was created; None if not a view
    tensor._hooks = None
    if requires_grad:
        tensor.requires_grad_()
    return tensor


def array_of_call(data: tuple[Any, ...], device: Any, dtype: numpy.dtype[Any], name: str) -> Array:
    """Return the array of ``Tensor(*data)``; ``name`` stands for Tensor in messages."""
    place, first = None if device is None else Device(device), data[0] if data else ()
    if len(data) == 1 and isinstance(first, Tensor):
        if place not in (None, first.device):
            raise DeviceError(f"{name}: the tensor is on {first.device}, device={device!r}; use tensor.to(device)")
        if name != "Tensor" and first.array.dtype != dtype:
            raise DtypeError(f"{name}: the tensor has dtype {first.array.dtype}; expected {dtype}: use tensor.to(dtype)")
        return first.array
    if len(data) == 1 and devices.is_array(first):
        array = data_of.plain_array(first, name)
        array = array if array.dtype == dtype else devices.cast(array, dtype)
        return devices.move(array, place or (devices.default_device() if type(array) is ndarray else devices.of(array)))
    place = place or devices.default_device()
    if len(data) == 1 and isinstance(first, (bool, float)):
        raise DtypeError(f"{name}({first!r}): expected integers, the sizes, or one list of numbers; use tensor({first!r})")
    if len(data) == 1 and not isinstance(first, Size) and not _is_integer(first):
        return constant(devices.move(data_of.array_of_data(first, dtype, name), place))
    sizes = first if isinstance(first, Size) and len(data) == 1 else data or (0,)
    if not all(_is_integer(size) for size in sizes):
        raise DtypeError(f"{name}({', '.join(map(repr, data))}): expected integers, the sizes, or one list of numbers")
    if any(size < 0 for size in sizes):
        raise ShapeError(f"{name}({', '.join(map(repr, sizes))}): a size is negative")
    allocate = devices.empty if active.tape is None else active.tape.empty
    return allocate(tuple(map(int, sizes)), dtype, place)


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, (bool, Tensor, ndarray))


class _KeepGradient:
    """The hook of :meth:`Tensor.retain_grad`, while the tensor stands at the same place in the graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.place = weakref.ref(tensor), _place(tensor)

    def __call__(self, gradient: Tensor) -> None:
        tensor = self.tensor()
        if tensor is not None and _place(tensor) == self.place:
            tensor.grad = gradient.clone() if tensor.grad is None else tensor.grad + gradient


def _place(tensor: Tensor) -> Any:
    return tensor._node and (tensor._node.sequence, tensor._index)


def bump_version(*tensors: Tensor) -> None:
    """Count a change in place of each tensor, so that backward detects it.

    A view that is changed itself stays valid; other views of the same memory become out of date.
    """
    tape = active.tape
    for tensor in tensors:
        version = tensor._version
        version[0] += 1
        if tensor._view_version is not None:
            tensor._view_version = version[0]
        if tape is not None:
            tape.changed[id(version)] = version
    if mode.current.change_listener is not None:
        mode.current.change_listener(tensors)


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


def wrap(value: Any, function: str = "") -> Tensor:
    """Return a Tensor unchanged; convert an array, a number or a list of numbers to a Tensor.

    Arrays are not copied.  Python floats become tensors of the default dtype.

    Args:
        function: the function that the user called, for messages.

    Raises:
        DtypeError: ``value`` cannot be converted.
    """
    if isinstance(value, Tensor):
        return value
    if devices.is_array(value):
        return make_tensor(data_of.plain_array(value, function))
    if isinstance(value, (bool, int, float, complex, list, tuple, range, numpy.generic)):
        return make_tensor(constant(data_of.array_of_data(value, None, function or "tensor")))
    raise DtypeError(
        f"{function + ': ' if function else ''}{value!r} has type {type(value).__name__}; expected a tensor, an array or a number"
    )
