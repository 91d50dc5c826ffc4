"""Sets a server's clock back and ahead under load: what is sound is recorded exactly once, rankings stay sorted, pages go on.

    pip install -r requirements.txt          (Debian: apt install faketime)
    python clock.py ../../../target/debug/rapport

The clock is that of libfaketime, which goes before the C library; so the program must not be linked statically. PostgreSQL
keeps the true time.
"""

import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone

import grpc

from harness import Callers, Server, act, assert_exactly, channel_to, methods

JUMPS = ["-1h", "+1d", "-10s", "+0s", "-1h", "+0s"]
SECONDS_BETWEEN = 2
# How long ago acts are that no clock here takes for later than now.
SOUND = timedelta(hours=2)


def library():
    """Where libfaketime is; its wrapper knows."""
    said = subprocess.check_output(["faketime", "-f", "+0s", "sh", "-c", "echo $LD_PRELOAD"], text=True)
    return said.strip()


def connections(rank, person):
    """A whole ranking, a connection a page; the clock may jump between any two."""
    token = ""
    while True:
        page = rank(person=person, page_size=1, order_by="RANK_ORDER_THEY_WOULD_HELP", page_token=token)
        for connection in page.connections:
            yield connection.they_would_help.lower, page.as_of_time.ToNanoseconds()
        token = page.next_page_token
        if not token:
            return


def assert_sorted(ranked):
    lowers, times = zip(*ranked)
    if list(lowers) != sorted(lowers, reverse=True) or len(set(times)) != 1 or not all(0 <= low <= 1 for low in lowers):
        sys.exit(f"a ranking is not sorted, or not of one time: {ranked}")


def assert_behind(record):
    """A server whose clock is behind refuses what seems to lie ahead, and says so."""
    try:
        record(interaction=act("ahead", "bob"))
        sys.exit("a server whose clock is an hour behind took what lies an hour ahead of it")
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.INVALID_ARGUMENT or "interaction_time" not in error.details():
            sys.exit(f"{error.code().name}: {error.details()}")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: clock.py PROGRAM")
    program = sys.argv[1]
    with contextlib.ExitStack() as put_away:
        folder = pathlib.Path(put_away.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)
        keeper = Server(program, arguments=["--data-dir", str(folder / "data")])
        put_away.callback(keeper.stop)
        database_url = f"postgresql://rapport@localhost/rapport?host={folder}/data/socket"
        ahead = folder / "ahead"
        ahead.write_text("+0s\n")
        server = Server(program, DATABASE_URL=database_url, LD_PRELOAD=library(), FAKETIME_TIMESTAMP_FILE=str(ahead),
                        FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1", RAPPORT_TENANT_RATE="100000")
        put_away.callback(server.stop)
        callers = Callers(server.address, since=SOUND)
        time.sleep(SECONDS_BETWEEN)
        with channel_to(server.address) as channel:
            record, rank = methods(channel, callers.tenant, "RecordInteraction", "RankConnections")
            for number in range(len(JUMPS) + 2):
                record(interaction=act(f"paged-{number}", f"actor-{number}", "paged", SOUND))
                callers.acknowledged.append(f"paged-{number}")
            begun = connections(rank, "paged")
            ranked, told = [next(begun)], []
            for jump in JUMPS:
                ahead.write_text(f"{jump}\n")
                told.append(rank(person="friend-0", page_size=1).as_of_time.ToDatetime(timezone.utc)
                            - datetime.now(timezone.utc))
                if jump == "-1h":
                    assert_behind(record)
                assert_sorted(list(connections(rank, "friend-0")))
                time.sleep(SECONDS_BETWEEN)
                ranked.append(next(begun))
            assert_sorted(ranked + list(begun))
        callers.end()
        if callers.passing:
            sys.exit(f"{len(callers.passing)} calls failed: {callers.passing[:3]}")
        recorded = assert_exactly(program, database_url, callers)
        if server.process.poll() is not None:
            sys.exit("the server ended")
    said = ", ".join(f"{jump} ({ahead.total_seconds():+.0f} s)" for jump, ahead in zip(JUMPS, told))
    print(f"{recorded} acts acknowledged while the clock went {said}, each in the ledger once; 0 calls failed")


if __name__ == "__main__":
    main()
