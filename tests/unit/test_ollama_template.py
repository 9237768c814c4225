"""Templates: what they may cost, what is refused when they are read, and in which line."""

from __future__ import annotations

import contextlib
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.ollama_template import parse_template
from edgekit.errors import FormatError

DAY = date(2026, 3, 1)
LOOP, END = "{{ range $.Messages }}", "{{ end }}"


@pytest.mark.parametrize(("text", "words"), [
    # what text/template knows and prompts do not need
    ("{{ define `x` }}{{ end }}", "define is not supported"),
    ("{{ template `x` }}", "template is not supported"),
    ("{{ block `x` . }}{{ end }}", "block is not supported"),
    ("{{ html .Prompt }}", "unknown function"),
    ("{{ call .Prompt }}", "unknown function"),
    ("{{ toTypeScriptType .Prompt }}", "unknown function"),
    ("{{ 1.5 }}", "unknown number"),
    ("{{ 0x10 }}", "unknown number"),
    ("{{ 'a' }}", "unknown sign"),
    ("{{ .Prompt.é }}", "no field é"),
    ('{{ "\\x41" }}', "unknown escape"),
    ('{{ printf "%5d" 1 }}', "does not know %5"),
    ('{{ printf "%q" .Prompt }}', "does not know %q"),
    ("{{ printf .Prompt }}", "printf without its pattern"),
    ("{{ .Prompt | printf }}", "printf without its pattern"),
    ('{{ printf "%s" }}', "more verbs than values"),
    ('{{ printf "x" 1 }}', "more values than verbs"),
    ("{{ with .Prompt }}{{ else with .System }}{{ end }}", "unexpected words"),
    # what no conversation has
    ("{{ .Prompt }}{{ .User }}", "a template has no field User"),
    ("{{ range .Messages }}{{ .Text }}{{ end }}", "a message has no field Text"),
    ("{{ range .Tools }}{{ .Name }}{{ end }}", "a tool has no field Name"),
    ("{{ .prompt }}", "no field prompt"),
    ("{{ .Prompt.Length }}", "has no field Length"),
    ("{{ if .No }}{{ end }}", "no field No"),
    # in a branch that a short conversation would not reach
    ("{{ .Prompt }}{{ if and .System (not .System) }}{{ .Nope }}{{ end }}", "no field Nope"),
    ("{{ .Prompt }}{{ if or .Prompt .Nope }}{{ end }}", "no field Nope"),
    ("{{ range .Tools }}{{ range .Function.Parameters.Properties }}{{ .Nope }}{{ end }}{{ end }}",
     "a property has no field Nope"),
    # what cannot be computed with
    ("{{ .Messages }}", "a list cannot be printed"),
    ("{{ range .Messages }}{{ . }}{{ end }}", "a message cannot be printed"),
    ("{{ eq .Messages 1 }}", "can be compared"),
    ("{{ range .Messages }}{{ eq .Role 1 }}{{ end }}", "string and int cannot be compared"),
    ("{{ (index .Messages 1).Content }}", "out of range"),
    ("{{ len (slice .Messages 3) }}", "out of range"),
    ("{{ .Prompt }}{{ ne .Response .Prompt }}", "lost an argument behind .Response"),
    ("{{ index .Prompt 0 }}", "index is into a list or a map"),
    # what grows faster than its conversation
    (LOOP * 2 + "{{ .Role }}{{ .Content }}" + END * 2, "too many steps"),
    (LOOP * 24 + END * 24, "too many steps"),
    ("{{ $x := .Prompt }}" + "{{ $x = print $x $x }}" * 60, "too much text"),
    ("{{ $x := .System }}" + LOOP + "{{ $x = printf `%s%s` $x $x }}" + END, "too much text"),
    ("{{ json .Messages }}" * 300 + LOOP + END, "too much text"),
    # what is nested without end
    ("{{ if .Prompt }}" * 25 + END * 25, "nested too deeply"),
    ("{{ " + "(" * 5000 + ".Prompt" + ")" * 5000 + " }}", "nested too deeply"),
    (LOOP * 2000, "nested too deeply"),
    ("{{ $a := 1 }}" * 64 + "{{ .Prompt }}", "too many variables"),
    ("{{ if .Suffix }}" + "{{ $a := 1 }}" * 64 + END + "{{ .Prompt }}", "too many variables"),
])
def test_it_is_refused_when_it_is_read(text: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_template("\n\n" + text, first_line=5)
    assert words in caught.value.message
    assert caught.value.where == "line 7"


def test_what_is_wrong_in_a_later_line_is_said_with_that_line() -> None:
    text = "{{ .Prompt }}\n{{- /* a\nb */ -}}\n\n{{ if\n.System }}\nx {{ eq 1\n.Prompt }}{{ end }}"
    with pytest.raises(FormatError) as caught:
        parse_template(text)
    assert caught.value.where == "line 7"


def test_a_day_is_named_as_it_is() -> None:
    template = parse_template("{{ currentDate }} {{ yesterdayDate }} {{ .Prompt }}")
    assert template.prompt([("user", "x")], DAY) == "2026-03-01 2026-02-28 x"


def test_a_long_conversation_is_rendered_and_costs_as_much_as_it_is_long() -> None:
    template = parse_template(
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        "<{{ .Role }}>{{ .Content }}{{ if $last }}!{{ end }}{{ end }}"
    )
    said = [("user", "x" * 2000), ("assistant", "y" * 2000)] * 500
    assert len(template.prompt(said, DAY)) > 1000 * 2000


def test_many_branches_are_one_level() -> None:
    chain = "{{ if .System }}a" + "{{ else if .Prompt }}b" * 500 + "{{ end }}{{ .Prompt }}"
    assert parse_template(chain).prompt([("user", "x")], DAY) == "bx"


PIECES = st.sampled_from([
    "{{", "}}", " -}}", "{{- ", "if ", "else", "end", "range ", "with ", ".Prompt", ".Messages",
    "$x", " := ", " = ", "(", ")", "|", ",", '"', "`", "/*", "*/", "len ", "eq ", "print ", "1",
    "-", "nil", " ", "\n", ".", "$", "é", "\\", "break", "continue",
])


@given(st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=60))
def test_any_text_ends_in_a_template_or_in_a_format_error(text: str) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(parse_template(text).prompt([("user", "x")], DAY), str)
