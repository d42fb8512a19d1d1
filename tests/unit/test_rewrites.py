from __future__ import annotations

import json

import numpy as np
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from hypothesis import given
from hypothesis import strategies as st

from epp.rewrites import ModelRewrite, RewriteRule, Rewrites, Steering, Target
from epp.types import Request

from .kit import World, bodies, request_body, request_headers, said

OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def rule(*models: str, to: str = "x", targets: tuple[Target, ...] = ()) -> RewriteRule:
    return RewriteRule(models, targets or (Target(to),))


def chosen(rewrites: Rewrites, model: str, chance: float = 0.0) -> str | None:
    found = rewrites.find(model)
    return found.model(chance) if found else None


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([], None),
        ([ModelRewrite("a", OLD, (rule("other"),))], None),
        ([ModelRewrite("a", OLD, (rule("m", to="exact"),))], "exact"),
        ([ModelRewrite("a", OLD, (rule(to="all"),))], "all"),
        ([ModelRewrite("a", OLD, (rule(to="all"), rule("m", to="exact")))], "exact"),
        ([ModelRewrite("a", OLD, (rule(to="all"),)), ModelRewrite("b", NEW, (rule("m", to="exact"),))], "exact"),
        ([ModelRewrite("z", NEW, (rule("m", to="new"),)), ModelRewrite("y", OLD, (rule("m", to="old"),))], "old"),
        ([ModelRewrite("z", OLD, (rule("m", to="z"),)), ModelRewrite("y", OLD, (rule("m", to="y"),))], "y"),
        ([ModelRewrite("a", OLD, (rule("m", to="first"), rule("m", to="second")))], "first"),
        ([ModelRewrite("a", NEW, (rule(to="new"),)), ModelRewrite("b", OLD, (rule(to="old"),))], "old"),
    ],
    ids=[
        "none", "another model", "exact", "generic", "exact before generic", "exact in a younger object",
        "the older object", "of one age the first by name", "the first in the object", "generic by age",
    ],
)  # fmt: skip
def test_precedence(objects: list[ModelRewrite], expected: str | None) -> None:
    assert chosen(Rewrites(objects), "m") == expected


@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=5), st.integers(0, 2**32))
def test_targets_are_chosen_by_their_weights(weights: list[int], seed: int) -> None:
    targets = tuple(Target(str(at), weight) for at, weight in enumerate(weights))
    found = Rewrites([ModelRewrite("a", OLD, (rule(targets=targets),))]).find("m")
    assert found is not None
    drawn = [int(found.model(chance)) for chance in np.random.default_rng(seed).random(2000)]
    shares = np.bincount(drawn, minlength=len(weights)) / 2000
    wanted = np.array(weights) / sum(weights)
    assert np.abs(shares - wanted).max() < 6 * np.sqrt(0.25 / 2000)


@pytest.mark.parametrize(
    ("targets", "models"),
    [
        ((Target("a"), Target("b")), ("a", "b")),
        ((Target("a", 1), Target("b")), ("a",)),
        ((Target("a", 0), Target("b", 0)), ("a", "b")),
    ],
    ids=["no weights: all alike", "without a weight beside one: never", "all 0: all alike"],
)
def test_targets_without_weights(targets: tuple[Target, ...], models: tuple[str, ...]) -> None:
    found = Rewrites([ModelRewrite("a", OLD, (rule(targets=targets),))]).find("m")
    assert found is not None
    assert {found.model(chance) for chance in np.linspace(0, 1, 50, endpoint=False)} == set(models)


class Arrivals:
    """Notes what arrived."""

    def __init__(self) -> None:
        self.priorities: list[int] = []

    def arrived(self, request: Request) -> None:
        self.priorities.append(request.priority)


def steered(*rules: RewriteRule, objectives: dict[str, int] | None = None, hooks: tuple[object, ...] = ()) -> World:
    world = World(hooks=hooks)
    world.router.steering = Steering(objectives or {}, Rewrites([ModelRewrite("rewrite", OLD, rules)]))
    return world


def sent_on(answers: list[ProcessingResponse]) -> dict[str, object]:
    body: dict[str, object] = json.loads(bodies(answers[1:], "request_body"))
    return body


def test_a_rule_changes_the_model_the_engine_gets_and_is_counted() -> None:
    world = steered(rule("m", to="m-v2"))
    _, answers = world.asked({"model": "m", "prompt": "x"})
    assert sent_on(answers) == {"model": "m-v2", "prompt": "x"}
    assert world.notes.all("rewritten") == [("rewrite", "m", "m-v2")]


def test_a_rule_goes_before_the_header() -> None:
    world = steered(rule("m", to="by-rule"))
    _, answers = world.asked({"model": "m", "prompt": "x"}, x_llm_d_model_name_rewrite="by-header")
    assert sent_on(answers)["model"] == "by-rule"


def test_without_a_rule_for_the_model_the_header_counts() -> None:
    world = steered(rule("other", to="by-rule"))
    _, answers = world.asked({"model": "m", "prompt": "x"}, x_llm_d_model_name_rewrite="by-header")
    assert sent_on(answers)["model"] == "by-header"
    assert world.notes.all("rewritten") == []


def test_a_rule_for_all_supplies_a_missing_model() -> None:
    _, answers = steered(rule(to="fallback")).asked({"prompt": "x"})
    assert sent_on(answers) == {"prompt": "x", "model": "fallback"}


def test_a_body_whose_model_can_not_be_changed_meets_no_rule() -> None:
    world = steered(rule(to="other"))
    dialogue = world.dialogue()
    answers = said(dialogue, request_headers(path="/tokenize")) + said(dialogue, request_body(b"raw"))
    assert bodies(answers[1:], "request_body") == b"raw"
    assert world.notes.all("rewritten") == []


def test_the_priority_is_that_of_the_objective_named_and_0_for_an_unknown_one() -> None:
    seen = Arrivals()
    world = steered(objectives={"batch": -5}, hooks=(seen,))
    for name in ("batch", "unknown"):
        world.asked({"model": "m", "prompt": "x"}, x_llm_d_inference_objective=name)
    assert seen.priorities == [-5, 0]
