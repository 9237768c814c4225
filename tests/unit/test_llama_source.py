"""What the `source` provider takes out of an archive and of a build, and what it refuses."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from edgekit.core.launch import Start, llama_server_arguments
from edgekit.core.planning.values import Serving
from edgekit.engines.llama_cpp_source import (
    OPTIONS,
    SourceArchive,
    build_pack,
    check_built,
    collect,
    unpack_source,
)
from edgekit.errors import FormatError, MissingToolError


def archive(folder: Path, members: dict[str, bytes | str]) -> Path:
    path = folder / "engine-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def test_only_regular_files_of_the_vendored_project_are_unpacked(tmp_path: Path) -> None:
    source = archive(tmp_path, {
        "e-1.0/vendor/llama.cpp/CMakeLists.txt": b"project(x)",
        "e-1.0/vendor/llama.cpp/ggml/a.c": b"int a;",
        "e-1.0/vendor/llama.cpp/link": "/etc/passwd",
        "e-1.0/setup.py": b"raise SystemExit",
    })
    unpack_source(source, tmp_path / "out")
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")
                   if not p.is_dir())
    assert found == ["vendor/llama.cpp/CMakeLists.txt", "vendor/llama.cpp/ggml/a.c"]


@pytest.mark.parametrize("name", [
    "e/vendor/llama.cpp/../../../../escaped", "e/vendor/llama.cpp//etc/escaped",
])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    source = archive(tmp_path, {"e/vendor/llama.cpp/CMakeLists.txt": b"", name: b"x"})
    with pytest.raises(FormatError):
        unpack_source(source, tmp_path / "out")
    assert not list(tmp_path.parent.rglob("escaped"))


def test_an_archive_without_the_project_or_cut_off_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path, {"e/README": b"nothing here"})
    with pytest.raises(FormatError, match=r"holds no llama\.cpp"):
        unpack_source(source, tmp_path / "out")
    source.write_bytes(source.read_bytes()[:40])
    with pytest.raises(FormatError, match="damaged"):
        unpack_source(source, tmp_path / "out-2")


def built(folder: Path, help_text: str, levels: tuple[str, ...] = ("x64", "haswell")) -> Path:
    """The folder that a build leaves, with a server that only knows `--help`."""
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "llama-server").write_text(f"#!/bin/sh\ncat <<'END'\n{help_text}\nEND\n", "utf-8")
    for level in levels:
        (bin_ / f"libggml-cpu-{level}.so").write_bytes(b"level")
    (bin_ / "libllama.so.0.0.1").write_bytes(b"library")
    (bin_ / "libllama.so.0").symlink_to("libllama.so.0.0.1")
    (bin_ / "libllama.so").symlink_to("libllama.so.0")
    (bin_ / "libggml-cuda.so").write_bytes(b"backend")
    (bin_ / "test-tool").write_bytes(b"not carried")
    tree = folder / "tree"
    collect(bin_, tree)
    (tree / "edgekit-ggml").write_text("#!/bin/sh\n", "utf-8")
    (tree / "edgekit-ggml").chmod(0o755)
    return tree


def full_help() -> str:
    start = Start("", "m", (("", ""),), "", Serving(1, 1, 1, 1, "f16"), pooling="mean")
    words = [word for word in llama_server_arguments(start) if word.startswith("--")]
    return " ".join([*words, "--device", "--tensor-split", "--n-cpu-moe", "--lora-scaled",
                     "--mmproj", "--no-mmproj-offload"])


def test_libraries_go_by_their_loaders_name_and_levels_lie_apart(tmp_path: Path) -> None:
    tree = built(tmp_path, full_help())
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    assert names == ["cpu/libggml-cpu-haswell.so", "cpu/libggml-cpu-x64.so", "edgekit-ggml",
                     "libggml-cuda.so", "libllama.so.0", "llama-server"]
    assert not any(path.is_symlink() for path in tree.rglob("*"))
    check_built(tree)


def test_an_option_that_is_gone_is_found_when_bundling(tmp_path: Path) -> None:
    tree = built(tmp_path, full_help().replace("--no-slots", "").replace("--cache-ram", "--cram"))
    with pytest.raises(FormatError) as caught:
        check_built(tree)
    assert caught.value.found == "--cache-ram --no-slots"


def test_a_level_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    tree = built(tmp_path, full_help(), ("x64", "graniterapids"))
    with pytest.raises(FormatError) as caught:
        check_built(tree)
    assert caught.value.found == "graniterapids"


def test_nothing_is_fetched_while_building_and_nothing_can_be_started_by_it() -> None:
    assert {"-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF",
            "-DLLAMA_SUBPROCESS=OFF", "-DGGML_NATIVE=OFF"} <= set(OPTIONS)


def test_a_missing_toolchain_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "ninja", "cc", "c++"):
        (tools / name).write_text("#!/bin/sh\necho 1\n", "utf-8")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr("shutil.which", lambda name, path: str(tools / name)
                        if (tools / name).exists() else None)
    source = SourceArchive(tmp_path / "none", "1.0", "0" * 64)
    with pytest.raises(MissingToolError, match="nvcc") as caught:
        build_pack(source, accelerator="cuda", arch="x86_64", cache=tmp_path,
                   listener=lambda event: None)
    assert "CUDA" in str(caught.value.hint)
