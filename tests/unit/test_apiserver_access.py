"""The API server in tests: tokens, rules, reviews. Rules: "Using RBAC Authorization" and "Authenticating"."""

from __future__ import annotations

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import MAPS, PODS, Client, config_map, pod, served

PICKER = "system:serviceaccount:llm:picker"
READ = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"], "namespaces": ["llm"]}
TABLE = {
    "picker": (PICKER, [READ]),
    "one": ("one", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"], "resourceNames": ["own"]}]),
    "scraper": ("scraper", [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]),
    "status": ("status", [{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}]),
    "admin": ("admin", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]),
}
CAN = "/apis/authorization.k8s.io/v1"


@served()
async def test_without_a_table_everybody_may_do_everything(server: ApiServer, client: Client) -> None:
    assert (await client.ask("GET", PODS, token="whatever")).status == 200
    assert server.requests == [("GET", PODS, "system:anonymous")]


@served(rbac=TABLE)
async def test_a_token_nobody_has_is_unauthorized(server: ApiServer, client: Client) -> None:
    answer = await client.ask("GET", PODS, token="stolen")
    assert answer.failure == (401, "Unauthorized", "Unauthorized")
    assert server.requests == [("GET", PODS, "")]


@served(rbac=TABLE)
async def test_requests_are_written_down_with_their_user(server: ApiServer, client: Client) -> None:
    await client.ask("GET", f"{PODS}?limit=1", token="picker")
    await client.ask("DELETE", f"{PODS}/a", token="picker")
    assert server.requests == [("GET", f"{PODS}?limit=1", PICKER), ("DELETE", f"{PODS}/a", PICKER)]


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        (
            "GET",
            "/api/v1/pods",
            f'pods is forbidden: User "{PICKER}" cannot list resource "pods" in API group "" at the cluster scope',
        ),
        (
            "GET",
            "/api/v1/namespaces/other/pods?watch=1",
            f'pods is forbidden: User "{PICKER}" cannot watch resource "pods" in API group "" in the namespace "other"',
        ),
        (
            "DELETE",
            f"{PODS}/a",
            f'pods "a" is forbidden: User "{PICKER}" cannot delete resource "pods" in API group "" '
            'in the namespace "llm"',
        ),
        (
            "PATCH",
            f"{PODS}/a/status",
            f'pods "a" is forbidden: User "{PICKER}" cannot patch resource "pods/status" in API group "" '
            'in the namespace "llm"',
        ),
        (
            "GET",
            "/apis/llm-d.ai/v1alpha2/namespaces/llm/inferenceobjectives",
            f'inferenceobjectives.llm-d.ai is forbidden: User "{PICKER}" cannot list resource "inferenceobjectives" '
            'in API group "llm-d.ai" in the namespace "llm"',
        ),
        ("GET", "/metrics", f'forbidden: User "{PICKER}" cannot get path "/metrics"'),
    ],
    ids=["cluster", "other namespace", "verb", "subresource", "absent kind", "no resource"],
)
def test_what_no_rule_allows_is_forbidden(method: str, path: str, says: str) -> None:
    @served(rbac=TABLE)
    async def refused(server: ApiServer, client: Client) -> None:
        assert (await client.ask(method, path, token="picker")).failure == (403, "Forbidden", says)

    refused()


@served(rbac=TABLE)
async def test_what_a_rule_allows_is_done(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    assert (await client.ask("GET", PODS, token="picker")).names == ["a"]
    patch = {"status": {"phase": "Failed"}}
    form = "application/merge-patch+json"
    assert (await client.ask("PATCH", f"{PODS}/a/status", patch, form=form, token="status")).status == 200
    assert (await client.ask("PATCH", f"{PODS}/a", patch, form=form, token="status")).status == 403
    assert (await client.ask("GET", "/metrics", token="scraper")).status == 404  # may, but there is none


@pytest.mark.parametrize(
    ("resource", "status", "main"),
    [("pods", 403, 200), ("pods/status", 200, 403), ("*/status", 200, 403), ("*", 200, 200)],
)
def test_a_subresource_needs_a_rule_of_its_own(resource: str, status: int, main: int) -> None:
    rule = {"apiGroups": [""], "resources": [resource], "verbs": ["get"]}

    @served(rbac={"token": ("user", [rule])})
    async def ask(server: ApiServer, client: Client) -> None:
        server.create(pod("a"))
        paths = (f"{PODS}/a/status", f"{PODS}/a")
        assert [(await client.ask("GET", path, token="token")).status for path in paths] == [status, main]

    ask()


@served(rbac=TABLE)
async def test_a_rule_for_one_name_allows_lists_that_ask_for_it(server: ApiServer, client: Client) -> None:
    server.create(config_map("own"))
    server.create(config_map("other"))
    asked = {path: (await client.ask("GET", path, token="one")) for path in (f"{MAPS}/own", f"{MAPS}/other", MAPS)}
    assert [answer.status for answer in asked.values()] == [200, 403, 403]
    named = await client.ask("GET", f"{MAPS}?fieldSelector=metadata.name%3Down", token="one")
    assert (named.status, named.names) == (200, ["own"])


@served(rbac=TABLE)
async def test_discovery_is_for_known_users_and_health_for_all(server: ApiServer, client: Client) -> None:
    assert (await client.ask("GET", "/apis", token="picker")).status == 200
    assert (await client.get("/readyz")).body == b"ok"
    says = 'forbidden: User "system:anonymous" cannot get path "/apis"'
    assert (await client.get("/apis")).failure == (403, "Forbidden", says)


def _review(kind: str, spec: dict[str, object]) -> dict[str, object]:
    group = "authentication" if kind == "TokenReview" else "authorization"
    return {"apiVersion": f"{group}.k8s.io/v1", "kind": kind, "spec": spec}


@served(rbac=TABLE)
async def test_a_token_review_tells_whose_token_it_is(server: ApiServer, client: Client) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    good = await client.ask("POST", path, _review("TokenReview", {"token": "picker"}), token="admin")
    bad = await client.ask("POST", path, _review("TokenReview", {"token": "stolen"}), token="admin")
    user = good.json["status"]["user"]
    assert (good.status, good.json["status"]["authenticated"], user["username"]) == (201, True, PICKER)
    assert user["groups"] == ["system:serviceaccounts", "system:serviceaccounts:llm", "system:authenticated"]
    assert (bad.status, bad.json["status"]["user"], "authenticated" in bad.json["status"]) == (201, {}, False)
    assert "invalid bearer token" in bad.json["status"]["error"]


@served(rbac=TABLE)
async def test_who_may_not_ask_for_reviews_is_refused(server: ApiServer, client: Client) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    says = (
        f'tokenreviews.authentication.k8s.io is forbidden: User "{PICKER}" cannot create resource "tokenreviews" '
        'in API group "authentication.k8s.io" at the cluster scope'
    )
    answer = await client.ask("POST", path, _review("TokenReview", {"token": "x"}), token="picker")
    assert answer.failure == (403, "Forbidden", says)


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({"user": "scraper", "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}, True),
        ({"user": "scraper", "nonResourceAttributes": {"path": "/other", "verb": "get"}}, False),
        ({"user": PICKER, "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}, False),
        ({"user": PICKER, "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "llm"}}, True),
        ({"user": PICKER, "resourceAttributes": {"verb": "list", "resource": "pods"}}, False),
        ({"user": "nobody", "resourceAttributes": {"verb": "list", "resource": "pods"}}, False),
    ],
)
def test_an_access_review_answers_for_the_user_it_names(spec: dict[str, object], allowed: bool) -> None:
    @served(rbac=TABLE)
    async def ask(server: ApiServer, client: Client) -> None:
        review = _review("SubjectAccessReview", spec)
        answer = await client.ask("POST", f"{CAN}/subjectaccessreviews", review, token="admin")
        assert (answer.status, answer.json["status"]["allowed"]) == (201, allowed)

    ask()


@served(rbac=TABLE)
async def test_everybody_may_ask_what_they_may_themselves(server: ApiServer, client: Client) -> None:
    spec = {"resourceAttributes": {"verb": "watch", "resource": "pods", "namespace": "llm"}}
    path = f"{CAN}/selfsubjectaccessreviews"
    review = _review("SelfSubjectAccessReview", spec)
    allowed = [
        (await client.ask("POST", path, review, token=token)).json["status"]["allowed"] for token in ("picker", "one")
    ]
    assert allowed == [True, False]
    rules = await client.ask(
        "POST",
        f"{CAN}/selfsubjectrulesreviews",
        _review("SelfSubjectRulesReview", {"namespace": "llm"}),
        token="picker",
    )
    assert {"apiGroups": [""], "resources": ["pods"], "verbs": READ["verbs"]} in rules.json["status"]["resourceRules"]


@served(rbac=TABLE)
async def test_a_review_must_ask_exactly_one_thing(server: ApiServer, client: Client) -> None:
    answer = await client.ask(
        "POST", f"{CAN}/subjectaccessreviews", _review("SubjectAccessReview", {"user": "x"}), token="admin"
    )
    assert answer.failure[:2] == (400, "BadRequest")


@served()
async def test_reviews_are_created_only(server: ApiServer, client: Client) -> None:
    answer = await client.get("/apis/authentication.k8s.io/v1/tokenreviews")
    assert answer.failure == (
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )


RBAC = "rbac.authorization.k8s.io"


def _role(kind: str, verbs: list[str]) -> dict[str, object]:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]
    metadata = {"name": "reader", "namespace": "llm"} if kind == "Role" else {"name": "reader"}
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": rules}


def _binding(kind: str, role: str, subject: dict[str, str]) -> dict[str, object]:
    metadata = {"name": "readers", "namespace": "llm"} if kind == "RoleBinding" else {"name": "readers"}
    reference = {"apiGroup": RBAC, "kind": role, "name": "reader"}
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "subjects": [subject],
        "roleRef": reference,
    }


@pytest.mark.parametrize(
    ("binding", "role", "where"),
    [
        ("RoleBinding", "Role", [200, 403, 403]),
        ("RoleBinding", "ClusterRole", [200, 403, 403]),
        ("ClusterRoleBinding", "ClusterRole", [200, 200, 200]),
    ],
)
@pytest.mark.parametrize(
    "subject",
    [
        {"kind": "ServiceAccount", "name": "bound", "namespace": "llm"},
        {"kind": "User", "name": "system:serviceaccount:llm:bound"},
        {"kind": "Group", "name": "system:serviceaccounts:llm"},
    ],
    ids=["service account", "user", "group"],
)
def test_stored_roles_and_bindings_hold(binding: str, role: str, where: list[int], subject: dict[str, str]) -> None:
    paths = (PODS, "/api/v1/namespaces/other/pods", "/api/v1/pods")

    @served(rbac={"token": ("system:serviceaccount:llm:bound", [])})
    async def ask(server: ApiServer, client: Client) -> None:
        assert (await client.ask("GET", PODS, token="token")).status == 403
        server.create(_role(role, ["list"]))
        server.create(_binding(binding, role, subject))
        assert [(await client.ask("GET", path, token="token")).status for path in paths] == where

    ask()
