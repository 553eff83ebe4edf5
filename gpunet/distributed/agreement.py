"""What processes that train together must have in common, and what the first one does for all."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gpunet.backend.long_work import long_work
from gpunet.distributed.process_group import ProcessGroup
from gpunet.errors import ProcessError

T = TypeVar("T")
_MAX_SHOWN = 3


def check_equal(function: str, group: ProcessGroup, facts: Mapping[str, str], way_out: str) -> None:
    """Compare the facts of all processes, by their names.

    Raises:
        ProcessError: they differ; in all processes, with the names of the ranks and of what differs.
    """
    found = group.gather_objects(dict(facts), function)
    names = dict.fromkeys(name for each in found for name in each)
    differences = [
        f"{name} is {each.get(name, 'absent')} in rank {group.ranks[rank]}, {found[0].get(name, 'absent')} in rank {group.ranks[0]}"
        for name in names
        for rank, each in enumerate(found)
        if each.get(name) != found[0].get(name)
    ]
    if differences:
        more = f"; and {len(differences) - _MAX_SHOWN} more" if len(differences) > _MAX_SHOWN else ""
        raise ProcessError(f"{function}: the processes differ: {'; '.join(differences[:_MAX_SHOWN])}{more}; {way_out}")


def tensor_facts(named: Mapping[str, Any]) -> dict[str, str]:
    """Shape, dtype and ``requires_grad`` of tensors, as facts."""
    return {repr(name): f"{tuple(t.shape)} of {t.dtype}{'' if t.requires_grad else ', not trained'}" for name, t in named.items()}


def code_facts() -> dict[str, str]:
    """Version and code of gpunet, and the code of the script, as facts."""
    version = sys.modules["gpunet"].__version__
    facts = {"the version of gpunet": version, "the code of gpunet": _digest(Path(__file__).parents[1])}
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is not None and Path(script).is_file():
        facts["the code of the script"] = _digest(Path(script))
    return facts


def _digest(path: Path) -> str:
    """The beginning of a hash of a file, or of the Python files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def on_first(group: ProcessGroup, compute: Callable[[], T], function: str) -> T:
    """Return in all processes what the first one computes; an error of it is raised in all of them."""
    if group.size() == 1:
        return compute()
    found: Any = None
    error: Exception | None = None
    if group.rank() == 0:
        try:
            with long_work(function):
                found = compute()
        except Exception as raised:  # raised below, in all processes
            error = raised
    found, error = group.broadcast_object((found, error), 0, function)
    if error is not None:
        raise error
    return found
