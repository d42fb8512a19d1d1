"""The metrics of reloads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from epp.obs.metrics import Metrics
from epp.obs.metrics_reload import ReloadMetrics


def test_results_are_counted_from_zero_and_the_time_of_the_one_in_force_is_told() -> None:
    registry = CollectorRegistry()
    times = iter([100.0, 200.0])
    heard = ReloadMetrics(Metrics(registry).families, lambda: next(times))

    def told(result: str) -> list[float | None]:
        name = "llm_d_epp_config_reload_total"
        return [registry.get_sample_value(name, {"result": result}), registry.get_sample_value(LOADED)]

    assert [told("success"), told("failure")] == [[0.0, 100.0], [0.0, 100.0]]
    heard.refused()
    assert told("failure") == [1.0, 100.0]
    heard.reloaded()
    assert told("success") == [1.0, 200.0]


LOADED = "llm_d_epp_config_loaded_timestamp_seconds"
