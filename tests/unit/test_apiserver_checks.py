"""The API server in tests: what it refuses to store, in the words of the real one."""

from __future__ import annotations

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import LEASES, PODS, Client, pod, served

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"


def _lease(**spec: object) -> dict[str, object]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "leader"}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ({"leaseDurationSeconds": 0}, 422, "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"),
        ({"leaseTransitions": -1}, 422, "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"),
        ({"leaseDurationSeconds": "15"}, 400, "cannot unmarshal string into Go struct field"),
        ({"leaseDurationSeconds": 15.5}, 400, "cannot unmarshal number into Go struct field"),
        ({"holderIdentity": 7}, 400, "cannot unmarshal number into Go struct field LeaseSpec.spec.holderIdentity"),
        (
            {"renewTime": "2025-06-15T12:00:00Z"},
            400,
            'parsing time "2025-06-15T12:00:00Z" as "2006-01-02T',
        ),
        ({"acquireTime": "2025-06-15T12:00:00.123Z"}, 400, "cannot parse"),
        ({"renewTime": "2025-06-15T12:00:00.000001"}, 400, "cannot parse"),
    ],
    ids=["no duration", "transitions", "text", "fraction", "holder", "no fraction", "milliseconds", "no zone"],
)
def test_a_lease_that_the_real_server_would_not_take_is_refused(spec: dict[str, object], code: int, says: str) -> None:
    @served()
    async def refused(server: ApiServer, client: Client) -> None:
        server.create(pod("a"))
        answer = await client.ask("POST", LEASES, _lease(**spec))
        assert (answer.status, says in answer.json["message"]) == (code, True), answer.json["message"]
        made = await client.ask("POST", LEASES, _lease(holderIdentity="a"))
        patched = await client.ask("PATCH", f"{LEASES}/leader", {"spec": spec}, form=MERGE)
        assert (made.status, patched.status) == (201, code)

    refused()


@served()
async def test_times_of_a_lease_are_kept_in_utc(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    spec = {"renewTime": "2025-06-15T12:00:00.000000+02:00", "acquireTime": None}
    answer = await client.ask("POST", LEASES, _lease(**spec))
    assert answer.json["spec"]["renewTime"] == "2025-06-15T10:00:00.000000Z"


@pytest.mark.parametrize("labels", ["text", ["list"], {"key": {"deep": "er"}}], ids=["text", "list", "deep"])
def test_labels_of_another_type_are_refused(labels: object) -> None:
    @served()
    async def refused(server: ApiServer, client: Client) -> None:
        sent = pod("a", "default")
        sent["metadata"]["labels"] = labels
        code, reason, message = (await client.ask("POST", "/api/v1/namespaces/default/pods", sent)).failure
        assert (code, reason) == (400, "BadRequest")
        assert message.startswith('Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal')

    refused()


@served()
async def test_a_test_may_store_what_no_client_could(server: ApiServer, client: Client) -> None:
    broken = pod("a")
    broken["metadata"]["labels"] = "text"
    server.create(broken)
    server.create(pod("b", app="x"))
    assert (await client.get(PODS, labelSelector="app=x")).names == ["b"]
    assert (await client.get(PODS)).json["items"][0]["metadata"]["labels"] == "text"


def _definition(name: str, **spec: object) -> dict[str, object]:
    version = {"name": "v1", "served": True, "storage": True}
    names = {"kind": "Widget", "plural": "widgets"}
    whole = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]} | spec
    head = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return head | {"metadata": {"name": name}, "spec": whole}


@served()
async def test_a_definition_is_established_at_once(server: ApiServer, client: Client) -> None:
    made = (await client.ask("POST", CRDS, _definition("widgets.example.com"))).json
    assert {each["type"]: each["status"] for each in made["status"]["conditions"]}["Established"] == "True"
    assert (await client.get("/apis/example.com/v1/widgets")).names == []


@served()
async def test_a_changed_definition_changes_its_kind(server: ApiServer, client: Client) -> None:
    await client.ask("POST", CRDS, _definition("widgets.example.com"))
    names = {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]}
    await client.ask("PATCH", f"{CRDS}/widgets.example.com", {"spec": {"names": names}}, form=MERGE)
    [entry] = (await client.get("/apis/example.com/v1")).json["resources"]
    assert entry["shortNames"] == ["wd"]


@pytest.mark.parametrize(
    "definition",
    [_definition("gadgets.example.com"), _definition("widgets.example.com", versions=[]), _definition("a", names={})],
    ids=["another name", "no version", "no names"],
)
def test_a_definition_that_defines_nothing_is_refused(definition: dict[str, object]) -> None:
    @served()
    async def refused(server: ApiServer, client: Client) -> None:
        assert (await client.ask("POST", CRDS, definition)).failure[:2] == (422, "Invalid")

    refused()
