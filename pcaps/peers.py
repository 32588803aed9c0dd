#!/usr/bin/env python3
"""The small servers and clients that record.sh runs inside its namespaces. Standard library only.

    peers.py web PORT [CERTIFICATE KEY]         HTTP, with a certificate HTTPS
    peers.py dns PORT                           DNS over UDP and TCP
    peers.py sink PORT                          reads until the client has shut down its sending, sending all the while
    peers.py half-close ADDRESS PORT            the client of that: one line, then it only listens
    peers.py vlan INTERFACE TAP MAC TAG...      a TAP whose frames cross INTERFACE behind these tags (q:10, ad:100)

Each server listens on IPv4 and IPv6 at once, prints "ready" and runs until it is ended.
"""
import fcntl, http.server, os, select, socket, socketserver, ssl, struct, sys, time


def ready():
    print("ready", flush=True)


def listener(port, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        s.listen(16)
    return s


# ---------------------------------------------------------------- web
class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/slow":                # 4 s between lines: never idle for 15 s, longer than 60 s in all
            self.begin(None)
            for n in range(17):
                self.wfile.write(b"line %2d of 17\n" % (n + 1))
                time.sleep(4)
        elif self.path == "/until-close":       # no length: the client must wait for the server's FIN, which so is first
            self.begin(None)
            self.wfile.write(b"hello\n")
        else:
            size = int(self.path[1:] or 600)
            self.begin(size)
            self.wfile.write((b"flowtap " * (size // 8 + 1))[:size])

    def begin(self, size):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        if size is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_):
        pass


class Web(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def server_bind(self):                      # without the look-up of the host's own name
        self.server_name, self.server_port = "www.example.com", 0


def web(port, certificate=None, key=None):
    server = Web(("::", int(port)), Page, bind_and_activate=False)
    server.socket.close()
    server.socket = listener(int(port))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    ready()
    server.serve_forever()


# ---------------------------------------------------------------- DNS
A, TXT, AAAA, OPT = 1, 16, 28, 41


def answer(query, most):
    """The reply to one query: www.example.com has addresses, long.example.com a text longer than a frame."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]])
        at += 1 + query[at]
    kind = struct.unpack_from("!H", query, at + 1)[0]
    question = query[12:at + 5]
    extra = query[at + 5:]
    if extra[:1] == b"\0" and struct.unpack_from("!H", extra, 1)[0] == OPT:
        most = max(most, struct.unpack_from("!H", extra, 3)[0])
    data = {(b"www", A): [socket.inet_pton(socket.AF_INET, "198.51.100.80")],
            (b"www", AAAA): [socket.inet_pton(socket.AF_INET6, "2001:db8:2::80")],
            (b"long", TXT): [(b"\xc8" + b"flowtap " * 25) * 16]}
    known = labels[1:] == [b"example", b"com"] and labels[0] in (b"www", b"long")
    found = data.get((labels[0], kind), []) if known else []
    records = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 300, len(d)) + d for d in found)
    opt = b"\0" + struct.pack("!HHIH", OPT, 4096, 0, 0) if extra else b""

    def message(bits, count, body):
        return query[:2] + struct.pack("!HHHHH", bits, 1, count, 0, 1 if opt else 0) + question + body + opt

    bits = 0x8400 | query[2] << 8 & 0x0100 | (0 if known else 3)
    whole = message(bits, len(found), records)
    return whole if len(whole) <= most else message(bits | 0x0200, 0, b"")


def exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def dns(port):
    udp, tcp = listener(int(port), socket.SOCK_DGRAM), listener(int(port))
    ready()
    while True:
        for s in select.select([udp, tcp], [], [])[0]:
            if s is udp:
                query, peer = udp.recvfrom(4096)
                udp.sendto(answer(query, 512), peer)
                continue
            connection, _ = tcp.accept()
            with connection:
                try:
                    connection.settimeout(5)
                    query = exactly(connection, struct.unpack("!H", exactly(connection, 2))[0])
                    reply = answer(query, 65535)
                    connection.sendall(struct.pack("!H", len(reply)) + reply)
                    connection.recv(1)          # the client closes first
                except (EOFError, OSError):
                    pass


# ---------------------------------------------------------------- half-close
def sink(port):
    s = listener(int(port))
    ready()
    while True:
        connection, _ = s.accept()
        with connection:
            while connection.recv(4096):        # until the client's FIN
                pass
            for _ in range(12):                 # 3 s more, each pause shorter than the linger of 1 s
                time.sleep(0.25)
                connection.sendall(b"still sending, long after your FIN\n" * 8)


def half_close(address, port):
    with socket.create_connection((address, int(port)), timeout=20) as s:
        s.sendall(b"everything I have to say\n")
        s.shutdown(socket.SHUT_WR)
        while s.recv(4096):
            pass


# ---------------------------------------------------------------- VLAN
SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 263, 8, 4
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def vlan(interface, tap, mac, *tags):
    """The tags are put on and taken off here, so that no kernel module is needed and that the tag is in the frame."""
    tags = b"".join(struct.pack("!HH", {"q": 0x8100, "ad": 0x88A8}[t.split(":")[0]], int(t.split(":")[1])) for t in tags)
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:     # SIOCSIFHWADDR
        fcntl.ioctl(s, 0x8924, struct.pack("16sH6s16x", tap.encode(), 1, bytes.fromhex(mac.replace(":", ""))))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.bind((interface, 3))
    ready()
    while True:
        for s in select.select([tun, wire], [], [])[0]:
            if s is tun:
                frame = os.read(tun, 65536)
                wire.send(frame[:12] + tags + frame[12:])
                continue
            frame, notes, _, peer = wire.recvmsg(65536, 256)
            if peer[2] == PACKET_OUTGOING:
                continue
            for level, kind, note in notes:     # a received outer tag comes beside the frame, not in it
                if level == SOL_PACKET and kind == PACKET_AUXDATA:
                    status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", note[:20])
                    if status & 0x10:
                        frame = frame[:12] + struct.pack("!HH", tpid if status & 0x40 else 0x8100, tci) + frame[12:]
            if frame[12:12 + len(tags)] == tags and frame[12 + len(tags):14 + len(tags)] not in (b"\x81\x00", b"\x88\xa8"):
                try:
                    os.write(tun, frame[:12] + frame[12 + len(tags):])
                except OSError:                 # the TAP is not up yet
                    pass


if __name__ == "__main__":
    jobs = {"web": web, "dns": dns, "sink": sink, "half-close": half_close, "vlan": vlan}
    if len(sys.argv) < 3 or sys.argv[1] not in jobs:
        sys.exit(__doc__)
    jobs[sys.argv[1]](*sys.argv[2:])
