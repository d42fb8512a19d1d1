import logging

import pytest

from epp.obs.decisions import Decisions
from epp.obs.observer import Observers
from epp.types import Decision, Flaw, Request, Run
from tests.unit.test_obs_metrics import PODS, Board


@pytest.mark.parametrize(
    ("flaw", "told"),
    [
        (Flaw("mine", "nan", "NaN counts as 0"), "plug-in mine: nan (told once a minute): NaN counts as 0"),
        (
            Flaw("mine", "exception", "KeyError('x') at a.py:2"),
            "plug-in mine: exception; its vote was left out (told once a minute): KeyError('x') at a.py:2",
        ),
        (Flaw("mine", "suspended"), None),
    ],
    ids=["mended", "left out", "told already"],
)
def test_the_log_tells_what_a_plug_in_broke_and_what_was_done(
    flaw: Flaw, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board()
    observers = Observers(board.metrics, Decisions(), None, now=lambda: 0.0, verbosity=2)
    made = Decision("r", "base", 1.0, 3, primary="default", took_s=0.0003)
    made.runs["default"] = Run("default", PODS, picked=PODS[1:2])
    made.flaws.append(flaw)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            observers.decided(Request(), made)
    assert [record.getMessage() for record in caplog.records] == ([told] if told else [])
