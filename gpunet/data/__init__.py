"""Data: built-in data sets, CSV and NumPy files, held-out splits, standardisation, and batches on the device."""

from gpunet.data.datasets import *
from gpunet.data.loader import *
from gpunet.data.split import *
