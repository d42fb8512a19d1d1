"""Metrics of program-aware-fairness: there while it is configured, of the programs that had most."""

from __future__ import annotations

from prometheus_client import generate_latest

from epp.obs import metrics_programs
from epp.obs.metrics import Metrics, new_registry
from scorers.flow_programs import Statistics


def page(metrics: Metrics) -> list[str]:
    return [
        line
        for line in generate_latest(metrics.registry).decode().splitlines()
        if "program_aware" in line and "#" not in line
    ]


def test_they_are_told_while_the_policy_is_configured() -> None:
    metrics = Metrics(new_registry())
    metrics_programs.tell(metrics.families, Statistics({"a": 300.0, "b": 100.0}, {"a": 12.5}, 0.8))
    assert sorted(page(metrics)) == [
        'llm_d_epp_program_aware_attained_service_tokens{program_id="a"} 300.0',
        'llm_d_epp_program_aware_attained_service_tokens{program_id="b"} 100.0',
        'llm_d_epp_program_aware_avg_wait_time_milliseconds{program_id="a"} 12.5',
        "llm_d_epp_program_aware_jains_fairness_index 0.8",
    ]
    metrics_programs.tell(metrics.families, None)
    assert page(metrics) == []


def test_only_the_programs_with_most_are_told_apart() -> None:
    metrics = Metrics(new_registry())
    many = {f"p{number}": float(number) for number in range(500)}
    metrics_programs.tell(metrics.families, Statistics(many, {}, 1.0))
    shown = [line for line in page(metrics) if "tokens" in line]
    assert len(shown) == metrics_programs.MOST_PROGRAMS
    assert not any('"p0"' in line for line in shown)
