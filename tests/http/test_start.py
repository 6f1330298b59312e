"""How the server starts: options, configuration, the bundled model, weights packed before.

    python3 tests/http/test_start.py GALLEY GALLEY_FAKE MODEL [unittest arguments]
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

from harness import Server

GALLEY, FAKE, MODEL = sys.argv[1:4]
ROOT = str(pathlib.Path(__file__).resolve().parent.parent.parent)


def ask_for_a_story(s, max_tokens):
    messages = [{"role": "user", "content": "Tell me a story about a fox."}]
    answer = s.ok("/v1/chat/completions", {"messages": messages, "max_tokens": max_tokens, "temperature": 0})
    return answer["choices"][0]["message"]["content"]


class Options(unittest.TestCase):
    def fails(self, *flags, env=None, says):
        s = Server(GALLEY, *flags, env=env, wait=False)
        status = s.process.wait(30)
        s._ready.wait(5)
        time.sleep(0.05)
        log = "".join(s.log)
        self.assertEqual(status, 1, log)
        for word in says:
            self.assertIn(word, log)

    def test_flags(self):
        self.fails("--max-seqs", "12x", says=["--max-seqs", "12x"])
        self.fails("--max-seqs", "0", says=["--max-seqs", "outside"])
        self.fails("--max-seqs=1", "--max-seqs=2", says=["--max-seqs", "twice"])
        self.fails("--max-sqes", "2", says=["max-sqes", "--max-seqs"])
        self.fails("--backend", "tpu", says=["--backend", "tpu"])
        self.fails("--quantization", "awq", says=["--quantization", "awq", "none|fp8"])
        self.fails("--kv-mem", "5parsecs", says=["--kv-mem", "parsecs"])
        self.fails("--model", "/nowhere.gguf", says=["/nowhere.gguf"])
        self.fails("stray", says=["stray"])
        self.fails(env={"GALLEY_MAX_SEQS": "x"}, says=["GALLEY_MAX_SEQS"])
        self.fails("--model", MODEL, "--kv-mem", "1KiB", says=["--kv-mem"])
        self.fails("--model", MODEL, "--ctx", "2000", "--kv-mem", "2MiB", says=["--ctx", "would fit"])

    def test_yaml(self):
        for text, says in (("max_seqs: 4\nmax_seqs: 5\n", [":2:", "max_seqs", "twice"]), ("port: 80a\n", [":1:7", "port"]), ("nope: 1\n", [":1:1", "nope"]),
                           ("port: [1]\n", [":1:", "port"]), ("- a\n", [":1:1"]), ("a: b: c\n", [":1:"])):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
                f.write(text)
                f.flush()
                self.fails("--config", f.name, says=[f.name, *says])

    def test_precedence(self):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
            f.write("served_model_name: from-file\nmax_seqs: 3\n")
            f.flush()
            s = Server(FAKE, "--model", MODEL, "--config", f.name, "--served-model-name", "from-flag", env={"GALLEY_MAX_SEQS": "5"})
        self.assertEqual(json.loads(s.request("GET", "/v1/models")[2])["data"][0]["id"], "from-flag")
        self.assertIn("5 sequences", "".join(s.log))
        s.stop()

    def test_port_in_use(self):
        s = Server(FAKE, "--model", MODEL)
        other = subprocess.run([GALLEY, "serve", "--model", MODEL, "--port", str(s.port)], capture_output=True, text=True, timeout=30)
        self.assertEqual(other.returncode, 1)
        self.assertIn(f"port {s.port}", other.stderr)
        s.stop()

    def test_check_config(self):
        good = subprocess.run([GALLEY, "serve", "--model", MODEL, "--check-config"], capture_output=True, text=True, timeout=60)
        self.assertEqual(good.returncode, 0, good.stderr)
        self.assertIn("KV cache", good.stdout)
        reference = os.path.join(ROOT, "config", "galley.yaml")
        self.assertEqual(subprocess.run([GALLEY, "serve", "--model", MODEL, "--config", reference, "--check-config"], capture_output=True).returncode, 0)
        with open(reference) as f:
            documented = set(re.findall(r"^#? ?([a-z_]+):", f.read(), re.M))
        options = subprocess.run([GALLEY, "serve", "--help"], capture_output=True, text=True).stdout
        listed = {name.replace("-", "_") for name in re.findall(r"^  --([a-z-]+)", options, re.M)} - {"config", "check_config"}
        self.assertEqual(documented, listed)


class DemoModel(unittest.TestCase):
    """What a user meets: the bundled model on the default back end."""

    def test_starts_and_answers(self):
        s = Server(GALLEY, *([] if os.path.realpath(GALLEY).startswith(ROOT) else ["--model", MODEL]))  # finds the bundled model by itself
        ms = int(next(line for line in s.log if 'msg="ready"' in line).split("start_ms=")[1])
        self.assertLess(ms, 5000)
        self.assertGreater(len(ask_for_a_story(s, 60)), 50)
        s.stop()

    def test_restarts_from_packed_weights(self):
        def answer(folder):
            s = Server(GALLEY, "--model", MODEL, "--repack-cache", folder)
            text = ask_for_a_story(s, 40)
            s.stop()
            return text, "".join(line for line in s.log if "repack cache" in line)

        with tempfile.TemporaryDirectory() as folder:
            first, log = answer(folder)
            self.assertIn('msg="repack cache written"', log)
            packed = os.path.join(folder, *os.listdir(folder))
            again, log = answer(folder)
            self.assertIn('msg="repack cache read"', log)
            self.assertEqual(first, again)
            with open(packed, "r+b") as f:
                f.seek(-5, os.SEEK_END)
                f.write(b"?")
            repaired, log = answer(folder)
            self.assertIn('reason="its data is damaged"', log)
            self.assertEqual(first, repaired)
            self.assertEqual(os.listdir(folder), [os.path.basename(packed)])

    def test_becomes_fp8_at_load(self):
        def start(model, *flags):
            s = Server(GALLEY, "--model", model, *flags)
            text = ask_for_a_story(s, 40)
            s.stop()
            return text, "".join(s.log)

        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, "wide.gguf")
            subprocess.run([GALLEY, "quantize", MODEL, model, "BF16"], check=True, timeout=60)
            whole, log = start(model)
            self.assertIn("(llama, BF16,", log)
            text, log = start(model, "--quantization", "fp8", "--repack-cache", folder)
            self.assertIn("(llama, FP8,", log)
            self.assertIn('msg="weights made" type=FP8', log)
            self.assertGreater(len(text), 50)
            again, log = start(model, "--quantization", "fp8", "--repack-cache", folder)
            self.assertIn('msg="repack cache read"', log)
            self.assertEqual(text, again)
            other, log = start(model, "--repack-cache", folder)  # what was packed in FP8 is not taken for BF16
            self.assertIn('reason="it holds other tensors"', log)
            self.assertEqual(whole, other)
            self.assertIn("(llama, Q8_0,", start(MODEL, "--quantization", "fp8")[1])  # quantised already


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
