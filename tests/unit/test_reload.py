"""A changed configuration is in force as a whole, with what plug-ins remembered, or not at all."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.config import Live, Origin, start
from epp.feeds import FeedError
from epp.plugin_files import PACKAGE
from epp.reload import Reloader
from epp.testing import endpoints, request
from tests.config_kit import HEAD
from tests.unit import reload_gate
from tests.unit.reload_kit import CONFIG, COUNTER, COUNTING, Counts, Gate, World, modules_forgotten, run

INDEX = "approx-prefix-cache-producer"
Logged = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with modules_forgotten():
        yield


def errors(caplog: Logged) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]


def weights(live: Live) -> list[float]:
    return [weight for _, weight in live.built.setup.profiles["default"].scorers]


def test_changed_weights_are_in_force_and_plug_ins_keep_their_memory(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        index, queue = world.instance(INDEX), world.instance("queue-scorer")
        world.configure(CONFIG.replace("weight: 2", "weight: 5"))
        await world.settle()
        assert weights(world.live) == [5.0, 1.0]
        assert (world.instance(INDEX), world.instance("queue-scorer")) == (index, queue)
        assert world.applied == [world.live.built]
        assert (world.counts.successes, world.counts.failures) == (1, 0)

    run(test)


def test_content_that_did_not_change_is_not_loaded_again(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.configure(CONFIG)
        await world.settle()
        assert (world.applied, world.counts.successes) == ([], 0)

    run(test)


def test_a_change_counts_once_it_was_found_the_same_twice(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.configure("plugins: [")
        assert not await world.reloader.look()
        world.configure(CONFIG.replace("weight: 2", "weight: 5"))
        assert not await world.reloader.look()
        assert await world.reloader.look()
        assert (weights(world.live), world.counts.failures) == ([5.0, 1.0], 0)

    run(test)


BAD = {
    "no YAML": ("plugins: [", "configuration {file}: line 3: not valid YAML"),
    "an unknown type": (
        "plugins: [{type: queue-scoer}]",
        "configuration {file}: plugins[0].type (line 3): 'queue-scoer' is no plug-in type; did you mean queue-scorer?",
    ),
    "no text": (b"\xff", "configuration {file}: is not UTF-8 text"),
    "empty": (b" \n", "configuration {file}: the file is empty, which would mean the default configuration"),
}


@pytest.mark.parametrize(("config", "told"), BAD.values(), ids=list(BAD))
def test_a_bad_configuration_leaves_the_old_one_in_force_and_says_so_once(
    config: str | bytes, told: str, tmp_path: Path, caplog: Logged
) -> None:
    async def test() -> None:
        world = World(tmp_path)
        before = world.live
        world.configure(config)
        for _ in range(3):
            await world.settle()
        assert world.live is before
        assert (world.applied, world.counts.failures) == ([], 1)
        (line,) = errors(caplog)
        assert line.startswith(told.format(file=world.config_file))
        assert line.endswith("; what was loaded before stays in force")

    run(test)


def test_a_file_that_is_gone_is_told_once_and_its_return_changes_nothing(tmp_path: Path, caplog: Logged) -> None:
    async def test() -> None:
        world = World(tmp_path)
        before = world.live
        world.config_file.unlink()
        for _ in range(3):
            await world.settle()
        world.config_file.symlink_to("..data/epp.yaml")
        await world.settle()
        assert [line.partition(": ")[2][:28] for line in errors(caplog)] == ["can't be read: No such file "]
        assert (world.live, world.counts.failures, world.counts.successes) == (before, 1, 0)

    run(test)


def test_a_good_configuration_after_a_bad_one_is_taken_up(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        for config in ("plugins: [", CONFIG.replace("weight: 2", "weight: 7")):
            world.configure(config)
            await world.settle()
        assert weights(world.live) == [7.0, 1.0]
        assert (world.counts.successes, world.counts.failures) == (1, 1)

    run(test)


def test_other_settings_make_an_heir_that_adopts(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        world.instance("counter").count = 41
        world.configure("plugins: [{type: counter, parameters: {start: 7}}]\n")
        await world.settle()
        assert world.instance("counter").count == 41

    run(test)


def test_settings_that_only_spell_out_a_default_are_no_others(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        before = world.instance("counter")
        world.configure("plugins: [{type: counter, parameters: {START: 0}}]\n")
        await world.settle()
        assert world.instance("counter") is before

    run(test)


def test_changed_code_alone_is_taken_up_and_adopts(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        before = world.instance("counter")
        before.count = 41
        world.plug_in({"counter.py": COUNTER.replace("VERSION = 1", "VERSION = 2")})
        await world.settle()
        after = world.instance("counter")
        assert (type(after) is type(before), after.count) == (False, 41)
        assert sys.modules[type(after).__module__].VERSION == 2

    run(test)


def test_a_plug_in_under_another_name_begins_anew(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        world.instance("counter").count = 41
        world.configure("plugins: [{type: counter, name: other}]\n")
        await world.settle()
        assert world.instance("other").count == 0

    run(test)


def test_a_change_of_one_file_leaves_the_plug_ins_of_another_in_service(tmp_path: Path) -> None:
    async def test() -> None:
        files = {"counter.py": COUNTER, "other.py": COUNTER.replace("Counter", "Other")}
        world = World(tmp_path, "plugins: [{type: counter}, {type: other}]\n", files)
        before = world.instance("other")
        world.plug_in({**files, "counter.py": COUNTER + "\n"})
        await world.settle()
        assert world.instance("other") is before

    run(test)


def test_what_is_in_service_sees_no_made_up_request(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        first = world.instance("counter")
        first.asked.clear()
        world.configure(COUNTING + "schedulingProfiles: [{name: a, plugins: [{pluginRef: counter, weight: 3}]}]\n")
        await world.settle()
        world.plug_in({"counter.py": COUNTER + "\n"})
        await world.settle()
        assert world.counts.successes == 2
        assert (first.asked, world.instance("counter").asked) == ([], [])

    run(test)


def test_what_breaks_the_contract_is_refused(tmp_path: Path, caplog: Logged) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        before = world.instance("counter")
        world.plug_in({"counter.py": COUNTER.replace("np.ones", "2 * np.ones")})
        await world.settle()
        assert world.instance("counter") is before
        assert "counter (scorer, 1 endpoint): scores must be in [0, 1]" in errors(caplog)[0]

    run(test)


BROKEN = {
    "it can't be imported": ("1 / 0", "counter.py:1: its import raised ZeroDivisionError"),
    "it is not Python": ("def", "counter.py:1: not valid Python"),
    "it can't be made": (
        COUNTER.replace("self.count, self.asked = start, []", "raise KeyError(start)"),
        "counter: its __init__ raised KeyError(7)",
    ),
    "making it would end the picker": (
        COUNTER.replace("self.count, self.asked = start, []", "raise SystemExit(0)"),
        "counter: its __init__ raised SystemExit(0)",
    ),
    "calling it would end the picker": (
        COUNTER.replace("self.asked.append(request.id)", "raise SystemExit(0)"),
        "a plug-in raised SystemExit(0) while it was loaded",
    ),
}


@pytest.mark.parametrize(("code", "told"), BROKEN.values(), ids=list(BROKEN))
def test_old_code_and_old_configuration_stay_in_force_together(
    code: str, told: str, tmp_path: Path, caplog: Logged
) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        before, modules = world.live, {name for name in sys.modules if name.startswith(PACKAGE)}
        world.configure("plugins: [{type: counter, parameters: {start: 7}}]\n")
        world.plug_in({"counter.py": code})
        await world.settle()
        assert world.live is before
        assert {name for name in sys.modules if name.startswith(PACKAGE)} == modules
        assert told in errors(caplog)[0]

    run(test)


def test_a_configuration_that_came_before_its_plug_in_is_taken_up_when_that_comes(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.configure(COUNTING)
        await world.settle()
        assert world.counts.failures == 1
        world.plug_in({"counter.py": COUNTER})
        await world.settle()
        assert "counter" in world.live.built.setup.plugins
        assert world.counts.successes == 1

    run(test)


def test_a_plug_in_file_that_is_in_use_can_not_go(tmp_path: Path, caplog: Logged) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        world.plug_in({})
        await world.settle()
        assert world.counts.failures == 1
        assert "'counter' is no plug-in type" in errors(caplog)[0]

    run(test)


def test_an_adopt_that_raises_costs_the_memory_and_no_more(tmp_path: Path, caplog: Logged) -> None:
    async def test() -> None:
        other = COUNTER.replace("Counter", "Other")
        config = "plugins: [{type: counter}, {type: other}]\n"
        world = World(tmp_path, config, {"counter.py": COUNTER, "other.py": other})
        world.instance("counter").count = world.instance("other").count = 41
        broken = COUNTER.replace("self.count = before.count", "self.count = -1; raise ValueError('no')")
        world.plug_in({"counter.py": broken, "other.py": other + "\n"})
        await world.settle()
        assert (world.counts.successes, world.instance("counter").count, world.instance("other").count) == (1, 0, 41)
        assert "plug-in counter begins without memory: its adopt raised ValueError('no')" in caplog.text

    run(test)


def test_endpoints_can_not_be_discovered_otherwise_while_the_picker_runs(tmp_path: Path, caplog: Logged) -> None:
    discovery = (
        "plugins: [{{type: file-discovery, parameters: {{path: {}}}}}]\n"
        "dataLayer: {{discovery: {{pluginRef: file-discovery}}}}\n"
    )

    async def test() -> None:
        world = World(tmp_path, discovery.format("/a"))
        world.configure(discovery.format("/b"))
        await world.settle()
        assert (world.counts.failures, world.applied) == (1, [])
        assert "dataLayer.discovery: another than that in force" in errors(caplog)[0]

    run(test)


def test_what_the_picker_can_not_apply_is_refused(tmp_path: Path, caplog: Logged) -> None:
    async def test() -> None:
        world = World(tmp_path)
        before = world.live
        world.refusal = FeedError("caCertPath: no such file")
        world.configure(CONFIG.replace("weight: 2", "weight: 5"))
        await world.settle()
        assert (world.live, world.counts.failures) == (before, 1)
        assert errors(caplog) == ["caCertPath: no such file; what was loaded before stays in force"]

    run(test)


def test_a_fault_of_ours_leaves_the_picker_running(tmp_path: Path, caplog: Logged) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.refusal = RuntimeError("a fault")
        world.configure(CONFIG.replace("weight: 2", "weight: 5"))
        await world.settle()
        assert world.counts.failures == 1
        assert "brought out a fault of the picker" in errors(caplog)[0]

    run(test)


def test_a_look_can_be_asked_for(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, poll_s=3600.0)
        following = asyncio.create_task(world.reloader.run())
        world.configure(CONFIG.replace("weight: 2", "weight: 5"))
        world.reloader.look_now()
        await world.in_force.wait()
        following.cancel()
        assert weights(world.live) == [5.0, 1.0]

    run(test)


def test_what_was_refused_is_tried_again_when_asked(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.refusal = FeedError("for now")
        world.configure(CONFIG.replace("weight: 2", "weight: 5"))
        await world.settle()
        world.refusal = None
        await world.settle()
        assert world.counts.successes == 0
        world.reloader.look_now()
        await world.settle()
        assert (weights(world.live), world.counts.successes) == ([5.0, 1.0], 1)

    run(test)


def test_changes_are_followed_without_being_asked(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        following = asyncio.create_task(world.reloader.run())
        world.configure(CONFIG.replace("weight: 2", "weight: 5"))
        await world.in_force.wait()
        following.cancel()

    run(test)


WAITING = f"from tests.unit import reload_gate\nreload_gate.gate.wait()\n{COUNTER}"


def test_the_loop_goes_on_while_a_configuration_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr(reload_gate, "gate", gate)

    async def test() -> None:
        world = World(tmp_path)
        world.plug_in({"counter.py": WAITING})
        settling = asyncio.create_task(world.settle())
        await asyncio.to_thread(gate.reached.wait)
        gate.opened.set()
        await settling
        assert world.counts.successes == 1

    run(test)


def test_a_plug_in_that_never_returns_from_its_import_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Logged
) -> None:
    gate = Gate()
    monkeypatch.setattr(reload_gate, "gate", gate)

    async def test() -> None:
        world = World(tmp_path, limit_s=0.001)
        world.plug_in({"counter.py": WAITING})
        await world.settle()
        assert f"{world.plugins_path}: not loaded within 0.001 s; does a plug-in wait at its import?" in caplog.text
        assert world.counts.failures == 1

    run(test)
    gate.opened.set()


def test_requests_under_way_go_on_with_the_code_they_began_with(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        before = world.live.built.setup.profiles["default"].scorers[0][0]
        world.plug_in({"counter.py": COUNTER.replace("np.ones", "np.zeros")})
        await world.settle()
        after = world.live.built.setup.profiles["default"].scorers[0][0]
        asked = (request(), endpoints(waiting=[0.0]))
        assert [list(bound.call(*asked)) for bound in (before, after)] == [[1.0], [0.0]]

    run(test)


def test_the_lines_of_code_in_force_are_shown_though_the_file_was_refused(tmp_path: Path) -> None:
    async def test() -> None:
        code = COUNTER.replace("self.count = before.count", "self.count = before.none_such")
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        for text in (f"# moved\n{code}", "1 / 0\n" * 40):
            world.plug_in({"counter.py": text})
            await world.settle()
        with pytest.raises(AttributeError) as raised:
            world.instance("counter").adopt(None)
        assert "    self.count = before.none_such\n" in "".join(traceback.format_exception(raised.value))

    run(test)


def test_reloading_leaves_no_modules_behind(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, COUNTING, {"counter.py": COUNTER})
        modules, finders = len(sys.modules), len(sys.meta_path)
        for number in range(3):
            world.plug_in({"counter.py": f"{COUNTER}\n# {number}"})
            await world.settle()
        assert (world.counts.successes, len(sys.modules), len(sys.meta_path)) == (3, modules, finders)

    run(test)


def test_a_text_is_not_followed_but_the_plug_ins_beside_it_are(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "counter.py").write_text(COUNTER)
        counts = Counts()
        live = start(Origin(config_text=HEAD + COUNTING, plugins_path=str(tmp_path)))
        reloader = Reloader(live, lambda built: None, counts, poll_s=0.0, settle_s=0.0)
        assert reloader.follows
        (tmp_path / "counter.py").write_text(COUNTER + "\n")
        assert [await reloader.look(), await reloader.look(), counts.successes] == [False, True, 1]

    run(test)


def test_without_files_there_is_nothing_to_follow() -> None:
    async def test() -> None:
        assert not Reloader(start(Origin()), lambda built: None, Counts()).follows

    run(test)


def told(caplog: Logged) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "epp.reload"]


def test_what_is_new_to_warn_of_is_told_and_what_was_reloaded(tmp_path: Path, caplog: Logged) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        old = "saturationDetector: {pluginRef: utilization-detector}\n"
        world = World(tmp_path, CONFIG + old)
        world.configure(old + CONFIG + "featureGates: [dataLayer]\n")
        await world.settle()
        begins = [record.getMessage().partition(":")[0] for record in told(caplog)]
        assert begins == ["featureGates[0]", f"reloaded {world.config_file}"]

    run(test)


def test_the_log_tells_whose_memory_goes_on(tmp_path: Path, caplog: Logged) -> None:
    caplog.set_level(logging.INFO)

    async def test() -> None:
        world = World(tmp_path, "plugins: [{type: counter}, {type: queue-scorer}]\n", {"counter.py": COUNTER})
        world.configure(
            "plugins: [{type: counter, parameters: {start: 1}}, {type: queue-scorer}, {type: lora-affinity-scorer}]\n"
        )
        await world.settle()
        fields = told(caplog)[-1].__dict__
        assert (fields["adopted"], fields["anew"]) == (["counter"], ["lora-affinity-scorer"])
        assert "queue-scorer" in fields["kept"]

    run(test)


VERSIONS: list[tuple[str, dict[str, str], bool]] = [
    (COUNTING, {"counter.py": COUNTER}, True),
    ("plugins: [{type: counter, parameters: {start: 3}}]\n", {"counter.py": COUNTER}, True),
    (COUNTING, {"counter.py": COUNTER + "\n"}, True),
    (COUNTING, {"counter.py": COUNTER, "other.py": COUNTER.replace("Counter", "Other")}, True),
    (COUNTING, {"counter.py": "1 / 0"}, False),
    ("plugins: [{type: nobody}]\n", {"counter.py": COUNTER}, False),
    (COUNTING, {}, False),
]
"""(configuration, plug-in files, whether they can be used together)."""


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(range(len(VERSIONS))), max_size=6))
def test_in_force_is_the_last_good_version_and_the_memory_goes_on(
    steps: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def test() -> None:
        config, files, _ = VERSIONS[0]
        world = World(tmp_path_factory.mktemp("reload"), config, files)
        world.instance("counter").count = 41
        last, seen, expected = 0, 0, [0, 0]
        for step in steps:
            config, files, good = VERSIONS[step]
            world.configure(config)
            world.plug_in(files)
            await world.settle()
            if step != seen and not (good and step == last):
                expected[0 if good else 1] += 1
            seen, last = step, step if good else last
            assert world.live.reading.config.decode() == HEAD + VERSIONS[last][0]
            assert {Path(s.path).name: s.content.decode() for s in world.live.reading.files} == VERSIONS[last][1]
            assert world.instance("counter").count == 41
        assert [world.counts.successes, world.counts.failures] == expected

    run(test)


def plugin_state(world: World, name: str) -> Any:  # whatever the plug-in tells
    return world.instance(name).state()


def test_a_swap_of_both_config_maps_is_one_reload(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.plug_in({"counter.py": COUNTER})
        world.configure(COUNTING)
        await world.settle()
        assert (len(world.applied), plugin_state(world, "counter")) == (1, {"count": 0})

    run(test)
