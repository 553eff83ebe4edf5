"""Random numbers: the Philox words, reproducible bits, distributions, and streams without repetition."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.backend.devices import CPU
from gpunet.errors import ArgumentError, DtypeError
from gpunet.launch.random import default_generator, inverse_normal

DRAWS = {
    "rand": lambda **o: gpunet.rand(7, 3, **o),
    "rand float64": lambda **o: gpunet.rand(7, 3, dtype="float64", **o),
    "randn": lambda **o: gpunet.randn(7, 3, **o),
    "randn float64": lambda **o: gpunet.randn(7, 3, dtype="float64", **o),
    "randint": lambda **o: gpunet.randint(-5, 1000, (7, 3), **o),
    "bernoulli": lambda generator=None, **o: gpunet.bernoulli(gpunet.full((9, 9), 0.5, **o), generator=generator),
    "randperm": lambda **o: gpunet.randperm(40, **o),
}


def words(key: int, skipped_blocks: int, count: int) -> numpy.ndarray:
    """The first ``count`` words of NumPy's Philox4x64-10 after ``skipped_blocks`` blocks."""
    return numpy.random.Philox(key=key, counter=skipped_blocks).random_raw(count)


# ---- the words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 123456789, 2**64 - 1])
def test_numbers_are_made_of_philox_words(seed: int, device: str) -> None:
    gpunet.manual_seed(seed)
    single, double = gpunet.rand(10), gpunet.rand(10, dtype="float64")
    drawn = words(seed, 0, 24)  # ten words use three blocks of four, so the second draw starts at the fourth block
    assert single.cpu().numpy().tolist() == ((drawn[:10] >> numpy.uint64(40)) * 2.0**-24).tolist()
    assert double.cpu().numpy().tolist() == ((drawn[12:22] >> numpy.uint64(11)) * 2.0**-53).tolist()
    assert gpunet.randint(3, 50, (6,)).tolist() == (words(seed, 6, 6) % numpy.uint64(47) + numpy.uint64(3)).tolist()


def test_philox_matches_known_answers(device: str) -> None:
    """The known answer of Random123 for philox4x64-10 with counter 0 and key 0."""
    first = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    start = numpy.random.Philox(key=0, counter=2**256 - 1).random_raw(4)  # NumPy increments before each block
    assert start.tolist() == first
    gpunet.manual_seed(0)
    assert words(0, 0, 1)[0] != first[0], "our first block has counter 1"


def test_normal_numbers_are_the_inverse_cdf_of_the_words(device: str) -> None:
    scipy = pytest.importorskip("scipy.special")
    gpunet.manual_seed(9)
    z = gpunet.randn(1000, dtype="float64").cpu().numpy()
    u = ((words(9, 0, 1000) >> numpy.uint64(11)) + 0.5) * 2.0**-53
    numpy.testing.assert_allclose(z, scipy.ndtri(u), rtol=1e-13, atol=1e-13)


def test_inverse_normal_from_tail_to_tail() -> None:
    scipy = pytest.importorskip("scipy.special")
    tail = 10.0 ** -numpy.arange(1, 300, 7.0)
    p = numpy.concatenate([tail, numpy.linspace(0.001, 0.999, 999), [2.0**-54, 0.5]])
    numpy.testing.assert_allclose(inverse_normal(p), scipy.ndtri(p), rtol=2e-14, atol=1e-15)
    upper = 1.0 - 10.0 ** -numpy.arange(1, 15.0)
    numpy.testing.assert_allclose(inverse_normal(upper), scipy.ndtri(upper), rtol=2e-14)


# ---- seeds and states -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_seed_gives_the_same_bits(draw: str, device: str) -> None:
    seen = []
    for seed in (4, 4, 5):
        gpunet.manual_seed(seed)
        seen.append([DRAWS[draw]().tolist(), DRAWS[draw]().tolist()])
    assert seen[0] == seen[1] != seen[2]
    assert seen[0][0] != seen[0][1]


@pytest.mark.parametrize("draw", DRAWS)
def test_a_generator_does_not_affect_the_default_generator(draw: str, device: str) -> None:
    generator = gpunet.Generator(4)
    first = DRAWS[draw](generator=generator).tolist()
    before = default_generator.position(gpunet.zeros(1).device)
    DRAWS[draw](generator=generator)
    assert default_generator.position(gpunet.zeros(1).device) == before
    gpunet.manual_seed(4)
    assert DRAWS[draw]().tolist() == first
    assert DRAWS[draw](generator=generator.manual_seed(4)).tolist() == first


def test_state_is_saved_and_restored(device: str) -> None:
    where = gpunet.zeros(1).device
    gpunet.randn(5)
    state = default_generator.position(where)
    drawn = gpunet.randn(50).tolist()
    default_generator.set_position(*state, where)
    assert gpunet.randn(50).tolist() == drawn
    gpunet.manual_seed(77)
    default_generator.set_position(*state, where)
    assert gpunet.randn(50).tolist() == drawn


def test_no_word_is_used_twice(device: str) -> None:
    """Also after launches whose sizes are no multiples of four."""
    seen: set[float] = set()
    total = 0
    for size in (1, 2, 3, 4, 5, 7, 8, 64, 1000, 1):
        drawn = gpunet.rand(size, dtype="float64").tolist()
        seen.update(drawn)
        total += size
    assert len(seen) == total


def test_counter_advances_by_blocks_of_four_words(device: str) -> None:
    where = gpunet.zeros(1).device
    gpunet.manual_seed(3)
    for size, counter in ((1, 1), (4, 2), (5, 4), (0, 4)):
        gpunet.rand(size)
        assert default_generator.position(where) == (3, counter)


@pytest.mark.parametrize("seed", [-(2**63) - 1, 2**64, 1.5, "7", True, None])
def test_invalid_seeds_raise(seed: Any) -> None:
    with pytest.raises(ArgumentError, match=f"seed {seed!r}.*integer"):
        gpunet.manual_seed(seed)


def test_negative_seeds_wrap_around(device: str) -> None:
    assert gpunet.manual_seed(-1).position(CPU)[0] == 2**64 - 1


def test_generators_without_a_seed_differ() -> None:
    assert gpunet.Generator().initial_seed() != gpunet.Generator().initial_seed()


# ---- distributions --------------------------------------------------------------------------------------------------
# The seed is fixed, so these tests are deterministic; the bounds are five standard deviations of the statistic.

COUNT = 200_000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform(dtype: str, device: str) -> None:
    u = gpunet.rand(COUNT, dtype=dtype).cpu().numpy()
    assert u.dtype == dtype and u.min() >= 0.0 and u.max() < 1.0
    assert abs(u.mean() - 0.5) < 5 / math.sqrt(12 * COUNT)
    counts = numpy.histogram(u, 100, (0, 1))[0]
    chi_square = ((counts - COUNT / 100) ** 2 / (COUNT / 100)).sum()
    assert abs(chi_square - 99) < 5 * math.sqrt(2 * 99)
    assert abs(numpy.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / math.sqrt(COUNT)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_within_bounds(dtype: str, device: str) -> None:
    w = gpunet.nn.init.uniform_(gpunet.empty(COUNT, dtype=dtype), -3.0, 5.0).cpu().numpy()
    assert w.min() >= -3.0 and w.max() <= 5.0
    assert w.min() < -2.99 and w.max() > 4.99


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(dtype: str, device: str) -> None:
    z = gpunet.randn(COUNT, dtype=dtype).cpu().numpy().astype("float64")
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - expected) < 5 * math.sqrt(variance / COUNT)
    for level in (-3.0, -1.0, 0.0, 0.5, 2.0, 3.5):
        share = 0.5 * math.erfc(-level / math.sqrt(2))
        assert abs((z <= level).mean() - share) < 5 * math.sqrt(share * (1 - share) / COUNT)
    w = gpunet.nn.init.normal_(gpunet.empty(COUNT), 10.0, 0.5).cpu().numpy()
    assert abs(w.mean() - 10) < 2.5 / math.sqrt(COUNT) + 1e-5 and abs(w.std() - 0.5) < 2.5 / math.sqrt(COUNT)


def test_integers(device: str) -> None:
    drawn = gpunet.randint(-3, 7, (COUNT,)).cpu().numpy()
    assert drawn.dtype == "int64" and set(drawn) == set(range(-3, 7))
    counts = numpy.bincount(drawn + 3)
    assert (abs(counts - COUNT / 10) < 5 * math.sqrt(COUNT * 0.09)).all()
    assert set(gpunet.randint(2, (50,)).tolist()) == {0, 1}
    with pytest.raises(ArgumentError, match="low=5, high=5"):
        gpunet.randint(5, 5, (1,))


def test_bernoulli(device: str) -> None:
    for p in (0.0, 0.3, 1.0):
        drawn = gpunet.bernoulli(gpunet.full((COUNT,), p)).cpu().numpy()
        assert drawn.dtype == "float32" and {*drawn} <= {0, 1} and abs(drawn.mean() - p) <= 5 * math.sqrt(p * (1 - p) / COUNT)
    mixed = gpunet.bernoulli(gpunet.tensor([[0.0, 1.0]] * 50, dtype=gpunet.float64))
    assert mixed.dtype == gpunet.float64 and mixed.tolist() == [[0, 1]] * 50
    assert gpunet.bernoulli(gpunet.ones(3, dtype=gpunet.int64), 1.0).tolist() == [1, 1, 1]
    x = gpunet.tensor([0.0, 0.5, 1.0], requires_grad=True)
    gpunet.bernoulli(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]
    with pytest.raises(ArgumentError, match=r"-0\.1"):
        gpunet.bernoulli(gpunet.tensor([0.5]), -0.1)
    with pytest.raises(ArgumentError, match=r"probabilities from 0\.5 to 2\.0"):
        gpunet.bernoulli(gpunet.tensor([0.5, 2.0]))
    with pytest.raises(DtypeError, match="input of dtype int64"):
        gpunet.bernoulli(gpunet.tensor([1]))


def test_permutations(device: str) -> None:
    for n in (0, 1, 2, 1000):
        assert sorted(gpunet.randperm(n).tolist()) == list(range(n))
    firsts = [gpunet.randperm(5).tolist()[0] for _ in range(1000)]
    assert (abs(numpy.bincount(firsts, minlength=5) - 200) < 5 * math.sqrt(1000 * 0.16)).all()


def test_rand_like_and_randn_like(device: str) -> None:
    x = gpunet.zeros(2, 3, dtype="float64")
    for like in (gpunet.rand_like(x), gpunet.randn_like(x)):
        assert (like.shape, like.dtype) == ((2, 3), "float64")
    assert gpunet.randn(2, requires_grad=True).requires_grad
