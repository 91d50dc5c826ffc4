"""One conversation with a running Rapport server, held by grpcio.

    pip install -r requirements.txt
    python conversation.py localhost:50051

Nothing of Rapport is imported: the contract is what the server itself tells by reflection, and the channel is set up as
proto/service_config.json says. Every run speaks as a fresh random tenant, so it can be repeated against the same server.
"""

import difflib
import pathlib
import pprint
import re
import secrets
import sys
from datetime import datetime, timedelta, timezone

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

SERVICE = "rapport.v1.RelationshipService"
SERVICE_CONFIG = pathlib.Path(__file__).parents[3] / "proto" / "service_config.json"
TIMEOUT_SECONDS = 20
ORDER_KEYS = {
    "RANK_ORDER_UNSPECIFIED": lambda c: c.mutual.lower,
    "RANK_ORDER_MUTUAL": lambda c: c.mutual.lower,
    "RANK_ORDER_THEY_WOULD_HELP": lambda c: c.they_would_help.lower,
    "RANK_ORDER_YOU_WOULD_HELP": lambda c: c.you_would_help.lower,
    "RANK_ORDER_LAST_INTERACTION": lambda c: c.last_interaction_time.ToNanoseconds(),
}
passed = 0


def check(what, actual, expected=True):
    """Counts and prints a step, or shows the difference and ends the run."""
    global passed
    if actual == expected:
        passed += 1
        print(f"ok {what}")
        return
    lines = [pprint.pformat(value, width=100).splitlines() for value in (expected, actual)]
    fail(what, *difflib.unified_diff(*lines, "expected", "actual", lineterm=""))


def fail(what, *difference):
    print(f"not ok {what}", *difference, f"{passed} passed, 1 failed", sep="\n")
    sys.exit(1)


class Caller:
    """Calls the service as one tenant, with the message types that the server describes."""

    def __init__(self, channel, pool, tenant):
        self.channel, self.pool, self.metadata = channel, pool, [("rapport-tenant", tenant)]

    def _method(self, name, kind):
        method = self.pool.FindServiceByName(SERVICE).methods_by_name[name]
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        call = kind(f"/{SERVICE}/{name}", request.SerializeToString, response.FromString)
        return call, lambda fields: ParseDict(fields, request(), descriptor_pool=self.pool)

    def __call__(self, name, **fields):
        call, message = self._method(name, self.channel.unary_unary)
        return call(message(fields), timeout=TIMEOUT_SECONDS, metadata=self.metadata)

    def stream(self, name, items):
        call, message = self._method(name, self.channel.stream_stream)
        return list(call(map(message, items), timeout=TIMEOUT_SECONDS, metadata=self.metadata))

    def refused(self, name, **fields):
        """What a call that has to fail is refused with."""
        try:
            return {"answered": str(self(name, **fields))}
        except grpc.RpcError as error:
            status = rpc_status.from_call(error) or status_pb2.Status()
            return {"code": error.code().name, **details(status)}


def details(status):
    """The `google.rpc` details of a status, as far as this conversation looks at them."""
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad_request)
    fields = sorted(violation.field for violation in bad_request.field_violations)
    return {"reason": info.reason, "domain": info.domain, "fields": fields}


def refusal(code, reason, *fields):
    return {"code": code, "reason": reason, "domain": "rapport", "fields": sorted(fields)}


def enum_name(message, field):
    return message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[getattr(message, field)].name


def days_ago(days):
    """A time as JSON wants it; in whole seconds, so that it survives any client's clock."""
    return (datetime.now(timezone.utc) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def interaction(identifier, actor, recipients, days, kind, **more):
    return {"interaction_id": identifier, "actor": actor, "recipients": recipients,
            "interaction_time": days_ago(days), "kind": f"INTERACTION_KIND_{kind}", **more}


def numbered(interactions):
    return [{"sequence": n, "interaction": item} for n, item in enumerate(interactions, 1)]


def health_and_reflection(channel, reflected):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "liveness", "readiness", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_SECONDS, wait_for_ready=True)
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        check(f"health of {service!r}", state, "SERVING")
    check("reflection v1alpha lists the service", SERVICE in reflected.get_services())
    # The messages of v1 are those of v1alpha; only the path differs.
    list_v1 = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                    reflection_pb2.ServerReflectionRequest.SerializeToString,
                                    reflection_pb2.ServerReflectionResponse.FromString)
    answers = list(list_v1(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=TIMEOUT_SECONDS))
    check("reflection v1 lists the service", SERVICE in [s.name for s in answers[0].list_services_response.service])


def recording_once(ada):
    help_given = interaction("help-1", "bob", ["ada"], 1, "HELP", channel="email", topics=["rust"])
    first = ada("RecordInteraction", interaction=help_given)
    check("a first recording is no replay", (first.interaction_id, first.replayed), ("help-1", False))
    second = ada("RecordInteraction", interaction=help_given)
    check("the same again is a replay", (second.interaction_id, second.replayed), ("help-1", True))
    check("a replay has the first record time", second.record_time.ToNanoseconds(), first.record_time.ToNanoseconds())
    check("the same id with other content is refused",
          ada.refused("RecordInteraction", interaction={**help_given, "topics": ["go"]}),
          refusal("ALREADY_EXISTS", "INTERACTION_CONFLICT"))
    nameless = interaction("", "eve", ["finn"], 1, "HELP")
    made = ada("RecordInteraction", interaction=nameless).interaction_id
    check("without an id the server makes a UUIDv7",
          bool(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)))
    idea = interaction("idea-1", "gina", ["hugo"], 1, "IDEA")
    tried = ada("RecordInteraction", interaction=idea, validate_only=True)
    check("validating answers as recording would",
          (tried.interaction_id, tried.replayed, tried.HasField("record_time")), ("idea-1", False, False))
    check("validating records nothing", len(ada("RankConnections", person="hugo").connections), 0)
    check("what was only validated is recorded first time",
          ada("RecordInteraction", interaction=idea).replayed, False)


def all_faults_at_once(ada):
    faulty = {"actor": "", "recipients": ["x" * 129], "kind": "INTERACTION_KIND_UNSPECIFIED",
              "topics": [f"topic-{n}" for n in range(17)]}
    check("five faults are named in one answer", ada.refused("RecordInteraction", interaction=faulty),
          refusal("INVALID_ARGUMENT", "FIELDS_INVALID", "interaction.actor", "interaction.recipients[0]",
                  "interaction.interaction_time", "interaction.kind", "interaction.topics"))


def streaming(ada):
    items = [interaction(f"stream-{n}", "ruth", ["sam"], n, "HELP") for n in range(1, 6)]
    items[2]["recipients"] = ["sam", "ruth"]
    for turn, recorded, replayed in (("first", 4, 0), ("second", 0, 4)):
        answers = ada.stream("RecordInteractions", numbered(items))
        sums = (sum(a.recorded_count for a in answers), sum(a.replayed_count for a in answers))
        check(f"the {turn} stream is acknowledged to its end", answers[-1].sequence if answers else None, 5)
        check(f"the {turn} stream counts recorded and replayed", sums, (recorded, replayed))
        rejections = [(r.sequence, r.interaction_id, r.status.code,
                       details(status_pb2.Status.FromString(r.status.SerializeToString()))["reason"])
                      for a in answers for r in a.rejections]
        check(f"the {turn} stream rejects the faulty item alone", rejections, [(3, "stream-3", 3, "FIELDS_INVALID")])


def history_of_ada(ada):
    """Three connections: bob helps and is helped, carol only likes, dave breaks trust. Returns the ids around bob."""
    bob = []
    for n, day in enumerate(range(3, 43, 4)):
        bob.append(interaction(f"bob-{n}", "bob", ["ada"], day, "HELP", channel="email", topics=["rust"]))
        bob.append(interaction(f"ada-{n}", "ada", ["bob"], day - 1, "HELP", channel="email"))
    carol = [interaction(f"carol-{n}", "carol", ["ada"], 1 + n % 10, "REACTION", channel="linkedin") for n in range(50)]
    dave = [interaction("dave-help", "dave", ["ada"], 20, "HELP", channel="phone"),
            interaction("dave-harm", "ada", ["dave"], 2, "VIOLATION", channel="phone")]
    answers = ada.stream("RecordInteractions", numbered(bob + carol + dave))
    check("a history is recorded", sum(a.recorded_count for a in answers), len(bob + carol + dave))
    return {"help-1"} | {item["interaction_id"] for item in bob}


def ranking(ada):
    page = ada("RankConnections", person="ada")
    connections = page.connections
    peers = [c.peer for c in connections]
    check("bob, carol and dave are ranked", sorted(peers), ["bob", "carol", "dave"])
    check("bob, who helps, comes first", peers[0], "bob")
    status_of_dave = enum_name(connections[peers.index("dave")], "status")
    check("dave comes last or is broken", peers[-1] == "dave" or status_of_dave == "CONNECTION_STATUS_BROKEN")
    beliefs = [w for c in connections for w in (c.they_would_help, c.you_would_help, c.mutual)]
    check("every interval lies in [0, 1] around its probability",
          all(0 <= w.lower <= w.probability <= w.upper <= 1 for w in beliefs))
    check("the policy has a version", page.policy_version != "")
    for order, key in ORDER_KEYS.items():
        ranked = ada("RankConnections", person="ada", order_by=order).connections
        expected = [c.peer for c in sorted(ranked, key=lambda c: (-key(c), c.peer))]
        check(f"{order} descends", ([c.peer for c in ranked], len(ranked)), (expected, 3))
    pages, token = [], None
    while token != "" and len(pages) < 4:
        pages.append(ada("RankConnections", person="ada", page_size=1, page_token=token or ""))
        token = pages[-1].next_page_token
    check("pages of one walk the same order", [[c.peer for c in p.connections] for p in pages], [[p] for p in peers])
    check("all pages are for one time", len({p.as_of_time.ToNanoseconds() for p in pages}), 1)
    token = pages[0].next_page_token
    rest = ada("RankConnections", person="ada", page_size=2, page_token=token)
    check("the page size may change on the way", [c.peer for c in rest.connections], peers[1:])
    page_token_refused = refusal("INVALID_ARGUMENT", "FIELDS_INVALID", "page_token")
    for what, changed in (("person", {"person": "bob"}), ("order", {"order_by": "RANK_ORDER_LAST_INTERACTION"}),
                          ("filter", {"minimum_score": 0.01})):
        check(f"a page token is refused with another {what}",
              ada.refused("RankConnections", **{"person": "ada", "page_token": token, **changed}), page_token_refused)
    check("a made-up page token is refused",
          ada.refused("RankConnections", person="ada", page_token="made up"), page_token_refused)
    filters(ada, connections)


def filters(ada, connections):
    def peers(**arguments):
        return [c.peer for c in ada("RankConnections", person="ada", **arguments).connections]

    for status in sorted({enum_name(c, "status") for c in connections}):
        having = [c.peer for c in connections if enum_name(c, "status") == status]
        check(f"only {status}", peers(statuses=[status]), having)
    check("an unspecified status is no filter",
          ada.refused("RankConnections", person="ada", statuses=["CONNECTION_STATUS_UNSPECIFIED"])["code"],
          "INVALID_ARGUMENT")
    check("only one channel", peers(channels=["linkedin"]), ["carol"])
    check("either of two channels", sorted(peers(channels=["linkedin", "phone"])), ["carol", "dave"])
    check("only one topic", peers(topics=["rust"]), ["bob"])
    check("a channel and a topic that never meet", peers(channels=["linkedin"], topics=["rust"]), [])
    between = (connections[0].mutual.lower + connections[1].mutual.lower) / 2
    check("only a minimum score", peers(minimum_score=between), ["bob"])
    check("an unknown person has no connections", len(ada("RankConnections", person="nobody").connections), 0)


def explaining(ada, recorded):
    bob = ada("GetConnection", person="ada", peer="bob").connection
    for direction, belief in (("THEY_WOULD_HELP", bob.they_would_help), ("YOU_WOULD_HELP", bob.you_would_help)):
        parts = [r.contribution for r in bob.reasons if enum_name(r, "willingness").endswith("_" + direction)]
        check(f"the reasons of {direction} add up", parts != [] and abs(sum(parts) - belief.probability) <= 1e-9)
    named = {identifier for reason in bob.reasons for identifier in reason.interaction_ids}
    check("the reasons name interactions", named != set())
    check("the reasons name only what was recorded between the two", named - recorded, set())
    counts = {enum_name(c, "kind"): c.count for c in bob.their_interaction_counts}
    check("what bob did is counted", counts, {"INTERACTION_KIND_HELP": 11})
    stranger(ada, "a stranger is unknown, not zero")


def stranger(caller, what, peer="stranger"):
    answer = caller("GetConnection", person="ada", peer=peer).connection
    beliefs = (answer.they_would_help.probability, answer.you_would_help.probability)
    check(what, (enum_name(answer, "status"), *(round(b, 9) for b in beliefs)), ("CONNECTION_STATUS_UNKNOWN", 0.001366, 0.001366))


def apart(ada, other):
    check("another tenant sees no connections", len(other("RankConnections", person="ada").connections), 0)
    stranger(other, "another tenant knows nothing of bob", "bob")
    repeated = other("RecordInteraction", interaction=interaction("help-1", "kim", ["lea"], 1, "IDEA"))
    check("another tenant has ids of its own", repeated.replayed, False)
    before = ada("RankConnections", person="ada", as_of_time="2000-01-01T00:00:00Z")
    check("before everything there are no connections", len(before.connections), 0)


def converse(channel):
    reflected = ProtoReflectionDescriptorDatabase(channel)
    ada, other = (Caller(channel, DescriptorPool(reflected), f"python-{secrets.token_hex(8)}") for _ in range(2))
    health_and_reflection(channel, reflected)
    recording_once(ada)
    all_faults_at_once(ada)
    streaming(ada)
    recorded = history_of_ada(ada)
    ranking(ada)
    explaining(ada, recorded)
    apart(ada, other)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: conversation.py HOST:PORT")
    with grpc.insecure_channel(sys.argv[1], [("grpc.service_config", SERVICE_CONFIG.read_text())]) as channel:
        try:
            converse(channel)
        except grpc.RpcError as error:
            fail(f"a call that has to be answered: {error.code().name}: {error.details()}")
    print(f"{passed} passed, 0 failed")


if __name__ == "__main__":
    main()
