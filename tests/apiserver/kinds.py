"""The kinds of object a server has: a table, no code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

STORED = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
ASKED = ("create",)
"""Verbs of reviews: created, answered, forgotten."""


@dataclass(frozen=True)
class Column:
    """One column of `kubectl get`: a dotted path, or a name that tables.py computes."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    """1 is shown by `-o wide` only."""


@dataclass(frozen=True)
class Kind:
    """One resource of one version."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = STORED
    status: bool = False
    """Has a status subresource: then status is written there and only there."""
    generation: bool = False
    """metadata.generation counts changes of anything but metadata and status."""
    custom: bool = False
    unconditional: bool = True
    """A PUT without resourceVersion is allowed."""
    creates_on_put: bool = False
    fields: tuple[str, ...] = ()
    """Field selectors beside metadata.name and metadata.namespace."""
    columns: tuple[Column, ...] = ()
    returns_deleted: bool = False
    """DELETE answers with the object and not with a Status."""

    @cached_property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def qualified(self) -> str:
        """As messages name it: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def head(self) -> bytes:
        """How the JSON of an object begins; the rest of it is stored."""
        return f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}",'.encode()

    @property
    def singular(self) -> str:
        return self.kind.lower()

    def path(self, namespace: str = "") -> str:
        """The URL path of the collection."""
        prefix = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        return f"{prefix}/namespaces/{namespace}/{self.plural}" if namespace else f"{prefix}/{self.plural}"


AGE = Column("Age", "age")
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
)
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.uid",
    "reason",
    "type",
)
_POD_COLUMNS = (
    Column("Ready", "ready-containers"),
    Column("Status", "pod-status"),
    Column("Restarts", "restarts"),
    AGE,
    Column("IP", "status.podIP", priority=1),
    Column("Node", "spec.nodeName", priority=1),
)
_CORE = (
    Kind(
        "",
        "v1",
        "Namespace",
        "namespaces",
        namespaced=False,
        short=("ns",),
        status=True,
        fields=("status.phase",),
        columns=(Column("Status", "status.phase"), AGE),
        returns_deleted=True,
    ),
    Kind(
        "",
        "v1",
        "Pod",
        "pods",
        short=("po",),
        status=True,
        generation=True,
        fields=_POD_FIELDS,
        columns=_POD_COLUMNS,
        returns_deleted=True,
    ),
    Kind(
        "",
        "v1",
        "Service",
        "services",
        short=("svc",),
        status=True,
        columns=(Column("Type", "spec.type"), Column("Cluster-IP", "spec.clusterIP"), Column("Port(s)", "ports"), AGE),
        returns_deleted=True,
    ),
    Kind("", "v1", "ConfigMap", "configmaps", short=("cm",), columns=(Column("Data", "count:data"), AGE)),
    Kind(
        "",
        "v1",
        "Secret",
        "secrets",
        fields=("type",),
        columns=(Column("Type", "type"), Column("Data", "count:data"), AGE),
    ),
    Kind(
        "",
        "v1",
        "ServiceAccount",
        "serviceaccounts",
        short=("sa",),
        columns=(Column("Secrets", "count:secrets"), AGE),
        returns_deleted=True,
    ),
    Kind(
        "",
        "v1",
        "Event",
        "events",
        short=("ev",),
        creates_on_put=True,
        fields=_EVENT_FIELDS,
        columns=(
            Column("Last Seen", "lastTimestamp"),
            Column("Type", "type"),
            Column("Reason", "reason"),
            Column("Message", "message"),
        ),
    ),
    Kind(
        "",
        "v1",
        "Node",
        "nodes",
        namespaced=False,
        short=("no",),
        status=True,
        fields=("spec.unschedulable",),
        columns=(Column("Status", "condition:Ready"), AGE),
    ),
)
_RBAC = "rbac.authorization.k8s.io"
_CRD_COLUMNS = (Column("Created At", "metadata.creationTimestamp"),)
BUILT_IN: tuple[Kind, ...] = (
    *_CORE,
    Kind(
        "apps",
        "v1",
        "Deployment",
        "deployments",
        short=("deploy",),
        status=True,
        generation=True,
        columns=(Column("Ready", "ready-replicas"), Column("Available", "status.availableReplicas", "integer"), AGE),
    ),
    Kind(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        unconditional=False,
        creates_on_put=True,
        columns=(Column("Holder", "spec.holderIdentity"), AGE),
    ),
    Kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False, verbs=ASKED),
    Kind("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews", namespaced=False, verbs=ASKED),
    Kind("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", namespaced=False, verbs=ASKED),
    Kind(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        namespaced=False,
        verbs=ASKED,
    ),
    Kind(
        "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", namespaced=False, verbs=ASKED
    ),
    Kind(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        generation=True,
        columns=(Column("AddressType", "addressType"), Column("Endpoints", "count:endpoints"), AGE),
    ),
    Kind(_RBAC, "v1", "Role", "roles", creates_on_put=True, columns=_CRD_COLUMNS),
    Kind(
        _RBAC,
        "v1",
        "RoleBinding",
        "rolebindings",
        creates_on_put=True,
        columns=(Column("Role", "roleRef.name"), AGE),
    ),
    Kind(_RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False, creates_on_put=True, columns=_CRD_COLUMNS),
    Kind(
        _RBAC,
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        namespaced=False,
        creates_on_put=True,
        columns=(Column("Role", "roleRef.name"), AGE),
    ),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        namespaced=False,
        short=("crd", "crds"),
        status=True,
        generation=True,
        unconditional=False,
        columns=_CRD_COLUMNS,
        returns_deleted=True,
    ),
)
NAMESPACE = BUILT_IN[0]
POD = BUILT_IN[1]
CRD = BUILT_IN[-1]
