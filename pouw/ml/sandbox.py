"""What a process may still do while it works on a stranger's model.

A model is numbers for a network of the closed registry, so there is no code of a stranger to run;
these limits are for the bug that nobody knows of yet. On Linux (x86-64 and ARM64) the kernel
refuses every system call that opens a socket, starts a program or a process, or looks into another
one (seccomp, inherited, irrevocable). Elsewhere an audit hook refuses the same to Python code: that
stops accidents and Python's own libraries, not machine code. Files can still be read and written
with the rights of the user: run an oracle as a user of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import platform
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pouw.errors import ProcessError

BROKE_DOWN: Final = os.EX_SOFTWARE
"""The status of a process that met an error, over a request, that nobody foresaw."""

_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE: Final = 0x00050000 | errno.EPERM
_UNKNOWN_CALL: Final = 0x00050000 | errno.ENOSYS
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_CLONE_THREAD: Final = 0x00010000
_X32_CALLS: Final = 0x40000000

# Sockets; programs; processes; other processes' memory; io_uring and bpf, which could do the rest.
# From the kernel's tables (arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h).
_NUMBERS: Final[dict[str, tuple[int, dict[str, int]]]] = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49,
            "listen": 50, "socketpair": 53, "clone": 56, "fork": 57, "vfork": 58, "execve": 59,
            "ptrace": 101, "pivot_root": 155, "chroot": 161, "mount": 165, "init_module": 175,
            "kexec_load": 246, "keyctl": 250, "unshare": 272, "accept4": 288,
            "perf_event_open": 298, "sendmmsg": 307, "setns": 308, "process_vm_readv": 310,
            "process_vm_writev": 311, "finit_module": 313, "bpf": 321, "execveat": 322,
            "userfaultfd": 323, "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "mount": 40, "pivot_root": 41, "chroot": 51, "unshare": 97, "kexec_load": 104,
            "init_module": 105, "ptrace": 117, "socket": 198, "socketpair": 199, "bind": 200,
            "listen": 201, "accept": 202, "connect": 203, "sendto": 206, "sendmsg": 211,
            "keyctl": 219, "clone": 220, "execve": 221, "perf_event_open": 241, "accept4": 242,
            "setns": 268, "sendmmsg": 269, "process_vm_readv": 270, "process_vm_writev": 271,
            "finit_module": 273, "bpf": 280, "execveat": 281, "userfaultfd": 282,
            "io_uring_setup": 425, "clone3": 435, "pidfd_getfd": 438,
        },
    ),
}  # fmt: skip
_REFUSED_EVENTS: Final = (
    "socket.", "subprocess.", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
    "os.system", "pty.spawn",
)  # fmt: skip


def confine() -> str:
    """Give up sockets, programs and processes for good; how it is enforced, in two words.

    Call it once everything is imported. Threads can still be started.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _install_filter():
        return "seccomp filter"
    sys.addaudithook(_refuse_event)
    return "audit hook"


def _refuse_event(event: str, _arguments: object) -> None:
    if event.startswith(_REFUSED_EVENTS):
        raise PermissionError(errno.EPERM, f"{event} is not allowed while scoring")


def _install_filter() -> bool:
    if sys.platform != "linux" or platform.machine() not in _NUMBERS or sys.maxsize < 2**32:
        return False
    code = _program(*_NUMBERS[platform.machine()], x32=platform.machine() == "x86_64")
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are.
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    pointer = ctypes.create_string_buffer(program, len(program))
    done = prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(pointer), 0, 0)
    return bool(done == 0)


def _program(architecture: int, numbers: dict[str, int], *, x32: bool) -> bytes:
    """The filter, in classic BPF: jumps count instructions from the next one."""
    refused = [number for name, number in numbers.items() if name not in ("clone", "clone3")]
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if x32:
        lines += [(_AT_LEAST, 0, 1, _X32_CALLS), (_RETURN, 0, 0, _REFUSE)]
    # glibc falls back to clone, whose flags a filter can read.
    lines += [(_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _UNKNOWN_CALL)]
    for number in refused:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    lines += [
        (_EQUAL, 1, 0, numbers["clone"]),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_ANY_BIT, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


@contextlib.contextmanager
def memory_limit(limit_bytes: int) -> Iterator[None]:
    """At most ``limit_bytes`` of private memory beyond what the process has now.

    What would pass it fails where it is allocated: MemoryError, or torch's RuntimeError. No limit
    where the kernel does not count (only Linux does).
    """
    used = _private_bytes()
    if used is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = used + limit_bytes
    for bound in (soft, hard):
        if bound != resource.RLIM_INFINITY:
            wanted = min(wanted, bound)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_bytes() -> int | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return None


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """The kernel ends the process (SIGXCPU) past ``seconds`` of CPU time of all its threads.

    CPU time, because a busy machine is no fault of a model; it is there for code that never
    returns to look at a clock.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = math.ceil(time.process_time() + seconds) + 1
    for bound in (soft, hard):
        if bound != resource.RLIM_INFINITY:
            wanted = min(wanted, bound)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def exit_status(work: Callable[[], None]) -> int:
    """0 once ``work`` is done, or ``BROKE_DOWN`` where it met an error that nobody foresaw.

    What may be this machine's is raised: RuntimeError is also torch's word for a lack of memory.
    """
    try:
        work()
    except (MemoryError, OSError, RuntimeError, ProcessError):
        raise
    except Exception:  # noqa: BLE001 - the outermost loop of a process
        traceback.print_exc()
        return BROKE_DOWN
    return 0


def blames_the_work(status: int) -> bool:
    """Whether a child ended with ``status`` of what it worked on, as it would on any machine.

    Not by SIGKILL (the kernel's for want of memory, or an operator), SIGTERM, SIGBUS (a disk),
    SIGILL (a processor), or before it began.
    """
    signals = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGXCPU)
    return status == BROKE_DOWN or -status in signals


def cause_of_death(status: int) -> str:
    """In words, how a child ended whose ``returncode`` is ``status``."""
    if status >= 0:
        return f"status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError as error:
        raise ProcessError(f"a child ended with the unknown status {status}") from error
    return f"{name} (out of its CPU time)" if -status == signal.SIGXCPU else name
