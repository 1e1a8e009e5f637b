"""ssmd: capture, journal, archive and serve prediction-market data.

Importing this package, or any module of it, opens, starts and reads nothing. `ssmd.open(env)` is the archive for
notebooks and backtests (`ssmd.api.archive`).
"""

from importlib import import_module as _import_module

__all__ = ["__version__", "open"]

__version__ = "0.1.0"


def open(env="", *, workspace="", mapper=0):  # noqa: A001, ANN001, ANN201 - called as ssmd.open; typed in __init__.pyi
    """The archive of an environment, for reading: see `ssmd.api.archive.open_archive`."""
    # By name: this module is imported by every other, and must not depend on the layers above them.
    return _import_module("ssmd.api.archive").open_archive(env, workspace=workspace, mapper=mapper)
