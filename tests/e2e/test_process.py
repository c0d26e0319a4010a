"""Keeper and gateway as processes: crashes, signals, drain, privilege, exit codes, the log."""

import contextlib
import ctypes
import json
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import threading
import time
import unittest

import support
from support import wait_for

PR_SET_CHILD_SUBREAPER = 36


def tidegate(*args, timeout=20):
    """A run that is expected to end by itself."""
    return subprocess.run([os.path.join(support.BUILD, "tidegate"), *args], capture_output=True, text=True,
                          timeout=timeout * support.slow())


def alive(pid):
    with contextlib.suppress(OSError):
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def proc_status(pid):
    with open("/proc/%d/status" % pid) as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


class Crash(support.Case):
    def start_gateway(self, **kw):
        self.ws, self.raw = support.free_port(), support.free_port()
        return self.gateway(support.echo_body(self.ws, self.raw), **kw)

    def echo(self, s):
        s.sendall(support.ws_frame(1, b"hello"))
        self.assertEqual(support.ws_recv(s), (1, True, b"hello"))

    def test_a_new_gateway_serves_within_a_second(self):
        gw = self.start_gateway()
        old = gw.gateway_pid
        s = support.ws_open(self.ws)
        self.addCleanup(s.close)
        self.echo(s)
        os.kill(old, signal.SIGKILL)
        begin = time.monotonic()
        self.assertEqual(support.recv_all(s), b"")
        # The listeners were never closed: who connects in between waits for the new one.
        n = support.ws_open(self.ws)
        self.addCleanup(n.close)
        self.echo(n)
        self.assertLess(time.monotonic() - begin, 1 * support.slow())
        r = support.raw_open(self.raw)
        r.close()
        wait_for(gw.healthy)
        self.assertNotEqual(gw.gateway_pid, old)
        self.assertEqual(gw.ctl("status")["pid"], gw.gateway_pid)
        self.assertIn("killed by signal 9", gw.log())

    def test_connects_never_fail_while_it_restarts(self):
        """Somebody connects all the time; the gateway is killed under him. Waiting is allowed, refusing is not."""
        gw = self.start_gateway()
        stop, failures, served, slowest = threading.Event(), [], [0], [0]
        at, others = ["nothing yet"], []

        def knock():
            while not stop.is_set():
                begin = time.monotonic()
                at[0] = "connecting"
                try:
                    with support.connect(self.ws) as s:
                        at[0] = "an answer to %s" % (s.getsockname(),)
                        s.sendall(support.upgrade_request())
                        support.recv_head(s)
                        served[0] += 1
                        slowest[0] = max(slowest[0], time.monotonic() - begin)
                except ConnectionRefusedError as e:
                    failures.append(e)
                except (OSError, EOFError) as e:
                    others.append(e)  # it was being served when the gateway died
        t = threading.Thread(target=knock)
        t.start()
        try:
            for _ in range(2):
                had, old = served[0], gw.gateway_pid
                os.kill(old, signal.SIGKILL)

                def served_again():
                    "clients to be served again"
                    return served[0] > had + 20 and gw.gateway_pid not in (None, old)
                try:
                    wait_for(served_again)
                except AssertionError as e:
                    ss = subprocess.run(["ss", "-tanp", "( sport = :%d or dport = :%d )" % (self.ws, self.ws)],
                                        capture_output=True, text=True).stdout
                    self.fail("%s; had %d, served %d; at %s; pid %s, was %d; %s\n%s\n%s" % (
                        e, had, served[0], at[0], gw.gateway_pid, old, others[-5:], ss[-2000:], gw.log()[-4000:]))
        finally:
            stop.set()
            t.join()
        self.assertEqual(failures, [])
        self.assertLess(slowest[0], 1 * support.slow())

    def test_session_ids_are_not_reused(self):
        gw = self.start_gateway()
        seen = []
        for _ in range(2):
            s = support.ws_open(self.ws)
            seen.append(int(gw.ctl("conns")["conns"][0]["session"]))
            os.kill(gw.gateway_pid, signal.SIGKILL)
            support.recv_all(s)
            s.close()

            def again():
                "the next gateway"
                with contextlib.suppress(OSError, AssertionError):
                    return gw.ctl("status")["connections"] == 0
            wait_for(again)
        self.assertGreater(seen[1], seen[0])

    def test_backoff(self):
        """The first restart is at once, the ones that follow wait longer and longer."""
        gw = self.start_gateway()
        for n in range(1, 4):
            pid = gw.gateway_pid
            os.kill(pid, signal.SIGKILL)

            def said():
                "the keeper to say that it starts another"
                return len(re.findall(r"starting another in \d+ ms", gw.log())) == n
            wait_for(said)

            def next_one():
                "another gateway to serve"
                return gw.gateway_pid not in (None, pid) and gw.log().count("is serving") == n + 1
            wait_for(next_one)
        waits = [int(w) for w in re.findall(r"starting another in (\d+) ms", gw.log())]
        self.assertEqual(waits, [0, 100, 200])
        # Told to end while there is no gateway, the keeper does not wait for one.
        os.kill(gw.gateway_pid, signal.SIGKILL)

        def waits_again():
            "the keeper to wait for its next try"
            return "starting another in 400 ms" in gw.log()
        wait_for(waits_again)
        self.assertEqual(gw.stop(), 0)

    def test_keeper_killed(self):
        """Its end is the gateway's end, and a clean one: what is left of the pair is adopted here, for its status."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.addCleanup(ctypes.CDLL(None).prctl, PR_SET_CHILD_SUBREAPER, 0)
        gw = self.start_gateway(status=-signal.SIGKILL)
        s = support.ws_open(self.ws)
        self.addCleanup(s.close)
        child = gw.gateway_pid
        gw.kill()
        self.assertEqual(gw.wait(), -signal.SIGKILL)
        self.assertEqual(support.recv_all(s), b"")

        def ended():
            "the gateway to end"
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                self.assertEqual(status, 0, gw.log())
            return pid
        wait_for(ended, 5)
        self.assertIn("the keeper is gone", gw.log())

        def refused():
            "the port to be free"
            with contextlib.suppress(ConnectionRefusedError):
                support.connect(self.ws).close()
                return False
            return True
        wait_for(refused)

    def test_a_start_that_fails_is_not_tried_again(self):
        """A gateway that cannot start ends the keeper too, with a reason. A descriptor limit is a way to make it fail."""
        self.ws = support.free_port()
        config = os.path.join(self.tmp, "c.yaml")
        with open(config, "w") as f:
            f.write("admin: {listen: \"127.0.0.1:%d\", socket: %s/admin.sock}\n" % (support.free_port(), self.tmp))
            f.write("workers: {count: 16, pin: false}\n")
            f.write(support.echo_body(self.ws))

        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
        r = subprocess.run([os.path.join(support.BUILD, "tidegate"), "-c", config], capture_output=True, text=True,
                           timeout=20 * support.slow(), preexec_fn=limit)
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertIn("the gateway could not start: workers: Too many open files", r.stderr)
        self.assertNotIn("starting another", r.stderr)


class Drain(support.Case):
    def start_gateway(self, **kw):
        self.ws, self.raw = support.free_port(), support.free_port()
        return self.gateway(support.echo_body(self.ws, self.raw), **kw)

    def goodbyes(self, clients, timeout):
        """Reads from all sockets at once, answers and closes, and returns when each close frame came: {socket: (s, code)}."""
        out = {}
        with selectors.DefaultSelector() as sel:
            for s, raw in clients:
                sel.register(s, selectors.EVENT_READ, raw)
            end = time.monotonic() + timeout
            while len(out) < len(clients) and time.monotonic() < end:
                for key, _ in sel.select(0.1):
                    s = key.fileobj
                    if key.data:
                        kind, payload = support.raw_recv(s)
                        self.assertEqual(kind, 7)
                        s.sendall(support.raw_frame(7, payload[:2]))
                    else:
                        op, _, payload = support.ws_recv(s)
                        self.assertEqual(op, 8)
                        s.sendall(support.ws_frame(8, payload[:2]))
                    out[s] = (time.monotonic(), int.from_bytes(payload[:2], "big"))
                    sel.unregister(s)
                    s.close()
        return out

    def crowd(self, n):
        clients = [(support.raw_open(self.raw), True) if i % 4 == 3 else (support.ws_open(self.ws), False)
                   for i in range(n)]
        for s, _ in clients:
            self.addCleanup(s.close)
        return clients

    def check_spread(self, times, begin, period):
        """Closes come over the whole period, no part of it has more than twice its share, and none are late."""
        at = sorted((t - begin) / period for t in times)
        self.assertGreater(at[-1], 0.85, at)
        self.assertLess(at[-1], 1 + 0.5 * support.slow(), at)
        for i in range(5):
            share = sum(1 for a in at if i / 5 <= a < (i + 1) / 5) / len(at)
            if support.slow() == 1:
                self.assertLess(share, 0.4, at)

    def test_sigterm(self):
        gw = self.start_gateway(drain="1500ms")
        clients = self.crowd(100)
        half = support.connect(self.ws)  # its handshake will never end
        self.addCleanup(half.close)
        half.sendall(b"GET /echo HT")
        wait_for(gw.ready)
        begin = time.monotonic()
        gw.kill(signal.SIGTERM)

        def draining():
            "the readiness probe to fail"
            return gw.get("/readyz")[0] == 503
        wait_for(draining)
        self.assertEqual(gw.get("/readyz"), (503, "draining\n"))
        self.assertEqual(gw.get("/healthz")[0], 200, "it is well, it only takes no more")
        status = gw.ctl("status")
        self.assertTrue(status["draining"])

        def refused():
            "new connections to be refused"
            with contextlib.suppress(ConnectionRefusedError):
                support.connect(self.ws).close()
                return False
            return True
        wait_for(refused)
        out = self.goodbyes(clients, 10 * support.slow())
        self.assertEqual([code for _, code in out.values()], [1001] * 100)
        self.check_spread([t for t, _ in out.values()], begin, 1.5)
        self.assertEqual(gw.wait(), 0)
        self.assertIn("draining 101 connections", gw.log())

    def test_few_are_spread_too(self):
        gw = self.start_gateway(drain="1s")
        clients = self.crowd(5)
        begin = time.monotonic()
        gw.kill(signal.SIGTERM)
        out = self.goodbyes(clients, 10 * support.slow())
        self.assertEqual(len(out), 5)
        self.check_spread([t for t, _ in out.values()], begin, 1)

    def test_tidegatectl_drain(self):
        gw = self.start_gateway(drain="100ms")
        clients = self.crowd(3)
        self.assertEqual(gw.ctl("drain"), {"draining": True})
        out = self.goodbyes(clients, 10 * support.slow())
        self.assertEqual([code for _, code in out.values()], [1001] * 3)
        self.assertEqual(gw.wait(), 0)

    def test_sessions_work_until_their_turn(self):
        gw = self.start_gateway(drain="1s")
        clients = [support.ws_open(self.ws) for _ in range(10)]
        for s in clients:
            self.addCleanup(s.close)
        gw.kill(signal.SIGTERM)
        self.assertEqual(support.ws_close_code(clients[0]), 1001)
        s = clients[-1]
        s.sendall(support.ws_frame(1, b"still"))
        self.assertEqual(support.ws_recv(s), (1, True, b"still"))
        for s in clients:
            s.close()
        self.assertEqual(gw.wait(), 0)

    def test_clients_that_do_not_answer(self):
        """They get the close time-out after their turn, and no more."""
        gw = self.start_gateway(drain="200ms", extra="handshake: {close_timeout: 300ms}")
        self.crowd(10)
        begin = time.monotonic()
        gw.kill(signal.SIGTERM)
        self.assertEqual(gw.wait(), 0)
        self.assertLess(time.monotonic() - begin, 0.2 + 0.3 + 1.5 * support.slow())

    def stop_at_once(self, first):
        gw = self.start_gateway(drain="1m")
        (s, _), = self.crowd(1)
        gw.kill(first)

        def draining():
            "the drain to begin"
            return gw.get("/readyz")[0] == 503
        wait_for(draining)
        begin = time.monotonic()
        gw.kill(signal.SIGINT)
        self.assertEqual(gw.wait(), 0)
        self.assertLess(time.monotonic() - begin, 1 * support.slow())
        support.recv_all(s)

    def test_second_sigint_stops_at_once(self):
        self.stop_at_once(signal.SIGINT)

    def test_sigint_behind_sigterm_stops_at_once(self):
        self.stop_at_once(signal.SIGTERM)

    def test_second_sigterm_changes_nothing(self):
        gw = self.start_gateway(drain="500ms")
        clients = self.crowd(4)
        gw.kill(signal.SIGTERM)
        time.sleep(0.05)
        gw.kill(signal.SIGTERM)
        out = self.goodbyes(clients, 10 * support.slow())
        self.assertEqual([code for _, code in out.values()], [1001] * 4)
        self.assertEqual(gw.wait(), 0)


class Privilege(support.Case):
    def test_what_the_gateway_may_do(self):
        gw = self.gateway(support.echo_body(support.free_port()))
        status = proc_status(gw.gateway_pid)
        for line in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[line], 16), 0, line)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(status["Name"], "tidegate-gw")
        if os.geteuid() == 0:
            self.assertNotIn("0", status["Uid"].split())
            self.assertNotIn("0", status["Gid"].split())
            self.assertEqual(status["Groups"].split(), [])
        else:
            self.assertEqual(set(status["Uid"].split()), {str(os.geteuid())})


class CommandLine(support.Case):
    def write(self, text):
        path = os.path.join(self.tmp, "c.yaml")
        with open(path, "w") as f:
            f.write(text)
        return path

    def test_usage(self):
        for args in (["--no-such-option"], ["argument"], ["-c"]):
            with self.subTest(args=args):
                r = tidegate(*args)
                self.assertEqual(r.returncode, 2)
                self.assertIn("Usage: tidegate", r.stderr)
        r = tidegate("--help")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertIn("Usage: tidegate", r.stdout)
        self.assertRegex(tidegate("--version").stdout, r"^tidegate \d+\.\d+\.\d+\n$")

    def test_check(self):
        self.assertEqual(tidegate("--check").returncode, 0, "the built-in demo")
        good = self.write(support.echo_body(1234))
        r = tidegate("-c", good, "--check")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        for line, key, text in (
                (2, "listeners[0].colour", "listeners:\n  - {name: ws, address: \"127.0.0.1:80\", colour: red}\n"
                                           "routes: [{path: /, upstream: echo}]\n"),
                (3, "routes[0].upstream", "listeners: [{name: ws, address: \"127.0.0.1:80\"}]\nroutes:\n"
                                          "  - {path: /, upstream: nobody}\n"),
                (1, "drain.period", "drain: {period: soon}\nlisteners: [{name: ws, address: \"127.0.0.1:80\"}]\n"
                                    "routes: [{path: /, upstream: echo}]\n")):
            with self.subTest(key=key):
                path = self.write(text)
                for args in (["-c", path, "--check"], ["-c", path]):
                    r = tidegate(*args)
                    self.assertEqual(r.returncode, 2, r.stderr)
                    self.assertRegex(r.stderr, r"(?m)^%s:%d: %s: ." % (re.escape(path), line, re.escape(key)))
        r = tidegate("-c", os.path.join(self.tmp, "missing.yaml"))
        self.assertEqual(r.returncode, 2)
        self.assertIn("missing.yaml", r.stderr)

    def test_port_in_use(self):
        """The error names the listener, and comes after a little patience."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            port = s.getsockname()[1]
            path = self.write("admin: {listen: \"127.0.0.1:%d\", socket: %s/admin.sock}\n" %
                              (support.free_port(), self.tmp) + support.echo_body(port))
            r = tidegate("-c", path)
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertRegex(r.stderr, r"error .*\bws\b.*127\.0\.0\.1:%d.*[Aa]ddress already in use" % port)

    def test_probe(self):
        r = tidegate("--probe")
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("io_uring", r.stdout)


SCHED_KEYS = ["sched_poll_delay_p99", "runnable_tasks", "accepts", "closes", "conns", "gate", "admitted", "refused",
              "forced_yields", "dropped"]


class Log(support.Case):
    def sched_lines(self, gw):
        return [re.search(r"sched_poll_delay_p99=\S+( \w+=\S+)+", line).group(0) for line in gw.log().splitlines()
                if "sched_poll_delay_p99" in line]

    def test_scheduler_line(self):
        """Once an interval, in exactly these keys, and with figures that are true."""
        ws = support.free_port()
        gw = self.gateway(support.echo_body(ws), admission="mode: user")
        gw.ctl("gate", "open")  # whatever the machine is busy with
        for _ in range(10):
            support.ws_open(ws).close()
        s = support.ws_open(ws)
        self.addCleanup(s.close)

        def lines():
            "two scheduler lines"
            return len(self.sched_lines(gw)) >= 2 and self.sched_lines(gw)
        for line in wait_for(lines):
            fields = dict(f.split("=", 1) for f in line.split(" "))
            self.assertEqual(list(fields), SCHED_KEYS)
            self.assertRegex(fields["sched_poll_delay_p99"], r"^\d+(\.\d)?(us|ms|s)$")
            self.assertRegex(fields["accepts"], r"^\d+(\.\d)?[kMG]?/s$")
            self.assertRegex(fields["closes"], r"^\d+(\.\d)?[kMG]?/s$")
            self.assertEqual(fields["gate"], "open")
        self.assertEqual(sum(int(re.search(r" admitted=(\d+)", li).group(1)) for li in self.sched_lines(gw)), 11)
        self.assertIn(" conns=1 ", self.sched_lines(gw)[-1])

    def test_human_lines(self):
        gw = self.gateway(support.echo_body(support.free_port()))
        for line in gw.log().splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (keeper|gateway) "
                                   r"(error|warn|info|debug) [a-z]+: .")

    def test_json_lines(self):
        ws = support.free_port()
        config = os.path.join(self.tmp, "c.yaml")
        with open(config, "w") as f:
            f.write("log: {level: debug, format: json, interval: 200ms}\nworkers: {count: 1, pin: false}\n")
            f.write("admin: {listen: \"\", socket: %s/admin.sock}\n" % self.tmp)
            f.write(support.echo_body(ws))
        p = self.start(support.Process([os.path.join(support.BUILD, "tidegate"), "-c", config],
                                       os.path.join(self.tmp, "json.log")))

        def spoken():
            "a scheduler line"
            return "sched_poll_delay_p99" in p.log()
        wait_for(spoken)
        self.assertEqual(p.stop(), 0)
        objects = [json.loads(line) for line in p.log().splitlines()]
        self.assertEqual({o["who"] for o in objects}, {"keeper", "gateway"})
        for o in objects:
            self.assertEqual(list(o), ["ts", "who", "level", "subsystem", "msg"])
            self.assertIn(o["level"], ("error", "warn", "info", "debug"))


if __name__ == "__main__":
    unittest.main()
