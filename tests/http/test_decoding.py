"""Decoding over HTTP: whatever way a request names, the text is the same; and what the answer says of it.

    python3 tests/http/test_decoding.py GALLEY GALLEY_FAKE TARGET DRAFT [unittest arguments]
"""
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness import Server, together

GALLEY, FAKE, TARGET, DRAFT = sys.argv[1:5]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
WAYS = ("auto", "off", "speculative", "copy", "model", "early_exit",
        {"strategy": "early_exit", "draft": {"tree": {"nodes": 12, "width": 2, "depth": 6}}},
        {"strategy": "speculative", "draft": {"source": "copy", "max": 3, "min_match": 1}},
        {"strategy": "copy", "draft": {"fallback": "model"}}, {"strategy": "copy", "draft": {"fallback": "early_exit"}},
        {"strategy": "model", "draft": {"threshold": 0.4}}, {"strategy": "early_exit", "draft": {"threshold": 0.6, "max": 12}},
        {"strategy": "speculative", "draft": {"source": "model", "max": 16}, "verify": "nss", "lossless": True},
        {"strategy": "model", "draft": {"tree": {"nodes": 24, "width": 3, "depth": 5}}},
        "trigram", {"strategy": "speculative", "draft": {"source": "trigram", "max": 64}})


def tell(text, **more):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 80, "temperature": 0, **more}


def content(answer):
    return answer["choices"][0]["message"]["content"]


class Decoding(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server(GALLEY, "--model", TARGET, "--draft-model", DRAFT, "--threads", "2")

    @classmethod
    def tearDownClass(cls):
        cls.s.stop()

    def refused(self, body, param, *words):
        status, answer = self.s.post(CHAT, tell("hi", **body))
        self.assertEqual(status, 400, answer)
        self.assertEqual(answer["error"]["param"], param, answer)
        for word in words:
            self.assertIn(word, answer["error"]["message"])

    def test_the_text_is_the_same_every_way(self):
        for more in ({}, {"temperature": 0.9, "seed": 7}, {"temperature": 1, "seed": 1, "frequency_penalty": 0.5},
                     {"stop": ["the"], "min_tokens": 20}, {"n": 2, "temperature": 1, "seed": 5}):
            question = "Tell me a story about a girl named Anna and a lantern."
            plain = self.s.ok(CHAT, tell(question, decoding="off", **more))
            for way in WAYS:
                other = self.s.ok(CHAT, tell(question, decoding=way, **more))
                self.assertEqual([c["message"] for c in other["choices"]], [c["message"] for c in plain["choices"]], way)
                self.assertEqual([c["finish_reason"] for c in other["choices"]],
                                 [c["finish_reason"] for c in plain["choices"]])

    def test_company_of_all_kinds(self):
        bodies = [tell(f"Tell me a story about a {thing}.", seed=i, temperature=i % 2, decoding=WAYS[i % len(WAYS)])
                  for i, thing in enumerate("fox owl key kite drum map coin ring boat doll bell lamp".split())]
        alone = [content(self.s.ok(CHAT, {**body, "decoding": "off"})) for body in bodies]
        self.assertEqual(together(lambda body: content(self.s.ok(CHAT, body)), bodies), alone)

    def test_what_the_answer_says(self):
        a = self.s.ok(CHAT, tell("Tell me a story about a fox.", decoding="model"))["decoding"]
        self.assertEqual((a["strategy"], a["draft"]["source"], a["guarantee"]), ("speculative", "model", "exact"))
        self.assertGreater(a["drafted"], 0)
        self.assertLessEqual(a["accepted"], a["drafted"])
        self.assertLess(a["steps"], 80)
        self.assertEqual(len(a["acceptance"]), 5)
        a = self.s.ok(CHAT, tell("Tell me a story about a fox.", decoding="off"))["decoding"]
        self.assertEqual((a["strategy"], a["drafted"], a["acceptance"]), ("off", 0, []))
        a = self.s.ok(CHAT, tell("Tell me a story about a fox.", decoding="early_exit"))["decoding"]
        self.assertEqual((a["draft"]["source"], a["guarantee"]), ("early_exit", "exact"))
        self.assertGreater(a["accepted"], 0.6 * a["drafted"])  # its first layers agree with the whole model
        self.assertNotIn("decoding", self.s.ok(CHAT, tell("hi")))
        chunks = self.s.stream(CHAT, tell("hi", decoding="auto"))
        self.assertIn("decoding", chunks[-1])
        self.assertEqual(chunks[-1]["choices"], [])

    def test_prediction(self):
        question = "Tell me a story about a fox."
        plain = self.s.ok(CHAT, tell(question, decoding="off"))
        told = {"type": "content", "content": content(plain)}
        a = self.s.ok(CHAT, tell(question, prediction=told, decoding="copy"))
        self.assertEqual(content(a), content(plain))
        details = a["usage"]["completion_tokens_details"]
        self.assertGreater(details["accepted_prediction_tokens"], 60)
        parts = {"type": "content", "content": [{"type": "text", "text": "Something"}, {"type": "text", "text": " else."}]}
        b = self.s.ok(CHAT, tell(question, prediction=parts))
        self.assertEqual(content(b), content(plain))
        c = self.s.ok(TEXT, {"prompt": "Once", "max_tokens": 30, "temperature": 0, "prediction": told})
        self.assertEqual(c["choices"], self.s.ok(TEXT, {"prompt": "Once", "max_tokens": 30, "temperature": 0})["choices"])

    def test_refusals(self):
        self.refused({"decoding": "quickly"}, "decoding.strategy", '"auto"', '"model"', '"trigram"')
        self.refused({"decoding": 3}, "decoding")
        self.refused({"decoding": {"stategy": "auto"}}, "decoding", '"strategy"')
        self.refused({"decoding": {"draft": {"max": 65}}}, "decoding.draft.max")
        self.refused({"decoding": {"draft": {"max": 0}}}, "decoding.draft.max")
        self.refused({"decoding": {"draft": {"min_match": 17}}}, "decoding.draft.min_match")
        self.refused({"decoding": {"draft": {"source": "oracle"}}}, "decoding.draft.source", '"copy"', '"trigram"')
        self.refused({"decoding": {"strategy": "off", "draft": {"max": 2}}}, "decoding.draft")
        self.refused({"decoding": {"strategy": "model", "draft": {"source": "copy"}}}, "decoding.draft.source", "model")
        self.refused({"decoding": {"strategy": 1}}, "decoding.strategy")
        self.refused({"prediction": {"type": "content", "content": "x"}, "decoding": "model"}, "prediction")
        self.refused({"decoding": {"verify": "typical"}}, "decoding.verify", '"nss"')
        self.refused({"prediction": "text"}, "prediction")
        self.refused({"prediction": {"type": "content", "content": [{"type": "image"}]}}, "prediction")
        self.refused({"prediction": {"type": "content", "content": "x"}, "decoding": "off"}, "prediction")

    def test_verifiers_by_name(self):
        body = tell("Tell me a story about a fox.", temperature=0.8, seed=3)
        for verify, tree in (("block", None), ("naive", None), ("traversal", {"nodes": 16, "width": 3}),
                             ("rrs", {"nodes": 16, "sampling": "wor"}), ("rrs", {"sampling": "iid"}),
                             ("rrs", {"sampling": "sbs", "width": 4}), ("rrs", {"sampling": "dyspec", "nodes": 24}),
                             ("traversal", {"sampling": "dyspec", "threshold": 0.1}),
                             ("kseq", {"width": 4}), ("greedy", {"nodes": 8})):
            way = {"strategy": "model", "verify": verify, **({"draft": {"tree": tree}} if tree else {})}
            a = self.s.ok(CHAT, {**body, "decoding": way})["decoding"]
            self.assertEqual((a["verify"], a["guarantee"]), (verify, "lossless"))
            self.assertGreater(a["accepted"], 0)
        a = self.s.ok(CHAT, tell("Tell me a story about a fox.", decoding={"strategy": "model", "verify": "block"}))
        self.assertEqual(a["decoding"]["guarantee"], "exact")  # at temperature 0 all verifiers are one
        self.assertEqual(content(a), content(self.s.ok(CHAT, tell("Tell me a story about a fox.", decoding="off"))))
        self.refused({"decoding": {"verify": "block"}}, "decoding.verify", '"model"')
        self.refused({"decoding": {"strategy": "model", "verify": "block", "draft": {"tree": {}}}}, "decoding.verify", "wor")
        self.refused({"decoding": {"strategy": "model", "verify": "kseq", "draft": {"tree": {"sampling": "wor"}}}},
                     "decoding.verify")
        lp = self.s.ok(CHAT, {**body, "logprobs": True, "top_logprobs": 3, "decoding": way})["choices"][0]["logprobs"]
        self.assertTrue(all(len(t["top_logprobs"]) == 3 and t["logprob"] <= t["top_logprobs"][0]["logprob"] <= 0
                            for t in lp["content"]))
        self.refused({"decoding": {**way, "draft": {"tree": {"sampling": "dyspec", "threshold": 2}}}},
                     "decoding.draft.tree.threshold")
        self.refused({"decoding": {**way, "draft": {"tree": {"threshold": 0.1}}}}, "decoding.draft.tree.threshold", "dyspec")
        self.refused({"decoding": {"strategy": "model", "draft": {"tree": {"sampling": "iid"}}}}, "decoding.verify")

    def test_a_copy_falls_back(self):
        body = tell("Tell me a story about a fox.")
        copied = self.s.ok(CHAT, {**body, "decoding": "copy"})["decoding"]
        for source in ("model", "early_exit"):
            a = self.s.ok(CHAT, {**body, "decoding": {"strategy": "copy", "draft": {"fallback": source}}})["decoding"]
            self.assertEqual((a["draft"], a["guarantee"]), ({"source": "copy", "fallback": source}, "exact"))
            self.assertGreater(a["accepted"], copied["accepted"] + 20)
        self.refused({"decoding": {"strategy": "model", "draft": {"fallback": "model"}}}, "decoding.draft.fallback", "copy")
        self.refused({"decoding": {"strategy": "copy", "draft": {"fallback": "copy"}}}, "decoding.draft.fallback", '"model"')

    def test_an_unsure_drafter_drafts_less(self):
        question = "Tell me a story about a fox."
        for more in ({}, {"temperature": 0.9, "seed": 7}):
            plain = self.s.ok(CHAT, tell(question, decoding="off", **more))
            for strategy in ("model", "early_exit"):
                told = []
                for threshold in (0, 0.3, 0.7, 1):
                    way = {"strategy": strategy, "draft": {"threshold": threshold}}
                    a = self.s.ok(CHAT, tell(question, decoding=way, **more))
                    self.assertEqual(content(a), content(plain), way)
                    self.assertEqual(a["decoding"]["draft"].get("threshold", 0), threshold)
                    told.append(a["decoding"])
                for looser, stricter in zip(told, told[1:]):
                    self.assertGreater(looser["drafted"], stricter["drafted"])
                self.assertGreater(told[2]["accepted"] / told[2]["drafted"], told[0]["accepted"] / told[0]["drafted"])
        way = {"strategy": "copy", "draft": {"fallback": "model", "threshold": 0.5}}
        self.assertEqual(content(self.s.ok(CHAT, tell(question, decoding=way))),
                         content(self.s.ok(CHAT, tell(question, decoding="off"))))
        field, half = "decoding.draft.threshold", {"threshold": 0.5}
        self.refused({"decoding": {"strategy": "model", "draft": {"threshold": 1.1}}}, field, "1")
        self.refused({"decoding": {"strategy": "model", "draft": {"threshold": "low"}}}, field)
        self.refused({"decoding": {"draft": half}}, field, '"model"')
        self.refused({"decoding": {"strategy": "copy", "draft": half}}, field, "fallback")
        self.refused({"decoding": {"strategy": "model", "draft": {**half, "tree": {}}}}, field, "tree.threshold")
        self.refused({"decoding": {"strategy": "model", "verify": "block", "draft": half}, "temperature": 1}, field, "block")

    def test_exits(self):
        question = "Tell me a story about a fox."
        alone = self.s.ok(CHAT, tell(question, decoding="early_exit"))
        way = {"strategy": "early_exit", "draft": {"exits": [3]}}  # the only one that the demo model has
        for draft in ({"exits": [3]}, {"exits": [3], "thresholds": [0]}):
            a = self.s.ok(CHAT, tell(question, decoding={**way, "draft": draft}))
            self.assertEqual(content(a), content(alone))
            self.assertEqual((a["decoding"]["drafted"], a["decoding"]["accepted"], a["decoding"]["draft"]["exits"]),
                             (alone["decoding"]["drafted"], alone["decoding"]["accepted"], [3]))
        sure = self.s.ok(CHAT, tell(question, decoding={**way, "draft": {"exits": [3], "thresholds": [0.7]}}))
        self.assertEqual(content(sure), content(alone))
        self.assertLess(sure["decoding"]["drafted"], alone["decoding"]["drafted"])
        for draft, field in (({"exits": [2, 3]}, "exits"), ({"exits": 3}, "exits"), ({"exits": [0.5]}, "exits"),
                             ({"exits": []}, "exits"), ({"exits": [3], "tree": {}}, "exits"), ({"thresholds": [0]}, "exits"),
                             ({"exits": [3], "thresholds": [0, 0]}, "thresholds"),
                             ({"exits": [3], "thresholds": ["low"]}, "thresholds"),
                             ({"exits": [3], "thresholds": [2]}, "thresholds")):
            self.refused({"decoding": {**way, "draft": draft}}, "decoding.draft." + field)
        self.refused({"decoding": {"strategy": "model", "draft": {"exits": [3]}}}, "decoding.draft.exits", "early_exit")

    def test_a_text_that_may_depend_on_its_drafts(self):
        free = {"strategy": "model", "invariant_seed": False}
        tree = {**free, "draft": {"tree": {"nodes": 8}}}
        for way, temperature, verify in ((free, 1, "block"), (tree, 0.5, "greedy"), (tree, 1, "traversal"), (free, 0, "nss"),
                                         ({**tree, "draft": {"tree": {"sampling": "dyspec"}}}, 0.5, "traversal")):
            a = self.s.ok(CHAT, tell("Tell me a story about a fox.", temperature=temperature, decoding=way))["decoding"]
            self.assertEqual((a["verify"], a["guarantee"]), (verify, "lossless" if temperature else "exact"))
        field = "decoding.invariant_seed"
        self.refused({"decoding": free, "seed": 1}, field, "seed")
        self.refused({"decoding": {"invariant_seed": False}}, field, '"model"')
        self.refused({"decoding": {**free, "verify": "nss"}}, field, "nss")
        self.refused({"decoding": {**free, "verify": "block", "invariant_seed": True}}, field, "block")
        self.refused({"decoding": {**free, "invariant_seed": 1}}, field)

    def test_trigrams(self):
        question = "Tell me a story about a boy named Tom and a kite."
        tenant = {"decoding": {"strategy": "trigram", "draft": {"scope": "tenant"}}, "cache_salt": "ours"}
        plain = self.s.ok(CHAT, tell(question, decoding="off"))
        told = []
        for more in (tenant, tenant, {**tenant, "cache_salt": "theirs"}, {"decoding": "trigram"}):
            a = self.s.ok(CHAT, tell(question, **more))
            self.assertEqual(content(a), content(plain))
            told.append(a["decoding"])
        self.assertEqual((told[0]["strategy"], told[0]["draft"], told[0]["verify"], told[0]["guarantee"]),
                         ("speculative", {"source": "trigram"}, "nss", "exact"))
        first, again, other, alone = (a["accepted"] for a in told)
        self.assertGreater(again, 2 * first)  # it knows its tenant's answers
        self.assertGreater(again, 2 * other)  # and nobody else's
        self.assertGreater(again, 2 * alone)
        self.assertGreater(self.s.metric("galley_trigram_searches_total"), 0)
        self.refused({"decoding": tenant["decoding"]}, "decoding.draft.scope", "cache_salt")
        self.refused({"decoding": {"strategy": "trigram", "draft": {"scope": "all"}}}, "decoding.draft.scope", '"tenant"')
        self.refused({"decoding": {"strategy": "copy", "draft": {"scope": "request"}}}, "decoding.draft.scope", "copy")
        self.refused({"decoding": {"strategy": "trigram", "draft": {"source": "model"}}}, "decoding.draft.source")
        self.refused({"decoding": {"strategy": "trigram", "draft": {"tree": {}}}}, "decoding.draft.tree")
        self.refused({"decoding": {"strategy": "trigram", "verify": "block"}}, "decoding.verify", '"model"')
        self.refused({"decoding": "trigram", "prediction": {"type": "content", "content": "x"}}, "prediction", "trigrams")

    def test_metrics(self):
        before = self.s.metric("vllm:spec_decode_num_draft_tokens_total")
        self.s.ok(CHAT, tell("Tell me a story about an owl.", decoding="model"))
        self.assertGreater(self.s.metric("vllm:spec_decode_num_draft_tokens_total"), before)
        self.assertGreater(self.s.metric("vllm:spec_decode_num_accepted_tokens_total"), 0)
        self.assertGreater(self.s.metric("galley_draft_gain_count"), 0)
        self.assertGreater(self.s.metric("galley_draft_gain_sum"), 0)
        self.assertGreater(self.s.metric("galley_draft_gain_expected_sum"), 0)


class NoDraftModel(unittest.TestCase):
    def test_what_auto_chose(self):
        """Where a step takes as long whatever its rows, and the client knows the answer, there is one best choice."""
        s = Server(FAKE, "--model", TARGET, env={"GALLEY_FAKE_STEP_US": "5000"})

        def value(name, source):
            lines = s.request("GET", "/metrics")[2].decode().splitlines()
            return sum(float(l.rsplit(" ", 1)[1]) for l in lines if l.startswith(name + "{") and f'source="{source}"' in l)
        known = s.ok(CHAT, tell("hi", decoding="off", max_tokens=60))["choices"][0]["message"]["content"]
        a = s.ok(CHAT, tell("hi", decoding="auto", max_tokens=60, prediction={"type": "content", "content": known}))
        chosen = {source: value("galley_auto_steps_total", source) for source in ("none", "copy", "model", "early_exit", "trigram")}
        self.assertGreater(chosen["copy"], 0)
        self.assertEqual(sum(chosen.values()), a["decoding"]["steps"])
        self.assertGreater(value("galley_draft_expected_tokens_total", "copy"), 0)
        self.assertGreater(value("galley_auto_asking_seconds_total", "copy"), 0)
        self.assertEqual(value("galley_auto_asking_seconds_total", "model"), 0)  # there is none
        s.stop()

    def test_model_is_refused_by_name(self):
        s = Server(FAKE, "--model", TARGET)
        status, answer = s.post(CHAT, tell("hi", decoding="model"))
        self.assertEqual((status, answer["error"]["param"]), (400, "decoding.draft.source"))
        s.stop()

    def test_a_server_that_never_drafts(self):
        s = Server(FAKE, "--model", TARGET, "--max-draft", "0")
        for way in ("trigram", "copy", "auto"):
            self.assertEqual(s.ok(CHAT, tell("hi", decoding=way))["decoding"]["drafted"], 0)
        s.stop()


class Caps(unittest.TestCase):
    def test_a_server_has_its_ways(self):
        s = Server(FAKE, "--model", TARGET, "--ways", "auto,off,beam,vote", "--max-choices", "4")
        for way in ("auto", "off", "vote", {"strategy": "beam", "num_beams": 2}):
            s.ok(CHAT, tell("hi", decoding=way, **({"temperature": 1} if way == "vote" else {})))
        for way in ("copy", "cautious", "contrastive", "diverse_beam", {"strategy": "navigate"}):
            status, answer = s.post(CHAT, tell("hi", decoding=way))
            self.assertEqual((status, answer["error"]["param"]), (400, "decoding.strategy"), way)
            self.assertIn("auto,off,beam,vote", answer["error"]["message"])
        s.ok(CHAT, tell("hi", temperature=1, n=4))
        self.assertEqual(s.post(CHAT, tell("hi", n=5))[1]["error"]["param"], "n")
        self.assertEqual(s.ok(CHAT, tell("hi", decoding={"strategy": "beam", "num_beams": 8}))["decoding"]["num_beams"], 3)
        s.stop()

    def test_unknown_ways_are_errors(self):
        for ways in ("auto,fast", "auto,,off", "", "auto, off", "copy"):
            run = subprocess.run([GALLEY, "serve", "--model", TARGET, "--ways", ways, "--check-config"],
                                 capture_output=True, text=True)
            self.assertNotEqual(run.returncode, 0, ways)
            self.assertIn("--ways", run.stderr)


class NGramStore(unittest.TestCase):
    def test_trigrams_start_from_it(self):
        question = "Tell me a story about a girl named Lucy and a boat."
        with tempfile.TemporaryDirectory() as at:
            text, store = Path(at, "text.txt"), Path(at, "store.ngram")
            s = Server(GALLEY, "--model", TARGET, "--threads", "2")
            plain = s.ok(CHAT, tell(question, decoding="trigram"))
            s.stop()
            text.write_text(content(plain))
            subprocess.run([GALLEY, "ngram", "build", "--model", TARGET, "--out", store, text], check=True,
                           stdout=subprocess.DEVNULL)
            s = Server(GALLEY, "--model", TARGET, "--threads", "2", "--ngram", str(store))
            known = s.ok(CHAT, tell(question, decoding="trigram"))
            s.stop()
        self.assertEqual(content(known), content(plain))
        self.assertGreater(known["decoding"]["accepted"], 2 * plain["decoding"]["accepted"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]])
