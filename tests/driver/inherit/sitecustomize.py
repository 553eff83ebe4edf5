"""Installs the stand-in driver in processes that one with the stand-in has started, when they import CuPy."""

import importlib.abc
import os
import sys


class _AtImportOfCupy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "cupy":
            sys.meta_path.remove(self)
            from tests import driver

            lazy, devices, peers, check = map(int, os.environ["GPUNET_DRIVER_OPTIONS"].split(","))
            driver.install(bool(lazy), devices, bool(peers), bool(check))
        return None


if "GPUNET_DRIVER_OPTIONS" in os.environ:
    sys.meta_path.insert(0, _AtImportOfCupy())
