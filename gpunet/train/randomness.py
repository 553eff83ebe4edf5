"""The state of the global random number generators, as a checkpoint holds it."""

from __future__ import annotations

import random
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend import devices
from gpunet.backend.devices import Device
from gpunet.launch.random import default_generator


def random_state() -> dict[str, Any]:
    """Return where the generators of gpunet (on each device), NumPy and ``random`` are."""
    legacy = numpy.random.get_state(legacy=False)  # noqa: NPY002 (the generator that users' transforms draw from)
    version, words, next_normal = random.getstate()
    return {
        "gpunet": [[str(where), *position] for where, position in default_generator.positions().items()],
        "numpy": [legacy["state"]["key"], legacy["state"]["pos"], legacy["has_gauss"], legacy["gauss"]],
        "python": [version, numpy.array(words, numpy.uint32), next_normal],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Continue from :func:`random_state`."""
    default_generator.set_positions({Device(where): (key, counter) for where, key, counter in state["gpunet"]})
    key, position, has_normal, normal = state["numpy"]
    numpy.random.set_state(("MT19937", _host(key), position, has_normal, normal))  # noqa: NPY002
    version, words, next_normal = state["python"]
    random.setstate((version, tuple(_host(words).tolist()), next_normal))


def _host(array: Any) -> numpy.ndarray:
    return devices.to_host(array.array) if isinstance(array, Tensor) else array
