"""Puts PgBouncer in transaction mode between a Rapport server and PostgreSQL, as deploy/README.md says, with fewer connections
than the server has: everything works, nothing is lost, and what is blocked still ends.

    pip install -r requirements.txt
    python pooler.py ../../../target/debug/rapport [PGBOUNCER]

PostgreSQL is the private one of another server, PgBouncer the one given or that of this machine. One older than 1.21 keeps no
prepared statements; then all that is checked is that the server does not become ready, and says why.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import Callers, Server, act, as_postgres, assert_exactly, channel_to, free_address, methods, until

CONNECTIONS, CALLERS, SECONDS_OF_LOAD = 3, 16, 8
# In seconds: how long a statement waits for a lock, and how much longer an answer may take.
LOCK_TIMEOUT, LONGER = 10, 3


class Pooler:
    """PgBouncer before the database behind a socket."""

    def __init__(self, program, folder, socket):
        # It may be somewhere that only root can read.
        self.program = shutil.copy(shutil.which(program), folder / "pgbouncer")
        said = subprocess.check_output([self.program, "--version"], text=True)
        self.version = tuple(int(number) for number in re.search(r"PgBouncer (\d+)\.(\d+)", said).groups())
        host, _, port = free_address().partition(":")
        self.url = f"postgresql://serving@{host}:{port}/rapport"
        settings = [
            "[databases]", f"rapport = host={socket} user=serving pool_size={CONNECTIONS}", "[pgbouncer]",
            f"listen_addr = {host}", f"listen_port = {port}", "unix_socket_dir =", "auth_type = any",
            "pool_mode = transaction", "ignore_startup_parameters = extra_float_digits, options"]
        if self.keeps_prepared_statements():
            settings.append("max_prepared_statements = 200")
        self.settings, self.log = folder / "pgbouncer.ini", open(folder / "pgbouncer.log", "ab")
        self.settings.write_text("\n".join(settings) + "\n")
        self.start()

    def keeps_prepared_statements(self):
        return self.version >= (1, 21)

    def start(self):
        self.process = as_postgres([self.program, str(self.settings)], stdout=self.log, stderr=self.log)
        until("PgBouncer lets clients in", self.lets_in)

    def lets_in(self):
        try:
            psycopg.connect(self.url).close()
            return True
        except psycopg.OperationalError:
            return False

    def stop(self):
        self.process.kill()
        self.process.wait()


def command(program, url, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True,
                          env={**os.environ, "DATABASE_URL": url})


def is_ready(server):
    with channel_to(server.address) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="readiness")).status
        return status == health_pb2.HealthCheckResponse.SERVING


def settle(program, pooler, direct):
    """Does what `rapport doctor` advises, and nothing else."""
    checks = json.loads(command(program, pooler.url, "doctor", "--json").stdout)["checks"]
    advice, = (check["advice"] for check in checks if check["name"] == "settings of sessions")
    with psycopg.connect(direct, autocommit=True) as database:
        database.execute(advice)
    pooler.stop()
    pooler.start()


def assert_blocked_work_ends(server, direct):
    """A lock that nobody gives up makes a call wait as long as a statement may, and no longer; nor is anything left behind."""
    with channel_to(server.address, options=[("grpc.enable_retries", 0)]) as channel, psycopg.connect(direct) as blocker:
        record, = methods(channel, "blocked", "RecordInteraction")
        blocker.execute("LOCK TABLE ledger")
        begun = time.monotonic()
        try:
            record(interaction=act("blocked", "bob"), timeout=60)
            sys.exit("what was blocked was recorded")
        except grpc.RpcError as error:
            took = time.monotonic() - begun
            if error.code() != grpc.StatusCode.UNAVAILABLE or not LOCK_TIMEOUT - 1 < took < LOCK_TIMEOUT + LONGER:
                sys.exit(f"{error.code().name} after {took:.1f} s")
        waiting = blocker.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        if waiting != (0,):
            sys.exit(f"{waiting[0]} statement(s) still wait")
        blocker.rollback()
        record(interaction=act("blocked", "bob"))
    return took


def served(program, pooler, server, direct):
    migrated = command(program, pooler.url, "migrate")
    if migrated.returncode == 0 or "leads to PostgreSQL itself" not in migrated.stderr:
        sys.exit(f"to migrate through PgBouncer is not refused as it should be: {migrated.stderr}")
    if is_ready(server):
        sys.exit("the server is ready although its sessions lack settings")
    settle(program, pooler, direct)
    until("the server is ready", lambda: is_ready(server))
    conversation = pathlib.Path(__file__).with_name("conversation.py")
    subprocess.run([sys.executable, str(conversation), server.address], check=True, stdout=subprocess.DEVNULL)
    callers = Callers(server.address, CALLERS, pause=0)
    time.sleep(SECONDS_OF_LOAD)
    callers.end()
    if callers.passing:
        sys.exit(f"{len(callers.passing)} calls failed: {callers.passing[:3]}")
    took = assert_blocked_work_ends(server, direct)
    recorded = assert_exactly(program, direct, callers)
    print(f"{recorded} acts recorded in {SECONDS_OF_LOAD} s over {CONNECTIONS} connections, each in the ledger once; what was "
          f"blocked was given up after {took:.1f} s")


def refused(server, log):
    until("the server says why it is not ready", lambda: "PgBouncer keeps them from version 1.21 on" in log.read_text())
    if is_ready(server):
        sys.exit("the server is ready although PgBouncer loses what it prepares")
    print("the server did not become ready, and said why")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: pooler.py PROGRAM [PGBOUNCER]")
    program, bouncer = (sys.argv[1:] + ["pgbouncer"])[:2]
    with contextlib.ExitStack() as put_away:
        folder = pathlib.Path(put_away.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)
        keeper = Server(program, arguments=["--data-dir", str(folder / "data")])
        put_away.callback(keeper.stop)
        socket = folder / "data" / "socket"
        direct = f"postgresql://rapport@localhost/rapport?host={socket}"
        with psycopg.connect(direct, autocommit=True) as database:
            database.execute("CREATE ROLE serving LOGIN")
        command(program, direct, "migrate", "--grant-to", "serving").check_returncode()
        pooler, log = Pooler(bouncer, folder, socket), folder / "server.log"
        put_away.callback(pooler.stop)
        server = Server(program, DATABASE_URL=pooler.url, RAPPORT_TEST_LOG=str(log))
        put_away.callback(server.stop)
        print(f"PgBouncer {'.'.join(map(str, pooler.version))}: ", end="", flush=True)
        if pooler.keeps_prepared_statements():
            served(program, pooler, server, direct)
        else:
            refused(server, log)


if __name__ == "__main__":
    main()
