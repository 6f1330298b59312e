"""The server over the cuda back end on a fake CUDA runtime: test_cuda.py GALLEY_CUDA_FAKE MODEL."""
import signal
import sys
import threading
import unittest

from harness import Server

TEXT, CHAT = "/v1/completions", "/v1/chat/completions"


def serve(*flags, devices=1, wait=True, env=None):
    return Server(GALLEY, "--model", MODEL, "--ctx", "512", "--max-seqs", "2", "--max-batch-tokens", "64", "--max-draft", "0", *flags,
                  wait=wait, env={"GALLEY_FAKE_DEVICES": str(devices), **(env or {})})


class Broken(unittest.TestCase):
    def breaks(self, s, number):
        """Requests in flight and those in the queue fail, the server says that it is not well, and ends for its supervisor."""
        results = []
        ask = lambda: results.append(s.post(TEXT, {"prompt": "x", "max_tokens": 400, "ignore_eos": True}))
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for t in threads:
            t.start()
        s.until(lambda: s.metric("vllm:num_requests_running") == 2, "two run")
        self.assertEqual(s.request("GET", "/health")[0], 200)
        s.process.send_signal(number)
        for t in threads:
            t.join()
        self.assertEqual([(status, a["error"]["type"]) for status, a in results], [(500, "server_error")] * 3)
        self.assertEqual(s.request("GET", "/health")[0], 500)
        self.assertEqual(s.request("GET", "/ready")[0], 503)
        self.assertEqual(s.process.wait(60), 75)

    def test_device_lost(self):
        s = serve()
        self.assertEqual(s.post(TEXT, {"prompt": "x", "max_tokens": 3, "ignore_eos": True})[1]["usage"]["completion_tokens"], 3)
        self.breaks(s, signal.SIGUSR1)

    def test_rank_lost(self):
        s = serve("--tensor-parallel", "2", devices=2)
        self.assertEqual(s.post(TEXT, {"prompt": "x", "max_tokens": 3, "ignore_eos": True})[1]["usage"]["completion_tokens"], 3)
        self.breaks(s, signal.SIGUSR1)

    def test_rank_silent(self):
        s = serve("--tensor-parallel", "2", devices=2, env={"GALLEY_FAKE_COMM_MS": "5000"})
        self.breaks(s, signal.SIGUSR2)


class Refused(unittest.TestCase):
    def says(self, words, *flags, devices=1):
        s = serve(*flags, devices=devices, wait=False)
        self.assertNotIn(s.process.wait(60), (0, 75))
        s._ready.wait(5)
        self.assertIn(words, "".join(s.log))

    def test_too_few_devices(self):
        self.says("--tensor-parallel 2: the NVIDIA driver shows 1 device", "--tensor-parallel", "2")

    def test_model_that_cannot_be_cut(self):
        self.says("--tensor-parallel 3 does not divide the model's 2 attention heads", "--tensor-parallel", "3", devices=3)


if __name__ == "__main__":
    GALLEY, MODEL = sys.argv[1:3]
    del sys.argv[1:3]
    unittest.main(verbosity=1)
