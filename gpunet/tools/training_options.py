"""The options of ``gpunet train``, and where they come from: a TOML file, then the command line."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunet.errors import ArgumentError, CheckpointError, shown


@dataclass(frozen=True)
class Options:
    """The options of the command line; None selects the default of the data, the optimizer or the run folder."""

    data: str = "digits"
    target: str | None = None
    ignore: tuple[str, ...] = ()
    task: str = "auto"
    test_size: float = 0.2
    folds: int | None = None
    fold: int | None = None
    hidden: str = "128,64"
    activation: str = "relu"
    dropout: float = 0.3
    loss: str | None = None
    optimizer: str = "adam"
    lr: float | None = None
    schedule: str = "cosine"
    clip: float | None = None
    weight_decay: float | None = None
    batch_size: int = 32
    accumulate: int = 1
    precision: str = "float32"
    ema: float | None = None
    patience: int | None = None
    epochs: int = 30
    save_every: int | None = None
    device: str = "auto"
    seed: int = 0
    weights: str | None = None
    out: str | None = None
    report: bool = False
    deterministic: bool = False


def from_mapping(values: Mapping[str, Any], source: str) -> Options:
    """Make options from a mapping such as a parsed file.

    Raises:
        ArgumentError: a name is unknown, or a value has another type than its option.
    """
    fields = {field.name: field for field in dataclasses.fields(Options)}
    types = typing.get_type_hints(Options)
    found = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            raise ArgumentError(f"{source}: unknown option {shown(key)}; expected one of {', '.join(fields)}")
        found[name] = _checked(value, types[name], f"{source}: {key} = {shown(value)}")
    return Options(**found)


_IN_WORDS = {tuple: "a list of strings", bool: "true or false"}


def _checked(value: Any, kind: Any, described: str) -> Any:
    kinds = typing.get_args(kind) if typing.get_origin(kind) is not tuple else (tuple,)
    kinds = kinds or (kind,)
    if tuple in kinds and isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if bool in kinds and isinstance(value, bool):
        return value
    if isinstance(value, bool) or not isinstance(value, tuple(k for k in kinds if k is not tuple)):
        names = " or ".join(_IN_WORDS.get(k, k.__name__) for k in kinds if k is not type(None))
        raise ArgumentError(f"{described}; expected {names}")
    return value


def read_options(path: str) -> dict[str, Any]:
    """Read the options in a TOML file.

    Raises:
        ArgumentError: the file cannot be read, or is no TOML.
    """
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ArgumentError(f"--config {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        raise ArgumentError(f"--config {path}: {str(error)[:200]}; expected TOML, such as 'batch-size = 64'") from None


def combined(given: Mapping[str, Any], config: str | None) -> Options:
    """The options of the command line, which win, and of a TOML file."""
    values = {} if config is None else {str(k).replace("-", "_"): v for k, v in read_options(config).items()}
    from_mapping(values, f"--config {config}")  # names and types as the file has them
    return from_mapping({**values, **given}, "gpunet train")


def of_run(config: Mapping[str, Any], folder: str) -> Options:
    """The options in the config.json of a run folder.

    Raises:
        CheckpointError: they were written by another version.
    """
    try:
        return from_mapping({**config["options"], "out": folder}, folder)
    except (KeyError, TypeError, AttributeError, ArgumentError) as error:
        raise CheckpointError(f"{folder} was not written by this version of gpunet train ({error}); start a new run") from None
