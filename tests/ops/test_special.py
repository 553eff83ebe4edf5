"""The NumPy twin of erf against math.erf."""

import math
import tracemalloc
import warnings

import numpy
import pytest

from gpunet.launch.memory import scratch
from gpunet.ops.special import erf_into

DTYPES = ("float32", "float64")
#: Allowed errors: (absolute, relative to erf(x)).  For float64: 2 ulp, plus 1 ulp of math.erf itself.
TOLERANCE = {"float32": (1.5e-7, 2.0e-7), "float64": (3.0e-16, 4.5e-16)}
CHUNK = {"float32": 32768, "float64": 16384}


def erf(x: numpy.ndarray) -> numpy.ndarray:
    y = numpy.full(x.shape, 7.0, x.dtype)
    erf_into(y, x)
    return y


def exact(x: numpy.ndarray) -> numpy.ndarray:
    return numpy.array([math.erf(v) for v in x.ravel().tolist()]).reshape(x.shape)


def assert_is_erf(y: numpy.ndarray, x: numpy.ndarray) -> None:
    absolute, relative = TOLERANCE[x.dtype.name]
    expected = exact(x)
    error = numpy.abs(y.astype("float64") - expected)
    assert error.max() <= absolute
    assert (error <= relative * numpy.abs(expected)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_grid(dtype):
    x = numpy.linspace(-7.0, 7.0, 200_001).astype(dtype)
    assert_is_erf(erf(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relative_error_near_zero(dtype):
    smallest = -30 if dtype == "float32" else -300
    x = numpy.logspace(smallest, 0, 20_001).astype(dtype)
    assert_is_erf(erf(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_and_bounded(dtype):
    x = numpy.linspace(0.0, 9.0, 10_007).astype(dtype)
    y = erf(x)
    numpy.testing.assert_array_equal(erf(-x), -y)
    assert y.max() == 1.0
    assert (numpy.diff(y) >= -2 * numpy.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype):
    info = numpy.finfo(dtype)
    x = numpy.array([numpy.inf, -numpy.inf, numpy.nan, 0.0, -0.0, info.max, -info.max], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = erf(x)
    numpy.testing.assert_array_equal(y, numpy.array([1, -1, numpy.nan, 0, 0, 1, -1], dtype))
    assert list(numpy.signbit(y[3:5])) == [False, True]
    subnormal = numpy.array([info.smallest_subnormal * 1000], dtype)
    assert erf(subnormal)[0] == pytest.approx(2 / math.sqrt(math.pi) * float(subnormal[0]), rel=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_may_alias_the_input(dtype):
    x = numpy.random.default_rng(0).normal(size=50_001).astype(dtype)
    expected = erf(x)
    erf_into(x, x)
    numpy.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("around", (-1, 0, 1))
@pytest.mark.parametrize("chunks", (0, 1, 2))
def test_chunk_boundaries(dtype, chunks, around):
    count = max(chunks * CHUNK[dtype] + around, 0)
    x = numpy.linspace(-3.0, 3.0, count).astype(dtype)
    y = erf(x)
    step = max(count // 97, 1)
    edges = numpy.array(sorted({*range(0, count, step), *range(max(count - 3, 0), count)}), dtype=int)
    if count:
        assert_is_erf(y[edges], x[edges])
    numpy.testing.assert_allclose(y, numpy.concatenate([erf(part) for part in numpy.array_split(x, 3)]), rtol=1e-6)


@pytest.mark.parametrize("shape", ((), (0,), (1,), (0, 3), (3, 4, 5)))
def test_shapes(shape):
    x = numpy.random.default_rng(1).normal(size=shape)
    x = numpy.asarray(x)
    y = erf(x)
    assert y.shape == shape
    if x.size:
        assert_is_erf(y, x)


def test_does_not_use_the_callers_scratch_slots():
    callers = [scratch((4,), "float64", slot) for slot in range(5)]
    for slot, array in enumerate(callers):
        array[...] = slot
    erf(numpy.linspace(-1.0, 1.0, 1000))
    assert [list(array) for array in callers] == [[float(slot)] * 4 for slot in range(5)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_launch_allocates_no_array(dtype):
    x = numpy.ones(200_000, dtype)
    erf_into(x, x)
    tracemalloc.start()
    erf_into(x, x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000
