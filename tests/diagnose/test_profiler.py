"""diagnose.profile: launches, their work, and the files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy
import pytest

import gpunet
from gpunet import diagnose, nn, optim
from gpunet.autograd import detect_anomaly, engine
from gpunet.errors import ArgumentError, GpunetError
from gpunet.launch.tape import Tape, record

SPACE = "{http://www.w3.org/2000/svg}"


def parts(device: str = "cpu") -> tuple[Any, Any, Any, Any]:
    gpunet.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(device)
    x, y = gpunet.randn(32, 8, device=device), gpunet.zeros(32, dtype=gpunet.int64, device=device)
    return model, optim.Adam(model.parameters()), x, y


def step(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def test_launches_are_those_of_the_step(device: str) -> None:
    given = parts(device)
    with record(Tape()) as tape:
        step(*given)
    with diagnose.profile() as profile:
        step(*given)
    assert [launch.name for launch in profile.launches] == [launch.kernel.name for launch in tape.launches]
    assert all(launch.seconds > 0.0 for launch in profile.launches)
    assert sum(launch.seconds for launch in profile.launches) < profile.seconds or device == "cuda"
    starts = [launch.start for launch in profile.launches]
    assert starts == sorted(starts) and profile.launches[0].shapes


def test_the_values_are_those_without_a_profile() -> None:
    losses = []
    for is_profiled in (False, True):
        given = parts()
        if is_profiled:
            with diagnose.profile():
                losses.append([step(*given).item() for _ in range(3)])
        else:
            losses.append([step(*given).item() for _ in range(3)])
    assert losses[0] == losses[1] and engine.inspect_gradients is None


def test_work_stack_and_rows() -> None:
    a, b = (gpunet.randn(64, 64, requires_grad=True) for _ in range(2))
    with diagnose.profile() as profile:
        c = a @ b
        c.sum().backward()
    first = profile.launches[0]
    assert (first.flops, first.bytes) == (2 * 64**3, 3 * 4 * 64**2)
    assert first.stack[-1].endswith("c = a @ b") and "backward of" not in str(first.stack)
    assert any(launch.stack[-1] == "backward of matmul" for launch in profile.launches)
    rows = profile.rows()
    assert sum(row.calls for row in rows) == len(profile.launches) and [*rows] == sorted(rows, key=lambda row: -row.seconds)
    numpy.testing.assert_allclose(sum(row.seconds for row in rows), sum(launch.seconds for launch in profile.launches))
    assert {row.name.split(": ", 1)[1] for row in profile.rows("line")} == {"c = a @ b", "c.sum().backward()"}
    assert len(profile.rows("launch")) == len(profile.launches)
    table = profile.table(limit=1).splitlines()
    assert table[0].split() == ["kernel", "calls", "µs", "time", "FLOP", "bytes", "of", "limit"] and " others " in table[2]
    assert "launches take" in str(profile) and "limits measured here" in str(profile)
    limits = profile.limits
    product = next(row for row in rows if row.name == first.name)
    assert product.share(limits) == max(product.flops / limits.flops, product.bytes / limits.bytes) / product.seconds


def test_trace(tmp_path: Path) -> None:
    given = parts()
    with diagnose.profile() as profile:
        step(*given)
    profile.save_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"][1:]
    launches = [event for event in events if event.get("cat") == "launch"]
    assert Counter(event["name"] for event in launches) == Counter(launch.name for launch in profile.launches)
    assert {"shapes", "flops", "bytes"} == set(launches[0]["args"])
    by_start = sorted((event for event in events), key=lambda event: (event["ts"], -event["dur"]))
    open_until: list[float] = []
    for event in by_start:  # slices of one thread nest
        while open_until and open_until[-1] <= event["ts"] + 1e-6:
            open_until.pop()
        assert not open_until or event["ts"] + event["dur"] <= open_until[-1] + 1e-6
        open_until.append(event["ts"] + event["dur"])
    assert any("loss.backward()" in event["name"] for event in events)
    assert any("backward of linear" in event["name"] for event in events)


def test_flame(tmp_path: Path) -> None:
    given = parts()
    with diagnose.profile() as profile:
        step(*given)
        step(*given)
    profile.save_flame(tmp_path / "flame.svg")
    root = ElementTree.parse(tmp_path / "flame.svg").getroot()
    boxes = [(g.find(f"{SPACE}title"), g.find(f"{SPACE}rect")) for g in root.iter(f"{SPACE}g")]
    found = [(title.text or "", float(rect.get("x", "")), float(rect.get("width", "")), float(rect.get("y", ""))) for title, rect in
             boxes if title is not None and rect is not None]  # fmt: skip
    bottom = max(y for *_, y in found)
    numpy.testing.assert_allclose(sum(width for _, _, width, y in found if y == bottom), 1200.0, rtol=1e-3)
    callers = [title for title, *_ in found if "loss.backward()" in title]
    assert len(callers) == 2  # of the two lines that call step
    with pytest.raises(ArgumentError, match=r"flame.png'; expected a file name that ends in \.svg"):
        profile.save_flame("flame.png")
    with pytest.raises(ArgumentError, match="save_flame: cannot write"):
        profile.save_flame(tmp_path / "none" / "flame.svg")


def test_captured_steps_run_eagerly_and_anomaly_mode_goes_on() -> None:
    given = parts()
    captured = gpunet.capture(step, backend="numpy")
    captured(*given)
    with diagnose.profile() as profile:
        captured(*given)
    assert len(profile.launches) > 5
    w = gpunet.tensor([-1.0], requires_grad=True)
    with detect_anomaly(), diagnose.profile():
        (w.sqrt() * 1.0).sum()
        assert engine.inspect_gradients is not None
    assert engine.inspect_gradients is None


def test_errors() -> None:
    with diagnose.profile() as profile, pytest.raises(GpunetError, match="already records"):
        diagnose.profile().__enter__()
    with pytest.raises(ArgumentError, match="nothing was launched"):
        str(profile)
    with diagnose.profile() as profile:
        gpunet.ones(3) + 1.0
    with pytest.raises(ArgumentError, match="by='colour'; expected one of 'kernel', 'line', 'launch'"):
        profile.rows("colour")

    with pytest.raises(ZeroDivisionError), diagnose.profile():
        1 / 0  # noqa: B018
    with diagnose.profile() as profile:
        gpunet.ones(3) + 1.0
    assert profile.launches
