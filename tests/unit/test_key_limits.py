"""Quotas of one key, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.api_keys import ApiKey, KeyLimits, KeyRing, encode_keys, parse_keys
from edgekit.errors import FormatError
from edgekit.gateway.limits import DayUse, Limits
from edgekit.gateway.problems import ApiError
from edgekit.gateway.quotas import NAME, keep_quotas, load_quotas, save_quotas


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def key(**limits: int) -> ApiKey:
    return ApiKey("01234567", "a" * 96, ("chat",), "", 0, KeyLimits(**limits))


def once(limits: Limits, of: ApiKey) -> int | None:
    """Seconds to wait, or None when the request was let in."""
    try:
        with limits.request(of):
            return None
    except ApiError as error:
        return error.retry_after if error.status == 429 else -1


def test_requests_per_minute_allow_a_burst_then_a_steady_rate() -> None:
    clock = Clock()
    limits, one = Limits(clock), key(requests_per_minute=3)
    assert [once(limits, one) for _ in range(4)] == [None, None, None, 20]
    clock.now = 20
    assert [once(limits, one) for _ in range(2)] == [None, 20]
    clock.now = 1000
    assert [once(limits, one) for _ in range(4)] == [None, None, None, 20]


def test_tokens_are_charged_afterwards_and_then_waited_for() -> None:
    clock = Clock()
    limits, one = Limits(clock), key(tokens_per_minute=60)
    assert once(limits, one) is None
    limits.charge(one, 90)
    assert once(limits, one) == 31
    clock.now = 31
    assert once(limits, one) is None


def test_day_outlasts_the_minute() -> None:
    clock = Clock()
    limits, one = Limits(clock), key(tokens_per_minute=1000, tokens_per_day=100)
    limits.charge(one, 101)
    assert once(limits, one) == 1728  # two hundredths of a day


def test_concurrent_requests_end_with_their_requests() -> None:
    limits, one = Limits(), key(concurrent=1)
    with limits.request(one):
        assert once(limits, one) == 1
    assert once(limits, one) is None


def test_keys_do_not_share_and_new_limits_count_at_once() -> None:
    limits, one = Limits(Clock()), key(requests_per_minute=1)
    other = replace(one, id="76543210")
    assert [once(limits, one), once(limits, one), once(limits, other)] == [None, 60, None]
    assert once(limits, replace(one, limits=KeyLimits(requests_per_minute=2))) is None


def test_key_without_limits_is_not_counted() -> None:
    limits = Limits()
    limits.charge(key(), 10**12)
    assert once(limits, key()) is None


def test_limits_survive_the_file_and_older_files_have_none() -> None:
    ring = KeyRing((key(tokens_per_day=5),))
    assert parse_keys(encode_keys(ring)) == ring
    table = json.loads(encode_keys(KeyRing((key(),))))
    del table["keys"][0]["limits"]
    assert parse_keys(json.dumps(table).encode()) == KeyRing((key(),))


@pytest.mark.parametrize("value", [-1, 1 << 40, True, "5"])
def test_limits_out_of_range_are_refused(value: object) -> None:
    data = encode_keys(KeyRing((key(concurrent=7),))).replace(b": 7", f": {value!r}".encode())
    with pytest.raises(FormatError):
        parse_keys(data)


def test_what_was_used_of_a_day_outlives_the_gateway() -> None:
    clock, wall, one = Clock(), Clock(), key(tokens_per_day=86_400, tokens_per_minute=100_000)
    wall.now = 1_800_000_000
    limits = Limits(clock, wall=wall)
    limits.charge(one, 90_000)
    kept = limits.day_uses()
    assert kept == {one.id: DayUse(90_000, 1_800_000_000)}
    wall.now += 600  # a token each second is filled up again
    again = Limits(Clock(), kept, wall)
    assert again.day_uses() == kept  # a key that nobody used yet is not forgotten
    assert once(again, one) == 3001
    assert again.day_uses() == {one.id: DayUse(89_400, 1_800_000_600)}
    wall.now -= 7200  # a clock that was set back fills nothing up
    assert once(Limits(Clock(), kept, wall), one) == 3601
    wall.now += 200_000
    assert Limits(Clock(), kept, wall).day_uses() == {}
    assert once(Limits(Clock(), kept, wall), one) is None


def test_quotas_are_kept_in_a_file_that_may_be_missing_or_broken(tmp_path: Path) -> None:
    uses = {"01234567": DayUse(90_000, 1_800_000_000), "89abcdef": DayUse(1, 5)}
    assert load_quotas(tmp_path) == load_quotas(None) == {}
    save_quotas(tmp_path, uses)
    assert load_quotas(tmp_path) == uses
    for broken in (b"", b'{"schema":"other/1","keys":[]}', b'{"keys":[1]}'):
        (tmp_path / NAME).write_bytes(broken)
        assert load_quotas(tmp_path) == {}
    save_quotas(tmp_path / "missing", uses)  # says so in the log and goes on


def test_quotas_are_written_while_the_gateway_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.gateway.quotas.EVERY_S", 0.01)
    limits, one = Limits(), key(tokens_per_day=1000)

    async def use() -> None:
        keeping = asyncio.create_task(keep_quotas(tmp_path, limits))
        await asyncio.sleep(0.05)
        assert not (tmp_path / NAME).exists()  # nothing changed
        limits.charge(one, 7)
        while not load_quotas(tmp_path):
            await asyncio.sleep(0.01)
        keeping.cancel()

    asyncio.run(asyncio.wait_for(use(), 10))
    assert load_quotas(tmp_path)[one.id].tokens == 7
