"""What becomes of what scraping tells: the pool, the health and the metrics hear of it."""

from __future__ import annotations

import random

import pytest

from epp.feeds import ScrapeFailure
from epp.obs.metrics import Metrics, new_registry
from epp.pool.health import IN_A_ROW, Health
from epp.pool.table import Pool
from epp.readings import PoolReadings
from epp.types import Change, Endpoint

KEY = "default/a"


class World:
    def __init__(self) -> None:
        self.pool, self.health, self.registry = Pool(), Health(random.Random(1), largest_share=1.0), new_registry()
        self.pool.apply(Change((Endpoint("a", "10.0.0.1", 8000), Endpoint("b", "10.0.0.2", 8000))))
        self.readings = PoolReadings(self.pool, self.health, Metrics(self.registry), lambda: 0.0, lambda: None)

    def counted(self, metric: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"llm_d_epp_{metric}", labels)


def test_a_page_that_lacks_numbers_is_counted_once_however_many_they_are() -> None:
    world = World()
    world.readings.lacked(KEY, ("num_blocks", "block_tokens"))
    labels = {"source_type": "metrics-data-source", "extractor_type": "core-metrics-extractor"}
    assert world.counted("datalayer_extract_errors_total", **labels) == 1
    assert world.counted("datalayer_poll_errors_total", source_type="metrics-data-source") is None


@pytest.mark.parametrize(("kind", "cools"), [("refused", True), ("timeout", False), ("parse", False)])
def test_every_failed_scrape_is_counted_and_a_refused_one_speaks_against_the_endpoint(
    kind: ScrapeFailure, cools: bool
) -> None:
    world = World()
    for _ in range(IN_A_ROW):
        world.readings.scrape_failed(KEY, kind)
    assert world.counted("datalayer_poll_errors_total", source_type="metrics-data-source") == IN_A_ROW
    assert (KEY in world.health.cooling(0.0)) is cools
