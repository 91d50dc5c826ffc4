"""Keeps a Rapport server under a steady mixed load, and watches that what it holds on to does not grow.

    pip install -r requirements.txt
    python soak.py ../../../target/release/rapport [MINUTES [CALLS_A_SECOND]]

Server and private PostgreSQL are started here. Each minute `rapport bench` opens its connections anew, records 10,000 acts
again over a stream, then ranks and records at the given rate. Of each ten seconds there is a line with the server's memory,
threads, open files, tasks, connections to the database (as it counts them and as PostgreSQL does) and the size of the ledger.
At the end thirds are compared: what the last third holds must not be more than the first's, give or take a tenth of memory.
"""

import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import psycopg

from harness import Server

SECONDS_BETWEEN, SECONDS_OF_RUN = 10, 55
MEMORY_MAY_GROW = 1.10
COLUMNS = ("memory_mib", "threads", "files", "tasks", "connections", "sessions", "acts")


class Watched(Server):
    """A server with a private PostgreSQL in the folder."""

    def __init__(self, program, folder):
        super().__init__(program, arguments=["--metrics-listen", "127.0.0.1:0", "--data-dir", folder])
        self.database = psycopg.connect(f"postgresql://rapport@/rapport?host={folder}/socket", autocommit=True)

    def sample(self):
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        metrics = urllib.request.urlopen(self.metrics_url).read().decode()
        gauge = lambda name: sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.M))
        sessions, = self.database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rapport'").fetchone()
        acts, = self.database.execute("SELECT count(*) FROM ledger").fetchone()
        return (int(status["VmRSS"].split()[0]) / 1024, int(status["Threads"]), len(list((proc / "fd").iterdir())),
                gauge("rapport_runtime_tasks"), gauge("db_client_connection_count"), sessions, acts)


def keep_loading(program, address, rate, is_enough, failures):
    while not is_enough.is_set():
        ran = subprocess.run(
            [program, "bench", "mixed", "--server", f"http://{address}", "--rate", rate, "--warm-up", "0", "--seconds",
             str(SECONDS_OF_RUN), "--callers", "32"], capture_output=True, text=True)
        if ran.returncode != 0:
            failures.append(ran.stdout + ran.stderr)


def slope(times, values):
    """By how much the values grow in an hour, by least squares."""
    return statistics.linear_regression(times, values).slope * 3600


def judge(times, samples):
    third = len(samples) // 3
    grown = []
    for column, name in enumerate(COLUMNS):
        values = [sample[column] for sample in samples]
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        print(f"{name}: median {first:.1f} in the first third, {last:.1f} in the last, "
              f"{slope(times, values):+.1f} an hour, at most {max(values):.1f}")
        may_be = {"memory_mib": first * MEMORY_MAY_GROW, "acts": float("inf")}.get(name, max(values[:third]))
        if last > may_be:
            grown.append(name)
    return grown


def main():
    if not 2 <= len(sys.argv) <= 4:
        sys.exit("usage: soak.py PROGRAM [MINUTES [CALLS_A_SECOND]]")
    program, minutes, rate = sys.argv[1:] + ["30", "200"][len(sys.argv) - 2:]
    is_enough, failures, times, samples = threading.Event(), [], [], []
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o711)
        server = Watched(program, f"{folder}/data")
        load = threading.Thread(target=keep_loading, args=(program, server.address, rate, is_enough, failures))
        load.start()
        try:
            begun = time.monotonic()
            print("seconds", *COLUMNS)
            while time.monotonic() - begun < float(minutes) * 60:
                time.sleep(SECONDS_BETWEEN)
                times.append(time.monotonic() - begun)
                samples.append(server.sample())
                print(f"{times[-1]:.0f}", *(f"{value:.0f}" for value in samples[-1]), flush=True)
        finally:
            is_enough.set()
            load.join()
            code = server.stop()
    if failures or code != 0:
        sys.exit(f"{len(failures)} runs failed, and the server ended with {code}: {failures[:1]}")
    if grown := judge(times, samples):
        sys.exit(f"these grew: {', '.join(grown)}")


if __name__ == "__main__":
    main()
