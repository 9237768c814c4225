"""Exit codes of every edgekit command: one documented enum, in tens by subject."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells a script. Any code not listed here means failure."""

    OK = 0
    """the command did what it promised"""
    INTERNAL = 1
    """a bug in edgekit; please report it with the text printed"""
    USAGE = 2
    """the command line itself was wrong"""
    WARNINGS = 3
    """finished, with warnings that want a reader"""

    FORMAT = 10
    """a file is not in the format it claims"""
    RECIPE = 11
    """a recipe or profile is wrong: the message names file, key and line"""
    LOCK = 12
    """a lock is missing, stale or does not match its recipe"""
    SET_SHAPE = 13
    """a file of the set is missing, foreign, or has the wrong size"""
    MODEL_FORMAT = 14
    """a weights file is malformed or of a refused kind"""
    CONFIG = 15
    """the site's configuration is wrong: the message names file, key and line"""

    TRUST = 20
    """nothing on this host says whom to trust, or the trust state is unusable"""
    SIGNATURE = 21
    """signatures do not reach the threshold of trusted signers"""
    DIGEST = 22
    """content differs from what was signed"""
    ROLLBACK = 23
    """the set is older than what this host has already accepted"""
    FINGERPRINT = 24
    """the root offered is not the one whose fingerprint was given"""

    HOST = 30
    """the host cannot be probed or used"""
    INCOMPATIBLE_HOST = 31
    """the set is for another architecture, CPU level, C library or init system"""
    INSUFFICIENT = 32
    """not enough memory or disk: the message has needed and found"""
    MISSING_TOOL = 33
    """a program that this command needs is not installed"""
    PERMISSION = 34
    """the command needs more rights than it has"""
    PORT_IN_USE = 35
    """another program already listens on the API's address"""

    INSTALL = 40
    """the installation failed and the host is as it was before"""
    BUSY = 41
    """another edgekit command is changing this host"""
    NOT_INSTALLED = 42
    """no release is installed here"""
    DISK_FULL = 43
    """a file system filled up while writing; what was there before is intact"""
    MODEL_NOT_FOUND = 44
    """no model of this name is on this host"""

    ENGINE = 50
    """the engine does not start"""
    ENGINE_NOT_READY = 51
    """the engine did not become ready in time"""
    WRONG_ANSWER = 52
    """the engine answers, but not what the set says it must"""

    AUDIT_ALTERED = 60
    """an audit record was changed"""
    AUDIT_MISSING = 61
    """audit records are missing or out of order"""
    AUDIT_TRUNCATED = 62
    """the audit log is shorter than it once was"""
    AUDIT_FORMAT = 63
    """an audit record cannot be parsed"""
    AUDIT_UNAVAILABLE = 64
    """the audit writer cannot be reached or cannot write"""
    AUDIT_KEY = 65
    """an audit record was not sealed with the key of its epoch"""
    AUDIT_SEAL = 66
    """an epoch of the audit log, its heartbeat or its checkpoint is missing"""
    AUDIT_CHECKPOINT = 67
    """an audit checkpoint has a bad signature, or does not fit the log or another checkpoint"""

    SOURCE = 70
    """a source did not give what the recipe asks for"""
    UNREACHABLE = 71
    """a hub, index or registry cannot be reached"""
    SOURCE_DIGEST = 72
    """a source sent other bytes than the lock recorded"""
    REFUSED_CONTENT = 73
    """a source offers content edgekit refuses to carry (pickle, remote code, source packages)"""

    INTERRUPTED = 130
    """stopped by Ctrl-C at a safe point"""
    TERMINATED = 143
    """stopped by SIGTERM at a safe point"""
