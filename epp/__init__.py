"""Everything a plug-in author imports."""

from importlib.metadata import version

from epp.flow.band import Band, Flow
from epp.flow.item import Item
from epp.signals import column, signal
from epp.types import (
    Column,
    Decision,
    Endpoint,
    Endpoints,
    Mask,
    Media,
    Outcome,
    Prompt,
    Refused,
    Request,
    Rows,
    Run,
    Scores,
    Usage,
)

__version__ = version("endpoint-picker")

__all__ = [
    "Band",
    "Column",
    "Decision",
    "Endpoint",
    "Endpoints",
    "Flow",
    "Item",
    "Mask",
    "Media",
    "Outcome",
    "Prompt",
    "Refused",
    "Request",
    "Rows",
    "Run",
    "Scores",
    "Usage",
    "column",
    "signal",
]
