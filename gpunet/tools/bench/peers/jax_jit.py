"""JAX: the whole step as one jitted function with donated buffers."""

from __future__ import annotations

import os
from typing import Any

from gpunet.errors import DeviceError
from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Case, Perceptron, Runner
from gpunet.tools.bench.networks import Network


def make(case: Case, kind: str, variant: str, device: str) -> Runner:
    """A step that updates the donated parameters, buffers and optimizer state in place, in float32 without TF32."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other peers use the same GPU
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "highest")  # float32 without TF32, as all contestants
    platform = "gpu" if device.startswith("cuda") else "cpu"
    try:
        target = jax.devices(platform)[0]
    except RuntimeError as error:
        raise DeviceError(f"JAX finds no {platform}: {error}") from None
    forward, parameters, buffers, batches = _parts(case)

    def loss_of(parameters: Any, buffers: Any, x: Any, y: Any) -> Any:
        buffers = dict(buffers)
        out = forward(parameters, buffers, x)
        if case.regression:
            return jnp.mean((out - y) ** 2), buffers
        logits = jax.nn.log_softmax(out.reshape(-1, out.shape[-1]))
        return -jnp.mean(jnp.take_along_axis(logits, y.reshape(-1, 1), 1)), buffers

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)

    def sgd(state: Any, x: Any, y: Any) -> Any:
        parameters, buffers, m, v, count = state
        (loss, buffers), gradients = gradient_of(parameters, buffers, x, y)
        new = jax.tree.map(lambda p, g: p - case.learning_rates["sgd"] * g, parameters, gradients)
        return (new, buffers, m, v, count), loss

    def adam(state: Any, x: Any, y: Any) -> Any:
        parameters, buffers, m, v, count = state
        (loss, buffers), gradients = gradient_of(parameters, buffers, x, y)
        count, (beta1, beta2) = count + 1, BETAS
        m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, gradients)
        v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, v, gradients)
        rate, root = case.learning_rates["adam"] / (1 - beta1**count), 1 / jnp.sqrt(1 - beta2**count)
        new = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + EPSILON), parameters, m, v)
        return (new, buffers, m, v, count), loss

    zeros = [jax.tree.map(jnp.zeros_like, parameters) if kind == "adam" else () for _ in range(2)]
    state = jax.device_put((parameters, buffers, *zeros, jnp.float32(0)), target)
    batches = [tuple(jax.device_put(a, target) for a in batch) for batch in batches]
    result: Any = None

    if kind in LEARNING_RATES:
        update = jax.jit({"sgd": sgd, "adam": adam}[kind], donate_argnums=0)

        def step(x: Any, y: Any) -> Any:
            nonlocal state
            state, loss = update(state, x, y)
            return loss
    else:
        function = jax.jit(loss_of if kind == "forward" else gradient_of, donate_argnums=1)

        def step(x: Any, y: Any) -> Any:
            nonlocal state, result
            result = function(*state[:2], x, y)
            loss, new = result if kind == "forward" else result[0]
            state = (state[0], new, *state[2:])
            return loss

    def read(loss: Any) -> float:
        jax.block_until_ready((state, result))
        return float(loss)

    return Runner(step, batches, read)


def _parts(case: Case) -> tuple[Any, Any, Any, Any]:
    """The forward function (parameters, buffers, x) -> output, parameters, buffers, and the batches."""
    import jax
    import jax.numpy as jnp

    if isinstance(case, Network):
        from gpunet.tools.bench.peers import jax_networks

        batches = [tuple(map(jax_networks.as_images_last, batch)) for batch in case.batches()]
        return jax_networks.FORWARD[case.name], *jax_networks.values_of(case), batches
    assert isinstance(case, Perceptron)

    def forward(parameters: Any, buffers: Any, x: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight.T + bias)
        weight, bias = parameters[-1]
        return x @ weight.T + bias

    return forward, [(jnp.asarray(layer.weight), jnp.asarray(layer.bias)) for layer in case.layers()], {}, case.batches()
