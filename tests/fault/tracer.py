"""Stop a forked process at every system call that changes a file system, and decide what happens.

A seccomp filter in the child stops it (SECCOMP_RET_TRACE) before calls of the list below and at
nothing else, so everything between runs at full speed; ptrace does the rest. This sees every call,
whatever library or thread makes it. Linux on x86-64 only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)

PTRACE_TRACEME, PTRACE_CONT, PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SYSCALL = 0, 7, 12, 13, 24
PTRACE_SETOPTIONS = 0x4200
OPTIONS = 0x01 | 0x08 | 0x80 | 0x100000  # SYSGOOD, TRACECLONE, TRACESECCOMP, EXITKILL
EVENT_SECCOMP = 7
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_FILTER = 38, 22, 2
RET_ALLOW, RET_TRACE = 0x7FFF0000, 0x7FF00000
AUDIT_ARCH_X86_64 = 0xC000003E
AT_FDCWD = -100
O_CREAT, O_TRUNC = 0o100, 0o1000

CHANGES = {
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328, "sendfile": 40,
    "copy_file_range": 326, "splice": 275, "ftruncate": 77, "truncate": 76, "fallocate": 285,
    "fsync": 74, "fdatasync": 75, "syncfs": 306, "sync": 162, "sync_file_range": 277,
    "open": 2, "openat": 257, "creat": 85, "mkdir": 83, "mkdirat": 258, "mknod": 133,
    "mknodat": 259, "rmdir": 84, "unlink": 87, "unlinkat": 263, "rename": 82, "renameat": 264,
    "renameat2": 316, "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266, "chmod": 90,
    "fchmod": 91, "fchmodat": 268, "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94,
    "fchownat": 260, "utimensat": 280, "setxattr": 188, "fsetxattr": 190,
}
READS = {"read": 0, "pread64": 17, "readv": 19, "preadv": 295, "preadv2": 327}
LOOKS = READS | {
    "open": 2, "openat": 257, "stat": 4, "lstat": 6, "newfstatat": 262, "statx": 332,
    "getdents64": 217, "access": 21, "faccessat": 269, "faccessat2": 439, "readlink": 89,
    "readlinkat": 267, "statfs": 137,
}
"""What fails on a medium that is gone: reads, and every look at a name."""
NAMES = {number: name for name, number in (CHANGES | LOOKS).items()}
OPENS = {"open": 1, "openat": 2}
"""Calls that count, of CHANGES, only when they may create or cut a file: where their flags are."""

_PATHS = {
    "open": (0,), "creat": (0,), "mkdir": (0,), "mknod": (0,), "rmdir": (0,), "unlink": (0,),
    "truncate": (0,), "chmod": (0,), "chown": (0,), "lchown": (0,), "setxattr": (0,),
    "rename": (0, 1), "link": (0, 1), "symlink": (None, 1),
    "stat": (0,), "lstat": (0,), "access": (0,), "readlink": (0,), "statfs": (0,),
}
_PATHS_AT = {
    "openat": ((0, 1),), "mkdirat": ((0, 1),), "mknodat": ((0, 1),), "unlinkat": ((0, 1),),
    "fchmodat": ((0, 1),), "fchmodat2": ((0, 1),), "fchownat": ((0, 1),), "utimensat": ((0, 1),),
    "renameat": ((0, 1), (2, 3)), "renameat2": ((0, 1), (2, 3)), "linkat": ((0, 1), (2, 3)),
    "symlinkat": ((1, 2),), "newfstatat": ((0, 1),), "statx": ((0, 1),),
    "faccessat": ((0, 1),), "faccessat2": ((0, 1),), "readlinkat": ((0, 1),),
}


def can_trace() -> bool:
    """Whether this machine is one that the register layout below fits."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


class Registers(ctypes.Structure):
    """user_regs_struct of x86-64."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in (
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
        "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds",
        "es", "fs", "gs")]


@dataclass(slots=True)
class Call:
    """A call about to be made: its number in this run (from 1), name, arguments, paths.

    A path is absolute; for a call on a descriptor it is the open file's. `link` is what a symbolic
    link will hold.
    """

    number: int
    name: str
    arguments: tuple[int, ...]
    paths: tuple[str, ...]
    process: int
    link: str = ""

    def descriptor(self) -> Path:
        """The path under /proc of the open file that the call is about."""
        number = ctypes.c_int(self.arguments[0] & 0xFFFFFFFF).value
        return Path(f"/proc/{self.process}/fd/{number}")

    def data(self) -> bytes:
        """The bytes that write, pwrite64 or pwrite would write. Raises ValueError for others."""
        if self.name not in ("write", "pwrite64"):
            raise ValueError(self.name)
        return read_memory(self.process, self.arguments[1], self.arguments[2])


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the whole process: before the call, or after it did part of its work."""

    torn: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """The call is not made and returns this errno."""

    errno: int


@dataclass(frozen=True, slots=True)
class Short:
    """The call gets half of its bytes."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The call is made after a pause in seconds."""

    seconds: float


Action = Kill | Fail | Short | Delay | None
Decide = Callable[[Call], Action]
Seen = Callable[[Call, int], None]
"""Told of every call and its result (negative: -errno) when it has returned."""


@dataclass(slots=True)
class Ended:
    """How a run ended: exit status (negative: the signal), and how many calls were stopped."""

    status: int
    calls: int = 0
    fired: int = field(default=0)
    output: str = ""


class _KilledError(Exception):
    """The process was killed on purpose."""


def run_forked(
    work: Callable[[], int],
    *,
    decide: Decide | None = None,
    seen: Seen | None = None,
    below: tuple[str, ...] = ("/",),
    calls: dict[str, int] | None = None,
) -> Ended:
    """Run `work` in a fork of this process and return how it ended, with what it printed.

    With `decide` or `seen` every call of `calls` (those that change files) on a path below one of
    `below` is stopped. Call from a process with one thread.
    """
    traced = decide is not None or seen is not None
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _child(work, write_end, calls or CHANGES if traced else None)
    os.close(write_end)
    if traced:
        ended = _Tracing(child, decide, seen, below).run()
    else:
        ended = Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    with os.fdopen(read_end, "rb") as pipe:
        ended.output = pipe.read().decode(errors="replace")
    return ended


def _child(work: Callable[[], int], output: int, calls: dict[str, int] | None) -> None:
    status = 99
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        if calls is not None:
            _ptrace(PTRACE_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)  # until the tracer has set its options
            _filter(calls)
        status = work()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - whatever it was: it is the child's output
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _filter(calls: dict[str, int]) -> None:
    """Install the seccomp filter: stop at these calls, the standard streams' writes left out."""
    load_number, load_arch = (0x20, 0, 0, 0), (0x20, 0, 0, 4)
    jump_equal, jump_set, jump_greater, back = 0x15, 0x45, 0x25, 0x06
    program = [load_arch, (jump_equal, 1, 0, AUDIT_ARCH_X86_64), (back, 0, 0, RET_ALLOW),
               load_number]
    for name, number in calls.items():
        if name in OPENS and calls is CHANGES:
            test = [(0x20, 0, 0, 16 + 8 * OPENS[name]),
                    (jump_set, 0, 1, O_CREAT | O_TRUNC), (back, 0, 0, RET_TRACE),
                    (back, 0, 0, RET_ALLOW)]
        elif name in ("write", "writev"):
            test = [(0x20, 0, 0, 16), (jump_greater, 0, 1, 2), (back, 0, 0, RET_TRACE),
                    (back, 0, 0, RET_ALLOW)]
        else:
            test = [(back, 0, 0, RET_TRACE)]
        program += [(jump_equal, 0, len(test), number), *test]
    program.append((back, 0, 0, RET_ALLOW))
    code = b"".join(struct.pack("<HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(header, len(header))
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or LIBC.prctl(
        PR_SET_SECCOMP, SECCOMP_FILTER, ctypes.byref(holder), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter")


def _ptrace(request: int, process: int, address: int = 0, data: object = 0) -> None:
    argument = data if isinstance(data, int) else ctypes.byref(data)  # type: ignore[arg-type]
    if LIBC.ptrace(request, process, ctypes.c_void_p(address),
                   ctypes.c_void_p(argument) if isinstance(argument, int) else argument) < 0:
        raise ProcessLookupError(ctypes.get_errno(), "ptrace")


def read_memory(process: int, address: int, length: int) -> bytes:
    """Bytes of a stopped process."""
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(length)


def _text(process: int, address: int) -> str:
    data = b""
    while b"\0" not in data and len(data) < 8192:
        room = 4096 - (address + len(data)) % 4096  # never into a page that may not exist
        data += read_memory(process, address + len(data), min(room, 512))
    return os.fsdecode(data.partition(b"\0")[0])


class _Tracing:
    """The tracer's side of one run."""

    def __init__(
        self, child: int, decide: Decide | None, seen: Seen | None, below: tuple[str, ...]
    ) -> None:
        self._child = child
        self._decide = decide or (lambda _call: None)
        self._seen = seen
        self._below = below
        self._registers = Registers()
        self._returning: dict[int, Call | None] = {}
        self._ended = Ended(-99)

    def run(self) -> Ended:
        os.waitpid(self._child, WALL)
        _ptrace(PTRACE_SETOPTIONS, self._child, 0, OPTIONS)
        self._resume(self._child)
        while True:
            thread, status = os.waitpid(-1, WALL)
            if os.WIFSTOPPED(status):
                try:
                    self._stopped(thread, status)
                except ProcessLookupError:  # another thread was just killed with its process
                    continue
                except _KilledError:
                    os.kill(self._child, signal.SIGKILL)
            elif thread == self._child:
                self._ended.status = os.waitstatus_to_exitcode(status)
                return self._ended

    def _stopped(self, thread: int, status: int) -> None:
        number = os.WSTOPSIG(status)
        if number == SYSCALL_STOP:
            self._returned(thread)
        elif status >> 16 == EVENT_SECCOMP:
            self._about_to_call(thread)
        elif status >> 16 or number in (signal.SIGSTOP, signal.SIGTRAP):  # a thread began
            self._resume(thread)
        else:
            self._resume(thread, number)

    def _about_to_call(self, thread: int) -> None:
        registers = self._registers
        _ptrace(PTRACE_GETREGS, thread, 0, registers)
        call = self._describe(thread)
        if not any(path.startswith(self._below) for path in call.paths):
            self._resume(thread)
            return
        self._ended.calls += 1
        call.number = self._ended.calls
        action = self._decide(call)
        if action is not None:
            self._ended.fired += 1
        if isinstance(action, Kill) and not action.torn:
            raise _KilledError
        if isinstance(action, Fail):
            registers.orig_rax = ctypes.c_ulonglong(-1).value
            registers.rax = ctypes.c_ulonglong(-action.errno).value
            _ptrace(PTRACE_SETREGS, thread, 0, registers)
            if self._seen is not None:
                self._seen(call, -action.errno)
            self._resume(thread)
            return
        if isinstance(action, Short | Kill):
            registers.rdx //= 2
            _ptrace(PTRACE_SETREGS, thread, 0, registers)
        if isinstance(action, Delay):
            time.sleep(action.seconds)
        if isinstance(action, Kill):
            self._returning[thread] = None
            _ptrace(PTRACE_SYSCALL, thread)
        elif self._seen is not None:
            self._returning[thread] = call
            _ptrace(PTRACE_SYSCALL, thread)
        else:
            self._resume(thread)

    def _returned(self, thread: int) -> None:
        call = self._returning.pop(thread)
        if call is None:
            raise _KilledError
        _ptrace(PTRACE_GETREGS, thread, 0, self._registers)
        if self._seen is not None:
            self._seen(call, ctypes.c_longlong(self._registers.rax).value)
        self._resume(thread)

    def _describe(self, thread: int) -> Call:
        r = self._registers
        name = NAMES[r.orig_rax]
        arguments = (r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9)
        link = ""
        if name in _PATHS:
            paths = [self._absolute(thread, AT_FDCWD, arguments[at])
                     for at in _PATHS[name] if at is not None]
        elif name in _PATHS_AT:
            paths = [self._absolute(thread, arguments[folder], arguments[at])
                     for folder, at in _PATHS_AT[name]]
        else:
            paths = [self._of_descriptor(arguments[0])]
        if name in ("symlink", "symlinkat"):
            link = _text(thread, arguments[0])
        return Call(0, name, arguments, tuple(paths), thread, link)

    def _absolute(self, thread: int, folder: int, address: int) -> str:
        name = _text(thread, address)
        if name.startswith("/"):
            return name
        folder = ctypes.c_int(folder & 0xFFFFFFFF).value
        if folder == AT_FDCWD:
            return f"{Path(f'/proc/{self._child}/cwd').readlink()}/{name}"
        return f"{self._of_descriptor(folder)}/{name}"

    def _of_descriptor(self, descriptor: int) -> str:
        number = ctypes.c_int(descriptor & 0xFFFFFFFF).value
        try:
            open_file = Path(f"/proc/{self._child}/fd/{number}").readlink()
        except OSError:
            return ""
        return str(open_file).removesuffix(" (deleted)")

    def _resume(self, thread: int, number: int = 0) -> None:
        _ptrace(PTRACE_CONT, thread, 0, number)
