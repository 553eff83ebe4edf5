"""The state on which a recorded step relies: the protocol between captured steps and the objects that have such state.

The launches of a step depend on more than its arguments: on attributes of modules, options of optimizers, memory of random
number generators.  The object that has the state publishes it, in one of two ways:

* a :class:`Stateful` object, such as a module, lists it in ``recorded_state``;
* an object that launches on memory of its own, such as an optimizer, calls :func:`rely_on` at each launch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gpunet.launch.tape import active

#: Types compared by value; all other objects are compared by identity.
PLAIN = (bool, int, float, complex, str, bytes, type(None), numpy.generic)

#: Number of changes to the state of stateful objects and to hooks; guards compare the state only when it differs.
settings_changed = [0]


class Stateful:
    """Base class of objects that list the state on which recorded steps rely."""

    def recorded_state(self) -> list[Any]:
        """Return the state: plain values, tensors, functions and other stateful objects.

        Each change of it increments ``settings_changed[0]``.
        """
        return []


def rely_on(
    memory: Sequence[Any], expression: str = "True", values: tuple[Any, ...] = (), description: str | Callable[[], str] = ""
) -> None:
    """Let the active recording, if any, rely on memory from outside of the step, as long as a condition holds.

    Args:
        memory: arrays, or tensors, whose ``array`` is guarded, too.
        expression: source of the condition, with "{}" in place of values.
        values: the values for these places.
        description: description of the state, for messages; or a function that returns it when the condition fails.
    """
    if active.tape is not None:
        active.tape.memory += memory
        active.tape.guards.append((expression, values, description))
