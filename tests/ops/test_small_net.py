"""Where a small net lies in shared memory, and how its products are shared out; tests/captured/test_small_net.py trains."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gpunet.launch.kernel import ceil_div
from gpunet.ops.small_net import (
    AHEAD,
    MOST_FACTORS,
    SOFTMAX_OF_LABELS,
    THREADS,
    Layer,
    Net,
    held_states,
    lanes_of,
    num_bytes,
    num_streams,
    plan,
    stride_of,
)
from gpunet.optim.small_net_cases import ADAM


def net_of(*sizes: int, rows: int = 10, activation: str = "relu", loss: str = SOFTMAX_OF_LABELS, **of_layers: Any) -> Net:
    layers = [Layer(i, o) for i, o in itertools.pairwise(sizes)]
    layers = [*(layer._replace(**of_layers) for layer in layers[:-1]), layers[-1]]
    return Net(tuple(layers), rows, activation, 0.0, loss, "mean", ADAM.rule)


def regions(net: Net, itemsize: int, num_states: int) -> list[tuple[int, int]]:
    """The first element and the number of elements of every array in shared memory."""
    shape: Any = plan(net, itemsize, num_states)[0]
    found = []
    for layer, of in zip(net.layers, shape["of"]):
        matrix, result = layer.outputs * stride_of(layer.inputs), net.rows * stride_of(layer.outputs)
        found += [(of["parameters"], matrix), (of["gradients"], matrix), (of["states"], num_states * matrix)]
        found.append((of["result"], result))
        assert of["slope"] == of["saved"]
        if of["saved"] != of["result"]:
            found.append((of["saved"], result))
        if layer.probability is not None:
            found.append((of["flags"], ceil_div(ceil_div(net.rows * layer.outputs, 8), itemsize)))
        if layer.is_masked:
            found.append((of["mask"], stride_of(layer.outputs)))
    of_target = 8 // itemsize if net.loss == SOFTMAX_OF_LABELS else stride_of(net.layers[-1].outputs)
    found += [(shape["inputs"], net.rows * stride_of(net.layers[0].inputs)), (shape["targets"], net.rows * of_target)]
    found += [(shape["losses"], net.rows), (shape["numbers"], 2), (shape["factors"], AHEAD * shape["entries"] * MOST_FACTORS)]
    return [(int(start), int(count)) for start, count in found if count]


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("num_states", [0, 2])
@pytest.mark.parametrize(
    "net",
    [
        net_of(1, 1, rows=1),
        net_of(5, 9, 7, 3, probability=0.5, is_masked=True),
        net_of(64, 128, 10, rows=64, activation="gelu"),
        net_of(8, 12, 4, loss="squared"),
    ],
    ids=["tiny", "dropout and masks", "pre-activations", "targets"],
)
def test_arrays_do_not_overlap(net: Net, num_states: int, itemsize: int) -> None:
    found = sorted(regions(net, itemsize, num_states))
    assert all(start % 4 == 0 for start, _ in found)  # so that packs are aligned
    assert all(start + count <= following for (start, count), (following, _) in itertools.pairwise(found))
    assert sum(found[-1]) * itemsize <= num_bytes(net, itemsize, num_states) < (sum(found[-1]) + 4) * itemsize


def test_rows_leave_room_for_ones_and_begin_in_different_banks() -> None:
    for features in range(1, 200):
        stride = stride_of(features)
        assert stride % 8 == 4 and stride >= features + 1 and stride >= 8 * ceil_div(features, 8)


@pytest.mark.parametrize(
    ("size", "lanes"),
    [((64, 128, 65), 0), ((64, 10, 129), 2), ((10, 128, 64), 1), ((2, 4, 1000), 32), ((2, 4, 8), 2), ((2, 4, 3), 1)],
)
def test_lanes_share_the_depth_of_products_with_few_tiles(size: tuple[int, int, int], lanes: int) -> None:
    rows, columns, _ = size
    assert lanes_of(*size) == lanes
    assert not lanes or ceil_div(rows, 2) * ceil_div(columns, 4) * lanes <= THREADS


def test_states_are_held_where_they_fit() -> None:
    net = net_of(64, 128, 10, rows=64)
    with_states, without = num_bytes(net, 4, 2), num_bytes(net, 4, 0)
    assert with_states - without == 2 * 4 * (128 * stride_of(64) + 10 * stride_of(128))
    assert [held_states(net, 4, 2, limit) for limit in (with_states, with_states - 1, without, without - 1)] == [2, 0, 0, None]


def test_layers_draw_one_behind_the_other_from_a_common_stream() -> None:
    net = net_of(5, 9, 7, 3, probability=0.5)
    of: Any = plan(net, 4, 0)[0]["of"]
    assert num_streams(net) == 1 and of["first_block"][:2].tolist() == [0, 12] and of["blocks"][:2].tolist() == [21, 21]
    layers = [layer._replace(stream=number) for number, layer in enumerate(net.layers)]
    own: Any = plan(net._replace(layers=tuple(layers)), 4, 0)[0]["of"]
    assert own["first_block"][:2].tolist() == [0, 0] and own["blocks"][:2].tolist() == [12, 9]
