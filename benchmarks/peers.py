"""Other people's ways to carry the same bytes: rauc, restic, OpenSSF model signing.

What a peer needs is made once, not measured, and with the same bytes: a signed rauc bundle with
verity and without compression, a restic repository, a model signature. Peers that are not
installed are named and left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.measure import Contender, installed, shell

MODEL_SIGNING = ("model-signing==1.1.1", "pyopenssl")
NO_COMPRESSION = "-noI -noD -noF -noX"
RAUC_MANIFEST = "[update]\ncompatible=benchmark\nversion=1\n[bundle]\nformat=verity\n"


def rauc_extract(files: Path, folder: Path) -> list[Contender]:
    """`rauc extract`: signature and hash tree are checked, the files land in a folder."""
    if not (installed("rauc") and installed("mksquashfs") and installed("openssl")):
        return []
    place = folder / "rauc"
    if not place.exists():
        _make_rauc_bundle(files, place)
    script = 'rauc extract --keyring="$1/cert.pem" "$1/bundle.raucb" "$2" >/dev/null 2>&1; sync'
    return [shell("rauc extract, sync", script, place, "{target}", reads=place)]


def _make_rauc_bundle(files: Path, place: Path) -> None:
    content = place / "content"
    shutil.copytree(files, content, copy_function=_link)
    (content / "manifest.raucm").write_text(RAUC_MANIFEST)
    key, cert = place / "key.pem", place / "cert.pem"
    curve = "ec_paramgen_curve:P-384"
    _run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        curve,
        "-nodes",
        "-subj",
        "/CN=benchmark",
        "-keyout",
        key,
        "-out",
        cert,
        "-days",
        "365",
    )
    _run(
        "rauc",
        "bundle",
        f"--cert={cert}",
        f"--key={key}",
        f"--mksquashfs-args={NO_COMPRESSION}",
        content,
        place / "bundle.raucb",
    )
    shutil.rmtree(content)


def restic_restore(files: Path, folder: Path) -> list[Contender]:
    """`restic restore`: every pack is checked while the files are written."""
    if not installed("restic"):
        return []
    place = folder / "restic"
    restic = f'RESTIC_PASSWORD=x restic -q --no-cache -r "{place}"'
    if not place.exists():
        needed = sum(path.stat().st_size for path in files.iterdir())
        if shutil.disk_usage(folder).free < 3 * needed:
            print("not enough disk for a restic repository: skipped", file=sys.stderr)
            return []
        _run("sh", "-ec", f'{restic} init; {restic} backup "$1"', "sh", files)
    return [
        shell(
            "restic restore, sync", f'{restic} restore latest --target "$1"; sync', "{target}",
            reads=place,
        )
    ]


def model_signing_verify(files: Path, folder: Path) -> list[Contender]:
    """OpenSSF model signing's `verify` with SHA-256 of every file; it copies nothing."""
    place, environment = folder / "model-signing", folder.parent / "model-signing-venv"
    program = environment / "bin/model_signing"
    if not program.exists():
        try:
            venv.create(environment, with_pip=True)
            _run(environment / "bin/pip", "-q", "install", *MODEL_SIGNING)
        except subprocess.CalledProcessError:
            print("model_signing cannot be installed: skipped", file=sys.stderr)
            shutil.rmtree(environment)
            return []
    if not place.exists():
        place.mkdir()
        key = place / "key.pem"
        _run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        _run("openssl", "ec", "-in", key, "-pubout", "-out", place / "public.pem")
        _run(program, "sign", "key", files, "--private_key", key, "--signature", place / "sig")
    script = '"$1" verify key "$2" --signature "$3/sig" --public_key "$3/public.pem" >/dev/null'
    return [shell("model_signing verify, no copy", script, program, files, place, reads=files)]


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def _run(*argv: str | Path) -> None:
    subprocess.run(
        list(map(str, argv)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
