"""The batches that a Trainer is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gpunet.data.parts import Parts
from gpunet.errors import ArgumentError


def named_loaders(train: Any, validation: Any, function: str) -> dict[str, Any]:
    """The training data, and those to evaluate on by name."""
    evaluation = {} if validation is None else dict(validation) if isinstance(validation, Mapping) else {"val": validation}
    for name in evaluation:
        if not isinstance(name, str) or not name.isidentifier() or "_" in name:
            raise ArgumentError(f"{function}: a data set is named {name!r}; expected a word without underlines")
    for name, loader in {"train": train, **evaluation}.items():
        if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
            raise ArgumentError(
                f"{function}: the data {name!r} are a {type(loader).__name__}; expected batches that can be iterated over in each "
                "epoch, such as a DataLoader or a list"
            )
        if length_of(loader) == 0:
            raise ArgumentError(f"{function}: the data {name!r} have no batch")
    return {"train": train, "evaluation": evaluation}


def length_of(loader: Any) -> int | None:
    """The number of batches; None if it is unknown."""
    try:
        return len(loader)
    except TypeError:
        return None


def whole_batch(batch: Any) -> Parts:
    """A batch that one process has alone; the number of rows is 0, for unknown."""
    return Parts(0, ((0, 1),), [batch], True)
