"""Starting a server for a test and talking to it, with nothing but the standard library."""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time


def together(ask, items):
    """ask(item) for all items at the same time; the answers in their order."""
    with concurrent.futures.ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(ask, items))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Server:
    """A galley process on a port of its own, or on the Unix socket that a flag names; `tls` is the context clients use.
    Its log is kept for when a test fails."""

    def __init__(self, binary, *flags, env=None, wait=True, tls=None):
        self.log = []
        self.tls = tls
        self.process = subprocess.Popen([binary, *(["serve"] if binary.endswith("/galley") else []), "--port", "0", *flags],
                                        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                        env={**os.environ, **(env or {})})
        self.port = self.path = None
        self._ready = threading.Event()
        threading.Thread(target=self._read_log, daemon=True).start()
        if wait and not (self._ready.wait(60) and self.serves()):
            self.process.kill()
            raise RuntimeError("the server did not become ready:\n" + "".join(self.log))

    def serves(self):
        return self.port or self.path

    def _read_log(self):
        with self.process.stderr as lines:
            self._follow(lines)

    def _follow(self, lines):
        for line in lines:
            self.log.append(line)
            match = re.search(r'msg="ready" url=(?:https?://[^ ]*:(\d+)|unix:([^ ]*))', line)
            if match:
                self.port = match[1] and int(match[1])
                self.path = match[2]
                self._ready.set()
        self._ready.set()

    def client(self, timeout=60):
        if self.path:
            return UnixConnection(self.path, timeout)
        if self.tls:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers as a dict with lower-case names, body as bytes)"""
        c = self.client(timeout)
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        c.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        r = c.getresponse()
        result = r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
        c.close()
        return result

    def post(self, path, body, **kw):
        status, headers, data = self.request("POST", path, body, **kw)
        return status, json.loads(data)

    def ok(self, path, body, **kw):
        status, answer = self.post(path, body, **kw)
        assert status == 200, (status, answer)
        return answer

    def stream(self, path, body):
        """The data of each event; checks the framing on the way."""
        status, headers, data = self.request("POST", path, {**body, "stream": True})
        assert status == 200, (status, data)
        assert headers["content-type"].startswith("text/event-stream"), headers
        events = data.decode().split("\n\n")
        assert events.pop() == "", "the last event is not ended"
        assert events[-1] == "data: [DONE]", events[-1]
        chunks = []
        for event in events[:-1]:
            if event == ":":
                continue
            assert event.startswith("data: ") and "\n" not in event, event
            chunks.append(json.loads(event[6:]))
        return chunks

    def connect(self):
        """A connection's socket, before anything is said on it."""
        if self.path:
            c = socket.socket(socket.AF_UNIX)
            c.settimeout(20)
            c.connect(self.path)
            return c
        c = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return self.tls.wrap_socket(c, server_hostname="localhost") if self.tls else c

    def metric(self, name):
        text = self.request("GET", "/metrics")[2].decode()
        return sum(float(m) for m in re.findall(r"^%s(?:\{[^}]*\})? (\S+)$" % re.escape(name), text, re.M))

    def until(self, condition, what, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come about:\n" + "".join(self.log[-20:]))

    def stop(self, sig=signal.SIGTERM, timeout=40):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        status = self.process.wait(timeout)
        assert status == 0, f"exit status {status}:\n" + "".join(self.log[-40:])
