import re

import msgspec
import pytest

from epp.kube import ApiError
from epp.kube.lease import Claim, Lease, Timings, lease_name, micro_time, new_identity, read_lease, written

GO_LEASE = b"""{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
"metadata": {"name": "epp-ns-pool.llm-d.ai", "namespace": "ns", "resourceVersion": "4711", "labels": {"a": "b"}},
"spec": {"acquireTime": "2026-08-01T10:00:00.123456Z", "holderIdentity": "epp-7d9-x_8f0c", "leaseDurationSeconds": 15,
"leaseTransitions": 2, "renewTime": "2026-08-01T10:01:00.654321Z"}}"""


def test_a_lease_that_go_wrote_is_read() -> None:
    lease = read_lease(GO_LEASE)
    assert lease.record == (
        *(True, "epp-7d9-x_8f0c", 15, "2026-08-01T10:00:00.123456Z", "2026-08-01T10:01:00.654321Z", 2),
    )
    assert lease.version == "4711"


def test_a_renewal_keeps_the_metadata_and_with_it_the_version_it_replaces() -> None:
    lease = read_lease(GO_LEASE)
    sent = msgspec.json.decode(written(Claim(lease, "me", 15, 3, lease.acquired), "name", "ns", 0.25))
    assert sent["metadata"] == msgspec.json.decode(GO_LEASE)["metadata"]
    assert sent["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-08-01T10:00:00.123456Z",
        "renewTime": "1970-01-01T00:00:00.250000Z",
        "leaseTransitions": 3,
    }


def test_what_is_created_has_name_namespace_and_no_version() -> None:
    sent = msgspec.json.decode(written(Claim(Lease(exists=False), "me", 15), "name", "ns", 0.0))
    assert sent["metadata"] == {"name": "name", "namespace": "ns"}
    assert sent["spec"]["acquireTime"] == sent["spec"]["renewTime"]


@pytest.mark.parametrize("body", [b"", b"null", b'{"spec": {}}', b'{"metadata": {"resourceVersion": 7}}'], ids=str)
def test_what_has_no_version_is_no_lease(body: bytes) -> None:
    with pytest.raises(ApiError, match="no Lease"):
        read_lease(body)


@pytest.mark.parametrize(
    ("mine", "theirs", "older"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("10", "10", False),
        ("", "10", False),
        ("a", "10", False),
        ("9" * 5000, "10", False),
    ],
)
def test_versions_that_are_numbers_tell_which_is_older(mine: str, theirs: str, older: bool) -> None:
    assert Lease(version=mine).older_than(Lease(version=theirs)) is older


def test_times_have_microseconds_even_where_there_are_none() -> None:
    assert micro_time(1_700_000_000) == "2023-11-14T22:13:20.000000Z"


def test_the_lease_is_named_as_the_go_picker_names_it() -> None:
    assert lease_name("ns", "pool") == "epp-ns-pool.llm-d.ai"


@pytest.mark.parametrize(
    ("environ", "begins"), [({"POD_NAME": "pod"}, "pod"), ({"POD_NAME": ""}, "host"), ({}, "host")]
)
def test_an_identity_is_the_pod_or_the_host_and_new_each_time(environ: dict[str, str], begins: str) -> None:
    one, two = new_identity(environ, "host"), new_identity(environ, "host")
    assert one != two
    assert re.fullmatch(rf"{begins}_[0-9a-f-]{{36}}", one)


@pytest.mark.parametrize(
    ("timings", "flag"),
    [
        ((0, 10, 2), "--ha-lease-duration must be whole seconds"),
        ((15.5, 10, 2), "--ha-lease-duration must be whole seconds"),
        ((7200, 10, 2), "--ha-lease-duration must be whole seconds"),
        ((10, 10, 2), r"--ha-renew-deadline \(10 s\) must be below --ha-lease-duration \(10 s\)"),
        ((15, 10, 6), r"--ha-retry-period \(6 s\) must be at most half of --ha-renew-deadline \(10 s\)"),
        ((15, 10, 0), "--ha-retry-period"),
    ],
)
def test_timings_that_can_not_work_are_refused(timings: tuple[float, float, float], flag: str) -> None:
    with pytest.raises(ValueError, match=flag):
        Timings(*timings)
