"""Streams, events and graphs of the stand-in for CuPy: what is launched, and when it runs (see fake_cupy.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Cards:
    """The machine: how many cards, and which is current."""

    count = 0
    current = 0
    launches: list[str]
    nodes: list[Callable[[], Any]] | None = None  # of the graph that is being captured
    asynchronous = False
    enqueued = 0  # what streams were given: kernels, copies, whole graphs
    waits = 0  # of the host for a stream
    spoiled = False  # the capture, by what may not happen meanwhile


def wait(stream: Stream | None = None) -> None:
    """Let the host wait for a stream."""
    not_while_capturing()
    Cards.waits += 1
    (stream or Stream._current).run()


def not_while_capturing() -> None:
    if Cards.nodes is not None:
        Cards.spoiled = True
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing")


def run(node: Callable[[], Any]) -> None:
    """Run something, now or when it is waited for, or make it a node of the graph that is being captured."""
    if Cards.nodes is not None:
        Cards.nodes.append(node)
        return
    Cards.enqueued += 1
    Stream._current.nodes.append(node)
    if not Cards.asynchronous:
        Stream._current.run()


class Event:
    """A place in what a stream was given."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.node = stream, (lambda: None)
        stream.nodes.append(self.node)


class Stream:
    synchronized = 0
    _current: Stream

    def __init__(self, *, non_blocking: bool = False, default: bool = False) -> None:
        self.ptr = 0 if default else id(self)
        self.nodes: list[Callable[[], Any]] = []  # what is still to run
        self._before: list[Stream] = []

    def run(self, until: Any = None) -> None:
        """Run what it was given, up to a node of it."""
        while self.nodes and (until is None or until in self.nodes):
            self.nodes.pop(0)()

    def synchronize(self) -> None:
        wait(self)
        Stream.synchronized += 1

    def record(self) -> Event:
        return Event(self)

    def wait_event(self, event: Event) -> None:
        self.nodes.append(lambda: event.stream.run(event.node))

    def __enter__(self) -> Stream:
        self._before.append(Stream._current)
        Stream._current = self
        return self

    def __exit__(self, *_: Any) -> None:
        Stream._current = self._before.pop()

    def begin_capture(self) -> None:
        if not self.ptr:
            raise RuntimeError("cannot capture the default stream")
        Cards.nodes, Cards.spoiled = [], False

    def end_capture(self) -> Graph:
        nodes, Cards.nodes = Cards.nodes, None
        assert nodes is not None
        if Cards.spoiled:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture")
        return Graph(nodes)


Stream._current = Stream(default=True)


class Graph:
    """What a stream was given while it was captured."""

    launched = 0

    def __init__(self, nodes: list[Callable[[], Any]]) -> None:
        self.nodes = nodes

    def launch(self, stream: Stream | None = None) -> None:
        assert stream is None
        Graph.launched += 1
        run(lambda: [node() for node in self.nodes])
