"""The holder: parent and subreaper of all workers, so that a supervisor can die or be replaced and no worker with it.

Run as `python -I -S program.py FOLDER [CGROUP]`. It imports the standard library alone, and everything at its start, since
what it was loaded from may be replaced while it runs. It decides nothing. It starts what it is told to, keeps the read
ends of the workers' output, their exit statuses and the program's listening sockets, and gives them to the supervisor that
is attached, one at a time. While one is, it leaves output alone; while none is, it keeps the last of it.

The wire (SOCK_SEQPACKET, unix(7)): a message is `key=value` fields with a NUL between, `do` naming what a supervisor asks
and `is` what the holder tells. Descriptors ride along (SCM_RIGHTS). Field and file by field, `Holder` below is its reference.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

PROTOCOL = 1
SOCKET = "holder.sock"
LOCK = "holder.lock"

MESSAGE = 64 * 1024
"""The longest message, bytes; what may be longer (an environment, output) rides along as a memfd."""
DESCRIPTORS = 64
"""The most descriptors in a message; the kernel takes 253 (SCM_MAX_FD)."""
PEERS = 8
KEPT = 256 * 1024
"""Bytes of output kept for each worker while no supervisor is attached; the oldest go first, and are counted."""
PIECE = 16 * 1024
QUIET = 0.02
"""Seconds without an event until the next spare is forked: a worker that starts needs the processor more."""
ALONE = 60.0
"""Seconds without a supervisor and without a worker, after which there is nothing to hold."""
TICKS = os.sysconf("SC_CLK_TCK")
GRACE = 10.0
"""Seconds from TERM to KILL where the holder itself has to end the workers."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def pack(**fields: object) -> bytes:
    return "\0".join([f"{key}={value}" for key, value in fields.items()]).encode("utf-8", "surrogateescape")


def unpack(data: bytes) -> dict[str, str]:
    """Give the fields of a message. Raises ValueError where it is none."""
    return dict(field.split("=", 1) for field in data.decode("utf-8", "surrogateescape").split("\0"))


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "prctl")


def memfd(data: bytes) -> int:
    descriptor = os.memfd_create("holder", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def contents(descriptor: int) -> bytes:
    """Give all that is in a memfd, and close it."""
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _remove(cgroup: str) -> None:
    if cgroup:
        with contextlib.suppress(OSError):  # something is left in it, or it is gone
            os.rmdir(cgroup)  # noqa: PTH106  # pathlib would cost memory


class Ring:
    """The last KEPT bytes of a worker's output: pieces of a stream (1 or 2), each with the time of its first byte."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        # None is made for a worker that says nothing meanwhile: there may be a hundred.
        self.pieces: deque[tuple[int, float, bytearray]] | None = None
        self.size = 0
        self.dropped = 0

    def add(self, stream: int, data: bytes) -> None:
        if self.pieces is None:
            self.pieces = deque()
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last[0] == stream and len(last[2]) + len(data) <= PIECE:
            last[2].extend(data)
        else:
            self.pieces.append((stream, time.time(), bytearray(data)))
        self.size += len(data)
        while self.size > KEPT:
            gone = len(self.pieces.popleft()[2])
            self.size -= gone
            self.dropped += gone

    def join(self, after: "Ring") -> None:
        self.pieces = deque([*(self.pieces or ()), *(after.pieces or ())])
        self.size += after.size
        self.dropped += after.dropped

    def dump(self) -> bytes:
        """Each piece behind a line of `stream time length`."""
        return b"".join([b"%d %.6f %d\n" % (stream, at, len(data)) + data for stream, at, data in self.pieces or ()])


class Spare:
    """A child forked ahead of its need: it waits at its gate, a socket, for what it is to become (see `become`).

    Forking takes longer than all the rest, so it is done when there is nothing else to do.
    """

    def __init__(self, cgroup: str, files: tuple[int, int]) -> None:
        """Fork one. `files` is RLIMIT_NOFILE for the worker. Raises OSError where the system refuses."""
        self.cgroup = cgroup
        opened: list[int] = []
        try:
            if cgroup:
                os.mkdir(cgroup)  # noqa: PTH102  # pathlib would cost memory
            out, out_end = pair = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            opened += pair
            err, err_end = pair = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            opened += pair
            self.gate, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            # Given to it with the order, so that nobody but it has that end: it closes when the command runs.
            self.report, self.reporting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            parent = os.getpid()
            self.pid = os.fork()
        except OSError:
            _close(opened)
            _remove(cgroup)
            raise
        if not self.pid:
            become(inner, (out_end, err_end), cgroup, parent, files)
        inner.close()
        os.close(out_end)
        os.close(err_end)
        self.output = (out, err)
        self.gate.setblocking(False)
        self.report.setblocking(False)
        self.pidfd = os.pidfd_open(self.pid)

    def open(self, order: bytes, body: int) -> None:
        """Have it become what is ordered. Raises OSError where it is not there any more."""
        socket.send_fds(self.gate, [order], [body, self.reporting.fileno()])
        self.gate.close()
        self.reporting.close()

    def close(self) -> None:
        """It has ended, or will now."""
        for end in (self.gate, self.report, self.reporting):
            end.close()
        _close((*self.output, self.pidfd))
        _remove(self.cgroup)


def become(gate: socket.socket, output: tuple[int, int], cgroup: str, parent: int, files: tuple[int, int]) -> None:
    """Wait at the gate, then turn into the worker; never return. What goes wrong is reported through a socket that
    comes with the order.

    All signals are blocked until just before the exec, and none has a handler then, so that one that was sent meanwhile
    ends the process instead of being swallowed.
    """
    report = {"step": "gate", "errno": errno.EIO}
    door = 3
    gc.disable()
    try:
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        for number, descriptor in enumerate(output, 1):
            os.set_blocking(descriptor, True)
            os.dup2(descriptor, number)
        os.dup2(gate.detach(), door, inheritable=False)
        # Not one descriptor of the holder may live on here: its death must be seen by all who talk to it.
        os.closerange(door + 1, 1 << 20)
        gate = socket.socket(fileno=door)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if cgroup:
            _write(f"{cgroup}/cgroup.procs", "0")
        be_no_more_spared()
        # A rehearsal, whose program does not exist: each page of memory that is touched for the first time after a fork
        # takes a microsecond, which would be missed later.
        _carry_out(unpack(_REHEARSAL), memfd(b"/\0\0" + bytes(2 * array.array("L").itemsize)), "", parent, files)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        data, descriptors, _, _ = socket.recv_fds(gate, MESSAGE, 2)
        if not data:
            os._exit(0)  # the holder has ended or does not need it
        os.dup2(descriptors[1], door, inheritable=False)
        os.close(descriptors[1])
        report = _carry_out(unpack(data), descriptors[0], cgroup, parent, files)
    finally:
        socket.socket(fileno=door).send(pack(**report))
        os._exit(127)


def be_no_more_spared(path: str = "/proc/self/oom_score_adj") -> None:
    """Where memory is short a worker is to go before those who would start it again: that they are spared (proc(5),
    OOMScoreAdjust= of systemd.exec(5)) is not for it. Raising it needs no right.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            spared = os.read(descriptor, 16).startswith(b"-")
        finally:
            os.close(descriptor)
        if spared:
            _write(path, "0\n")


_REHEARSAL = pack(
    instance="",
    service="",
    note="",
    argc=0,
    size=3,
    umask="0",
    nice="",
    uid="",
    gid="",
    groups="",
    rlimits="",
    memory="",
    mark="",
)


def _carry_out(order: dict[str, str], body: int, cgroup: str, parent: int, files: tuple[int, int]) -> dict[str, object]:
    """Become what is ordered; return only where that fails, with the step and the error number."""
    step = "limits"
    try:
        # Where it was limited before, the supervisor sees that there is no mark.
        with contextlib.suppress(OSError, ValueError):
            kind, mark = map(int, order["mark"].split(":"))
            resource.setrlimit(kind, (mark, mark))
        text = contents(body)
        cwd, program, _ = text.split(b"\0", 2)
        if cgroup and order["memory"]:
            _limit_memory(cgroup, order["memory"])
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        for limit in filter(None, order["rlimits"].split(",")):
            kind, soft, hard = map(int, limit.split(":"))
            resource.setrlimit(kind, (soft, hard))
        if order["nice"]:
            step = "nice"
            os.setpriority(os.PRIO_PROCESS, 0, int(order["nice"]))
        os.umask(int(order["umask"], 8))
        if order["uid"]:
            step = "user"
            os.setgroups([int(group) for group in filter(None, order["groups"].split(","))])
            os.setresgid(*(int(order["gid"]),) * 3)
            os.setresuid(*(int(order["uid"]),) * 3)
        step = "cwd"
        os.chdir(cwd)
        # A change of user takes this away, so it comes after. Should the holder have died before, nobody would be told.
        step = "gate"
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        step = "exec"
        pointers = _pointers(text, int(order["size"]))
        environment = int(order["argc"]) + 1
        pointers[environment - 1] = pointers[-1] = 0
        lists = pointers.buffer_info()[0]
        # Python's would make a set of the 60 signals that were blocked.
        _libc.sigprocmask(signal.SIG_SETMASK, bytes(128), None)
        _libc.execve(program, ctypes.c_void_p(lists), ctypes.c_void_p(lists + environment * pointers.itemsize))
        code = ctypes.get_errno()
    except OSError as error:
        code = error.errno or errno.EIO
    except (ValueError, LookupError) as error:
        # setrlimit says by ValueError what others say by EPERM.
        code = errno.EPERM if "not allowed" in str(error) else errno.EINVAL
    return {"step": step, "errno": code}


def _pointers(text: bytes, size: int) -> "array.array[int]":
    """Where each argument and variable lies in memory: the offsets that follow the first `size` bytes, and the address of those.

    All are added as one long number each: with a step of Python for each variable, or os.execve, 5000 took 0.5 to 2 ms more.
    """
    one = array.array("L", [1])
    count = (len(text) - size) // one.itemsize
    ones = int.from_bytes((one * count).tobytes(), sys.byteorder)
    base = ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value or 0
    moved = int.from_bytes(memoryview(text)[size:], sys.byteorder) + base * ones
    return array.array("L", moved.to_bytes(count * one.itemsize, sys.byteorder))


def _limit_memory(cgroup: str, size: str) -> None:
    with contextlib.suppress(OSError):  # there is no such controller: the supervisor sees that, and watches
        _write(f"{cgroup}/memory.max", size)
        _write(f"{cgroup}/memory.oom.group", "1")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


class Worker:
    """One instance, from the order to start it until the supervisor has its end on record."""

    def __init__(self, order: dict[str, str], spare: Spare) -> None:
        self.instance = order["instance"]
        self.service = order["service"]
        self.note = order["note"]
        self.pid = spare.pid
        self.pidfd = spare.pidfd
        self.output = spare.output
        self.cgroup = spare.cgroup
        self.report: socket.socket | None = spare.report
        self.started = time.time()
        self.ring = Ring()
        self.mark = order.get("mark", "")
        self.standing: tuple[bytes, int] | None = None
        """The order to start another when this one has ended: the message, and the memfd."""
        self.follower = ""
        """The instance that was started so."""
        self.before = ""
        """How the one ended that this follows, where no supervisor took note of it."""
        self.failure = ""
        """Why it never became the command: the step and the error number."""
        self.end = ""
        """How it ended, once it has: the fields that tell it, packed."""
        self.shown = False
        """Whether the attached supervisor knows of it and has its descriptors."""

    def facts(self) -> dict[str, object]:
        names = ("instance", "service", "note", "pid", "cgroup", "started", "before")
        return {name: getattr(self, name) for name in names}

    def stand(self, order: tuple[bytes, int] | None) -> None:
        """Keep this order instead of the one that there was."""
        if self.standing is not None:
            os.close(self.standing[1])
        self.standing = order

    def close(self) -> None:
        self.stand(None)
        for descriptor in (self.pidfd, *self.output):
            os.close(descriptor)
        if self.report is not None:
            self.report.close()


class Peer:
    """A connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.fd = connection.fileno()
        self.outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.pid = 0
        self.full = False
        self.unseen: deque[str] | None = None
        """Instances that are still to be handed over, while that goes on."""


HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


class Refused(Exception):
    """The order cannot be carried out; the message is for the supervisor."""


class Holder:
    """Single-threaded; every descriptor is non-blocking, so that a call for nothing does no harm.

    What it is asked (`do`):
        attach protocol pid      first of all; the rest only once attached. Answered by hello, at once or when the one
                                 that is attached has gone; that one is told (wanted)
        next                     the next worker, please (worker, then its end if it has ended; attached after the last)
        spawn instance service note argc size umask nice uid gid groups rlimits memory mark, with a memfd: in its first
                                 `size` bytes cwd, program, argc arguments and the `NAME=value`s, a NUL after each; then
                                 where in it each argument, a NULL, each variable and a NULL begins (unsigned long)
        follow after unless ...  the same once `after` has ended, but with one of these codes, if nothing is left of its
                                 tree; instead of an earlier such order. It ends with the attachment
        withdraw instance        there is to be no follower
        taken instance           what was kept of its output is on record
        forget instance          so is its end
        note instance note       keep this with it instead
        rest instance stream     with a memfd: output that was read but not used; it goes before what is kept
        deposit names            with the listening sockets of these names, instead of all that were there
        detach                   it stops reading; answered by detached
        stop                     end when the last worker has ended
    What it tells (`is`): hello, worker, attached, spawned, refused, end, wanted, detached. See the methods.
    """

    def __init__(self, folder: str, cgroups: str) -> None:
        self.folder = folder
        self.cgroups = cgroups
        self.workers: dict[str, Worker] = {}
        self.pids: dict[int, Worker] = {}
        self.peers: set[Peer] = set()
        self.attached: Peer | None = None
        self.waiting: deque[Peer] = deque()
        self.sockets: dict[str, int] = {}
        self.spare: Spare | None = None
        self.want_spare = False
        self.serial = 0
        self.stopping = False
        self.kill_at = 0.0
        self.trouble = ""
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], object]] = {}
        self.children = -1
        with contextlib.suppress(OSError):  # not every kernel has it: then the supervisor looks for what is left
            self.children = os.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)

    def open(self) -> None:
        """Take the folder and listen. Raises OSError; BlockingIOError where another holder has it."""
        # A record lock, since a child that was just forked would share one of flock(2).
        self.lock = os.open(f"{self.folder}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The way round the 108 bytes that the path of a socket may have.
        self.place = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{self.place}/{SOCKET}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        os.umask(0o077)
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.server.bind(path)
        self.server.listen(PEERS)
        self._watch(self.server.fileno(), self._accept)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.files = (soft, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.wakes, wake = socket.socketpair()
        self.wake = wake
        for end in (self.wakes, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        # An exec keeps what is ignored, and takes handlers away.
        for number in signal.valid_signals():
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        for number in HANDLED:
            signal.signal(number, lambda *_: None)
        self._watch(self.wakes.fileno(), self._signalled)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def run(self) -> None:
        while not (self.stopping and all(worker.end for worker in self.workers.values())):
            timeout = QUIET if self.want_spare and not self.stopping else -1.0
            if self.attached is None and not self.workers:
                timeout = ALONE
            if self.kill_at:
                timeout = max(0.0, self.kill_at - time.monotonic())
            events = self.epoll.poll(timeout)
            for descriptor, _ in events:
                handler = self.handlers.get(descriptor)
                if handler is not None:
                    self._guarded(handler)
            if self.kill_at and time.monotonic() >= self.kill_at:
                self._guarded(self._kill)
            elif not events and timeout == ALONE:
                break
            elif not events:
                self._guarded(self._prepare)
        if self.spare is not None:
            self.spare.gate.close()
            os.waitpid(self.spare.pid, 0)
            _remove(self.spare.cgroup)
        for peer in list(self.peers):
            self._drop(peer)
        os.unlink(f"/proc/self/fd/{self.place}/{SOCKET}")  # noqa: PTH108

    def _guarded(self, handler: Callable[[], object]) -> None:
        """Whatever goes wrong in one place, the workers stay; the next supervisor is told."""
        try:
            handler()
        except Exception as error:  # noqa: BLE001  # see above
            where = error.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            self.trouble = f"{error!r} in line {where.tb_lineno if where else 0}".replace("\0", " ")

    def _watch(self, descriptor: int, handler: Callable[[], object], events: int = select.EPOLLIN) -> None:
        if descriptor in self.handlers:
            self.epoll.modify(descriptor, events)
        else:
            self.epoll.register(descriptor, events)
        self.handlers[descriptor] = handler

    def _unwatch(self, descriptor: int) -> None:
        if self.handlers.pop(descriptor, None) is not None:
            self.epoll.unregister(descriptor)

    # Children

    def _prepare(self) -> None:
        """Fork a spare, in time that nobody else needs."""
        self.want_spare = False
        if self.spare is not None:
            return
        self.serial += 1
        self.spare = Spare(f"{self.cgroups}/{os.getpid()}-{self.serial}" if self.cgroups else "", self.files)

    def _signalled(self) -> None:
        if signal.SIGTERM in self.wakes.recv(4096):
            self._terminate()
        ended = []
        # One signal may stand for many children; a subreaper gets those of strangers, too. All are collected first: a
        # stranger that has ended is no part of a tree any more.
        with contextlib.suppress(ChildProcessError):
            while (child := os.wait4(-1, os.WNOHANG))[0]:
                worker = self.pids.pop(child[0], None)
                if worker is not None:
                    ended.append((worker, *child[1:]))
                elif self.spare is not None and child[0] == self.spare.pid:
                    self.spare.close()
                    self.spare = None
        # What the supervisor had decided by then is in the socket: a standing order, or that there is to be none any more.
        while (peer := self.attached) is not None and any(ready[0] == peer.fd for ready in self.epoll.poll(0)):
            if not self._receive(peer):
                break
        for worker, status, usage in ended:
            self._ended(worker, os.waitstatus_to_exitcode(status), usage)

    def _ended(self, worker: Worker, code: int, usage: resource.struct_rusage) -> None:
        at = time.time()
        # By this clock it can be told who was born before.
        ticks = time.clock_gettime_ns(time.CLOCK_BOOTTIME) * TICKS // 10**9
        alone = self._alone(worker)
        if worker.standing is not None and alone and not self.stopping:
            self._follow(worker, code)
        self._reported(worker)
        worker.end = pack(
            code=code,
            failure=worker.failure,
            at=f"{at:.6f}",
            ticks=ticks,
            memory=usage.ru_maxrss * 1024,
            cpu=f"{usage.ru_utime + usage.ru_stime:.6f}",
            alone=int(alone),
            follower=worker.follower,
        ).decode()
        worker.stand(None)
        if self.attached is not None and (worker.shown or self.attached.unseen is None):
            self._tell_end(worker)

    def _alone(self, worker: Worker) -> bool:
        """Tell whether nothing is left of the tree of a worker that was collected; False where that is not certain.

        What it left are children of ours now, or below one of them, since we are the subreaper; and a child leaves the
        list only when we collect it, so that none can be skipped while it is read.
        """
        text = b""
        try:
            while more := os.pread(self.children, 1 << 16, len(text)):
                text += more
        except OSError:
            return False
        own = self.pids.keys() | ({self.spare.pid} if self.spare is not None else set())
        strangers = set(map(int, text.split())) - own
        if not strangers:
            return True
        # Another worker's may have left it while it lives, and the spare has somebody in its session.
        marks = {other.mark for other in self.pids.values()}
        try:
            kind = int(worker.mark.partition(":")[0])
            return all(
                os.getsid(pid) in own or f"{kind}:{resource.prlimit(pid, kind)[1]}" in marks for pid in strangers
            )
        except (OSError, ValueError):
            return False

    def _follow(self, worker: Worker, code: int) -> None:
        """Carry out the standing order."""
        assert worker.standing is not None
        data, body = worker.standing
        fields = unpack(data)
        # Without a spare another was started a moment ago: how many may start at a time is the supervisor's to say.
        if self.spare is None or str(code) in fields["unless"].split(","):
            return
        try:
            self._start(fields, data, body)
            worker.follower = fields["instance"]
        except OSError as error:
            self.trouble = f"no process can be made: {error.strerror}"

    def _reported(self, worker: Worker) -> None:
        """Read what a new process reports: closed means that the command runs."""
        if worker.report is None:
            return
        try:
            report = worker.report.recv(MESSAGE)
        except BlockingIOError:
            return
        except ConnectionError:
            report = b""
        self._unwatch(worker.report.fileno())
        worker.report.close()
        worker.report = None
        self.want_spare = self.attached is not None
        if report:
            fields = unpack(report)
            worker.failure = f"{fields['step']} {fields['errno']}"
        elif not worker.shown and self.attached is not None and self.attached.unseen is None:
            self._show(self.attached, worker, "spawned")

    def _terminate(self) -> None:
        """End all workers, and then the program."""
        self.stopping = True
        self.kill_at = time.monotonic() + GRACE
        for worker in self.pids.values():
            signal.pidfd_send_signal(worker.pidfd, signal.SIGTERM)

    def _kill(self) -> None:
        self.kill_at = 0.0
        for worker in self.pids.values():
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)

    # Output

    def _drain(self) -> None:
        for worker in self.workers.values():
            for stream, descriptor in enumerate(worker.output, 1):
                self._watch(descriptor, lambda w=worker, s=stream, d=descriptor: self._keep(w, s, d))  # type: ignore[misc]  # a lambda's defaults

    def _leave(self) -> None:
        for worker in self.workers.values():
            for descriptor in worker.output:
                self._unwatch(descriptor)

    def _keep(self, worker: Worker, stream: int, descriptor: int) -> None:
        # An event from before a supervisor was attached would take output from under its hands.
        if self.attached is not None:
            return
        try:
            data = os.read(descriptor, PIECE)
        except BlockingIOError:
            return
        if data:
            worker.ring.add(stream, data)
        else:
            self._unwatch(descriptor)

    # Supervisors

    def _accept(self) -> None:
        try:
            connection, _ = self.server.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = array.array("I", credentials)
        if uid != os.getuid() or len(self.peers) >= PEERS:
            connection.close()
            return
        peer = Peer(connection)
        peer.pid = pid
        self.peers.add(peer)
        self._watch(connection.fileno(), lambda: self._receive(peer))

    def _receive(self, peer: Peer) -> bool:
        """Do what is asked next; tell whether there was something."""
        if peer not in self.peers:
            return False
        self._flush(peer)
        try:
            data, descriptors, flags, _ = socket.recv_fds(peer.socket, MESSAGE, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError:
            # ECONNRESET: it died with messages of ours unread.
            self._drop(peer)
            return False
        try:
            if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._drop(peer)
                return False
            fields = unpack(data)
            self._orders(peer, fields.pop("do"), fields, descriptors, data)
        except Refused as error:
            self._send(peer, pack(**{"is": "refused"}, instance=fields.get("instance", ""), why=error))
        except (LookupError, ValueError) as error:
            self.trouble = f"a message was not understood: {error!r}"
            self._drop(peer)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _orders(self, peer: Peer, order: str, fields: dict[str, str], descriptors: list[int], data: bytes) -> None:
        if order == "attach":
            self._attach(peer, int(fields["protocol"]))
        elif peer is not self.attached:
            raise Refused("attach first")
        elif order == "next":
            self._next(peer)
        elif order == "spawn":
            self._spawn(fields, descriptors, data)
        elif order == "follow":
            if not (worker := self.workers[fields["after"]]).end:
                worker.stand((data, descriptors.pop()))
        elif order == "withdraw":
            self.workers[fields["instance"]].stand(None)
        elif order == "taken":
            self.workers[fields["instance"]].ring.clear()
        elif order == "forget":
            self._forget(fields["instance"])
        elif order == "note":
            self.workers[fields["instance"]].note = fields["note"]
        elif order == "rest":
            self._rest(self.workers[fields["instance"]], int(fields["stream"]), descriptors.pop())
        elif order == "deposit":
            names = [name for name in fields["names"].split(",") if name]
            old, self.sockets = self.sockets, dict(zip(names, map(os.dup, descriptors), strict=True))
            for descriptor in old.values():
                os.close(descriptor)
        elif order == "detach":
            self._send(peer, pack(**{"is": "detached"}))
            self._detach()
        elif order == "stop":
            self.stopping = True
        else:
            raise ValueError(order)

    def _attach(self, peer: Peer, protocol: int) -> None:
        if protocol != PROTOCOL:
            raise Refused(f"this holder speaks protocol {PROTOCOL}, not {protocol}")
        if self.attached is not None:
            self.waiting.append(peer)
            self._send(self.attached, pack(**{"is": "wanted"}, pid=peer.pid))
            return
        self.attached = peer
        self.want_spare = True
        self.stopping = bool(self.kill_at)
        self._leave()
        self._fold()
        peer.unseen = deque(self.workers)
        names = ",".join(self.sockets)
        hello = {"is": "hello", "pid": os.getpid(), "cgroups": self.cgroups, "names": names, "trouble": self.trouble}
        self.trouble = ""
        self._send(peer, pack(**hello), tuple(self.sockets.values()))

    def _next(self, peer: Peer) -> None:
        if peer.unseen:
            worker = self.workers[peer.unseen.popleft()]
            self._show(peer, worker, "worker")
            if worker.end:
                self._tell_end(worker)
        elif peer.unseen is not None:
            peer.unseen = None
            self._send(peer, pack(**{"is": "attached"}))

    def _show(self, peer: Peer, worker: Worker, what: str) -> None:
        worker.shown = True
        kept = memfd(worker.ring.dump())
        facts = {"is": what, **worker.facts(), "dropped": worker.ring.dropped}
        self._send(peer, pack(**facts), (worker.pidfd, *worker.output, kept))
        os.close(kept)

    def _tell_end(self, worker: Worker) -> None:
        assert self.attached is not None
        self._send(self.attached, pack(**{"is": "end"}, instance=worker.instance) + b"\0" + worker.end.encode())

    def _spawn(self, fields: dict[str, str], descriptors: Sequence[int], data: bytes) -> None:
        if self.stopping:
            raise Refused("the holder is about to end")
        if not descriptors:
            raise Refused("nothing says what to start")
        instance, service = fields["instance"], fields["service"]
        for other in self.workers.values():
            if service == other.service or instance == other.instance:
                # Whatever goes wrong elsewhere: never two of a service.
                raise Refused(f"{service} has a process, {other.pid}, whose end was not acknowledged")
        try:
            self._start(fields, data, descriptors[0])
        except OSError as error:
            raise Refused(f"no process can be made: {error.strerror}") from error

    def _start(self, fields: dict[str, str], data: bytes, body: int) -> None:
        try:
            worker = self._launch(fields, data, body)
        except ConnectionError:
            # The spare was killed while it waited; another will do.
            worker = self._launch(fields, data, body)
        assert worker.report is not None
        self._watch(worker.report.fileno(), lambda: self._reported(worker))

    def _launch(self, fields: dict[str, str], data: bytes, body: int) -> Worker:
        if self.spare is None:
            self._prepare()
        assert self.spare is not None
        spare, self.spare = self.spare, None
        worker = Worker(fields, spare)
        self.workers[worker.instance] = self.pids[worker.pid] = worker
        # It is on record: the gate may open.
        try:
            spare.open(data, body)
        except OSError:
            del self.workers[worker.instance], self.pids[worker.pid]
            spare.close()
            raise
        return worker

    def _forget(self, instance: str) -> None:
        worker = self.workers[instance]
        if not worker.end:
            raise Refused(f"{worker.service} has not ended")
        del self.workers[instance]
        for descriptor in worker.output:
            self._unwatch(descriptor)
        worker.close()
        _remove(worker.cgroup)

    def _fold(self) -> None:
        """Where a supervisor never heard that a worker has a follower: what is left of it goes to that one."""
        for worker in list(self.workers.values()):
            follower = self.workers.get(worker.follower)
            if follower is not None:
                for stream, descriptor in enumerate(worker.output, 1):
                    with contextlib.suppress(BlockingIOError):
                        while data := os.read(descriptor, PIECE):
                            worker.ring.add(stream, data)
                worker.ring.join(follower.ring)
                follower.ring = worker.ring
                follower.before = worker.end.replace("\0", "\n")
                self._forget(worker.instance)

    def _rest(self, worker: Worker, stream: int, descriptor: int) -> None:
        before, after = Ring(), worker.ring
        before.add(stream, contents(descriptor))
        before.join(after)
        worker.ring = before

    def _detach(self) -> None:
        """The supervisor is gone or wants to be: keep output, or turn to the next."""
        peer, self.attached = self.attached, None
        if peer is not None:
            peer.unseen = None
        for worker in self.workers.values():
            worker.shown = False
            worker.stand(None)
        if self.waiting:
            self._attach(self.waiting.popleft(), PROTOCOL)
            return
        self._drain()
        if self.stopping and not self.kill_at:
            # It was told to end with its workers, and there is nobody any more who would end them.
            self._terminate()

    def _send(self, peer: Peer, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
        # Duplicates, since the originals may be closed by the time a slow reader gets them.
        peer.outbox.append((data, tuple(map(os.dup, descriptors))))
        self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        while peer.outbox:
            data, descriptors = peer.outbox[0]
            try:
                socket.send_fds(peer.socket, [data], descriptors)
            except BlockingIOError:
                self._watch(peer.socket.fileno(), lambda: self._receive(peer), select.EPOLLIN | select.EPOLLOUT)
                peer.full = True
                return
            except ConnectionError:
                pass  # it is gone; what it sent before that is still to be read
            except OSError:
                # Too many descriptors are under way to it (ETOOMANYREFS): let it begin again.
                peer.socket.shutdown(socket.SHUT_WR)
            peer.outbox.popleft()
            _close(descriptors)
        if peer.full:
            peer.full = False
            self._watch(peer.socket.fileno(), lambda: self._receive(peer))

    def _drop(self, peer: Peer) -> None:
        self.peers.discard(peer)
        self._unwatch(peer.socket.fileno())
        peer.socket.close()
        for _, descriptors in peer.outbox:
            _close(descriptors)
        if peer in self.waiting:
            self.waiting.remove(peer)
        if peer is self.attached:
            self._detach()


def main(folder: str, cgroups: str = "") -> None:
    """Go into the background and hold. On standard output, `ready` once it can be connected to, or what is wrong."""
    if os.fork():
        os._exit(0)
    # What was inherited by accident would stay open for as long as there are workers.
    os.closerange(3, 1 << 20)
    os.setsid()
    os.chdir("/")
    gc.freeze()
    holder = Holder(folder, cgroups)
    try:
        holder.open()
        said = "ready"
    except BlockingIOError:
        said = "taken"
    except OSError as error:
        said = f"{error.filename or 'a socket'}: {error.strerror}"
    os.write(1, said.encode())
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    if said == "ready":
        holder.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
