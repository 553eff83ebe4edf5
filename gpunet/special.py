"""Functions of ``torch.special``."""

from gpunet.ops.activations import sigmoid as expit
from gpunet.ops.arithmetic import exp2, logit
from gpunet.ops.bessel import *
from gpunet.ops.elementwise import erf, expm1, log1p
from gpunet.ops.entropy import *
from gpunet.ops.error_functions import *
from gpunet.ops.incomplete_gamma import igamma as gammainc
from gpunet.ops.incomplete_gamma import igammac as gammaincc
from gpunet.ops.norm import logsumexp
from gpunet.ops.orthogonal_polynomials import *
from gpunet.ops.rounding import round
from gpunet.ops.softmax import log_softmax, softmax
from gpunet.ops.special_functions import digamma, polygamma, zeta
from gpunet.ops.special_functions import digamma as psi
from gpunet.ops.special_functions import lgamma as gammaln
from gpunet.ops.special_functions import mvlgamma as multigammaln
from gpunet.ops.trigonometry import sinc
