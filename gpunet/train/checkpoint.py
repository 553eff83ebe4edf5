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
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy

from gpunet.autograd import Tensor, wrap
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import as_dtype, complex128, float64, is_numeric
from gpunet.errors import ArgumentError, CheckpointError, DtypeError, MissingDependencyError

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


def save(
    obj: Any,
    f: str | os.PathLike[str] | BinaryIO,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; a file that is given by its path is replaced atomically.

    Args:
        obj: a state_dict; or nested dicts, lists and tuples of tensors, arrays, numbers, strings and None.
        f: the path of the file, usually with the extension .safetensors, or a file object that is open for writing bytes.
        pickle_module, pickle_protocol, _use_new_zipfile_serialization: have no effect, because nothing is pickled.
        metadata: JSON-serialisable data to store with the tensors; see :func:`load_metadata`.

    Raises:
        ArgumentError: ``obj`` contains an object that is neither a tensor nor plain data.
        CheckpointError: the file cannot be written.
        MissingDependencyError: safetensors is not installed.
    """
    library = safetensors()
    tensors: dict[str, numpy.ndarray] = {}
    description: dict[str, Any] = {}
    if isinstance(obj, Mapping) and all(isinstance(k, str) and _is_plain_entry(k, v) for k, v in obj.items()):
        tensors = {name: _array(value) for name, value in obj.items()}
        description["names"] = list(tensors)  # the format sorts them
    else:
        description["structure"] = _describe(obj, "", tensors)
    if pairs := [name for name, array in tensors.items() if array.dtype == complex128]:  # which the format lacks
        description["complex"] = pairs
        tensors |= {name: devices.parts_of(tensors[name]) for name in pairs}
    if metadata:
        description["metadata"] = dict(metadata)
    entry = {_ENTRY: json.dumps(description, sort_keys=True)}
    if hasattr(f, "write"):
        _write(f, library.save(tensors, entry))
        return
    path, temporary = _as_path(f, "save"), None
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


def _write(file: Any, content: bytes) -> None:
    try:
        file.write(content)
    except TypeError:
        raise ArgumentError(f"save: {file!r} takes no bytes; open the file with mode 'wb'") from None
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint to {file!r}: {error.strerror or error}") from None


def _as_path(f: Any, function: str) -> Path:
    try:
        return Path(f)
    except TypeError:
        raise DtypeError(f"{function}: f={f!r} has type {type(f).__name__}; expected a path or a file object") from None


def load(
    f: str | os.PathLike[str] | BinaryIO,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Load the state that :func:`save` wrote, or the tensors of any safetensors file by name.

    Args:
        f: the path of the file, or a file object that is open for reading bytes: it is read from its position on.
        map_location: the device of the tensors, the CPU if None; a dict of devices, whose entry for "cpu" counts, because the
            file does not know where its tensors were; or a function that gets a tensor and "cpu", and returns the tensor to
            use, or None to leave it as it is.
        pickle_module, pickle_load_args, weights_only: have no effect, because a file is never unpickled.  Of
            ``pickle_load_args``, PyTorch's encoding, errors and fix_imports are accepted.
        mmap: has no effect: each tensor is read into its own memory at once.

    Raises:
        CheckpointError: the file is missing, truncated, damaged or of another format.
    """
    if unknown := pickle_load_args.keys() - {"encoding", "errors", "fix_imports"}:
        raise ArgumentError(f"load: got {sorted(unknown)[0]}=, which is no argument of load()")
    if hasattr(f, "read"):
        return _load(f, f"the file {getattr(f, 'name', f)}", map_location)
    path = _as_path(f, "load")
    read_header(path)  # checks the size of the file
    try:
        with path.open("rb") as file:
            return _load(file, str(path), map_location)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None


def _load(file: Any, name: str, map_location: Any) -> Any:
    header = _parse_header(*_read_start(file, name, None), name)
    arrays, description = _read_arrays(file, name, header), _description(header)
    for key in description.get("complex", ()):
        if key not in arrays or arrays[key].dtype != float64 or arrays[key].shape[-1:] != (2,):
            raise CheckpointError(f"{name} is damaged: {key!r} does not hold the two parts of complex numbers; save it again")
        arrays[key] = arrays[key].view(complex128)[..., 0]
    tensors = {key: _place(array, map_location) for key, array in arrays.items()}
    if "structure" not in description:
        return {key: tensors[key] for key in description.get("names", tensors) if key in tensors}
    try:
        return _rebuild(description["structure"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{name} is damaged: its metadata does not match its tensors ({error!r}); save it again") from None


#: The names of dtypes in the format.
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64",
}  # fmt: skip


def _read_arrays(file: Any, name: str, header: dict[str, Any]) -> dict[str, numpy.ndarray]:
    """Read the arrays behind the header, which follow each other without gaps."""
    arrays: dict[str, numpy.ndarray] = {}
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"cannot read {name}: {key!r} has dtype {entry['dtype']}; expected one of {', '.join(_DTYPES)}")
        dtype, (begin, end) = as_dtype(_DTYPES[entry["dtype"]]), entry["data_offsets"]
        if begin != position or end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise CheckpointError(f"{name} is damaged: the place of {key!r} does not match its shape; copy it again")
        array = numpy.empty(entry["shape"], dtype)
        if array.size and _read_into(file, array.reshape(-1).view(numpy.uint8)) != array.nbytes:
            raise CheckpointError(f"{name} is truncated: the data of {key!r} is incomplete; copy it again")
        arrays[key], position = array, end
    return {key: arrays[key] for key in entries}


def _read_into(file: Any, target: numpy.ndarray) -> int:
    """Read bytes until the array is full or the file ends; return their number."""
    count = 0
    while count < target.size and (part := file.read(min(target.size - count, 1 << 24))):
        target[count : count + len(part)] = numpy.frombuffer(part, numpy.uint8)
        count += len(part)
    return count


def _place(array: numpy.ndarray, map_location: Any) -> Tensor:
    """Return the array as a tensor where :func:`load`'s ``map_location`` says."""
    tensor = wrap(array)
    if isinstance(map_location, Mapping):
        map_location = map_location.get("cpu", "cpu")
    if callable(map_location) and not isinstance(map_location, Device):
        moved = map_location(tensor, "cpu")
        if moved is not None and not isinstance(moved, Tensor):
            raise DtypeError(f"load: map_location returned {moved!r}; expected a tensor or None")
        return tensor if moved is None else moved
    return tensor if map_location is None else wrap(devices.move(array, Device(map_location)))


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
            size = os.fstat(file.fileno()).st_size
            length, text = _read_start(file, str(path), size)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint {path}: the file does not exist") from None
    except IsADirectoryError:
        inside = " (did you mean model.safetensors in it?)" if (path / "model.safetensors").exists() else ""
        raise CheckpointError(f"{path} is a folder; expected a .safetensors file{inside}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror or error}") from None
    header = _parse_header(length, text, str(path))
    end = 8 + length + max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    if size != end:
        kind = "truncated" if size < end else "damaged"
        raise CheckpointError(f"{path} is {kind}: it has {size} bytes, but {end} according to its header; copy it again")
    return header


def _read_start(file: Any, name: str, size: int | None) -> tuple[int, bytes]:
    """Read the length of the header and the header; ``size`` is that of the file, None if it is unknown.

    Raises:
        CheckpointError: the file is truncated or of another format.
    """
    start = file.read(8)
    if isinstance(start, str):
        raise ArgumentError(f"load: {name} is open in text mode; open it with mode 'rb'")
    if len(start) < 8:
        raise CheckpointError(
            f"{name} is {'empty' if not start else 'truncated'}: {len(start)} bytes; train or copy it again, or go back to the "
            "start of a file object with seek(0)"
        )
    length = int.from_bytes(start, "little")
    text = file.read(min(length, _MAX_HEADER_BYTES if size is None else size, _MAX_HEADER_BYTES))
    if text and not text.startswith(b"{"):
        for magic, format_name in _OTHER_FORMATS:
            if start.startswith(magic):
                raise CheckpointError(
                    f"{name} is {format_name}, not a safetensors file. gpunet never unpickles; in PyTorch, write the "
                    "checkpoint again with safetensors.torch.save_file(model.state_dict(), path)"
                )
        raise CheckpointError(f"{name} is not a safetensors file; expected a file written by gpunet.save or safetensors")
    if len(text) < length:
        found = f"{8 + len(text)}" if size is None else f"{size}"
        raise CheckpointError(f"{name} is truncated: its header has {length} bytes, but the file {found}; copy it again")
    return length, text


def _parse_header(length: int, text: bytes, name: str) -> dict[str, Any]:
    """Raises a CheckpointError if the header is not valid."""
    try:
        header: dict[str, Any] = json.loads(text)
        for key, entry in header.items():
            if key != "__metadata__":
                begin, end = entry["data_offsets"]
                if not (0 <= begin <= end and all(n >= 0 for n in entry["shape"]) and isinstance(entry["dtype"], str)):
                    raise CheckpointError(f"{name} is damaged: its header is not valid ({key!r}: {entry}); copy it again")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{name} is damaged: its header is not valid ({error!r}); copy it again") from None
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


def _is_plain_entry(name: str, value: Any) -> bool:
    """Whether the format itself can hold an entry of a dict: no parameter, and no name that it reserves."""
    return _is_tensor(value) and name != "__metadata__" and not (isinstance(value, Tensor) and value.requires_grad)


def _array(value: Any) -> numpy.ndarray:
    array = value.array if isinstance(value, Tensor) else value
    array = devices.move(array, devices.CPU)
    if not is_numeric(array.dtype):
        raise ArgumentError(f"save: an array of dtype {array.dtype}; expected numbers or booleans")
    return numpy.ascontiguousarray(array).reshape(array.shape)


def _describe(value: Any, name: str, tensors: dict[str, numpy.ndarray]) -> Any:
    """Describe ``value`` as JSON, and move its tensors to ``tensors``; ``name`` is its path in the state."""
    if _is_tensor(value):
        while name in tensors or name == "__metadata__":  # {"a.b": ..., "a": {"b": ...}}; the format reserves "__metadata__"
            name += "'"
        tensors[name] = _array(value)
        return {"parameter" if isinstance(value, Tensor) and value.requires_grad else "tensor": name}
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
        "lists of these (for a model or an optimizer, save its state_dict()): nothing is pickled"
    )


def _rebuild(description: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`_describe`."""
    if not isinstance(description, dict):
        return description
    [(kind, content)] = description.items()
    if kind in ("tensor", "parameter"):
        return tensors[content].requires_grad_(kind == "parameter")
    if kind == "dict":
        return {key: _rebuild(value, tensors) for key, value in content}
    parts = [_rebuild(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
