"""The predicted time of a step of a small net."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.errors import CompileError
from gpunet.tools import performance_page, small_net_time
from gpunet.tools.main_loop import MainLoop
from gpunet.tools.small_net_time import net_of, predict, product_cycles

#: The first is issue-bound, the second bound by shared memory.
LOOPS = {128: MainLoop(150, 128, {}, 20), 32: MainLoop(50, 32, {}, 30)}


@pytest.mark.parametrize(
    ("product", "cycles"),
    [
        ((64, 128, 65, 0), 17 * 2 * 150),  # 256 tiles: 8 warps, 2 for each scheduler
        ((64, 132, 65, 0), 17 * (2 * 150 + 150)),  # a second round of 8 threads
        ((64, 10, 129, 2), 17 * 6 * 30),  # 96 tiles of 2 lanes: 6 warps
        ((2, 4, 8, 1), 2 * 50),  # one warp
    ],
)
def test_products_take_rounds_of_warps(product: Any, cycles: int) -> None:
    assert product_cycles(*product, LOOPS) == pytest.approx(cycles / 0.9)


def test_a_step_is_its_products_and_its_update() -> None:
    found = predict(net_of((64, 128, 10), 64), LOOPS)
    products = [(64, 128, 65, 0), (64, 10, 129, 2), (64, 128, 10, 0), (128, 64, 64, 0), (10, 128, 64, 1)]
    assert found.products * small_net_time.CLOCK == pytest.approx(sum(product_cycles(*p, LOOPS) for p in products))
    assert found.update * small_net_time.CLOCK == pytest.approx(7 * 4 * (128 * 68 + 10 * 132) / 128)
    assert found.time == found.products + found.update


def rows_of_page() -> list[list[str]]:
    return performance_page.parse(performance_page.page_path().read_text(encoding="utf-8"))[1]["Small nets in one launch"]


def test_page_has_every_net() -> None:
    assert [row[0] for row in rows_of_page()] == [*small_net_time.NETS]


@pytest.mark.exhaustive
def test_page_has_the_predicted_times() -> None:
    try:
        found = [*performance_page.small_net_rows()]
    except CompileError as error:
        pytest.skip(str(error))
    assert found == rows_of_page()
