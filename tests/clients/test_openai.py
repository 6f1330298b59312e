"""The official openai package, unmodified, against the real server.

    python3 tests/clients/test_openai.py GALLEY GALLEY_FAKE MODEL [unittest arguments]
"""
import asyncio
import pathlib
import signal
import sys
import time
import unittest

import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "http"))
from harness import Server  # noqa: E402

GALLEY, FAKE, MODEL = sys.argv[1:4]
NAME = "galley-demo"
HELLO = [{"role": "user", "content": "Tell me about the fox."}]


def fake(*flags, step_us=0):
    return Server(FAKE, "--model", MODEL, "--served-model-name", NAME, *flags, env={"GALLEY_FAKE_STEP_US": str(step_us)})


def options(server, **more):
    return {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key": "secret", "timeout": 30, "max_retries": 0, **more}


class Shared(unittest.TestCase):
    """One fast fake server for all tests of a class."""
    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.s = fake("--api-key", "secret", *cls.flags)
        cls.client = openai.OpenAI(**options(cls.s))

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.s.stop()

    def chat(self, **more):
        return self.client.chat.completions.create(model=NAME, messages=HELLO, **{"max_tokens": 12, "temperature": 0, **more})

    def text(self, **more):
        return self.client.completions.create(model=NAME, **{"prompt": "The fox", "max_tokens": 12, "temperature": 0, **more})


class Answers(Shared):
    def test_completion(self):
        a = self.text(extra_body={"ignore_eos": True})
        self.assertEqual((a.object, a.model, a.choices[0].finish_reason), ("text_completion", NAME, "length"))
        self.assertTrue(a.choices[0].text)
        self.assertEqual(a.usage.completion_tokens, 12)
        self.assertEqual(a.usage.total_tokens, a.usage.prompt_tokens + 12)

    def test_chat(self):
        a = self.chat()
        message = a.choices[0].message
        self.assertEqual((a.object, message.role, message.refusal, message.tool_calls), ("chat.completion", "assistant", None, None))
        self.assertTrue(message.content)
        self.assertIsNone(a.choices[0].logprobs)
        self.assertLess(abs(a.created - time.time()), 60)
        self.assertEqual(len(a._request_id), 32)
        self.assertEqual(a.usage.prompt_tokens_details.cached_tokens, a.usage.prompt_tokens_details.cached_tokens or 0)
        self.assertEqual(a.usage.completion_tokens_details.reasoning_tokens, 0)

    def test_conversation_goes_back_in(self):
        a = self.chat()
        b = self.client.chat.completions.create(model=NAME, max_completion_tokens=5, messages=[
            {"role": "developer", "content": "Be brief."}, *HELLO, a.choices[0].message,
            {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "then?"}]}])
        self.assertLessEqual(b.usage.completion_tokens, 5)

    def test_stream_equals_whole(self):
        whole = self.chat(max_tokens=40, seed=3, temperature=1)
        with self.chat(max_tokens=40, seed=3, temperature=1, stream=True, stream_options={"include_usage": True}) as stream:
            chunks = list(stream)
        last = chunks.pop()
        self.assertEqual((last.choices, last.usage), ([], whole.usage.model_copy(update={"prompt_tokens_details": last.usage.prompt_tokens_details})))
        self.assertTrue(all(c.usage is None for c in chunks))
        self.assertEqual(len({c.id for c in chunks}), 1)
        self.assertEqual([c.choices[0].delta.role for c in chunks], ["assistant"] + [None] * (len(chunks) - 1))
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks), whole.choices[0].message.content)
        self.assertEqual([c.choices[0].finish_reason for c in chunks], [None] * (len(chunks) - 1) + [whole.choices[0].finish_reason])
        self.assertIsNone(chunks[-1].choices[0].delta.content)

    def test_completion_stream(self):
        whole = self.text(max_tokens=30)
        self.assertEqual("".join(c.choices[0].text for c in self.text(max_tokens=30, stream=True)), whole.choices[0].text)

    def test_stream_helper(self):
        with self.client.chat.completions.stream(model=NAME, messages=HELLO, max_tokens=20, temperature=0) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.current_completion_snapshot  # get_final_completion() refuses what ended by its length
        self.assertEqual("".join(deltas), final.choices[0].message.content)
        self.assertEqual(final.choices[0].message.content, self.chat(max_tokens=20).choices[0].message.content)

    def test_several_choices(self):
        a = self.chat(n=3, temperature=1, seed=7)
        self.assertEqual([c.index for c in a.choices], [0, 1, 2])
        self.assertEqual(len({c.message.content for c in a.choices}), 3)
        parts = {0: "", 1: "", 2: ""}
        for chunk in self.chat(n=3, temperature=1, seed=7, stream=True):
            for c in chunk.choices:
                parts[c.index] += c.delta.content or ""
        self.assertEqual(parts, {c.index: c.message.content for c in a.choices})

    def test_chat_logprobs(self):
        a = self.chat(logprobs=True, top_logprobs=2, extra_body={"ignore_eos": True}).choices[0]
        self.assertEqual(len(a.logprobs.content), 12)
        for entry in a.logprobs.content:
            self.assertEqual(len(entry.top_logprobs), 2)
            self.assertEqual(entry.logprob, entry.top_logprobs[0].logprob)  # greedy
            self.assertGreaterEqual(entry.top_logprobs[0].logprob, entry.top_logprobs[1].logprob)
        streamed = [e for c in self.chat(logprobs=True, top_logprobs=2, stream=True, extra_body={"ignore_eos": True})
                    if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
        self.assertEqual(streamed, a.logprobs.content)

    def test_completion_logprobs(self):
        lp = self.text(logprobs=2, extra_body={"ignore_eos": True}).choices[0].logprobs
        self.assertEqual({len(lp.tokens), len(lp.token_logprobs), len(lp.top_logprobs), len(lp.text_offset)}, {12})
        self.assertEqual(lp.token_logprobs[0], max(lp.top_logprobs[0].values()))
        streamed = [c.choices[0].logprobs for c in self.text(logprobs=2, stream=True, extra_body={"ignore_eos": True}) if c.choices[0].logprobs]
        self.assertEqual([o for part in streamed for o in part.text_offset], lp.text_offset)

    def test_stop_and_seed(self):
        whole = self.text(max_tokens=40).choices[0].text
        stop = whole[8:12]
        cut = self.text(max_tokens=40, stop=[stop]).choices[0]
        self.assertEqual((cut.text, cut.finish_reason), (whole[:whole.index(stop)], "stop"))
        ask = lambda seed: self.text(max_tokens=20, temperature=1, seed=seed).choices[0].text
        self.assertEqual(ask(1), ask(1))
        self.assertNotEqual(ask(1), ask(2))

    def test_models(self):
        models = list(self.client.models.list())
        self.assertEqual([m.id for m in models], [NAME])
        self.assertEqual((models[0].object, models[0].owned_by), ("model", "galley"))
        self.assertEqual(self.client.models.retrieve(NAME).id, NAME)

    def test_raw_response(self):
        raw = self.client.chat.completions.with_raw_response.create(model=NAME, messages=HELLO, max_tokens=2, extra_headers={"x-request-id": "mine-1"})
        self.assertEqual(raw.headers["x-request-id"], "mine-1")
        self.assertGreaterEqual(int(raw.headers["openai-processing-ms"]), 0)
        self.assertEqual(raw.parse().usage.completion_tokens, 2)

    def test_many_requests_on_one_connection(self):
        for i in range(200):
            self.assertEqual(self.text(prompt=f"number {i}", max_tokens=1).usage.completion_tokens, 1)


class Errors(Shared):
    def refused(self, kind, status, call, code=None, param=None):
        with self.assertRaises(kind) as caught:
            call()
        e = caught.exception
        self.assertEqual((e.status_code, e.code, e.param), (status, code, param))
        self.assertTrue(e.request_id)
        self.assertEqual(set(e.body), {"message", "type", "param", "code"})
        return e

    def test_bad_requests(self):
        self.assertEqual(self.refused(openai.BadRequestError, 400, lambda: self.chat(temperature=-1), param="temperature").type, "invalid_request_error")
        self.refused(openai.BadRequestError, 400, lambda: self.chat(top_logprobs=3), param="top_logprobs")
        self.refused(openai.BadRequestError, 400, lambda: self.text(max_tokens=100000), "context_length_exceeded", "max_tokens")
        self.refused(openai.BadRequestError, 400, lambda: self.text(extra_body={"stream_options": {"include_usage": True}}), param="stream_options")
        self.refused(openai.BadRequestError, 400, lambda: self.chat(stream=True, temperature=-1), param="temperature")

    def test_not_found(self):
        self.refused(openai.NotFoundError, 404, lambda: self.client.completions.create(model="gpt-5", prompt="x"), "model_not_found", "model")
        self.refused(openai.NotFoundError, 404, lambda: self.client.models.retrieve("gpt-5"), "model_not_found", "model")
        self.refused(openai.NotFoundError, 404, lambda: self.client.embeddings.create(model=NAME, input="x"), "not_found")

    def test_authentication(self):
        with openai.OpenAI(**options(self.s, api_key="wrong")) as other:
            for prompt in ("x", "x" * 1000000):  # a refusal arrives also when the body is still on its way
                self.refused(openai.AuthenticationError, 401, lambda: other.completions.create(model=NAME, prompt=prompt), "invalid_api_key")

    def test_too_large(self):
        e = self.refused(openai.APIStatusError, 413, lambda: self.text(prompt="x" * (33 << 20)), "request_too_large")
        self.assertEqual(e.response.headers["x-should-retry"], "false")


class Async(unittest.TestCase):
    def test_streams_at_once(self):
        s = fake(step_us=2000)

        async def one(client, i):
            whole = await client.completions.create(model=NAME, prompt=f"stream {i}", max_tokens=30, seed=i)
            stream = await client.completions.create(model=NAME, prompt=f"stream {i}", max_tokens=30, seed=i, stream=True)
            text = "".join([c.choices[0].text async for c in stream])
            return text == whole.choices[0].text

        async def all_of_them():
            async with openai.AsyncOpenAI(**options(s)) as client:
                return await asyncio.gather(*(one(client, i) for i in range(20)))

        self.assertEqual(asyncio.run(all_of_them()), [True] * 20)
        s.stop()


class Lives(unittest.TestCase):
    def test_retries_after_429(self):
        s = fake("--max-seqs", "1", "--max-queue", "1", step_us=20000)
        blocker = openai.OpenAI(**options(s))
        running = blocker.completions.create(model=NAME, prompt="x", max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
        next(iter(running))
        queued = blocker.completions.create(model=NAME, prompt="x", max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
        s.until(lambda: s.metric("vllm:num_requests_waiting") == 1, "a full queue")
        with self.assertRaises(openai.RateLimitError) as caught:
            openai.OpenAI(**options(s)).completions.create(model=NAME, prompt="x")
        self.assertEqual((caught.exception.code, caught.exception.type), ("rate_limit_exceeded", "rate_limit_error"))
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")

        rejected = s.metric("galley_requests_rejected_total")
        patient, start = openai.OpenAI(**options(s, max_retries=1)), time.monotonic()
        with self.assertRaises(openai.RateLimitError):
            patient.completions.create(model=NAME, prompt="x")
        self.assertGreaterEqual(time.monotonic() - start, 0.95)  # Retry-After says a second; its own first pause is half of that
        self.assertEqual(s.metric("galley_requests_rejected_total"), rejected + 2)
        queued.close()
        running.close()
        s.until(lambda: s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0, "an idle server")
        self.assertEqual(patient.completions.create(model=NAME, prompt="x", max_tokens=3, extra_body={"ignore_eos": True}).usage.completion_tokens, 3)
        s.stop()

    def test_closing_a_stream_stops_the_generation(self):
        s = fake(step_us=20000)
        with openai.OpenAI(**options(s)) as client:
            stream = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=1900, stream=True, extra_body={"ignore_eos": True})
            for i, _ in zip(range(3), stream):
                pass
            self.assertEqual(s.metric("vllm:num_requests_running"), 1)
            stream.close()
            s.until(lambda: s.metric("vllm:num_requests_running") == 0, "the generation stopped", 5)
        self.assertLess(s.metric("vllm:generation_tokens_total"), 500)
        s.stop()

    def test_time_out(self):
        s = fake(step_us=20000)
        with openai.OpenAI(**options(s, timeout=0.5)) as client:
            with self.assertRaises(openai.APITimeoutError):
                client.completions.create(model=NAME, prompt="x", max_tokens=1900, extra_body={"ignore_eos": True})
        s.until(lambda: s.metric("vllm:num_requests_running") == 0, "the generation stopped", 5)
        s.stop()

    def test_error_in_a_stream(self):
        s = Server(FAKE, "--model", MODEL, "--served-model-name", NAME)
        s.process.send_signal(signal.SIGUSR1)
        with openai.OpenAI(**options(s)) as client:
            with self.assertRaises(openai.APIError) as caught:
                for _ in client.completions.create(model=NAME, prompt="x", max_tokens=100, stream=True, extra_body={"ignore_eos": True}):
                    pass
        self.assertEqual(caught.exception.type, "server_error")
        s.process.wait(20)


class DemoModel(unittest.TestCase):
    def test_bundled_model(self):
        s = Server(GALLEY, "--model", MODEL, "--served-model-name", NAME)
        with openai.OpenAI(**options(s, timeout=120)) as client:
            a = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=30, temperature=0, extra_body={"ignore_eos": True})
            self.assertEqual(a.usage.completion_tokens, 30)
            b = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(
                model=NAME, messages=HELLO, max_tokens=30, temperature=0, stream=True, extra_body={"ignore_eos": True}))
            self.assertEqual(a.choices[0].message.content, b)
        s.stop()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
