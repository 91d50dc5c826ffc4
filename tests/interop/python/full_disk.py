"""Fills the disk below PostgreSQL under load, and empties it again: callers are told to come back, nothing is lost, and all
goes on by itself. As root, for a file system of its own.

    pip install -r requirements.txt
    python full_disk.py ../../../target/debug/rapport

First there is no room for tables, later none for the log either, by which PostgreSQL stops altogether.
"""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import grpc
import psycopg
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from harness import Callers, Server, act, assert_exactly, channel_to, methods, until

# In MiB: the file system, what PostgreSQL does not write over, and one piece of what fills the rest.
SIZE, PIECE = 192, 1
SECONDS_FULL, SECONDS_TO_HEAL = 12, 15


def mounted(folder):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}m,mode=711", "tmpfs", folder], check=True)
    return lambda: subprocess.run(["umount", "--lazy", folder], check=True)


class Ballast:
    """What fills a disk, until it is taken away."""

    def __init__(self, folder):
        self.file = folder / "ballast"
        self.is_enough = threading.Event()
        self.thread = threading.Thread(target=self.keep_full)
        self.thread.start()

    def keep_full(self):
        """Takes whatever becomes free, as a checkpoint may free some."""
        with open(self.file, "wb", buffering=0) as file:
            while not self.is_enough.is_set():
                try:
                    while file.write(bytes(4096)) == 4096 and not self.is_enough.is_set():
                        pass
                except OSError:
                    time.sleep(0.01)

    def take_away(self):
        self.is_enough.set()
        self.thread.join()
        self.file.unlink()


def refusals(address, seconds):
    """Records something new again and again, and returns the errors; every one has to say when to come back."""
    found = []
    with channel_to(address, options=[("grpc.enable_retries", 0)]) as channel:
        record, = methods(channel, "refused", "RecordInteraction")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                record(interaction=act(f"refused-{begun}", f"person-{begun}", f"peer-{begun}"))
            except grpc.RpcError as error:
                details = [detail.TypeName() for detail in rpc_status.from_call(error).details]
                has_advice = any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
                                 for detail in rpc_status.from_call(error).details)
                if error.code() != grpc.StatusCode.UNAVAILABLE or not has_advice:
                    sys.exit(f"{error.code().name} with {details} from a full disk: {error.details()}")
                found.append(time.monotonic() - begun)
    return found


def filled(folder, server, database_url, with_log):
    """One time of a full disk. Returns how many calls were refused, and how long it took until one was recorded after it."""
    ballast = Ballast(folder)
    with contextlib.suppress(psycopg.Error):
        # The log goes on in another file, for which there is no room.
        for _ in range(20 if with_log else 0):
            with psycopg.connect(database_url, autocommit=True, connect_timeout=2) as database:
                database.execute("SELECT pg_logical_emit_message(false, 'full', repeat('x', 1000000)), pg_switch_wal()")
    refused = refusals(server.address, SECONDS_FULL)
    if not refused:
        sys.exit("the disk was not full")
    ballast.take_away()
    begun = time.monotonic()
    with channel_to(server.address) as channel:
        record, = methods(channel, "healed", "RecordInteraction")

        def recorded():
            with contextlib.suppress(grpc.RpcError):
                return record(interaction=act(f"healed-{begun}", "bob"), timeout=5)
        until("something is recorded again", recorded, SECONDS_TO_HEAL)
    return len(refused), time.monotonic() - begun


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: full_disk.py PROGRAM")
    with contextlib.ExitStack() as put_away:
        folder = pathlib.Path(put_away.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)
        put_away.callback(mounted(folder))
        server = Server(sys.argv[1], arguments=["--data-dir", str(folder / "data")])
        put_away.callback(server.stop)
        database_url = f"postgresql://rapport@localhost/rapport?host={folder}/data/socket"
        callers = Callers(server.address)
        for with_log in (False, True):
            time.sleep(3)
            refused, healed = filled(folder, server, database_url, with_log)
            print(f"no room for {'the log' if with_log else 'tables'}: {refused} calls told to come back, "
                  f"recording again {healed:.1f} s after there was room", flush=True)
        time.sleep(1)
        callers.end()
        recorded = assert_exactly(sys.argv[1], database_url, callers)
        if server.process.poll() is not None:
            sys.exit("the server ended")
    print(f"{recorded} acts acknowledged, each in the ledger once")


if __name__ == "__main__":
    main()
