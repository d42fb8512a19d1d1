"""A small Kubernetes API server for tests: objects, watches, selectors, patches, access, and faults on demand."""

from tests.apiserver.crds import KNOWN
from tests.apiserver.errors import ApiError
from tests.apiserver.faults import Faults
from tests.apiserver.server import ApiServer

__all__ = ["KNOWN", "ApiError", "ApiServer", "Faults"]
