"""JAX: the whole step as one jitted function with donated buffers."""

from __future__ import annotations

import os
from typing import Any

from gpunet.errors import DeviceError
from gpunet.tools.bench.cases import BETAS, EPSILON, LEARNING_RATES, Case, Runner


def make(case: Case, kind: str, variant: str, device: str) -> Runner:
    """A step that updates the donated parameters and optimizer state in place, in float32 without TF32."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other peers use the same GPU
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_default_matmul_precision", "highest")  # float32 without TF32, as all contestants
    platform = "gpu" if device.startswith("cuda") else "cpu"
    try:
        target = jax.devices(platform)[0]
    except RuntimeError as error:
        raise DeviceError(f"JAX finds no {platform}: {error}") from None

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        for weight, bias in parameters[:-1]:
            x = jax.nn.relu(x @ weight.T + bias)
        weight, bias = parameters[-1]
        out = x @ weight.T + bias
        if case.regression:
            return jnp.mean((out - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1))

    def sgd(state: Any, x: Any, y: Any) -> Any:
        parameters, _, _, _ = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        new = jax.tree.map(lambda p, g: p - LEARNING_RATES["sgd"] * g, parameters, gradients)
        return (new, *state[1:]), loss

    def adam(state: Any, x: Any, y: Any) -> Any:
        parameters, m, v, count = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        count, (beta1, beta2) = count + 1, BETAS
        m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, gradients)
        v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, v, gradients)
        rate, root = LEARNING_RATES["adam"] / (1 - beta1**count), 1 / jnp.sqrt(1 - beta2**count)
        new = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + EPSILON), parameters, m, v)
        return (new, m, v, count), loss

    parameters = [(jnp.asarray(layer.weight), jnp.asarray(layer.bias)) for layer in case.layers()]
    zeros = [jax.tree.map(jnp.zeros_like, parameters) if kind == "adam" else () for _ in range(2)]
    state = jax.device_put((parameters, *zeros, jnp.float32(0)), target)
    batches = [tuple(jax.device_put(a, target) for a in batch) for batch in case.batches()]
    result: Any = None

    if kind in LEARNING_RATES:
        update = jax.jit({"sgd": sgd, "adam": adam}[kind], donate_argnums=0)

        def step(x: Any, y: Any) -> Any:
            nonlocal state
            state, loss = update(state, x, y)
            return loss
    else:
        function = jax.jit(loss_of if kind == "forward" else jax.value_and_grad(loss_of))

        def step(x: Any, y: Any) -> Any:
            nonlocal result
            result = function(state[0], x, y)
            return result if kind == "forward" else result[0]

    def read(loss: Any) -> float:
        jax.block_until_ready((state, result))
        return float(loss)

    return Runner(step, batches, read)
