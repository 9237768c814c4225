"""Ollama's Modelfile: a model of this host with words and settings of its own. Pure.

    FROM edgekit-demo
    ADAPTER sailor
    SYSTEM You answer in one sentence.
    TEMPLATE {{ .System }} {{ .Prompt }}
    PARAMETER temperature 0
    MESSAGE user Who are you?
    MESSAGE assistant A model on a box without a network.
    LICENSE Apache-2.0

One instruction a line, its name in any case; a text of several lines stands between triple quotes.
Strict: what Ollama would pass over (an unknown instruction, a second FROM) is refused by its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgekit.core.model_parameters import Value, add_parameter
from edgekit.core.names import NAME_PATTERN
from edgekit.core.ollama_template import Template, parse_template
from edgekit.errors import FormatError

MAX_MODELFILE_BYTES = 64 << 10
MAX_MESSAGES = 100
MAX_LICENSES = 16
ROLES = ("system", "user", "assistant")
LOADING = frozenset({"num_ctx", "num_batch", "num_gpu", "num_thread", "num_keep", "use_mmap",
                     "use_mlock", "numa", "main_gpu", "low_vram", "f16_kv"})
"""Parameters about loading, which the plan has decided: accepted without effect, and named."""
_QUOTES = '"""'
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Such as begin a terminal's commands: `model show` prints these texts."""
_TAG = ":latest"


@dataclass(frozen=True, slots=True)
class Modelfile:
    """What a Modelfile says. `base` is the model it is made from, `adapters` came with that one;
    `ignored` had no effect."""

    base: str = ""
    system: str = ""
    parameters: tuple[tuple[str, Value | tuple[str, ...]], ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    template: Template | None = None
    ignored: tuple[str, ...] = ()


def parse_modelfile(data: bytes, *, file: str) -> Modelfile:
    """Bytes to what they say. `file` is how messages call it. Raises FormatError with the line."""
    if len(data) > MAX_MODELFILE_BYTES:
        needed = f"{MAX_MODELFILE_BYTES} bytes"
        raise FormatError("Modelfile is too large", where=file, needed=needed)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("Modelfile is not UTF-8", where=file, found=str(error)) from error
    if odd := _CONTROL.search(text):
        raise FormatError("Modelfile has a control character", where=file, found=repr(odd[0]))
    made = Modelfile()
    for number, name, argument in _instructions(text, file):
        try:
            made = _with(made, name, argument, number)
        except FormatError as error:
            where = error.where or f"line {number}"
            raise FormatError(
                error.message, where=f"{file}, {where}", found=error.found,
                needed=error.needed, hint=error.hint,
            ) from error
    if not made.base:
        raise FormatError("no FROM", where=file, needed="FROM and the name of a model of this host")
    return made


def _instructions(text: str, file: str) -> Iterator[tuple[int, str, str]]:
    """Line number, name in capitals, and argument of each instruction."""
    lines = iter(enumerate(text.replace("\r\n", "\n").split("\n"), 1))
    for number, line in lines:
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, _, argument = stripped.partition(" ")
        argument = argument.strip()
        if argument.count(_QUOTES) % 2:
            argument = line[line.index(argument) :]  # with the spaces at its end
        while argument.count(_QUOTES) % 2:
            more = next(lines, None)
            if more is None:
                raise FormatError(
                    "a text of several lines has no end", where=f"{file}, line {number}",
                    needed=_QUOTES,
                )
            argument += "\n" + more[1]
        yield number, name.upper(), argument.rstrip()


def _with(made: Modelfile, name: str, argument: str, line: int) -> Modelfile:
    """The same with one more instruction, which begins in this line. Raises FormatError."""
    if name not in INSTRUCTIONS:
        raise FormatError("unknown instruction", found=name[:40], needed=", ".join(INSTRUCTIONS))
    if not argument:
        raise FormatError(f"{name} says nothing", needed=f"{name} and its text")
    if name == "TEMPLATE":
        return _template(made, argument, line)
    return _TAKERS[name](made, argument)


def _from(made: Modelfile, argument: str) -> Modelfile:
    if made.base:
        raise FormatError("a second FROM", found=argument[:80])
    name = argument.removesuffix(_TAG)
    if not re.fullmatch(NAME_PATTERN, name):
        raise FormatError(
            "FROM names no model of this host", found=argument[:80],
            needed="the name of a model that came in a verified set", hint="edgekit model list",
        )
    return replace(made, base=name)


def _system(made: Modelfile, argument: str) -> Modelfile:
    if made.system:
        raise FormatError("a second SYSTEM")
    return replace(made, system=_text(argument))


def _parameter(made: Modelfile, argument: str) -> Modelfile:
    name, _, value = argument.partition(" ")
    if name in LOADING:
        return replace(made, ignored=(*made.ignored, name))
    parameters = add_parameter(dict(made.parameters), name, _text(value.strip()))
    return replace(made, parameters=tuple(parameters.items()))


def _message(made: Modelfile, argument: str) -> Modelfile:
    role, _, text = argument.partition(" ")
    if role not in ROLES or not text.strip():
        needed = f"{', '.join(ROLES)}, and a text"
        raise FormatError("malformed MESSAGE", found=role[:40], needed=needed)
    if len(made.messages) == MAX_MESSAGES:
        raise FormatError("too many messages", needed=f"at most {MAX_MESSAGES}")
    return replace(made, messages=(*made.messages, (role, _text(text.strip()))))


def _license(made: Modelfile, argument: str) -> Modelfile:
    if len(made.licenses) == MAX_LICENSES:
        raise FormatError("too many licences", needed=f"at most {MAX_LICENSES}")
    return replace(made, licenses=(*made.licenses, _text(argument)))


def _template(made: Modelfile, argument: str, line: int) -> Modelfile:
    if made.template:
        raise FormatError("a second TEMPLATE")
    template = parse_template(_unquoted(argument), line)  # its newlines are the prompt's
    if not template.names & {"prompt", "messages"}:
        raise FormatError("TEMPLATE shows the model no message", needed=".Prompt or .Messages")
    return replace(made, template=template)


def _adapter(made: Modelfile, argument: str) -> Modelfile:
    if not re.fullmatch(NAME_PATTERN, argument):
        raise FormatError(
            "ADAPTER names no adapter of this host", found=argument[:80],
            needed="the name of an adapter that came in a verified set",
            hint="edgekit model show MODEL",
        )
    if argument in made.adapters:
        raise FormatError("an adapter is named twice", found=argument)
    return replace(made, adapters=(*made.adapters, argument))


_TAKERS = {
    "FROM": _from,
    "SYSTEM": _system,
    "PARAMETER": _parameter,
    "MESSAGE": _message,
    "LICENSE": _license,
    "ADAPTER": _adapter,
}
INSTRUCTIONS = (*_TAKERS, "TEMPLATE")


def _text(argument: str) -> str:
    """A text without the quotes around it, and without empty lines next to them."""
    text = _unquoted(argument)
    return text if text == argument else text.strip("\n")


def _unquoted(argument: str) -> str:
    """A text without the quotes around it: three, one, or none."""
    for quotes in (_QUOTES, '"'):
        if argument.startswith(quotes):
            inner = argument[len(quotes) :]
            if not inner.endswith(quotes) or quotes in inner[: -len(quotes)]:
                raise FormatError("text after its closing quotes", found=argument[-40:])
            return inner[: -len(quotes)]
    return argument


def render_modelfile(made: Modelfile) -> str:
    """The text that parses to the same."""
    lines = [f"FROM {made.base}", *(f"ADAPTER {name}" for name in made.adapters)]
    if made.system:
        lines.append(f"SYSTEM {_quoted(made.system)}")
    if made.template:
        lines.append(f"TEMPLATE {_quoted(made.template.text)}")
    lines += [f"PARAMETER {line}" for line in parameter_lines(made)]
    lines += [f"MESSAGE {role} {_quoted(text)}" for role, text in made.messages]
    lines += [f"LICENSE {_quoted(text)}" for text in made.licenses]
    return "\n".join(lines) + "\n"


def parameter_lines(made: Modelfile) -> list[str]:
    """Each parameter's name and value."""
    return [
        f"{name} {_quoted(str(one))}"
        for name, value in made.parameters
        for one in (value if isinstance(value, tuple) else (value,))
    ]


def _quoted(text: str) -> str:
    if "\n" in text or text != text.strip() or text.startswith('"'):
        return f"{_QUOTES}{text}{_QUOTES}"
    return text
