"""Tensors that say what they are, with the names of torchvision.tv_tensors: transforms move boxes and masks with the image.

``clone``, ``detach``, ``requires_grad_``, ``to`` and the methods that do the same as ``to``, such as ``float`` and ``cpu``, keep
the class.  A result of any other op is a plain tensor; :func:`wrap` gives it the class again.
"""

from __future__ import annotations

import enum
import functools
from typing import Any

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend.dtypes import is_boolean, is_numeric
from gpunet.errors import ArgumentError, DtypeError, GradientError, ShapeError
from gpunet.ops.creation import tensor
from gpunet.vision.images import is_pil, pixels_of

__all__ = ["BoundingBoxFormat", "BoundingBoxes", "Image", "Mask", "TVTensor", "wrap"]


class BoundingBoxFormat(enum.Enum):
    """What the four numbers of a box are: two corners; the left upper corner, width and height; or center, width and height."""

    XYXY = "xyxy"
    XYWH = "xywh"
    CXCYWH = "cxcywh"


class TVTensor(Tensor):
    """Base class.

    Args:
        data: a tensor, whose memory is shared, an array, a PIL image or nested lists.
        dtype, device: of the result; by default those of ``data``.

    Raises:
        ShapeError: ``data`` has too few dimensions.
        GradientError: ``data`` requires a gradient, which would be lost.
    """

    __slots__ = ()
    _least, _expected = 0, ""

    def __init__(self, data: Any, *, dtype: Any = None, device: Any = None) -> None:
        name = type(self).__name__
        if isinstance(data, Tensor) and data.requires_grad:
            raise GradientError(f"{name}: the tensor requires a gradient, which does not pass through {name}; pass data.detach()")
        if is_pil(data):
            data = pixels_of(data, name).transpose(2, 0, 1).copy()
        if not isinstance(data, Tensor):
            data = tensor(data, dtype=dtype, device=device)
        elif dtype is not None or device is not None:
            data = data.to(device=device or data.device, dtype=dtype or data.dtype)
        if data.ndim < self._least:
            raise ShapeError(f"{name}: data has shape {tuple(data.shape)}; expected {self._expected}")
        self._initialize(data.array)

    def _facts(self) -> Any:
        return (type(self),)

    @classmethod
    def _from_facts(cls, array: Any, facts: Any) -> Tensor:
        return cls(make_tensor(array))

    def _keep_class(self, result: Tensor) -> Any:
        """Return ``result``, which has the values of this tensor, with its class and at the same place in the graph."""
        if result is self or (is_boolean(result.dtype) and isinstance(self, BoundingBoxes)):
            return result
        kept = type(self)._from_facts(result.array, self._facts())
        kept._assign(result)
        return kept

    def __repr__(self) -> str:
        return f"{type(self).__name__}({super().__repr__()})"


def _keeping_class(name: str) -> Any:
    """Return the method of Tensor with this name, whose result has the class of the tensor."""
    method = getattr(Tensor, name)

    @functools.wraps(method)
    def keeping(self: TVTensor, *args: Any, **options: Any) -> Any:
        return self._keep_class(method(self, *args, **options))

    return keeping


for _name in (
    "bfloat16", "byte", "char", "clone", "cpu", "cuda", "detach", "double", "float", "half", "int", "long", "pin_memory", "short",
    "to", "type_as",
):  # fmt: skip
    setattr(TVTensor, _name, _keeping_class(_name))


class Image(TVTensor):
    """Images (..., channels, height, width)."""

    __slots__ = ()
    _least, _expected = 2, "(..., channels, height, width)"

    def __init__(self, data: Any, *, dtype: Any = None, device: Any = None) -> None:
        super().__init__(data, dtype=dtype, device=device)
        if self.ndim == 2:
            self.array = self.array[None]


class Mask(TVTensor):
    """Masks (..., height, width) of an image, such as one for each object; of a batch (batch, ..., height, width)."""

    __slots__ = ()
    _least, _expected = 2, "(..., height, width)"


class BoundingBoxes(TVTensor):
    """Boxes (boxes, 4) of an image, or (batch, boxes, 4) of a batch of images.

    Args:
        data: the boxes; the corners lie on the edges of pixels, so that the box of the whole image is (0, 0, width, height).
        format: a :class:`BoundingBoxFormat` or its name, such as "XYXY".
        canvas_size: (height, width) of the image.

    Raises:
        ArgumentError: another format, or a canvas without positive integers.
        ShapeError: the last dimension is not 4.
    """

    __slots__ = ("canvas_size", "format")
    format: BoundingBoxFormat
    canvas_size: tuple[int, int]

    def __init__(self, data: Any, *, format: Any, canvas_size: Any, dtype: Any = None, device: Any = None) -> None:
        super().__init__(data, dtype=dtype, device=device)
        if isinstance(format, str) and format.upper() in BoundingBoxFormat.__members__:
            format = BoundingBoxFormat[format.upper()]
        if not isinstance(format, BoundingBoxFormat):
            raise ArgumentError(f"BoundingBoxes: format={format!r}; expected 'XYXY', 'XYWH' or 'CXCYWH'")
        sides = tuple(canvas_size) if isinstance(canvas_size, (tuple, list)) else ()
        if len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
            raise ArgumentError(f"BoundingBoxes: canvas_size={canvas_size!r}; expected (height, width)")
        if not is_numeric(self.dtype) or is_boolean(self.dtype):
            raise DtypeError(f"BoundingBoxes: dtype {self.dtype}; expected numbers")
        if self.ndim == 1 and not self.array.size:
            self.array = self.array.reshape(0, 4)
        self.array = self.array[None] if self.ndim == 1 else self.array
        if self.shape[-1:] != (4,):
            raise ShapeError(f"BoundingBoxes: data has shape {tuple(self.shape)}; expected (boxes, 4) or (batch, boxes, 4)")
        self.format, self.canvas_size = format, (sides[0], sides[1])

    def _facts(self) -> Any:
        return (type(self), self.format, self.canvas_size)

    @classmethod
    def _from_facts(cls, array: Any, facts: Any) -> Tensor:
        return cls(make_tensor(array), format=facts[1], canvas_size=facts[2])

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, format={self.format.name}, canvas_size={self.canvas_size})"


def wrap(wrappee: Tensor, *, like: Tensor, **kwargs: Any) -> Any:
    """A tensor with the class of ``like``: of boxes also their format and canvas, unless ``kwargs`` says otherwise."""
    if isinstance(like, BoundingBoxes):
        return BoundingBoxes(wrappee, **{"format": like.format, "canvas_size": like.canvas_size, **kwargs})
    return type(like)(wrappee) if isinstance(like, TVTensor) else wrappee
