"""Anomaly mode: the op and the line of the first NaN of a backward pass."""

from __future__ import annotations

import itertools

import pytest

import gpunet
from gpunet.autograd import detect_anomaly, engine, set_detect_anomaly
from gpunet.autograd.graph import Node
from gpunet.errors import GradientError


def is_enabled() -> bool:
    return type(Node._sequence) is not itertools.count or engine.inspect_gradients is not None


def test_names_op_and_line(device: str) -> None:
    x = gpunet.tensor([-1.0, 4.0], requires_grad=True)
    with detect_anomaly():
        root = x.sqrt()
        loss = (root * 0).sum()
        with pytest.raises(GradientError, match=r"backward of sqrt returned NaN.*input 0.*test_anomaly\.py:\d+: root = x\.sqrt"):
            loss.backward()
    assert not is_enabled()


def test_ops_from_before_and_finite_gradients() -> None:
    x = gpunet.tensor([-1.0, 4.0], requires_grad=True)
    loss = (x.sqrt() * 0).sum()
    with detect_anomaly():
        (x * 2).sum().backward()
        with pytest.raises(GradientError, match="ran before anomaly mode was enabled"):
            loss.backward(retain_graph=True)
    with detect_anomaly(check_nan=False):
        loss.backward()


def test_set_detect_anomaly() -> None:
    with set_detect_anomaly(True):
        assert is_enabled()
        with set_detect_anomaly(False):
            assert not is_enabled()
        assert is_enabled()
    assert not is_enabled()
    set_detect_anomaly(True)
    assert is_enabled()
    set_detect_anomaly(False)
    assert not is_enabled()


def test_switches_at_the_top_level() -> None:
    assert not gpunet.is_anomaly_enabled() and not gpunet.is_anomaly_check_nan_enabled()
    gpunet.set_anomaly_enabled(True, False)
    try:
        assert gpunet.is_anomaly_enabled() and not gpunet.is_anomaly_check_nan_enabled()
        gpunet.set_anomaly_enabled(True)
        assert gpunet.is_anomaly_check_nan_enabled()
        x = gpunet.tensor([-1.0], requires_grad=True)
        with pytest.raises(GradientError, match="returned NaN"):
            x.sqrt().sum().backward()
    finally:
        gpunet.set_anomaly_enabled(False)
    assert not is_enabled()
