"""``gpunet.device``: the forms of its arguments, comparisons, and the device of a block."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

import gpunet
from gpunet.backend import devices
from gpunet.errors import DeviceError


def test_type_and_index(device: str) -> None:
    made = gpunet.device(device)
    assert made == device and str(made) == ("cuda:0" if device == "cuda" else device)
    assert made == gpunet.zeros(1).device == copy.deepcopy(made) == pickle.loads(pickle.dumps(made))
    if made.type == "cuda":
        number = made.index
        assert made == gpunet.device("cuda", number) == gpunet.device(number) == gpunet.device(type="cuda", index=number)
        assert repr(made) == f"device(type='cuda', index={number})"
    else:
        assert made.index is None and made == gpunet.device(made.type, 0) == f"{made.type}:0"
        assert repr(made) == f"device(type={device!r})"


@pytest.mark.parametrize("arguments", [
    ("nowhere",), ("cuda", -1), ("cuda:x",), ("cuda:0", 1), ("cpu", 1), ("cpu:1",), (True,), (2.5,), (None,), ("cuda", "1"),
    ("auto", 0), (0, 0),
])  # fmt: skip
def test_unknown_devices_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(DeviceError, match="unknown device .*expected 'cpu', 'cuda', 'cuda:N', 'emulated' or 'auto'"):
        gpunet.device(*arguments)


def test_a_device_is_no_name_with_an_index() -> None:
    with pytest.raises(DeviceError, match="the device has an index"):
        gpunet.device(gpunet.device("cpu"), 0)


def test_comparisons_never_raise(device: str) -> None:
    here = gpunet.zeros(1).device
    for other in ("nowhere", "cuda:99", "cuda:x", "", 3, None, object()):
        assert here != other
        assert not here == other  # noqa: SIM201
    assert (here == "cpu") == (device == "cpu") and gpunet.device("cpu") != "cuda" and gpunet.device("auto") == "auto"


def test_device_of_a_block() -> None:
    other, found = gpunet.device("emulated"), []
    with other as entered:
        thread = threading.Thread(target=lambda: found.append(devices.default_device()))
        thread.start()
        thread.join()
        assert entered is other and gpunet.zeros(1).device == gpunet.tensor([1]).device == gpunet.rand(1).device == other
        with gpunet.device("cpu"):
            assert gpunet.zeros(1).device == "cpu" and gpunet.zeros(1, device=other).device == other
        assert gpunet.Tensor(2).device == other
    assert found == [gpunet.zeros(1).device] != [other]

    @other
    def make() -> gpunet.Tensor:
        return gpunet.arange(3)

    assert make().device == other != gpunet.arange(3).device


def test_generators_know_a_device() -> None:
    generator = gpunet.Generator(device="cpu").manual_seed(-1)
    assert generator.device == "cpu" and generator.initial_seed() == 2**64 - 1 and gpunet.Generator("emulated").device == "emulated"
    with pytest.raises(gpunet.errors.ArgumentError, match="expected one device"):
        gpunet.Generator("cpu", device="cpu")
