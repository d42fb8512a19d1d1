"""Discovery against an API server: what is found, what changes, and what is kept when things go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver import ApiServer

from .kube_kit import (
    ALL,
    NAMESPACE,
    NEW_POOLS,
    OBJECTIVES,
    OLD_OBJECTIVES,
    OLD_POOLS,
    REWRITES,
    following,
    objective,
    pod,
    pool,
    rewrite,
    until,
)  # fmt: skip


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


def serving(*objects: dict[str, Any], crds: tuple[str, ...] = ALL, **options: Any) -> ApiServer:
    server = ApiServer(crds=crds, **options)
    for one in objects:
        server.create(one)
    return server


@in_loop
async def test_ready_pods_of_the_pool_are_endpoints(tmp_path: Path) -> None:
    objects = (pool(ports=(8000, 8001)), pod("a", "10.0.0.1"), pod("b", ready=False), pod("c", app="other"))
    async with serving(*objects) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0", "a-rank-1")
        assert found.endpoints == {"a-rank-0": "10.0.0.1:8000", "a-rank-1": "10.0.0.1:8001"}


@in_loop
async def test_pods_come_change_and_go(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        server.create(pod("b", "10.0.0.2"))
        await found.shows("a-rank-0", "b-rank-0")
        server.patch("Pod", NAMESPACE, "a", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
        await found.shows("b-rank-0")
        server.patch("Pod", NAMESPACE, "b", {"metadata": {"labels": {"app": "other"}}})
        await found.shows()
        server.patch("Pod", NAMESPACE, "a", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        await found.shows("a-rank-0")
        server.delete("Pod", NAMESPACE, "a")
        await found.shows()


@in_loop
async def test_a_thousand_pods_come_in_pages(tmp_path: Path) -> None:
    pods = [pod(f"p{number}", f"10.0.{number // 250}.{number % 250 + 1}") for number in range(1200)]
    async with serving(pool(), *pods) as server, following(server, tmp_path) as found:
        await until(lambda: len(found.pool) == 1200)
        pages = [path for method, path, _ in server.requests if "/pods?" in path and "limit=500" in path]
        assert len(pages) == 3


@in_loop
async def test_a_pool_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    async with serving(pod("a")) as server, following(server, tmp_path) as found:
        await until(lambda: found.heard.stands.get(NEW_POOLS) == (True, 0, 0))
        assert not found.pool.synced
        server.create(pool())
        await found.shows("a-rank-0")


@in_loop
async def test_a_deleted_pool_leaves_no_endpoints_and_is_no_longer_known(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        server.delete("InferencePool", NAMESPACE, "pool")
        await until(lambda: not found.pool.synced)
        assert found.endpoints == {}
        server.create(pool())
        await found.shows("a-rank-0")


@in_loop
async def test_another_selector_replaces_the_pods(tmp_path: Path) -> None:
    async with serving(pool(), pod("a"), pod("b", app="other")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        sizes: list[int] = []
        server.patch("InferencePool", NAMESPACE, "pool", {"spec": {"selector": {"matchLabels": {"app": "other"}}}})
        await until(lambda: sizes.append(len(found.pool)) or set(found.endpoints) == {"b-rank-0"})
        assert 0 not in sizes


@in_loop
async def test_other_ports_need_no_new_list(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        listed = sum("limit=500" in path and "/pods" in path for _, path, _ in server.requests)
        server.patch(
            "InferencePool", NAMESPACE, "pool", {"spec": {"targetPorts": [{"number": 9000}, {"number": 9001}]}}
        )
        await found.shows("a-rank-0", "a-rank-1")
        assert found.endpoints["a-rank-0"] == "10.0.0.1:9000"
        assert sum("limit=500" in path and "/pods" in path for _, path, _ in server.requests) == listed


@in_loop
async def test_a_pool_of_the_former_version_counts_where_only_that_exists(tmp_path: Path) -> None:
    async with serving(pool("old"), pod("a"), crds=(OLD_POOLS,)) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")


@in_loop
async def test_the_current_version_goes_before_the_former(tmp_path: Path) -> None:
    objects = (pool("old", ports=(1,)), pool(ports=(2,)), pod("a"))
    async with serving(*objects, crds=(OLD_POOLS, NEW_POOLS)) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        assert found.endpoints == {"a-rank-0": "10.0.0.1:2"}


@in_loop
async def test_kinds_that_are_installed_later_are_picked_up(tmp_path: Path) -> None:
    async with serving(pod("a"), crds=()) as server, following(server, tmp_path) as found:
        await until(lambda: {(NEW_POOLS, "absent"), (OBJECTIVES, "absent")} <= set(found.heard.failures))
        for name, one in ((NEW_POOLS, pool()), (OBJECTIVES, objective("batch", -1))):
            server.install(name)
            server.create(one)
        await found.shows("a-rank-0")
        await until(lambda: found.steering.objectives == {"batch": -1})


@in_loop
async def test_objectives_and_rewrites_steer(tmp_path: Path) -> None:
    objects = (pool(), objective("batch", -1), rewrite("r", "m", "m-v2"))
    async with serving(*objects) as server, following(server, tmp_path) as found:
        await until(lambda: found.steering.objectives == {"batch": -1})
        await until(lambda: found.steering.rewrites.models == {"m", "m-v2"})
        server.patch("InferenceObjective", NAMESPACE, "batch", {"spec": {"priority": 7}})
        server.delete("InferenceModelRewrite", NAMESPACE, "r")
        await until(lambda: found.steering.objectives == {"batch": 7})
        await until(lambda: not found.steering.rewrites.models)


@in_loop
async def test_objectives_of_the_former_group_count_only_without_the_current_one(tmp_path: Path) -> None:
    former = objective("old", 3, "inference.networking.x-k8s.io")
    async with (
        serving(pool(), former, crds=(NEW_POOLS, OLD_OBJECTIVES)) as server,
        following(server, tmp_path) as found,
    ):
        await until(lambda: found.steering.objectives == {"old": 3})
        server.install(OBJECTIVES)
        server.create(objective("new", 5))
        await until(lambda: found.steering.objectives == {"new": 5})


@in_loop
async def test_a_selector_needs_no_custom_kind(tmp_path: Path) -> None:
    place = {"selector": "app in (vllm,x),!y", "ports": (8000,)}
    async with serving(pod("a"), pod("b", app="b"), crds=()) as server, following(server, tmp_path, **place) as found:
        await found.shows("a-rank-0")
        assert not [path for _, path, _ in server.requests if path.startswith("/apis/")]


# ---- what goes wrong


@in_loop
async def test_endpoints_stay_while_the_server_is_away(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        server.faults.refuse = True
        server.faults.cut_watches()
        await until(lambda: found.heard.stands["pods"][0] is False)
        assert set(found.endpoints) == {"a-rank-0"}
        server.create(pod("b", "10.0.0.2"))
        server.faults.refuse = False
        await found.shows("a-rank-0", "b-rank-0")


@in_loop
async def test_a_watch_that_falls_silent_is_begun_anew(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        server.faults.silent = True
        server.create(pod("b", "10.0.0.2"))
        await until(lambda: ("pods", "silent") in found.heard.failures)
        server.faults.silent = False
        await found.shows("a-rank-0", "b-rank-0")


@pytest.mark.parametrize("as_status", [False, True], ids=["as an event", "as a status"])
@in_loop
async def test_a_version_too_old_lists_anew(tmp_path: Path, as_status: bool) -> None:
    async with serving(pool(), pod("a"), pod("b", "10.0.0.2")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0", "b-rank-0")
        server.faults.gone_as_status = as_status
        server.faults.refuse = True
        server.faults.cut_watches()
        await until(lambda: found.heard.stands["pods"][0] is False)
        server.delete("Pod", NAMESPACE, "a")
        server.create(pod("c", "10.0.0.3"))
        server.faults.compact()
        server.faults.refuse = False
        await found.shows("b-rank-0", "c-rank-0")
        assert ("pods", "expired") in found.heard.failures


@in_loop
async def test_a_page_that_expires_begins_the_list_anew(tmp_path: Path) -> None:
    pods = [pod(f"p{number}", f"10.0.{number // 250}.{number % 250 + 1}") for number in range(600)]
    async with serving(pool(), *pods) as server:
        server.faults.expire_continue = True
        async with following(server, tmp_path) as found:
            await until(lambda: ("pods", "expired") in found.heard.failures)
            server.faults.expire_continue = False
            await until(lambda: len(found.pool) == 600)


@in_loop
async def test_a_kind_we_may_not_read_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"], "namespaces": [NAMESPACE]},
        {"apiGroups": ["inference.networking.k8s.io"], "resources": ["inferencepools"], "verbs": ["list", "watch"]},
    ]
    async with serving(pool(), pod("a"), rbac={"t": ("epp", rules)}) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        await until(lambda: (REWRITES, "forbidden") in found.heard.failures)
        watch = next(w for w in found.feed.watches() if w.kind.resource == REWRITES)
        assert watch.phase == "forbidden"
        assert "list and watch" in watch.problem


@in_loop
async def test_without_leave_to_read_pods_the_pool_is_not_known_and_then_it_is(tmp_path: Path) -> None:
    pools = {"apiGroups": ["*"], "resources": ["inferencepools"], "verbs": ["*"]}
    rbac: dict[str, Any] = {"t": ("epp", [pools])}
    async with serving(pool(), pod("a"), rbac=rbac) as server, following(server, tmp_path) as found:
        await until(lambda: ("pods", "forbidden") in found.heard.failures)
        assert not found.pool.synced
        rbac["t"][1].append({"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]})
        await found.shows("a-rank-0")


@in_loop
async def test_broken_objects_keep_what_they_said_before(tmp_path: Path) -> None:
    async with serving(pool(), pod("a"), pod("b", "10.0.0.2")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0", "b-rank-0")
        server.patch("InferencePool", NAMESPACE, "pool", {"spec": {"targetPorts": "eight thousand"}})
        server.patch("Pod", NAMESPACE, "a", {"status": {"podIP": 7}})
        await until(lambda: (found.heard.stands["pods"][2], found.heard.stands[NEW_POOLS][2]) == (1, 1))
        server.delete("Pod", NAMESPACE, "b")
        await found.shows("a-rank-0")
        server.patch("Pod", NAMESPACE, "a", {"status": {"podIP": "10.0.0.9"}})
        await until(lambda: found.endpoints == {"a-rank-0": "10.0.0.9:8000"})
        assert found.heard.stands["pods"][2] == 0


@pytest.mark.parametrize("garbage", ["line", "types"])
@in_loop
async def test_nonsense_in_a_watch_is_survived(tmp_path: Path, garbage: str) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        server.faults.garbage = garbage
        server.create(pod("b", "10.0.0.2"))
        await found.shows("a-rank-0", "b-rank-0")


@in_loop
async def test_errors_of_the_server_are_waited_out(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server:
        server.faults.status = {"/api": 500, "/apis": 429}
        async with following(server, tmp_path) as found:
            await until(lambda: len(found.heard.failures) > 20)
            server.faults.status = {}
            await found.shows("a-rank-0")


@in_loop
async def test_a_kind_that_vanishes_is_believed_gone_only_when_that_is_said_again(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        sizes: list[int] = []
        found.heard.then = lambda resource, cause: sizes.append(len(found.pool)) if resource == NEW_POOLS else None
        server.faults.status = {"/apis/inference.networking.k8s.io": 404}
        server.faults.cut_watches()
        await until(lambda: not found.pool.synced)
        assert (sizes[:3], len(found.pool)) == ([1, 1, 1], 0)


@in_loop
async def test_a_kind_that_is_uninstalled_takes_its_objects_with_it(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        server.uninstall(NEW_POOLS)
        await until(lambda: not found.pool.synced)
        assert found.endpoints == {}


@in_loop
async def test_watches_end_and_go_on_without_a_new_list(tmp_path: Path) -> None:
    async with serving(pool(), pod("a")) as server, following(server, tmp_path) as found:
        await found.shows("a-rank-0")
        for number in range(3):
            server.faults.cut_watches()
            server.create(pod(f"n{number}", f"10.0.1.{number + 1}"))
            await found.shows("a-rank-0", *(f"n{one}-rank-0" for one in range(number + 1)))
        pods = [path for _, path, _ in server.requests if "/pods?" in path and "limit=500" in path]
        assert len(pods) == 1


@in_loop
async def test_a_rotated_token_is_taken_up(tmp_path: Path) -> None:
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    rbac: dict[str, Any] = {"old": ("epp", rules)}
    async with serving(pool(), pod("a"), rbac=rbac) as server, following(server, tmp_path, token="old") as found:
        await found.shows("a-rank-0")
        rbac["new"] = rbac.pop("old")
        server.kubeconfig(tmp_path / "kubeconfig", token="new")
        server.faults.cut_watches()
        server.create(pod("b", "10.0.0.2"))
        await found.shows("a-rank-0", "b-rank-0")


@in_loop
async def test_an_objective_that_changes_leaves_the_rewrites_as_they_are(tmp_path: Path) -> None:
    objects = (pool(), objective("one", 1), rewrite("r", "m", "n"))
    async with serving(*objects) as server, following(server, tmp_path) as found:
        await until(lambda: found.steering.objectives and found.steering.rewrites.models)
        before = found.steering.rewrites
        server.create(objective("two", 2))
        await until(lambda: len(found.steering.objectives) == 2)
        assert found.steering.rewrites is before
        server.create(rewrite("other", "a", "b"))
        await until(lambda: found.steering.rewrites.find("a"))
        assert found.steering.rewrites is not before
