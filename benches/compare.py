#!/usr/bin/env python3
"""Compares flowtap with the flow meters that are installed, over capture files, in turn within one run.

    benches/compare.py [--rounds N] [--flowtap PATH] [--only NAME] [FOLDER]

Every *.pcap in FOLDER is metered by every program, one after the other and in every second round the other way round, N
rounds of it (5 unless told otherwise).
A run that takes less than two seconds is repeated until two have passed, and the median one counts for its round: a peer's twenty
seconds are the mean of what the machine did meanwhile, half a second is not.
What is printed is in Markdown: the machine, the medians, and flowtap's ratio to each peer, the median of the ratios of
each round, so that a slow minute of the machine slows both sides of it. Without FOLDER the captures are made by
`cargo bench --bench pipeline -- --generate`.

Before each run the capture is read, so that all find it in the page cache; and before the first it is taken out of there and read
from disk, or a file that was just written would lie in pages of 4 KiB, each found one by one, and an old one in big folios.
The memory is that of one more run before the first round, since who looks at it five hundred times a second slows what is
looked at.

Every program decodes, meters with an active timeout of 60 s and an idle timeout of 15 s, and ends all flows:

    flowtap      reads, meters and encodes IPFIX, to /dev/null
    softflowd    IPv6 included (-6), room for all flows (-m), timeouts set for every protocol; no collector, so that it
                 encodes and sends nothing: that is to its advantage
    nfpcapd      -e 60,15, a node cache for all flows (-B), writes its own files, uncompressed, into memory (/dev/shm)
                 where there is that
    yaf          --active-timeout 60 --idle-timeout 15, IPFIX to a file, /dev/null
    ipfixprobe   storage cache with active 60 and inactive 15, 2^20 lines, IPFIX not sent (output text to /dev/null)

The number of packets each says it has metered stands beside its time. One that falls short of the frames in the file is
marked LOSSY and one that fails WRONG: its time is no measure.
"""

import argparse
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import programs as meters
from programs import ACTIVE_SECONDS, IDLE_SECONDS, last_number

# A run that takes longer is ended and counts as wrong.
LONGEST_SECONDS = 300
# Runs of a program in one round are repeated until they have taken so long.
ROUND_SECONDS = 2


class Run:
    """One run of one program: what it took, and what it says it metered."""

    def __init__(self, wall, cpu, memory_kib, status, output):
        self.wall_seconds = wall
        self.cpu_seconds = cpu
        # None where nobody looked.
        self.memory_mib = None if memory_kib is None else memory_kib / 1024
        self.status = status
        self.output = output
        self.packets = None
        self.records = None


class Memory(threading.Thread):
    """Watches what memory of its own a process has: a mapped capture is the page cache's and not counted.

    The system's ru_maxrss counts mapped files, and what the program that started it had.
    """

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.path = f"/proc/{pid}/status"
        self.peak_kib = 0
        self.ended = threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.002):
            try:
                with open(self.path) as status:
                    found = re.findall(r"^Rss(?:Anon|Shmem):\s*(\d+)", status.read(), re.MULTILINE)
            except OSError:
                return
            self.peak_kib = max(self.peak_kib, sum(map(int, found)))

    def stop(self):
        self.ended.set()
        self.join()


def run(command, output_path, watch_memory):
    """Runs a command with its output in a file, so that no pipe holds it up; ends one that takes far too long."""
    with open(output_path, "wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        end_it = threading.Timer(LONGEST_SECONDS, process.kill)
        end_it.start()
        memory = Memory(process.pid) if watch_memory else None
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        end_it.cancel()
        if memory:
            memory.stop()
    # Popen must not wait for what has been waited for.
    process.returncode = os.waitstatus_to_exitcode(status)
    with open(output_path, errors="replace") as output:
        text = output.read()
    return Run(wall, usage.ru_utime + usage.ru_stime, memory and memory.peak_kib, process.returncode, text)


class Flowtap(meters.Flowtap):
    def __init__(self, path, shards=None):
        super().__init__(path)
        self.shards = [] if shards is None else ["--shards", str(shards)]
        self.name = " ".join([self.name, *self.shards])

    def command(self, capture, _scratch):
        to = ["--to", "ipfix+file:/dev/null", "--summary", "json"]
        return [self.path, "read", "--quiet", *to, *self.timeouts, *self.shards, capture]

    def count(self, one, _scratch):
        summary = json.loads(one.output.strip().splitlines()[-1])
        one.packets, one.records = summary["metered"], summary["records"]


class Softflowd(meters.Softflowd):
    def command(self, capture, scratch):
        # Without its control socket: reading a file, 1.1.0 now and then waits for ever for somebody to call there.
        files = ["-p", os.path.join(scratch, "pid"), "-c", "none"]
        return [self.path, "-r", capture, "-d", *self.table, *self.timeouts, *files]

    def count(self, one, _scratch):
        one.packets = last_number(r"Packets processed: (\d+)", one.output)
        forced = last_number(r"Flows expired: \d+ \((\d+) forced\)", one.output)
        # It holds both directions in one flow; what it would export is counted by direction.
        one.records = last_number(r"Flows exported: \d+ \((\d+) records\)", one.output)
        if forced:
            one.output += f"\n{forced} flows ended for want of room"


class Nfpcapd(meters.Nfpcapd):
    def command(self, capture, scratch):
        # 1.7 names the folder with -l, later ones with -w.
        return [self.path, "-r", capture, "-l", scratch, *self.table, *self.timeouts]

    def count(self, one, _scratch):
        one.packets, one.records = self.flows(one.output)


class Yaf(meters.Yaf):
    def command(self, capture, _scratch):
        return [self.path, "--in", capture, "--out", "/dev/null", *self.timeouts, *self.table]

    def count(self, one, _scratch):
        one.packets, one.records = self.flows(one.output)


class Ipfixprobe:
    name = "ipfixprobe"

    def __init__(self, path):
        self.path = path
        self.version = meters.first_line([path, "--version"], r"(\d+\.\d[\w.]*)")

    def command(self, capture, _scratch):
        storage = f"cache;s=20;l=4;a={ACTIVE_SECONDS};i={IDLE_SECONDS}"
        return [self.path, "-i", f"pcap;file={capture}", "-s", storage, "-o", "text;file=/dev/null"]

    def count(self, one, _scratch):
        # Its table of inputs: plugin, packets, parsed, octets; of outputs: biflows, packets, …
        row = re.search(r"^\s*0\s+(\d+)\s+(\d+)\s+\d+", one.output, re.MULTILINE)
        one.packets = int(row.group(2)) if row else None


def frames_in(capture):
    """Frames in a pcap file, counted by hand: the measure of what is lossy. Brings it into the page cache, too."""
    with open(capture, "rb", buffering=0) as file:
        magic = file.read(24)[:4]
        little = magic in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1")
        length = struct.Struct("<8xI4x" if little else ">8xI4x")
        frames, at, rest = 0, 0, b""
        while piece := file.read(1 << 20):
            octets = rest + piece
            while at + 16 <= len(octets):
                at += 16 + length.unpack_from(octets, at)[0]
                frames += 1
            # The next record's header may begin in this piece, or lie in one to come.
            rest, at = octets[at:], max(0, at - len(octets))
    return frames


def generate(folder):
    command = ["cargo", "bench", "--quiet", "--bench", "pipeline", "--", "--generate", folder]
    subprocess.run(command, cwd=meters.ROOT, check=True)


def verdict(one, frames):
    """Nothing if the run is a fair measure, else why not."""
    if one.status != 0:
        return f"WRONG: ended with {one.status}"
    if one.packets is None:
        return "WRONG: no count"
    if "want of room" in one.output:
        return "LOSSY: flows ended for want of room"
    if one.packets < frames:
        return f"LOSSY: {frames - one.packets:,} packets missing"
    return f"WRONG: {one.packets - frames:,} packets too many" if one.packets > frames else ""


def forget(capture):
    """Takes the capture out of the page cache, so that it comes back as it comes from a disk; no file in memory does."""
    with open(capture, "rb", buffering=0) as file:
        os.fsync(file.fileno())  # what is not written yet stays
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_once(capture):
    """Reads the capture into the page cache, from which some machines take it away again within seconds."""
    with open(capture, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def run_once(program, capture, watch_memory=False):
    read_once(capture)
    with tempfile.TemporaryDirectory(dir=meters.scratch_folder()) as scratch:
        one = run(program.command(capture, scratch), os.path.join(scratch, "output"), watch_memory)
        try:
            program.count(one, scratch)
        except (ValueError, KeyError, IndexError):
            pass
    return one


def run_for_a_round(program, capture, frames):
    """The median run of as many as take ROUND_SECONDS together, or one that is no fair measure if there is one."""
    runs = []
    while sum(one.wall_seconds for one in runs) < ROUND_SECONDS:
        runs.append(run_once(program, capture))
        if verdict(runs[-1], frames):
            return runs[-1]
    return sorted(runs, key=lambda one: one.wall_seconds)[len(runs) // 2]


def compare(capture, programs, rounds):
    forget(capture)
    frames = frames_in(capture)
    memory = {program.name: run_once(program, capture, watch_memory=True).memory_mib for program in programs}
    runs = {program.name: [] for program in programs}
    for number in range(rounds):
        # What a program leaves behind, such as memory that a virtual machine's host then takes back, is not always the same one's.
        for program in programs if number % 2 == 0 else programs[::-1]:
            one = run_for_a_round(program, capture, frames)
            runs[program.name].append(one)
            print(f"round {number + 1}: {os.path.basename(capture)} {program.name} {one.wall_seconds:.2f} s",
                  file=sys.stderr)
    return frames, runs, memory


def print_table(capture, frames, runs, memory, programs):
    name = os.path.basename(capture)
    print(f"\n### {name}: {frames:,} frames, {os.path.getsize(capture) / 1e6:,.0f} MB\n")
    ours = programs[0].name
    print(f"| | median s | Mpps | CPU s | peak MiB | packets metered | records | {ours} is so many times as fast | and takes so many times less CPU |")
    print("| --- |" + " ---: |" * 8)
    for program in programs:
        mine = runs[program.name]
        wall = statistics.median(one.wall_seconds for one in mine)
        cpu = statistics.median(one.cpu_seconds for one in mine)
        ratios = [peer.wall_seconds / own.wall_seconds for peer, own in zip(mine, runs[ours])]
        spread = f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f}–{max(ratios):.1f})"
        cpu_ratio = statistics.median(peer.cpu_seconds / own.cpu_seconds for peer, own in zip(mine, runs[ours]))
        last = mine[-1]
        packets = "none told" if last.packets is None else f"{last.packets:,}"
        records = "" if last.records is None else f"{last.records:,}"
        wrong = {verdict(one, frames) for one in mine} - {""}
        if wrong:
            packets += f" **{'; '.join(sorted(wrong))}**"
        ratios = " | " if program.name == ours else f"{spread} | {cpu_ratio:.1f}"
        print(f"| {program.name} {program.version} | {wall:.2f} | {frames / wall / 1e6:.2f} | {cpu:.2f} "
              f"| {memory[program.name]:,.0f} | {packets} | {records} | {ratios} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="captures (*.pcap); made afresh if there is no folder named")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--flowtap", help="the binary (default: cargo build --release)")
    parser.add_argument("--only", help="captures whose name has this in it")
    arguments = parser.parse_args()
    flowtap = arguments.flowtap or meters.build_flowtap()
    programs = [Flowtap(flowtap), Flowtap(flowtap, shards=0), *meters.installed([Softflowd, Nfpcapd, Yaf, Ipfixprobe])]
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.folder
        if folder is None:
            folder = made
            generate(made)
        captures = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".pcap"))
        captures = [path for path in captures if not arguments.only or arguments.only in os.path.basename(path)]
        if not captures:
            sys.exit(f"{folder}: no *.pcap in it")
        print(f"{meters.describe_machine()}. {arguments.rounds} rounds, every program in turn; captures in the page cache.")
        wrong = False
        for capture in captures:
            frames, runs, memory = compare(capture, programs, arguments.rounds)
            print_table(capture, frames, runs, memory, programs)
            sys.stdout.flush()
            wrong |= any(verdict(one, frames) for name in (p.name for p in programs[:2]) for one in runs[name])
    if wrong:
        sys.exit("flowtap itself metered wrong")


if __name__ == "__main__":
    main()
