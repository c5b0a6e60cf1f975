"""Hosts have addresses, disks and processes of their own, and nothing of them outlives them."""

import subprocess
import sys
from pathlib import Path

import pytest
from hosts import HOME, ROOT, Failed, Hosts, until

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(120)]

GREETING = "exec 3<>/dev/tcp/{address}/22; timeout 3 head -c 3 <&3"  # sshd says SSH-2.0 to whoever comes

MAKER = """
import sys, time
from pathlib import Path
from hosts import Hosts
with Hosts(Path(sys.argv[1])) as hosts:
    hosts.add("left").start("sleep 86421")
    print("made", flush=True)
    time.sleep(100)
"""


@pytest.fixture(scope="module")
def two(hosts):
    return hosts.add("one"), hosts.add("two")


def reaches(host, other):
    return host.run(f"timeout 3 bash -c '{GREETING.format(address=other.address)}'", check=False) == "SSH"


def test_each_host_has_a_name_and_an_address(two):
    assert [host.run("hostname").strip() for host in two] == ["one", "two"]
    assert all(host.address in host.run("ip -brief address show eth0") for host in two)


@pytest.mark.parametrize("path", [str(HOME), "/tmp", "/dev/shm", str(ROOT)])
def test_what_one_host_writes_no_other_sees(two, path):
    one, other = two
    one.run(f"mkdir -p {path}; echo mine > {path}/written")
    assert other.run(f"cat {path}/written 2>&1", check=False).endswith("No such file or directory\n")
    assert not (Path(path) / "written").exists()


def test_nothing_can_be_written_where_all_hosts_see_it(two):
    with pytest.raises(Failed, match="Read-only file system"):
        two[0].run("echo mine > /usr/written")


def test_only_those_see_a_folder_that_share_it(hosts, folder, two):
    (folder / "shared").mkdir()
    one, other = (hosts.add(name, shared=[folder / "shared"]) for name in ("three", "four"))
    one.run(f"echo ours > {folder}/shared/written")
    assert other.run(f"cat {folder}/shared/written") == "ours\n"
    assert two[0].run(f"ls {folder} 2>/dev/null", check=False) == ""


def test_a_host_that_is_cut_is_not_reached_until_it_is_restored(two):
    one, other = two
    assert reaches(one, other)
    other.cut()
    assert not reaches(one, other)
    other.restore()
    until("the host is back", lambda: reaches(one, other), seconds=30)


def test_a_process_ends_with_its_host_and_by_its_own_id(hosts):
    host = hosts.add("five")
    first, second = (host.start("sleep 1000", log=f"/tmp/{name}.log") for name in ("first", "second"))
    until("both run", lambda: host.run("pgrep -c sleep", check=False).strip() == "2", seconds=30)
    first.signal("TERM")
    assert first.wait(30) != 0
    assert second.poll() is None
    host.kill()
    assert second.wait(30) != 0


def test_nothing_is_left_when_the_process_that_made_hosts_is_killed(folder, possible):
    (folder / "killed").mkdir()
    program = [sys.executable, "-c", MAKER, str(folder / "killed")]
    maker = subprocess.Popen(program, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    assert maker.stdout.readline() == "made\n"
    until("it runs", lambda: sleeping("86421"), seconds=30)
    maker.kill()
    maker.wait()
    until("all of it has ended", lambda: not sleeping("86421"), seconds=30)


def sleeping(seconds):
    lines = map(command_line, Path("/proc").glob("[0-9]*"))
    return [line for line in lines if line.split("\0")[:2] == ["sleep", seconds]]


def command_line(process):
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


def test_hosts_end_with_their_block(folder, possible):
    (folder / "keys").mkdir()
    with Hosts(folder / "keys") as made:
        host = made.add("short")
        process = host.start("sleep 97531")
        until("it runs", lambda: sleeping("97531"), seconds=30)
    assert process.wait(30) != 0
    assert not sleeping("97531")
