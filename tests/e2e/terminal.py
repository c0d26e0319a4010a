"""A program on a pseudo terminal, and the screen that it paints: as much of a terminal as ncurses asks of one."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import support

SEQUENCE = re.compile(r"\x1b(?:\[([?>]?[0-9;]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Za-z0-9]|[=>78cDEHM])")
BEGUN = re.compile(r"\x1b(?:\[[?>]?[0-9;]*|\][^\x07\x1b]*|[()])?$")


class Screen:
    def __init__(self, rows, cols):
        self.rows, self.cols, self.row, self.col = rows, cols, 0, 0
        self.cells = [[" "] * cols for _ in range(rows)]
        self.bold_or_colour = set()  # parameters of SGR seen
        self.unknown = set()
        self.pending = ""

    def resize(self, rows, cols):
        self.cells = [(line + [" "] * cols)[:cols] for line in self.cells[:rows]]
        self.cells += [[" "] * cols for _ in range(rows - len(self.cells))]
        self.rows, self.cols = rows, cols
        self.clamp()

    def clamp(self):
        """As terminals do: what was drawn for a larger screen may still be on its way after a resize."""
        self.row, self.col = min(self.row, self.rows - 1), min(self.col, self.cols - 1)

    def text(self):
        return "\n".join("".join(line).rstrip() for line in self.cells)

    def lines(self):
        return self.text().split("\n")

    def feed(self, text):
        text, i = self.pending + text, 0
        self.pending = ""
        while i < len(text):
            if text[i] != "\x1b":
                self.character(text[i])
                i += 1
                continue
            m = SEQUENCE.match(text, i)
            if not m:
                if BEGUN.match(text, i):
                    self.pending = text[i:]
                    return
                raise AssertionError("not a sequence: %r" % text[i:i + 20])
            if m.group(2):
                self.control(m.group(1), m.group(2))
            elif m.group(0) == "\x1bM":
                self.row = max(self.row - 1, 0)
            i = m.end()

    def character(self, c):
        if c == "\r":
            self.col = 0
        elif c == "\n":
            self.row = min(self.row + 1, self.rows - 1)
        elif c == "\b":
            self.col = max(self.col - 1, 0)
        elif c == "\t":
            self.col = min(self.col // 8 * 8 + 8, self.cols - 1)
        elif c >= " ":
            if self.col >= self.cols:  # only now does a full line wrap
                self.col, self.row = 0, min(self.row + 1, self.rows - 1)
            self.cells[self.row][self.col] = c
            self.col += 1

    def control(self, params, final):
        if params[:1] in ("?", ">"):
            return
        n = [int(p) if p else 0 for p in params.split(";")]
        one = max(n[0], 1)
        self.col = min(self.col, self.cols - 1) if final not in "m" else self.col
        if final in "Hf":
            self.row, self.col = one - 1, max(n[1] if len(n) > 1 else 1, 1) - 1
            self.clamp()
        elif final == "A":
            self.row = max(self.row - one, 0)
        elif final == "B":
            self.row = min(self.row + one, self.rows - 1)
        elif final == "C":
            self.col = min(self.col + one, self.cols - 1)
        elif final == "D":
            self.col = max(self.col - one, 0)
        elif final == "d":
            self.row = one - 1
            self.clamp()
        elif final == "G":
            self.col = one - 1
            self.clamp()
        elif final == "J":
            self.erase(self.row * self.cols + self.col if n[0] == 0 else 0,
                       self.rows * self.cols if n[0] != 1 else self.row * self.cols + self.col + 1)
        elif final == "K":
            begin = self.row * self.cols
            self.erase(begin + self.col if n[0] == 0 else begin, begin + (self.cols if n[0] != 1 else self.col + 1))
        elif final == "X":
            self.erase(self.row * self.cols + self.col, self.row * self.cols + self.col + one)
        elif final == "P":
            line = self.cells[self.row]
            self.cells[self.row] = line[:self.col] + line[self.col + one:] + [" "] * min(one, self.cols - self.col)
        elif final == "@":
            line = self.cells[self.row]
            self.cells[self.row] = (line[:self.col] + [" "] * one + line[self.col:])[:self.cols]
        elif final == "b":
            last = self.cells[self.row][self.col - 1]
            for _ in range(one):
                self.character(last)
        elif final == "L":
            self.cells[self.row:self.row] = [[" "] * self.cols for _ in range(one)]
            self.cells = self.cells[:self.rows]
        elif final == "M":
            del self.cells[self.row:self.row + one]
            self.cells += [[" "] * self.cols for _ in range(self.rows - len(self.cells))]
        elif final == "m":
            self.bold_or_colour |= set(n)
        elif final not in "rhlt":
            self.unknown.add(final)

    def erase(self, begin, end):
        for at in range(begin, min(end, self.rows * self.cols)):
            self.cells[at // self.cols][at % self.cols] = " "


class Terminal:
    """A program on a terminal of its own, which shows ASCII unless env has another locale."""

    def __init__(self, argv, rows=24, cols=80, term="vt100", env=None):
        self.screen = Screen(rows, cols)
        self.decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self.status = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The size comes first, or the program asks for it too early.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
            os.execve(argv[0], argv, dict(os.environ, TERM=term, **dict({"LC_ALL": "C"}, **(env or {}))))

    def pump(self, seconds):
        """Takes in what the program writes; False once it has ended."""
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the other side open
            data = b""
        self.screen.feed(self.decode(data))
        return bool(data)

    def wait_for(self, what, timeout=20, meanwhile=None):
        """Until the screen's text matches a pattern; returns the match. meanwhile() is called again and again."""
        end = time.monotonic() + timeout * support.slow()
        while True:
            m = re.search(what, self.screen.text(), re.M)
            if m:
                return m
            if meanwhile:
                meanwhile()
            if time.monotonic() > end or not self.pump(0.1):
                raise AssertionError("%r is not on the screen:\n%s" % (what, self.screen.text()))

    def key(self, text):
        os.write(self.fd, text.encode())

    def resize(self, rows, cols):
        self.screen.resize(rows, cols)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def wait(self, timeout=20):
        """The exit status, after the program has ended by itself."""
        end = time.monotonic() + timeout * support.slow()
        while self.pump(0.1) and time.monotonic() < end:
            pass
        while self.status is None and time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.02)
        if self.status is None:
            raise AssertionError("it has not ended:\n%s" % self.screen.text())
        return self.status

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
