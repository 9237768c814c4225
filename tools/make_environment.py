"""Make the checkout's own environment from hashed requirements; runs on a bare Debian Python.

Standard library only: it is what creates the environment. Debian's python3 comes without the venv
module's helper; as root it is installed and named, otherwise the command to run is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def main() -> int:
    """`make_environment.py VENV STAMP`: make VENV match the requirements, then touch STAMP."""
    venv, stamp = Path(sys.argv[1]), Path(sys.argv[2])
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs on whatever python3 is
        print(f"edgekit needs Python 3.11 or newer, this is {sys.version.split()[0]}")
        return 1
    started = time.monotonic()
    if venv.exists():
        shutil.rmtree(venv)
    if not _make_venv(venv):
        return 1
    python = str(venv / "bin/python")
    _run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check",
          "--require-hashes", "-r", "requirements/uv.txt"])
    _run([str(venv / "bin/uv"), "pip", "install", "-q", "--python", python, "--require-hashes",
          "-r", "requirements/test.txt"])
    # The package itself is used from the checkout: one .pth line instead of a build.
    site = next((venv / "lib").glob("python*/site-packages"))
    (site / "edgekit-checkout.pth").write_text(f"{Path.cwd()}\n")
    launcher = venv / "bin/edgekit"
    launcher.write_text(f"#!{Path.cwd() / python}\nimport sys\n"
                        "from edgekit.__main__ import main\nsys.exit(main())\n")
    launcher.chmod(0o755)
    stamp.touch()
    print(f"environment: {venv} made in {time.monotonic() - started:.0f} s")
    return 0


def _make_venv(venv: Path) -> bool:
    """Create the environment, installing Debian's venv package where it is missing."""
    if subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True).returncode:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            print(f"this Python cannot make environments; run: sudo apt-get install {package}")
            return False
        print(f"environment: installing {package}")
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package])
        _run([sys.executable, "-m", "venv", str(venv)])
    return True


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
