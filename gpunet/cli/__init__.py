"""The command line: ``gpunet train | info | explain``."""
