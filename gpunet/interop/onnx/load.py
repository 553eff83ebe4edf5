"""Load an ONNX file as a module."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gpunet.errors import FormatError, MissingDependencyError

if TYPE_CHECKING:
    from gpunet.interop.onnx.module import OnnxModule

#: The largest file of protocol buffers.
MAX_BYTES = 2**31 - 1


def load(f: str | os.PathLike[str] | IO[bytes] | bytes) -> OnnxModule:
    """Load an ONNX file as a module that runs, and that trains.

    Initializers of floating numbers are parameters, with the names of the file; statistics of batch norms are buffers, and other
    initializers and constants are constant.  So a model that :func:`export` has written has the keys of the original in its
    ``state_dict``, except those that no operator reads, and recurrent layers, whose weights ONNX keeps in another order.

    The module is called with the inputs of the graph, in their order or by their names, and returns its output, or a tuple of
    outputs.  It is in eval mode; after ``train()``, dropout draws, and batch norms use and update statistics of the batch.

    Nothing in the file is executed but the operators of the graph, each by a function of gpunet.  Tensors in other files are not
    read.

    Args:
        f: a path, a binary file, or the bytes.

    Raises:
        FormatError: the file cannot be read, is damaged, or has an operator, a version or a type that is not supported; the message
            names the node.
        MissingDependencyError: the package onnx is not installed.
    """
    try:
        from gpunet.interop.onnx.module import module_of
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "onnx":
            raise
        raise MissingDependencyError("onnx.load needs the package onnx: pip install 'gpunet[onnx]'") from None
    where = "the file"
    if isinstance(f, (str, os.PathLike)):
        where = str(f)
        try:
            if os.path.getsize(f) > MAX_BYTES:
                raise FormatError(f"{where} has {os.path.getsize(f)} bytes; an ONNX file has less than 2 GB")
            content = Path(f).read_bytes()
        except OSError as error:
            raise FormatError(f"{where} cannot be read: {error.strerror or error}") from None
    else:
        content = f if isinstance(f, bytes) else _read(f)
    return module_of(content, where)


def _read(file: Any) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise FormatError(f"onnx.load: a file that reads {type(content).__name__}; open it in binary mode")
    return content
