"""fdatasync that the kernel does while this process goes on (Linux AIO, `IOCB_CMD_FDSYNC`).

A thread would not do: while Python computes, it gets the interpreter too late to begin. Where the
kernel does not offer it, `start` syncs at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable

_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""io_setup, io_destroy, io_getevents, io_submit. The C library has no functions for them."""

_FDSYNC = 3
_IOCB = struct.Struct("<QIIHhIQQqQII")
"""data, key, rw_flags, opcode, priority, file, buffer, bytes, offset, reserved, flags, eventfd."""

_EVENT = struct.Struct("<QQqq")
"""data, iocb, result, second result."""


class BackgroundSync:
    """One sync at a time: `start`, later `wait`. Close it with `close`.

    `sync` is what is called where there is no other way; one that is not os.fdatasync is always.
    """

    def __init__(self, sync: Callable[[int], None] = os.fdatasync) -> None:
        self._sync = sync
        self._runs = False
        self._context: int | None = None
        self._calls = _CALLS.get(platform.machine()) if sync is os.fdatasync else None

    def _set_up(self, calls: tuple[int, int, int, int]) -> None:
        self._setup, self._destroy, self._getevents, self._submit = map(ctypes.c_long, calls)
        self._iocb = ctypes.create_string_buffer(_IOCB.size)
        self._event = ctypes.create_string_buffer(_EVENT.size)
        self._list = (ctypes.c_void_p * 1)(ctypes.addressof(self._iocb))
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        context = ctypes.c_ulong(0)
        if self._call(self._setup, ctypes.c_long(1), ctypes.byref(context)) == 0:
            self._context = context.value

    def start(self, descriptor: int) -> None:
        """Begin to make durable what was written to this file. Raises OSError."""
        if self._calls is not None:
            self._set_up(self._calls)
            self._calls = None
        if self._context is not None:
            _IOCB.pack_into(self._iocb, 0, 0, 0, 0, _FDSYNC, 0, descriptor, 0, 0, 0, 0, 0, 0)
            context, one = ctypes.c_ulong(self._context), ctypes.c_long(1)
            if self._call(self._submit, context, one, self._list) == 1:
                self._runs = True
                return
        self._sync(descriptor)

    def wait(self) -> None:
        """Come back when what was begun is durable; at once when nothing was. Raises OSError."""
        while self._runs:
            context, one = ctypes.c_ulong(self._context or 0), ctypes.c_long(1)
            if self._call(self._getevents, context, one, one, self._event, None) == 1:
                self._runs = False
                result = _EVENT.unpack(self._event)[2]
                if result < 0:
                    raise OSError(-result, os.strerror(-result))
            elif (number := ctypes.get_errno()) != errno.EINTR:
                raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Wait for what runs, whatever comes of it, and let go."""
        if self._context is not None:
            self._call(self._destroy, ctypes.c_ulong(self._context))
            self._context, self._runs = None, False
