"""Calls Rapport servers that are stopped and started meanwhile, as proto/service_config.json says: none may fail.

    pip install -r requirements.txt
    DATABASE_URL=postgresql://… python restarts.py ../../../target/debug/rapport

The servers are started here, on a database that `rapport migrate` has prepared: first one alone, then two side by side.
One after the other is asked to stop, and is away until it listens at the same address again. (A server that is killed can
cut an answer in two, and gRPC tries no call again once an answer has begun.)
"""

import secrets
import sys
import threading
import time

import grpc

from harness import Server, act, channel_to, free_address, methods

RESTARTS, CALLERS, SECONDS_BETWEEN = 4, 4, 1.5
# As the pauses of reconnecting clients are drawn at random, not much more is sure.
FEWEST_RECORDED = 20 * RESTARTS


def keep_calling(record, rank, caller, is_enough, recorded, failures):
    number = 0
    while not is_enough.is_set():
        number += 1
        try:
            recorded_act = act(f"{caller}-{number}", f"caller-{caller}")
            record(interaction=recorded_act)
            recorded.append(recorded_act["interaction_id"])
            rank(person="ada", page_size=5)
        except grpc.RpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
        time.sleep(0.005)


def converse(channel, program, servers):
    """Calls while the servers, by their address, are restarted. Returns how much was recorded, what failed, and how many
    acts the ledger holds."""
    tenant = f"restarts-{secrets.token_hex(8)}"
    record, rank, show = methods(channel, tenant, "RecordInteraction", "RankConnections", "GetConnection")
    is_enough, recorded, failures = threading.Event(), [], []
    callers = [threading.Thread(target=keep_calling, args=(record, rank, n, is_enough, recorded, failures), daemon=True)
               for n in range(CALLERS)]
    for caller in callers:
        caller.start()
    for restart in range(RESTARTS):
        time.sleep(SECONDS_BETWEEN)
        address = list(servers)[restart % len(servers)]
        servers[address].stop()
        servers[address] = Server(program, address)
    time.sleep(SECONDS_BETWEEN)
    is_enough.set()
    for caller in callers:
        caller.join()
    counted = sum(count.count for n in range(CALLERS)
                  for count in show(person="ada", peer=f"caller-{n}").connection.their_interaction_counts)
    return len(recorded), failures, counted


def restarted(program, how_many):
    """Restarts so many servers under load, and says how it went."""
    servers = {address: Server(program, address) for address in (free_address() for _ in range(how_many))}
    try:
        with channel_to(*servers) as channel:
            recorded, failures, counted = converse(channel, program, servers)
    finally:
        for server in servers.values():
            server.process.kill()
    if failures or recorded != counted or recorded < FEWEST_RECORDED:
        sys.exit(f"{len(failures)} calls failed, {recorded} were recorded, {counted} are in the ledger: {failures[:3]}")
    print(f"{recorded} acts recorded by {how_many} server(s) through {RESTARTS} restarts, 0 calls failed")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: restarts.py PROGRAM")
    for how_many in (1, 2):
        restarted(sys.argv[1], how_many)


if __name__ == "__main__":
    main()
