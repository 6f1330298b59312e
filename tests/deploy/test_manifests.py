"""What deploy/ and docker/ say about Galley, against Galley: metrics, options, ports, paths, probes.

    python3 tests/deploy/test_manifests.py GALLEY GALLEY_FAKE MODEL [unittest arguments]
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

try:
    import yaml
except ImportError:  # Debian: python3-yaml
    print("there is no PyYAML: skipped")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "http"))
from harness import Server  # noqa: E402

GALLEY, FAKE, MODEL = sys.argv[1:4]
DEPLOY, DOCKER = ROOT / "deploy", ROOT / "docker"


def documents(path):
    with open(path) as f:
        return [d for d in yaml.safe_load_all(f) if d is not None]


def metrics_in(text):
    return set(re.findall(r"\b((?:galley|vllm)[_:][a-z0-9_:]+)", text))


class Metrics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        s = Server(FAKE, "--model", MODEL)
        s.ok("/v1/completions", {"prompt": "a b a b a b a b", "max_tokens": 20, "ignore_eos": True})
        text = s.request("GET", "/metrics")[2].decode()
        s.stop()
        cls.samples = set(re.findall(r"^([a-z][a-zA-Z0-9_:]*)[{ ]", text, re.M))
        cls.labels = {name: set(re.findall(r'([a-z_]+)="', labels)) for name, labels in re.findall(r"^([a-z][a-z0-9_:]*)\{(.*)\} ", text, re.M)}

    def exist(self, names, where):
        self.assertTrue(names, where)
        self.assertEqual(names - self.samples, set(), where)

    def test_board(self):
        with open(DEPLOY / "grafana" / "galley.json") as f:
            board = json.load(f)
        panels = [p for p in board["panels"] if p["type"] != "row"]
        self.assertGreater(len(panels), 15)
        places = set()
        for p in panels:
            for t in p["targets"]:
                names = metrics_in(t["expr"])
                self.exist(names, p["title"])
                for label in re.findall(r"\{\{(\w+)\}\}", t["legendFormat"]):
                    self.assertTrue(label == "instance" or any(label in self.labels[n] for n in names), (p["title"], label))
                    self.assertIn(label, t["expr"])
                self.assertEqual(t["expr"].count("("), t["expr"].count(")"))
            place = p["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & places, p["title"])
            self.assertLessEqual(place["x"] + place["w"], 24)
            places |= cells
        self.assertEqual(len({p["id"] for p in board["panels"]}), len(board["panels"]))
        self.exist(metrics_in(json.dumps(board["templating"])), "variables")

    def test_alerts(self):
        [file] = documents(DEPLOY / "prometheus" / "alerts.yaml")
        rules = [r for g in file["groups"] for r in g["rules"]]
        for r in rules:
            self.assertLessEqual({"alert", "expr", "for", "labels", "annotations"}, set(r))
            self.assertIn(r["labels"]["severity"], ("info", "warning", "critical"))
            self.assertEqual(r["expr"].count("("), r["expr"].count(")"))
            if r["alert"] != "GalleyDown":
                self.exist(metrics_in(r["expr"]), r["alert"])
        self.assertEqual(len({r["alert"] for r in rules}), len(rules))
        if shutil.which("promtool"):
            subprocess.run(["promtool", "check", "rules", str(DEPLOY / "prometheus" / "alerts.yaml")], check=True)

    def test_autoscaler(self):
        [adapter] = documents(DEPLOY / "kubernetes" / "prometheus-adapter.yaml")
        [scaler] = documents(DEPLOY / "kubernetes" / "autoscaler.yaml")
        made = {}
        for rule in adapter["rules"]["custom"]:
            self.exist(metrics_in(rule["seriesQuery"]), rule)
            made[rule["name"]["as"]] = rule
        wanted = {m["pods"]["metric"]["name"] for m in scaler["spec"]["metrics"]}
        self.assertEqual(wanted, set(made))

    def test_scrape(self):
        [scrape] = documents(DEPLOY / "prometheus" / "prometheus.yml")
        [compose] = documents(DOCKER / "compose.yaml")
        [job] = scrape["scrape_configs"]
        self.assertEqual(job["static_configs"][0]["targets"], ["galley:8080"])
        self.assertIn("galley", compose["services"])
        for file in scrape["rule_files"]:
            self.assertTrue((DEPLOY / "prometheus" / file).exists())


class Options(unittest.TestCase):
    """What is set anywhere as GALLEY_NAME is an option."""

    def test_variables(self):
        said = subprocess.run([GALLEY, "serve", "--help"], capture_output=True, text=True).stdout
        known = {"GALLEY_" + n.upper().replace("-", "_") for n in re.findall(r"^  --([a-z-]+)", said, re.M)}
        named = set()
        for path in [*DOCKER.rglob("*"), *DEPLOY.rglob("*")]:
            if path.is_file():
                named |= set(re.findall(r"\bGALLEY_[A-Z_]+\b", path.read_text()))
        self.assertGreaterEqual(named, {"GALLEY_HOST", "GALLEY_MODEL", "GALLEY_API_KEY_FILE"})
        self.assertEqual(named - known, set())


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.all = {}
        for path in (DEPLOY / "kubernetes").glob("*.yaml"):
            for d in documents(path):
                if "kind" in d:
                    assert (d["kind"]) not in cls.all, path
                    cls.all[d["kind"]] = d

    def test_kinds(self):
        versions = {"Deployment": "apps/v1", "Service": "v1", "PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2",
                    "InferencePool": "inference.networking.k8s.io/v1", "HTTPRoute": "gateway.networking.k8s.io/v1",
                    "Kustomization": "kustomize.config.k8s.io/v1beta1"}
        self.assertEqual({k: d["apiVersion"] for k, d in self.all.items()}, versions)
        for kind, d in self.all.items():
            if kind != "Kustomization":
                self.assertEqual(d["metadata"]["name"], "galley")
        for name in re.findall(r"- ([a-z-]+\.yaml)", (DEPLOY / "kubernetes" / "kustomization.yaml").read_text()):
            self.assertTrue((DEPLOY / "kubernetes" / name).exists(), name)

    def test_pods(self):
        spec = self.all["Deployment"]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        self.assertEqual(spec["selector"]["matchLabels"], labels)
        self.assertEqual(self.all["Service"]["spec"]["selector"], labels)
        for kind in ("PodDisruptionBudget", "InferencePool"):
            self.assertEqual(self.all[kind]["spec"]["selector"]["matchLabels"], labels)
        pod = spec["template"]["spec"]
        [c] = pod["containers"]
        for probe, path in (("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")):
            self.assertEqual(c[probe]["httpGet"], {"path": path, "port": "http"})
        [port] = c["ports"]
        self.assertEqual(port, {"name": "http", "containerPort": 8080})
        self.assertEqual(self.all["Service"]["spec"]["ports"][0]["targetPort"], "http")
        self.assertEqual(self.all["InferencePool"]["spec"]["targetPorts"], [{"number": 8080}])
        self.assertEqual({v["name"] for v in pod["volumes"]}, {m["name"] for m in c["volumeMounts"]})
        mounts = [m["mountPath"] for m in c["volumeMounts"]]
        for e in c["env"]:
            if e.get("value", "").startswith("/"):
                self.assertIn(os.path.dirname(e["value"]), mounts)
        self.assertTrue(pod["securityContext"]["runAsNonRoot"] and c["securityContext"]["readOnlyRootFilesystem"])
        self.assertGreater(pod["terminationGracePeriodSeconds"], 30 + c["lifecycle"]["preStop"]["sleep"]["seconds"])

    def test_references(self):
        target = self.all["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        self.assertEqual((target["kind"], target["name"]), ("Deployment", "galley"))
        [backend] = self.all["HTTPRoute"]["spec"]["rules"][0]["backendRefs"]
        self.assertEqual((backend["kind"], backend["name"]), ("InferencePool", "galley"))


class Docker(unittest.TestCase):
    def test_files(self):
        for name in ("Dockerfile", "cuda.Dockerfile"):
            text = (DOCKER / name).read_text()
            final = text[text.index("FROM scratch"):]
            self.assertIn("USER 65532:65532", final)
            self.assertIn('CMD ["/usr/bin/galley", "health"]', final)
            self.assertIn("EXPOSE 8080", final)
            for source in re.findall(r"^COPY (?!--from)(\S+) ", text, re.M):
                self.assertTrue((ROOT / source).exists(), source)
            self.assertTrue((DOCKER / (name + ".dockerignore")).exists())

    def test_compose(self):
        [compose] = documents(DOCKER / "compose.yaml")
        self.assertEqual(set(compose["services"]), {"galley", "prometheus", "grafana"})
        for s in compose["services"].values():
            for volume in s.get("volumes", []):
                source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
                self.assertTrue((DOCKER / source).exists(), volume)
        build = compose["services"]["galley"]["build"]
        self.assertTrue((DOCKER / build["context"] / build["dockerfile"]).exists())
        [source] = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")
        self.assertEqual(source["datasources"][0]["url"], "http://prometheus:9090")


class Systemd(unittest.TestCase):
    def test_unit(self):
        text = (DEPLOY / "systemd/galley.service.in").read_text()
        self.assertIn("RestartForceExitStatus=75", text)
        self.assertIn("Type=notify", text)
        if not shutil.which("systemd-analyze"):
            self.skipTest("there is no systemd-analyze")
        folder = pathlib.Path(GALLEY).resolve().parent
        unit = folder / "verified-galley.service"
        try:  # its binary must exist, the manual page need not
            unit.write_text(text.replace("@bindir@", str(folder)).replace("@sysconfdir@", str(ROOT / "config")).replace("Documentation=man:galley(1)\n", ""))
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
            self.assertEqual((done.returncode, [line for line in done.stderr.splitlines() if "galley" in line]), (0, []), done)
        finally:
            unit.unlink()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
