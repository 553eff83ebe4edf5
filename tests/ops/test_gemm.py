"""How products are cut into tiles and shared out to blocks, and products of which several blocks share a tile."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy
import pytest

import gpunet
from gpunet.ops.gemm import TILES, Cut, best_cut, divisor, predicted_cycles, whole_flag
from tests.ops.test_ops import to_numpy

#: (layer sizes, batch) of the benchmarks
NETS = (
    ((784, 512, 512, 10), 64), ((784, 512, 512, 10), 256), ((784, 512, 512, 10), 1024), ((2048, 2048, 2048, 2048), 512),
    ((1024,) * 5, 8192), ((4096, 4096), 4096),
)  # fmt: skip


def products(sizes: tuple[int, ...], batch: int) -> Iterator[tuple[int, int, int]]:
    """(rows, columns, depth) of forward, dX and dW of each layer."""
    for i, o in itertools.pairwise(sizes):
        yield from ((batch, o, i), (batch, i, o), (o, i, batch))


LARGE = sorted({p for net in NETS for p in products(*net) if p[0] * p[1] * p[2] >= 2**24})


@pytest.mark.parametrize("size", LARGE, ids=str)
def test_large_products_fill_the_gpu(size: tuple[int, int, int]) -> None:
    assert best_cut(*size).filled >= 0.9


@pytest.mark.parametrize("size", [(64, 10, 512), (10, 512, 64), (128, 128, 784), (1, 1, 100_000), (8, 3000, 40)], ids=str)
def test_small_products_take_the_least_predicted_time(size: tuple[int, int, int]) -> None:
    rows, columns, depth = size
    best = predicted_cycles(best_cut(*size), depth)
    for tile, slices in itertools.product(TILES, (1, 2, 4, 8, 16, 32)):
        tiles = -(-rows // tile[0]) * -(-columns // tile[1])
        other = Cut(*tile, tiles, tiles * slices)
        assert best <= predicted_cycles(other, depth) or slices > depth / 16


def test_narrow_tiles_are_chosen_for_classifiers() -> None:
    assert best_cut(1024, 10, 512)[:2] == (128, 32) and best_cut(10, 20_000, 512)[:2] == (32, 128)


@pytest.mark.parametrize("size", [(0, 5, 7), (5, 0, 7), (5, 7, 0)])
def test_empty_products_are_not_split(size: tuple[int, int, int]) -> None:
    assert not best_cut(*size).is_split


def test_blocks_share_out_all_tiles_of_large_products() -> None:
    """Stream-K: 144 tiles take 132 multiprocessors twice as long as one tile, but their steps can be shared out equally."""
    cut = best_cut(1536, 1536, 384)
    assert (cut.tiles, cut.blocks) == (144, 132) and cut.is_split
    assert predicted_cycles(cut, 384) < 0.85 * predicted_cycles(cut._replace(blocks=144), 384)


def runs(tiles: int, steps: int, blocks: int) -> list[list[tuple[int, int, int]]]:
    """(tile, first, end) of the parts of each block, as for_each_part of gemm/product.cuh computes them."""
    total, found = tiles * steps, []
    for block in range(blocks):
        step, end = total * block // blocks, total * (block + 1) // blocks
        parts = []
        while step < end:
            tile = step // steps
            parts.append((tile, step - tile * steps, min(steps, end - tile * steps)))
            step = tile * steps + parts[-1][2]
        found.append(parts)
    return found


@pytest.mark.parametrize(
    "tiles, steps, blocks", [(5, 7, 5), (5, 7, 15), (5, 7, 3), (5, 7, 8), (3, 98, 12), (144, 48, 132), (2, 3, 6)]
)
def test_the_parts_of_tiles(tiles: int, steps: int, blocks: int) -> None:
    """Their number, and places that no two parts share: a part's is its block plus its tile."""
    parts = [(block, *part) for block, run in enumerate(runs(tiles, steps, blocks)) for part in run]
    assert sum(end - first for _, _, first, end in parts) == tiles * steps
    cut = Cut(64, 64, tiles, blocks)
    shared = [part for part in parts if part[2:] != (0, steps)]
    assert len({block + tile for block, tile, *_ in parts}) == len(parts) <= cut.parts and bool(shared) == cut.is_split
    for block, tile, *_ in parts:
        owners = [((of + 1) * blocks - 1) // (tiles * steps) for of in (tile * steps, (tile + 1) * steps - 1)]
        assert owners[0] <= block <= owners[1] and all(any(b == o and t == tile for b, t, *_ in parts) for o in owners)


def quotient(n: numpy.ndarray, fields: tuple[int, int, int]) -> numpy.ndarray:
    """As Divisor::quotient of gemm/window.cuh computes it, in 32 bits."""
    _, multiplier, shift = fields
    high = (n.astype("u8") * numpy.uint64(multiplier) >> numpy.uint64(32)).astype("u4")
    return (high + n.astype("u4")).astype("u4") >> numpy.uint32(shift)


def test_divisors_are_exact() -> None:
    """At the multiples of a divisor and beside them, up to 2^31 - 1."""
    largest, random = 2**31 - 1, numpy.random.default_rng(0)
    powers = [2**k + d for k in range(31) for d in (-1, 0, 1)]
    for number in {n for n in [*range(1, 300), *powers, largest, *random.integers(1, largest, 500).tolist()] if 0 < n <= largest}:
        fields = divisor(number)
        assert fields[0] == number and 0 < fields[1] < 2**32 and 0 <= fields[2] < 32
        factors = random.integers(0, largest // number + 1, 200)
        near = numpy.concatenate([factors * number + d for d in (-1, 0, 1)])
        values = numpy.concatenate([near, random.integers(0, largest, 200), [0, largest, largest - 1, largest // number * number]])
        values = values[(values >= 0) & (values <= largest)]
        numpy.testing.assert_array_equal(quotient(values, fields), values // number)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_split_product_has_the_same_bits_each_time(batches: int, device: str) -> None:
    """Its tickets are zero again after each launch, also of other products."""
    random = numpy.random.default_rng(0)
    a, b = random.normal(size=(batches, 17, 2000)), random.normal(size=(batches, 2000, 33))
    x, y = (gpunet.tensor(v.astype("float32"), device=device) for v in (a, b))
    assert best_cut(17, 33, 2000, batches).is_split
    first = to_numpy(x @ y)
    numpy.testing.assert_allclose(first, a @ b, rtol=1e-4, atol=1e-3)
    for _ in range(3):
        gpunet.nn.functional.linear(x[:, :, :500].contiguous(), y[0, :500].T.contiguous())
        assert to_numpy(x @ y).tobytes() == first.tobytes()


@pytest.mark.parametrize("need_b", [True, False])
def test_gradients_of_a_split_layer(need_b: bool, device: str) -> None:
    random = numpy.random.default_rng(0)
    n, i, o = 1000, 30, 20
    x, w, b = random.normal(size=(n, i)), random.normal(size=(o, i)), random.normal(size=o)
    tensors = [gpunet.tensor(v, device=device, requires_grad=True) for v in (x, w, *([b] if need_b else []))]
    y = gpunet.nn.functional.linear(*tensors)
    (y * y).sum().backward()
    z = x @ w.T + (b if need_b else 0.0)
    for tensor, expected in zip(tensors, (2 * z @ w, 2 * z.T @ x, 2 * z.sum(0))):
        assert tensor.grad is not None
        numpy.testing.assert_allclose(to_numpy(tensor.grad), expected, rtol=1e-9, atol=1e-9)


def test_checked_and_unchecked_main_loops_have_the_same_bits(device: str) -> None:
    """Rows off alignment take the main loop with checks."""
    random = numpy.random.default_rng(0)
    a, b = (random.normal(size=shape).astype("float32") for shape in ((68, 64), (64, 72)))
    x, y = (gpunet.tensor(v, device=device) for v in (a, b))
    shifted = [gpunet.zeros(v.numel() + 1, device=device)[1:].reshape(v.shape).copy_(v) for v in (x, y)]
    if device != "cpu":
        assert (whole_flag(x.array, y.array), whole_flag(*(v.array for v in shifted))) == ("true", "false")
    assert to_numpy(shifted[0] @ shifted[1]).tobytes() == to_numpy(x @ y).tobytes()
