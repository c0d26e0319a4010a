"""The live snapshot of a real gateway: it agrees with the counters and with the scheduler line that is logged."""

import json
import re

import support
from support import wait_for, ws_frame, ws_recv

UNITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


class Live(support.Case):
    def setUp(self):
        super().setUp()
        self.ws = support.free_port()
        self.gw = self.gateway(support.echo_body(self.ws), workers=2)

    def live(self):
        status, body = self.gw.get("/v1/live")
        self.assertEqual(status, 200, body)
        return json.loads(body)

    def open(self, n):
        out = [support.ws_open(self.ws) for _ in range(n)]
        for s in out:
            self.addCleanup(s.close)
        return out

    def test_agrees_with_the_counters(self):
        clients = self.open(20)
        wait_for(lambda: sum(w["sessions"] for w in self.live()["workers"]) == 20)
        live = self.live()
        self.assertEqual(live["routes"][0]["path"], "/echo")
        self.assertEqual(live["routes"][0]["connections"], 20)
        self.assertEqual([w["connections"] for w in live["workers"]],
                         [self.gw.metric("tidegate_open_connections", worker=str(i)) for i in range(2)])
        self.assertEqual((live["gate"]["state"], live["sources"], live["links"]), ("off", None, []))
        seq = live["seq"]
        for s in clients:
            s.sendall(ws_frame(1, b"hello"))
            ws_recv(s)
        wait_for(lambda: self.live()["seq"] > seq + 1)
        for s in clients[:5]:
            s.close()
        wait_for(lambda: self.live()["routes"][0]["connections"] == 15)

    def test_agrees_with_the_log(self):
        """The line is the one logged last, in whole numbers with units."""
        self.open(7)
        wait_for(lambda: (self.live()["line"] or {}).get("conns") == 7)
        line = self.live()["line"]
        self.assertLess(line["age_s"], 60)
        logged = [dict(re.findall(r"(\w+)=(\S+)", row)) for row in self.gw.log().splitlines()
                  if "sched_poll_delay_p99" in row]

        def same(row):
            def number(key):
                m = re.fullmatch(r"([0-9.]+)([kMG]?)(/s)?", row[key])
                return float(m.group(1)) * UNITS[m.group(2)]
            return (all(number(k) == line[k] for k in ("conns", "admitted", "refused", "runnable_tasks"))
                    and row["gate"] == line["gate"] and abs(number("accepts") - line["accepts_per_s"]) <= 0.5)
        self.assertTrue(any(same(row) for row in logged), (line, logged))
