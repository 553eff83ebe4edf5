"""Data: small data sets, CSV and NumPy files, held-out splits, and batches that stay on their device."""

from gpunet.data.datasets import *
from gpunet.data.loader import *
from gpunet.data.split import *
