#!/usr/bin/env python3
"""Compares flowtap with the flow meters that are installed, live on one veth pair, in turn within one run. As root.

    benches/compare-live.py [--rounds N] [--flowtap PATH] [--only NAME] [--rate PACKETS] [--packets N]

It makes two network namespaces with a veth pair between them, gone at the end. In each round every program captures
on the near end, one after the other, while the far end sends the same frames twice:

    at a fixed rate     what is measured is the CPU time of the program's own process, user and system, from just before
                        the first frame to its end, all flows exported, by packet sent; and how often it woke up in a
                        second (voluntary context switches). What the kernel does to put a packet into the ring happens
                        in the sender's context, for every program alike.
    as fast as it goes  into the smallest ring that the program can be told; what is measured is what it did not meter.
                        flowtap does so once more with its usual ring.

Every program meters with an active timeout of 60 s and an idle timeout of 15 s:

    flowtap      IPFIX over UDP to a socket that is read; --buffer 64K for the smallest ring, which makes it 512 KiB
    softflowd    IPFIX over UDP to a socket that is read, IPv6 included (-6), room for all flows (-m), timeouts set for
                 every protocol, a ring of 64 MiB as flowtap has it; -B 1 for the smallest ring, which makes it 256 KiB
    nfpcapd      -e 60,15, a node cache for all flows (-B), writes its own files, uncompressed, into memory (/dev/shm)
                 where there is that; its ring of 256 MiB has no option
    yaf          --active-timeout 60 --idle-timeout 15, IPFIX over UDP to a socket that is read; its ring has no option

The frames are the same each time, made with a fixed seed: 20,000 conversations of 50 packets, seven of ten TCP from SYN
to FIN, the others UDP, a fifth IPv6; half of the packets are of the least length, the others of 200 to 1,514 octets.
A run begins when the program has a running packet socket on the interface and is asleep, and with some frames at a
quiet pace, which count like all others. A run that lost more than one in a thousand at the fixed rate is marked LOSSY;
softflowd leaves what came last, less than one block of its ring, unread, which is no loss of speed. The sender has the
last core for itself.
What is printed is in Markdown: medians, and flowtap's ratio to each peer, the median of the ratios of each round.
"""

import argparse
import ctypes
import ipaddress
import json
import os
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import programs as meters
from programs import last_number

CONVERSATIONS = 20_000
SEED = 20_261_122
# Frames that one system call sends.
BATCH = 32
# Frames before each measurement, and their pace.
PROBES, PROBES_A_SECOND = 1_000, 10_000
# From this share of lost packets on a run at a fixed rate is no measure.
LOSSY = 0.001
# Longest waits: until a program captures, until it has read all, until it has ended.
TO_START, TO_READ, TO_END = 20, 30, 60
INTERFACE, PEER = "tap0", "wire0"


class Namespace:
    """A network namespace; `with` puts the calling thread into it, so that a socket made there stays there."""

    libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, name):
        self.name = name
        ip("netns", "add", name)

    def __enter__(self):
        self.before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        self.go(inside)
        os.close(inside)

    def __exit__(self, *_):
        self.go(self.before)
        os.close(self.before)

    def go(self, descriptor):
        if self.libc.setns(descriptor, 0x40000000) != 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")

    def command(self, command):
        return [meters.find("ip"), "netns", "exec", self.name, *command]

    def run(self, *command):
        return subprocess.run(self.command(command), check=True, capture_output=True, text=True).stdout

    def remove(self):
        ip("netns", "del", self.name)


def ip(*words):
    subprocess.run([meters.find("ip"), *words], check=True)


class Network:
    """Two namespaces and a cable between them on which there is nothing but what is sent here."""

    def __init__(self):
        self.near, self.far = None, None

    def __enter__(self):
        try:
            self.near = Namespace(f"meters{os.getpid()}near")
            self.far = Namespace(f"meters{os.getpid()}far")
            for namespace in (self.near, self.far):
                off = [f"net.ipv6.conf.{which}.disable_ipv6=1" for which in ("all", "default")]
                namespace.run("sysctl", "-qw", *off)
            cable = [INTERFACE, "type", "veth", "peer", "name", PEER, "netns", self.far.name]
            ip("-n", self.near.name, "link", "add", *cable)
            ip("-n", self.near.name, "link", "set", "lo", "up")
            ip("-n", self.near.name, "link", "set", INTERFACE, "up", "arp", "off")
            ip("-n", self.far.name, "link", "set", PEER, "up", "arp", "off")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        left = []
        for namespace in (self.near, self.far):
            try:
                if namespace:
                    namespace.remove()
            except (OSError, subprocess.SubprocessError) as error:
                left.append(str(error))
        if left:
            print(f"network namespaces are left behind: {'; '.join(left)}", file=sys.stderr)

    def received(self):
        """Frames that have come to the near end."""
        text = self.near.run("ip", "-j", "-s", "link", "show", INTERFACE)
        return json.loads(text)[0]["stats64"]["rx"]["packets"]


class Sender:
    """Sends prepared frames, at a rate or as fast as it goes."""

    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    class Message(ctypes.Structure):
        # struct mmsghdr: a struct msghdr, which ends with its flags and is padded, and the length that was sent.
        _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32), ("vectors", ctypes.c_void_p),
                    ("vector_count", ctypes.c_size_t), ("control", ctypes.c_void_p),
                    ("control_length", ctypes.c_size_t), ("flags", ctypes.c_size_t), ("sent", ctypes.c_size_t)]

    def __init__(self, namespace, frames):
        with namespace:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind((PEER, 0))
        self.socket.setsockopt(263, 20, 1)  # SOL_PACKET, PACKET_QDISC_BYPASS
        # One buffer for all frames, each once; what is sent is a list of places in it.
        places, at = {}, 0
        for frame in frames:
            if frame not in places:
                places[frame] = at
                at += len(frame)
        self.octets = ctypes.create_string_buffer(b"".join(places), at)
        start = ctypes.addressof(self.octets)
        self.count = len(frames)
        self.vectors = (self.Vector * self.count)()
        self.messages = (self.Message * self.count)()
        vectors = ctypes.addressof(self.vectors)
        for number, frame in enumerate(frames):
            self.vectors[number] = (start + places[frame], len(frame))
            self.messages[number] = (None, 0, vectors + number * ctypes.sizeof(self.Vector), 1)
        self.size = ctypes.sizeof(self.Message)

    def send(self, count, rate=None):
        """Sends the first `count` frames; gives the seconds it took."""
        sendmmsg, descriptor = Namespace.libc.sendmmsg, self.socket.fileno()
        messages, done = ctypes.addressof(self.messages), 0
        began = time.monotonic()
        while done < count:
            if rate:
                early = began + done / rate - time.monotonic()
                if early > 0:
                    time.sleep(early)
            sent = sendmmsg(descriptor, ctypes.c_void_p(messages + done * self.size), min(BATCH, count - done), 0)
            if sent < 0:
                error = ctypes.get_errno()
                if error not in (4, 105):  # EINTR, ENOBUFS
                    raise OSError(error, os.strerror(error))
                sent = 0
            done += sent
        return time.monotonic() - began


class Sink(threading.Thread):
    """A UDP socket in the near namespace that is read, and what was read."""

    def __init__(self, namespace):
        super().__init__(daemon=True)
        with namespace:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.messages = 0
        self.start()

    def run(self):
        while True:
            try:
                if not self.socket.recv(1 << 16):
                    return
            except OSError:
                return
            self.messages += 1

    def close(self):
        """Ends it when all that has come is read: an empty datagram is behind it."""
        with socket.socket(fileno=os.dup(self.socket.fileno())) as same:
            same.sendto(b"", self.socket.getsockname())
        self.join()
        self.socket.close()


def checksum(header):
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Conversation:
    """The frames of one conversation."""

    def __init__(self, number, chance):
        self.is_tcp = number % 10 < 7
        self.is_ipv6 = number // 10 % 5 == 0
        self.ports = (1024 + number % 60_000, chance.choice((53, 80, 123, 443, 993, 4500, 8080)))
        base = "2001:db8::" if self.is_ipv6 else "10.0.0.0"
        width = 32 if self.is_ipv6 else 20
        self.ends = [(ipaddress.ip_address(base) + side + chance.getrandbits(width)).packed for side in (1, 1 << width)]
        self.length = chance.randrange(200, 1515)

    def frame(self, back, flags, length):
        """A frame of at least the least length (without the FCS) in one direction."""
        (source, destination), (from_port, to_port) = self.ends, self.ports
        if back:
            source, destination, from_port, to_port = destination, source, to_port, from_port
        headers = 14 + (40 if self.is_ipv6 else 20) + (20 if self.is_tcp else 8)
        payload = bytes(max(length - headers, 0))
        if self.is_tcp:
            transport = struct.pack(">HHIIBBHHH", from_port, to_port, 0, 0, 0x50, flags, 65535, 0, 0) + payload
        else:
            transport = struct.pack(">HHHH", from_port, to_port, 8 + len(payload), 0) + payload
        protocol = 6 if self.is_tcp else 17
        if self.is_ipv6:
            header = struct.pack(">IHBB", 6 << 28, len(transport), protocol, 64) + source + destination
        else:
            total = 20 + len(transport)
            header = struct.pack(">BBHHHBBH", 0x45, 0, total, 0, 0, 64, protocol, 0) + source + destination
            header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
        ends = bytes.fromhex("020000000002020000000001" if back else "020000000001020000000002")
        return (ends + (b"\x86\xdd" if self.is_ipv6 else b"\x08\x00") + header + transport).ljust(60, b"\0")

    def frames(self, count):
        fin, syn, push, ack = 0x01, 0x02, 0x08, 0x10
        short = [self.frame(back, ack, 60) for back in (False, True)]
        long = [self.frame(back, push | ack, self.length) for back in (False, True)]
        frames = [(long if step % 4 >= 2 else short)[step % 2] for step in range(count)]
        if self.is_tcp and count >= 4:
            frames[:2] = [self.frame(False, syn, 60), self.frame(True, syn | ack, 60)]
            frames[-2:] = [self.frame(back, fin | ack, 60) for back in (False, True)]
        return frames


def workload(packets):
    """So many frames in the order they are sent: conversations begin evenly, each takes a tenth of the time."""
    chance = random.Random(SEED)
    conversations = min(CONVERSATIONS, max(packets // 50, 1))
    timed = []
    for number in range(conversations):
        count = packets // conversations + (number < packets % conversations)
        begin, step = 0.9 * number / conversations, 0.1 / count
        for place, frame in enumerate(Conversation(number, chance).frames(count)):
            timed.append((begin + step * place, number, frame))
    timed.sort(key=lambda one: one[:2])
    return [frame for _, _, frame in timed]


class Flowtap(meters.Flowtap):
    usual = []
    smallest = ["--buffer", "64K"]
    smallest_in_words = "512 KiB"
    # What it logs when it captures.
    ready = "capturing on"

    def command(self, port, _scratch, ring):
        to = ["--to", f"ipfix+udp://127.0.0.1:{port}", "--summary", "json", "--verbose"]
        return [self.path, "live", "-i", INTERFACE, *to, *self.timeouts, *ring]

    def count(self, output):
        return json.loads(output.strip().splitlines()[-1])["metered"]


class Softflowd(meters.Softflowd):
    # As flowtap has it; with its default of 2 MiB it is lossy when the machine is busy.
    usual = ["-B", str(64 << 20)]
    smallest = ["-B", "1"]
    smallest_in_words = "256 KiB"
    ready = "starting data collection"

    def command(self, port, scratch, ring):
        files = ["-p", os.path.join(scratch, "pid"), "-c", os.path.join(scratch, "control")]
        to = ["-n", f"127.0.0.1:{port}", "-v", "10"]
        return [self.path, "-i", INTERFACE, "-d", *to, *self.table, *self.timeouts, *files, *ring]

    def control(self, scratch, word):
        control = os.path.join(os.path.dirname(self.path), "softflowctl")
        command = [control, "-c", os.path.join(scratch, "control"), word]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def count(self, output):
        return last_number(r"Packets processed: (\d+)", output)


class Nfpcapd(meters.Nfpcapd):
    usual = []
    smallest = []
    smallest_in_words = "256 MiB, not to be told"
    ready = "Startup nfpcapd"

    def command(self, _port, scratch, ring):
        return [self.path, "-i", INTERFACE, "-w", scratch, *self.table, *self.timeouts, *ring]

    def count(self, output):
        return self.flows(output)[0]


class Yaf(meters.Yaf):
    usual = []
    smallest = []
    smallest_in_words = "not to be told"
    ready = ""

    def command(self, port, _scratch, ring):
        to = ["--out", "127.0.0.1", "--ipfix", "udp", "--ipfix-port", str(port)]
        return [self.path, "--live", "pcap", "--in", INTERFACE, *to, *self.timeouts, *self.table, *ring]

    def count(self, output):
        return self.flows(output)[0]


class Watched:
    """A process that is being measured."""

    def __init__(self, command, output_path, cores):
        self.output = open(output_path, "wb")
        self.output_path = output_path
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT,
                                        preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.pid = self.process.pid
        self.status = None

    def text(self):
        with open(self.output_path, errors="replace") as output:
            return output.read()

    def cpu_seconds(self):
        """User and system of all its threads, to the nanosecond: the clock that clock_getcpuclockid(3) names."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def wake_ups(self):
        """Voluntary context switches of its threads."""
        total = 0
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{thread}/status") as status:
                total += last_number(r"(?m)^voluntary_ctxt_switches:\s*(\d+)", status.read())
        return total

    def captures(self):
        """Whether it has a running packet socket that takes in all protocols (/proc/net/packet)."""
        with open(f"/proc/{self.pid}/net/packet") as table:
            rows = [row.split() for row in table.readlines()[1:]]
        running = {row[8] for row in rows if row[3] == "0003" and row[5] == "1"}
        folder = f"/proc/{self.pid}/fd"
        try:
            held = {re.sub(r"\D", "", os.readlink(f"{folder}/{name}")) for name in os.listdir(folder)}
        except OSError:
            return False
        return bool(running & held)

    def has_ended(self):
        # Not by Popen.poll, which would take the process' usage with it.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait_for(self, what, seconds, condition):
        until = time.monotonic() + seconds
        while not condition():
            if self.has_ended() or time.monotonic() > until:
                if condition():
                    return
                raise RuntimeError(f"it did not {what} within {seconds} s:\n{self.text()}")
            time.sleep(0.05)

    def settle(self, seconds):
        """Waits until it is asleep: next to no CPU time in half a second."""
        before = [self.cpu_seconds()]

        def is_asleep():
            time.sleep(0.5)
            used = self.cpu_seconds() - before[0]
            before[0] += used
            return used < 0.005

        self.wait_for("come to rest", seconds, is_asleep)

    def end(self):
        """SIGTERM, and SIGKILL where that does not do; gives the CPU seconds of its whole life."""
        if self.status is None:
            # As long as it has not been waited for, nobody else has its number.
            os.kill(self.pid, signal.SIGTERM)
            kill = threading.Timer(TO_END, os.kill, (self.pid, signal.SIGKILL))
            kill.start()
            _, status, self.usage = os.wait4(self.pid, 0)
            kill.cancel()
            self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
            self.output.close()
        return self.usage.ru_utime + self.usage.ru_stime


class Run:
    """What one run gave."""

    def __init__(self):
        self.sent = self.metered = self.messages = 0
        self.seconds = self.cpu_ns = self.read_cpu_ns = self.wake_ups = 0.0
        self.wrong = ""

    @property
    def lost(self):
        return self.sent - self.metered


def measure(program, network, sender, cores, packets, rate, ring):
    """One run: `rate` packets a second, or as many as can be sent."""
    run = Run()
    sink = Sink(network.near)
    with tempfile.TemporaryDirectory(dir=meters.scratch_folder()) as scratch:
        os.chmod(scratch, 0o777)
        command = network.near.command(program.command(sink.port, scratch, ring))
        watched = Watched(command, os.path.join(scratch, "output"), cores)
        try:
            watched.wait_for("capture", TO_START, lambda: watched.captures() and program.ready in watched.text())
            watched.settle(TO_START)
            received = network.received()
            sender.send(PROBES, PROBES_A_SECOND)
            watched.settle(TO_START)
            cpu, wake_ups = watched.cpu_seconds(), watched.wake_ups()
            run.seconds = sender.send(packets, rate)
            run.wake_ups = (watched.wake_ups() - wake_ups) / run.seconds
            watched.settle(TO_READ)
            run.read_cpu_ns = (watched.cpu_seconds() - cpu) * 1e9 / packets
            told = ""
            if isinstance(program, Softflowd):
                # In the foreground a signal just kills it; it tells its counts, exports and ends when asked.
                told = program.control(scratch, "statistics")
                program.control(scratch, "shutdown")
                watched.wait_for("end", TO_END, watched.has_ended)
            run.cpu_ns = (watched.end() - cpu) * 1e9 / packets
            run.sent = network.received() - received
            run.metered = program.count(watched.text() + told) or 0
            # softflowd ends with 1 when it was asked to.
            if watched.status not in ((0, 1) if isinstance(program, Softflowd) else (0,)):
                run.wrong = f"ended with {watched.status}"
            elif run.sent != packets + PROBES:
                run.wrong = f"{packets + PROBES - run.sent:,} packets did not come to the interface"
            elif run.metered > run.sent:
                run.wrong = f"{-run.lost:,} packets too many"
        except (OSError, RuntimeError, ValueError) as error:
            run.wrong = str(error)
        finally:
            watched.end()
            sink.close()
    run.messages = sink.messages
    if run.wrong:
        print(f"{program.name}: {run.wrong}\n{' '.join(command)}", file=sys.stderr)
    return run


def median(runs, what):
    return statistics.median(what(run) for run in runs)


def print_table(programs, steady, burst, usual, rate, packets):
    first = programs[0].name
    all_sent = packets + PROBES
    speed = median([run for runs in burst.values() for run in runs if run.seconds], lambda run: packets / run.seconds)
    columns = [f"CPU ns a packet at {rate:,} packets/s", "of which before the end", "wake-ups a second",
               f"lost of {all_sent:,}", f"{first} takes so many times less CPU", "messages", "smallest ring",
               f"lost of {all_sent:,} at {speed:,.0f} packets/s"]
    print(f"\n| | {' | '.join(columns)} |")
    print("| --- |" + " ---: |" * len(columns))
    for program in programs:
        mine, full = steady[program.name], burst[program.name]
        lost = f"{median(mine, lambda run: run.lost):,.0f}"
        if any(run.lost > packets * LOSSY for run in mine):
            lost = f"**LOSSY** {spread(mine)}"
        ratios = [run.cpu_ns / own.cpu_ns for run, own in zip(mine, steady[first]) if own.cpu_ns]
        ratio = f"**{statistics.median(ratios):.1f}** ({min(ratios):.1f}–{max(ratios):.1f})" if ratios else ""
        wrong = sorted({run.wrong.splitlines()[0] for run in mine + full if run.wrong})
        name = f"{program.name} {program.version}" + (f" **WRONG: {'; '.join(wrong)}**" if wrong else "")
        cpu, before_end = median(mine, lambda run: run.cpu_ns), median(mine, lambda run: run.read_cpu_ns)
        cells = [name, f"{cpu:,.0f}", f"{before_end:,.0f}", f"{median(mine, lambda run: run.wake_ups):,.0f}", lost,
                 "" if program is programs[0] else ratio, f"{mine[-1].messages:,}", program.smallest_in_words,
                 f"{median(full, lambda run: run.lost):,.0f} ({spread(full)})"]
        print(f"| {' | '.join(cells)} |")
    if usual:
        print(f"\nAs fast as it goes into its usual ring {first} lost {median(usual, lambda run: run.lost):,.0f} "
              f"({spread(usual)}) of {all_sent:,}.")


def spread(runs):
    return f"{min(run.lost for run in runs):,}–{max(run.lost for run in runs):,}"


def stop(_number, _frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--flowtap", help="the binary (default: cargo build --release)")
    parser.add_argument("--only", action="append", help="programs of this name; repeatable")
    parser.add_argument("--rate", type=int, default=100_000, help="packets a second (default: 100000)")
    parser.add_argument("--packets", type=int, default=1_000_000, help="packets a run (default: 1000000)")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("network namespaces and capture need root")
    if not meters.find("ip"):
        sys.exit("ip (of iproute2) is not installed")
    if min(arguments.rounds, arguments.rate, arguments.packets - PROBES) < 1:
        sys.exit(f"--rounds and --rate are at least 1, --packets more than {PROBES}")
    flowtap = arguments.flowtap or meters.build_flowtap()
    programs = [Flowtap(flowtap), *meters.installed([Softflowd, Nfpcapd, Yaf])]
    programs = [one for one in programs if not arguments.only or one.name in arguments.only]
    if not programs:
        sys.exit(f"--only {' '.join(arguments.only)}: no such program here")
    cores = sorted(os.sched_getaffinity(0))
    print(f"{meters.describe_machine()}. {arguments.rounds} rounds, every program in turn.")
    theirs = set(cores[:-1]) or set(cores)
    os.sched_setaffinity(0, {cores[-1]})
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Where nohup has it ignored, it stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
    steady, burst, usual = {}, {}, []
    with Network() as network:
        sender = Sender(network.far, workload(arguments.packets))

        def take_turn(runs, what, program, rate, ring):
            run = measure(program, network, sender, theirs, arguments.packets, rate, ring)
            runs.append(run)
            speed = arguments.packets / run.seconds if run.seconds else 0
            print(f"round {number + 1}: {program.name} {what}: {run.cpu_ns:.0f} ns a packet, {run.wake_ups:.0f} "
                  f"wake-ups/s, lost {run.lost:,} of {run.sent:,} at {speed:,.0f}/s", file=sys.stderr)

        for number in range(arguments.rounds):
            for program in programs:
                runs = steady.setdefault(program.name, [])
                take_turn(runs, "at a fixed rate", program, arguments.rate, program.usual)
            for program in programs:
                runs = burst.setdefault(program.name, [])
                take_turn(runs, "smallest ring", program, None, program.smallest)
            if isinstance(programs[0], Flowtap):
                take_turn(usual, "usual ring", programs[0], None, programs[0].usual)
    print_table(programs, steady, burst, usual, arguments.rate, arguments.packets)
    ours = programs[0].name
    if any(run.wrong for run in steady[ours] + burst[ours]) or any(run.lost for run in steady[ours]):
        sys.exit(f"{ours} itself metered wrong or lost packets at a fixed rate")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
