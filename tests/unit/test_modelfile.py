"""The Modelfile: what it may say, and the line that is named when it says something else."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.modelfile import Modelfile, parse_modelfile, render_modelfile
from edgekit.core.ollama_template import parse_template
from edgekit.errors import FormatError

WHOLE = '''\
# A helper of the workshop.
FROM edgekit-demo:latest
ADAPTER sailor

system """
You answer in one sentence.
Never in two.
"""
PARAMETER temperature 0
PARAMETER stop "<end>"
PARAMETER stop two words
PARAMETER num_ctx 4096
MESSAGE user Who are you?
MESSAGE assistant """A model
on a box."""
LICENSE "Apache-2.0"
TEMPLATE """{{ if .System }}<s>{{ .System }}</s>SPACE
{{ end }}<u>{{ .Prompt }}</u>
<a>
"""
'''.replace("SPACE", " ")


def test_everything_it_may_say() -> None:
    made = parse_modelfile(WHOLE.encode(), file="M")
    assert parse_modelfile(render_modelfile(made).encode(), file="M") == replace(made, ignored=())
    template = "{{ if .System }}<s>{{ .System }}</s> \n{{ end }}<u>{{ .Prompt }}</u>\n<a>\n"
    assert made == Modelfile(
        template=parse_template(template),
        base="edgekit-demo",
        adapters=("sailor",),
        system="You answer in one sentence.\nNever in two.",
        parameters=(("temperature", 0.0), ("stop", ("<end>", "two words"))),
        messages=(("user", "Who are you?"), ("assistant", "A model\non a box.")),
        licenses=("Apache-2.0",),
        ignored=("num_ctx",),
    )


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", "", "no FROM"),
        ("SYSTEM hello\n", "", "no FROM"),
        ("FROM a\nFROM b\n", "line 2", "second FROM"),
        ("FROM ./model.gguf\n", "line 1", "no model of this host"),
        ("FROM https://host/model\n", "line 1", "no model of this host"),
        ("FROM a\n\n# x\nFETCH b\n", "line 4", "unknown instruction"),
        ("FROM a\nSYSTEM\n", "line 2", "says nothing"),
        ('FROM a\nSYSTEM """one\ntwo\n', "line 2", "has no end"),
        ('FROM a\nSYSTEM """one""" two\n', "line 2", "after its closing quotes"),
        ("FROM a\nSYSTEM one\nSYSTEM two\n", "line 3", "second SYSTEM"),
        ("FROM a\nPARAMETER temperature hot\n", "line 2", "out of range"),
        ("FROM a\nPARAMETER warmth 1\n", "line 2", "unknown parameter"),
        ("FROM a\nPARAMETER top_k\n", "line 2", "out of range"),
        ("FROM a\nMESSAGE robot hi\n", "line 2", "malformed MESSAGE"),
        ("FROM a\nMESSAGE user\n", "line 2", "malformed MESSAGE"),
        ("FROM a\nTEMPLATE {{ .Prompt }}\nTEMPLATE x\n", "line 3", "second TEMPLATE"),
        ("FROM a\nTEMPLATE {{ .System }}\n", "line 2", "shows the model no message"),
        ('FROM a\nTEMPLATE """a\n{{ .Prompt }}\n{{ fetch }}"""\n', "line 4", "unknown function"),
        ('FROM a\nTEMPLATE """\n{{ .Prompt }}{{ .User }}"""\n', "line 3", "no field User"),
        ('FROM a\nTEMPLATE """{{ .Prompt }}\n{{ end }}"""\n', "line 3", "without a beginning"),
        ("FROM a\nADAPTER ./lora.gguf\n", "line 2", "no adapter of this host"),
        ("FROM a\nADAPTER b\nADAPTER b\n", "line 3", "named twice"),
        ("FROM a\n" + "MESSAGE user x\n" * 101, "line 102", "too many messages"),
        ("FROM a\n" + "PARAMETER stop x\n" * 17, "line 18", "too many stops"),
    ],
)
def test_what_it_may_not_say_is_refused_with_its_line(text: str, line: str, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse_modelfile(text.encode(), file="M")
    assert words in caught.value.message
    assert (caught.value.where or "").endswith(line or "M")


@pytest.mark.parametrize(
    "data",
    [b"FROM a\nSYSTEM \xff", b"FROM a\nSYSTEM \x1b[2J", b"FROM a\n" + b"#" * (65 << 10)],
)
def test_what_is_no_text_or_too_much_of_it_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_modelfile(data, file="M")


TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\u2028\u2029'), min_size=1
).filter(lambda text: text == text.strip())


@given(TEXTS, st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), max_size=4))
def test_what_is_rendered_parses_to_the_same(
    system: str, messages: list[tuple[str, str]]
) -> None:
    made = Modelfile(
        "base", f"{system}\n{system}", (("seed", 7),), tuple(messages), (system,), ("one", "two")
    )
    assert parse_modelfile(render_modelfile(made).encode(), file="M") == made


LINES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"{'), max_size=40
)


@given(LINES)
def test_a_template_keeps_every_space_and_line_when_it_is_rendered(text: str) -> None:
    template = parse_template(f"\n {text}\n{{{{ .Prompt }}}}\n\n{text}\n \n")
    made = Modelfile("base", template=template)
    assert parse_modelfile(render_modelfile(made).encode(), file="M") == made


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: f"FROM a\n{text}".encode()))
def test_any_bytes_end_in_a_value_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert parse_modelfile(data, file="M").base
