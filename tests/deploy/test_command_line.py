"""Help, shell completion and manual page against the tables they come from, and against each other.

    python3 tests/deploy/test_command_line.py GALLEY [unittest arguments]
"""
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

GALLEY = sys.argv[1]


def galley(*args, status=0):
    done = subprocess.run([GALLEY, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done
    return done.stdout


def flags_of(text):
    return set(re.findall(r"^  (--[a-z][a-z-]*)", text, re.M))


COMMANDS = re.findall(r"^  galley ([a-z]+)  ", galley("--help"), re.M)
FLAGS = {c: flags_of(galley(c, "--help")) for c in COMMANDS}
FLAGS["run"] |= FLAGS["serve"] - {"--unix-socket"}


class Help(unittest.TestCase):
    def test_commands(self):
        self.assertEqual(COMMANDS, ["serve", "run", "bench", "inspect", "quantize", "ngram", "health", "completion"])
        self.assertGreater(len(FLAGS["serve"]), 30)
        for command in COMMANDS:
            self.assertTrue(galley(command, "--help").startswith(f"usage: galley {command} "))
            self.assertEqual(galley(command, "-h"), galley(command, "--help"))

    def test_misuse(self):
        for args in ((), ("nonsense",), ("run", "--nonsense"), ("health", "--nonsense"), ("bench", "--nonsense"), ("inspect",), ("quantize", "a"),
                     ("ngram",), ("ngram", "build"), ("completion",), ("completion", "csh")):
            galley(*args, status=2)


class Bash(unittest.TestCase):
    def complete(self, *words):
        script = galley("completion", "bash") + '\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _galley; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", script, "bash", "galley", *words], capture_output=True, text=True, timeout=30, cwd=self.folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        return done.stdout.split()

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        open(self.folder + "/some.gguf", "w").close()

    def test_words(self):
        self.assertEqual(set(self.complete("")), {*COMMANDS, "--help", "--version"})
        self.assertEqual(self.complete("he"), ["health"])
        for command in COMMANDS:
            self.assertEqual(set(self.complete(command, "--")) - {"--help"}, FLAGS[command], command)
        self.assertEqual(self.complete("serve", "--max-s"), ["--max-seqs"])
        self.assertEqual(self.complete("serve", "--backend", ""), ["auto", "ref", "cpu", "cuda"])
        self.assertEqual(self.complete("serve", "--kv-type", "q"), ["q8_0"])
        self.assertEqual(self.complete("serve", "--model", "so"), ["some.gguf"])
        self.assertEqual(self.complete("serve", "--threads", ""), [])
        self.assertEqual(self.complete("inspect", "so"), ["some.gguf"])
        self.assertEqual(self.complete("completion", ""), ["bash", "zsh", "fish", "man"])
        self.assertEqual(self.complete("nonsense", ""), [])


class OtherShells(unittest.TestCase):
    def test_zsh(self):
        script = galley("completion", "zsh")
        self.assertTrue(script.startswith("#compdef galley\n"))
        for command in COMMANDS:
            part = re.search(rf"^    {command}\)\n(.*?);;$", script, re.M | re.S)[1]
            self.assertEqual(set(re.findall(r"'(--[a-z-]+)\[", part)), FLAGS[command], command)
        if shutil.which("zsh"):
            self.check(["zsh", "-n"], script)

    def test_fish(self):
        script = galley("completion", "fish")
        for command in COMMANDS:
            named = re.findall(rf"^complete -c galley -n '__fish_seen_subcommand_from {command}' -l (\S+)", script, re.M)
            self.assertEqual({"--" + n for n in named}, FLAGS[command], command)
        if shutil.which("fish"):
            self.check(["fish", "--no-execute"], script)
            said = subprocess.run(["fish", "-c", "source -; complete -C 'galley serve --kv-type q'"], input=script, capture_output=True, text=True, timeout=30)
            self.assertIn("q8_0", said.stdout, said)

    def check(self, command, script):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(script)
            f.flush()
            done = subprocess.run([*command, f.name], capture_output=True, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)


class Manual(unittest.TestCase):
    def test_everything_is_in_it(self):
        page = galley("completion", "man")
        named = {n.replace("\\-", "-") for n in re.findall(r"^\\fB(\\-\\-[a-z\\-]+)\\fR", page, re.M)}
        self.assertEqual(named, set().union(*FLAGS.values()))
        for command in COMMANDS:
            self.assertIn(f"\n.SS galley {command}\n", page)
        options = page[page.index(".SH OPTIONS"):]
        self.assertEqual({n.replace("\\-", "-") for n in re.findall(r"^\\fB(\\-\\-[a-z\\-]+)\\fR", options, re.M)}, FLAGS["serve"])

    def test_groff(self):
        if not shutil.which("groff"):
            self.skipTest("there is no groff")
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z"], input=galley("completion", "man"), capture_output=True, text=True, timeout=30)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
