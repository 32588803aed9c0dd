"""The flow meters that benches/compare.py and benches/compare-live.py compare: where each is, its version and how it is
told the timeouts, which are the same for all; and the machine they run on, in words.
"""

import os
import platform
import re
import shutil
import subprocess
import sys

ACTIVE_SECONDS = 60
IDLE_SECONDS = 15
# More than there are flows in any comparison; each peer reserves what it needs as it needs it or at once.
MOST_FLOWS = 8_000_000

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


class Flowtap:
    name = "flowtap"
    timeouts = ["--active-timeout", f"{ACTIVE_SECONDS}s", "--idle-timeout", f"{IDLE_SECONDS}s"]

    def __init__(self, path):
        self.path = path
        self.version = first_line([path, "--version"], r"flowtap (\S+)")


class Softflowd:
    name = "softflowd"
    timeouts = [
        flag
        for timeout in (
            f"maxlife={ACTIVE_SECONDS}",
            "tcp.fin=1",
            "tcp.rst=1",
            *(f"{protocol}={IDLE_SECONDS}" for protocol in ("general", "tcp", "udp", "icmp")),
        )
        for flag in ("-t", timeout)
    ]
    # IPv6 as well, and room for all flows.
    table = ["-6", "-m", str(MOST_FLOWS)]

    def __init__(self, path):
        self.path = path
        self.version = first_line([path, "-h"], r"version (\d[\w.]*\w)")


class Nfpcapd:
    name = "nfpcapd"
    timeouts = ["-e", f"{ACTIVE_SECONDS},{IDLE_SECONDS}"]
    # A node cache for all flows.
    table = ["-B", "1048576"]

    def __init__(self, path):
        self.path = path
        self.version = first_line([path, "-V"], r"Version: (\d[\d.]*\d)")

    @staticmethod
    def flows(output):
        """Packets and records by its log: each rotation reports what went into its file."""
        flows = re.findall(r"Flows: (\d+), Packets: (\d+)", output)
        if not flows:
            return None, None
        return sum(int(packets) for _, packets in flows), sum(int(records) for records, _ in flows)


class Yaf:
    name = "yaf"
    timeouts = ["--active-timeout", str(ACTIVE_SECONDS), "--idle-timeout", str(IDLE_SECONDS)]
    table = ["--max-flows", str(MOST_FLOWS), "--silk", "--verbose"]

    def __init__(self, path):
        self.path = path
        self.version = first_line([path, "--version"], r"yaf version (\S+)")

    @staticmethod
    def flows(output):
        """Packets and records by its log."""
        return last_number(r"Processed (\d+) packets into", output), last_number(r"packets into (\d+) flows", output)


def installed(kinds):
    """Those of these classes whose program is there, ready to run."""
    return [kind(path) for kind in kinds if (path := find(kind.name))]


def find(name):
    """Where this program is, if it is anywhere; Debian keeps some where only root looks."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def first_line(command, pattern):
    """What a program says of its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "of unknown version"


def last_number(pattern, text):
    found = re.findall(pattern, text)
    return int(found[-1]) if found else None


def describe_machine():
    cpu = platform.machine()
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            cpu = next(line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name"))
        with open("/proc/meminfo") as meminfo:
            memory = int(meminfo.readline().split()[1]) / 1024 / 1024
    except (OSError, StopIteration):
        memory = 0
    cores = len(os.sched_getaffinity(0))
    return f"{cpu}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def scratch_folder():
    """Where files are kept in memory; the usual place where there is none."""
    shared_memory = "/dev/shm"
    return shared_memory if os.access(shared_memory, os.W_OK) else None


def build_flowtap():
    # sudo has a PATH of its own, on which what rustup installs is not.
    if not shutil.which("cargo"):
        sys.exit("cargo is not on the PATH: build flowtap as yourself (cargo build --release) and name it with --flowtap "
                 "target/release/flowtap")
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "release", "flowtap")
