"""Answers composed of several children: votes and navigation over HTTP.

    python3 tests/http/test_compose.py GALLEY GALLEY_FAKE TARGET [unittest arguments]
"""
import collections
import json
import re
import signal
import sys
import threading
import time
import unittest

from harness import Server, together

GALLEY, FAKE, TARGET = sys.argv[1:4]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SUM = {"messages": [{"role": "user", "content": "Anna has 54 apples and gets 38 more. How many apples does she have?"}],
       "max_tokens": 80, "temperature": 1.8, "seed": 11}


def vote(**more):
    return {"strategy": "vote", **more}


def navigate(**more):
    return {"strategy": "navigate", **more}


def content(choice):
    return choice["message"]["content"] if "message" in choice else choice["text"]


def last_number(text):
    """The rule for plain numbers: of the last line that is not blank."""
    lines = [line for line in text.split("\n") if line.strip()]
    found = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?|\d+", lines[-1]) if lines else []
    return str(int(found[-1])) if found and re.fullmatch(r"-?\d+", found[-1]) else found[-1] if found else None


def idle(s):
    s.until(lambda: s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0, "an idle server")


def fake(*flags, step_us=0):
    return Server(FAKE, "--model", TARGET, *flags, env={"GALLEY_FAKE_STEP_US": str(step_us)})


class OnTheDemoModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server(GALLEY, "--model", TARGET, "--threads", "2")

    @classmethod
    def tearDownClass(cls):
        cls.s.stop()

    # ---- vote ----

    def check_ballot(self, a, samples):
        d = a["decoding"]
        self.assertEqual((d["strategy"], d["samples"], d["guarantee"]), ("vote", samples, "approximate"))
        self.assertEqual(len(a["choices"]), 1)
        self.assertEqual(a["choices"][0]["index"], 0)
        counts = [v["votes"] for v in d["votes"]]
        self.assertEqual(counts, sorted(counts, reverse=True))
        self.assertEqual(d["winner"], d["votes"][0]["answer"] if d["votes"] else None)
        self.assertEqual(len({v["answer"] for v in d["votes"]}), len(d["votes"]))
        return d

    def test_the_majority_of_the_samples(self):
        samples = self.s.ok(CHAT, {**SUM, "n": 12})
        answers = [last_number(content(c)) for c in samples["choices"]]
        a = self.s.ok(CHAT, {**SUM, "decoding": vote(samples=12)})
        d = self.check_ballot(a, 12)
        counts = collections.Counter(x for x in answers if x is not None)
        self.assertEqual({v["answer"]: v["votes"] for v in d["votes"]}, counts)
        self.assertGreater(len(counts), 1, "all samples agree: the test shows little")
        self.assertEqual(sum(counts.values()) + d["unanswered"], 12)
        self.assertEqual(d["votes"][0]["votes"], max(counts.values()))
        self.assertEqual(content(a["choices"][0]), content(samples["choices"][answers.index(d["winner"])]))
        for field in ("prompt_tokens", "completion_tokens"):
            self.assertEqual(a["usage"][field], samples["usage"][field])
        self.assertGreater(d["steps"], 0)

    def test_the_most_complex_of_the_samples(self):
        samples = [content(c) for c in self.s.ok(CHAT, {**SUM, "n": 12})["choices"]]
        steps = [sum(bool(line.strip()) for line in text.split("\n")) for text in samples]
        able = [i for i in range(12) if last_number(samples[i]) is not None]
        voters = sorted(able, key=lambda i: (-steps[i], i))[:5]
        d = self.check_ballot(self.s.ok(CHAT, {**SUM, "decoding": vote(samples=12, by="complexity", keep=5)}), 12)
        self.assertEqual(d["keep"], 5)
        self.assertEqual({v["answer"]: v["votes"] for v in d["votes"]}, collections.Counter(last_number(samples[i]) for i in voters))
        self.assertEqual(self.s.ok(CHAT, {**SUM, "decoding": vote(samples=9, by="complexity")})["decoding"]["keep"], 5)
        whole = self.s.ok(CHAT, {**SUM, "decoding": vote(samples=12, by="complexity", keep=12)})
        self.assertEqual(whole["decoding"]["votes"], self.s.ok(CHAT, {**SUM, "decoding": vote(samples=12)})["decoding"]["votes"])

    def test_ways_to_find_the_answer(self):
        samples = [content(c) for c in self.s.ok(CHAT, {**SUM, "n": 6})["choices"]]
        d = self.check_ballot(self.s.ok(CHAT, {**SUM, "decoding": vote(samples=6, answer="text")}), 6)
        self.assertEqual(sum(v["votes"] for v in d["votes"]), 6)
        self.assertEqual({v["answer"] for v in d["votes"]}, {text.strip() for text in samples})
        d = self.check_ballot(self.s.ok(CHAT, {**SUM, "decoding": vote(samples=6, answer={"after": "Answer:"})}), 6)
        marked = [m[-1].strip() for text in samples if (m := re.findall(r"Answer:(.*)", text)) and m[-1].strip()]
        self.assertEqual({v["answer"]: v["votes"] for v in d["votes"]}, collections.Counter(marked))
        a = self.s.ok(CHAT, {**SUM, "decoding": vote(samples=3, answer={"after": "never said"})})
        self.assertEqual((a["decoding"]["winner"], a["decoding"]["votes"], a["decoding"]["unanswered"]), (None, [], 3))
        self.assertEqual(content(a["choices"][0]), samples[0])

    def test_as_many_requests_as_it_takes(self):
        one = self.s.ok(CHAT, {**SUM, "decoding": vote(samples=10)})
        s = Server(GALLEY, "--model", TARGET, "--threads", "1", "--max-seqs", "3")
        several = s.ok(CHAT, {**SUM, "decoding": vote(samples=10)})
        s.stop()
        self.assertEqual(several["choices"], one["choices"])
        self.assertEqual(several["decoding"]["votes"], one["decoding"]["votes"])
        for field in ("prompt_tokens", "completion_tokens"):
            self.assertEqual(several["usage"][field], one["usage"][field])

    def test_what_goes_with_a_vote(self):
        body = {"prompt": "5 + 6", "max_tokens": 12, "seed": 2, "decoding": "vote"}
        a = self.s.ok(TEXT, {**body, "echo": True, "logprobs": 2, "return_token_ids": True})
        c = a["choices"][0]
        self.assertTrue(c["text"].startswith("5 + 6"))
        self.assertEqual(len(c["logprobs"]["tokens"]), len(c["prompt_token_ids"]) + len(c["token_ids"]))
        self.assertEqual(c["text"][5:], self.s.ok(TEXT, body)["choices"][0]["text"])
        self.assertEqual(len(self.s.ok(TEXT, {**body, "prompt_logprobs": 1})["choices"][0]["prompt_logprobs"]), len(c["prompt_token_ids"]))
        self.assertIsNotNone(self.s.ok(CHAT, {**SUM, "decoding": "vote", "logprobs": True, "top_logprobs": 2})["choices"][0]["logprobs"])
        self.assertEqual(a["decoding"]["samples"], 8)

    def test_a_streamed_vote(self):
        body = {**SUM, "decoding": vote(samples=5), "stream_options": {"include_usage": True}}
        whole = self.s.ok(CHAT, {**SUM, "decoding": vote(samples=5)})
        chunks = self.s.stream(CHAT, body)
        deltas = [c["choices"][0] for c in chunks if c["choices"]]
        self.assertEqual({d["index"] for d in deltas}, {0})
        self.assertEqual(deltas[0]["delta"]["role"], "assistant")
        self.assertEqual("".join(d["delta"].get("content", "") for d in deltas), content(whole["choices"][0]))
        self.assertEqual([d["finish_reason"] for d in deltas], [None, None, whole["choices"][0]["finish_reason"]])
        self.assertEqual(chunks[-1]["decoding"]["votes"], whole["decoding"]["votes"])
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], whole["usage"]["completion_tokens"])

    # ---- navigate ----

    def ids(self, text, special=False):
        return self.s.ok("/tokenize", {"prompt": text, "add_special_tokens": special})["tokens"]

    def test_items_are_greedy_continuations_of_the_likeliest_tokens(self):
        prompt = "Once there was a girl named"
        way = navigate(rounds=1, per_round=6, max_item=7)
        a = self.s.ok(TEXT, {"prompt": prompt, "decoding": way, "return_token_ids": True})
        initial = a["choices"][0]["prompt_token_ids"] + self.ids('\n1. "')
        top = self.s.ok(TEXT, {"prompt": initial, "max_tokens": 1, "temperature": 0, "logprobs": 20})["choices"][0]
        first = self.s.ok(TEXT, {"prompt": initial, "max_tokens": 1, "temperature": 0, "return_token_ids": True})["choices"][0]["token_ids"]
        self.assertEqual(a["choices"][0]["token_ids"][:1], first)
        self.assertGreaterEqual(len(a["choices"]), 4)
        for c in a["choices"]:
            tok, *rest = c["token_ids"]
            self.assertLessEqual(len(c["token_ids"]), 7)
            piece = self.s.ok("/detokenize", {"tokens": [tok]})["prompt"]
            self.assertIn(piece, top["logprobs"]["top_logprobs"][0])
            told = self.s.ok(TEXT, {"prompt": initial + [tok], "max_tokens": 6, "temperature": 0, "stop": '"', "return_token_ids": True})["choices"][0]
            self.assertEqual(told["token_ids"], rest)
            self.assertEqual((piece + told["text"]).strip(), c["text"])
            self.assertEqual((c["finish_reason"], c["stop_reason"]), (told["finish_reason"], told["stop_reason"]))

    def check_navigation(self, a, at_most):
        d = a["decoding"]
        self.assertEqual((d["strategy"], d["guarantee"]), ("navigate", "approximate"))
        texts = [content(c) for c in a["choices"]]
        self.assertEqual([c["index"] for c in a["choices"]], list(range(len(texts))))
        self.assertEqual(len({" ".join(t.lower().split()) for t in texts}), len(texts))
        self.assertEqual(d["found"], len(texts))
        self.assertLessEqual(d["tried"], at_most)
        self.assertLessEqual(d["found"], d["tried"])
        self.assertTrue(all(t and t == t.strip() for t in texts))
        return texts

    def test_rounds_and_feeding_back(self):
        body = {"prompt": "Tell me names.\n"}
        told = self.s.ok(TEXT, {**body, "decoding": navigate(rounds=4, per_round=5, max_item=6)})
        again = self.s.ok(TEXT, {**body, "decoding": navigate(rounds=4, per_round=5, max_item=6)})
        self.assertEqual(told["choices"], again["choices"])
        texts = self.check_navigation(told, 20)
        self.assertEqual(told["decoding"]["rounds"], 4)
        blind = self.s.ok(TEXT, {**body, "decoding": navigate(rounds=4, per_round=5, max_item=6, feed_back=False)})
        self.assertEqual(self.check_navigation(blind, 20)[:4], texts[:4])
        self.assertNotEqual(blind["choices"], told["choices"])
        one = self.s.ok(TEXT, {**body, "decoding": navigate(rounds=1, per_round=20, max_item=6)})
        self.assertEqual([c["text"] for c in one["choices"]], [c["text"] for c in blind["choices"]])
        self.assertGreater(told["usage"]["prompt_tokens_details"]["cached_tokens"], 0)

    def test_far_down_the_ranking(self):
        for feed_back in (True, False):
            a = self.s.ok(TEXT, {"prompt": "Names:\n", "decoding": navigate(rounds=8, per_round=32, max_item=2, feed_back=feed_back)})
            self.check_navigation(a, 256)
            self.assertGreater(a["decoding"]["tried"], 100)  # of the 256 ranked, those whose text is another's with a space are not tried

    def test_navigation_in_a_chat(self):
        body = {"messages": [{"role": "user", "content": "Tell me names."}]}
        a = self.s.ok(CHAT, {**body, "temperature": 0, "max_tokens": 5, "decoding": navigate(rounds=2, per_round=3, item_stop="\n")})
        self.check_navigation(a, 6)
        self.assertTrue(all("\n" not in content(c) for c in a["choices"]))
        chunks = self.s.stream(CHAT, {**body, "max_tokens": 5, "decoding": navigate(rounds=2, per_round=3, item_stop="\n")})
        text, ends = collections.defaultdict(str), collections.Counter()
        for c in (c["choices"][0] for c in chunks if c["choices"]):
            text[c["index"]] += c["delta"].get("content", "")
            ends[c["index"]] += c["finish_reason"] is not None
        self.assertEqual([text[i] for i in sorted(text)], [content(c) for c in a["choices"]])
        self.assertEqual(set(ends.values()), {1})
        for key in ("strategy", "rounds", "tried", "found", "guarantee"):  # steps depend on what drafting cost just then
            self.assertEqual(chunks[-1]["decoding"][key], a["decoding"][key])
        self.assertEqual(len(self.s.ok(CHAT, {**body, "decoding": navigate(rounds=1, per_round=2, max_item=1)})["choices"]), 2)

    def test_banned_tokens_are_not_tried(self):
        body = {"prompt": "Names:\n", "decoding": navigate(rounds=1, per_round=3, max_item=3), "return_token_ids": True}
        first = self.s.ok(TEXT, body)["choices"][0]["token_ids"][0]
        later = self.s.ok(TEXT, {**body, "logit_bias": {str(first): -100}})["choices"]
        self.assertNotIn(first, [i for c in later for i in c["token_ids"]])

    def test_the_context_is_never_exceeded(self):
        for path, body in ((TEXT, {"prompt": "Names: " * 20}), (CHAT, {"messages": [{"role": "user", "content": "Names"}]})):
            s = Server(GALLEY, "--model", TARGET, "--threads", "1", "--ctx", "128")
            a = s.ok(path, {**body, "decoding": navigate(rounds=8, per_round=6, max_item=30)})
            self.check_navigation(a, 48)
            self.assertEqual(a["decoding"]["rounds"], 8)
            status, a = s.post(path, {k: [{"role": "user", "content": "word " * 300}] if k == "messages" else "word " * 300 for k in body} | {"decoding": "navigate"})
            self.assertEqual((status, a["error"]["code"], a["error"]["param"]), (400, "context_length_exceeded", *body))
            s.stop()

    # ---- both ----

    def refused(self, path, body, param, *words):
        status, a = self.s.post(path, {**({"prompt": "a"} if path == TEXT else {"messages": SUM["messages"]}), **body})
        self.assertEqual((status, a["error"]["param"]), (400, param), (body, a))
        for word in words:
            self.assertIn(word, a["error"]["message"])

    def test_refusals(self):
        for path in (TEXT, CHAT):
            for field, bad in (("samples", (0, 65, 1.5, "8")), ("by", ("all", 3)), ("answer", (3, "last", {}, [])), ("keep", (2,))):
                for value in bad:
                    self.refused(path, {"decoding": vote(**{field: value})}, "decoding." + field)
            self.refused(path, {"decoding": vote(by="all")}, "decoding.by", '"majority"', '"complexity"')
            self.refused(path, {"decoding": vote(by="complexity", samples=4, keep=5)}, "decoding.keep", "4")
            self.refused(path, {"decoding": vote(by="complexity", keep=0)}, "decoding.keep")
            self.refused(path, {"decoding": vote(answer={"before": "x"})}, "decoding.answer", '"after"')
            for marker in ("", "x" * 257, 3, None):
                self.refused(path, {"decoding": vote(answer={"after": marker})}, "decoding.answer.after")
            self.refused(path, {"decoding": vote(rounds=3)}, "decoding", '"samples"')
            self.refused(path, {"decoding": vote(draft={"source": "copy"})}, "decoding", '"samples"')
            self.refused(path, {"decoding": "vote", "temperature": 0}, "temperature", '"vote"')
            self.refused(path, {"decoding": "vote", "n": 2}, "n", '"vote"')
            for field, bad in (("rounds", (0, 33)), ("per_round", (0, 33)), ("max_item", (0, 257)), ("item_stop", ("", "x" * 65, 3)), ("feed_back", (1,))):
                for value in bad:
                    self.refused(path, {"decoding": navigate(**{field: value})}, "decoding." + field)
            self.refused(path, {"decoding": navigate(samples=3)}, "decoding", '"per_round"')
            for field, value in (("temperature", 0.5), ("n", 2), ("stop", ["x"]), ("min_tokens", 2), ("prompt_logprobs", 1), ("prediction", {"type": "content", "content": "x"})):
                self.refused(path, {"decoding": "navigate", field: value}, field, '"navigate"')
            self.refused(path, {"decoding": "votes"}, "decoding.strategy", '"vote"', '"navigate"')
        self.refused(CHAT, {"decoding": "navigate", "logprobs": True}, "logprobs")
        self.refused(TEXT, {"decoding": "navigate", "logprobs": 0}, "logprobs")
        self.refused(TEXT, {"decoding": "navigate", "echo": True}, "echo")
        for way in ("vote", "navigate"):
            self.refused(TEXT, {"decoding": way, "prompt": ["a", "b"]}, "prompt")
            self.refused(TEXT, {"decoding": way, "best_of": 2}, "best_of")
            self.refused(TEXT, {"decoding": way, "echo": True, "max_tokens": 0}, "max_tokens")
        self.refused(TEXT, {"decoding": {"samples": 3}}, "decoding")


class Lifetimes(unittest.TestCase):
    """On the fake device: clients that leave, full queues, deadlines, a device that breaks."""
    bodies = [{"prompt": "x", "max_tokens": 400, "ignore_eos": True, "decoding": vote(samples=20)},
              {"prompt": "x", "ignore_eos": True, "decoding": navigate(rounds=32, per_round=20, max_item=100, item_stop="@@")}]

    def test_leaving_in_the_middle(self):
        s = fake("--max-seqs", "8", step_us=2000)
        for body in self.bodies:
            for stream in (False, True):
                for wait in (0, 0.1, 0.6):
                    data = json.dumps({**body, "stream": stream}).encode()
                    with s.connect() as c:
                        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
                        time.sleep(wait)
                    idle(s)
        self.assertEqual(s.metric("galley_kv_blocks_used"), 0)
        s.stop()  # nothing is left behind: the sanitizer's word

    def test_stopping_in_the_middle(self):
        for body in self.bodies:
            s, seen = fake("--drain-timeout", "1", step_us=5000), []
            threads = [threading.Thread(target=lambda b=b: seen.append(s.request("POST", TEXT, b))) for b in (body, {**body, "stream": True})]
            for t in threads:
                t.start()
            s.until(lambda: s.metric("vllm:num_requests_running") > 0, "a running request")
            s.stop(timeout=30)
            for t in threads:
                t.join()
            for status, _, data in seen:
                self.assertTrue(status == 503 or b'"error"' in data, (status, data[-300:]))

    def test_full_queues(self):
        s = fake("--max-queue", "6", "--max-seqs", "4", step_us=5000)
        for body, field in zip(self.bodies, ("decoding.samples", "decoding.per_round")):
            status, a = s.post(TEXT, {**body, "decoding": {**body["decoding"], **({"samples": 64} if "samples" in field else {})}})
            self.assertEqual((status, a["error"]["param"]), (400, field))  # would never fit
            idle(s)
        with s.connect() as c:  # four run, and with one more there is no room for six
            data = json.dumps({"prompt": ["a"] * 5, "max_tokens": 1500, "ignore_eos": True, "stream": True}).encode()
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            s.until(lambda: s.metric("vllm:num_requests_waiting") == 1, "a waiting request")
            for stream in (False, True):
                status, a = s.post(TEXT, {"prompt": "x", "max_tokens": 5, "stream": stream, "decoding": vote(samples=24)})
                self.assertEqual((status, a["error"]["code"]), (429, "rate_limit_exceeded"))
                s.until(lambda: s.metric("vllm:num_requests_waiting") == 1, "the accepted ones canceled")
        idle(s)
        s.stop()

    def test_deadlines(self):
        s = fake(step_us=20000)
        way = navigate(rounds=32, per_round=4, max_item=5, item_stop="@@")
        a = s.ok(TEXT, {"prompt": "x", "ignore_eos": True, "timeout": 0.7, "decoding": way})
        self.assertGreater(len(a["choices"]), 0)
        self.assertLess(a["decoding"]["rounds"], 32)
        for way in (vote(samples=3), navigate(max_item=200, item_stop="@@")):
            body = {"prompt": "x", "ignore_eos": True, "timeout": 0.4, "decoding": way}
            if way["strategy"] == "vote":
                body["max_tokens"] = 1000
            status, a = s.post(TEXT, body)
            self.assertEqual((status, a["error"]["code"]), (408, "timeout"))
            _, _, data = s.request("POST", TEXT, {**body, "stream": True})
            self.assertIn("ran out of time", json.loads(data.decode().rstrip("\n").split("\n\n")[-1][6:])["error"]["message"])
        s.stop()

    def test_a_device_that_breaks(self):
        for body in self.bodies:
            for stream in (False, True):
                s = fake(step_us=1000)
                s.process.send_signal(signal.SIGUSR1)
                status, _, data = s.request("POST", TEXT, {**body, "stream": stream})
                self.assertEqual(status, 200 if stream else 500)
                self.assertEqual(data.count(b'"error"'), 1)
                self.assertEqual(s.process.wait(20), 75)

    def test_pings(self):
        s = fake("--ping-interval", "1", step_us=30000)
        _, _, data = s.request("POST", TEXT, {"prompt": "x", "max_tokens": 60, "ignore_eos": True, "stream": True, "decoding": vote(samples=2)})
        events = data.decode().split("\n\n")
        self.assertEqual(events[0], ":")
        self.assertEqual(events[-2], "data: [DONE]")
        s.stop()

    def test_in_a_crowd(self):
        s = fake("--max-seqs", "16")
        bodies = [{"prompt": f"p{i}", "max_tokens": 30, "seed": i, "decoding": (vote(samples=10, answer="text"), navigate(rounds=3, per_round=8, max_item=9))[i % 2]}
                  for i in range(8)]
        alone = [s.ok(TEXT, body)["choices"] for body in bodies]
        self.assertEqual(together(lambda body: s.ok(TEXT, body)["choices"], bodies), alone)
        s.stop()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
