"""Checks the manifests without a cluster: schemas, rules, metrics' names, and the gateway before two servers."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "host" / "tests" / "data" / "tiny" / "llama.f32.gguf"
# Kinds that aren't Kubernetes' own, for which no schema is at hand.
FOREIGN = {"PodMonitor", "PrometheusRule", "RayService"}
FILES = ("replicas", "gateway", "autoscaler", "monitoring", "rayservice")


def documents() -> list[dict]:
    """All objects of all manifests."""
    found = []
    for name in FILES:
        found += list(yaml.safe_load_all((HERE / f"{name}.yaml").read_text()))
    return found


def named(objects: list[dict], kind: str, name: str) -> dict:
    """One of them."""
    return next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)


def check_schemas(objects: list[dict]) -> None:
    """Each object of Kubernetes' own kinds, and the pods within a RayService, have no field that isn't known."""
    for each in objects:
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, "1.31", strict=True)
    cluster = named(objects, "RayService", "herald")["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.31", strict=True)
    for each in objects:
        print(f"{each['kind']} {each['metadata']['name']}: {'parsed' if each['kind'] in FOREIGN else 'valid'}")


def check_references(objects: list[dict]) -> None:
    """What one object calls another by is there."""
    pods = named(objects, "Deployment", "herald")["spec"]["template"]
    labels = pods["metadata"]["labels"]
    for kind, where in (("Service", ("selector",)), ("PodDisruptionBudget", ("selector", "matchLabels")),
                        ("PodMonitor", ("selector", "matchLabels"))):  # fmt: skip
        found = named(objects, kind, "herald")["spec"]
        for part in where:
            found = found[part]
        assert found == labels, f"{kind} selects {found}, where {labels} was expected"
    assert named(objects, "HorizontalPodAutoscaler", "herald")["spec"]["scaleTargetRef"]["name"] == "herald"
    (container,) = pods["spec"]["containers"]
    options = dict(argument.removeprefix("--").split("=") for argument in container["args"])
    assert options["threads"] == container["resources"]["limits"]["cpu"], "threads and CPUs differ"
    assert int(options["grace"]) < pods["spec"]["terminationGracePeriodSeconds"], "pods end before their answers"
    gateway = named(objects, "ConfigMap", "herald-gateway")["data"]["haproxy.cfg"]
    most = int(re.search(r"default-server .* maxconn (\d+) ", gateway)[1])
    room = int(options["parallel"]), int(options["parallel"]) + int(options["queue"])
    assert room[0] < most <= room[1], (
        f"the gateway's maxconn is {most}, where more than {room[0]}, to {room[1]}, was expected"
    )
    application = yaml.safe_load(named(objects, "RayService", "herald")["spec"]["serveConfigV2"])["applications"][0]
    assert application["import_path"] == "herald_engine.ray:configured"
    print("references: all there")


def check_rules(objects: list[dict], folder: pathlib.Path) -> None:
    """promtool takes the rules, and they say what they are tested for."""
    if shutil.which("promtool") is None:
        print("rules: left out, for promtool isn't there")
        return
    (folder / "rules.yaml").write_text(yaml.safe_dump(named(objects, "PrometheusRule", "herald")["spec"]))
    shutil.copy(HERE / "rules_test.yaml", folder)
    for words in (["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]):
        subprocess.run(["promtool", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    print("rules: checked and tested by promtool")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def get(url: str, body: object = None) -> str:
    """What an address answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def wait_for(url: str) -> None:
    """Until an address answers with status 200."""
    until = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError):
            get(url)
            return
        assert time.monotonic() < until, f"{url} doesn't answer within a minute"
        time.sleep(0.1)


@contextlib.contextmanager
def running(words: list[str]):
    """A process, until the end of `with`."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answered(url: str) -> int:
    """How many requests a server has run to their end."""
    totals = re.findall(r"^herald_requests_(?:completed|cut)_total (\d+)$", get(f"{url}/metrics"), re.MULTILINE)
    return sum(map(int, totals))


def check_metrics(metrics: str) -> None:
    """Each metric that the files name is one of the server's, or a rule's."""
    text = "".join((HERE / f"{name}.yaml").read_text() for name in ("autoscaler", "monitoring"))
    # Durations, as Prometheus counts them, and what the rules record.
    names = set(re.findall(r"\bherald_[a-z_]+\b", text))
    missing = {name for name in names if not re.search(rf"^{name}(\{{| )", metrics, re.MULTILINE)}
    assert not missing, f"the server has no {', '.join(sorted(missing))}"
    print(f"metrics: the server has all {len(names)}")


def check_gateway(objects: list[dict], host: str, folder: pathlib.Path) -> None:
    """HAProxy takes the configuration, keeps conversations on their replica, and goes on without one."""
    ports = [free_port() for _ in range(3)]
    text = named(objects, "ConfigMap", "herald-gateway")["data"]["haproxy.cfg"]
    line = next(line for line in text.splitlines() if "server-template" in line)
    here = text.replace(line, "\n".join(f"  server replica{n} 127.0.0.1:{ports[n]}" for n in (0, 1)))
    here = here.replace("bind :8080", f"bind 127.0.0.1:{ports[2]}")
    for name, each in (("cluster.cfg", text), ("here.cfg", here)):
        (folder / name).write_text(each)
        environment = {**os.environ, "NAMESPACE": "default"}
        subprocess.run(["haproxy", "-c", "-q", "-f", folder / name], check=True, env=environment)
    servers = [f"http://127.0.0.1:{port}" for port in ports[:2]]
    url = f"http://127.0.0.1:{ports[2]}"
    with contextlib.ExitStack() as stack:
        processes = []
        for port in ports[:2]:
            words = [
                host,
                "serve",
                "--model",
                str(MODEL),
                "--port",
                str(port),
                "--threads",
                "1",
                "--chat-template",
                "chatml",
            ]
            processes.append(stack.enter_context(running(words)))
        for server in servers:
            wait_for(f"{server}/ready")
        check_metrics(get(f"{servers[0]}/metrics"))
        stack.enter_context(running(["haproxy", "-q", "-f", str(folder / "here.cfg")]))
        wait_for(f"{url}/gateway-ready")
        wait_for(f"{url}/ready")
        homes = [home_of(url, servers, number) for number in range(12)]
        assert 2 <= sum(homes) <= 10, f"one replica has {sum(homes)} of 12 conversations"
        processes[0].kill()
        for number in range(12):
            assert json.loads(get(f"{url}/v1/chat/completions", conversation(number, 1)))["choices"]
        try:
            get(f"{url}/metrics")
        except urllib.error.HTTPError as error:
            assert error.code == 404
    print("gateway: conversations keep their replica, and go on without it")


def conversation(number: int, turns: int) -> dict:
    """A conversation's request after so many turns."""
    messages = [{"role": "system", "content": "s" * 200}, {"role": "user", "content": f"q{number}"}]
    for turn in range(1, turns):
        messages += [{"role": "assistant", "content": f"a{turn}"}, {"role": "user", "content": f"b{turn}"}]
    return {"model": "tiny", "messages": messages, "max_tokens": 2}


def home_of(url: str, servers: list[str], number: int) -> int:
    """Which replica answers all turns of a conversation."""
    homes = set()
    for turns in (1, 2, 3):
        before = [answered(server) for server in servers]
        get(f"{url}/v1/chat/completions", conversation(number, turns))
        homes.add(next(n for n in (0, 1) if answered(servers[n]) > before[n]))
    assert len(homes) == 1, f"conversation {number} was at both replicas"
    return homes.pop()


def main() -> None:
    """All checks."""
    objects = documents()
    check_schemas(objects)
    check_references(objects)
    yaml.safe_load((HERE / "adapter-values.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        check_rules(objects, pathlib.Path(folder))
        host = sys.argv[1]
        if shutil.which("haproxy") is None or not pathlib.Path(host).is_file():
            print("gateway and metrics: left out, for haproxy or the program isn't there")
        else:
            check_gateway(objects, host, pathlib.Path(folder))


if __name__ == "__main__":
    main()
