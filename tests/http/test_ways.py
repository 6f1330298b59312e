"""The ways of decoding that change the text, over HTTP: what they answer, stream and refuse, and that requests of all ways
share a server without changing each other's text.

    python3 tests/http/test_ways.py GALLEY TARGET DRAFT NGRAM [unittest arguments]
"""
import json
import sys
import unittest

from harness import Server, together

GALLEY, TARGET, DRAFT, NGRAM = sys.argv[1:5]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
FOX = "Tell me a story about a fox."


def tell(text, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 60, "temperature": 0.9, "seed": 3, **more}


def contents(answer):
    return [c["message"]["content"] for c in answer["choices"]]


class Ways(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server(GALLEY, "--model", TARGET, "--draft-model", DRAFT, "--ngram", NGRAM, "--threads", "2")

    @classmethod
    def tearDownClass(cls):
        cls.s.stop()

    def refused(self, body, param, *words):
        status, answer = self.s.post(CHAT, tell("hi", **body))
        self.assertEqual(status, 400, answer)
        self.assertEqual(answer["error"]["param"], param, answer)
        for word in words:
            self.assertIn(word, answer["error"]["message"])

    def test_cautious(self):
        a = self.s.ok(CHAT, tell(FOX, decoding="cautious"))
        d = a["decoding"]
        self.assertEqual((d["strategy"], d["guarantee"], d["max_trials"]), ("cautious", "approximate", 10))
        self.assertGreater(d["segments"], 0)
        self.assertGreater(d["drafted"], d["accepted"])
        self.assertEqual(a["usage"]["completion_tokens"], 60)
        plain = self.s.ok(CHAT, tell(FOX, decoding="off"))
        once = self.s.ok(CHAT, tell(FOX, decoding={"strategy": "cautious", "max_trials": 1}))
        self.assertEqual(contents(once), contents(plain))
        word = {"strategy": "cautious", "segment_end": ["."], "max_segment": 200, "formula": "paper", "h_max": 1}
        self.assertTrue(contents(self.s.ok(CHAT, tell(FOX, decoding=word)))[0])

    def test_cautious_streams_segments(self):
        whole = self.s.ok(CHAT, tell(FOX, decoding="cautious", logprobs=True, top_logprobs=2))
        chunks = self.s.stream(CHAT, tell(FOX, decoding="cautious", logprobs=True, top_logprobs=2))
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
        self.assertEqual([text], contents(whole))
        said = [t for c in chunks if c["choices"] and c["choices"][0].get("logprobs")
                for t in c["choices"][0]["logprobs"]["content"]]
        self.assertEqual(said, whole["choices"][0]["logprobs"]["content"])
        self.assertEqual(len(said), 60)
        self.assertEqual(chunks[-1]["decoding"]["strategy"], "cautious")

    def test_contrastive(self):
        a = self.s.ok(CHAT, tell(FOX, decoding={"strategy": "contrastive", "penalty_alpha": 0.5, "top_k": 5}))
        d = a["decoding"]
        self.assertEqual((d["penalty_alpha"], d["top_k"], d["guarantee"], d["steps"]), (0.5, 5, "approximate", 60))
        greedy = self.s.ok(CHAT, tell(FOX, decoding="off", temperature=0))
        same = self.s.ok(CHAT, tell(FOX, decoding={"strategy": "contrastive", "penalty_alpha": 0}))
        self.assertEqual(contents(same), contents(greedy))
        self.assertNotEqual(contents(a), contents(greedy))

    def test_beams(self):
        a = self.s.ok(CHAT, tell(FOX, decoding="beam", n=3, temperature=0))
        scores = [s["score"] for s in a["decoding"]["scores"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertEqual(len(set(contents(a))), 3)
        greedy = self.s.ok(CHAT, tell(FOX, decoding={"strategy": "beam", "num_beams": 1}))
        self.assertEqual(contents(greedy), contents(self.s.ok(CHAT, tell(FOX, decoding="off", temperature=0))))
        b = self.s.ok(CHAT, tell(FOX, decoding="diverse_beam", n=4, max_tokens=20))
        self.assertEqual((b["decoding"]["num_beams"], b["decoding"]["num_beam_groups"]), (8, 4))
        self.assertEqual(len(set(contents(b))), 4)
        stopped = self.s.ok(CHAT, tell(FOX, decoding="beam", n=2, stop=["."]))
        for c in stopped["choices"]:
            self.assertEqual(c["finish_reason"], "stop")
            self.assertNotIn(".", c["message"]["content"])
        chunks = self.s.stream(CHAT, tell(FOX, decoding="beam", n=2, temperature=0))
        text = ["", ""]
        for c in chunks:
            for choice in c["choices"]:
                text[choice["index"]] += choice["delta"].get("content") or ""
        self.assertEqual(text, contents(self.s.ok(CHAT, tell(FOX, decoding="beam", n=2, temperature=0))))

    def test_superposed(self):
        body = {"prompt": "Once upon a time there was", "n": 3, "max_tokens": 12, "logprobs": 0}
        a = self.s.ok(TEXT, {**body, "decoding": "superposed"})
        d = a["decoding"]
        self.assertEqual((d["num_drafts"], d["guarantee"], d["steps"]), (3, "approximate", 12))
        self.assertEqual(round(d["alpha"], 4), 0.54)
        self.assertEqual(len({c["text"] for c in a["choices"]}), 3)
        means = []
        for c, score in zip(a["choices"], d["scores"]):
            self.assertAlmostEqual(sum(c["logprobs"]["token_logprobs"]), score["logprob"], places=3)
            means.append(score["logprob"] / len(c["logprobs"]["tokens"]))
        self.assertEqual(means, sorted(means, reverse=True))
        exact = self.s.ok(TEXT, {**body, "prompt": body["prompt"] + a["choices"][0]["text"], "n": 1, "max_tokens": 0,
                                 "echo": True})["choices"][0]["logprobs"]["token_logprobs"]
        for got, want in zip(a["choices"][0]["logprobs"]["token_logprobs"], exact[-12:]):
            self.assertAlmostEqual(got, want, places=4)
        one = {"strategy": "superposed", "num_drafts": 1, "alpha": 0}
        self.assertEqual(self.s.ok(TEXT, {**body, "n": 1, "decoding": one})["choices"],
                         self.s.ok(TEXT, {**body, "n": 1, "temperature": 0, "decoding": "off"})["choices"])
        quick = self.s.ok(TEXT, {"prompt": "Once", "n": 5, "decoding": {"strategy": "superposed", "rescore": False}})
        self.assertEqual(len(quick["choices"]), 5)
        self.assertNotIn("logprob", quick["decoding"]["scores"][0])

    def test_superposed_resets(self):
        body = {"prompt": "Once upon a time there was", "n": 3, "max_tokens": 40, "logprobs": 0, "seed": 5,
                "decoding": {"strategy": "superposed", "reset_every": 9}}
        a = self.s.ok(TEXT, body)
        self.assertEqual((a["decoding"]["reset_every"], a["decoding"]["steps"]), (9, 40))
        said = [c["logprobs"]["tokens"] for c in a["choices"]]
        whole = [tokens for tokens in said if len(tokens) == 40]  # others ended in an earlier stretch
        self.assertTrue(whole)
        self.assertEqual({tuple(tokens[:36]) for tokens in whole}, {tuple(whole[0][:36])})
        self.assertEqual(len({tuple(tokens) for tokens in said}), 3)
        for c, score in zip(a["choices"], a["decoding"]["scores"]):
            self.assertAlmostEqual(sum(c["logprobs"]["token_logprobs"]), score["logprob"], places=3)
        exact = self.s.ok(TEXT, {**body, "prompt": body["prompt"] + a["choices"][0]["text"], "n": 1, "max_tokens": 0,
                                 "echo": True, "decoding": "auto"})["choices"][0]["logprobs"]["token_logprobs"]
        for got, want in zip(a["choices"][0]["logprobs"]["token_logprobs"], exact[-len(said[0]):]):
            self.assertAlmostEqual(got, want, places=4)
        self.assertEqual(self.s.ok(TEXT, body)["choices"], a["choices"])
        one = {"strategy": "superposed", "num_drafts": 1, "alpha": 0, "reset_every": 20}
        self.assertEqual(self.s.ok(TEXT, {**body, "n": 1, "decoding": one})["choices"],
                         self.s.ok(TEXT, {**body, "n": 1, "temperature": 0, "decoding": "off"})["choices"])

    def test_several_prompts(self):
        body = {"prompt": ["Once upon", "There was"], "max_tokens": 12, "temperature": 0, "n": 2}
        both = self.s.ok(TEXT, {**body, "decoding": "beam"})
        self.assertEqual(len(both["choices"]), 4)
        self.assertEqual(len(both["decoding"]["scores"]), 4)
        one = self.s.ok(TEXT, {**body, "prompt": "There was", "decoding": "beam"})
        self.assertEqual([c["text"] for c in both["choices"][2:]], [c["text"] for c in one["choices"]])

    def test_company_of_all_kinds(self):
        ways = ["cautious", "contrastive", "beam", "diverse_beam", "auto", "model", "copy", "off"]
        things = "fox owl key kite drum map coin ring boat doll bell lamp harp shoe".split()
        bodies = [tell(f"Tell me a story about a {thing}.", seed=i, decoding=ways[i % len(ways)], n=1 + (i % 5 == 3))
                  for i, thing in enumerate(things)]
        alone = [contents(self.s.ok(CHAT, body)) for body in bodies]
        self.assertEqual(together(lambda body: contents(self.s.ok(CHAT, body)), bodies), alone)

    def test_refusals(self):
        self.refused({"decoding": {"strategy": "cautious", "trials": 3}}, "decoding", '"max_trials"')
        self.refused({"decoding": {"strategy": "cautious", "max_trials": 33}}, "decoding.max_trials", "32")
        self.refused({"decoding": {"strategy": "cautious", "h_min": 2}}, "decoding.h_max")
        self.refused({"decoding": {"strategy": "cautious", "h_min": "low"}}, "decoding.h_min")
        self.refused({"decoding": {"strategy": "cautious", "segment_end": []}}, "decoding.segment_end")
        self.refused({"decoding": {"strategy": "cautious", "segment_end": [""]}}, "decoding.segment_end")
        self.refused({"decoding": {"strategy": "cautious", "formula": "mine"}}, "decoding.formula", '"paper"')
        self.refused({"decoding": {"strategy": "cautious", "draft": {"max": 3}}}, "decoding", "draft")
        self.refused({"decoding": {"strategy": "contrastive", "penalty_alpha": 1.5}}, "decoding.penalty_alpha")
        self.refused({"decoding": {"strategy": "contrastive", "top_k": 17}}, "decoding.top_k")
        self.refused({"decoding": {"strategy": "beam", "num_beams": 0}}, "decoding.num_beams")
        self.refused({"decoding": {"strategy": "beam", "num_beam_groups": 2}}, "decoding", "num_beam_groups")
        self.refused({"decoding": {"strategy": "diverse_beam", "num_beams": 9}}, "decoding.num_beam_groups")
        self.refused({"decoding": "beam", "n": 5}, "n", "4 beams")
        self.refused({"decoding": "beam", "prediction": {"type": "content", "content": "x"}}, "prediction")
        self.refused({"decoding": "superposed"}, "max_tokens", "20")
        short = {"max_tokens": 9}
        self.refused({"decoding": "superposed", "n": 11, **short}, "decoding.num_drafts")
        self.refused({"decoding": {"strategy": "superposed", "tau": 0}, **short}, "decoding.tau")
        for every in (-1, 21):
            self.refused({"decoding": {"strategy": "superposed", "reset_every": every}}, "decoding.reset_every", "20")
        self.refused({"decoding": {"strategy": "superposed", "reset_every": 2.5}, **short}, "decoding.reset_every")
        self.refused({"decoding": "superposed", "frequency_penalty": 1, **short}, "decoding.strategy", "penalties")
        self.refused({"decoding": {"strategy": "superposed", "rescore": False}, "logprobs": True, **short}, "top_logprobs")
        self.refused({"decoding": "sideways"}, "decoding.strategy", '"cautious"', '"diverse_beam"')


class NoHiddenStates(unittest.TestCase):
    def test_contrastive_is_refused_and_named(self):
        s = Server(GALLEY, "--model", TARGET, "--no-contrastive")
        try:
            status, answer = s.post(CHAT, tell("hi", decoding="contrastive"))
            self.assertEqual(status, 400)
            self.assertIn("--no-contrastive", json.dumps(answer))
            self.assertTrue(contents(s.ok(CHAT, tell("hi", decoding="beam"))))
            alpha = {"strategy": "superposed", "alpha": 0.5}
            status, answer = s.post(CHAT, tell("hi", max_tokens=9, decoding=alpha))
            self.assertEqual((status, answer["error"]["param"]), (400, "decoding.alpha"))
            self.assertTrue(contents(s.ok(CHAT, tell("hi", max_tokens=9, decoding="superposed"))))
        finally:
            s.stop()


if __name__ == "__main__":
    unittest.main(argv=["test_ways.py"] + sys.argv[5:])
