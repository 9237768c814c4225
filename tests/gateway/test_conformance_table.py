"""What the generated conformance table says is what the parsers do."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgekit.gateway.body import Body
from edgekit.gateway.describe import ABLE
from edgekit.gateway.examples import EXAMPLES
from edgekit.gateway.problems import ApiError
from edgekit.gateway.surfaces.endpoints import ENDPOINTS
from tests.gateway.conftest import make_appliance
from tools.conformance import Row, client_fields, rows

TABLE = [(path, row) for path in ENDPOINTS for row in rows(path)]


def found(verdict: str) -> list[Any]:
    """Rows of this verdict, of fields that are not those of a list's items."""
    chosen = [(p, r) for p, r in TABLE if r.verdict.startswith(verdict) and "[]" not in r.name]
    return [pytest.param(path, row, id=f"{path} {row.name}") for path, row in chosen]


def parsed(path: str, tmp_path: Any, **more: Any) -> Any:
    appliance = make_appliance(tmp_path, 1, engine_socket="x", capabilities=ABLE)
    body = {"model": "demo", **copy.deepcopy(EXAMPLES[path][0])}
    for name, value in more.items():
        *parents, last = name.split(".")
        table = body
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
    return ENDPOINTS[path].parse(Body(body), appliance)


def test_every_field_of_every_client_has_a_row() -> None:
    for path in ENDPOINTS:
        assert client_fields(path) <= {row.name for row in rows(path)}
    verdicts = {row.verdict.partition(" ")[0] for _, row in TABLE}
    assert verdicts == {"supported", "translated", "no", "only", "refused"}


@pytest.mark.parametrize(("path", "row"), found("refused"))
def test_refused_fields_are_refused_by_name(path: str, row: Row, tmp_path: Any) -> None:
    with pytest.raises(ApiError) as refused:
        parsed(path, tmp_path, **{row.name: "x"})
    assert (refused.value.status, refused.value.code) == (400, "unknown_field")
    assert refused.value.param == row.name


@pytest.mark.parametrize(("path", "row"), found("only"))
def test_fields_with_one_value_take_no_other(path: str, row: Row, tmp_path: Any) -> None:
    with pytest.raises(ApiError) as refused:
        parsed(path, tmp_path, **{row.name: ["x"]})
    assert (refused.value.status, refused.value.param) == (400, row.name)


@pytest.mark.parametrize(("path", "row"), found("no effect"))
def test_fields_without_effect_change_nothing(path: str, row: Row, tmp_path: Any) -> None:
    value = {"x": 1} if row.name not in ("reasoning", "stream_options") else {}
    assert parsed(path, tmp_path, **{row.name: value}) == parsed(path, tmp_path)
