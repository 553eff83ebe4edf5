"""Checkpoints: ``gpunet.save`` and ``gpunet.load``, in the safetensors format, never pickle.

    gpunet.save(model.state_dict(), "model.safetensors")
    model.load_state_dict(gpunet.load("model.safetensors"))

A dict of names and tensors becomes a plain safetensors file, which PyTorch, JAX and other libraries can read. Nested
dicts, lists and numbers (the state_dict of an optimizer, a step counter) are supported too: their structure is stored as
JSON in the metadata of the file. Files are written beside their place, read back and renamed, so that a crash or a full disk
keeps the previous checkpoint. A checksum in the metadata is compared on loading.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy

from gpunet.autograd import Tensor, wrap
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.backend.dtypes import as_dtype, complex128, float64, is_numeric
from gpunet.backend.files import replacing
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
    from safetensors import SafetensorError

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
    description["checksum"] = _checksum(description, {name: _digest(array) for name, array in tensors.items()})
    entry = {_ENTRY: json.dumps(description, sort_keys=True)}
    if hasattr(f, "write"):
        _write(f, library.save(tensors, entry))
        return
    path = _as_path(f, "save")
    try:
        with replacing(path) as temporary:
            library.save_file(tensors, temporary, metadata=entry)
            _verify(Path(temporary), f"the copy of {path} that was just written")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {getattr(error, 'strerror', None) or error}") from None


def _verify(path: Path, name: str) -> None:
    """Read a file that was just written, a tensor at a time, and compare its checksum."""
    with path.open("rb") as file:
        header = _parse_header(*_read_start(file, name, None), name)
        digests = {key: _digest(array) for key, array in _read_arrays(file, name, header)}
    _compare_checksum(_description(header, name), digests, name)


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
    read = dict(_read_arrays(file, name, header))
    description = _description(header, name)
    _compare_checksum(description, {key: _digest(array) for key, array in read.items()}, name)
    for key in description.get("complex", ()):
        if key not in read or read[key].dtype != float64 or read[key].shape[-1:] != (2,):
            raise CheckpointError(f"{name} is damaged: {key!r} does not hold the two parts of complex numbers; save it again")
        read[key] = read[key].view(complex128)[..., 0]
    tensors = {key: _place(read[key], map_location) for key in header if key in read}
    if "structure" not in description:
        return {key: tensors[key] for key in description.get("names", tensors) if key in tensors}
    try:
        return _rebuild(description["structure"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name} is damaged: its metadata does not match its tensors ({error!r}); save it again") from None


#: The names of dtypes in the format.
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32",
    "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64",
}  # fmt: skip


def _read_arrays(file: Any, name: str, header: dict[str, Any]) -> Iterator[tuple[str, numpy.ndarray]]:
    """Read the arrays behind the header, which follow each other without gaps."""
    entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"cannot read {name}: {key!r} has dtype {entry['dtype']}; expected one of {', '.join(_DTYPES)}")
        dtype, (begin, end) = as_dtype(_DTYPES[entry["dtype"]]), entry["data_offsets"]
        if begin != position or end - begin != math.prod(entry["shape"]) * dtype.itemsize:
            raise CheckpointError(f"{name} is damaged: the place of {key!r} does not match its shape; copy it again")
        content = _read_bytes(file, end - begin)
        if content.size != end - begin:
            raise CheckpointError(f"{name} is truncated: the data of {key!r} is incomplete; copy it again")
        try:
            yield key, content.view(dtype).reshape(entry["shape"])
        except ValueError as error:  # more dimensions than NumPy has
            raise CheckpointError(f"{name} is damaged: {key!r} has the shape {entry['shape']} ({error})") from None
        position = end


def _read_bytes(file: Any, count: int) -> numpy.ndarray:
    """Read bytes until there are ``count`` or the file ends.  A part that the file lacks is not allocated."""
    size = _bytes_left(file)
    target = numpy.empty(count if size is None else min(count, size), numpy.uint8)
    found = 0
    while found < target.size and (part := file.read(min(target.size - found, 1 << 24))):
        target[found : found + len(part)] = numpy.frombuffer(part, numpy.uint8)
        found += len(part)
    return target[:found]


def _bytes_left(file: Any) -> int | None:
    """The bytes of a file from its position on; None if it cannot tell, such as a pipe."""
    try:
        position = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(position)
    except (AttributeError, OSError, ValueError):
        return None
    return int(end) - int(position)


def _digest(array: numpy.ndarray) -> str:
    content = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    return f"{array.dtype} {[*array.shape]} {hashlib.sha256(content).hexdigest()}"  # type: ignore[arg-type]


def _checksum(description: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """The checksum of a file, which does not depend on the order of its tensors."""
    covered = {key: value for key, value in description.items() if key != "checksum"}
    return hashlib.sha256(json.dumps([covered, dict(digests)], sort_keys=True).encode()).hexdigest()


def _compare_checksum(description: Mapping[str, Any], digests: Mapping[str, str], name: str) -> None:
    """Raises a CheckpointError unless the checksum fits; files of other libraries have none."""
    if description and description["checksum"] != _checksum(description, digests):
        raise CheckpointError(f"{name} is damaged: its content does not match its checksum; copy it again")


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
    found = _description(read_header(Path(path)), str(path)).get("metadata", {})
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
                numbers = [*entry["data_offsets"], *entry["shape"]]
                is_valid = all(type(n) is int and n >= 0 for n in numbers) and isinstance(entry["dtype"], str)
                if not is_valid or len(entry["data_offsets"]) != 2 or numbers[0] > numbers[1]:
                    raise CheckpointError(f"{name} is damaged: its header is not valid ({key!r}: {entry}); copy it again")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{name} is damaged: its header is not valid ({error!r}); copy it again") from None
    return header


def _description(header: dict[str, Any], name: str) -> dict[str, Any]:
    """Our entry in the metadata: "structure" and "metadata" as written by :func:`save`; empty for files of other libraries.

    Raises:
        CheckpointError: the entry is not valid.
    """
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or _ENTRY not in metadata:
        return {}
    try:
        found = json.loads(metadata[_ENTRY])
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is damaged: its metadata are not valid ({error!r}); copy it again") from None
    if not isinstance(found, dict) or "checksum" not in found:
        raise CheckpointError(f"{name} is damaged, or of an older version of gpunet: it has no checksum")
    return found


def check_type(name: str, value: Any, *kinds: type) -> None:
    """Raise a CheckpointError unless a part of a state that was loaded has one of the types; True is no number."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise CheckpointError(f"the checkpoint has a {type(value).__name__} as {name}")


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
