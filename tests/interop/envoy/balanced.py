"""Puts a real Envoy with deploy/envoy/envoy.yaml in front of two servers, and calls them through it over one connection.

    pip install -r requirements.txt -r ../python/requirements.txt
    DATABASE_URL=postgresql://… python balanced.py ../../../target/debug/rapport

The servers are started here, on a database that `rapport migrate` has prepared, at two loopback addresses (Linux has them) that
Envoy finds by DNS: what the headless service answers in a cluster, a few lines answer here. Ports, the DNS server and the place
of the descriptors are put into the config, and nothing else. The caller tries no call again by itself, so what is tried again,
Envoy does. It shows that calls are balanced one by one, and that none fails and no acknowledged act is lost while servers are
restarted or killed. (A server that is killed can cut an answer in two, and nobody can try a call again once its answer has
begun: those are counted apart.)
"""

import json
import os
import pathlib
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc
import yaml
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))
from harness import Method  # noqa: E402
from restarts import keep_calling  # noqa: E402

CONFIG = pathlib.Path(__file__).parents[3] / "deploy" / "envoy" / "envoy.yaml"
HOSTS = ["127.0.0.2", "127.0.0.3"]
CALLERS, BALANCED_CALLS, FEWEST_RECORDED = 4, 400, 40
# Longer than a health check and its limit: one that began while a server was away must not be held against it later.
SETTLING = 3.5
# What a caller is told of an answer that was cut.
CUT = "RST_STREAM"


def free_ports(count, hosts, kind=socket.SOCK_STREAM):
    """Ports where nobody listens at any of these hosts."""
    found = []
    while len(found) < count:
        with socket.socket(type=kind) as first:
            first.bind((hosts[0], 0))
            port = first.getsockname()[1]
            try:
                for host in hosts[1:]:
                    with socket.socket(type=kind) as other:
                        other.bind((host, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def answer_dns(sock):
    """Answers every question for an IPv4 address with the servers' addresses, and others with none."""
    while True:
        question, sender = sock.recvfrom(512)
        end = question.index(b"\0", 12) + 5
        is_ipv4 = question[end - 4:end - 2] == b"\0\1"
        answers = [b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(host) for host in HOSTS] if is_ipv4 else []
        sock.sendto(question[:2] + b"\x84\0\0\1" + len(answers).to_bytes(2, "big") + b"\0\0\0\0" + question[12:end] + b"".join(answers),
                    sender)


class Server:
    """One server, and what it says of the calls it served."""

    def __init__(self, program, host, port, health_port, **settings):
        self.program, self.host, self.address, self.health = program, host, f"{host}:{port}", f"{host}:{health_port}"
        self.settings = settings
        self.start()

    def start(self):
        settings = os.environ | {"RAPPORT_HEALTH_LISTEN": self.health} | self.settings
        command = [self.program, "serve", "--listen", self.address, "--metrics-listen", f"{self.host}:0"]
        self.process = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.metrics = None
        for line in self.process.stdout:
            if line.startswith(b"Metrics are at "):
                self.metrics = line.split()[-1].decode()
            if line.startswith(b"Rapport listens"):
                break
        if not self.metrics:
            sys.exit("a server did not start")
        until(lambda: is_ready(self.health), "a server is ready")

    def restart(self, stop, admin):
        """Stops it, starts it again, and waits until Envoy knows."""
        stop(self.process)
        self.process.wait()
        time.sleep(0.5)
        self.start()
        time.sleep(SETTLING)
        until(lambda: all_are_healthy(admin), "Envoy finds a server again")

    def calls(self):
        with urllib.request.urlopen(self.metrics) as answer:
            text = answer.read().decode()
        counts = re.findall(r'^rpc_server_call_duration_seconds_count\{.*/RecordInteraction".*\} (\d+)', text, re.MULTILINE)
        return sum(map(int, counts))


def is_ready(address):
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="readiness"), timeout=1)
            return answer.status == health_pb2.HealthCheckResponse.SERVING
        except grpc.RpcError:
            return False


def until(holds, what):
    deadline = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"never: {what}")
        time.sleep(0.1)


def all_are_healthy(admin):
    try:
        with urllib.request.urlopen(f"{admin}/clusters") as answer:
            return len(re.findall(r"::health_flags::healthy\n", answer.read().decode())) == len(HOSTS)
    except OSError:
        return False


def start_envoy(program, folder, port, health_port, origin=None):
    """Starts Envoy with the config as it is shipped but for its ports and DNS server, for the API of this program, and for
    pages of this origin. Returns it, where it listens, and where it says how things stand."""
    listen, admin = free_ports(2, ["127.0.0.1"])
    dns = socket.socket(type=socket.SOCK_DGRAM)
    dns.bind(("127.0.0.1", 0))
    threading.Thread(target=answer_dns, args=(dns,), daemon=True).start()
    config = yaml.safe_load(CONFIG.read_text())
    [listener], [cluster] = config["static_resources"]["listeners"], config["static_resources"]["clusters"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": listen}
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"]["port_value"] = port
    endpoint["health_check_config"]["port_value"] = health_port
    cluster["typed_dns_resolver_config"] = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": dns.getsockname()[1]}}],
            "dns_resolver_options": {"no_default_search_domain": True},
        },
    }
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    [transcoder] = [each for each in manager["http_filters"] if each["name"].endswith("grpc_json_transcoder")]
    descriptors = pathlib.Path(folder) / "rapport.binpb"
    subprocess.run([program, "descriptors", "--output", descriptors], check=True)
    transcoder["typed_config"]["proto_descriptor"] = str(descriptors)
    if origin:
        [host] = manager["route_config"]["virtual_hosts"]
        host["typed_per_filter_config"]["envoy.filters.http.cors"]["allow_origin_string_match"] = [{"exact": origin}]
    path = pathlib.Path(folder) / "envoy.json"
    path.write_text(json.dumps(config))
    log = open(pathlib.Path(folder) / "envoy.log", "wb")
    command = ["envoy", "-c", str(path), "--use-dynamic-base-id", "--log-level", "warning", "--concurrency", "1"]
    envoy = subprocess.Popen(command, stdout=log, stderr=log)
    return envoy, f"127.0.0.1:{listen}", f"http://127.0.0.1:{admin}"


def balanced(servers, record):
    """How many calls each server took of those made one after the other over one connection."""
    before = [server.calls() for server in servers]
    for number in range(BALANCED_CALLS):
        record(interaction={"interaction_id": f"balanced-{number}", "actor": "bob", "recipients": ["ada"],
                            "interaction_time": "2026-01-01T00:00:00Z", "kind": "INTERACTION_KIND_MESSAGE"})
    return [server.calls() - count for server, count in zip(servers, before)]


def under_load(methods, disturb):
    """Calls while the servers are disturbed. Returns how many acts were acknowledged, and what failed."""
    record, rank = methods
    is_enough, recorded, failures = threading.Event(), [], []
    name = secrets.token_hex(4)
    arguments = [(record, rank, f"{name}-{n}", is_enough, recorded, failures) for n in range(CALLERS)]
    callers = [threading.Thread(target=keep_calling, args=each, daemon=True) for each in arguments]
    for caller in callers:
        caller.start()
    time.sleep(1)
    disturb()
    time.sleep(1)
    is_enough.set()
    for caller in callers:
        caller.join()
    return len(recorded), failures


def converse(channel, servers, admin):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    tenant = f"envoy-{secrets.token_hex(8)}"
    record, rank = (Method(channel, pool, name, tenant) for name in ("RecordInteraction", "RankConnections"))
    shares = balanced(servers, record)
    if sum(shares) != BALANCED_CALLS or min(shares) < BALANCED_CALLS * 2 // 5:
        sys.exit(f"calls over one connection are not balanced: {shares}")
    print(f"{BALANCED_CALLS} calls over one connection went to two servers: {shares[0]} and {shares[1]}")
    acknowledged, all_cut = BALANCED_CALLS, 0
    for what, stop in (("restarted", subprocess.Popen.terminate), ("killed", subprocess.Popen.kill)):
        recorded, failures = under_load((record, rank), lambda: [server.restart(stop, admin) for server in servers])
        cut = sum(what == "killed" and CUT in failure for failure in failures)
        if len(failures) > cut or cut > CALLERS * len(servers) or recorded < FEWEST_RECORDED:
            sys.exit(f"{what}: {recorded} acts recorded, {len(failures)} calls failed: {failures[:3]}")
        print(f"{recorded} acts recorded while both servers were {what} in turn, {cut} answers cut, 0 calls failed otherwise")
        acknowledged, all_cut = acknowledged + recorded, all_cut + cut
    ranked = rank(person="ada", page_size=1000).connections
    counted = sum(count.count for connection in ranked for count in connection.their_interaction_counts)
    if not acknowledged <= counted <= acknowledged + all_cut:
        sys.exit(f"{acknowledged} acts were acknowledged, and {counted} are in the ledger")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: balanced.py PROGRAM")
    port, health_port = free_ports(2, HOSTS)
    servers, envoy = [Server(sys.argv[1], host, port, health_port) for host in HOSTS], None
    with tempfile.TemporaryDirectory() as folder:
        try:
            envoy, address, admin = start_envoy(sys.argv[1], folder, port, health_port)
            until(lambda: all_are_healthy(admin), "Envoy finds both servers")
            with grpc.insecure_channel(address, [("grpc.enable_retries", 0)]) as channel:
                converse(channel, servers, admin)
        finally:
            for process in [server.process for server in servers] + [envoy] * bool(envoy):
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
