"""The nouns of the picker, in one place: everything else is written against them."""

from epp.decision import Ballot, Decision, Flaw, Run, Spent, Step, Vote
from epp.endpoints import COLUMNS, MOST_COUNTED, Change, Column, Endpoint, Endpoints, Mask, Reading, Rows, Scores
from epp.outcome import UNSEEN, Outcome, Usage
from epp.prompt import Media, Prompt
from epp.refusals import CODES, Evicted, Refused
from epp.request import Request

__all__ = [
    "CODES",
    "COLUMNS",
    "MOST_COUNTED",
    "UNSEEN",
    "Ballot",
    "Change",
    "Column",
    "Decision",
    "Endpoint",
    "Endpoints",
    "Evicted",
    "Flaw",
    "Mask",
    "Media",
    "Outcome",
    "Prompt",
    "Reading",
    "Refused",
    "Request",
    "Rows",
    "Run",
    "Scores",
    "Spent",
    "Step",
    "Usage",
    "Vote",
]
