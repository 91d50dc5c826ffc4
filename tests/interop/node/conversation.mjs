// One conversation with a running Rapport server, held by grpc-js.
//
//     npm ci
//     node conversation.mjs localhost:50051
//
// Of Rapport only the contract in proto/ is read, with the settings that go with it, and none of its code. Every run speaks
// as a fresh random tenant, so it can be repeated against the same server.
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const SERVICE = "rapport.v1.RelationshipService";
const TIMEOUT_MILLISECONDS = 20_000;
const READING = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const ORDER_KEYS = {
  RANK_ORDER_UNSPECIFIED: (c) => c.mutual.lower,
  RANK_ORDER_MUTUAL: (c) => c.mutual.lower,
  RANK_ORDER_THEY_WOULD_HELP: (c) => c.they_would_help.lower,
  RANK_ORDER_YOU_WOULD_HELP: (c) => c.you_would_help.lower,
  RANK_ORDER_LAST_INTERACTION: (c) => c.last_interaction_time.seconds + c.last_interaction_time.nanos / 1e9,
};

// Public protocols every gRPC server may speak, as far as they are spoken here.
const COMMON = [
  `syntax = "proto3"; package grpc.health.v1;
   message HealthCheckRequest { string service = 1; }
   message HealthCheckResponse {
     enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
     ServingStatus status = 1;
   }
   service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }`,
  `syntax = "proto3"; package grpc.reflection.v1;
   message ServerReflectionRequest { oneof message_request { string list_services = 7; } }
   message ServerReflectionResponse { ListServiceResponse list_services_response = 6; }
   message ListServiceResponse { repeated ServiceResponse service = 1; }
   message ServiceResponse { string name = 1; }
   service ServerReflection { rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse); }`,
  `syntax = "proto3"; package google.rpc;
   message ErrorInfo { string reason = 1; string domain = 2; }
   message BadRequest {
     message FieldViolation { string field = 1; string description = 2; }
     repeated FieldViolation field_violations = 1;
   }`,
];

const proto = fileURLToPath(new URL("../../../proto", import.meta.url));
// A mistake in it is refused when a client is made.
const SERVICE_CONFIG = readFileSync(`${proto}/service_config.json`, "utf8");
const contract = protoLoader.loadSync("rapport/v1/relationship_service.proto", {
  ...READING,
  includeDirs: [proto, `${proto}/vendor`],
});
const commonRoot = new protobuf.Root();
COMMON.forEach((text) => protobuf.parse(text, commonRoot, { keepCase: true }));
const common = protoLoader.fromJSON(commonRoot.toJSON(), READING);

let passed = 0;
// Counts and prints a step, or ends the run with the difference.
function check(what, actual, expected = true) {
  if (!isDeepStrictEqual(actual, expected))
    throw new Error(`${what}\n- expected ${JSON.stringify(expected, null, 1)}\n+ actual ${JSON.stringify(actual, null, 1)}`);
  passed += 1;
  console.log(`ok ${what}`);
}

// Calls a service as one tenant; `refused` gives what a call that has to fail is refused with.
class Caller {
  constructor(address, definition, tenant) {
    const Client = grpc.makeGenericClientConstructor(definition, "conversation");
    this.client = new Client(address, grpc.credentials.createInsecure(), { "grpc.service_config": SERVICE_CONFIG });
    this.metadata = new grpc.Metadata();
    this.metadata.set("rapport-tenant", tenant);
  }
  options() {
    return { deadline: Date.now() + TIMEOUT_MILLISECONDS };
  }
  call(name, request) {
    return new Promise((resolve, reject) => {
      const done = (error, response) => (error ? reject(error) : resolve(response));
      this.client[name](request, this.metadata, this.options(), done);
    });
  }
  async stream(name, items) {
    const call = this.client[name](this.metadata, this.options());
    items.forEach((item) => call.write(item));
    call.end();
    const answers = [];
    for await (const answer of call) answers.push(answer);
    return answers;
  }
  async refused(name, request) {
    try {
      return { answered: await this.call(name, request) };
    } catch (error) {
      const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
      return { code: grpc.status[error.code], ...details(contract["google.rpc.Status"].deserialize(bytes ?? Buffer.of())) };
    }
  }
}

function details(status) {
  const named = (name) => {
    const detail = status.details.find((any) => any.type_url.endsWith(`/${name}`));
    return common[name].deserialize(detail?.value ?? Buffer.of());
  };
  const { reason, domain } = named("google.rpc.ErrorInfo");
  return { reason, domain, fields: named("google.rpc.BadRequest").field_violations.map((v) => v.field).sort() };
}

const refusal = (code, reason, ...fields) => ({ code, reason, domain: "rapport", fields: fields.sort() });
const time = (milliseconds) => ({ seconds: Math.floor(milliseconds / 1000), nanos: 0 });
const interaction = (interaction_id, actor, recipients, days, kind, more = {}) => ({
  interaction_id, actor, recipients, interaction_time: time(Date.now() - days * 86_400_000),
  kind: `INTERACTION_KIND_${kind}`, ...more,
});
const numbered = (interactions) => interactions.map((item, n) => ({ sequence: n + 1, interaction: item }));
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const peersOf = (page) => page.connections.map((c) => c.peer);

async function healthAndReflection(address) {
  const health = new Caller(address, common["grpc.health.v1.Health"], "any");
  for (const service of ["", "liveness", "readiness", SERVICE])
    check(`health of '${service}'`, (await health.call("Check", { service })).status, "SERVING");
  const reflection = new Caller(address, common["grpc.reflection.v1.ServerReflection"], "any");
  const [listed] = await reflection.stream("ServerReflectionInfo", [{ list_services: "*" }]);
  check("reflection v1 lists the service", listed.list_services_response.service.some((s) => s.name === SERVICE));
}

async function recordingOnce(ada) {
  const record = (item, more) => ada.call("RecordInteraction", { interaction: item, ...more });
  const help = interaction("help-1", "bob", ["ada"], 1, "HELP", { channel: "email", topics: ["rust"] });
  const first = await record(help);
  check("a first recording is no replay", [first.interaction_id, first.replayed], ["help-1", false]);
  check("the same again is a replay of it", await record(help), { ...first, replayed: true });
  check("the same id with other content is refused",
    await ada.refused("RecordInteraction", { interaction: { ...help, topics: ["go"] } }),
    refusal("ALREADY_EXISTS", "INTERACTION_CONFLICT"));
  const made = await record(interaction("", "eve", ["finn"], 1, "HELP"));
  const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  check("without an id the server makes a UUIDv7", uuid.test(made.interaction_id));
  const idea = interaction("idea-1", "gina", ["hugo"], 1, "IDEA");
  check("validating answers as recording would", await record(idea, { validate_only: true }),
    { interaction_id: "idea-1", replayed: false, record_time: null, consistency_token: "" });
  check("validating records nothing", peersOf(await ada.call("RankConnections", { person: "hugo" })), []);
  check("what was only validated is recorded first time", (await record(idea)).replayed, false);
}

async function allFaultsAtOnce(ada) {
  const topics = Array.from({ length: 17 }, (_, n) => `topic-${n}`);
  const faulty = { actor: "", recipients: ["x".repeat(129)], kind: "INTERACTION_KIND_UNSPECIFIED", topics };
  check("five faults are named in one answer", await ada.refused("RecordInteraction", { interaction: faulty }),
    refusal("INVALID_ARGUMENT", "FIELDS_INVALID", "interaction.actor", "interaction.recipients[0]",
      "interaction.interaction_time", "interaction.kind", "interaction.topics"));
}

async function streaming(ada) {
  const items = [1, 2, 3, 4, 5].map((n) => interaction(`stream-${n}`, "ruth", n === 3 ? ["sam", "ruth"] : ["sam"], n, "HELP"));
  for (const [turn, recorded, replayed] of [["first", 4, 0], ["second", 0, 4]]) {
    const answers = await ada.stream("RecordInteractions", numbered(items));
    check(`the ${turn} stream is acknowledged to its end`, answers.at(-1)?.sequence, 5);
    check(`the ${turn} stream counts recorded and replayed`,
      [sum(answers.map((a) => a.recorded_count)), sum(answers.map((a) => a.replayed_count))], [recorded, replayed]);
    const rejections = answers.flatMap((a) => a.rejections)
      .map((r) => [r.sequence, r.interaction_id, r.status.code, details(r.status).reason]);
    check(`the ${turn} stream rejects the faulty item alone`, rejections, [[3, "stream-3", 3, "FIELDS_INVALID"]]);
  }
}

// Three connections of ada: bob helps and is helped, carol only likes, dave breaks trust. Returns the ids around bob.
async function historyOfAda(ada) {
  const bob = Array.from({ length: 10 }, (_, n) => [
    interaction(`bob-${n}`, "bob", ["ada"], 3 + 4 * n, "HELP", { channel: "email", topics: ["rust"] }),
    interaction(`ada-${n}`, "ada", ["bob"], 2 + 4 * n, "HELP", { channel: "email" }),
  ]).flat();
  const carol = Array.from({ length: 50 }, (_, n) =>
    interaction(`carol-${n}`, "carol", ["ada"], 1 + (n % 10), "REACTION", { channel: "linkedin" }));
  const dave = [interaction("dave-help", "dave", ["ada"], 20, "HELP", { channel: "phone" }),
    interaction("dave-harm", "ada", ["dave"], 2, "VIOLATION", { channel: "phone" })];
  const answers = await ada.stream("RecordInteractions", numbered([...bob, ...carol, ...dave]));
  check("a history is recorded", sum(answers.map((a) => a.recorded_count)), 72);
  return new Set(["help-1", ...bob.map((item) => item.interaction_id)]);
}

async function ranking(ada) {
  const rank = (more) => ada.call("RankConnections", { person: "ada", ...more });
  const page = await rank();
  const [peers, { connections }] = [peersOf(page), page];
  check("bob, carol and dave are ranked", peers.toSorted(), ["bob", "carol", "dave"]);
  check("bob, who helps, comes first", peers[0], "bob");
  const dave = connections.find((c) => c.peer === "dave");
  check("dave comes last or is broken", peers[2] === "dave" || dave.status === "CONNECTION_STATUS_BROKEN");
  check("every interval lies in [0, 1] around its probability", connections
    .flatMap((c) => [c.they_would_help, c.you_would_help, c.mutual])
    .filter((w) => !(0 <= w.lower && w.lower <= w.probability && w.probability <= w.upper && w.upper <= 1)), []);
  for (const [order_by, key] of Object.entries(ORDER_KEYS)) {
    const ranked = await rank({ order_by });
    const sorted = ranked.connections.toSorted((a, b) => key(b) - key(a) || (a.peer < b.peer ? -1 : 1));
    check(`${order_by} descends`, [peersOf(ranked), ranked.connections.length], [sorted.map((c) => c.peer), 3]);
  }
  const pages = [await rank({ page_size: 1 })];
  while (pages.at(-1).next_page_token && pages.length < 4)
    pages.push(await rank({ page_size: 1, page_token: pages.at(-1).next_page_token }));
  check("pages of one walk the same order", pages.map(peersOf), peers.map((peer) => [peer]));
  check("all pages are for one time", pages.map((p) => p.as_of_time), pages.map(() => pages[0].as_of_time));
  const page_token = pages[0].next_page_token;
  check("the page size may change on the way", peersOf(await rank({ page_size: 2, page_token })), peers.slice(1));
  for (const changed of [{ person: "bob" }, { order_by: "RANK_ORDER_LAST_INTERACTION" }, { minimum_score: 0.01 },
    { page_token: "made up" }])
    check(`a page token is refused with another ${Object.keys(changed)[0]}`,
      await ada.refused("RankConnections", { person: "ada", page_token, ...changed }),
      refusal("INVALID_ARGUMENT", "FIELDS_INVALID", "page_token"));
  await filters(ada, connections);
}

async function filters(ada, connections) {
  const peers = async (more) => peersOf(await ada.call("RankConnections", { person: "ada", ...more }));
  for (const status of new Set(connections.map((c) => c.status)))
    check(`only ${status}`, await peers({ statuses: [status] }), peersOf({ connections: connections.filter((c) => c.status === status) }));
  check("an unspecified status is no filter",
    (await ada.refused("RankConnections", { person: "ada", statuses: ["CONNECTION_STATUS_UNSPECIFIED"] })).code, "INVALID_ARGUMENT");
  check("only one channel", await peers({ channels: ["linkedin"] }), ["carol"]);
  check("either of two channels", (await peers({ channels: ["linkedin", "phone"] })).sort(), ["carol", "dave"]);
  check("only one topic", await peers({ topics: ["rust"] }), ["bob"]);
  check("a channel and a topic that never meet", await peers({ channels: ["linkedin"], topics: ["rust"] }), []);
  const between = (connections[0].mutual.lower + connections[1].mutual.lower) / 2;
  check("only a minimum score", await peers({ minimum_score: between }), ["bob"]);
  check("an unknown person has no connections", await peers({ person: "nobody" }), []);
}

async function explaining(ada, recorded) {
  const { connection: bob } = await ada.call("GetConnection", { person: "ada", peer: "bob" });
  for (const [direction, belief] of [["THEY_WOULD_HELP", bob.they_would_help], ["YOU_WOULD_HELP", bob.you_would_help]]) {
    const parts = bob.reasons.filter((r) => r.willingness.endsWith(`_${direction}`)).map((r) => r.contribution);
    check(`the reasons of ${direction} add up`, parts.length > 0 && Math.abs(sum(parts) - belief.probability) <= 1e-9);
  }
  const named = bob.reasons.flatMap((r) => r.interaction_ids);
  check("the reasons name interactions", named.length > 0);
  check("the reasons name only what was recorded between the two", named.filter((id) => !recorded.has(id)), []);
  check("what bob did is counted", bob.their_interaction_counts, [{ kind: "INTERACTION_KIND_HELP", count: 11 }]);
  await isUnknown(ada, "a stranger is unknown, not zero", "stranger");
}

async function isUnknown(caller, what, peer) {
  const { connection: c } = await caller.call("GetConnection", { person: "ada", peer });
  const beliefs = [c.they_would_help, c.you_would_help].map((w) => w.probability.toFixed(9));
  check(what, [c.status, ...beliefs], ["CONNECTION_STATUS_UNKNOWN", "0.001366000", "0.001366000"]);
}

async function apart(ada, other) {
  check("another tenant sees no connections", peersOf(await other.call("RankConnections", { person: "ada" })), []);
  await isUnknown(other, "another tenant knows nothing of bob", "bob");
  const own = await other.call("RecordInteraction", { interaction: interaction("help-1", "kim", ["lea"], 1, "IDEA") });
  check("another tenant has ids of its own", own.replayed, false);
  const before = await ada.call("RankConnections", { person: "ada", as_of_time: time(Date.UTC(2000, 0)) });
  check("before everything there are no connections", peersOf(before), []);
}

async function converse(address) {
  const [ada, other] = [1, 2].map(() => new Caller(address, contract[SERVICE], `node-${randomBytes(8).toString("hex")}`));
  await healthAndReflection(address);
  await recordingOnce(ada);
  await allFaultsAtOnce(ada);
  await streaming(ada);
  const recorded = await historyOfAda(ada);
  await ranking(ada);
  await explaining(ada, recorded);
  await apart(ada, other);
}

if (process.argv.length !== 3) {
  console.error("usage: conversation.mjs HOST:PORT");
  process.exit(1);
}
try {
  await converse(process.argv[2]);
  console.log(`${passed} passed, 0 failed`);
  process.exit(0);
} catch (error) {
  console.log(`not ok ${error.message}\n${passed} passed, 1 failed`);
  process.exit(1);
}
