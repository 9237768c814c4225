"""A sample of `python -m tests.fault.damage`, and proof that its judge can say no."""

from __future__ import annotations

import random

import pytest

from tests.fault import damage
from tests.fault.damage import Harmed, Tally, cut_documents, cut_volumes, flip_bits


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    return Harmed(tmp_path_factory.mktemp("harmed"))


def report(what: str, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{what}: {tally}")
    assert tally.fired == tally.planned > 0


def test_payload_bit_flips_are_detected_and_located(
    harmed: Harmed, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = str(random.randrange(1 << 30))
    report(f"payload bit flips, seed {seed}", flip_bits(harmed, 60, seed), capsys)


def test_volumes_cut_at_the_edges_of_blocks_are_detected_and_located(
    harmed: Harmed, capsys: pytest.CaptureFixture[str]
) -> None:
    report("volumes cut at block edges", cut_volumes(harmed), capsys)


def test_documents_cut_short_anywhere_are_refused_by_name(
    harmed: Harmed, capsys: pytest.CaptureFixture[str]
) -> None:
    report("documents cut", cut_documents(harmed, 211), capsys)


def test_the_judge_says_no_when_another_place_is_named(harmed: Harmed) -> None:
    place = {("vol-0002.ekv", 0): 5}
    damage._flip(harmed.folder, place, 1)
    try:
        assert damage._located(harmed, place) == 1
        assert damage._located(harmed, {("vol-0002.ekv", damage.BLOCK_BYTES): 5}) == 0
        assert damage._located(harmed, {("vol-0001.ekv", 0): 5}) == 0
        assert damage._located(harmed, {**place, ("vol-0003.ekv", 0): 5}) == 0
    finally:
        damage._flip(harmed.folder, place, 1)
    assert damage._located(harmed, place) == 0
    assert not damage._document_is_named(harmed, "README.txt")
