"""Training: the loop, checkpoints, run folders, and networks built by name."""

from gpunet.train.checkpoint import *
from gpunet.train.checkpoint import load_metadata
from gpunet.train.fit import *
from gpunet.train.network import *
from gpunet.train.run_folder import *
