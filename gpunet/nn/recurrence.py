"""Recurrent layers and their cells: RNN, LSTM, GRU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import is_cast
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import warn_user
from gpunet.nn import init
from gpunet.nn.module import Module, Parameter, empty_parameter
from gpunet.nn.utils.rnn import PackedSequence, values_on_host
from gpunet.ops.face import as_integer, as_positive, as_probability, check_flag
from gpunet.ops.index import index_select
from gpunet.ops.join import unbind
from gpunet.ops.recurrence import CELLS, run_direction
from gpunet.ops.recurrent_layers import run_layers

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]

#: PyTorch's modes -> the keys of CELLS.
_CELLS = {key.upper(): key for key in CELLS}


def _mode_of(function: str, nonlinearity: Any) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError(f"{function}: nonlinearity={nonlinearity!r}; expected 'tanh' or 'relu'")
    return f"RNN_{nonlinearity.upper()}"


def _initialize(module: Module, hidden_size: int) -> None:
    bound = 1.0 / math.sqrt(hidden_size)
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


def _check_dtype(function: str, name: str, tensor: Tensor, weight: Tensor) -> None:
    if tensor.dtype != weight.dtype and not (is_cast(tensor) and is_cast(weight)):
        raise DtypeError(f"{function}: {name} has dtype {tensor.dtype}; expected that of the weights: use .to({weight.dtype})")


def _check_state(function: str, name: str, state: Any, weight: Tensor, shape: tuple[int, ...], meaning: str) -> Tensor:
    if not isinstance(state, Tensor):
        raise DtypeError(f"{function}: {name} has type {type(state).__name__}; expected a tensor")
    if tuple(state.shape) != shape:
        raise ShapeError(f"{function}: {name} has shape {tuple(state.shape)}; expected {shape}: {meaning}")
    _check_dtype(function, name, state, weight)
    return state


def _state_pair(function: str, hx: Any) -> tuple[Any, Any]:
    if not isinstance(hx, (tuple, list)) or len(hx) != 2:
        raise ArgumentError(f"{function}: hx has type {type(hx).__name__}; expected a pair of tensors (h_0, c_0)")
    return hx[0], hx[1]


class RNNBase(Module):
    """The base class of RNN, LSTM and GRU.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        input_size: features of the input.
        hidden_size: features of a state.
        num_layers: layers, each of which takes the states of the one before as its input.
        bias: whether the layers have biases.
        batch_first: input and output are (n, steps, features) instead of (steps, n, features); states are not affected.
        dropout: probability of dropout behind each layer but the last.
        bidirectional: each layer also walks from the last step to the first; the output has the states of both.
        proj_size: if not 0, an LSTM projects each state h to so many features.
        device: device of the parameters; the default device if None.
        dtype: a floating dtype; the default dtype if None.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0: the parameters of layer 0, (gates hidden_size,
            input_size), (gates hidden_size, states), (gates hidden_size,) twice, and (proj_size, hidden_size); names end in
            ``_l1`` and so on for further layers, and in ``_reverse`` for the other direction.  The gates are i f g o of an
            LSTM, r z n of a GRU.  All are initialised uniformly from ±1/sqrt(hidden_size).

    Raises:
        ArgumentError: an argument is out of its range.
    """

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if not isinstance(mode, str) or mode not in _CELLS:
            raise ArgumentError(f"{name}: mode={mode!r}; expected 'LSTM', 'GRU', 'RNN_TANH' or 'RNN_RELU'")
        for flag, value in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            check_flag(name, flag, value)
        self.mode = mode
        self.input_size = as_positive(name, "input_size", input_size)
        self.hidden_size = as_positive(name, "hidden_size", hidden_size)
        self.num_layers = as_positive(name, "num_layers", num_layers)
        self.bias, self.batch_first, self.bidirectional = bias, batch_first, bidirectional
        if isinstance(dropout, bool):
            raise ArgumentError(f"{name}: dropout={dropout}; expected a probability from 0 to 1")
        self.dropout = as_probability(name, "dropout", dropout)
        if self.dropout and self.num_layers == 1:
            warn_user(
                f"{name}: dropout={dropout} has no effect with num_layers=1: dropout is behind each layer but the last",
            )
        self.proj_size = as_integer(name, "proj_size", proj_size)
        if not 0 <= self.proj_size < self.hidden_size or (self.proj_size and mode != "LSTM"):
            raise ArgumentError(
                f"{name}: proj_size={proj_size} with hidden_size={hidden_size}; expected 0, or of an LSTM a smaller number"
            )
        self._all_weights: list[list[str]] = []
        rows, width = CELLS[_CELLS[mode]].gates * self.hidden_size, self._width
        for layer in range(self.num_layers):
            features = width * self._num_directions if layer else self.input_size
            for suffix in ("", "_reverse")[: self._num_directions]:
                shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, features), "weight_hh": (rows, width)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
                if self.proj_size:
                    shapes["weight_hr"] = (self.proj_size, self.hidden_size)
                self._all_weights.append([f"{kind}_l{layer}{suffix}" for kind in shapes])
                for key, shape in zip(self._all_weights[-1], shapes.values()):
                    self.register_parameter(key, empty_parameter(shape, device, dtype))
        self.reset_parameters()

    @property
    def _num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _width(self) -> int:
        """Features of a state h."""
        return self.proj_size or self.hidden_size

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each direction of each layer."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """Do nothing: the kernels take the parameters as they are."""

    def reset_parameters(self) -> None:
        """Initialize all parameters again with random values."""
        _initialize(self, self.hidden_size)

    def _packed(self, input: Any) -> tuple[Tensor, tuple[int, ...], bool]:
        """The rows of the input (rows, input_size), the number of sequences at each step, and whether there is a batch.

        Raises:
            ShapeError: the input has other dimensions, other features, or no steps.
        """
        name = type(self).__name__
        if isinstance(input, PackedSequence):
            x, sizes = input.data, values_on_host(name, input.batch_sizes)
            if x.ndim != 2:
                raise ShapeError(f"{name}: the packed data have shape {tuple(x.shape)}; expected (rows, {self.input_size})")
            batch_sizes, is_batched = tuple(sizes.tolist()), True
        else:
            x = wrap(input)
            is_batched = x.ndim == 3
            layout = "(n, steps, input_size)" if self.batch_first else "(steps, n, input_size)"
            if x.ndim not in (2, 3) or not x.shape[1 if is_batched and self.batch_first else 0]:
                raise ShapeError(
                    f"{name}: the input has shape {tuple(x.shape)}; expected {layout}, or (steps, input_size) of one sequence, "
                    "with one step or more"
                )
            if is_batched and self.batch_first:
                x = x.transpose(0, 1)
            batch_sizes = (x.shape[1] if is_batched else 1,) * x.shape[0]
        if x.shape[-1] != self.input_size:
            raise ShapeError(f"{name}: the input has shape {tuple(x.shape)}; expected input_size={self.input_size} last")
        _check_dtype(name, "the input", x, getattr(self, self._all_weights[0][0]))
        return x.reshape(-1, self.input_size), batch_sizes, is_batched

    def _first_states(
        self, name: str, state: Any, width: int, n: int, is_batched: bool, order: Tensor | None
    ) -> Sequence[Any]:
        """The first state (n, width) of each direction of each layer, in the order of the packed sequences."""
        count = self.num_layers * self._num_directions
        meaning = "(num_layers * directions, n, features)" if is_batched else "(num_layers * directions, features)"
        shape = (count, n, width) if is_batched else (count, width)
        weight = getattr(self, self._all_weights[0][0])
        state = _check_state(type(self).__name__, name, state, weight, shape, meaning)
        if not is_batched:
            state = state.reshape(count, 1, width)
        return unbind(state if order is None else index_select(state, 1, order), 0)

    def _run(self, input: Any, states: Sequence[Any] | None) -> tuple[Any, list[Tensor]]:
        """Run all layers.

        Args:
            input: a tensor or a PackedSequence.
            states: h_0, and c_0 of an LSTM; None for 0.

        Returns:
            The output in the form of the input, and the last states.
        """
        x, batch_sizes, is_batched = self._packed(input)
        order, inverse = (input.sorted_indices, input.unsorted_indices) if isinstance(input, PackedSequence) else (None, None)
        count, widths = len(self._all_weights), {"h_0": self._width, "c_0": self.hidden_size}
        firsts: list[Sequence[Any]] = [(None,) * count] * 2
        for position, (name, state) in enumerate(zip(widths, states or ())):
            firsts[position] = self._first_states(name, state, widths[name], batch_sizes[0], is_batched, order)
        x, finals = run_layers(
            x, batch_sizes, firsts, self.all_weights, cell=_CELLS[self.mode], has_biases=self.bias,
            num_directions=self._num_directions, dropout=self.dropout if self.training else 0.0,
        )  # fmt: skip
        if isinstance(input, PackedSequence):
            if inverse is not None:
                finals = [index_select(state, 1, inverse) for state in finals]
            return type(input)(x, input.batch_sizes, order, inverse), finals
        if not is_batched:
            return x, [state.reshape(state.shape[0], state.shape[2]) for state in finals]
        x = x.reshape(len(batch_sizes), batch_sizes[0], x.shape[1])
        return x.transpose(0, 1) if self.batch_first else x, finals

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, usual in (
            ("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False)
        ):  # fmt: skip
            value = getattr(self, name)
            if value != usual:
                parts.append(f"{name}={value}")
        return ", ".join(parts)


class RNN(RNNBase):
    """Layers with h_t = act(w_ih x_t + b_ih + w_hh h_(t-1) + b_hh) (Elman 1990).

    Calling it with the input (steps, n, input_size), or (steps, input_size) of one sequence, or a PackedSequence, and h_0
    (num_layers directions, n, hidden_size), 0 by default, returns the states h of the last layer at all steps (steps, n, directions
    hidden_size), packed if the input is, and the last states of all layers, of the shape of h_0.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as of :class:`RNNBase`.
        nonlinearity: act, "tanh" or "relu".

    Raises:
        ArgumentError: an argument is out of its range.
        ShapeError, DtypeError: on a call, an input or a first state does not match.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        mode = _mode_of(type(self).__name__, nonlinearity)
        super().__init__(
            mode, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype
        )
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        output, (last,) = self._run(input, None if hx is None else (hx,))
        return output, last


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997).

    With i, f, o = sigmoid and g = tanh of w_ih x_t + b_ih + w_hh h_(t-1) + b_hh: c_t = f c_(t-1) + i g and h_t = o tanh(c_t), which
    ``proj_size`` projects: h_t = w_hr o tanh(c_t) (Sak et al. 2014).  Without projection, all steps of a direction are one launch.

    Calling it with the input (steps, n, input_size), or (steps, input_size) of one sequence, or a PackedSequence, and the pair
    h_0 (num_layers directions, n, hidden_size or proj_size) and c_0 (num_layers directions, n, hidden_size), 0 by default, returns
    the states h of the last layer at all steps (steps, n, directions hidden_size), packed if the input is, and the last h and c
    of all layers, of the shapes of h_0 and c_0.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype: as of
            :class:`RNNBase`.

    Raises:
        ArgumentError: an argument is out of its range.
        ShapeError, DtypeError: on a call, an input or a first state does not match.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device, dtype
        )

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        output, (h, c) = self._run(input, None if hx is None else _state_pair(type(self).__name__, hx))
        return output, (h, c)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al. 2014).

    With r, z = sigmoid of w_ih x_t + b_ih + w_hh h_(t-1) + b_hh, and n = tanh(w_in x_t + b_in + r (w_hn h_(t-1) + b_hn)):
    h_t = (1 - z) n + z h_(t-1).  All steps of a direction are one launch.

    Calling it with the input (steps, n, input_size), or (steps, input_size) of one sequence, or a PackedSequence, and h_0
    (num_layers directions, n, hidden_size), 0 by default, returns the states h of the last layer at all steps (steps, n, directions
    hidden_size), packed if the input is, and the last states of all layers, of the shape of h_0.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype: as of :class:`RNNBase`.

    Raises:
        ArgumentError: an argument is out of its range.
        ShapeError, DtypeError: on a call, an input or a first state does not match.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device=device, dtype=dtype
        )

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        output, (last,) = self._run(input, None if hx is None else (hx,))
        return output, last


class RNNCellBase(Module):
    """The base class of RNNCell, LSTMCell and GRUCell: one step of one layer.

    Args:
        input_size, hidden_size, bias, device, dtype: as of :class:`RNNBase`.
        num_chunks: gates of the cell: 4 of an LSTM, 3 of a GRU, 1 of an RNN.

    Attributes:
        weight_ih, weight_hh: (num_chunks hidden_size, input_size) and (num_chunks hidden_size, hidden_size).
        bias_ih, bias_hh: (num_chunks hidden_size,), None without bias.  All are initialised uniformly from ±1/sqrt(hidden_size).
    """

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_flag(name, "bias", bias)
        self.input_size = as_positive(name, "input_size", input_size)
        self.hidden_size = as_positive(name, "hidden_size", hidden_size)
        self.bias = bias
        rows = as_positive(name, "num_chunks", num_chunks) * self.hidden_size
        self.weight_ih = empty_parameter((rows, self.input_size), device, dtype)
        self.weight_hh = empty_parameter((rows, self.hidden_size), device, dtype)
        for key in ("bias_ih", "bias_hh"):
            self.register_parameter(key, empty_parameter((rows,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize all parameters again with random values."""
        _initialize(self, self.hidden_size)

    def _step(self, cell: str, input: Any, states: Sequence[Any] | None) -> list[Tensor]:
        """The states after a step, from the input (n, input_size) or (input_size,) and the states before, None for 0."""
        name, x = type(self).__name__, wrap(input)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: the input has shape {tuple(x.shape)}; expected (n, {self.input_size}), or ({self.input_size},) of one "
                "sequence"
            )
        _check_dtype(name, "the input", x, self.weight_ih)
        shape, rows = (*x.shape[:-1], self.hidden_size), x.reshape(-1, self.input_size)
        given = []
        for label, state in zip(("hx", "cx"), states or ()):
            state = _check_state(name, label, state, self.weight_ih, shape, "(n, hidden_size), as the input")
            given.append(state.reshape(-1, self.hidden_size))
        h, c = (*given, None, None)[:2]
        _, *found = run_direction(
            rows, h, c, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, cell=cell, batch_sizes=(len(rows),),
            reverse=False,
        )  # fmt: skip
        return [state.reshape(*shape) for state in found]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RNNCellBase):
    """One step of an :class:`RNN`: the input (n, input_size) and the state (n, hidden_size), 0 by default, give the next state.

    Args:
        input_size, hidden_size, bias, nonlinearity, device, dtype: as of :class:`RNN`.

    Raises:
        ArgumentError: an argument is out of its range.
        ShapeError, DtypeError: on a call, the input or the state does not match.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        _mode_of(type(self).__name__, nonlinearity)
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        mode = _mode_of(type(self).__name__, self.nonlinearity)
        return self._step(_CELLS[mode], input, None if hx is None else (hx,))[0]

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTMCell(RNNCellBase):
    """One step of an :class:`LSTM`: the input (n, input_size) and the pair (h, c), each (n, hidden_size), 0 by default, give the
    next pair.

    Args:
        input_size, hidden_size, bias, device, dtype: as of :class:`LSTM`.

    Raises:
        ArgumentError: an argument is out of its range.
        ShapeError, DtypeError: on a call, the input or a state does not match.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        h, c = self._step("lstm", input, None if hx is None else _state_pair(type(self).__name__, hx))
        return h, c


class GRUCell(RNNCellBase):
    """One step of a :class:`GRU`: the input (n, input_size) and the state (n, hidden_size), 0 by default, give the next state.

    Args:
        input_size, hidden_size, bias, device, dtype: as of :class:`GRU`.

    Raises:
        ArgumentError: an argument is out of its range.
        ShapeError, DtypeError: on a call, the input or the state does not match.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Any, hx: Any = None) -> Tensor:
        return self._step("gru", input, None if hx is None else (hx,))[0]
