"""Metrics of the configuration: when the one in force was loaded, and what came of changes."""

from __future__ import annotations

from collections.abc import Callable

from epp.obs.series import Families


class ReloadMetrics:
    """Hears how reloads go (`epp.reload.Outcomes`); `clock` tells seconds since 1970. Made when the first is loaded."""

    def __init__(self, families: Families, clock: Callable[[], float]) -> None:
        self._results = families.cells("config_reload_total")
        self._loaded_at = families.cells("config_loaded_timestamp_seconds")
        self._clock = clock
        # There from the start: an increase from nothing to one is none to Prometheus.
        for result in ("success", "failure"):
            self._results.add((result,), 0.0)
        self._loaded_at.set((), clock())

    def reloaded(self) -> None:
        self._results.add(("success",))
        self._loaded_at.set((), self._clock())

    def refused(self) -> None:
        self._results.add(("failure",))
