"""The state of a Trainer as nested dicts: what a checkpoint holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunet.autograd import Tensor
from gpunet.captured.ir import tree_map
from gpunet.errors import CheckpointError
from gpunet.train.checkpoint import check_type
from gpunet.train.randomness import random_state, set_random_state

if TYPE_CHECKING:
    from gpunet.train.trainer import Trainer

_FORMAT = 1
_COUNTS = {"epoch": int, "step": int, "_num_batches": int, "_seconds": float, "_is_exhausted": bool}


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Return the state that a resumed training needs."""
    return {
        "format": _FORMAT,
        "counts": {name: getattr(trainer, name) for name in _COUNTS},
        "schedule_length": trainer._schedule_length,
        "class_names": trainer.class_names,
        "rows": trainer.history.rows,
        "weights": {name: part.state_dict() for name, part in trainer._parts().items()},
        "stateful": {name: part.state_dict() for name, part in _stateful(trainer, trainer._all_trained()).items()},
        "random": random_state(),
        "skips": None if trainer._schedule is None or trainer._scaler is None else trainer._schedule.steps_between(),
    }


def load_state(trainer: Trainer, state: Any) -> None:
    """Let a trainer go on from :func:`state_of`.

    Raises:
        CheckpointError: the state is not that of a Trainer, or of one with other options.
        StateDictError: it does not fit the model or the optimizer.
    """
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise CheckpointError("the file is no checkpoint of a Trainer of this version; gpunet.load reads other files")
    _check(state)
    for kind, parts in (("weights", trainer._parts()), ("stateful", _stateful(trainer, trainer._trained[0]))):
        if state[kind].keys() != parts.keys():
            found, expected = (", ".join(sorted(names)) for names in (state[kind], parts))
            raise CheckpointError(f"the checkpoint has the state of {found}; the Trainer has {expected}: pass the same options")
        for name, part in parts.items():
            found = state[kind][name]
            part.load_state_dict(tree_map(found, trainer._to_device, Tensor) if name.startswith("metric ") else found)
    for figures in trainer._trained[int(trainer._is_first) :]:
        for figure in figures.values():
            figure.reset()
    for name in _COUNTS:
        setattr(trainer, name, state["counts"][name])
    trainer._schedule_length = state.get("schedule_length")  # older checkpoints lack it
    trainer.class_names = state["class_names"]
    trainer.history.rows[:] = state["rows"]
    trainer.history.best_epoch = state["stateful"]["monitor"]["epoch"]
    set_random_state(state["random"])
    if trainer._schedule is not None and trainer._scaler is not None:
        trainer._schedule.set_steps_between(state["skips"])


def _stateful(trainer: Trainer, figures: dict[str, Any]) -> dict[str, Any]:
    """What has a state beside the weights, by its name in a checkpoint, in the order of loading.

    Args:
        figures: of the training data.
    """
    named = {
        "optimizer": trainer.optimizer, "schedule": trainer._schedule, "scaler": trainer._scaler, "monitor": trainer._monitor,
        "training": trainer._training, "data train": trainer._loaders["train"],
    }  # fmt: skip
    named |= {f"data of {name}": loader for name, loader in trainer._loaders["evaluation"].items()}
    named |= {f"metric {name}": metric for name, metric in figures.items()}
    named |= {f"callback {number}": callback for number, callback in enumerate(trainer.callbacks)}
    return {name: part for name, part in named.items() if hasattr(part, "load_state_dict")}


def _check(state: dict[str, Any]) -> None:
    """Check what is taken as it is; the objects check their own states."""
    for name, kind in _COUNTS.items():
        check_type(name, state["counts"][name], kind)
        if state["counts"][name] < 0:
            raise CheckpointError(f"the checkpoint has {name}={state['counts'][name]}")
    check_type("schedule_length", state.get("schedule_length"), int, type(None))
    for name in ("weights", "stateful", "random"):
        check_type(name, state[name], dict)
    for name, kind in (("rows", dict), ("class_names", str)):
        check_type(name, state[name], list)
        for item in state[name]:
            check_type(f"an item of {name}", item, kind)
    for row in state["rows"]:
        for name, value in row.items():
            check_type(f"a figure {name}", value, int, float)
