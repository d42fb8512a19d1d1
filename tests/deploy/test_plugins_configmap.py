"""deploy/plugins-configmap: the scorer in the ConfigMap is the ten lines it is said to be, and it votes."""

from __future__ import annotations

import numpy as np
import yaml

from epp.config.resolved import Resolved
from epp.plugin_files import PluginFiles, Source
from epp.testing import endpoints, request

from .pickers import built
from .sources import DEPLOY, ROOT

FOLDER = DEPLOY / "plugins-configmap"
EXAMPLE = ROOT / "examples" / "hello-scorer" / "hello_scorer.py"


def text() -> str:
    config_map = yaml.safe_load((FOLDER / "plugins.yaml").read_text())
    found: str = config_map["data"]["short_queue.py"]
    return found


def resolved() -> Resolved:
    return built((FOLDER / "picker-config.yaml").read_text(), (("short_queue.py", text()),)).resolved


def test_it_has_ten_lines() -> None:
    assert len([line for line in text().splitlines() if line.strip()]) <= 10


def test_it_is_the_scorer_of_the_readme() -> None:
    assert text().strip() in EXAMPLE.read_text()


def test_it_votes_for_short_queues() -> None:
    plugins = PluginFiles([Source("short_queue.py", text().encode())])
    try:
        [(place, point)] = plugins.points
        assert (place, point.name) == ("scorer", "short-queue")
        scores = point.load()(request(), endpoints(waiting=[0, 4, 8]), half_at=4.0)
        np.testing.assert_allclose(scores, [1.0, 0.5, 0.25])
    finally:
        plugins.drop()


def test_the_configuration_beside_it_names_it() -> None:
    assert "short-queue" in str(resolved())
