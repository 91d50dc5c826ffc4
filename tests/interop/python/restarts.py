"""Calls Rapport servers that are stopped and started meanwhile, as proto/service_config.json says: none may fail.

    pip install -r requirements.txt
    DATABASE_URL=postgresql://… python restarts.py ../../../target/debug/rapport

The servers are started here, on a database that `rapport migrate` has prepared: first one alone, then two side by side.
One after the other is asked to stop, and is away until it listens at the same address again. (A server that is killed can
cut an answer in two, and gRPC tries no call again once an answer has begun.)
"""

import pathlib
import secrets
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "rapport.v1.RelationshipService"
SERVICE_CONFIG = pathlib.Path(__file__).parents[3] / "proto" / "service_config.json"
RESTARTS, CALLERS, SECONDS_BETWEEN = 4, 4, 1.5
# As the pauses of reconnecting clients are drawn at random, not much more is sure.
FEWEST_RECORDED = 20 * RESTARTS


def free_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def serve(program, address):
    server = subprocess.Popen([program, "serve", "--listen", address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if not server.stdout.readline().startswith(b"Rapport listens"):
        sys.exit("the server did not start")
    return server


class Method:
    """One method, called as a tenant with nothing but the channel's own settings: no timeout, no retries by hand."""

    def __init__(self, channel, pool, name, tenant):
        method = pool.FindServiceByName(SERVICE).methods_by_name[name]
        self.request = GetMessageClass(method.input_type)
        self.call = channel.unary_unary(f"/{SERVICE}/{name}", self.request.SerializeToString,
                                        GetMessageClass(method.output_type).FromString)
        self.pool, self.metadata = pool, [("rapport-tenant", tenant)]

    def __call__(self, **fields):
        return self.call(ParseDict(fields, self.request(), descriptor_pool=self.pool), metadata=self.metadata)


def keep_calling(record, rank, caller, is_enough, recorded, failures):
    number = 0
    while not is_enough.is_set():
        number += 1
        act = {"interaction_id": f"{caller}-{number}", "actor": f"caller-{caller}", "recipients": ["ada"],
               "interaction_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
               "kind": "INTERACTION_KIND_MESSAGE"}
        try:
            record(interaction=act)
            recorded.append(act["interaction_id"])
            rank(person="ada", page_size=5)
        except grpc.RpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")
        time.sleep(0.005)


def converse(channel, program, servers):
    """Calls while the servers, by their address, are restarted. Returns how much was recorded, what failed, and how many
    acts the ledger holds."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    tenant = f"restarts-{secrets.token_hex(8)}"
    record, rank, show = (Method(channel, pool, name, tenant)
                          for name in ("RecordInteraction", "RankConnections", "GetConnection"))
    is_enough, recorded, failures = threading.Event(), [], []
    callers = [threading.Thread(target=keep_calling, args=(record, rank, n, is_enough, recorded, failures), daemon=True)
               for n in range(CALLERS)]
    for caller in callers:
        caller.start()
    for restart in range(RESTARTS):
        time.sleep(SECONDS_BETWEEN)
        address = list(servers)[restart % len(servers)]
        servers[address].terminate()
        servers[address].wait()
        servers[address] = serve(program, address)
    time.sleep(SECONDS_BETWEEN)
    is_enough.set()
    for caller in callers:
        caller.join()
    counted = sum(count.count for n in range(CALLERS)
                  for count in show(person="ada", peer=f"caller-{n}").connection.their_interaction_counts)
    return len(recorded), failures, counted


def restarted(program, how_many):
    """Restarts so many servers under load, and says how it went."""
    servers = {address: serve(program, address) for address in (free_address() for _ in range(how_many))}
    options = [("grpc.service_config", SERVICE_CONFIG.read_text()), ("grpc.default_authority", "rapport")]
    try:
        with grpc.insecure_channel("ipv4:" + ",".join(servers), options) as channel:
            recorded, failures, counted = converse(channel, program, servers)
    finally:
        for server in servers.values():
            server.kill()
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
