"""meson install into a folder: everything is there, and what is there works without the build.

    python3 tests/deploy/test_install.py MESON BUILD_FOLDER SOURCE_FOLDER [unittest arguments]
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

MESON, BUILD, SOURCE = sys.argv[1:4]
sys.path.insert(0, os.path.join(SOURCE, "tests", "http"))
from harness import Server  # noqa: E402


def options():
    with open(os.path.join(BUILD, "meson-info", "intro-buildoptions.json")) as f:
        return {o["name"]: o["value"] for o in json.load(f)}


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dest = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.dest)
        subprocess.run([*MESON.split(), "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", cls.dest, "--tags", "runtime"], check=True,
                       capture_output=True)
        cls.prefix = options()["prefix"]
        cls.root = pathlib.Path(cls.dest + cls.prefix)
        cls.config = pathlib.Path(cls.dest) / os.path.join(cls.prefix, options()["sysconfdir"])[1:]
        cls.galley = str(cls.root / options()["bindir"] / "galley")

    def printed(self, kind):
        return subprocess.run([self.galley, "completion", kind], capture_output=True, text=True, check=True).stdout

    def test_files(self):
        share = self.root / options()["datadir"]
        self.assertEqual((self.root / options()["mandir"] / "man1/galley.1").read_text(), self.printed("man"))
        for path, shell in (("bash-completion/completions/galley", "bash"), ("zsh/site-functions/_galley", "zsh"), ("fish/vendor_completions.d/galley.fish", "fish")):
            self.assertEqual((share / path).read_text(), self.printed(shell))
        for name in ("target.gguf", "draft.gguf", "ngram.bin"):
            self.assertTrue((share / "galley/demo" / name).exists(), name)
        self.assertIn("Apache License", (share / "doc/galley/LICENSE").read_text())
        everything = {p for p in pathlib.Path(self.dest).rglob("*") if p.is_file()}
        self.assertEqual(len(everything), 11, everything)
        self.assertFalse([p for p in everything if p.stat().st_mode & 0o022], "writable by others")

    def test_unit_and_configuration(self):
        unit = (self.root / "lib/systemd/system/galley.service").read_text()
        config = self.config / "galley/galley.yaml"
        self.assertIn(f"ExecStart={self.galley[len(self.dest):]} serve --config {str(config)[len(self.dest):]}\n", unit)
        self.assertNotIn("@", unit.replace("@system-service", ""))
        subprocess.run([self.galley, "serve", "--config", str(config), "--check-config"], check=True, capture_output=True)

    def test_serves(self):
        """The demo model is found beside the binary."""
        s = Server(self.galley)
        status, answer = s.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 5})
        self.assertEqual(status, 200, answer)
        s.stop()
        self.assertTrue(subprocess.run([self.galley, "run", "--max-tokens", "5", "Tell me a story."], stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
