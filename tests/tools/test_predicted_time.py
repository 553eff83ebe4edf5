"""The model of times: geometry of products, cycles of main loops, split-K."""

from __future__ import annotations

from typing import Any

import pytest

from gpunet.errors import ArgumentError
from gpunet.launch.facts import Product
from gpunet.launch.kernel import Geometry
from gpunet.ops.cross_entropy import cross_entropy_labels
from gpunet.ops.gemm import L2_BYTES_PER_CYCLE
from gpunet.ops.linear import linear_forward
from gpunet.tools import predicted_time
from gpunet.tools.floors import Measured
from gpunet.tools.main_loop import MainLoop
from gpunet.tools.predicted_time import Tiling, main_loop_cycles, part_cycles, predict, tiling, training_step
from gpunet.tools.register_usage import Usage


def test_a_training_step_is_recorded_as_it_is_launched() -> None:
    launches = training_step((8, 4, 3), 5)
    assert [launch.kernel.name for launch in launches] == [
        "linear_forward", "linear_forward_loss", "linear_backward_input", "linear_backward_weights",
    ]  # fmt: skip
    assert linear_forward.launch_products(launches[0].arrays, launches[0].options) == (Product(5, 4, 8),)
    assert launches[-1].kernel.launch_products(*launches[-1][1:3]) == [Product(3, 4, 5), Product(4, 8, 5)]


@pytest.mark.parametrize(
    "product, grid, template, expected",
    [
        (Product(256, 512, 784), 32, ("64", "64", "Relu"), Tiling(64, 64, 32, 32)),
        (Product(256, 512, 784), (32, 8), ("64", "64", "Relu"), Tiling(64, 64, 32, 256)),
        (Product(256, 10, 512), (8, 3), ("32", "64", "true"), Tiling(32, 64, 8, 24)),
        (Product(100, 100, 7, 5), 20, ("64", "64"), Tiling(64, 64, 20, 20)),
    ],
)
def test_tiles_and_slices_are_found_from_the_geometry(product: Product, grid: Any, template: Any, expected: Tiling) -> None:
    assert tiling(product, Geometry(grid, 64, (), template)) == expected


def test_products_without_tiles_are_an_error() -> None:
    with pytest.raises(ArgumentError, match="1 blocks for no tiles of 64 x 64"):
        tiling(Product(0, 512, 784), Geometry(1, 256, (), ("64", "64")))


def test_filled_counts_the_busiest_multiprocessor() -> None:
    assert (Tiling(64, 64, 132, 132).on_busiest, Tiling(64, 64, 132, 132).filled) == (1, 1.0)
    assert (Tiling(64, 64, 133, 133).on_busiest, Tiling(64, 64, 133, 133).filled) == (2, 133 / 264)


def of_loop(issued: int, arithmetic: int, shared: int) -> Measured:
    loop = MainLoop(issued, arithmetic, {}, shared)
    return Measured(linear_forward, "linear_forward<float, 64, Relu>", "sm_90a", loop, Usage(1, 0, 0, 0, 0), 1, 0)


@pytest.mark.parametrize(
    "measured, blocks, warps, cycles",
    [
        (of_loop(300, 256, 32), 132, 8, 2 * 300),  # 8 warps of 4 schedulers
        (of_loop(300, 256, 32), 133, 8, 4 * 300),
        (of_loop(300, 256, 104), 132, 8, 8 * 104),  # one shared-memory pipe
        (of_loop(600, 512, 32), 132, 2, 600),  # half of the schedulers have a warp; two steps of 8 instead of one of 16
        (of_loop(200, 256, 32), 132, 8, 2 * 256),  # FFMA2: the arithmetic takes its cycles
    ],
)
def test_cycles_of_main_loops(measured: Measured, blocks: int, warps: int, cycles: int) -> None:
    """Of a step of 16: tiles of 64 x 64 with 8 warps of 256 multiply-adds per lane, or 2 warps of 512 in half a step."""
    depth = measured.loop.arithmetic * warps * 32 // 64**2
    found = main_loop_cycles([Product(64 * blocks, 64, 10 * depth)], [Tiling(64, 64, blocks, blocks)], measured, warps)
    assert found * predicted_time.ISSUE_EFFICIENCY == pytest.approx(10 * cycles)


def test_slices_share_the_depth_and_are_summed_through_l2() -> None:
    measured = of_loop(300, 256, 32)
    whole = main_loop_cycles([Product(64, 64, 640)], [Tiling(64, 64, 1, 1)], measured, 8)
    sliced = Tiling(64, 64, 1, 8)
    assert main_loop_cycles([Product(64, 64, 640)], [sliced], measured, 8) == whole / 8
    assert part_cycles(sliced) == 64 * 64 * 4 * (1 + 8) / L2_BYTES_PER_CYCLE


def test_a_launch_in_slices_also_sums_them(monkeypatch: Any) -> None:
    launch = training_step((784, 512), 64)[0]
    geometry = Geometry(64, 256, (), ("64", "64", "true", "Identity"))
    monkeypatch.setattr(linear_forward, "_geometry", lambda *arrays, **options: geometry)
    monkeypatch.setattr(predicted_time, "_measured", lambda kernel, geometries: [
        of_loop(300, 256, 32)._replace(expression=expression) for expression in geometries
    ])  # fmt: skip
    [found] = predict([launch])
    assert found.tilings == [Tiling(64, 64, 8, 64)]
    multiplied = main_loop_cycles([Product(64, 512, 784)], found.tilings, of_loop(300, 256, 32), 8)
    assert found.arithmetic * predicted_time.CLOCK == pytest.approx(multiplied + part_cycles(found.tilings[0]))


def test_products_of_one_launch_share_the_multiprocessors() -> None:
    """Two warps a block, on four schedulers: the blocks of 132 long steps and those of 132 short ones run beside each other."""
    measured = of_loop(600, 512, 0)
    long, short = (Product(64 * 132, 64, 8 * steps) for steps in (30, 10))
    once = [Tiling(64, 64, 132, 132)]
    together = main_loop_cycles([long, short], once * 2, measured, 2)
    assert together == main_loop_cycles([long], once, measured, 2) == 30 * 600 / predicted_time.ISSUE_EFFICIENCY
    third = main_loop_cycles([long, short, short], once * 3, measured, 2)
    assert third == 40 * 600 / predicted_time.ISSUE_EFFICIENCY


def test_a_launch_without_a_product_takes_its_bytes() -> None:
    loss = next(launch for launch in training_step((784, 512), 64) if launch.kernel is cross_entropy_labels)
    [found] = predict([loss])
    assert not found.tilings
    assert found.time == pytest.approx(2e-6 + 64 * (2 * 512 * 4 + 8) / 4.3e12, rel=1e-2)
