"""The part of a box that runs in it: namespaces, mounts, the command. Standard library alone; see the package.

    python -I -S inside.py network FD       makes a network of loopback alone and hands out sockets in it over FD
    python -I -S inside.py run SPEC CMD...  runs a command in a box; SPEC is what `sagemaker_local.box` marshals

What is done is what bubblewrap does (bubblewrap.c, namespaces(7), pivot_root(2)), without a program to install. Modules
written in Python are imported where they are needed: `json`, `signal` and `socket` would cost as much as all the rest.
"""

from __future__ import annotations

import _signal
import ctypes
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_NEW_MOUNTS, _NEW_IPC, _NEW_USERS, _NEW_PIDS, _NEW_NETWORK = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND, _MS_REC = 1, 2, 4, 8, 32, 4096, 16384
_MS_SLAVE, _MS_RELATIME, _ST_RELATIME = 1 << 19, 1 << 21, 4096
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

# Of /etc: what programs need to resolve names, users, time zones and certificates. No passwords, no keys.
_ETC = (
    "alternatives", "ca-certificates", "fonts", "gai.conf", "group", "host.conf", "hosts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "os-release", "passwd", "pki", "protocols",
    "resolv.conf", "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
_PASSED_ON = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGUSR1, _signal.SIGUSR2)
_KERNEL = ("sys", "sysrq-trigger", "irq", "bus", "fs")  # of /proc; root may write these without any capability
_DEVICES = ("null", "zero", "full", "random", "urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    converted = [os.fsencode(one) if isinstance(one, str) else one for one in arguments]
    if getattr(_libc, name)(*converted) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    _call("mount", source, target, kind, ctypes.c_ulong(flags), options)


def _become_own_user() -> None:
    """Enter a user namespace in which this user is itself, and may do the rest."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _NEW_USERS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


# -- the network


def network(descriptor: int) -> None:
    """Hand out sockets of a network that has nothing but loopback, until the other side hangs up.

    A request is `listen PORT` or `connect PORT`; its answer a descriptor, or an errno as text.
    """
    import fcntl
    import socket
    import struct

    _become_own_user()
    _call("unshare", _NEW_NETWORK)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _IFF_UP, b""))
    asked = socket.socket(fileno=descriptor)
    asked.send(b"ready")
    while request := asked.recv(64):
        verb, port = request.split()
        with socket.socket() as made:
            try:
                if verb == b"listen":
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made.bind(("127.0.0.1", int(port)))
                    made.listen(2048)
                else:
                    made.settimeout(5)
                    made.connect(("127.0.0.1", int(port)))
                    made.settimeout(None)
            except OSError as error:
                asked.send(str(error.errno or 110).encode())
            else:
                socket.send_fds(asked, [b"ok"], [made.fileno()])


# -- the box


def run(spec: dict[str, Any], command: list[str]) -> NoReturn:
    """Run the command in a box, pass signals on to all that run in it, and end as it ends."""
    if spec["network"]:
        for kind in ("user", "net"):
            with open(f"/proc/{spec['network']}/ns/{kind}") as namespace:
                _call("setns", namespace.fileno(), 0)
    else:
        _become_own_user()
    _call("unshare", _NEW_MOUNTS | _NEW_PIDS | _NEW_IPC)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _first_process(spec, command, writing)
    os.close(writing)
    for number in _PASSED_ON:
        _signal.signal(number, lambda number, _: os.kill(child, number))
    told = os.read(reading, 16)
    os.waitpid(child, 0)
    status = int(told or 9)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != _signal.SIGKILL:
            _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _first_process(spec: dict[str, Any], command: list[str], report: int) -> NoReturn:
    """Process 1 of the box: furnishes it, starts the command, passes signals on, and reaps."""
    try:
        _call("prctl", _PR_SET_PDEATHSIG, _signal.SIGKILL, 0, 0, 0)
        os.setsid()  # a signal to the group of the box's keeper comes by the keeper alone
        _furnish(spec)
        main = os.fork()
        if main == 0:
            os.close(report)
            _become(spec, command)
        for number in _PASSED_ON:
            _signal.signal(number, lambda number, _: _to_all(number))
        while True:
            ended, status = os.wait()
            if ended == main:
                os.write(report, str(status).encode())
                os._exit(0)
    except OSError as error:
        os.write(2, f"The box could not be made: {error}\n".encode())
        os.write(report, b"32256")  # exit code 126, a shell's for what cannot be run
        os._exit(126)


def _to_all(number: int) -> None:
    try:
        os.kill(-1, number)
    except ProcessLookupError:  # nobody is left
        return


def _become(spec: dict[str, Any], command: list[str]) -> NoReturn:
    try:
        os.chdir(spec["cwd"])
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        for capability in range(64):
            if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == -1:
                break
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]} could not be started: {error}\n".encode())
    os._exit(127)


def _furnish(spec: dict[str, Any]) -> None:
    """Make the root directory of the box, and leave the machine's."""
    binds = [(place, os.path.realpath(source), writable) for place, source, writable in spec["binds"]]
    binds += [(f"/etc/{name}", os.path.realpath(f"/etc/{name}"), False) for name in _ETC]
    links = []
    for name in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store"):
        if os.path.islink(name):
            links.append((name, os.readlink(name)))
        else:
            binds.append((name, name, False))
    binds.sort()  # what lies in another comes after it
    _mount("none", "/", None, _MS_REC | _MS_SLAVE)
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    os.mkdir("/tmp/new")
    os.mkdir("/tmp/old")
    _mount("/tmp/new", "/tmp/new", None, _MS_BIND)
    _pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    for place, source, writable in binds:
        if os.path.exists(f"/old{source}"):
            _bind(f"/old{source}", f"/new{place}", writable)
    for name, target in links:
        os.symlink(target, f"/new{name}")
    os.makedirs("/new/proc")
    _mount("proc", "/new/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    for name in _KERNEL:
        if os.path.exists(f"/new/proc/{name}"):
            _bind(f"/new/proc/{name}", f"/new/proc/{name}", writable=False)
    os.makedirs("/new/dev/shm")
    _mount("tmpfs", "/new/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    for name in _DEVICES:
        _bind(f"/old/dev/{name}", f"/new/dev/{name}", writable=True)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/new/dev/{name}")
    _mount("none", "/new", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir("/new")
    _pivot_root(".", ".")
    _call("umount2", ".", _MNT_DETACH)
    os.chdir("/")


def _bind(source: str, target: str, writable: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT, 0o644))
    _mount(source, target, None, _MS_BIND | _MS_REC)
    # Flags that the source has cannot be taken from it in a user namespace.
    found = os.statvfs(target).f_flag
    kept = found & (_MS_RDONLY | _MS_NODEV | _MS_NOEXEC | 1024 | 2048) | (_MS_RELATIME if found & _ST_RELATIME else 0)
    _mount("none", target, None, _MS_REMOUNT | _MS_BIND | _MS_NOSUID | kept | (0 if writable else _MS_RDONLY))


def _pivot_root(new: str, old: str) -> None:
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"no box on {os.uname().machine}")
    _call("syscall", ctypes.c_long(number), new, old)


if __name__ == "__main__":
    if sys.argv[1] == "network":
        network(int(sys.argv[2]))
    else:
        run(marshal.loads(bytes.fromhex(sys.argv[2])), sys.argv[3:])
