"""Data: small data sets, CSV and NumPy files, held-out splits, and batches that stay on their device."""

from gpunet.data.datasets import BUILT_IN, Dataset, load
from gpunet.data.loader import Batches
from gpunet.data.split import Split, Standardisation, split, standardise

__all__ = ["BUILT_IN", "Batches", "Dataset", "Split", "Standardisation", "load", "split", "standardise"]
