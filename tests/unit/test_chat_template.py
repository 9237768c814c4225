"""Chat templates: those of known families pass, those that reach for Python do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.chat_template import (
    MAX_TEMPLATES,
    check_chat_template,
    json_chat_templates,
)
from edgekit.errors import RefusedContentError
from edgekit.exit_codes import ExitCode
from tests.support.chat_templates import HOSTILE, REAL


@pytest.mark.parametrize("text", REAL.values(), ids=REAL.keys())
def test_templates_of_known_families_pass(text: str) -> None:
    check_chat_template(text, "x.jinja")


@pytest.mark.parametrize("text", [
    "", "no Jinja at all", "{{ '{} of {name}'.format(a, name=b) }}", "{{ '\\d' }}",
    "{% macro m(x, y='z') %}{{ x }}{{ y }}{% endmacro %}{{ m(messages[0], y='w') }}",
    "{% for k, v in tools[0].items() %}{{ tools[0][k] }}{% endfor %}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{% break %}{% endfor %}",
    "{{ messages | map(attribute='content.0.text') | join(', ') }}",
    "{% call(x) m() %}{{ x }}{% endcall %}{% macro m() %}{{ caller(1) }}{% endmacro %}",
    "{% filter upper %}a{% endfilter %}", "{{ x[1:-1] }}",
])
def test_harmless_forms_pass(text: str) -> None:
    check_chat_template(text, "x.jinja")


def test_templates_that_attack_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fired = []
    for name, text in HOSTILE.items():
        with pytest.raises(RefusedContentError) as caught:
            check_chat_template(text, "x.jinja")
        assert caught.value.exit_code == ExitCode.REFUSED_CONTENT, name
        assert caught.value.where == "x.jinja"
        fired.append(name)
    with capsys.disabled():
        print(f"\nhostile chat templates: planned {len(HOSTILE)}, refused {len(fired)}")
    assert len(fired) == len(HOSTILE) >= 40


def test_templates_in_json() -> None:
    def found(value: object) -> list[tuple[str, str]]:
        return list(json_chat_templates({"chat_template": value}))

    assert found("a") == [("default", "a")]
    assert found([{"name": "n", "template": "t"}, {"name": "m", "template": "u"}]) == [
        ("n", "t"), ("m", "u")]
    assert found({"n": "t"}) == [("n", "t")]
    assert found(None) == []
    assert list(json_chat_templates([])) == []
    for bad in (1, [1], ["a"], [{"name": "n"}], {"n": 1}, {str(n): "" for n in range(33)}):
        with pytest.raises(ValueError, match="chat"):
            found(bad)
    assert MAX_TEMPLATES == 32


@given(st.text(alphabet="{}%'\"_abx.[]()|~0- \n#", max_size=80))
def test_any_text_is_judged(text: str) -> None:
    try:
        check_chat_template("{{ " + text + " }}", "x.jinja")
    except RefusedContentError:
        return
    assert "__" not in text or "'" in text or '"' in text or "#" in text or "}}" in text
