"""Sampling parameters by Ollama's names: what a Modelfile and `/set parameter` may say. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import FormatError

MAX_STOPS = 16
MAX_STOP_CHARS = 200
SEED_LIMIT = 2**53
MAX_TOKENS = 1 << 24

Value = int | float | str


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers a parameter may have, `low` and `high` included."""

    low: float
    high: float
    whole: bool = False


PARAMETERS: dict[str, Range] = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1),
    "top_k": Range(0, 1000, whole=True),
    "min_p": Range(0, 1),
    "repeat_penalty": Range(0.01, 2),
    "repeat_last_n": Range(-1, MAX_TOKENS, whole=True),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "seed": Range(-SEED_LIMIT, SEED_LIMIT, whole=True),
    "num_predict": Range(-2, MAX_TOKENS, whole=True),
}
"""Those with numbers; `stop` is a text and may be given again."""
STOP = "stop"


def parse_parameter(name: str, text: str) -> Value:
    """The value of one parameter. Raises FormatError with what it may be."""
    if name == STOP:
        if not 0 < len(text) <= MAX_STOP_CHARS:
            raise FormatError(
                "malformed stop", found=text[:40], needed=f"1 to {MAX_STOP_CHARS} characters"
            )
        return text
    limits = PARAMETERS.get(name)
    if limits is None:
        raise FormatError(
            "unknown parameter", found=name[:40], needed=", ".join(sorted((*PARAMETERS, STOP)))
        )
    try:
        value = int(text) if limits.whole else float(text)
    except ValueError:
        value = float("nan")
    if not limits.low <= value <= limits.high:  # what is no number is in no range
        kind = "a whole number" if limits.whole else "a number"
        raise FormatError(
            f"{name} out of range",
            found=text[:40],
            needed=f"{kind} from {limits.low:g} to {limits.high:g}",
        )
    return value


def add_parameter(
    options: dict[str, Value | tuple[str, ...]], name: str, text: str
) -> dict[str, Value | tuple[str, ...]]:
    """The options with one more; stops add up, others replace. Raises FormatError."""
    value = parse_parameter(name, text)
    if name != STOP:
        return {**options, name: value}
    stops = options.get(STOP, ())
    assert isinstance(stops, tuple)
    if len(stops) == MAX_STOPS:
        raise FormatError("too many stops", needed=f"at most {MAX_STOPS}")
    return {**options, STOP: (*stops, str(value))}
