"""A segment of a split step: launches that come again, lowered to one function.

The launches of a run are compared with those of an earlier one as one flat list of objects, their *atoms*: kernels, arrays,
options.  Most are the very same objects in every run (kernels, parameters, memory that is handed out again), and comparing
them is comparing addresses.  The others, few, are looked at: an array may lie elsewhere if it has the same shape, strides and
dtype, and shares memory with others as the one before did.
"""

from __future__ import annotations

import contextvars
import logging
import math
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from sys import getrefcount
from typing import Any, NamedTuple

import numpy

from gpunet.backend import devices
from gpunet.backend.devices import Array, EmulatedArray, LaunchTarget
from gpunet.backend.dtypes import accumulator, is_floating
from gpunet.captured.explain import untimed
from gpunet.captured.ir import tree_leaves, tree_map
from gpunet.captured.lowering import REFS_OF_LIST_ITEM, Lowering, Shared, share
from gpunet.captured.trace import owner_of
from gpunet.errors import CaptureError
from gpunet.launch.kernel import Kernel
from gpunet.launch.launchable import Launchable
from gpunet.launch.shims import Shim, Ufunc
from gpunet.launch.tape import GraphBreak, Launch

_log = logging.getLogger(__name__)
is_array, address = devices.is_array, devices.pointer
#: References of an array that only its :class:`Shared` holds.
_probe = Shared(object())
FREE = getrefcount(_probe.array)
_PLAIN = (bool, int, float, complex, str, bytes, slice, type(None), numpy.generic, numpy.dtype)
#: What stands for a number that may be another one.
_NUMBER = object()
#: A strided array that spans more times its size is not copied with its gaps.
_MOST_GAPS = 4


def flatten(kernel: Launchable, arrays: tuple[Any, ...], options: dict[str, Any], atoms: list[Any]) -> None:
    """Append kernel, arrays and options; of lists of arrays, and of an index, the length, then the items."""
    atoms.append(kernel)
    if kernel.lists:
        for array in arrays:
            if isinstance(array, list):
                atoms.append(len(array))
                atoms += array
                atoms.append(getattr(array, "flat", None))
            else:
                atoms.append(array)
    else:
        atoms += arrays
    if not options:
        return
    atoms += options
    if type(kernel) is not Shim:
        atoms += options.values()
    else:
        for value in options.values():
            if type(value) is tuple:
                atoms.append(len(value))
                atoms += value
            else:
                atoms.append(value)


def starts(launches: Sequence[Launch]) -> list[int]:
    """At which atom each launch starts."""
    result, atoms = [], list[Any]()
    for launch in launches:
        result.append(len(atoms))
        flatten(launch.kernel, launch.arrays, launch.options, atoms)
    return result


def _follows_numbers(launch: Launch) -> bool:
    """Whether a Python number among the inputs may be another one: it is as good as an array of one element."""
    if not isinstance(launch.kernel, Ufunc):
        return False
    dtypes = {a.dtype for a in launch.arrays if is_array(a)}
    return len(dtypes) == 1 and is_floating(dtypes.pop())


class Memory(NamedTuple):
    """Of an array among the atoms: what has to be equal, wherever it lies."""

    first: int  # position where the same array comes first
    fresh: int  # number of the array, allocated for the segment, that it is or is a view of; -1 for others
    offset: int  # in that
    kind: type
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: numpy.dtype[Any]


def _is_number(value: Any) -> bool:
    """Whether a value is a Python number that an array can be filled with; CuPy makes 0.0 of -0.0."""
    if type(value) is float:
        return value != 0 or math.copysign(1, value) > 0
    return type(value) is int and abs(value) <= 2**53  # which float64 holds exactly


def described(launches: Sequence[Launch], atoms: Sequence[Any], allocated: Sequence[Array]) -> list[Any]:
    """What has to be equal for two lists of atoms to be one segment: a :class:`Memory` of each array, other things exactly."""
    fresh = {id(a): number for number, a in enumerate(allocated)}
    numbers: set[int] = set()
    for launch, position in zip(launches, starts(launches)):
        if _follows_numbers(launch):
            numbers.update(p for p, a in enumerate(launch.arrays, position + 1) if _is_number(a))
    first: dict[int, int] = {}
    result: list[Any] = []
    for position, atom in enumerate(atoms):
        if is_array(atom):
            owner = owner_of(atom)
            number = fresh.get(id(owner), -1)
            offset = address(atom) - address(owner) if number >= 0 else 0
            before = first.setdefault(id(atom), position)
            result.append(Memory(before, number, offset, type(atom), atom.shape, atom.strides, atom.dtype))
        else:
            result.append(_NUMBER if position in numbers else _exactly(atom))
    return result


def _exactly(value: Any) -> Any:
    """Equal for equal values of one type only: 1 is not 1.0 here, nor 0.0 -0.0."""
    if isinstance(value, tuple):
        return (tuple, *map(_exactly, value))
    return (type(value), repr(value)) if isinstance(value, _PLAIN) else (type(value), id(value))


def blamed(error: Exception, launches: Sequence[Launch]) -> None:
    """Say in a note of an error which launch it is from, where that can be told."""
    codes, trace = set(), error.__traceback__
    while trace is not None:
        codes.add(trace.tb_frame.f_code)
        trace = trace.tb_next
    places = {}
    for kernel, _, _, line in launches:
        function = kernel.twin if isinstance(kernel, Kernel) else getattr(kernel, "function", None)
        if len(launches) == 1 or getattr(function, "__code__", None) in codes:
            places[line] = kernel.name
    if places:
        where = " or ".join(f"{name}, launched at {line}" for line, name in places.items())
        error.add_note(f"{where}; a split step runs its launches at the next graph break")


class Segment:
    """Launches that were met, and from the second meeting on what they are lowered to.

    Args:
        kinds: see :func:`described`.
        given: ids of arrays that are others in every run: arguments, and what was allocated in the run.
        place: where they go; None for the CPU.
    """

    def __init__(
        self, launches: Sequence[Launch], kinds: list[Any], atoms: Sequence[Any], allocated: Sequence[Array], given: set[int],
        place: LaunchTarget | None,
    ) -> None:  # fmt: skip
        self.place, self._where = place, devices.CPU if place is None else place.device
        self.rows = [untimed(launch) for launch in launches]
        self.split: GraphBreak | None = None  # where it ended
        self.meetings = 1
        self.lowering: Lowering | None = None
        self.refused = ""  # why it is no CUDA graph, where that was tried
        self._kept = [a for a in atoms if not is_array(a)]  # kinds know them by their addresses
        self._kinds, self._shapes = kinds, [(a.shape, a.dtype) for a in allocated]
        self._values = {p: _exactly(atoms[p]) for p, kind in enumerate(kinds) if kind is _NUMBER}
        self._varying: set[int] = set()  # positions of atoms that are not the same object in each run
        self._numbers: set[int] = set()  # those of them that are numbers of other values
        self._moved: set[int] = set()  # numbers of fresh arrays that were elsewhere once
        self._elsewhere: set[int] = set()  # and more than once
        self._seen: set[int] = set()  # and of those that somebody held behind the segment, or wrote beside launches
        self._views: dict[int, Any] = {}
        self._hold(atoms, allocated, given)

    # -- meetings
    def _hold(self, atoms: Sequence[Any], allocated: Sequence[Array], given: set[int]) -> None:
        """Keep what stands for itself by its address; but no view of memory that is handed out again."""
        self._ids, self._fresh = [*map(id, atoms)], [*map(id, allocated)]
        #: views that may be the same objects in each run; held weakly, since whoever counts the owner's references counts them
        self._lasting: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._lost: list[Any] = []
        first = self.meetings == 1  # before it is lowered, only what is found outside needs to be told from others
        self._held: dict[int, Any] = {
            id(a): share(a) for number, a in enumerate(allocated) if not first and number not in self._elsewhere
        }
        for position, (atom, kind) in enumerate(zip(atoms, self._kinds)):
            if not isinstance(kind, Memory):
                if position not in self._varying:
                    self._held[id(atom)] = atom
                continue
            owner = owner_of(atom)
            if atom is not owner and (kind.fresh >= 0 or id(owner) in given):
                self._varying.add(position)
            if atom is not owner and kind.fresh < 0:
                self._held[id(owner)] = share(owner)
                if position not in self._varying:
                    self._lasting[position] = weakref.ref(atom, self._lost.append), id(owner)
            elif position not in self._varying and (not first or (kind.fresh < 0 and id(owner) not in given)):
                self._held[id(atom)] = share(atom)
        places = {p: (id(owner_of(atoms[p])), address(atoms[p])) for p in self._views_among(atoms)}
        #: place of each view of memory from outside, None where it was elsewhere once
        self._views = {p: place if self._views.get(p, place) == place else None for p, place in places.items()}

    def _views_among(self, atoms: Sequence[Any]) -> list[int]:
        return [p for p in self._varying if isinstance(k := self._kinds[p], Memory) and k.fresh < 0 and atoms[p].base is not None]

    def met_again(self, kinds: list[Any], atoms: Sequence[Any], allocated: Sequence[Array], given: set[int]) -> bool:
        """Whether these are the same launches, if perhaps on other memory; if so, this meeting counts."""
        if kinds != self._kinds or [(a.shape, a.dtype) for a in allocated] != self._shapes:
            return False
        changed = {p for p, (a, known) in enumerate(zip(atoms, self._ids)) if id(a) != known} - self._varying
        changed |= {p for p, (view, _) in self._lasting.items() if view() is not atoms[p]}
        for position in changed:
            kind = kinds[position]
            if isinstance(kind, Memory) and kind.fresh < 0:
                owner = id(owner_of(atoms[position]))
                before = self._lasting[position][1] if position in self._lasting else self._ids[position]
                holder = self._held.get(before)
                if owner != before and owner not in given and holder is not None and holder.references() > 0:
                    return False  # other parameters: those of before are still there
        for number, (array, known) in enumerate(zip(allocated, self._fresh)):
            if id(array) != known:
                (self._elsewhere if number in self._moved else self._moved).add(number)
        for position, kind in enumerate(kinds):
            if isinstance(kind, Memory) and kind.fresh >= 0:
                if kind.fresh in self._elsewhere:
                    self._varying.add(position)
            elif kind is _NUMBER and self._values[position] != _exactly(atoms[position]):
                self._varying.add(position)
                self._numbers.add(position)
            elif position in changed:
                self._varying.add(position)
        self.meetings += 1
        self._hold(atoms, allocated, given)
        return True

    # -- lowering
    def lower(
        self, launches: Sequence[Launch], atoms: Sequence[Any], allocated: Sequence[Array], backend: str,
        pool: list[dict[Any, Shared]],
    ) -> None:  # fmt: skip
        """Lower launches that ran on these atoms just now; where no CUDA graph can be made of them, that is logged.

        Args:
            pool: where the allocated arrays are from; those that nobody reads get memory that was never touched.
        """
        self.lowering = None
        if self.refused:
            return
        self._seen |= _filled(launches, allocated)
        dead, dead_views = _unheld(launches, atoms, allocated, self._seen)
        self._seen |= {number for number in range(len(allocated)) if number not in dead}
        moved = self._stand_ins(launches, atoms, allocated, dead)
        if moved is None:
            return
        lowering = Lowering(moved, [], backend)
        unseen = {id(allocated[number]) for number in dead}
        try:
            run, _ = lowering.finish([id(b.array) in unseen for b in lowering.buffers])
        except CaptureError as error:
            self.refused = str(error)
            _log.warning("a part of a split step runs launch by launch: %s", error)
            return
        self.context = contextvars.copy_context()  # of its own, like a recording's
        self.context.run(numpy.seterr, all="ignore")
        self._run, self.lowering = run, lowering
        for number in dead.keys() - self._elsewhere:
            for kind, shared in pool[number].items():
                if shared.array is allocated[number]:
                    pool[number][kind] = self._renewed(number, shared)
        self._dead, self._dead_views = dead, dead_views
        self._prepare()

    def _renewed(self, number: int, before: Shared) -> Shared:
        """Memory that was never touched in the place of a fresh array that nobody reads."""
        shared = share(devices.empty_on_first_touch(before.array.shape, before.array.dtype, self._where))
        old, new = id(before.array), id(shared.array)
        del self._held[old]
        self._held[new], self._fresh[number] = shared, new
        self._ids = [new if known == old else known for known in self._ids]
        return shared

    def _stand_ins(
        self, launches: Sequence[Launch], atoms: Sequence[Any], allocated: Sequence[Array], dead: dict[int, int]
    ) -> list[Launch] | None:
        """The launches, on memory of the segment's own for what is elsewhere in each run; None where that cannot be."""
        written = {
            id(owner_of(a)) for launch in launches for a in tree_leaves(launch.arrays[: launch.kernel.outputs], is_array)
        }
        distinct = {id(a): a for a in atoms if is_array(a)}
        sharing = Counter(id(owner_of(a)) for a in distinct.values())
        standing: dict[int, Array] = {}
        self._inputs: list[tuple[int, Array]] = []  # copied before: position, memory
        self._outputs: list[tuple[int, Array]] = []  # copied behind: number of the fresh array, memory
        self._changed: list[tuple[int, Array]] = []  # copied back: position, memory
        for number in self._elsewhere - dead.keys():
            standing[id(allocated[number])] = memory = allocated[number].copy()
            self._outputs.append((number, memory))
        for position in sorted(self._varying):
            kind = self._kinds[position]
            if not isinstance(kind, Memory) or kind.first != position:
                continue
            array = atoms[position]
            owner = owner_of(array)
            if kind.fresh >= 0:
                if array is not owner and id(owner) in standing:
                    standing[id(array)] = devices.strided_view(standing[id(owner)], kind.offset, *kind[4:])
            elif self._views.get(position) is None:
                if id(owner) in written and (array is not owner or sharing[id(owner)] > 1):
                    return None
                copied = _alike(array)
                if copied is None:
                    return None
                standing[id(array)] = copied
                self._inputs.append((position, copied))
                if id(owner) in written:
                    self._changed.append((position, copied))
        loose = {position for position, _ in self._inputs}
        fixed = [p for p, k in enumerate(self._kinds) if isinstance(k, Memory) and k.fresh < 0 and k.first not in loose]
        outside = {id(owner_of(atoms[p])) for p in fixed}
        #: owners of memory that what is copied must not be part of: it would not follow what is written there
        self._apart = (outside & written) | {f for number, f in enumerate(self._fresh) if number not in self._elsewhere}
        self._outside = outside
        return self._moved_launches(launches, atoms, standing)

    def _moved_launches(
        self, launches: Sequence[Launch], atoms: Sequence[Any], standing: dict[int, Array]
    ) -> list[Launch]:
        result = []
        for (kernel, arrays, options, line), position in zip(launches, starts(launches)):
            arrays, options = tree_map((arrays, options), lambda a: standing.get(id(a), a), is_array)
            places = range(position + 1, position + 1 + len(arrays))
            numbers = {
                p: devices.move(numpy.array(atoms[p], accumulator(arrays[0].dtype)), self._where)
                for p in self._numbers.intersection(places)
            }
            self._inputs += numbers.items()
            arrays = tuple(numbers.get(p, a) for p, a in zip(places, arrays))
            result.append(Launch(kernel, arrays, options, line))
        return result

    # -- runs
    def _prepare(self) -> None:
        """Take apart what to compare when it comes again."""
        fixed = [p for p in range(len(self._kinds)) if p not in self._varying]
        settled = [n for n in range(len(self._fresh)) if n not in self._elsewhere]
        self._fixed = itemgetter(*fixed)
        self._settled, self._buried = itemgetter(*settled) if settled else len, itemgetter(*self._dead) if self._dead else len
        self._fixed_ids, self._settled_ids = self._fixed(self._ids), self._settled(self._fresh)
        self._references = self._buried([self._dead.get(n, 0) for n in range(len(self._fresh))])
        loose = {position for position, _ in self._inputs}
        self._checks: list[tuple[int, Any, Any]] = [(p, self._kinds[p], p in loose) for p in sorted(self._varying)]

    def fits(self, ids: list[int], fresh: list[int], atoms: list[Any], allocated: list[Array]) -> bool:
        """Whether :meth:`replay` does what these launches do."""
        return (
            self.lowering is not None
            and not self._lost
            and len(ids) == len(self._kinds)
            and len(fresh) == len(self._fresh)
            and self._fixed(ids) == self._fixed_ids
            and self._settled(fresh) == self._settled_ids
            and self._matches(atoms, allocated)
            and self._buried([*map(getrefcount, allocated)]) == self._references
            and (not self._dead_views or _references(atoms, self._dead_views) == [*self._dead_views.values()])
        )

    def _matches(self, atoms: list[Any], allocated: list[Array]) -> bool:
        for number in self._elsewhere:
            array = allocated[number]
            if (array.shape, array.dtype) != self._shapes[number]:
                return False
        owners = []
        for position, kind, loose in self._checks:
            atom = atoms[position]
            if not isinstance(kind, Memory):
                if position in self._numbers:
                    if not _is_number(atom):
                        return False
                elif _exactly(atom) != (self._values[position] if kind is _NUMBER else kind):
                    return False
                continue
            if kind.first != position:
                if atom is not atoms[kind.first]:
                    return False
                continue
            kind_of_atom: Any = type(atom)
            if kind_of_atom is not kind.kind or (atom.shape, atom.strides, atom.dtype) != kind[4:]:
                return False
            owner = owner_of(atom)
            if kind.fresh >= 0:
                if owner is not allocated[kind.fresh] or (atom is not owner and address(atom) - address(owner) != kind.offset):
                    return False
            elif not loose:
                if (id(owner), address(atom)) != self._views[position]:
                    return False
            elif id(owner) in self._apart or any(owner is allocated[number] for number in self._elsewhere):
                return False
            else:
                owners.append(id(owner))
        for position, _ in self._changed:
            owner = id(owner_of(atoms[position]))
            if owners.count(owner) > 1 or owner in self._outside:
                return False
        return True

    def replay(self, atoms: list[Any], allocated: list[Array]) -> None:
        for position, memory in self._inputs:
            memory[...] = atoms[position]
        try:
            self.context.run(self._run)
        finally:  # of a run that raises, too, for what came before
            for number, memory in self._outputs:
                allocated[number][...] = memory
            for position, memory in self._changed:
                atoms[position][...] = memory

    def launch_of(self, error: BaseException) -> int | None:
        """The number of the launch that raised in a replay, where that is known."""
        return None if self.lowering is None else self.lowering.launch_of(error)


def _filled(launches: Sequence[Launch], allocated: Sequence[Array]) -> set[int]:
    """Numbers of the fresh arrays that a launch reads before one writes them: somebody else did."""
    numbers = {id(a): number for number, a in enumerate(allocated)}
    result: set[int] = set()
    for launch in launches:
        outputs, inputs = launch.arrays[: launch.kernel.outputs], launch.arrays[launch.kernel.outputs :]
        result.update(numbers[id(o)] for a in tree_leaves((inputs, launch.options), is_array) if id(o := owner_of(a)) in numbers)
        for array in tree_leaves(outputs, is_array):
            numbers.pop(id(owner_of(array)), None)
    return result


def _unheld(
    launches: Sequence[Launch], atoms: Sequence[Any], allocated: Sequence[Array], but: set[int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Numbers of the fresh arrays that nobody holds but these lists, and positions of views of them, with their references.

    Args:
        but: numbers that are left out.
    """
    named: Counter[int] = Counter(map(id, atoms))
    for launch in launches:
        named.update(id(a) for part in launch.arrays for a in (part if isinstance(part, list) else (part,)))
        named.update(map(id, launch.options.values()))
    views: dict[int, dict[int, int]] = {}  # of each owner: id and position
    for position, atom in enumerate(atoms):
        if is_array(atom) and atom.base is not None:
            views.setdefault(id(atom.base), {}).setdefault(id(atom), position)
    dead: dict[int, int] = {}
    dead_views: dict[int, int] = {}
    del atom
    for number, references in enumerate(map(getrefcount, allocated)):
        owner = id(allocated[number])
        mine = views.get(owner, {})
        expected = {p: REFS_OF_LIST_ITEM + named[view] for view, p in mine.items()}
        # held by the list, its Shared, the launches and their atoms, and its views
        if number in but or (mine and type(allocated[number]) is EmulatedArray):  # whose views are not held to hold it once
            continue
        if references == REFS_OF_LIST_ITEM + 1 + named[owner] + len(mine) and _references(atoms, expected) == [*expected.values()]:
            dead[number] = references
            dead_views |= expected
    return dead, dead_views


def _references(atoms: Sequence[Any], positions: Iterable[int]) -> list[int]:
    return [*map(getrefcount, [atoms[position] for position in positions])]


def _alike(array: Array) -> Array | None:
    """A copy with the same strides, since NumPy's order of summation follows from them; None where it is mostly gaps."""
    if array.flags.c_contiguous:
        return array.copy()
    spans = [stride * (extent - 1) for extent, stride in zip(array.shape, array.strides)]
    size = sum(map(abs, spans)) + array.itemsize
    if size > _MOST_GAPS * array.nbytes:
        return None
    memory = devices.empty((size,), numpy.uint8, devices.of(array))
    result = devices.strided_view(memory, -sum(span for span in spans if span < 0), array.shape, array.strides, array.dtype)
    result[...] = array
    return result
