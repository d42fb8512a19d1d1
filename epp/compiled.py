"""Whether the modules that each request passes through are C extensions."""

from importlib.machinery import EXTENSION_SUFFIXES

from epp import route


def compiled() -> bool:
    """False in a checkout, and where no C compiler was there when the package was built: then all of it is Python."""
    return str(route.__file__).endswith(tuple(EXTENSION_SUFFIXES))
