"""Features of the LeNets and training of candidates on CPUs, compiled by numba."""

import functools
import sys


@functools.cache
def usable() -> bool:
    """Return False, after a warning, where numba does not work."""
    try:
        import numba  # noqa: F401 - half a second, which only a search on a CPU needs
    except ImportError as error:
        print(f"warning: numba cannot be used ({error}), so the search takes several times longer", file=sys.stderr)
        return False
    return True
