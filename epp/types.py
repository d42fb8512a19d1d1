"""The nouns of the picker, in one place: everything else is written against them."""

from epp.decision import UNSEEN, Ballot, Decision, Flaw, Outcome, Run, Spent, Step, Vote
from epp.endpoints import COLUMNS, Change, Column, Endpoint, Endpoints, Mask, Reading, Rows, Scores
from epp.request import CODES, Evicted, Media, Prompt, Refused, Request, Usage

__all__ = [
    "CODES",
    "COLUMNS",
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
