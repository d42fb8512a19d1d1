"""Request bodies to what the picker needs, response bodies to token counts."""

from epp.bodies.parsed import Headers, Parsed, Parser, ResponseReader
from epp.bodies.registry import Parsers, request_path
from epp.bodies.rewrite import ModelMapper, set_model

__all__ = [
    "Headers",
    "ModelMapper",
    "Parsed",
    "Parser",
    "Parsers",
    "ResponseReader",
    "request_path",
    "set_model",
]
