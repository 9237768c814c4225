"""Make the checkout's own environment from hashed requirements; runs on a bare Debian Python.

Standard library only: it is what creates the environment. Debian's python3 comes without some
parts that are needed; as root they are installed and named, otherwise the command is printed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from tools.debian_packages import BUNDLING, ensure_packages, install_command


def main() -> int:
    """`python3 -m tools.make_environment VENV STAMP`: match the requirements, touch STAMP."""
    venv, stamp = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        _check_python()
        _make(venv)
    except EnvironmentMakingError as failure:
        print(f"environment: {failure}")
        return 1
    except KeyboardInterrupt:
        print("\nenvironment: interrupted; the next run starts it again")
        return 130
    stamp.touch()
    return 0


class EnvironmentMakingError(Exception):
    """Why there is no environment, and what to do."""


def _check_python() -> None:
    version = sys.version.split()[0]
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs on whatever python3 is
        raise EnvironmentMakingError(
            f"Python 3.11 or newer is needed, {sys.executable} is {version}; "
            "name another with `make PYTHON=...`")
    missing = ensure_packages(BUNDLING, lambda text: print(f"environment: {text}", flush=True))
    if missing and not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        raise EnvironmentMakingError(
            f"{sys.executable} was built without its shared library, which freezing needs; "
            "use Debian's: make PYTHON=/usr/bin/python3")
    if missing:
        raise EnvironmentMakingError(
            "Debian packages are missing; install them, then run make again:\n\n"
            f"    {install_command(missing)}\n")


def _make(venv: Path) -> None:
    started = time.monotonic()
    print(f"environment: making {venv} (once, well under a minute)", flush=True)
    if venv.exists():
        shutil.rmtree(venv)
    python = str(venv / "bin/python")
    _run([sys.executable, "-m", "venv", str(venv)])
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
    print(f"environment: done in {time.monotonic() - started:.0f} s", flush=True)


def _run(argv: list[str]) -> None:
    """Run quietly; what it printed is shown when it fails."""
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise EnvironmentMakingError(f"{' '.join(argv)} failed:\n{done.stdout.strip()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
