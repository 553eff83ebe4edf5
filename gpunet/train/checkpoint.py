"""Checkpoints: ``gpunet.save`` and ``gpunet.load``, in the safetensors format, never pickle.

    gpunet.save(model.state_dict(), "model.safetensors")
    model.load_state_dict(gpunet.load("model.safetensors"))

A dict of names and tensors becomes a plain safetensors file, which PyTorch, JAX and other libraries can read. Nested
dicts, lists and numbers (the state_dict of an optimizer, a step counter) are supported too: their structure is stored as
JSON in the metadata of the file. Files are written atomically, so a crash while writing keeps the previous checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import is_numeric
from gpunet.errors import ArgumentError, CheckpointError, MissingDependencyError

__all__ = ["load", "save"]

# All of our metadata is in one entry, since safetensors writes several entries in an order that differs between runs.
_ENTRY = "gpunet"

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format

_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip file, as written by torch.save and numpy.savez"),
    (b"\x80", "a pickle"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy .npy file"),
)


def save(state: Any, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> None:
    """Write a checkpoint, atomically.

    Args:
        state: a state_dict; or nested dicts, lists and tuples of tensors, arrays, numbers, strings and None.
        path: the file, usually with the extension .safetensors.
        metadata: JSON-serialisable data to store with the tensors; see :func:`load_metadata`.

    Raises:
        ArgumentError: ``state`` contains an object that is neither a tensor nor plain data.
        CheckpointError: the file cannot be written.
        MissingDependencyError: safetensors is not installed.
    """
    library = safetensors()
    tensors: dict[str, numpy.ndarray] = {}
    description: dict[str, Any] = {}
    if isinstance(state, Mapping) and all(isinstance(k, str) and _is_tensor(v) for k, v in state.items()):
        tensors = {name: _array(value) for name, value in state.items()}
    else:
        description["structure"] = _describe(state, "", tensors)
    if metadata:
        description["metadata"] = dict(metadata)
    entry = {_ENTRY: json.dumps(description, sort_keys=True)} if description else None
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        library.save_file(tensors, temporary, metadata=entry)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp restricts access to the owner
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def load(path: str | os.PathLike[str], map_location: str | Device | None = None) -> Any:
    """Load the state that :func:`save` wrote, or the tensors of any safetensors file by name.

    Args:
        path: the file.
        map_location: the device of the tensors; the CPU if None.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or of another format.
        MissingDependencyError: safetensors is not installed.
    """
    target = devices.CPU if map_location is None else Device(map_location)
    library = safetensors()
    path = Path(path)
    description = _description(read_header(path))
    try:
        arrays = library.load_file(path)
    except Exception as error:  # SafetensorError; or KeyError, TypeError for a dtype that NumPy lacks
        raise CheckpointError(f"cannot read {path}: {type(error).__name__}: {error}") from None
    tensors = {name: Tensor(devices.move(array, target)) for name, array in arrays.items()}
    if "structure" not in description:
        return tensors
    try:
        return _rebuild(description["structure"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata does not match its tensors ({error!r}); save it again") from None


def load_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load the ``metadata`` that :func:`save` wrote; empty for files of other libraries.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or of another format.
    """
    found = _description(read_header(Path(path))).get("metadata", {})
    return found if isinstance(found, dict) else {}


def safetensors() -> ModuleType:
    """Import ``safetensors.numpy``.

    Raises:
        MissingDependencyError: safetensors is not installed.
    """
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingDependencyError(
            "checkpoints need the package safetensors, which is not installed: pip install 'gpunet[train]'"
        ) from None
    return safetensors.numpy


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file, and check that the file is complete.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or of another format.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            size = os.fstat(file.fileno()).st_size
            if len(start) < 8:
                raise CheckpointError(
                    f"{path} is {'empty' if not start else 'truncated'}: {size} bytes; train or copy it again"
                )
            length = int.from_bytes(start, "little")
            text = file.read(min(length, size, _MAX_HEADER_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}: the file does not exist") from None
    except IsADirectoryError:
        inside = " (did you mean model.safetensors in it?)" if (path / "model.safetensors").exists() else ""
        raise CheckpointError(f"{path} is a folder; expected a .safetensors file{inside}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    if text and not text.startswith(b"{"):
        for magic, format_name in _OTHER_FORMATS:
            if start.startswith(magic):
                raise CheckpointError(
                    f"{path} is {format_name}, not a safetensors file. gpunet never unpickles; in PyTorch, write the "
                    "checkpoint again with safetensors.torch.save_file(model.state_dict(), path)"
                )
        raise CheckpointError(f"{path} is not a safetensors file; expected a file written by gpunet.save or safetensors")
    if len(text) < length:
        raise CheckpointError(
            f"{path} is truncated: its header has {length} bytes, but the file {size}; copy it again"
        )
    try:
        header = json.loads(text)
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: its header is not valid ({error!r}); copy it again") from None
    if size != 8 + length + end:
        kind = "truncated" if size < 8 + length + end else "damaged"
        raise CheckpointError(
            f"{path} is {kind}: it has {size} bytes, but {8 + length + end} according to its header; copy it again"
        )
    return header


def _description(header: dict[str, Any]) -> dict[str, Any]:
    """Our entry in the metadata: "structure" and "metadata" as written by :func:`save`."""
    try:
        found = json.loads(header["__metadata__"][_ENTRY])
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# ---- nested state as tensors and JSON ---------------------------------------------------------------------------------


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or devices.is_array(value)


def _array(value: Any) -> numpy.ndarray:
    array = value.array if isinstance(value, Tensor) else value
    array = devices.move(array, devices.CPU)
    if not is_numeric(array.dtype):
        raise ArgumentError(f"save: an array of dtype {array.dtype}; expected numbers or booleans")
    return numpy.ascontiguousarray(array).reshape(array.shape)


def _describe(value: Any, name: str, tensors: dict[str, numpy.ndarray]) -> Any:
    """Describe ``value`` as JSON, and move its tensors to ``tensors``; ``name`` is its path in the state."""
    if _is_tensor(value):
        while name in tensors:  # {"a.b": ..., "a": {"b": ...}}
            name += "'"
        tensors[name] = _array(value)
        return {"tensor": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, numpy.generic):
        return value.item()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, (str, int)):
                raise ArgumentError(f"save: the key {key!r} of {name or 'the state'}; expected a string or an integer")
        return {
            "dict": [[key, _describe(v, f"{name}.{key}" if name else str(key), tensors)] for key, v in value.items()]
        }
    if isinstance(value, (list, tuple)):
        parts = [_describe(v, f"{name}.{i}" if name else str(i), tensors) for i, v in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    raise ArgumentError(
        f"save: {name or 'the state'} has type {type(value).__name__}; expected tensors, numbers, strings, or dicts and "
        "lists of these (for a model or an optimizer, save its state_dict())"
    )


def _rebuild(description: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`_describe`."""
    if not isinstance(description, dict):
        return description
    [(kind, content)] = description.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _rebuild(value, tensors) for key, value in content}
    parts = [_rebuild(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
