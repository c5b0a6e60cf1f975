"""Hosts of a network of their own, on this machine: each with an address, processes and disks that no other host sees.

A host is a set of Linux namespaces (network, mounts, processes, name), alive as long as its first process. That one
ends when the pipe to the process that made it closes, and with it everything on the host: nothing outlives a test,
however it ends. All hosts hang on one switch, a bridge in a network namespace of its own; the machine's own network is
not touched.
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = Path("/root")
NETWORK = "10.77.0"
NEEDED = ("ip", "unshare", "nsenter", "mount", "ssh", "ssh-keygen", "rsync")
SSHD = "/usr/sbin/sshd"
DISKS = (HOME, *map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run", "/mnt", "/srv")))
# What every host has of its own. The project's folder is among it: a host gets only what is brought to it.
PRIVATE = DISKS if any(map(ROOT.is_relative_to, DISKS)) else (*DISKS, ROOT)
# What all have in common is what would be installed on each: Python and the packages of requirements.lock.
INSTALLED = tuple(dict.fromkeys([Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]))
ENVIRONMENT = {
    "HOME": str(HOME),
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
FIRST_PROCESS = ["env", "--ignore-signal=CHLD", "cat"]  # waits for its pipe to close; the kernel buries its orphans
SSHD_SETTINGS = f"""\
HostKey {HOME}/.ssh/host_key
AuthorizedKeysFile {HOME}/.ssh/authorized_keys
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
MaxStartups 100
PidFile none
"""


def why_impossible() -> str | None:
    """Why no hosts can be made here; None: they can."""
    missing = [name for name in NEEDED if not shutil.which(name)] + [SSHD] * (not Path(SSHD).exists())
    if missing:
        return f"programs must be installed: {', '.join(missing)}"
    made = "mount -t tmpfs tmpfs /mnt && ip link add one type veth peer name two && ip link add switch type bridge"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "sh", "-c", made],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"this user may not make namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Failed(Exception):
    """A command on a host did not end well."""


class Process:
    """A command that runs on a host, in a session of its own."""

    def __init__(self, host: "Host", command: str, log: str):
        self.host, self.log = host, host.files / log.lstrip("/")
        marked = f"echo $$ > {log}.id; exec > {log} 2>&1; {command}"
        self._outside = subprocess.Popen(
            host.entering("setsid", "bash", "-c", marked),
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = Path(f"{self.log}.id")

    def poll(self) -> int | None:
        return self._outside.poll()

    def wait(self, seconds: float) -> int:
        """Exit code.

        Raises:
            Failed: when it takes longer.
        """
        try:
            return self._outside.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"it still runs after {seconds:.0f} s; it said: {self.said()}") from None

    def signal(self, name: str) -> None:
        """Send a signal to the command and all it started in its session."""
        self.host.run(f"kill -{name} -- -{self._number.read_text().strip()}")

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Host:
    """A machine of its own, as far as what runs on it can tell.

    Attributes:
        name: What it calls itself.
        address: In the network of the hosts.
        files: Its root folder, as this process sees it while the host lives.
    """

    def __init__(self, name: str, number: int, switch: "Switch", keys: Path, shared: Sequence[Path] = ()):
        self.name, self.address = name, f"{NETWORK}.{number}"
        self._switch, self._port = switch, f"port{number}"
        self._keys, self._shared = keys, tuple(shared)
        self._holder: Holder | None = None
        self.boot()

    def boot(self) -> None:
        """Start it, with empty disks."""
        private = ["--mount", "--pid", "--uts", "--ipc", "--mount-proc"]
        self._holder = Holder(f"hostname {self.name}; {mounts(self._shared)}", private)
        self.files = Path(f"/proc/{self._holder.number}/root")
        self._switch.plug(self._port, self._holder.number, f"{self.address}/24")
        self._furnish()

    def entering(self, *command: str) -> list[str]:
        """A command line that runs another on this host."""
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return ["nsenter", "--target", str(self._holder.number), *spaces, f"--wdns={HOME}", "--", *command]

    def run(self, command: str, seconds: float = 120, check: bool = True) -> str:
        """Run a shell command as root; what it printed.

        Raises:
            Failed: with what it said, when it ends with another code than 0 or takes longer.
        """
        program = self.entering("timeout", "--signal=KILL", str(seconds), "bash", "-c", command)
        done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise Failed(f"{self.name}: {command}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, command: str, log: str = "/tmp/started.log") -> Process:
        return Process(self, command, log)

    def cut(self) -> None:
        """Pull the cable between switch and host: packets vanish, both sides think that they are connected."""
        self._switch.run(f"ip link set {self._port} nomaster")

    def restore(self) -> None:
        self._switch.run(f"ip link set {self._port} master switch")

    def kill(self) -> None:
        """Take the power away: first nobody hears from it any more, then everything on it ends, disks and all."""
        self.cut()
        self._holder.end()

    def close(self) -> None:
        self._holder.end()

    def _furnish(self) -> None:
        """A home as a new user has it, and a door for SSH."""
        home, key = self.files / HOME.relative_to("/"), self._keys / "key"
        shutil.copy("/etc/skel/.profile", home)
        shutil.copy("/etc/skel/.bashrc", home)
        (home / ".ssh").mkdir(mode=0o700)
        shutil.copy(key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
        (home / ".ssh" / "sshd_config").write_text(SSHD_SETTINGS)
        door = f"ssh-keygen -q -t ed25519 -N '' -f {HOME}/.ssh/host_key; mkdir -p /run/sshd; "
        self.run(f"{door} {SSHD} -f {HOME}/.ssh/sshd_config -E /tmp/sshd.log")


class Holder:
    """The first process of a set of namespaces: while it lives they do.

    Attributes:
        number: Its process id, as this process sees it.
    """

    def __init__(self, script: str, spaces: Sequence[str]):
        setup = f"set -e; {script}; echo ready; exec {shlex.join(FIRST_PROCESS)}"
        self._process = subprocess.Popen(
            ["unshare", "--net", *spaces, "--fork", "--kill-child", "--", "bash", "-c", setup],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is not for it
        )
        if self._process.stdout.readline() != "ready\n":
            raise Failed(f"a host could not be made: {self._process.stderr.read()}")
        outside = self._process.pid
        self.number = int(Path(f"/proc/{outside}/task/{outside}/children").read_text().split()[0])

    def end(self) -> None:
        self._process.kill()  # takes its child along, and that one everything in its process namespace
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()


class Switch:
    """What hosts are plugged into."""

    def __init__(self):
        self._holder = Holder("ip link add switch type bridge; ip link set switch up", [])

    def run(self, command: str) -> None:
        self._in(self._holder.number, command)

    def plug(self, port: str, host: int, address: str) -> None:
        """Connect a host, by the id of its first process."""
        self.run(f"ip link add {port} type veth peer name eth0 netns {host}")
        self.run(f"ip link set {port} master switch up")
        self._in(host, f"ip addr add {address} dev eth0; ip link set eth0 up; ip link set lo up")

    def close(self) -> None:
        self._holder.end()

    def _in(self, number: int, command: str) -> None:
        program = ["nsenter", "--target", str(number), "--net", "sh", "-ec", command]
        done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"{command}: {done.stderr}")


def mounts(shared: Sequence[Path]) -> str:
    """Shell commands that give a host disks of its own, and back what is installed or meant to be shared.

    Args:
        shared: Folders that this host sees as this process does.
    """
    kept = [path for path in (*INSTALLED, *shared) if any(path.is_relative_to(private) for private in PRIVATE)]
    lines = ["mount -t tmpfs tmpfs /media"]
    for number, path in enumerate(kept):
        lines += [f"mkdir /media/{number}", f"mount --rbind {shlex.quote(str(path))} /media/{number}"]
    lines += [f"mount -t tmpfs -o mode={'755' if path == HOME else '1777'} tmpfs {path}" for path in PRIVATE]
    for number, path in enumerate(kept):
        lines += [f"mkdir -p {shlex.quote(str(path))}", f"mount --move /media/{number} {shlex.quote(str(path))}"]
    return "; ".join(
        [*lines, "mount -o remount,bind,ro /"]
    )  # the rest of the disk is common to all: not to be written to


class Hosts:
    """Hosts on one switch, by name. Use as a context manager.

    Args:
        folder: For keys.
    """

    def __init__(self, folder: Path):
        self._folder, self._stack = folder, ExitStack()
        self._names: dict[str, Host] = {}

    def __enter__(self):
        keys = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / "key")]
        subprocess.run(keys, check=True)
        self._switch = Switch()
        self._stack.callback(self._switch.close)
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def add(self, name: str, shared: Sequence[Path] = ()) -> Host:
        """One more host; folders in `shared` it sees as this process does."""
        host = self._names[name] = Host(name, len(self._names) + 1, self._switch, self._folder, shared)
        self._stack.callback(host.close)
        return host

    def __getitem__(self, name: str) -> Host:
        return self._names[name]


def until(what: str, holds, seconds: float = 180, every: float = 0.2):
    """Wait until `holds()` is true; what it returned.

    Raises:
        Failed: when it takes longer.
    """
    began = time.monotonic()
    while not (found := holds()):
        if time.monotonic() - began > seconds:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return found
