"""Contenders run one after the other as child processes, in pairs, with time and peak memory.

This process stays small on purpose: Linux counts the memory of the process that starts a child into
that child's peak, so whatever is large happens in children too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
MIN_COLD_BYTES = 100_000_000
"""Less data says nothing about cold caches, and dropping them disturbs the whole machine."""

CACHES = ("warm", "cold")
only_caches: str | None = None
"""Which page caches to measure with, both unless set: a long comparison may go in two parts."""

only_words: tuple[str, ...] = ()
"""With any, contenders other than the reference take part if one is in their name."""

PYTHON_CHILD = (sys.executable, "-m", "benchmarks.child")


@dataclass(frozen=True, slots=True)
class Contender:
    """A named command line; `{target}` in it becomes a folder that does not exist yet.

    With `reports_seconds` the child prints its own seconds, without interpreter start and imports;
    otherwise the whole process is timed. For warm caches all files below `reads` are read before.
    """

    name: str
    argv: tuple[str, ...]
    reports_seconds: bool = False
    reads: Path | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of one contender: medians over the rounds, times in seconds.

    `ratios` are this contender's time over the reference's in the same round, `cpu` is processor
    time (user and system, without the kernel's own writeback), `peak` the largest resident memory
    of any of its processes in bytes, `amount` the bytes it worked on.
    """

    contender: str
    caches: str
    seconds: float
    amount: int
    ratios: tuple[float, ...]
    cpu: float
    peak: int

    @property
    def rate(self) -> float:
        """Million bytes per second."""
        return self.amount / self.seconds / 1e6 if self.seconds else 0.0

    def table(self) -> dict[str, object]:
        """The row as plain JSON values."""
        return {
            "contender": self.contender,
            "caches": self.caches,
            "seconds": round(self.seconds, 4),
            "mb_per_s": round(self.rate, 1),
            "ratio": round(median(self.ratios), 3),
            "ratios": [round(ratio, 3) for ratio in self.ratios],
            "cpu_seconds": round(self.cpu, 4),
            "peak_mib": self.peak >> 20,
        }


@dataclass(frozen=True, slots=True)
class _Run:
    """One run: seconds on the wall, seconds of processors, resident bytes at the peak."""

    seconds: float
    cpu: float
    peak: int


def python_child(
    name: str, task: str, *arguments: str | Path, reads: Path | None = None
) -> Contender:
    """A contender that is a function of benchmarks/child.py."""
    argv = (*PYTHON_CHILD, task, *map(str, arguments))
    return Contender(name, argv, reports_seconds=True, reads=reads)


def shell(
    name: str, script: str, *arguments: str | Path, reads: Path | None = None
) -> Contender:
    """A contender that is a line of sh; `$1`, `$2`, ... are the arguments."""
    return Contender(name, ("sh", "-ec", script, "sh", *map(str, arguments)), reads=reads)


def run_child(task: str, *arguments: str | Path) -> None:
    """Do something large outside this process. Raises CalledProcessError."""
    contender = python_child(task, task, *arguments)
    subprocess.run(contender.argv, stdout=subprocess.DEVNULL, check=True)


def installed(tool: str) -> bool:
    """Whether a peer can take part; prints a line when it cannot."""
    if shutil.which(tool):
        return True
    print(f"{tool} is not installed: skipped", file=sys.stderr)
    return False


def can_drop_caches() -> bool:
    """Whether reads can be made cold here."""
    return os.geteuid() == 0 and os.access(DROP_CACHES, os.W_OK)


def compare(
    contenders: Sequence[Contender],
    *,
    amount: int,
    rounds: int,
    folder: Path,
    cold: bool = False,
) -> list[Row]:
    """Run all contenders in turn, `rounds` times over; ratios are to the first one.

    What they write to `{target}` is removed, and everything dirty is flushed, outside the measured
    time. Raises CalledProcessError when a contender fails.
    """
    contenders = [
        contender
        for index, contender in enumerate(contenders)
        if not only_words or not index or any(word in contender.name for word in only_words)
    ]
    runs = [
        [_run(contender, folder / "target", cold=cold) for contender in contenders]
        for _ in range(rounds)
    ]
    return [
        Row(
            contender=contender.name,
            caches="cold" if cold else "warm",
            seconds=median(run[index].seconds for run in runs),
            amount=amount,
            ratios=tuple(run[index].seconds / run[0].seconds for run in runs),
            cpu=median(run[index].cpu for run in runs),
            peak=max(run[index].peak for run in runs),
        )
        for index, contender in enumerate(contenders)
    ]


def compare_warm_and_cold(
    contenders: Sequence[Contender], *, amount: int, rounds: int, folder: Path
) -> list[Row]:
    """`compare` with warm caches, and cold ones where that is possible and worth it."""
    rows: list[Row] = []
    if only_caches != "cold":
        rows += compare(contenders, amount=amount, rounds=rounds, folder=folder)
    if only_caches == "warm" or amount < MIN_COLD_BYTES:
        return rows
    if not can_drop_caches():
        print("caches cannot be dropped here (not root): warm only", file=sys.stderr)
        return rows
    return rows + compare(contenders, amount=amount, rounds=rounds, folder=folder, cold=True)


def _run(contender: Contender, target: Path, *, cold: bool) -> _Run:
    os.sync()
    if cold:
        DROP_CACHES.write_text("3\n")
    elif contender.reads is not None:
        warm = ["find", str(contender.reads), "-type", "f", "-exec", "cat", "{}", "+"]
        subprocess.run(warm, stdout=subprocess.DEVNULL, check=True)
    argv = [part.replace("{target}", str(target)) for part in contender.argv]
    started = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    spent = time.monotonic() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    shutil.rmtree(target, ignore_errors=True)
    return _Run(
        seconds=float(output) if contender.reports_seconds else spent,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss << 10,
    )


def render(title: str, rows: Sequence[Row]) -> str:
    """Rows as an aligned table for people."""
    numbers = "  seconds    MB/s  ratio     from..to   cpu s peak MiB"
    lines = [title, f"  {'':34} {'caches':6}{numbers}"]
    for row in rows:
        span = f"{min(row.ratios):.2f}..{max(row.ratios):.2f}"
        lines.append(
            f"  {row.contender:34} {row.caches:6} {row.seconds:8.3f} {row.rate:7.0f} "
            f"{median(row.ratios):6.2f} {span:>12} {row.cpu:7.2f} {row.peak >> 20:8}"
        )
    return "\n".join(lines)
