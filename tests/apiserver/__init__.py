"""A small Kubernetes API server for tests: objects, watches, selectors, patches, access, and faults on demand.

What it lacks of a real one: schemas (custom and built-in objects are taken whole, without defaults; leases, names and
labels are checked), server-side apply and managedFields, WatchList, several versions of a custom kind, the scale and
eviction subresources, controllers (nothing makes pods of a Deployment, collects garbage or schedules), and protobuf
beyond what kubectl sends. Its kubelet only ends pods: clients that want a running one write its status.
"""

from tests.apiserver.crds import KNOWN
from tests.apiserver.errors import ApiError
from tests.apiserver.faults import Faults
from tests.apiserver.server import ApiServer

__all__ = ["KNOWN", "ApiError", "ApiServer", "Faults"]
