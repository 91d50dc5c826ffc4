"""Kills the primary of a Patroni pair under load: nothing acknowledged is lost, and Rapport goes on by itself.

    pip install -r requirements.txt          (Debian: apt install patroni python3-etcd etcd-server haproxy postgresql)
    python failover.py ../../../target/debug/rapport [KILLS]

etcd, two nodes of Patroni with synchronous replication, HAProxy with Patroni's checks, and one Rapport server are started
here. The primary is killed as often as asked, PostgreSQL with Patroni, and once its role is handed over in an orderly way;
each time the other one rejoins before. Callers record all the while; beside them, something new is recorded every 50 ms,
and written every 50 ms by plain SQL through the same HAProxy. How long either fails is told, and Rapport may take
5 seconds longer.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import (Callers, Server, act, as_postgres, assert_exactly, channel_to, free_address, methods,
                     postgres_programs, until)

SECONDS_LONGER = 5
# In seconds: after how long without a sign of life a primary is replaced, and how often Patroni looks.
LEADER_LIFETIME, LOOK = 10, 1


def port(address):
    return address.rpartition(":")[2]


class Node:
    """PostgreSQL under Patroni."""

    def __init__(self, name, folder, etcd):
        self.name, self.data, self.rest, self.postgres = name, folder / name, free_address(), free_address()
        role = lambda name: {"username": name, "password": "secret"}
        self.settings = folder / f"{name}.yaml"
        self.settings.write_text(json.dumps({
            "scope": "rapport", "name": name, "restapi": {"listen": self.rest, "connect_address": self.rest},
            "etcd3": {"host": etcd},
            "bootstrap": {
                "dcs": {"ttl": LEADER_LIFETIME, "loop_wait": LOOK, "retry_timeout": 3, "synchronous_mode": True,
                        "maximum_lag_on_failover": 1 << 20, "postgresql": {"use_pg_rewind": True}},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"]},
            "postgresql": {
                "listen": self.postgres, "connect_address": self.postgres, "data_dir": str(self.data),
                "bin_dir": postgres_programs(), "pgpass": str(folder / f"{name}.pgpass"),
                "basebackup": [{"checkpoint": "fast"}],
                "authentication": {"superuser": role("postgres"), "replication": role("replicator")},
                "pg_hba": ["local all all trust", "host all all 127.0.0.1/32 scram-sha-256",
                           "host replication replicator 127.0.0.1/32 scram-sha-256"],
                "parameters": {"unix_socket_directories": str(folder), "wal_keep_size": "256MB"}}}))
        self.log = open(folder / f"{name}.log", "ab")
        self.start()

    def start(self):
        self.patroni = as_postgres(["patroni", str(self.settings)], stdout=self.log, stderr=self.log)

    def answers(self, path):
        try:
            return urllib.request.urlopen(f"http://{self.rest}/{path}", timeout=1).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self):
        """Kills Patroni, PostgreSQL and all its backends at once."""
        postmaster = (self.data / "postmaster.pid").read_text().split()[0]
        backends = pathlib.Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in (self.patroni.pid, int(postmaster), *map(int, backends)):
            os.kill(process, signal.SIGKILL)
        self.patroni.wait()

    def stop(self):
        self.patroni.terminate()
        self.patroni.wait()


class Cluster:
    """etcd, two nodes, and the HAProxy before them."""

    def __init__(self, folder):
        etcd, peer, self.proxy = free_address(), free_address(), free_address()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.others = [as_postgres(
            ["etcd", "--data-dir", str(folder / "etcd"), "--listen-client-urls", f"http://{etcd}",
             "--advertise-client-urls", f"http://{etcd}", "--listen-peer-urls", f"http://{peer}",
             "--initial-advertise-peer-urls", f"http://{peer}", "--initial-cluster", f"default=http://{peer}"], **quiet)]
        self.nodes = [Node("one", folder, etcd)]
        until("there is a primary", lambda: self.nodes[0].answers("primary"))
        self.nodes.append(Node("two", folder, etcd))
        (folder / "haproxy.cfg").write_text("\n".join([
            "defaults", " mode tcp", " timeout connect 1s", " timeout client 1h", " timeout server 1h",
            "listen primary", f" bind {self.proxy}", " option httpchk GET /primary", " http-check expect status 200",
            " default-server inter 500ms fastinter 100ms fall 2 rise 1 on-marked-down shutdown-sessions",
            *(f" server {node.name} {node.postgres} check port {port(node.rest)}" for node in self.nodes), ""]))
        self.others.append(as_postgres(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], **quiet))
        self.url = f"postgresql://postgres:secret@{self.proxy}/rapport"

    def primary_and_standby(self):
        """Both, once the standby is a synchronous one."""
        for primary, standby in (self.nodes, reversed(self.nodes)):
            if primary.answers("primary") and standby.answers("synchronous"):
                return primary, standby
        return None

    def stop(self):
        for node in self.nodes:
            node.stop()
        for other in self.others:
            other.terminate()
            other.wait()


class Watch:
    """Notes when something new was done, tried every 50 ms."""

    def __init__(self, name, attempt):
        self.name, self.attempt, self.successes, self.is_enough = name, attempt, [], threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self):
        number = 0
        while not self.is_enough.is_set():
            number += 1
            self.attempt(number, lambda: self.successes.append(time.monotonic()))
            time.sleep(0.05)

    def longest_silence(self, since):
        """How long nothing was done at most, and when that ended."""
        times = [at for at in list(self.successes) if at >= since - 1]
        return max((later - earlier, later) for earlier, later in zip(times, times[1:]))

    def end(self):
        self.is_enough.set()
        self.thread.join()


def by_sql(url):
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("CREATE TABLE written (number bigint)")

    def attempt(number, done):
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=2) as database:
                database.execute("INSERT INTO written VALUES (%s)", (number,))
            done()
        except psycopg.Error:
            pass
    return Watch("plain SQL", attempt)


def by_rapport(address):
    channel = channel_to(address, options=[("grpc.enable_retries", 0)])
    record, = methods(channel, "watch", "RecordInteraction")

    def attempt(number, done):
        call = record.begin(20, interaction=act(f"watch-{number}", "watch"))
        call.add_done_callback(lambda call: call.code().value[0] == 0 and done())
    return Watch("Rapport", attempt)


def switch_over(primary, standby):
    body = json.dumps({"leader": primary.name, "candidate": standby.name}).encode()
    request = urllib.request.Request(f"http://{primary.rest}/switchover", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=30).read()


def fail_over(cluster, watches, kill):
    """One failover. The node that was the primary joins again at the end."""
    primary, standby = until("both nodes are in step", cluster.primary_and_standby, 120)
    time.sleep(2)
    begun = time.monotonic()
    if kill:
        primary.kill()
    else:
        switch_over(primary, standby)
    until("another primary serves", lambda: all(
        watch.successes[-1] > begun + 1 and standby.answers("primary") for watch in watches))
    time.sleep(3)
    (sql, sql_ended), (rapport, rapport_ended) = (watch.longest_silence(begun) for watch in watches)
    if kill:
        primary.start()
    how = "killed" if kill else "switched over"
    print(f"{primary.name} {how}: plain SQL failed for {sql:.1f} s, Rapport for {rapport:.1f} s "
          f"and {rapport_ended - sql_ended:+.1f} s longer", flush=True)
    if rapport_ended - sql_ended > SECONDS_LONGER:
        sys.exit("Rapport took too long")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: failover.py PROGRAM [KILLS]")
    program, kills = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 1
    with contextlib.ExitStack() as put_away:
        folder = pathlib.Path(put_away.enter_context(tempfile.TemporaryDirectory()))
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        cluster = Cluster(folder)
        put_away.callback(cluster.stop)
        until("HAProxy has a primary", lambda: create_database(cluster))
        environment = {**os.environ, "DATABASE_URL": cluster.url}
        subprocess.run([program, "migrate"], check=True, env=environment, stdout=subprocess.DEVNULL)
        server = Server(program, DATABASE_URL=cluster.url)
        put_away.callback(server.stop)
        callers, watches = Callers(server.address), [by_sql(cluster.url), by_rapport(server.address)]
        for kill in [True] * kills + [False]:
            fail_over(cluster, watches, kill)
        _, standby = until("both nodes are in step", cluster.primary_and_standby, 120)
        for ending in (*watches, callers):
            ending.end()
        recorded = assert_exactly(program, cluster.url, callers)
        if server.process.poll() is not None:
            sys.exit("the server ended")
        assert_standby_serves_nothing(program, standby)
    print(f"{recorded} acts acknowledged by one server through {kills} kill(s) and a switchover, each in the ledger once; "
          f"{len(callers.passing)} calls had to be made again by hand")


def assert_standby_serves_nothing(program, standby):
    """A standby may not know yet what was acknowledged: nothing is read from it."""
    server = Server(program, DATABASE_URL=f"postgresql://postgres:secret@{standby.postgres}/rapport")
    with channel_to(server.address, options=[("grpc.enable_retries", 0)]) as channel:
        rank, = methods(channel, "standby", "RankConnections")
        try:
            rank(person="ada")
            sys.exit("a standby was read from")
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                sys.exit(f"{error.code().name} instead of UNAVAILABLE from a standby")
        health = health_pb2_grpc.HealthStub(channel)
        status = health.Check(health_pb2.HealthCheckRequest(service="readiness")).status
        if status == health_pb2.HealthCheckResponse.SERVING:
            sys.exit("a server with nothing but a standby is ready")
    server.stop()


def create_database(cluster):
    try:
        with psycopg.connect(cluster.url.replace("/rapport", "/postgres"), autocommit=True) as database:
            database.execute("CREATE DATABASE rapport")
        return True
    except psycopg.OperationalError:
        return False


if __name__ == "__main__":
    main()
