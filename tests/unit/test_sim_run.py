from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from epp.hooks import Hooks
from epp.scheduler import Bound, Profile
from epp.types import Request
from sim.picker import rules
from sim.run import Load, decided_by, main, run
from sim.simulation import Result, Scene, simulate
from sim.types import EngineSettings, Speed
from sim.workload import Arrival, Chat

from .kit import hooked, setup

CONFIG = Path(__file__).parents[2] / "config"
SEATS = EngineSettings(
    max_num_seqs=8, num_blocks=768, speed=Speed(inter_token_s=0.02, prefill_s_per_token=5e-5, prefill_overhead_s=0.001)
)
SCENE = Scene(engines=6, engine=SEATS)
CHATS = Load(requests=400, per_s=20.0, shape=Chat(system_prompts=12, system_tokens=400, turns=(1, 4), think_s=1.0))
PLAIN = Load(requests=1500, per_s=10.0, shape=(256, 128))


def simulated(config: str = "default", scene: Scene = SCENE, load: Load = CHATS) -> Result:
    return simulate(decided_by((CONFIG / f"{config}.yaml").read_text()), scene, load.arrivals())


def one(prompt: bytes = b"word" * 300, **changes: object) -> Arrival:
    return replace(Arrival(0.0, prompt, 10, ""), **changes)  # type: ignore[arg-type]


def test_the_same_seed_comes_to_the_same_figures() -> None:
    assert simulated() == simulated() != simulated(scene=replace(SCENE, seed=1))


def test_every_request_is_sent_once_and_answered() -> None:
    result = simulated()
    assert sum(result.picks) == result.figures.requests == 400
    assert (result.figures.errors, result.preemptions, result.flaws) == (0, 0, {})


def test_the_default_configuration_finds_more_prompts_in_the_caches_than_chance() -> None:
    picked, random = simulated("default").figures, simulated("random").figures
    assert picked.hit_share > random.hit_share + 0.2
    assert picked.ttft.p50 < random.ttft.p50


def test_counting_what_was_sent_makes_up_for_old_readings() -> None:
    counted = simulated(scene=replace(SCENE, reading_interval_s=2.0), load=PLAIN)
    uncounted = simulated(scene=replace(SCENE, reading_interval_s=2.0, readings_only=True), load=PLAIN)
    assert counted.queue_wait.p90 < 0.1
    assert uncounted.queue_wait.p90 > 1.0


def test_an_engine_that_fails_at_once_gets_few_requests() -> None:
    result = simulated(scene=replace(SCENE, failing=1), load=PLAIN)
    assert result.figures.errors == result.picks[0] < 0.05 * 1500


def test_a_session_stays_where_it_began() -> None:
    turns = [one(b"%04d" % number * 50, at=float(number), session="s") for number in range(12)]
    result = simulate(decided_by((CONFIG / "session.yaml").read_text()), SCENE, iter(turns))
    assert sorted(result.picks) == [0, 0, 0, 0, 0, 12]


def test_a_request_that_fits_into_no_cache_is_an_error() -> None:
    result = simulate(decided_by((CONFIG / "default.yaml").read_text()), SCENE, iter([one(b"x" * 200_000), one()]))
    assert (result.figures.requests, result.figures.errors) == (2, 1)


def test_nothing_asked_comes_to_nothing() -> None:
    result = simulate(decided_by((CONFIG / "default.yaml").read_text()), SCENE, iter(()))
    assert (result.figures.requests, result.figures.lasted_s, result.figures.imbalance) == (0, 0.0, 1.0)


def scored_by(scorer: object) -> Profile:
    picker = Bound("picker", lambda scores: [int(scores.argmax())], ("scores",))
    return Profile("default", (), ((Bound("mine", scorer, ("endpoints",)), 1.0),), picker)  # type: ignore[arg-type]


def test_a_vote_that_did_not_count_is_told() -> None:
    made = setup(profiles={"default": scored_by(lambda endpoints: np.full(len(endpoints), 2.0))})
    assert simulate(rules(made, ()), SCENE, iter([one(), one()])).flaws == {"mine: range (cut off at 0 and 1)": 2}


def test_adapters_are_the_model_that_is_asked_for() -> None:
    seen = []

    class Spy:
        def arrived(self, request: Request) -> None:
            seen.append((request.model, request.id))

    made = replace(rules(setup(), ()), hooks=Hooks([hooked(Spy())]))
    simulate(made, SCENE, iter([one(lora="a"), one()]))
    assert seen == [("a", "1"), ("simulated", "2")]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"engines": 0}, "engines 0 must be at least 1"),
        ({"failing": 7}, "failing 7 must be from 0 to the 6 engines"),
        ({"reading_interval_s": 0.0}, "the interval must be above 0"),
        ({"reading_delay_s": -1.0}, "the delay not below it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_scene_that_makes_no_sense_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        replace(SCENE, **changes)


def test_a_load_is_the_same_each_time_and_ends_when_it_should() -> None:
    load = Load(requests=1000, duration_s=3.0, per_s=50.0)
    arrivals = list(load.arrivals())
    assert arrivals == list(load.arrivals())
    assert max(arrival.at for arrival in arrivals) <= 3.0
    assert len(list(islice(Load(requests=5).arrivals(), 10))) == 5


def test_what_it_cost_is_told() -> None:
    cost = run((CONFIG / "random.yaml").read_text(), SCENE, iter([one()]))
    assert cost.cpu_s > 0.0
    assert cost.per_cpu_s == 1 / cost.cpu_s


ARGUMENTS = ["--engines", "3", "--requests", "20", "--system-tokens", "50"]


def configs(*names: str) -> Iterator[str]:
    yield "--config"
    yield from (str(CONFIG / f"{name}.yaml") for name in names)


def test_two_configurations_make_a_table_of_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ARGUMENTS, *configs("random", "least-load")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["random", "least-load", "ratio"]
    assert {"requests/s", "errors", "virtual time", "CPU time"} <= {line.partition("  ")[0] for line in lines}


def test_configurations_of_one_name_keep_their_paths(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "random.yaml"
    other.write_text((CONFIG / "random.yaml").read_text())
    assert main([*ARGUMENTS, *configs("random"), str(other)]) == 0
    assert str(other) in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--config", "none.yaml"], "none.yaml: can't be read"),
        ([*configs("endpoints")], r"endpoints.yaml: kind: missing"),
        (["--engines", "0"], "engines 0 must be at least 1"),
        (["--plain", "many"], "'many' is not a number"),
    ],
    ids=["no file", "no configuration", "no engines", "no number"],
)
def test_what_cannot_be_run_is_named(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert told in capsys.readouterr().err
