"""What a PromQL query reads and which labels its result has, from its syntax tree."""

from __future__ import annotations

import re
from collections.abc import Mapping

import promql_parser as promql

Labels = frozenset[str]
NOTHING: Labels = frozenset()
SETS = ("and", "or", "unless")


class QueryError(Exception):
    """A query asks for what does not exist; the message names it."""


def labels_of(query: str, series: Mapping[str, Labels]) -> Labels:
    """The labels of a query's result. Raises QueryError for an unknown series or a label that is not there."""
    text = query.replace("$__rate_interval", "5m")
    try:
        tree = promql.parse(text)
    except ValueError as error:
        raise QueryError(f"{query}: {error}") from None
    try:
        return _labels(tree, series)
    except QueryError as error:
        raise QueryError(f"{error} in {query}") from None


def variable_labels(query: str, series: Mapping[str, Labels]) -> Labels:
    """The same for Grafana's `label_values(selector, label)`."""
    asked = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    if asked is None:
        raise QueryError(f"{query} is no label_values(selector, label)")
    return _there(labels_of(asked[1], series), [asked[2]])


def _labels(tree: promql.Expr, series: Mapping[str, Labels]) -> Labels:
    match tree:
        case promql.VectorSelector() | promql.MatrixSelector():
            return _selected(getattr(tree, "vector_selector", tree), series)
        case promql.AggregateExpr():
            return _aggregated(tree, _labels(tree.expr, series))
        case promql.BinaryExpr():
            return _combined(tree, _labels(tree.lhs, series), _labels(tree.rhs, series))
        case promql.Call():
            return _called(tree, series)
        case promql.ParenExpr() | promql.SubqueryExpr() | promql.UnaryExpr():
            return _labels(tree.expr, series)
    return NOTHING


def _selected(selector: promql.VectorSelector, series: Mapping[str, Labels]) -> Labels:
    if selector.name not in series:
        raise QueryError(f"no series {selector.name!r}")
    return _there(series[selector.name], [matcher.name for matcher in selector.matchers.matchers])


def _there(labels: Labels, wanted: list[str]) -> Labels:
    missing = set(wanted) - labels
    if missing:
        raise QueryError(f"no label {', '.join(sorted(missing))} among {', '.join(sorted(labels))}")
    return labels


def _aggregated(tree: promql.AggregateExpr, labels: Labels) -> Labels:
    if str(tree.op) in {"topk", "bottomk"}:
        return labels
    if tree.modifier is None:
        return NOTHING
    _there(labels, tree.modifier.labels)
    named = frozenset(tree.modifier.labels)
    return named if tree.modifier.type == promql.AggModifierType.By else labels - named


def _combined(tree: promql.BinaryExpr, left: Labels, right: Labels) -> Labels:
    modifier = tree.modifier
    if modifier is not None and modifier.matching is not None:
        _there(left & right, modifier.matching.labels)
    operator = str(tree.op)
    if operator == "or":
        return left | right
    scalar = next((one for one, other in ((left, tree.rhs), (right, tree.lhs)) if _is_scalar(other)), None)
    if scalar is not None and operator not in SETS:
        return scalar
    return left


def _is_scalar(tree: promql.Expr) -> bool:
    return isinstance(tree, promql.NumberLiteral) or (isinstance(tree, promql.Call) and tree.func.name == "time")


def _called(tree: promql.Call, series: Mapping[str, Labels]) -> Labels:
    inner = [_labels(argument, series) for argument in tree.args]
    labels = frozenset().union(*inner)
    if tree.func.name == "histogram_quantile":
        return _there(labels, ["le"]) - {"le"}
    if tree.func.name == "label_replace":
        _, target, _, source, _ = (getattr(argument, "val", "") for argument in tree.args)
        return _there(labels, [source] if source else []) | {target}
    return NOTHING if tree.func.name in {"absent", "scalar", "vector"} else labels
