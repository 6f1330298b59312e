"""Where the server listens and whom it lets in: TLS, Unix sockets, API keys from a file, and rereading them on SIGHUP.

    python3 tests/http/test_listen.py GALLEY GALLEY_FAKE MODEL [unittest arguments]
"""
import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings

from harness import Server, together

GALLEY, FAKE, MODEL = sys.argv[1:4]
TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


def fake(*flags, step_us=0, **kw):
    return Server(FAKE, "--model", MODEL, *flags, env={"GALLEY_FAKE_STEP_US": str(step_us)}, **kw)


def certify(folder, name, kind="ec"):
    """A self-signed certificate for localhost and its key: their paths."""
    cert, key = os.path.join(folder, name + ".crt"), os.path.join(folder, name + ".key")
    how = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["-newkey", "rsa:2048"]
    subprocess.run(["openssl", "req", "-x509", *how, "-nodes", "-days", "2", "-subj", "/CN=" + name, "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def trusting(*certs):
    context = ssl.create_default_context()
    for cert in certs:
        context.load_verify_locations(cert)
    return context


def common_name(connection):
    return dict(part[0] for part in connection.getpeercert()["subject"])["commonName"]


def log_of(s, words):
    s.until(lambda: any(words in line for line in s.log), words)
    return next(line for line in s.log if words in line)


def cpu_s(s):
    with open(f"/proc/{s.process.pid}/stat") as f:
        return sum(int(n) for n in f.read().rsplit(")", 1)[1].split()[11:13]) / os.sysconf("SC_CLK_TCK")


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.servers = []
        self.addCleanup(lambda: [s.process.kill() for s in self.servers if s.process.poll() is None])

    def at(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w") as f:
                f.write(text)
        return path

    def serve(self, *flags, **kw):
        self.servers.append(fake(*flags, **kw))
        return self.servers[-1]

    def refuses(self, *flags, says):
        for check in ([], ["--check-config"]):
            done = subprocess.run([GALLEY, "serve", "--model", MODEL, "--port", "0", *flags, *check], capture_output=True, text=True, timeout=30)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertEqual(done.stderr.count("galley: "), 1, done.stderr)
            for word in says:
                self.assertIn(word, done.stderr)


class Tls(Folder):
    def setUp(self):
        super().setUp()
        self.cert, self.key = certify(self.folder, "first")

    def flags(self):
        return "--tls-cert", self.cert, "--tls-key", self.key

    def test_everything_over_it(self):
        s = self.serve(*self.flags(), tls=trusting(self.cert))
        self.assertIn("url=https://", log_of(s, 'msg="ready"'))
        whole = s.ok(TEXT, {"prompt": "The fox", "max_tokens": 60, "seed": 1, "ignore_eos": True})["choices"][0]["text"]
        chunks = s.stream(TEXT, {"prompt": "The fox", "max_tokens": 60, "seed": 1, "ignore_eos": True})
        self.assertEqual("".join(c["choices"][0]["text"] for c in chunks), whole)
        self.assertEqual(s.request("GET", "/health")[0], 200)
        s.until(lambda: s.metric("galley_http_connections") == 1, "the ends of the connections before", 5)
        s.stop()

    def test_bodies_across_records(self):
        """A body that ends in the middle of what GnuTLS holds ready must not wait for more from the socket."""
        s = self.serve(*self.flags(), tls=trusting(self.cert))
        for size in (1, 1000, 16000, 16384, 16385, 24576, 32768, 50000, 100001, 1 << 20):
            status, answer = s.post("/tokenize", {"prompt": "a" * size}, timeout=20)
            self.assertEqual((status, answer.get("count", 0) > 0), (200, True), str(answer)[:200])
        with s.connect() as c:  # several requests in one record
            c.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 9)
            got = b""
            while got.count(b"HTTP/1.1 200") < 9:
                got += c.recv(65536)
        s.stop()

    def test_versions(self):
        s = self.serve(*self.flags(), tls=trusting(self.cert))
        warnings.simplefilter("ignore", DeprecationWarning)
        for version, good in ((ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
            context = trusting(self.cert)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            s.tls = context
            try:
                self.assertEqual(s.request("GET", "/health")[0], 200)
                self.assertTrue(good, version)
            except ssl.SSLError:
                self.assertFalse(good, version)
        s.tls = trusting(self.cert)
        s.stop()

    def test_rsa(self):
        cert, key = certify(self.folder, "rsa", "rsa")
        s = self.serve("--tls-cert", cert, "--tls-key", key, tls=trusting(cert))
        self.assertEqual(s.request("GET", "/health")[0], 200)
        s.stop()

    def test_not_tls(self):
        s = self.serve(*self.flags(), "--idle-timeout", "8", tls=trusting(self.cert))
        endless = b"\x9f\xff\x01" + b"x" * 400  # the beginning of an SSL 2 hello of 8,191 bytes: the server waits for the rest
        for said in (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 400, endless):
            with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
                c.sendall(said)
                try:
                    while c.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
        self.assertEqual(s.request("GET", "/health")[0], 200)
        s.stop()

    def test_slow_handshakes(self):
        """Clients that never finish a handshake, or a byte at a time, disturb nobody and are closed."""
        s = self.serve(*self.flags(), "--idle-timeout", "8", "--loops", "1", tls=trusting(self.cert))
        hello = self.client_hello()
        silent = [socket.create_connection(("127.0.0.1", s.port), timeout=20) for _ in range(20)]
        for i, c in enumerate(silent):
            c.sendall(hello[:i * len(hello) // 20])
        slow = socket.create_connection(("127.0.0.1", s.port), timeout=20)
        worst, began = 0.0, time.monotonic()
        for byte in hello[:40]:
            slow.sendall(bytes([byte]))
            t = time.monotonic()
            self.assertEqual(s.request("GET", "/health")[0], 200)
            worst = max(worst, time.monotonic() - t)
        self.assertLess(worst, 1)
        s.until(lambda: s.metric("galley_http_connections") == 1, "the idle time-out for all", 40)
        self.assertGreater(time.monotonic() - began, 7)
        spent = cpu_s(s)
        time.sleep(1)
        self.assertLess(cpu_s(s) - spent, 0.5, "the loop spins")
        for c in (*silent, slow):
            c.close()
        s.stop()

    def test_idle(self):
        """After the handshake, and after a request."""
        s = self.serve(*self.flags(), "--idle-timeout", "1", tls=trusting(self.cert))
        fresh, used = s.connect(), s.connect()
        used.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(used.recv(1000).startswith(b"HTTP/1.1 200"))
        s.until(lambda: s.metric("galley_http_connections") == 1, "the idle time-out for both", 6)
        spent = cpu_s(s)
        time.sleep(1)
        self.assertLess(cpu_s(s) - spent, 0.5, "the loop spins")
        fresh.close()
        used.close()
        s.stop()

    def test_trickled_handshake_is_closed(self):
        """Not silent for ever so short a time, yet never done."""
        s = self.serve(*self.flags(), "--idle-timeout", "1", "--loops", "1", tls=trusting(self.cert))
        hello, began = self.client_hello(), time.monotonic()
        with socket.create_connection(("127.0.0.1", s.port), timeout=20) as c:
            with self.assertRaises(OSError):
                for byte in hello:
                    c.sendall(bytes([byte]))
                    time.sleep(0.2)
        self.assertLess(time.monotonic() - began, 10)
        s.stop()

    def client_hello(self):
        out = ssl.MemoryBIO()
        with self.assertRaises(ssl.SSLWantReadError):
            trusting().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
        return out.read()

    def test_reload_under_load(self):
        """New connections get the new certificate, those that stand go on, and no request fails."""
        second = certify(self.folder, "second", "rsa")
        s = self.serve(*self.flags(), tls=trusting(self.cert, second[0]), step_us=2000)
        old = s.client()
        old.request("GET", "/health")
        old.getresponse().read()
        self.assertEqual(common_name(old.sock), "first")
        stop, failures, done = threading.Event(), [], []

        def ask(i):
            while not stop.is_set():
                try:
                    chunks = s.stream(TEXT, {"prompt": f"x{i}", "max_tokens": 20, "ignore_eos": True})
                    done.append(len(chunks))
                except Exception as e:
                    failures.append(e)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
        for t in threads:
            t.start()
        long = s.client()
        long.request("POST", TEXT, json.dumps({"prompt": "long", "max_tokens": 400, "ignore_eos": True, "stream": True}))
        reply = long.getresponse()
        time.sleep(0.2)
        for i in range(20):  # back and forth
            for name, to in zip(second if i % 2 else certify_copy(self), (self.cert, self.key)):
                shutil.copyfile(name, to + ".new")
                os.replace(to + ".new", to)
            s.process.send_signal(signal.SIGHUP)
            time.sleep(0.05)
        with s.connect() as c:
            self.assertEqual(common_name(c), "second")
        old.request("GET", "/health")  # the same connection
        self.assertEqual(old.getresponse().read() and common_name(old.sock), "first")
        self.assertTrue(reply.read().endswith(b"data: [DONE]\n\n"))
        stop.set()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        self.assertGreater(len(done), 20)
        old.close()
        long.close()
        s.stop()

    def test_bad_files_at_reload(self):
        s = self.serve(*self.flags(), tls=trusting(self.cert))
        good, other = (pathlib.Path(path).read_text() for path in (self.cert, certify(self.folder, "other")[0]))
        for text, says in (("nonsense", self.cert), (other, "is not the key of"), (None, "No such file")):
            s.log.clear()
            if text is None:
                os.unlink(self.cert)
            else:
                self.at("first.crt", text)
            s.process.send_signal(signal.SIGHUP)
            self.assertIn(says, log_of(s, "the certificate stays as it was"))
            with s.connect() as c:
                self.assertEqual(common_name(c), "first")
        self.at("first.crt", good)
        s.stop()

    def test_bad_files_at_start(self):
        other = certify(self.folder, "other")
        locked = self.at("locked.key")
        subprocess.run(["openssl", "pkey", "-in", self.key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
        self.refuses("--tls-cert", self.cert, says=["--tls-cert", "--tls-key"])
        self.refuses("--tls-key", self.key, says=["--tls-cert", "--tls-key"])
        self.refuses("--tls-cert", "/nowhere.pem", "--tls-key", self.key, says=["/nowhere.pem", "No such file"])
        self.refuses("--tls-cert", self.folder, "--tls-key", self.key, says=[self.folder])
        self.refuses("--tls-cert", self.at("empty", ""), "--tls-key", self.key, says=["empty", "certificate"])
        self.refuses("--tls-cert", self.key, "--tls-key", self.key, says=["first.key", "certificate"])
        self.refuses("--tls-cert", self.cert, "--tls-key", self.cert, says=["first.crt", "private key"])
        self.refuses("--tls-cert", self.cert, "--tls-key", other[1], says=["other.key", "is not the key of", "first.crt"])
        self.refuses("--tls-cert", self.cert, "--tls-key", locked, says=["locked.key", "passphrase"])

    def test_drain_and_leaving(self):
        s = self.serve(*self.flags(), "--drain-timeout", "20", tls=trusting(self.cert), step_us=5000)
        gone = s.connect()
        body = json.dumps({"prompt": "x", "max_tokens": 1500, "ignore_eos": True}).encode()
        gone.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
        gone.close()
        s.until(lambda: s.metric("vllm:num_requests_running") == 0, "the abandoned request's end")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(s.ok, TEXT, {"prompt": "x", "max_tokens": 100, "ignore_eos": True})
            s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
            s.process.send_signal(signal.SIGTERM)
            s.process.send_signal(signal.SIGHUP)  # not a second "now"
            self.assertEqual(running.result()["usage"]["completion_tokens"], 100)
        s.stop()


def certify_copy(test):
    """The first pair again, from copies made before the files were overwritten."""
    kept = os.path.join(test.folder, "kept")
    if not os.path.exists(kept):
        os.mkdir(kept)
        for path in (test.cert, test.key):
            shutil.copy(path, kept)
    return [os.path.join(kept, os.path.basename(path)) for path in (test.cert, test.key)]


class UnixSocket(Folder):
    def test_everything_over_it(self):
        path = self.at("galley.sock")
        s = self.serve("--unix-socket", path, "--loops", "4")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o660)
        body = {"prompt": "The fox", "max_tokens": 40, "seed": 1, "ignore_eos": True}
        whole = s.ok(TEXT, body)["choices"][0]["text"]
        streamed = together(lambda _: "".join(c["choices"][0]["text"] for c in s.stream(TEXT, body)), range(40))
        self.assertEqual(set(streamed), {whole})
        s.until(lambda: s.metric("galley_http_connections") == 1, "the ends of the connections before", 5)
        self.assertEqual(s.post("/tokenize", {"prompt": "a " * 300000})[0], 200)
        s.stop()
        self.assertFalse(os.path.exists(path))

    def test_no_port(self):
        s = self.serve("--unix-socket", self.at("s"))
        with open(f"/proc/{s.process.pid}/net/tcp") as f:
            listening = f.read()
        inodes = {os.readlink(f"/proc/{s.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{s.process.pid}/fd")}
        tcp = {f"socket:[{line.split()[9]}]" for line in listening.splitlines()[1:]}
        self.assertFalse(tcp & inodes)
        s.stop()

    def test_stale_and_taken(self):
        path = self.at("s")
        s = self.serve("--unix-socket", path)
        self.fails_on(path, "another server listens there")
        self.assertEqual(s.request("GET", "/health")[0], 200)  # undisturbed
        s.process.kill()
        s.process.wait()
        self.assertTrue(os.path.exists(path))
        s = self.serve("--unix-socket", path)  # takes over what the dead one left
        self.assertEqual(s.request("GET", "/health")[0], 200)
        s.stop()
        self.at("s", "precious")
        self.fails_on(path, "no socket")
        with open(path) as f:
            self.assertEqual(f.read(), "precious")
        self.fails_on(self.at("x" * 120), "longer than")
        self.fails_on(self.at("nowhere/s"), "No such file")

    def fails_on(self, path, says):
        done = subprocess.run([GALLEY, "serve", "--model", MODEL, "--unix-socket", path], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn(path, done.stderr)
        self.assertIn(says, done.stderr)

    def test_file_of_another_server_stays(self):
        path = self.at("s")
        s = self.serve("--unix-socket", path)
        os.unlink(path)
        other = self.serve("--unix-socket", path)
        s.process.send_signal(signal.SIGTERM)
        s.process.wait(20)
        self.assertEqual(other.request("GET", "/health")[0], 200)
        other.stop()

    def test_leaving_idle_and_drain(self):
        s = self.serve("--unix-socket", self.at("s"), "--idle-timeout", "1", "--drain-timeout", "20", step_us=5000)
        body = json.dumps({"prompt": "x", "max_tokens": 1500, "ignore_eos": True}).encode()
        gone = s.connect()
        gone.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
        gone.close()
        s.until(lambda: s.metric("vllm:num_requests_running") == 0, "the abandoned request's end")
        silent, half = s.connect(), s.connect()
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost:")
        self.assertEqual(silent.recv(1), b"")
        while half.recv(4096):  # may say 408 first
            pass
        silent.close()
        half.close()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(s.ok, TEXT, {"prompt": "x", "max_tokens": 100, "ignore_eos": True})
            s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(running.result()["usage"]["completion_tokens"], 100)
        s.stop()

    def test_with_tls(self):
        cert, key = certify(self.folder, "first")
        s = self.serve("--unix-socket", self.at("s"), "--tls-cert", cert, "--tls-key", key)
        with trusting(cert).wrap_socket(s.connect(), server_hostname="localhost") as c:
            c.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            self.assertTrue(c.recv(100).startswith(b"HTTP/1.1 200"))
        s.process.send_signal(signal.SIGTERM)
        self.assertEqual(s.process.wait(20), 0)


class Keys(Folder):
    def allowed(self, s, key, name="Authorization"):
        headers = {} if key is None else {name: f"Bearer {key}" if name == "Authorization" else key}
        status = s.request("GET", "/v1/models", headers=headers)[0]
        self.assertIn(status, (200, 401))
        return status == 200

    def test_file_and_list(self):
        path = self.at("keys", "# our keys\n\nalpha\n  beta-2  # of the second team\r\n#gamma\ndelta")
        s = self.serve("--api-key-file", path, "--api-key", "one,two")
        for key in ("alpha", "beta-2", "delta", "one", "two"):
            self.assertTrue(self.allowed(s, key), key)
            self.assertTrue(self.allowed(s, key, "x-api-key"), key)
        for key in (None, "", "gamma", "#gamma", "alph", "alphaa", "ALPHA", "one,two", "# our keys", "beta-2  # of the second team", "alpha,one"):
            self.assertFalse(self.allowed(s, key), key)
        self.assertEqual(s.request("GET", "/health")[0], 200)
        s.stop()

    def test_reload(self):
        path = self.at("keys", "alpha\n")
        s = self.serve("--api-key-file", path, step_us=2000)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            head = {"Authorization": "Bearer alpha"}
            running = pool.submit(s.ok, TEXT, {"prompt": "x", "max_tokens": 300, "ignore_eos": True}, headers=head)
            s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
            self.at("keys", "beta\ngamma\n")
            s.process.send_signal(signal.SIGHUP)
            self.assertIn("keys=2", log_of(s, 'msg="reload: API keys"'))
            self.assertEqual(running.result()["usage"]["completion_tokens"], 300)
        self.assertEqual([self.allowed(s, k) for k in ("alpha", "beta", "gamma", None)], [False, True, True, False])
        for text, says in (("", "no key in it"), ("# only this\n", "no key in it"), ("ok\nwith space\n", ":2:"), (None, "No such file")):
            s.log.clear()
            if text is None:
                os.unlink(path)
            else:
                self.at("keys", text)
            s.process.send_signal(signal.SIGHUP)
            self.assertIn(says, log_of(s, "the API keys stay as they were"))
            self.assertEqual([self.allowed(s, k) for k in ("beta", "ok", None)], [True, False, False])
        s.stop()

    def test_reload_under_load(self):
        path = self.at("keys", "alpha\nstays\n")
        s = self.serve("--api-key-file", path)
        end = time.monotonic() + 3

        def ask(_):
            n = 0
            while time.monotonic() < end:
                self.assertTrue(self.allowed(s, "stays"))
                self.assertFalse(self.allowed(s, "never"))
                n += 1
            return n

        def reload(_):
            n = 0
            while time.monotonic() < end:
                self.at("keys.new", "stays\n" + "".join(f"k{n}-{i}\n" for i in range(n % 50)))
                os.replace(self.at("keys.new"), path)
                s.process.send_signal(signal.SIGHUP)
                time.sleep(0.01)
                n += 1
            return n

        counts = together(lambda i: reload(i) if i == 0 else ask(i), range(5))
        self.assertGreater(min(counts), 20)
        s.stop()

    def test_bad_files_at_start(self):
        self.refuses("--api-key-file", "/nowhere/keys", says=["/nowhere/keys", "No such file"])
        self.refuses("--api-key-file", self.at("empty", "\n# nothing\n"), says=["empty", "no key"])
        self.refuses("--api-key-file", self.at("bad", "good\n\ntwo words\n"), says=["bad:3:", "one key"])
        self.refuses("--api-key-file", self.at("odd", "schlüssel\n"), says=["odd:1:"])
        self.refuses("--api-key", ",", says=["--api-key"])

    def test_nothing_to_reload(self):
        s = self.serve()
        s.process.send_signal(signal.SIGHUP)
        log_of(s, "reload: API keys")
        self.assertTrue(self.allowed(s, None))
        s.stop()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
