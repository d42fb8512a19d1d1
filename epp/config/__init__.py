"""EndpointPickerConfig: from YAML text to everything that decides.

Text → plain values (yaml) → current spelling (spelling) → typed records (decode, schema) → plug-ins (roster) →
profiles, sources and the signals they read (profiles, sources, wiring) → Built (build), and YAML again (resolved).
"""

from epp.config.build import Built, load
from epp.config.errors import ConfigError
from epp.config.heirs import take_over
from epp.config.live import Live, Origin, Reading, catalogue, start
from epp.config.resolved import Resolved
from epp.config.sources import Metrics, Overrides

__all__ = [
    "Built",
    "ConfigError",
    "Live",
    "Metrics",
    "Origin",
    "Overrides",
    "Reading",
    "Resolved",
    "catalogue",
    "load",
    "start",
    "take_over",
]
