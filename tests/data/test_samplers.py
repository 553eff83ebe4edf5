"""Data sets, samplers and collation, beside PyTorch's where it computes the same."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections import Counter, OrderedDict, namedtuple
from typing import Any

import numpy
import pytest

import gpunet
from gpunet.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    random_split,
)
from gpunet.errors import ArgumentError, DtypeError, OutOfRangeError, ShapeError
from gpunet.launch.random import Generator
from tests.data.samples_for_loaders import Stream

Point = namedtuple("Point", "x y")


def as_lists(value: Any) -> Any:
    """A batch of either library: types, dtypes and numbers."""
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return str(value.dtype).removeprefix("torch."), tuple(value.shape), value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, {key: as_lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [as_lists(item) for item in value]
    return value


# ---- data sets --------------------------------------------------------------------------------------------------------


def test_data_sets_of_data_sets() -> None:
    a, b = TensorDataset(gpunet.arange(3)), TensorDataset(gpunet.arange(3, 8))
    both = a + b
    assert isinstance(both, ConcatDataset) and both.cumulative_sizes == [3, 8]
    assert [both[i][0].item() for i in (*range(8), -1)] == [*range(8), 7]
    with pytest.raises(OutOfRangeError, match=r"index 8; expected -8 \.\. 7"):
        both[8]
    chain = Stream(2) + Stream(3)
    assert isinstance(chain, ChainDataset) and [i for i, _ in chain] == [0, 1, 0, 1, 2]
    assert StackDataset(a, [5, 6, 7])[1] == ((gpunet.tensor(1),), 6)
    assert StackDataset(u=[1, 2], v="ab")[1] == {"u": 2, "v": "b"}
    assert Subset("abcdef", [5, 0])[0] == "f" and len(Subset("abcdef", [5, 0])) == 2


def test_data_sets_check_arguments() -> None:
    with pytest.raises(ShapeError, match=r"shapes \[\(3,\), \(4,\)\]; expected the same number of rows"):
        TensorDataset(gpunet.zeros(3), gpunet.zeros(4))
    with pytest.raises(DtypeError, match="argument 1 has type ndarray; expected a tensor"):
        TensorDataset(gpunet.zeros(3), numpy.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"lengths \[2, 3\]"):
        StackDataset([1, 2], [1, 2, 3])
    with pytest.raises(ArgumentError, match="use ChainDataset"):
        ConcatDataset([Stream(2)])
    with pytest.raises(ArgumentError, match="a list; expected IterableDatasets"):
        ChainDataset([[1]])
    with pytest.raises(NotImplementedError, match="Empty has no __getitem__"):
        type("Empty", (Dataset,), {})()[0]
    with pytest.raises(NotImplementedError, match="has no __iter__"):
        iter(type("Empty", (IterableDataset,), {})())
    with pytest.raises(NotImplementedError, match="has no __iter__"):
        iter(type("Empty", (Sampler,), {})())
    assert issubclass(type("Typed", (Dataset[int],), {}), Dataset)


@pytest.mark.parametrize("lengths", [[6, 4], [0.5, 0.5], [0.33, 0.33, 0.34], [1 / 3, 2 / 3], [0.05, 0.95], [10, 0]])
def test_random_split(lengths: list[Any], torch: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [len(part) for part in torch.utils.data.random_split(range(10), lengths)]
    parts = random_split(range(10), lengths, Generator(1))
    assert [len(part) for part in parts] == expected
    assert sorted(i for part in parts for i in part) == [*range(10)]
    assert [[*part] for part in random_split(range(10), lengths, Generator(1))] == [[*part] for part in parts]


def test_random_split_checks_lengths() -> None:
    with pytest.raises(ArgumentError, match=r"lengths=\[3, 4\] sum to 7; expected 10"):
        random_split(range(10), [3, 4])
    with pytest.raises(ArgumentError, match=r"lengths\[0\]=-0\.5"):
        random_split(range(10), [-0.5, 1.5])
    with pytest.warns(UserWarning, match="part 1 of"):
        random_split(range(1), [0.5, 0.5])


# ---- samplers ---------------------------------------------------------------------------------------------------------


def test_samplers_have_the_lengths_of_pytorch(torch: Any) -> None:
    theirs = torch.utils.data
    for options in ({}, {"replacement": True}, {"num_samples": 25}, {"num_samples": 4}, {"replacement": True, "num_samples": 25}):
        ours = RandomSampler(range(10), **options, generator=Generator(3))
        found = list(ours)
        assert len(found) == len(ours) == len(theirs.RandomSampler(range(10), **options))
        if not options.get("replacement"):
            assert max(Counter(found).values()) - (len(Counter(found)) == 10) * min(Counter(found).values()) <= 1
    assert list(SequentialSampler("abc")) == [0, 1, 2]
    assert sorted(SubsetRandomSampler("abc")) == ["a", "b", "c"]
    for drop_last in (False, True):
        ours, other = (kind(range(7), 3, drop_last) for kind in (BatchSampler, theirs.BatchSampler))
        assert list(ours) == list(other) and len(ours) == len(other)


def test_random_order_is_that_of_randperm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(RandomSampler(range(100), generator=Generator(3))) == gpunet.randperm(100, generator=Generator(3)).tolist()
    keys = gpunet.tensor([5, 1, 5, 1, 5] * 20)  # equal keys are in the order of their indices
    monkeypatch.setattr("gpunet.data.samplers.random_keys", lambda *arguments: keys)
    assert list(RandomSampler(range(100))) == keys.argsort(stable=True).tolist()


def test_weighted_sampler_draws_by_weight() -> None:
    weights = [0.0, 1.0, 3.0, 0.0, 4.0, 0.0]
    found = Counter(WeightedRandomSampler(weights, 80_000, generator=Generator(2)))
    assert found.keys() == {1, 2, 4}
    for i in found:
        expected = weights[i] / 8
        assert abs(found[i] / 80_000 - expected) < 5 * (expected * (1 - expected) / 80_000) ** 0.5
    for seed in range(20):
        assert sorted(WeightedRandomSampler(weights, 3, replacement=False, generator=Generator(seed))) == [1, 2, 4]
    first = Counter(next(iter(WeightedRandomSampler(weights, 2, False, Generator(s)))) for s in range(2000))
    assert abs(first[4] / 2000 - 0.5) < 0.06 and abs(first[1] / 2000 - 0.125) < 0.04
    with pytest.raises(ArgumentError, match="num_samples=4 without replacement, but 3 weights are above 0"):
        WeightedRandomSampler(weights, 4, replacement=False)
    with pytest.raises(ArgumentError, match="weights are negative"):
        WeightedRandomSampler([-1.0, 2.0], 3)


@pytest.mark.parametrize("size", [10, 12, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_distributed_sampler_divides_as_pytorch(size: int, drop_last: bool, torch: Any) -> None:
    for rank in range(4):
        theirs = torch.utils.data.DistributedSampler(range(size), 4, rank, shuffle=False, drop_last=drop_last)
        ours = DistributedSampler(range(size), 4, rank, shuffle=False, drop_last=drop_last)
        assert list(ours) == list(theirs) and len(ours) == len(theirs)
        assert (ours.num_samples, ours.total_size) == (theirs.num_samples, theirs.total_size)


def test_distributed_samplers_share_an_order() -> None:
    def orders(epoch: int) -> list[list[int]]:
        samplers = [DistributedSampler(range(12), 3, rank, seed=5) for rank in range(3)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        return [list(sampler) for sampler in samplers]

    assert sorted(itertools.chain(*orders(0))) == [*range(12)]
    assert orders(0) == orders(0) != orders(1)
    with pytest.raises(ArgumentError, match="there is no process group to ask; pass both"):
        DistributedSampler(range(3))
    with pytest.raises(ArgumentError, match=r"rank=3; expected 0 \.\. 2"):
        DistributedSampler(range(3), 3, 3)


# ---- collation --------------------------------------------------------------------------------------------------------

SAMPLES: dict[str, list[Any]] = {
    "integers": [1, 2],
    "floats": [1.5, 2],
    "bools": [True, False],
    "strings": ["a", "b"],
    "bytes": [b"a", b"b"],
    "arrays": [numpy.ones((2, 3), numpy.float32), numpy.zeros((2, 3), numpy.float32)],
    "0-d arrays": [numpy.array(1.0), numpy.array(2.0)],
    "scalars": [numpy.float32(1), numpy.float32(2)],
    "integer scalars": [numpy.int32(1), numpy.int32(2)],
    "tuples": [(1, "a", 2.0), (3, "b", 4.0)],
    "lists": [[1, [2]], [3, [4]]],
    "dicts": [{"a": 1, "b": [1.0, 2.0]}, {"a": 3, "b": [3.0, 4.0]}],
    "ordered": [OrderedDict(a=1), OrderedDict(a=2)],
    "named tuples": [Point(1, 2.0), Point(3, 4.0)],
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_default_collate(kind: str, torch: Any) -> None:
    ours, theirs = default_collate(SAMPLES[kind]), torch.utils.data.default_collate(SAMPLES[kind])
    assert as_lists(ours) == as_lists(theirs)
    assert as_lists(default_convert(SAMPLES[kind])) == as_lists(torch.utils.data.default_convert(SAMPLES[kind]))


def test_default_collate_stacks_tensors() -> None:
    found = default_collate([(gpunet.ones(2), 0), (gpunet.zeros(2), 1)])
    assert [t.tolist() for t in found] == [[[1, 1], [0, 0]], [0, 1]]


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([{"a": (1, gpunet.zeros(2))}, {"a": (1, gpunet.zeros(3))}], ShapeError,
         r"item \['a'\]\[1\] of sample 1 of the batch has shape \(3,\), but item \['a'\]\[1\] of sample 0"),
        ([numpy.zeros(2), numpy.zeros(3)], ShapeError, r"sample 1 of the batch has shape \(3,\)"),
        ([[1, 2], [1]], ShapeError, "sample 1 of the batch has 1 items, but sample 0 of the batch 2"),
        ([{"a": 1}, {"b": 1}], ShapeError, "sample 1 of the batch has no key 'a'"),
        ([None, None], DtypeError, "sample 0 of the batch has type NoneType; expected tensors"),
        ([(1, "a"), (1, 2)], DtypeError, r"item \[1\] of sample 1 of the batch has type int, but item \[1\] of sample 0"),
        ([numpy.array(["a"])] * 2, DtypeError, "is an array of dtype <U1"),
        ([], DtypeError, "expected a list of samples"),
    ],
)  # fmt: skip
def test_default_collate_names_what_differs(samples: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        default_collate(samples)


def test_signatures_are_those_of_pytorch(torch: Any) -> None:
    differing = {"random_split"}  # None is the default generator
    for name in gpunet.utils.data.__all__:
        ours, theirs = (inspect.signature(getattr(m, name)).parameters for m in (gpunet.utils.data, torch.utils.data))
        assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()], name
        if name not in differing:
            assert [p.default for p in ours.values()] == [p.default for p in theirs.values()], name
    absent = set(torch.utils.data.__all__) - set(gpunet.utils.data.__all__)
    assert absent == {
        "DFIterDataPipe", "DataChunk", "IterDataPipe", "MapDataPipe", "_DatasetKind", "argument_validation",
        "functional_datapipe", "guaranteed_datapipes_determinism", "non_deterministic", "runtime_validation",
        "runtime_validation_disabled",
    }  # fmt: skip
