"""What the scripts beside it share: servers of the program, calls as proto/service_config.json says, callers that record
without end, and what the ledger holds in the end."""

import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import grpc
import psycopg
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "rapport.v1.RelationshipService"
SERVICE_CONFIG = pathlib.Path(__file__).parents[3] / "proto" / "service_config.json"
# What passes by itself, also when the retries of the service config were not enough.
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def free_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def until(what, holds, seconds=60):
    """Waits until something holds, and returns what it came to."""
    end = time.monotonic() + seconds
    while not (held := holds()):
        if time.monotonic() > end:
            sys.exit(f"never: {what}")
        time.sleep(0.1)
    return held


def as_postgres(command, **settings):
    """Starts a program that refuses root as another user, when this is root."""
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
    return subprocess.Popen(command, **settings)


def postgres_programs():
    """The folder with PostgreSQL's programs."""
    if not shutil.which("pg_config"):
        return str(max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)))
    return subprocess.check_output(["pg_config", "--bindir"], text=True).strip()


class Server:
    """A server of the program, with these variables beside the environment's."""

    def __init__(self, program, address="127.0.0.1:0", arguments=(), before=(), **variables):
        command = [*before, program, "serve", "--listen", address, *arguments]
        environment = {**os.environ, "RAPPORT_LOG": "warn", **variables}
        log = open(environment["RAPPORT_TEST_LOG"], "ab") if "RAPPORT_TEST_LOG" in environment else subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        said = {}
        while "Rapport listens on" not in said:
            line = self.process.stdout.readline() or sys.exit("the server did not start")
            said[line.rpartition(" ")[0]] = line.split()[-1]
        self.address, self.metrics_url = said["Rapport listens on"], said.get("Metrics are at")

    def stop(self):
        self.process.terminate()
        return self.process.wait()


def channel_to(*addresses, options=()):
    options = [("grpc.service_config", SERVICE_CONFIG.read_text()), ("grpc.default_authority", "rapport"), *options]
    return grpc.insecure_channel("ipv4:" + ",".join(addresses), options)


class Method:
    """One method, called as a tenant with nothing but the channel's own settings: no timeout, no retries by hand."""

    def __init__(self, channel, pool, name, tenant):
        method = pool.FindServiceByName(SERVICE).methods_by_name[name]
        self.request = GetMessageClass(method.input_type)
        self.call = channel.unary_unary(f"/{SERVICE}/{name}", self.request.SerializeToString,
                                        GetMessageClass(method.output_type).FromString)
        self.pool, self.metadata = pool, [("rapport-tenant", tenant)]

    def __call__(self, timeout=None, **fields):
        return self.call(self.message(fields), timeout=timeout, metadata=self.metadata)

    def begin(self, timeout, **fields):
        return self.call.future(self.message(fields), timeout=timeout, metadata=self.metadata)

    def message(self, fields):
        return ParseDict(fields, self.request(), descriptor_pool=self.pool)


def methods(channel, tenant, *names):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    return [Method(channel, pool, name, tenant) for name in names]


def act(id, actor, recipient="ada", since=timedelta()):
    return {"interaction_id": id, "actor": actor, "recipients": [recipient], "kind": "INTERACTION_KIND_MESSAGE",
            "interaction_time": (datetime.now(timezone.utc) - since).strftime("%Y-%m-%dT%H:%M:%SZ")}


class Callers:
    """Threads that record acts of a tenant, each until it is acknowledged, and rank now and then."""

    def __init__(self, address, how_many=8, pause=0.005, since=timedelta()):
        self.tenant, self.pause, self.since = f"callers-{secrets.token_hex(8)}", pause, since
        self.channel = channel_to(address)
        self.record, self.rank = methods(self.channel, self.tenant, "RecordInteraction", "RankConnections")
        self.acknowledged, self.passing, self.failures, self.is_enough = [], [], [], threading.Event()
        self.threads = [threading.Thread(target=self.keep_calling, args=(n,), daemon=True) for n in range(how_many)]
        for thread in self.threads:
            thread.start()

    def keep_calling(self, caller):
        number = 0
        while not self.is_enough.is_set():
            number += 1
            recorded = act(f"{caller}-{number}", f"caller-{caller}", f"friend-{number % 20}", self.since)
            while not self.acknowledges(recorded) and not self.failures:
                time.sleep(0.1)
            if number % 5 == 0:
                self.tried(lambda: self.rank(person="friend-0", page_size=5))
            time.sleep(self.pause)

    def acknowledges(self, recorded):
        if self.tried(lambda: self.record(interaction=recorded)):
            self.acknowledged.append(recorded["interaction_id"])
            return True
        return False

    def tried(self, call):
        try:
            call()
            return True
        except grpc.RpcError as error:
            kept = self.passing if error.code() in PASSING else self.failures
            kept.append(f"{error.code().name}: {error.details()}")
            return False

    def end(self):
        self.is_enough.set()
        for thread in self.threads:
            thread.join()
        self.channel.close()


def assert_exactly(program, database_url, callers):
    """The ledger holds what was acknowledged, each once, and nothing else; and all that is derived from it agrees."""
    # It folds first what no server did.
    checked = subprocess.run([program, "rebuild", "--check"], capture_output=True, text=True,
                             env={**os.environ, "DATABASE_URL": database_url})
    if checked.returncode != 0:
        sys.exit(f"what is derived from the ledger differs: {checked.stdout}{checked.stderr}")
    with psycopg.connect(database_url, autocommit=True) as database:
        rows = database.execute("SELECT interaction_id FROM ledger WHERE tenant = %s", (callers.tenant,)).fetchall()
        counts, = database.execute(
            "SELECT coalesce(sum(count), 0) FROM tie, unnest(counts) AS count WHERE tenant = %s",
            (callers.tenant,)).fetchone()
    held, acknowledged = sorted(id for id, in rows), sorted(callers.acknowledged)
    if callers.failures:
        sys.exit(f"{len(callers.failures)} calls failed for good: {callers.failures[:3]}")
    if held != acknowledged or counts != len(acknowledged):
        lost, extra = set(acknowledged) - set(held), set(held) - set(acknowledged)
        sys.exit(f"{len(acknowledged)} acts were acknowledged, {len(held)} are in the ledger and {counts} in the ties; "
                 f"lost: {sorted(lost)[:5]}; never acknowledged: {sorted(extra)[:5]}")
    return len(acknowledged)
