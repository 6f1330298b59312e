"""Connections, requests and their ends in every order: clients that leave, read slowly or come in crowds.

    python3 tests/http/test_lifetimes.py GALLEY_FAKE MODEL [unittest arguments]
"""
import http.client
import json
import random
import resource
import signal
import socket
import sys
import threading
import time
import unittest

from harness import Server

FAKE, MODEL = sys.argv[1:3]
TEXT = "/v1/completions"


def fake(*flags, step_us=0, **kw):
    return Server(FAKE, "--model", MODEL, *flags, env={"GALLEY_FAKE_STEP_US": str(step_us)}, **kw)


def raw(body, head=b"", path=b"/v1/completions"):
    data = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n" % (path, head, len(data)) + data


def idle(s):
    s.until(lambda: s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0, "an idle server")


def resident_mib(s):
    with open(f"/proc/{s.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


def is_sanitized(s):
    """Sanitizers keep freed memory for a while."""
    with open(f"/proc/{s.process.pid}/maps") as f:
        return "libasan" in (maps := f.read()) or "libtsan" in maps


class SlowReaders(unittest.TestCase):
    """A stream that says much more than the server keeps for a client, to one that does not read."""
    body = {"prompt": "x", "max_tokens": 1500, "n": 4, "logprobs": 20, "seed": 1, "ignore_eos": True, "stream": True}

    def begin(self, s):
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.settimeout(60)
        c.connect(("127.0.0.1", s.port))
        c.sendall(raw(self.body, b"Connection: close\r\n"))
        c.recv(100)
        return c

    def until_stuck(self, s):
        """The engine stops generating for it; returns the tokens it got to."""
        last = -1
        while (now := s.metric("vllm:generation_tokens_total")) != last:
            last = now
            time.sleep(0.5)
        return last

    def test_waits_and_goes_on(self):
        s = fake()
        c = self.begin(s)
        before = resident_mib(s)
        tokens = self.until_stuck(s)
        self.assertLess(tokens, 6000, "the server generates without end for a client that does not read")
        if not is_sanitized(s):
            self.assertLess(resident_mib(s) - before, 30)
        self.assertEqual(s.ok(TEXT, {"prompt": "y", "max_tokens": 20, "ignore_eos": True})["usage"]["completion_tokens"], 20)
        data = bytearray()
        while piece := c.recv(1 << 20):
            data += piece
        self.assertTrue(data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), bytes(data[-100:]))
        self.assertEqual(data.count(b'"finish_reason":"length"'), 4)
        c.close()
        s.stop()

    def test_leaves(self):
        s = fake()
        clients = [self.begin(s) for _ in range(3)]
        self.until_stuck(s)
        for c in clients:
            c.close()
        idle(s)
        s.stop()  # nothing is left behind: the sanitizer's word

    def test_shutdown(self):
        s = fake("--drain-timeout", "1")
        c = self.begin(s)
        self.until_stuck(s)
        s.stop()
        c.close()


class Leaving(unittest.TestCase):
    def test_at_any_moment(self):
        s = fake("--max-queue", "8", "--max-seqs", "4", "--max-body", "1MiB", step_us=300)
        rng = random.Random(5)
        bodies = [raw({"prompt": "short", "max_tokens": 30}), raw({"prompt": "short", "max_tokens": 30, "stream": True, "n": 2}),
                  raw({"prompt": "word " * 9000, "max_tokens": 3}), raw({"prompt": ["a", "b", "word " * 9000, "c"], "max_tokens": 9, "stream": True}),
                  raw({"prompt": ["a"] * 6, "max_tokens": 9}), raw({"prompt": "x", "temperature": -1}), raw({"prompt": "x" * (1 << 20)}),
                  raw({"messages": [{"role": "user", "content": "x"}], "stream": True}, path=b"/v1/chat/completions"),
                  raw({"prompt": "x", "max_tokens": 20, "decoding": {"strategy": "vote", "samples": 9}}),
                  raw({"prompt": "x", "stream": True, "decoding": {"strategy": "navigate", "rounds": 3, "per_round": 4, "max_item": 6}}),
                  b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 3]

        def come_and_go(seed):
            r = random.Random(seed)
            for _ in range(60):
                data = r.choice(bodies)
                if r.random() < 0.4:
                    data = data[:r.randrange(len(data))]
                with s.connect() as c:
                    if r.random() < 0.3:  # leave with a reset
                        c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    try:
                        c.sendall(data)
                        if r.random() < 0.5:
                            c.settimeout(0.05)
                            c.recv(r.choice((1, 500, 100000)))
                        elif r.random() < 0.7:
                            time.sleep(r.random() * 0.03)
                    except OSError:
                        pass

        threads = [threading.Thread(target=come_and_go, args=(rng.random(),)) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        idle(s)
        self.assertEqual(s.ok(TEXT, {"prompt": "y", "max_tokens": 5, "ignore_eos": True})["usage"]["completion_tokens"], 5)
        s.until(lambda: s.metric("galley_http_connections") <= 1, "all connections closed")
        self.assertEqual(s.metric("galley_kv_blocks_used"), 0)
        s.stop()

    def test_queue_full_half_way(self):
        s = fake("--max-queue", "4", "--max-seqs", "1", step_us=10000)
        with s.connect() as running:
            running.sendall(raw({"prompt": "x", "max_tokens": 1900, "stream": True, "ignore_eos": True}))
            running.recv(100)
            with s.connect() as waiting:
                waiting.sendall(raw({"prompt": "x", "max_tokens": 1900, "stream": True, "ignore_eos": True}))
                s.until(lambda: s.metric("vllm:num_requests_waiting") == 1, "a waiting request")
                for stream in (False, True):
                    status, answer = s.post(TEXT, {"prompt": ["a", "b", "c", "d"], "max_tokens": 5, "stream": stream})
                    self.assertEqual((status, answer["error"]["code"]), (429, "rate_limit_exceeded"))
                    s.until(lambda: s.metric("vllm:num_requests_waiting") == 1, "the accepted ones canceled")
                status, answer = s.post(TEXT, {"prompt": ["a"] * 5, "max_tokens": 5})
                self.assertEqual((status, answer["error"]["param"]), (400, "prompt"))  # would never fit
        idle(s)
        s.stop()


class Crowds(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard > 0 else soft, hard))

    def test_idle_connections(self):
        s = fake()
        crowd = [s.connect() for _ in range(1000)]
        s.until(lambda: s.metric("galley_http_connections") >= 1000, "a thousand connections")
        start = time.monotonic()
        self.assertEqual(s.ok(TEXT, {"prompt": "y", "max_tokens": 5, "ignore_eos": True})["usage"]["completion_tokens"], 5)
        self.assertLess(time.monotonic() - start, 5)
        for c in crowd:
            c.close()
        s.until(lambda: s.metric("galley_http_connections") <= 1, "all connections closed")
        s.stop()

    def test_connection_limit(self):
        s = fake("--max-connections", "3", "--loops", "1")
        crowd = [s.connect() for _ in range(4)]
        time.sleep(0.2)
        with s.connect() as late:  # waits in the backlog until a place is free
            late.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            late.settimeout(0.5)
            with self.assertRaises(TimeoutError):
                late.recv(10)
            for c in crowd:
                c.close()
            late.settimeout(10)
            self.assertEqual(late.recv(12), b"HTTP/1.1 200")
        s.stop()

    def test_many_requests_on_one_connection(self):
        s = fake()
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20)
        for i in range(1000):
            c.request("POST", TEXT, json.dumps({"prompt": f"p{i}", "max_tokens": 1, "stream": i % 3 == 0}))
            r = c.getresponse()
            r.read()
            self.assertEqual(r.status, 200)
        self.assertLessEqual(s.metric("galley_http_connections"), 2)
        c.close()
        s.stop()


class Handshakes(unittest.TestCase):
    def test_expect_continue(self):
        s = fake("--api-key", "k", "--max-body", "64KiB")
        body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n%s\r\n"
        with s.connect() as c:
            c.sendall(head % (len(body), b"Authorization: Bearer k\r\n"))
            self.assertIn(b" 100 ", c.recv(100))
            c.sendall(body)
            self.assertIn(b"HTTP/1.1 200", c.recv(4096))
        for length, key, status in ((len(body), b"", b"401"), (100000, b"Authorization: Bearer k\r\n", b"413")):
            with s.connect() as c:
                c.sendall(head % (length, key))
                self.assertEqual(c.recv(12), b"HTTP/1.1 " + status)
        s.stop()

    def test_refusals_arrive_and_keep_the_connection(self):
        s = fake("--api-key", "k", "--max-body", "256KiB")
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20)
        for path, key, size, status in ((TEXT, "wrong", 200000, 401), ("/v1/nothing", "k", 200000, 404), (TEXT, "k", 600000, 413), (TEXT, "k", 10, 200)):
            c.request("POST", path, json.dumps({"prompt": "x" * size, "max_tokens": 1}) if size < 300000 else b"x" * size, {"Authorization": f"Bearer {key}"})
            r = c.getresponse()
            r.read()
            self.assertEqual(r.status, status)
        self.assertLessEqual(s.metric("galley_http_connections"), 2)
        c.close()
        s.stop()

    def test_stream_begins_before_its_first_token(self):
        s = fake(step_us=1500000)
        start = time.monotonic()
        with s.connect() as c:
            c.sendall(raw({"prompt": "x", "max_tokens": 2, "stream": True}))
            self.assertEqual(c.recv(12), b"HTTP/1.1 200")
            self.assertLess(time.monotonic() - start, 1)
        s.stop()


class Ends(unittest.TestCase):
    def test_sigterm_under_load(self):
        s = fake("--drain-timeout", "2", step_us=3000)
        stop, results = threading.Event(), []

        def load(i):
            while not stop.is_set():
                try:
                    results.append(s.request("POST", TEXT, {"prompt": "word " * (9000 if i % 4 == 0 else 3), "max_tokens": 40, "stream": i % 2 == 0})[0])
                except OSError:
                    return  # the server is gone
                except http.client.HTTPException:
                    return

        threads = [threading.Thread(target=load, args=(i,)) for i in range(16)]
        for t in threads:
            t.start()
        time.sleep(1)
        s.stop(signal.SIGTERM, 30)
        stop.set()
        for t in threads:
            t.join()
        self.assertLessEqual(set(results), {200, 400, 503})
        self.assertIn(200, results)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
