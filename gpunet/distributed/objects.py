"""Collectives of Python objects, which are pickled: processes of one job trust each other."""

from __future__ import annotations

from typing import Any

from gpunet.distributed.process_group import member, rank_in
from gpunet.errors import ArgumentError

__all__ = ["all_gather_object", "broadcast_object_list", "gather_object", "scatter_object_list"]


def _check_length(function: str, name: str, values: Any, size: int) -> None:
    if not isinstance(values, list) or len(values) != size:
        raise ArgumentError(f"{function}: {name}={values!r}; expected a list of {size}, one for each process")


def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    """Fill ``object_list`` with the objects of all processes."""
    found = member("all_gather_object", group)
    _check_length("all_gather_object", "object_list", object_list, found.size())
    object_list[:] = found.gather_objects(obj, "all_gather_object")


def gather_object(obj: Any, object_gather_list: list[Any] | None = None, dst: int = 0, group: Any = None) -> None:
    """Fill ``object_gather_list`` of process ``dst`` with the objects of all; the others pass None."""
    found = member("gather_object", group)
    root = rank_in("gather_object", found, "dst", dst)
    if found.rank() == root:
        _check_length("gather_object", "object_gather_list", object_gather_list, found.size())
    gathered = found.gather_objects(obj, "gather_object")
    if found.rank() == root and object_gather_list is not None:
        object_gather_list[:] = gathered


def broadcast_object_list(object_list: list[Any], src: int = 0, group: Any = None, device: Any = None) -> None:
    """Replace the objects of ``object_list`` by those of process ``src``."""
    found = member("broadcast_object_list", group)
    if not isinstance(object_list, list):
        raise ArgumentError(f"broadcast_object_list: object_list={object_list!r}; expected a list, whose objects are replaced")
    root = rank_in("broadcast_object_list", found, "src", src)
    received = found.broadcast_object(object_list, root, "broadcast_object_list")
    if len(received) != len(object_list):
        raise ArgumentError(
            f"broadcast_object_list: this process has a list of {len(object_list)}, process {src} one of {len(received)}; expected "
            "the same length"
        )
    object_list[:] = received


def scatter_object_list(
    scatter_object_output_list: list[Any], scatter_object_input_list: list[Any] | None = None, src: int = 0, group: Any = None
) -> None:
    """Put into the first place of the output list the object that process ``src`` has for this process; the others pass None."""
    found = member("scatter_object_list", group)
    root = rank_in("scatter_object_list", found, "src", src)
    if found.rank() == root:
        _check_length("scatter_object_list", "scatter_object_input_list", scatter_object_input_list, found.size())
    if not scatter_object_output_list:
        raise ArgumentError("scatter_object_list: scatter_object_output_list is empty; expected a list of one")
    values = found.broadcast_object(scatter_object_input_list, root, "scatter_object_list")
    scatter_object_output_list[0] = values[found.rank()]
