"""Request bodies to what the picker needs, response bodies to token counts."""

from epp.bodies.parsed import Parsed, Parser, ResponseReader
from epp.bodies.registry import Parsers, request_path
from epp.bodies.rewrite import ModelMapper, set_model

__all__ = [
    "ModelMapper",
    "Parsed",
    "Parser",
    "Parsers",
    "ResponseReader",
    "request_path",
    "set_model",
]
