"""``python -m gpunet`` is the command ``gpunet``."""

import sys

from gpunet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
