"""Commands and plugins that a wheel would bring, by its entry_points.txt.

An installer turns each console script into a program on PATH, so a wheel could bring its own `ls`.
A script is carried when it is named after its distribution, is known to belong to it, or is allowed
by the caller. Format: PyPA entry points specification.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Collection

MAX_ENTRY_POINTS = 2000

_SCRIPT_GROUPS = ("console_scripts", "gui_scripts")
_SCRIPT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,99})")
_TARGET = re.compile(r"[A-Za-z_][\w.]*(?::[A-Za-z_][\w.]*)?(?:\s*\[[\w\s,.-]*\])?")
_KNOWN_SCRIPTS = {
    "apache-tvm-ffi": "tvm-ffi-config tvm-ffi-stubgen",
    "charset-normalizer": "normalizer",
    "huggingface-hub": "hf tiny-agents",
    "jmespath": "jp.py",
    "modelscope": "ms",
    "numpy": "f2py numpy-config",
    "onnx": "backend-test-tools check-model check-node",
    "partial-json-parser": "json-playground",
    "pip": "pip3",
    "py-cpuinfo": "cpuinfo",
    "pygments": "pygmentize",
    "pyinstaller": "pyi-archive_viewer pyi-bindepend pyi-grab_version pyi-makespec pyi-set_version",
    "pytest": "py.test",
    "python-dotenv": "dotenv",
    "ray": "rllib serve tune",
    "rsa": "pyrsa-decrypt pyrsa-encrypt pyrsa-keygen pyrsa-priv2pub pyrsa-sign pyrsa-verify",
    "sympy": "isympy",
    "torch": "torchfrtrace torchrun",
    "triton": "proton proton-viewer",
}
"""Distribution to scripts that do not begin with its name, from the libraries engines stand on."""
_FOREIGN_PLUGINS = {"vllm": "vllm."}
"""Groups whose entries another program imports at every start, by the program that owns them."""


def entry_point_problem(text: str, distribution: str, allowed: Collection[str]) -> str | None:
    """What is wrong with an entry_points.txt, or None.

    `distribution` is the wheel's normalised name, `allowed` are script names the caller accepts.
    """
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        return f"its entry_points.txt cannot be read ({type(error).__name__})"
    if parser.defaults() or sum(len(parser[group]) for group in parser.sections()) > (
        MAX_ENTRY_POINTS
    ):
        return "its entry_points.txt has too many entries, or some outside a group"
    for group in parser.sections():
        for name, target in parser[group].items():
            problem = _entry_problem(group, name, target, distribution, allowed)
            if problem is not None:
                return problem
    return None


def _entry_problem(
    group: str, name: str, target: str, distribution: str, allowed: Collection[str]
) -> str | None:
    for owner, prefix in _FOREIGN_PLUGINS.items():
        if group.startswith(prefix) and not distribution.startswith(owner):
            return f"its entry point {name[:60]} would run at every start of {owner}"
    if group not in _SCRIPT_GROUPS:
        return None
    if _SCRIPT.fullmatch(name) is None or _TARGET.fullmatch(target.strip()) is None:
        return f"its script {name[:60]!r} has no plain name or target"
    if name in allowed or _belongs(name, distribution):
        return None
    return f"it brings the script {name[:60]}, which is not on the list"


def _belongs(name: str, distribution: str) -> bool:
    """`vllm`, `vllm-bench` and `vllm3.11` of vllm; `markdown-it` of markdown-it-py."""
    script = re.sub(r"[-_.]+", "-", name).lower()
    stem = distribution.removeprefix("python-").removesuffix("-py").removesuffix("-python")
    own = {distribution, stem, distribution.partition("-")[0]}
    if name in _KNOWN_SCRIPTS.get(distribution, "").split():
        return True
    return any(re.fullmatch(rf"{re.escape(word)}(?:[0-9-].*)?", script) for word in own)
