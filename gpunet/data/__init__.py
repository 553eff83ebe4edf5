"""Data: samples and batches (PyTorch's ``utils.data``), data sets, also beyond memory, tables, text, splits, standardisation."""

from gpunet.data.block_sampler import *
from gpunet.data.block_sampler import __all__ as _block_sampler_names
from gpunet.data.blocks import *
from gpunet.data.blocks import __all__ as _blocks_names
from gpunet.data.collate import *
from gpunet.data.collate import __all__ as _collate_names
from gpunet.data.datasets import *
from gpunet.data.datasets import __all__ as _datasets_names
from gpunet.data.loader import *
from gpunet.data.loader import __all__ as _loader_names
from gpunet.data.parquet import *
from gpunet.data.parquet import __all__ as _parquet_names
from gpunet.data.samplers import *
from gpunet.data.samplers import __all__ as _samplers_names
from gpunet.data.shards import *
from gpunet.data.shards import __all__ as _shards_names
from gpunet.data.split import *
from gpunet.data.split import __all__ as _split_names
from gpunet.data.tabular import *
from gpunet.data.tabular import __all__ as _tabular_names
from gpunet.data.text import *
from gpunet.data.text import __all__ as _text_names
from gpunet.data.workers import *
from gpunet.data.workers import __all__ as _workers_names

__all__ = [
    *_block_sampler_names, *_blocks_names, *_collate_names, *_datasets_names, *_loader_names, *_parquet_names, *_samplers_names,
    *_shards_names, *_split_names, *_tabular_names, *_text_names, *_workers_names,
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
