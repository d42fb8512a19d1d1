from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from epp.extproc.readiness import Readiness, Standing, obstacle, unready
from epp.plugins import Plugin
from tests.unit.kit import hooked

GOOD = Standing(synced=True)


class Loading:
    """A plug-in that is ready once it has loaded."""

    def __init__(self, loaded: bool = False) -> None:
        self.loaded = loaded

    def ready(self) -> bool:
        return self.loaded


class Broken:
    def ready(self) -> bool:
        raise SystemExit(3)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (GOOD, ""),
        (Standing(synced=False, draining=True, protocol_ok=False, leading=False), "draining"),
        (Standing(synced=False, protocol_ok=False, leading=False), "endpoints are not known yet"),
        (
            replace(GOOD, app_protocol="http", protocol_ok=False, leading=False),
            "the pool's appProtocol is http, which a configured parser can't be used with; change one of them",
        ),
        (replace(GOOD, leading=False), "another replica leads"),
    ],
    ids=["ready", "draining", "synced", "protocol", "leading"],
)
def test_what_stands_in_the_way_most_is_told(standing: Standing, why: str) -> None:
    assert obstacle(standing) == why


@pytest.mark.parametrize(
    ("plugins", "told"),
    [
        ([], ("", "")),
        ([hooked(object(), "silent"), hooked(Loading(True), "loaded")], ("", "")),
        ([hooked(Loading(), "one"), hooked(Loading(True), "two"), hooked(Loading(), "three")], ("one, three", "")),
        ([hooked(Broken(), "broken"), hooked(Loading(), "one")], ("one", "broken: SystemExit(3)")),
    ],
    ids=["none", "ready", "two wait", "one fails"],
)
def test_plugins_that_say_so_are_not_ready(plugins: list[Plugin], told: tuple[str, str]) -> None:
    assert unready(plugins) == told


def test_plugins_count_for_readiness_alone() -> None:
    loading = Loading()
    readiness = Readiness(lambda: GOOD, lambda: [hooked(loading, "index")])
    assert (readiness.reachable(), readiness.ready(), readiness.why_not()) == (
        *(True, False, "plug-ins are not ready: index"),
    )
    loading.loaded = True
    assert readiness.ready()


def test_each_change_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    standing = [replace(GOOD, synced=False)]
    readiness = Readiness(lambda: standing[0])
    for now in (standing[0], standing[0], GOOD, GOOD, replace(GOOD, draining=True), replace(GOOD, draining=True)):
        standing[0] = now
        readiness.ready()
    assert lines(caplog) == ["not ready: endpoints are not known yet", "ready", "not ready: draining"]


def test_a_plugin_that_fails_to_tell_is_taken_for_ready_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    readiness = Readiness(lambda: GOOD, lambda: [hooked(Broken(), "broken")])
    assert readiness.ready()
    assert readiness.ready()
    assert lines(caplog)[:1] == ["taken for ready, since ready() failed: broken: SystemExit(3)"]
    assert len([line for line in lines(caplog) if "failed" in line]) == 1
