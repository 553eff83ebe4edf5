"""The main module of processes that a script under ``gpunet run`` spawns: the script again, under the same names."""

import os
from pathlib import Path

from gpunet.interop.run_script import SCRIPT_VARIABLE, run_file
from gpunet.interop.torch_modules import torch_names

if __name__ == "__mp_main__":
    hook = torch_names()
    hook.__enter__()  # as long as the process lives: nothing leaves it
    run_file(Path(os.environ[SCRIPT_VARIABLE]), globals())
