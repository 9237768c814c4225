"""What of a picture is believed before an engine decodes it."""

from __future__ import annotations

import contextlib
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.pictures import (
    MAX_SCANS,
    check_expansion,
    read_base64,
    read_data_url,
    read_picture,
)
from edgekit.errors import FormatError
from tests.support.pictures import RED, data_url, gif, jpeg, png

EXIF = b"\xff\xe1\x00\x08Exif\0\0"


@pytest.mark.parametrize(
    ("data", "kind"),
    [(png(RED, 30, 20), "png"), (jpeg(30, 20), "jpeg"), (jpeg(30, 20, before=EXIF), "jpeg"),
     (jpeg(30, 20, before=b"\xff" + EXIF), "jpeg"), (gif(30, 20), "gif")],
)
def test_kind_and_size_are_read_from_the_header(data: bytes, kind: str) -> None:
    picture = read_data_url(data_url(data))
    assert (picture.kind, picture.width, picture.height) == (kind, 30, 20)
    check_expansion(picture)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "neither"),
        (b"BM" + bytes(60), "neither"),
        (b"8BPS" + bytes(60), "neither"),
        (b"P6\n9 9\n255\n", "neither"),
        (b"#?RADIANCE\n", "neither"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither"),
        (b"\0\0\0\x20ftypisom", "neither"),
        (png()[:20], "cut short"),
        (jpeg()[:8], "cut short"),
        (gif()[:8], "cut short"),
        (png(data=b"", width=0), "pixels"),
        (png(data=b"", width=2049, height=2048), "pixels"),
        (png(data=b"", width=1 << 31, height=1), "pixels"),
        (jpeg(65_535, 65_535), "pixels"),
        (gif(65_535, 65), "pixels"),
        (jpeg(scans=MAX_SCANS + 1), "scans"),
        (b"\xff\xd8\xff\xe0\x00\x00", "no frame"),
        (b"\xff\xd8\xff\xe0\x00\x02xx", "well-formed"),
        (b"\xff\xd8\xff\xda\x00\x02\xff\xd9", "no frame"),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_picture(data)


@pytest.mark.parametrize(
    "url",
    ["http://host/x.png", "https://host/x.png", "file:///etc/passwd", "//host/x", "ftp://h/x", "",
     "data:image/png,abc", "data:;base64,AAAA", "DATA:image/png;base64,AAAA",
     "data:image/png;base64;x,AA", " data:image/png;base64,AA"],
)
def test_no_url_but_data_is_read(url: str) -> None:
    with pytest.raises(FormatError, match="data: URL"):
        read_data_url(url)


@pytest.mark.parametrize("text", ["AAA", "AA==AA", "A\nAA", "%%%%", "\u00e4\u00e4\u00e4\u00e4"])
def test_base64_is_strict(text: str) -> None:
    with pytest.raises(FormatError, match="not base64"):
        read_base64(text)


def test_a_png_that_unpacks_to_more_than_it_says_is_stopped_early_and_in_little_memory() -> None:
    bomb = png(data=bytes(1 << 30))  # a megabyte of file
    assert len(bomb) < 1_100_000
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(FormatError, match="more than its header says"):
        check_expansion(read_picture(bomb))
    assert time.process_time() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [png(depth=3), png(kind=9), png()[:-60] + bytes(60),
     png(data=b"", width=2048, height=2048, depth=16, kind=6)],
)
def test_a_png_that_is_malformed_or_deep_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        check_expansion(read_picture(data))


def test_largest_png_passes() -> None:
    check_expansion(read_picture(png(width=2048, height=2048)))


HEADS = st.sampled_from([b"", png()[:40], jpeg()[:12], gif()[:9], b"\xff\xd8\xff"])


@given(HEADS, st.binary(max_size=200))
def test_any_bytes_end_in_a_picture_or_a_format_error(head: bytes, tail: bytes) -> None:
    with contextlib.suppress(FormatError):
        check_expansion(read_picture(head + tail))
