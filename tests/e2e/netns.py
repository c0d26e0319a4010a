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
            ip("-n", self.gateway, "link", "add", self.interface, "type", "veth", "peer", "name", "peer0", "netns",
               self.clients)
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

    def __exit__(self, *_):
        libc.setns(self.home, CLONE_NEWNET)
        os.close(self.home)
        for name in (self.gateway, self.clients):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)

    def answerable(self):
        """Native XDP on a veth can answer only when its peer has a program, too: one that lets everything pass."""
        here = os.path.dirname(os.path.abspath(__file__))
        ip("-n", self.clients, "link", "set", "dev", "peer0", "xdp", "obj",
           os.path.join(here, "../../build/bpf/freplace.bpf.o"), "sec", "xdp")

    def address(self, i):
        return "10.77.1.%d" % (i + 1)

    def connect(self, port, addresses, times=1, close=True, timeout=0.7, give_up=1, hold=0):
        """{address: {"ok": N, "refused": N, "silent": N}}; with hold the process stays, and is returned too."""
        p = subprocess.Popen(["nsenter", "--net=/run/netns/" + self.clients, "/usr/bin/python3", "-c", CLIENT],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        p.stdin.write(json.dumps({"addresses": addresses, "times": times, "close": close, "timeout": timeout,
                                  "give_up": give_up, "hold": hold, "host": self.host, "port": port}))
        p.stdin.close()
        out = json.loads(p.stdout.readline())
        if hold:
            return out, p
        p.wait(30)
        p.stdout.close()
        return out


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
