"""Functions of ``torch.random``: seeds and states of random numbers."""

from gpunet.launch.random import default_generator, manual_seed, thread_safe_generator
from gpunet.ops.random import fork_rng, get_rng_state, initial_seed, seed, set_rng_state
