"""galley run at a terminal (a pty: typed at, interrupted, hung up) and in pipes; galley health.

    python3 tests/http/test_run.py GALLEY GALLEY_FAKE MODEL [unittest arguments]
"""
import fcntl
import http.server
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest
from unittest import mock

from harness import Server

GALLEY, FAKE, MODEL = sys.argv[1:4]


def fake(*flags, step_us=0, **kw):
    return Server(FAKE, "--model", MODEL, *flags, env={"GALLEY_FAKE_STEP_US": str(step_us)}, **kw)


class Recorder(http.server.ThreadingHTTPServer):
    """A server that keeps what it is asked and answers what the test wants."""
    pieces, status, ending = ["Hello", " there."], 200, b"data: [DONE]\n\n"

    def __init__(self):
        self.asked, self.keys = [], []
        super().__init__(("127.0.0.1", 0), Recorder.Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def send(self, status, body, kind="application/json"):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            models = self.path == "/v1/models"
            self.send(200 if models else 404, json.dumps({"data": [{"id": "the-model"}]}).encode() if models else b"{}")

        def do_POST(self):
            s = self.server
            s.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            s.keys.append(self.headers["Authorization"])
            if s.status != 200:
                return self.send(s.status, b'{"error": {"message": "No, thank you."}}')
            events = b"".join(b"data: %s\r\n\r\n" % json.dumps({"choices": [{"delta": {"content": p}}]}).encode() for p in s.pieces)
            self.send(200, b": hello\n\n" + events + s.ending, "text/event-stream")


class Terminal:
    """galley run in a terminal of 80 columns; with a shell, which has typed the command."""

    def __init__(self, *flags, home, env=None, shell=False):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.pop("XDG_STATE_HOME", None)
            os.environ.update(HOME=home, TERM="xterm", LC_ALL="C.UTF-8", **(env or {}))
            if not shell:
                os.execv(GALLEY, [GALLEY, "run", *flags])
            os.environ.update(PS1="$ ")
            os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.seen = ""
        self.raw = b""
        if shell:
            self.until("$ ")
            self.type(shlex.join([GALLEY, "run", *flags]) + "\r")

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if ready:
            try:
                self.raw += os.read(self.fd, 65536)
            except OSError:
                return False
        self.seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]", "", self.raw.decode(errors="replace"))
        return True

    def until(self, text, seconds=20):
        """Waits for the text, and forgets what came up to it; returns that."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > end or not self.read(0.1):
                raise AssertionError(f"{text!r} did not come; there is {self.seen[-2000:]!r}")
        before = self.seen[:self.seen.index(text)]
        self.raw, self.seen = self.seen[len(before) + len(text):].encode(), self.seen[len(before) + len(text):]
        return before

    def type(self, text):
        os.write(self.fd, text.encode())

    def ask(self, text):
        self.type(text + "\r")
        self.until("\n")

    def wait(self, seconds=20):
        """The exit status, or minus the signal."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it did not end; there is {self.seen[-2000:]!r}")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(p) for p in f.read().split()]


def is_there(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Base(unittest.TestCase):
    def setUp(self):
        self.home = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.home)
        env = mock.patch.dict(os.environ, TMPDIR=self.home)
        env.start()
        self.addCleanup(env.stop)

    def run_folders(self):
        return [f for f in os.listdir(self.home) if f.startswith("galley-run-")]

    def terminal(self, *flags, **kw):
        return Terminal(*flags, home=self.home, **kw)

    def recorder(self):
        r = Recorder()
        self.addCleanup(r.server_close)
        self.addCleanup(r.shutdown)
        return r

    def shot(self, *flags, stdin="", status=0, env=None):
        done = subprocess.run([GALLEY, "run", *flags], input=stdin, capture_output=True, text=True, timeout=60,
                              env={**os.environ, "HOME": self.home, **(env or {})})
        self.assertEqual(done.returncode, status, done)
        return done


class Pipes(Base):
    def test_prompt_and_pipe(self):
        r = self.recorder()
        for flags, stdin, text in ((["Hi"], "", "Hi"), ([], "line one\nline two\n", "line one\nline two"), (["Sum up:"], "a text", "Sum up:\n\na text"),
                                   (["--", "--odd"], "", "--odd")):
            done = self.shot("--url", r.url, *flags, stdin=stdin)
            self.assertEqual((done.stdout, done.stderr), ("Hello there.\n", ""))
            path, body = r.asked[-1]
            self.assertEqual(path, "/v1/chat/completions")
            self.assertEqual(body, {"model": "the-model", "stream": True, "messages": [{"role": "user", "content": text}]})

    def test_fields(self):
        r = self.recorder()
        self.shot("--url", r.url + "/v1/", "--system", "Be brief.", "--temperature", "0.5", "--max-tokens", "7", "--decoding", '{"strategy": "vote"}',
                  "--model", "m", "--api-key", "secret", "Hi")
        self.assertEqual(r.asked[-1][1], {"model": "m", "stream": True, "temperature": 0.5, "max_tokens": 7, "decoding": {"strategy": "vote"},
                                          "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]})
        self.assertEqual(r.keys[-1], "Bearer secret")
        self.shot("--url", r.url, "--decoding", "copy", "Hi", env={"GALLEY_API_KEY": "other"})
        self.assertEqual((r.asked[-1][1]["decoding"], r.keys[-1]), ("copy", "Bearer other"))

    def test_bytes_are_passed_on(self):
        """Only a terminal is protected from control characters."""
        r = self.recorder()
        r.pieces = ["a\x1b[31m", "ä\x07b"]
        self.assertEqual(self.shot("--url", r.url, "Hi").stdout, "a\x1b[31mä\x07b\n")

    def test_failures(self):
        r = self.recorder()
        r.status = 401
        self.assertIn("No, thank you. (status 401)", self.shot("--url", r.url, "Hi", status=1).stderr)
        r.status, r.ending = 200, b'data: {"error": {"message": "it broke"}}\n\n'
        self.assertIn("it broke", self.shot("--url", r.url, "Hi", status=1).stderr)
        r.ending = b""
        self.assertIn("broke off", self.shot("--url", r.url, "Hi", status=1).stderr)
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            self.assertIn("127.0.0.1", self.shot("--url", f"http://127.0.0.1:{nobody.getsockname()[1]}", "Hi", status=1).stderr)
        self.assertIn("/nowhere.gguf", self.shot("--model", "/nowhere.gguf", "Hi", status=1).stderr)
        self.assertIn("nothing to answer", self.shot("--url", r.url, stdin="\n", status=1).stderr)
        self.assertIn("UTF-8", subprocess.run([GALLEY, "run", "--url", r.url], input=b"\xff", capture_output=True).stderr.decode())
        for wrong in (["--bogus"], ["--url"], ["--threads"], ["a", "b"], ["--field", "x"]):
            self.assertIn(wrong[-1], self.shot(*wrong, status=2).stderr)
        self.assertIn("--threads", self.shot("--url", r.url, "--threads", "1", "Hi", status=1).stderr)

    def test_own_server(self):
        """A model file, served for one answer: the same text as over HTTP."""
        s = Server(GALLEY, "--model", MODEL)
        whole = s.ok("/v1/chat/completions", {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 30, "temperature": 0})
        there = self.shot("--url", f"http://127.0.0.1:{s.port}", "--max-tokens", "30", "--temperature", "0", "Tell me a story.").stdout
        s.stop()
        keep_out = {"GALLEY_API_KEY": "a,b", "GALLEY_TLS_CERT": "/nowhere", "GALLEY_UNIX_SOCKET": "/nowhere/socket", "GALLEY_PORT": "1"}
        done = self.shot("--model", MODEL, "--threads", "1", "--max-tokens", "30", "--temperature", "0", "Tell me a story.", env=keep_out)
        self.assertEqual(done.stdout, whole["choices"][0]["message"]["content"] + "\n")
        self.assertEqual(there, done.stdout)
        self.assertEqual(done.stderr, "")
        self.assertEqual(self.run_folders(), [])

    def test_interrupted(self):
        s = fake(step_us=20000)
        p = subprocess.Popen([GALLEY, "run", "--url", f"http://127.0.0.1:{s.port}", "--field", "ignore_eos=true", "Hi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.assertTrue(p.stdout.read(1))
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=10)
        self.assertEqual(p.returncode, 130)
        s.until(lambda: s.metric("vllm:num_requests_running") == 0, "the request's end", 5)
        s.stop()


class AtTheTerminal(Base):
    def test_conversation(self):
        r = self.recorder()
        t = self.terminal("--url", r.url, "--system", "S")
        t.until("> ")
        t.type("Räksmörgås 🦊\r")
        t.until("Hello there.")
        t.until("> ")
        t.type("and\b\b\b\b\bnext\r")
        t.until("Hello there.")
        t.until("> ")
        said = [(m["role"], m["content"]) for m in r.asked[-1][1]["messages"]]
        self.assertEqual(said, [("system", "S"), ("user", "Räksmörgås 🦊"), ("assistant", "Hello there."), ("user", "next")])
        for line, after in (("/clear", [("system", "S"), ("user", "x")]), ("/system T", [("system", "T"), ("user", "x")])):
            t.ask(line)
            t.until("> ")
            t.ask("x")
            t.until("Hello there.")
            t.until("> ")
            self.assertEqual([(m["role"], m["content"]) for m in r.asked[-1][1]["messages"]], after)
        t.ask("/bogus")
        t.until("no such command")
        t.until("> ")
        t.type("\r\r")  # nothing is asked
        t.type('"""first\r')
        t.until(". ")
        t.type('second\r')
        t.until(". ")
        t.type('third"""\r')
        t.until("Hello there.")
        self.assertEqual(r.asked[-1][1]["messages"][-1]["content"], "first\nsecond\nthird")
        t.until("> ")
        n = len(r.asked)
        t.type("\x04")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(len(r.asked), n)

    def test_exit(self):
        r = self.recorder()
        t = self.terminal("--url", r.url)
        t.until("> ")
        t.type("/exit\r")
        self.assertEqual(t.wait(), 0)

    def test_errors_do_not_end_it(self):
        r = self.recorder()
        r.status = 429
        t = self.terminal("--url", r.url)
        t.until("> ")
        t.type("one\r")
        t.until("No, thank you. (status 429)")
        t.until("> ")
        r.status = 200
        t.type("two\r")
        t.until("Hello there.")
        self.assertEqual([m["content"] for m in r.asked[-1][1]["messages"]], ["two"])
        t.until("> ")
        t.type("\x04")
        self.assertEqual(t.wait(), 0)

    def test_terminal_is_not_told_to_do_things(self):
        r = self.recorder()
        r.pieces = ["\x1b]0;owned\x07", "\x1b[2Jtext \u009b31m", "\x7f\x08end"]
        t = self.terminal("--url", r.url)
        t.until("> ")
        t.type("x\r")
        end = time.monotonic() + 20
        while b"end" not in t.raw and time.monotonic() < end:
            t.read(0.1)
        self.assertIn(b"]0;owned[2Jtext 31mend", t.raw)
        t.until("> ")
        t.type("\x04")
        t.wait()

    def test_interrupt_the_answer(self):
        s = fake(step_us=20000)
        t = self.terminal("--url", f"http://127.0.0.1:{s.port}", "--field", "ignore_eos=true")
        t.until("> ")
        for _ in range(3):
            t.ask("go on for long")
            s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
            time.sleep(0.3)
            t.type("\x03")
            t.until("(stopped)", 5)
            t.until("> ")
            s.until(lambda: s.metric("vllm:num_requests_running") == 0, "the request's end", 5)
        t.type("half a line\x03")
        t.until("> ")
        t.type("\x03")
        t.until("> ")
        t.type("\x04")
        self.assertEqual(t.wait(), 0)
        s.stop()

    def test_history_outlives(self):
        r = self.recorder()
        for first, typed in ((True, "remember me"), (False, "\x1b[A"), (False, "\x12ber m\r")):
            t = self.terminal("--url", r.url)
            t.until("> ")
            t.type(typed + "\r")
            t.until("Hello there.")
            self.assertEqual(r.asked[-1][1]["messages"][-1]["content"], "remember me")
            t.until("> ")
            t.type("\x04")
            t.wait()
        file = os.path.join(self.home, ".local/state/galley/history")
        self.assertEqual(os.stat(file).st_mode & 0o777, 0o600)
        state = os.path.join(self.home, "state")
        t = self.terminal("--url", r.url, env={"XDG_STATE_HOME": state})
        t.until("> ")
        t.type("noted\r")
        t.until("Hello there.")  # not the prompt, which the editor may draw again
        t.until("> ")
        t.type("\x04")
        t.wait()
        self.assertTrue(os.path.exists(os.path.join(state, "galley/history")))

    def test_typed_during_an_answer(self):
        """Ctrl-D included, which the line discipline would make a NUL."""
        s = fake(step_us=20000)
        t = self.terminal("--url", f"http://127.0.0.1:{s.port}", "--max-tokens", "30", "--field", "ignore_eos=true")
        t.until("> ")
        t.ask("go on")
        s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
        t.type("/help\r\x04")
        self.assertEqual(t.wait(), 0)
        self.assertIn("/clear forgets the chat", t.seen)
        s.stop()

    def test_resized(self):
        r = self.recorder()
        t = self.terminal("--url", r.url)
        t.until("> ")
        t.type("a longer line that will ")
        fcntl.ioctl(t.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
        time.sleep(0.2)
        t.type("be wrapped\r")
        t.until("Hello there.")
        self.assertEqual(r.asked[-1][1]["messages"][-1]["content"], "a longer line that will be wrapped")
        t.until("> ")
        t.type("\x04")
        self.assertEqual(t.wait(), 0)

    def test_stopped_and_continued(self):
        r = self.recorder()
        t = self.terminal("--url", r.url)
        t.until("> ")
        t.type("abc")
        time.sleep(0.2)
        os.kill(t.pid, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(t.pid, signal.SIGCONT)
        time.sleep(0.2)
        t.type("\x1a")  # there is no shell that could continue it: it goes on
        time.sleep(0.2)
        t.type("def\r")
        t.until("Hello there.")
        self.assertEqual(r.asked[-1][1]["messages"][-1]["content"], "abcdef")
        t.until("> ")
        t.type("\x04")
        self.assertEqual(t.wait(), 0)

    def test_stopped_by_a_shell(self):
        """Ctrl-Z gives the shell its terminal back, fg goes on with the line."""
        r = self.recorder()
        t = Terminal("--url", r.url, home=self.home, shell=True)
        t.until("> ")
        t.type("abc")
        t.until("abc")  # or the terminal forgets it with Ctrl-Z
        t.type("\x1a")
        t.until("Stopped")
        t.type("fg\r")
        t.until("> ")
        t.type("def\r")
        self.assertNotIn("> ", t.until("Hello there."))  # drawn once
        self.assertEqual(r.asked[-1][1]["messages"][-1]["content"], "abcdef")
        t.until("> ")
        t.type("\x04")
        time.sleep(0.2)
        t.type("exit\r")
        self.assertEqual(t.wait(), 0)

    def own(self):
        t = self.terminal("--model", MODEL, "--threads", "1", "--decoding", "off", "--field", "ignore_eos=true")
        t.until("> ")
        return t, children(t.pid)[0]

    def test_own_server(self):
        t, server = self.own()
        for question in ("Tell me a story about a fox.", "What is 2 plus 3?"):
            t.ask(question)
            time.sleep(0.1)  # of the second that the whole context takes
            t.type("\x03")
            t.until("(stopped)\r\n")
            t.until("> ")
            self.assertTrue(is_there(server))
        t.type("\x04")
        self.assertEqual(t.wait(), 0)
        self.assertFalse(is_there(server))
        self.assertEqual(self.run_folders(), [])

    def test_ends_with_its_terminal(self):
        for how in ("hangup", "term", "kill"):
            t, server = self.own()
            if how == "hangup":
                os.close(t.fd)
            else:
                os.kill(t.pid, signal.SIGTERM if how == "term" else signal.SIGKILL)
            os.waitpid(t.pid, 0)
            end = time.monotonic() + 10
            while is_there(server) and time.monotonic() < end:
                time.sleep(0.02)
            self.assertFalse(is_there(server), how)
            if how == "kill":  # nobody was left to remove it
                left, = self.run_folders()
                os.rmdir(os.path.join(self.home, left))
            else:
                self.assertEqual(self.run_folders(), [], how)


class Health(Base):
    def health(self, *flags, status=0, env=None):
        done = subprocess.run([GALLEY, "health", *flags], capture_output=True, text=True, timeout=30, env={**os.environ, **(env or {})})
        self.assertEqual(done.returncode, status, done)
        return done.stdout + done.stderr

    def test_port(self):
        s = fake()
        url = f"http://127.0.0.1:{s.port}"
        self.assertEqual(self.health("--url", url), "ok\n")
        self.assertEqual(self.health("--ready", env={"GALLEY_URL": url}), "ok\n")
        s.stop()
        self.assertIn(url, self.health("--url", url, status=1))

    def test_broken(self):
        s = fake(step_us=1000)
        s.process.send_signal(signal.SIGUSR1)
        threading.Thread(target=lambda: s.post("/v1/completions", {"prompt": "x", "max_tokens": 1000, "ignore_eos": True}), daemon=True).start()
        s.until(lambda: self.health_status(s) != 0, "an unhealthy answer", 10)
        s.process.wait(20)

    def health_status(self, s):
        return subprocess.run([GALLEY, "health", "--url", f"http://127.0.0.1:{s.port}"], capture_output=True).returncode

    def test_unix_and_tls(self):
        path, cert, key = (os.path.join(self.home, name) for name in ("s", "crt", "key"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-addext",
                        "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
        s = fake("--unix-socket", path)
        self.assertEqual(self.health("--unix-socket", path), "ok\n")
        self.assertEqual(self.health(env={"GALLEY_UNIX_SOCKET": path}), "ok\n")
        s.stop()
        self.assertIn("galley health: ", self.health("--unix-socket", path, status=1))
        s = fake("--tls-cert", cert, "--tls-key", key)
        url = f"https://localhost:{s.port}"
        self.assertEqual(self.health("--url", url, "--ca-file", cert), "ok\n")
        self.assertEqual(self.health("--url", url, "--insecure"), "ok\n")
        self.assertIn("certificate", self.health("--url", url, status=1))
        self.assertEqual(self.shot("--url", url, "--ca-file", cert, "--max-tokens", "3", "Hi").stderr, "")
        s.stop()

    def test_slow(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            began = time.monotonic()
            self.health("--url", f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "1", status=1)
            self.assertLess(time.monotonic() - began, 5)

    def test_wrong(self):
        for wrong in (["--bogus"], ["--url"], ["--timeout", "x"], ["--timeout", "0"]):
            self.assertIn(wrong[0], self.health(*wrong, status=2))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
