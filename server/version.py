"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("hark")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0.0.0"


VERSION = _installed()
