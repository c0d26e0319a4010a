"""Two network namespaces joined by a veth pair: the gateway lives in one, clients with many addresses in the other."""

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import unittest

CLONE_NEWNET = 0x40000000
ADDRESSES = 200  # of the clients: 10.77.1.1 and up
PASSING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/bpf/freplace.bpf.o")

libc = ctypes.CDLL(None, use_errno=True)


def enter(path):
    """This thread, and what it starts from here on, is in the namespace."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


# Runs in the clients' namespace: connects from each address named, with a request, and says how it went.
CLIENT = r"""
import json, socket, struct, sys, time
job = json.load(sys.stdin)
held, out = [], {}
for address in job["addresses"]:
    ok = refused = silent = 0
    for _ in range(job["times"]):
        s = socket.socket()
        s.settimeout(job["timeout"])
        try:
            s.bind((address, 0))
            s.connect((job["host"], job["port"]))
            if job["close"]:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
            else:
                held.append(s)
            ok += 1
        except ConnectionRefusedError:
            refused += 1
        except (TimeoutError, socket.timeout):
            silent += 1
        if silent >= job["give_up"]:
            break
    out[address] = {"ok": ok, "refused": refused, "silent": silent}
print(json.dumps(out), flush=True)
sys.stdin.close()
time.sleep(job["hold"])
"""


# There, too: attempts at fixed times, per address so many a second, whether or not earlier ones came through. Says how many of
# each came through before they were given up, of those made between the first seconds (of bursts) and the end. A connection is
# closed as soon as it is there.
OPEN_LOOP = r"""
import heapq, json, random, select, socket, struct, sys, time
job = json.load(sys.stdin)
offers, give_up = job["offers"], job["give_up"]
poll, waiting, deadlines = select.epoll(), {}, []
admitted, offered = dict.fromkeys(offers, 0), dict.fromkeys(offers, 0)
linger = struct.pack("ii", 1, 0)
begin = time.monotonic()
measured = begin + job["skip"]
end = measured + job["seconds"]
due = [(begin + random.random() / rate, a) for a, rate in offers.items()]
heapq.heapify(due)

def attempt(address, counts):
    s = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    s.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    s.bind((address, 0))
    s.connect_ex((job["host"], job["port"]))
    poll.register(s, select.EPOLLOUT)
    waiting[s.fileno()] = s, address, counts
    offered[address] += counts
    deadlines.append((time.monotonic() + give_up, s))

behind = 0  # the most that an attempt was late: a generator that is short of time is none
while True:
    now = time.monotonic()
    if now >= end + give_up or (now >= end and not waiting):
        break
    while now < end and due[0][0] <= now:
        at, address = due[0]
        counts = now >= measured
        behind = max(behind, now - at) if counts else 0
        heapq.heapreplace(due, (at + 1 / offers[address], address))
        attempt(address, counts)
    while deadlines and deadlines[0][0] <= now:
        s = deadlines.pop(0)[1]
        if s.fileno() >= 0:
            del waiting[s.fileno()]
            s.close()
    wake = due[0][0] if now < end else end + give_up
    if deadlines:
        wake = min(wake, deadlines[0][0])
    for fd, events in poll.poll(max(0, wake - time.monotonic()), 1000):
        s, address, counts = waiting.pop(fd)
        admitted[address] += counts and not events & select.EPOLLERR
        s.close()
print(json.dumps({"admitted": admitted, "offered": offered, "behind": behind}))
"""


def jain(x):
    """Jain's index of fairness: 1 when all have the same, 1 / n when one has everything."""
    return sum(x) ** 2 / (len(x) * sum(v * v for v in x)) if any(x) else 0


class Namespaces:
    """Use as a context; needs root."""

    host = "10.77.0.1"

    def __init__(self):
        self.gateway, self.clients = "tg-gw-%d" % os.getpid(), "tg-cl-%d" % os.getpid()
        self.interface = "tgv%d" % (os.getpid() % 100000)

    def __enter__(self):
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for name in (self.gateway, self.clients):
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            cpus = min(os.cpu_count(), 16)
            queues = "numtxqueues", str(cpus), "numrxqueues", str(cpus)
            ip("-n", self.gateway, "link", "add", self.interface, *queues, "type", "veth", "peer", "name", "peer0", *queues,
               "netns", self.clients)
            self.steer_queues(cpus)
            ip("-n", self.gateway, "addr", "add", self.host + "/16", "dev", self.interface)
            ip("-n", self.gateway, "link", "set", self.interface, "up")
            batch = "".join("addr add 10.77.1.%d/16 dev peer0\n" % (i + 1) for i in range(ADDRESSES))
            subprocess.run(["ip", "-n", self.clients, "-batch", "-"], input=batch, text=True, check=True)
            ip("-n", self.clients, "link", "set", "peer0", "up")
            enter("/run/netns/" + self.gateway)
        except BaseException:
            self.__exit__()
            raise
        return self

    def steer_queues(self, cpus):
        """A queue a CPU, as network cards have: what one CPU sends does not wait behind what another one does."""
        maps = "; ".join("echo %x > /sys/class/net/$dev/queues/tx-%d/xps_cpus" % (1 << i, i) for i in range(cpus))
        for name, dev in ((self.gateway, self.interface), (self.clients, "peer0")):
            if cpus > 1:
                ip("netns", "exec", name, "sh", "-ec", "dev=%s; %s" % (dev, maps))

    def __exit__(self, *_):
        libc.setns(self.home, CLONE_NEWNET)
        os.close(self.home)
        for name in (self.gateway, self.clients):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)

    def answerable(self):
        """Native XDP on a veth can answer only when its peer has a program, too: one that lets everything pass."""
        ip("-n", self.clients, "link", "set", "dev", "peer0", "xdp", "obj", PASSING, "sec", "xdp")

    def occupy(self):
        """The gateway's interface has a program already, in no dispatcher, so that none fits beside it."""
        ip("-n", self.gateway, "link", "set", "dev", self.interface, "xdp", "obj", PASSING, "sec", "xdp")

    def inside(self, *argv):
        """The command, as run in the clients' namespace."""
        return ["nsenter", "--net=/run/netns/" + self.clients, *argv]

    def address(self, i):
        return "10.77.1.%d" % (i + 1)

    def connect(self, port, addresses, times=1, close=True, timeout=0.7, give_up=1, hold=0):
        """{address: {"ok": N, "refused": N, "silent": N}}; with hold the process stays, and is returned too."""
        p = subprocess.Popen(self.inside("/usr/bin/python3", "-c", CLIENT), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
        p.stdin.write(json.dumps({"addresses": addresses, "times": times, "close": close, "timeout": timeout,
                                  "give_up": give_up, "hold": hold, "host": self.host, "port": port}))
        p.stdin.close()
        out = json.loads(p.stdout.readline())
        if hold:
            return out, p
        p.wait(30)
        p.stdout.close()
        return out

    def open_loop(self, port, offers, seconds, give_up, skip=0):
        """offers: {address: attempts per second}. {"admitted": {address: N}, "offered": {address: N}, "behind": seconds}"""
        job = {"offers": offers, "skip": skip, "seconds": seconds, "give_up": give_up, "host": self.host, "port": port}
        p = subprocess.run(self.inside("/usr/bin/python3", "-c", OPEN_LOOP), input=json.dumps(job), capture_output=True,
                           text=True, timeout=60 + skip + seconds + give_up)
        if p.returncode:
            raise AssertionError(p.stderr)
        return json.loads(p.stdout)

    def flood(self, build, port, seconds):
        """A flood of SYNs with forged sources (tests/support/syn_flood.c), whose answers lead out of the gateway's namespace
        like others do; its process. It says what it sent on standard output."""
        subprocess.run(["ip", "-n", self.gateway, "route", "replace", "default", "via", self.address(0)], check=True)
        r = subprocess.run(["ip", "-n", self.gateway, "-j", "link", "show", self.interface], check=True,
                           capture_output=True, text=True)
        return subprocess.Popen(
            self.inside(os.path.join(build, "tests/support/syn_flood"), "peer0", json.loads(r.stdout)[0]["address"],
                        self.host, str(port), str(seconds)), stdout=subprocess.PIPE, text=True)


def needed():
    """Why such tests cannot run here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    if not shutil.which("ip") or not shutil.which("nsenter"):
        return "needs ip and nsenter"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "may not make network namespaces"
    return None


skip = unittest.skipIf(needed(), needed())
