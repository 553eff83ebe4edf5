"""The ops of layers, activations and losses as functions, with PyTorch's names."""

from gpunet.ops.activations import *
from gpunet.ops.attention import *
from gpunet.ops.batch_norm import *
from gpunet.ops.bilinear import *
from gpunet.ops.conv_transpose import *
from gpunet.ops.convolution import *
from gpunet.ops.cross_entropy import *
from gpunet.ops.ctc import *
from gpunet.ops.distance import *
from gpunet.ops.dropout import *
from gpunet.ops.embedding import *
from gpunet.ops.fold import *
from gpunet.ops.gates import *
from gpunet.ops.grid_sample import *
from gpunet.ops.interpolate import *
from gpunet.ops.likelihood_losses import *
from gpunet.ops.linear import *
from gpunet.ops.losses import *
from gpunet.ops.margin_losses import *
from gpunet.ops.multi_head_attention import *
from gpunet.ops.nll import *
from gpunet.ops.normalization import *
from gpunet.ops.one_hot import *
from gpunet.ops.pad import *
from gpunet.ops.pooling import *
from gpunet.ops.softmax import *
