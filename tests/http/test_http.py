"""The real server over HTTP, on the fake back end.

    python3 tests/http/test_http.py GALLEY_FAKE MODEL [unittest arguments]
"""
import json
import os
import signal
import sys
import threading
import time
import unittest

from harness import Server

FAKE, MODEL = sys.argv[1:3]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def fake(*flags, **kw):
    return Server(FAKE, "--model", MODEL, *flags, **kw)


def say(text, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 12, "temperature": 0, **more}


class Shared(unittest.TestCase):
    """One fake server for all tests of a class."""
    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.s = fake(*cls.flags)

    @classmethod
    def tearDownClass(cls):
        cls.s.until(lambda: cls.s.metric("vllm:num_requests_running") == 0, "an idle server")
        cls.s.stop()

    def refused(self, path, body, status, param=None, code=None):
        got, answer = self.s.post(path, body)
        error = answer["error"]
        self.assertEqual(got, status, answer)
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertTrue(error["message"])
        if param:
            self.assertEqual(error["param"], param, answer)
        if code:
            self.assertEqual(error["code"], code, answer)


class Answers(Shared):
    def test_completion(self):
        a = self.s.ok(TEXT, {"prompt": "The fox", "max_tokens": 7, "temperature": 0, "model": "galley-demo"})
        self.assertEqual(a["object"], "text_completion")
        self.assertEqual(a["usage"]["completion_tokens"], 7)
        self.assertEqual(a["usage"]["total_tokens"], 7 + a["usage"]["prompt_tokens"])
        self.assertEqual(a["choices"][0]["finish_reason"], "length")
        self.assertIsNone(a["choices"][0]["logprobs"])

    def test_default_max_tokens(self):
        self.assertEqual(self.s.ok(TEXT, {"prompt": "x", "ignore_eos": True})["usage"]["completion_tokens"], 16)
        a = self.s.ok(CHAT, {"messages": [{"role": "user", "content": "x"}], "ignore_eos": True})
        self.assertEqual(a["usage"]["total_tokens"], 2048)

    def test_chat(self):
        a = self.s.ok(CHAT, say("hello"))
        message = a["choices"][0]["message"]
        self.assertEqual((a["object"], message["role"], message["refusal"]), ("chat.completion", "assistant", None))
        self.assertTrue(message["content"])

    def test_content_parts_and_developer(self):
        whole = self.s.ok(CHAT, {**say(""), "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b\nc"}]})
        parts = self.s.ok(CHAT, {**say(""), "messages": [{"role": "developer", "content": "a"},
                                                         {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]}]})
        self.assertEqual(whole["choices"][0]["message"], parts["choices"][0]["message"])

    def test_stream_equals_whole(self):
        for path, body in ((TEXT, {"prompt": "Räksmörgås 🦊", "max_tokens": 60, "seed": 5, "ignore_eos": True}),
                           (CHAT, say("hi", max_tokens=60, temperature=1, seed=3, ignore_eos=True))):
            whole = self.s.ok(path, body)["choices"][0]
            chunks = self.s.stream(path, body)
            choices = [c["choices"][0] for c in chunks]
            text = "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)
            self.assertEqual(text, whole["text"] if path == TEXT else whole["message"]["content"])
            self.assertEqual(len({c["id"] for c in chunks}), 1)
            self.assertEqual([c["finish_reason"] for c in choices[:-1]], [None] * (len(choices) - 1))
            self.assertEqual(choices[-1]["finish_reason"], "length")
            self.assertTrue(all("error" not in c for c in chunks))

    def test_chat_stream_shape(self):
        chunks = self.s.stream(CHAT, say("hi", n=2))
        roles = [c["choices"][0]["delta"].get("role") for c in chunks]
        self.assertEqual(roles[:2], ["assistant", "assistant"])
        self.assertEqual(set(roles[2:]), {None})
        self.assertEqual({c["choices"][0]["index"] for c in chunks}, {0, 1})
        self.assertTrue(all(c["object"] == "chat.completion.chunk" for c in chunks))
        self.assertEqual(chunks[-1]["choices"][0]["delta"], {})

    def test_usage_in_stream(self):
        chunks = self.s.stream(TEXT, {"prompt": "x", "max_tokens": 3, "ignore_eos": True, "stream_options": {"include_usage": True}})
        self.assertEqual(chunks[-1]["choices"], [])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], 3)
        self.assertTrue(all(c["usage"] is None for c in chunks[:-1]))
        self.assertTrue(all("usage" not in c for c in self.s.stream(TEXT, {"prompt": "x", "max_tokens": 3})))

    def test_several_prompts_and_choices(self):
        a = self.s.ok(TEXT, {"prompt": ["one", "two", "three"], "n": 2, "max_tokens": 5, "seed": 1})
        self.assertEqual([c["index"] for c in a["choices"]], list(range(6)))
        b = self.s.ok(TEXT, {"prompt": "two", "n": 2, "max_tokens": 5, "seed": 1})
        self.assertEqual([c["text"] for c in a["choices"][2:4]], [c["text"] for c in b["choices"]])
        self.assertNotEqual(a["choices"][0]["text"], a["choices"][1]["text"])

    def test_token_ids_as_prompt(self):
        ids = self.s.ok("/tokenize", {"prompt": "The old fox"})["tokens"]
        a = self.s.ok(TEXT, {"prompt": ids, "max_tokens": 5, "temperature": 0, "return_token_ids": True})["choices"][0]
        b = self.s.ok(TEXT, {"prompt": "The old fox", "max_tokens": 5, "temperature": 0})["choices"][0]
        self.assertEqual(a["text"], b["text"])
        self.assertEqual(a["prompt_token_ids"], ids)
        self.assertEqual(self.s.ok("/detokenize", {"tokens": a["token_ids"]})["prompt"], a["text"])
        self.assertEqual(len(self.s.ok(TEXT, {"prompt": [ids, ids[:1]], "max_tokens": 1})["choices"]), 2)

    def test_echo_and_logprobs(self):
        a = self.s.ok(TEXT, {"prompt": "The old fox", "max_tokens": 0, "echo": True, "logprobs": 2})["choices"][0]
        lp = a["logprobs"]
        self.assertEqual(a["text"], "The old fox")
        self.assertEqual("".join(lp["tokens"]), "The old fox")
        self.assertIsNone(lp["token_logprobs"][0])
        self.assertTrue(all(x < 0 for x in lp["token_logprobs"][1:]))
        self.assertEqual(lp["text_offset"][1], len(lp["tokens"][0]))
        b = self.s.ok(TEXT, {"prompt": "The old fox", "max_tokens": 4, "echo": True, "logprobs": 2, "temperature": 0})["choices"][0]
        self.assertEqual(b["logprobs"]["token_logprobs"][:len(lp["tokens"])], lp["token_logprobs"])
        self.assertEqual(len(b["logprobs"]["tokens"]), len(lp["tokens"]) + 4)

    def test_chat_logprobs(self):
        a = self.s.ok(CHAT, say("x", logprobs=True, top_logprobs=3, ignore_eos=True))["choices"][0]
        content = a["logprobs"]["content"]
        self.assertEqual(len(content), 12)
        for entry in content:
            self.assertEqual(len(entry["top_logprobs"]), 3)
            self.assertEqual(entry["top_logprobs"][0]["logprob"], entry["logprob"])  # greedy
        text = b"".join(bytes(e["bytes"]) for e in content).decode(errors="replace")
        self.assertEqual(text, a["message"]["content"])

    def test_prompt_logprobs(self):
        a = self.s.ok(TEXT, {"prompt": "The old fox", "max_tokens": 1, "prompt_logprobs": 1})["choices"][0]["prompt_logprobs"]
        ids = self.s.ok("/tokenize", {"prompt": "The old fox"})["tokens"]
        self.assertIsNone(a[0])
        for i in range(1, len(ids)):
            self.assertIn(str(ids[i]), a[i])
            self.assertTrue(all(v["logprob"] <= 0 and v["rank"] >= 1 for v in a[i].values()))

    def test_stop_strings_and_ids(self):
        body = {"prompt": "x", "max_tokens": 40, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        whole = self.s.ok(TEXT, body)["choices"][0]
        stop = whole["text"][10:14]
        cut = self.s.ok(TEXT, {**body, "stop": [stop, "never to be seen"]})["choices"][0]
        self.assertEqual(cut["text"], whole["text"][:whole["text"].index(stop)])
        self.assertEqual((cut["finish_reason"], cut["stop_reason"]), ("stop", stop))
        kept = self.s.ok(TEXT, {**body, "stop": stop, "include_stop_str_in_output": True})["choices"][0]
        self.assertEqual(kept["text"], cut["text"] + stop)
        by_id = self.s.ok(TEXT, {**body, "stop_token_ids": [whole["token_ids"][5]]})["choices"][0]
        self.assertEqual(by_id["stop_reason"], whole["token_ids"][5])
        self.assertEqual(by_id["token_ids"], whole["token_ids"][:whole["token_ids"].index(whole["token_ids"][5]) + 1])
        streamed = "".join(c["choices"][0]["text"] for c in self.s.stream(TEXT, {**body, "stop": stop}))
        self.assertEqual(streamed, cut["text"])

    def test_logit_bias(self):
        a = self.s.ok(TEXT, {"prompt": "x", "max_tokens": 5, "logit_bias": {"77": 100}, "return_token_ids": True, "ignore_eos": True})
        self.assertEqual(a["choices"][0]["token_ids"], [77] * 5)
        b = self.s.ok(TEXT, {"prompt": "x", "max_tokens": 1, "temperature": 0, "return_token_ids": True})["choices"][0]["token_ids"][0]
        c = self.s.ok(TEXT, {"prompt": "x", "max_tokens": 1, "temperature": 0, "return_token_ids": True, "logit_bias": {str(b): -100}})
        self.assertNotEqual(c["choices"][0]["token_ids"][0], b)

    def test_best_of(self):
        body = {"prompt": "x", "max_tokens": 6, "seed": 4, "logprobs": 0}
        many = self.s.ok(TEXT, {**body, "n": 4})["choices"]
        best = self.s.ok(TEXT, {**body, "n": 1, "best_of": 4})["choices"]
        score = lambda c: sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["tokens"])
        self.assertEqual(len(best), 1)
        self.assertEqual(best[0]["text"], max(many, key=score)["text"])

    def test_seed_under_load(self):
        body = {"prompt": "seeded", "max_tokens": 50, "temperature": 1, "seed": 11}
        alone = self.s.ok(TEXT, body)["choices"][0]["text"]
        results, noise = [], [threading.Thread(target=lambda i=i: self.s.ok(TEXT, {"prompt": f"noise {i}", "max_tokens": 60})) for i in range(8)]
        for t in noise:
            t.start()
        for _ in range(3):
            results.append(self.s.ok(TEXT, body)["choices"][0]["text"])
        for t in noise:
            t.join()
        self.assertEqual(results, [alone] * 3)

    def test_cached_tokens(self):
        prompt = "A long prompt that is asked twice. " * 20
        first = self.s.ok(TEXT, {"prompt": prompt, "max_tokens": 1, "cache_salt": "t"})["usage"]
        second = self.s.ok(TEXT, {"prompt": prompt, "max_tokens": 1, "cache_salt": "t"})["usage"]
        other = self.s.ok(TEXT, {"prompt": prompt, "max_tokens": 1, "cache_salt": "u"})["usage"]
        self.assertEqual(first["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertGreater(second["prompt_tokens_details"]["cached_tokens"], second["prompt_tokens"] - 17)
        self.assertEqual(other["prompt_tokens_details"]["cached_tokens"], 0)

    def test_long_prompt_goes_through_the_pool(self):
        status, a = self.s.post(TEXT, {"prompt": "word " * 20000, "max_tokens": 1})
        self.assertEqual((status, a["error"]["code"]), (400, "context_length_exceeded"))

    def test_fill_in_the_middle(self):
        a = self.s.ok(TEXT, {"prompt": "def f(x):", "suffix": "return y", "max_tokens": 2, "return_token_ids": True})["choices"][0]
        ids = a["prompt_token_ids"]
        text = self.s.ok("/detokenize", {"tokens": ids})["prompt"]
        self.assertTrue(text.index("prefix") < text.index("def f") < text.index("suffix") < text.index("return y") < text.index("middle"))


class BadInput(Shared):
    def test_bodies(self):
        for raw in (b"", b"{", b"[]", b"null", b'"x"', b"[" * 100000, b'{"prompt": "\xff"}', b'{"prompt": "a\\u0000b"}', b'{"prompt": 1e999}',
                    b"{\"prompt\": \"x\"", b"\x00", b'{"prompt":"x"} trailing'):
            status, _, data = self.s.request("POST", TEXT, raw)
            self.assertEqual(status, 400, raw[:40])
            self.assertEqual(json.loads(data)["error"]["type"], "invalid_request_error")

    def test_fields(self):
        for field, values in {"temperature": [-1, "1", [], 1e9], "top_p": [0, 1.1, True], "top_k": [-2, 0.5], "min_p": [-0.1, 2], "n": [0, 1000, "2"],
                              "max_tokens": [-1, "x", 1.5], "min_tokens": [-1, 30], "presence_penalty": [3], "frequency_penalty": [-3],
                              "repetition_penalty": [0], "seed": ["x", 1.5], "stop": [5, [5], [""], ""], "stop_token_ids": [5, ["a"], [-1], [10**6]],
                              "logit_bias": [[], {"x": 1}, {"1": "a"}, {"1": 101}, {"999999": 1}], "logprobs": [21, -1, "a"], "stream": ["yes", 1],
                              "stream_options": [{"include_usage": True}, 3], "priority": ["high"], "timeout": [-1, "x"], "echo": ["a"], "best_of": [0, "x"],
                              "top_h": [2], "top_h_mode": ["x"], "typical_p": [0], "cache_salt": ["", 5], "model": [5]}.items():
            for value in values:
                with self.subTest(field=field, value=value):
                    self.refused(TEXT, {"prompt": "x", "max_tokens": 16, field: value}, 400, field)

    def test_prompts(self):
        for prompt in (None, 5, {}, [], [""], [[]], ["a", 5], [1, "a"], [[1], "a", {}], [-1], [10**9], [1.5]):
            with self.subTest(prompt=prompt):
                self.refused(TEXT, {"prompt": prompt}, 400, "prompt")

    def test_messages(self):
        for messages in (None, [], "x", [5], [{}], [{"role": "user"}], [{"role": 5, "content": "x"}], [{"role": "user", "content": 5}],
                         [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]):
            with self.subTest(messages=messages):
                self.refused(CHAT, {"messages": messages}, 400, "messages")
        self.refused(CHAT, say("x", top_logprobs=2), 400, "top_logprobs")
        self.refused(CHAT, say("x", response_format={"type": "json_object"}), 400, "response_format")
        self.refused(CHAT, say("x", tool_choice="required"), 400, "tool_choice")

    def test_null_means_absent(self):
        names = ("temperature", "top_p", "n", "max_tokens", "stop", "seed", "logit_bias", "logprobs", "stream", "stream_options", "user", "presence_penalty")
        self.s.ok(TEXT, {"prompt": "x", **dict.fromkeys(names)})

    def test_ignored_fields(self):
        self.s.ok(CHAT, say("x", store=True, metadata={}, user="u", service_tier="auto", reasoning_effort="low", modalities=["text"], anything=1))

    def test_too_long(self):
        self.refused(TEXT, {"prompt": "x", "max_tokens": 5000}, 400, "max_tokens", "context_length_exceeded")
        self.refused(TEXT, {"prompt": [5] * 3000}, 400, "prompt", "context_length_exceeded")
        self.refused(CHAT, say("word " * 3000), 400, "messages", "context_length_exceeded")

    def test_unknown_model_route_method(self):
        self.refused(TEXT, {"prompt": "x", "model": "gpt-5"}, 404, "model", "model_not_found")
        self.refused("/v1/nothing", {}, 404)
        for method, path, status in (("GET", TEXT, 405), ("DELETE", "/v1/models", 405), ("PUT", "/health", 405), ("GET", "/", 404)):
            got, headers, data = self.s.request(method, path)
            self.assertEqual(got, status)
            self.assertEqual(json.loads(data)["error"]["type"].split("_")[-1], "error")
            self.assertEqual(status == 405, "allow" in headers)


class Plumbing(Shared):
    flags = ("--api-key", "secret,other", "--max-body", "64KiB", "--idle-timeout", "1", "--served-model-name", "org/name")
    key = {"Authorization": "Bearer other"}

    def test_keys(self):
        for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 401), ({"Authorization": "Bearer secre"}, 401), (self.key, 200),
                                ({"x-api-key": "secret"}, 200)):
            got, out, data = self.s.request("POST", TEXT, {"prompt": "x", "max_tokens": 1}, headers)
            self.assertEqual(got, status)
            self.assertIn("access-control-allow-origin", out)
        for path in ("/health", "/ready", "/version", "/metrics"):
            self.assertEqual(self.s.request("GET", path)[0], 200, path)

    def test_models(self):
        status, _, data = self.s.request("GET", "/v1/models", headers=self.key)
        model = json.loads(data)["data"][0]
        self.assertEqual((status, model["id"], model["object"], model["max_model_len"]), (200, "org/name", "model", 2048))
        for path in ("/v1/models/org/name", "/v1/models/org%2Fname", "/models/org/name/"):
            self.assertEqual(self.s.request("GET", path, headers=self.key)[0], 200, path)
        self.assertEqual(self.s.request("GET", "/v1/models/x", headers=self.key)[0], 404)

    def test_preflight(self):
        status, headers, _ = self.s.request("OPTIONS", CHAT, headers={"Origin": "http://a", "Access-Control-Request-Headers": "authorization,x-stainless-os"})
        self.assertEqual(status, 204)
        self.assertEqual(headers["access-control-allow-headers"], "authorization,x-stainless-os")
        self.assertIn("POST", headers["access-control-allow-methods"])

    def test_request_id(self):
        self.assertEqual(self.s.request("GET", "/health", headers={"x-request-id": "abc-1"})[1]["x-request-id"], "abc-1")
        made = self.s.request("GET", "/health", headers={"x-request-id": "bad id\x7f"})[1]["x-request-id"]
        self.assertEqual(len(made), 32)

    def test_body_limit(self):
        status, headers, data = self.s.request("POST", TEXT, {"prompt": "x" * 70000}, self.key)
        self.assertEqual((status, headers["x-should-retry"]), (413, "false"))
        self.assertEqual(self.s.request("POST", TEXT, b"x", {**self.key, "Content-Encoding": "gzip"})[0], 415)

    def test_chunked_body_over_the_limit(self):
        with self.s.connect() as c:
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer other\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(100):
                    c.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                self.assertEqual(c.recv(100), b"")
            except OSError:
                pass  # closed under our hands, as it should be
        self.assertEqual(self.s.request("GET", "/health")[0], 200)

    def test_headers_too_large(self):
        with self.s.connect() as c:
            try:
                c.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(100)) + b"\r\n")
                answer = c.recv(1000)
                self.assertTrue(answer == b"" or b" 431 " in answer.split(b"\r\n")[0] or b" 413 " in answer.split(b"\r\n")[0], answer)
            except OSError:
                pass
        self.assertEqual(self.s.request("GET", "/health")[0], 200)

    def test_slow_and_half_requests_are_closed(self):
        half, slow = self.s.connect(), self.s.connect()
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer other\r\nContent-Length: 100\r\n\r\n{")
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        start = time.monotonic()
        closed = False
        while not closed and time.monotonic() - start < 15:
            try:
                slow.sendall(b"X")
                time.sleep(0.2)
                slow.settimeout(0.01)
                closed = slow.recv(10) == b""
            except TimeoutError:
                pass
            except OSError:
                closed = True
        self.assertTrue(closed, "a connection that dribbles was never closed")
        half.settimeout(10)
        self.assertIn(half.recv(1000)[:12], (b"", b"HTTP/1.1 408"))

    def test_garbage(self):
        for raw in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\r\n\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", os.urandom(300)):
            with self.s.connect() as c:
                c.sendall(raw)
                c.settimeout(4)
                try:
                    c.recv(1000)
                except OSError:
                    pass
        self.assertEqual(self.s.request("GET", "/health")[0], 200)

    def test_pipelining_and_head(self):
        with self.s.connect() as c:
            c.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * 2 + b"HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := c.recv(4096):
                data += piece
        self.assertEqual(data.count(b"HTTP/1.1 200"), 3)
        self.assertEqual(data.count(b'{"status":"ok"}'), 2)


class Lives(unittest.TestCase):
    def test_client_that_leaves_is_canceled(self):
        s = fake("--max-seqs", "1", env={"GALLEY_FAKE_STEP_US": "20000"})
        raw = lambda stream: b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(stream) + stream
        running = s.connect()
        running.sendall(raw(json.dumps({"prompt": "x", "max_tokens": 2000, "stream": True, "ignore_eos": True}).encode()))
        running.recv(1000)
        waiting = s.connect()
        waiting.sendall(raw(json.dumps({"prompt": "y", "max_tokens": 2000, "ignore_eos": True}).encode()))
        s.until(lambda: s.metric("vllm:num_requests_waiting") == 1, "a waiting request")
        waiting.close()
        s.until(lambda: s.metric("vllm:num_requests_waiting") == 0, "the queued request canceled")
        running.close()
        s.until(lambda: s.metric("vllm:num_requests_running") == 0, "the running request canceled")
        s.stop()

    def test_full_queue_answers_429(self):
        s = fake("--max-seqs", "1", "--max-queue", "2", env={"GALLEY_FAKE_STEP_US": "20000"})
        results = []
        ask = lambda: results.append(s.request("POST", TEXT, {"prompt": "x", "max_tokens": 20, "ignore_eos": True}))
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        status = sorted(r[0] for r in results)
        self.assertIn(429, status)
        self.assertIn(200, status)
        refused = next(r for r in results if r[0] == 429)
        self.assertEqual(refused[1]["retry-after"], "1")
        self.assertEqual(json.loads(refused[2])["error"]["code"], "rate_limit_exceeded")
        s.stop()

    def test_sigterm_drains(self):
        s = fake(env={"GALLEY_FAKE_STEP_US": "10000"})
        result = []
        t = threading.Thread(target=lambda: result.append(s.request("POST", TEXT, {"prompt": "x", "max_tokens": 100, "ignore_eos": True})))
        t.start()
        s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
        s.process.send_signal(signal.SIGTERM)
        s.until(lambda: s.request("GET", "/ready")[0] == 503, "draining")
        status, headers, _ = s.request("POST", TEXT, {"prompt": "late"})
        self.assertEqual(status, 503)
        self.assertIn("retry-after", headers)
        t.join()
        self.assertEqual(result[0][0], 200)
        self.assertEqual(json.loads(result[0][2])["usage"]["completion_tokens"], 100)
        s.stop()

    def test_second_signal_stops_at_once(self):
        s = fake(env={"GALLEY_FAKE_STEP_US": "50000"})
        result = []
        t = threading.Thread(target=lambda: result.append(s.request("POST", TEXT, {"prompt": "x", "max_tokens": 1500, "ignore_eos": True})))
        t.start()
        s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        start = time.monotonic()
        s.stop()
        self.assertLess(time.monotonic() - start, 10)
        t.join()
        self.assertEqual(result[0][0], 503)

    def test_broken_device(self):
        s = fake("--max-seqs", "2", env={"GALLEY_FAKE_STEP_US": "20000"})
        results = []
        ask = lambda: results.append(s.post(TEXT, {"prompt": "x", "max_tokens": 1000, "ignore_eos": True}))
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads:
            t.start()
        s.until(lambda: s.metric("vllm:num_requests_running") == 2 and s.metric("vllm:num_requests_waiting") == 2, "two run, two wait")
        self.assertEqual(s.request("GET", "/health")[0], 200)
        s.process.send_signal(signal.SIGUSR1)
        for t in threads:
            t.join()
        for status, a in results:
            self.assertEqual((status, a["error"]["type"]), (500, "server_error"))
        self.assertEqual(len(results), 4)
        self.assertEqual(s.request("GET", "/health")[0], 500)
        self.assertEqual(s.request("GET", "/ready")[0], 503)
        status, a = s.post(TEXT, {"prompt": "x"})
        self.assertEqual(status, 503)
        self.assertIn("failed", a["error"]["message"])
        self.assertEqual(s.process.wait(20), 75)

    def test_stream_that_breaks_says_so(self):
        s = fake()
        s.process.send_signal(signal.SIGUSR1)
        _, _, data = s.request("POST", TEXT, {"prompt": "x", "max_tokens": 100, "ignore_eos": True, "stream": True})
        last = data.decode().rstrip("\n").split("\n\n")[-1]
        self.assertIn("error", json.loads(last[6:]))
        s.process.wait(20)

    def test_deadline(self):
        s = fake(env={"GALLEY_FAKE_STEP_US": "20000"})
        a = s.ok(TEXT, {"prompt": "x", "max_tokens": 1000, "ignore_eos": True, "timeout": 0.5})
        self.assertEqual(a["choices"][0]["finish_reason"], "length")
        self.assertLess(a["usage"]["completion_tokens"], 60)
        s.stop()

    def test_pings(self):
        s = fake("--ping-interval", "1", "--max-seqs", "1", env={"GALLEY_FAKE_STEP_US": "30000"})
        t = threading.Thread(target=lambda: s.ok(TEXT, {"prompt": "x", "max_tokens": 100, "ignore_eos": True}))
        t.start()
        s.until(lambda: s.metric("vllm:num_requests_running") == 1, "a running request")
        _, _, data = s.request("POST", CHAT, say("y", stream=True))
        t.join()
        self.assertIn(b"\n\n:\n\n", data)
        self.assertTrue(data.endswith(b"data: [DONE]\n\n"))
        s.stop()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
