"""docs/performance.md agrees with the sources."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.backend import compiler
from gpunet.launch.kernel import Kernel
from gpunet.ops.linear import linear_backward_weight
from gpunet.tools import performance_page
from gpunet.tools.floors import ARCHITECTURES, complaints, measure, representatives
from gpunet.tools.performance_page import REWRITE, STEPS, cell_of, filled_rows, floor_cell, kernels_with_floors, parse
from tests.backend.test_cuda_sources import needs_nvrtc
from tests.tools.test_machine_code import needs_nvdisasm

PAGE = performance_page.page_path().read_text(encoding="utf-8")
VERSION, TABLES = parse(PAGE)
FLOORS = {row[0].strip("`"): row[1:] for row in TABLES["Floors"]}


def is_of_this_compiler() -> bool:
    return ".".join(map(str, compiler.nvrtc_version())) == VERSION


def test_page_has_the_declared_floors() -> None:
    expected = {e: floor_cell(k, e) for k in kernels_with_floors() for e in representatives(k, ARCHITECTURES[0])}
    assert {expression: cells[0] for expression, cells in FLOORS.items()} == expected, REWRITE


def test_page_has_the_geometry_of_every_product() -> None:
    assert TABLES["Multiprocessors filled"] == [*filled_rows()], REWRITE


def test_page_has_every_step_and_a_column_for_measurements() -> None:
    assert [row[0] for row in TABLES["Predicted times"]] == [*STEPS]
    assert {len(row) for row in TABLES["Predicted times"]} == {5}
    assert [row[0] for row in TABLES["On tensor cores"]] == [*STEPS]
    highest = {row[0]: f"{row[2]} / {row[3]}" for row in TABLES["Predicted times"]}
    assert {row[0]: row[1] for row in TABLES["On tensor cores"]} == highest


def measurements() -> list[Any]:
    """(kernel, architecture); in the quick tier one."""
    return [
        pytest.param(
            kernel, architecture, id=f"{kernel.name}-{architecture}",
            marks=[] if kernel is linear_backward_weight and architecture == "sm_90a" else [pytest.mark.exhaustive],
        )
        for kernel in kernels_with_floors() for architecture in ARCHITECTURES
    ]  # fmt: skip


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.parametrize("kernel, architecture", measurements())
def test_main_loops_reach_their_floors_as_documented(kernel: Kernel, architecture: str) -> None:
    found = measure(kernel, representatives(kernel, architecture), architecture)
    assert [complaint for measured in found for complaint in complaints(measured)] == []
    if is_of_this_compiler():
        column = 1 + ARCHITECTURES.index(architecture)
        assert [cell_of(m) for m in found] == [FLOORS[m.expression][column] for m in found], REWRITE


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.exhaustive
def test_page_has_the_predicted_times() -> None:
    if not is_of_this_compiler():
        pytest.skip(f"the page is of NVRTC {VERSION}")
    on_tensor_cores = performance_page.predict_tensor_cores()
    text = performance_page.render_times(performance_page.predict_all(), on_tensor_cores, performance_page.measured_on(PAGE))
    assert PAGE.endswith(text), REWRITE


@needs_nvrtc
@needs_nvdisasm
@pytest.mark.exhaustive
def test_page_is_written_with_its_measured_times(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    """With one kernel, one architecture and one step."""
    name = next(iter(STEPS))
    monkeypatch.setattr(performance_page, "KERNELS", {"": linear_backward_weight})
    monkeypatch.setattr(performance_page, "ARCHITECTURES", ("sm_90a",))
    monkeypatch.setattr(performance_page, "STEPS", {name: STEPS[name]})
    monkeypatch.setattr(performance_page, "BY_HAND", {name: (46, None)})
    monkeypatch.setattr(performance_page, "page_path", lambda: tmp_path / "performance.md")
    assert performance_page.main(["--write"]) == 0
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    [[_, launches, products, _, measured]] = parse(page)[1]["Predicted times"]
    assert (launches, measured) == ("4", "") and float(products) > 0
    (tmp_path / "performance.md").write_text(page.replace(" |  |\n\n### On", " | 61.5 |\n\n### On"), encoding="utf-8")
    assert performance_page.main([]) == 0
    assert parse(capsys.readouterr().out)[1]["Predicted times"][0][-1] == "61.5"
