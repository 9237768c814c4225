"""Lines of a serving engine: what it did stays readable, what people wrote does not."""

from __future__ import annotations

import pytest

from edgekit.core.engine_words import HIDDEN, hide_texts


@pytest.mark.parametrize(
    "line",
    [
        "0.08.634.930 I slot print_timing: id  0 | task 99 |  eval time =     357.73 ms\n",
        "0.09.032.149 E srv send_error: request (44001 tokens) exceeds the available context\n",
        "0.09.032.149 I slot release: id 0 | task 99 | stop processing: n_tokens = 37\n",
        "CUDA error: out of memory\n",
        "what(): std::bad_alloc\n",
    ],
)
def test_an_engines_own_messages_stay(line: str) -> None:
    assert hide_texts(line) == line


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("pattern meet me at 0417 is not supported", "pattern [-] [-] at [-] is not supported"),
        ("0.09.032.207 W srv stop: hello Paris\n", "0.09.032.207 W srv stop: [-] [-]\n"),
        ("zq7-canary", "[-]-[-]"),
        ("geheim: Grüße", "[-]: [-][-][-]"),
        ("\x1b[2J\u202e秘密", "[-][[-][-][-]"),
    ],
)
def test_all_other_words_and_stray_numbers_go(line: str, left: str) -> None:
    assert hide_texts(line) == left


def test_a_hidden_line_has_no_word_of_its_own() -> None:
    text = "In the beginning God created the heaven and the earth 1234"
    words = hide_texts(text).replace(HIDDEN, "").split()
    assert set(words) <= {"In", "created", "and", "the"}
