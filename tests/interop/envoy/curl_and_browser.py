"""Calls Rapport as people do who have no gRPC client: with curl, and from a page in a browser, through a real Envoy with
deploy/envoy/envoy.yaml.

    pip install -r requirements.txt -r ../python/requirements.txt
    DATABASE_URL=postgresql://… python curl_and_browser.py ../../../target/debug/rapport

The script needs curl and Chromium (Debian: `apt-get install curl chromium`). Two servers are started here with an access file,
on a database that `rapport migrate` has prepared. balanced.py says what is put into Envoy's config; here the origin of the page
is put there as well. The page makes calls in gRPC-Web and in JSON, for which its browser first asks Envoy. A page of another
origin finds that it can make neither.
"""

import base64
import http.server
import json
import os
import pathlib
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from urllib.parse import quote, urlencode

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from balanced import HOSTS, Server, all_are_healthy, free_ports, start_envoy, until

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
BROWSER_SECONDS = 60
# Ids with characters that have a meaning in URLs.
NAMES = ["mailto:ada@example.org", "a/b", "/", "a//b/", "a%2Fb", "100%", "x:rollback", "ada lovelace", "zoë", "what?", "#1",
         "a+b", "a&b=c;d", "{person}", "*", "persons/x/connections", "\"q\\", "名前", "https://example.org/u/1?x=y#z"]
PAGE = """<!doctype html><meta charset="utf-8"><title>calls</title><script type="module">
const { rapport, headers, calls, other } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const text = bytes => btoa(String.fromCharCode(...bytes));
// gRPC-Web: a byte of flags and four of length before a message, and the trailers as a last message of their own.
async function grpcWeb({ method, message }) {
  const body = new Uint8Array([0, 0, 0, 0, 0, ...bytes(message)]);
  new DataView(body.buffer).setUint32(1, body.length - 5);
  const answer = await fetch(`${rapport}/${method}`, { method: "POST", body,
    headers: { ...headers, "content-type": "application/grpc-web+proto", "x-grpc-web": "1" } });
  const told = { http: answer.status, status: answer.headers.get("grpc-status"), details: answer.headers.get("grpc-status-details-bin") };
  let rest = new Uint8Array(await answer.arrayBuffer());
  while (rest.length) {
    const [flags, length] = [rest[0], new DataView(rest.buffer, rest.byteOffset).getUint32(1)];
    const part = rest.slice(5, 5 + length);
    if (flags & 0x80) told.status = /grpc-status: ?(\\d+)/.exec(new TextDecoder().decode(part))[1];
    else told.message = text(part);
    rest = rest.slice(5 + length);
  }
  return told;
}
async function json({ method, path, body }) {
  const answer = await fetch(`${rapport}${path}`, { method, body: body && JSON.stringify(body),
    headers: { ...headers, "content-type": "application/json" } });
  return { http: answer.status, answer: await answer.json() };
}
const told = [];
for (const call of calls) {
  try { told.push(await (call.message === undefined ? json : grpcWeb)(call)); } catch (error) { told.push({ error: error.name }); }
}
if (other) document.body.append(Object.assign(document.createElement("iframe"), { src: other }));
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script><body>"""
passed = 0


def check(what, actual, expected=True):
    global passed
    if actual != expected:
        sys.exit(f"not ok {what}: {actual!r} instead of {expected!r}")
    passed += 1


class Curl:
    """curl as one caller."""

    def __init__(self, address, *headers):
        self.address, self.headers = address, headers

    def raw(self, path, *arguments, body=None):
        """The status, the headers and the text of an answer."""
        command = ["curl", "--silent", "--show-error", "--max-time", "20", "--include"]
        for header in self.headers:
            command += ["--header", header]
        if body is not None:
            command += ["--data-binary", "@-"]
        done = subprocess.run([*command, *arguments, f"http://{self.address}{path}"], input=body, capture_output=True, text=True,
                              check=True)
        # A large body is sent only after an answer of its own, `100 Continue`.
        head, _, text = done.stdout.replace("\r\n", "\n").rpartition("\n\n")
        lines = head.split("\n\n")[-1].splitlines()
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), text

    def __call__(self, path, *arguments, body=None):
        """The status and the JSON of an answer."""
        status, headers, text = self.raw(path, *arguments, body=body)
        check(f"{path} is answered in JSON", headers.get("content-type"), "application/json")
        check(f"the answer to {path} is not kept", headers.get("cache-control"), "no-store")
        return status, json.loads(text)

    def post(self, path, body):
        return self(path, body=json.dumps(body))


def act(interaction_id, actor, recipient, kind="HELP"):
    return {"interactionId": interaction_id, "actor": actor, "recipients": [recipient], "kind": f"INTERACTION_KIND_{kind}",
            "interactionTime": "2026-01-05T10:00:00Z"}


def refusal(answered):
    """The HTTP status, the code, the reason, its metadata and the faulty fields of a refusal."""
    status, error = answered
    details = {detail["@type"].rpartition(".")[2]: detail for detail in error.get("details", [])}
    info, bad = details.get("ErrorInfo", {}), details.get("BadRequest", {})
    return status, error["code"], info.get("reason"), info.get("metadata"), sorted(
        violation["field"] for violation in bad.get("fieldViolations", []))


def recording(curl):
    status, first = curl.post("/v1/interactions", act("help-1", "bob", "ada"))
    check("an interaction is recorded", (status, first["interactionId"], first.get("replayed")), (200, "help-1", None))
    in_snake_case = {"interaction_id": "help-1", "actor": "bob", "recipients": ["ada"], "kind": 6,
                     "interaction_time": "2026-01-05T10:00:00Z"}
    check("the same again is a replay", curl.post("/v1/interactions", in_snake_case), (200, first | {"replayed": True}))
    check("the id with other content is refused", refusal(curl.post("/v1/interactions", act("help-1", "eve", "ada"))),
          (409, 6, "INTERACTION_CONFLICT", None, []))
    check("validating is asked for in the URL",
          curl.post("/v1/interactions?validateOnly=true", act("help-2", "carol", "ada")), (200, {"interactionId": "help-2"}))
    for number, peer in enumerate(["bob", "bob", "carol"]):
        check("more is recorded", curl.post("/v1/interactions", act(f"idea-{number}", peer, "ada", "IDEA"))[0], 200)


def refusing(curl):
    faulty = {"recipients": ["bob", "bob"], "kind": "INTERACTION_KIND_HELP", "audienceCount": -1, "dueTime": "2026-01-05T10:00:00Z"}
    fields = ["actor", "audience_count", "due_time", "interaction_time", "recipients[1]"]
    check("every fault is named at once", refusal(curl.post("/v1/interactions", faulty)),
          (400, 3, "FIELDS_INVALID", None, [f"interaction.{field}" for field in fields]))
    check("in URLs as well", refusal(curl("/v1/persons/ada/connections?page_size=-1&minimum_score=2")),
          (400, 3, "FIELDS_INVALID", None, ["minimum_score", "page_size"]))
    check("what is too large is refused", refusal(curl.post("/v1/interactions", act("x" * (1 << 20), "bob", "ada"))),
          (429, 8, "CALL_NOT_UNDERSTOOD", {"limit_bytes": "1048576"}, []))
    for what, path, *arguments in [
        ("an unknown parameter", "/v1/persons/ada/connections?page_sise=1"),
        ("a parameter that is no number", "/v1/persons/ada/connections?page_size=many"),
        ("a body that is no JSON", "/v1/interactions", "--data", "{"),
        ("a kind that there is not", "/v1/interactions", "--data", '{"kind": "FAVOUR"}'),
    ]:
        check(f"{what} is refused by Envoy", refusal(curl(path, *arguments)), (400, 3, None, None, []))
    for path, *arguments in [("/v1/nothing",), ("/v1/interactions",), ("/v1/policies", "--request", "DELETE"), ("/",)]:
        check(f"{path} is not there", refusal(curl(path, *arguments)), (404, 5, None, None, []))


def reading(curl):
    parameters = {"orderBy": "RANK_ORDER_THEY_WOULD_HELP", "as_of_time": "2026-01-20T00:00:00Z", "page_size": 1, "explain": "true",
                  "statuses": ["CONNECTION_STATUS_UNKNOWN", "CONNECTION_STATUS_BUDDING"]}
    question = "/v1/persons/ada/connections?" + urlencode(parameters, doseq=True)
    status, first = curl(question)
    [bob] = first["connections"]
    check("a ranking heeds its parameters", (status, bob["peer"], first["asOfTime"]), (200, "bob", "2026-01-20T00:00:00Z"))
    prior = [(reason["source"], reason["contribution"]) for reason in bob["reasons"] if reason["factor"] == "REASON_FACTOR_PRIOR"]
    check("the prior is nobody's", prior, [("EVIDENCE_SOURCE_NOBODY", 0.001366)] * 2)
    _, second = curl(f"{question}&page_token={first['nextPageToken']}")
    check("its next page goes on", ([each["peer"] for each in second["connections"]], second.get("nextPageToken")), (["carol"], None))
    check("more than a page may hold is cut", len(curl("/v1/persons/ada/connections?page_size=100000")[1]["connections"]), 2)
    shown = curl("/v1/persons/ada/connections/bob?as_of_time=2026-01-20T00:00:00Z")
    check("a connection is the one that was ranked", shown[1]["connection"], bob)
    check("its question may be a body", curl.post("/v1/connections:get", {"person": "ada", "peer": "bob", "asOfTime": first["asOfTime"]}), shown)
    asked = curl.post("/v1/connections:rank", parameters | {"person": "ada", "explain": True})[1]
    check("that of a ranking too", asked["connections"], first["connections"])


def naming(curl):
    for number, name in enumerate(NAMES):
        helper = f"helper {number}"
        check(f"{name} is recorded", curl.post("/v1/interactions", act(f"name-{number}", helper, name))[0], 200)
        path = quote(name, safe="")
        ranked = curl(f"/v1/persons/{path}/connections")[1]["connections"]
        check(f"{name} is found in a URL", [each["peer"] for each in ranked], [helper])
        connection = curl(f"/v1/persons/{quote(helper)}/connections/{path}")[1]["connection"]
        check(f"{name} is found at its end", (connection["peer"], len(connection["yourInteractionCounts"])), (name, 1))
    curl.post("/v1/interactions", act("dots", "bob", ".."))
    ranked = curl.post("/v1/connections:rank", {"person": ".."})[1]["connections"]
    check("names that URLs cannot hold are found in a body", [each["peer"] for each in ranked], ["bob"])


def governing(curl):
    status, used = curl("/v1/policies:inUse")
    version = used["policy"]["version"]
    check("the policy in use is shown", (status, used["policy"]["builtIn"]), (200, True))
    check("by its version as well", curl(f"/v1/policies/{version}"), (200, used))
    document = json.dumps(json.loads(used["policy"]["document"]) | {"version": "ours-1"})
    check("one is published", curl.post("/v1/policies", {"document": document})[1]["policy"]["inUse"])
    check("and listed first", [each["version"] for each in curl("/v1/policies?page_size=5")[1]["policies"]], ["ours-1", version])
    check("and kept aside if the URL says so", curl.post("/v1/policies?put_to_use=false", {"document": document})[1].get("replayed"))
    check("it is taken back without a body", curl("/v1/policies:rollback", "--request", "POST")[1]["policy"]["version"], version)
    check("and put to use again", curl.post("/v1/policies:rollback", {"version": "ours-1"})[1]["policy"]["version"], "ours-1")
    check("what there is not is not found", refusal(curl("/v1/policies/ours-9")), (404, 5, "POLICY_NOT_FOUND", None, []))


def letting_in(address, key, tenant):
    check("who shows no key is not let in", refusal(Curl(address)("/v1/persons/ada/connections")), (401, 16, "UNAUTHENTICATED", None, []))
    elsewhere = Curl(address, f"authorization: Bearer {key}", f"rapport-tenant: {tenant}-other")
    check("a key is for its tenant", refusal(elsewhere("/v1/persons/ada/connections")),
          (403, 7, "PERMISSION_DENIED", {"right": "rank"}, []))


def asking_leave(address, origin):
    """Asks as a browser does before it makes a call with headers of its own."""
    for asks, granted in [(origin, origin), ("http://elsewhere.example.com", None)]:
        headers = Curl(address, f"Origin: {asks}", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
        status, answered, _ = headers.raw("/v1/persons/ada/connections", "--request", "OPTIONS")
        check(f"{asks} is granted {granted}", (status, answered.get("access-control-allow-origin")), (200, granted))


class Pages(http.server.ThreadingHTTPServer):
    """Serves the page at an origin of its own, and takes what it has to tell."""

    def __init__(self):
        self.told = queue.Queue()
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.origin = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, **what):
        return f"{self.origin}/#{quote(json.dumps(what), safe='')}"


class PageHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(PAGE.encode())

    def do_POST(self):
        self.server.told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.answer(b"")

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def messages(program):
    """The requests and answers of the API, as its descriptors have them."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(subprocess.check_output([program, "descriptors"])).file:
        pool.Add(file)
    return lambda name: GetMessageClass(pool.FindMessageTypeByName(name))


def browsing(program, browser, folder, address, key, tenant, pages, others):
    message = messages(program)
    ranking, ranked = message("rapport.v1.RankConnectionsRequest"), message("rapport.v1.RankConnectionsResponse")
    rank = lambda person: {"method": "rapport.v1.RelationshipService/RankConnections",
                           "message": base64.b64encode(ranking(person=person).SerializeToString()).decode()}
    calls = [rank("ada"), rank(""), {"method": "GET", "path": "/v1/persons/ada/connections"},
             {"method": "POST", "path": "/v1/interactions", "body": act("from-a-page", "bob", "ada")}]
    common = {"rapport": f"http://{address}", "headers": {"authorization": f"Bearer {key}", "rapport-tenant": tenant}, "calls": calls}
    url = pages.url(**common, other=others.url(**common))
    process = subprocess.Popen([browser, *QUIET, f"--user-data-dir={folder}/browser", url], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        answered, refused, listed, recorded = pages.told.get(timeout=BROWSER_SECONDS)
        elsewhere = others.told.get(timeout=BROWSER_SECONDS)
    except queue.Empty:
        sys.exit("not ok: the browser told nothing")
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    found = ranked.FromString(base64.b64decode(answered["message"]))
    check("a page is answered in gRPC-Web", (answered["status"], [each.peer for each in found.connections]), ("0", ["bob", "carol"]))
    told = message("google.rpc.Status").FromString(base64.b64decode(refused["details"] + "=="))
    check("and told what is wrong", (refused["status"], told.message), ("3", "person must not be empty"))
    check("and in JSON", (listed["http"], [each["peer"] for each in listed["answer"]["connections"]]), (200, ["bob", "carol"]))
    check("and may record", (recorded["http"], recorded["answer"].get("interactionId")), (200, "from-a-page"))
    check("a page of another origin is kept from all of that", elsewhere, [{"error": "TypeError"}] * len(calls))


def grant(program, folder, tenant):
    """A key that may do everything in a tenant, and the file that says so."""
    made = subprocess.run([program, "keys", "new"], capture_output=True, text=True, check=True)
    entry = json.loads(made.stderr[made.stderr.index("{"):])
    grants = [{"tenants": [tenant], "rights": ["record", "rank", "admin"]}]
    path = pathlib.Path(folder) / "access.json"
    path.write_text(json.dumps({"principals": [{"name": "page", "keys": [entry], "grants": grants}]}))
    return made.stdout.strip(), str(path)


def converse(program, browser, folder, address, key, tenant, pages):
    curl = Curl(address, f"authorization: Bearer {key}", f"rapport-tenant: {tenant}")
    recording(curl)
    refusing(curl)
    reading(curl)
    letting_in(address, key, tenant)
    asking_leave(address, pages.origin)
    browsing(program, browser, folder, address, key, tenant, pages, Pages())
    naming(curl)
    governing(curl)


def main():
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if len(sys.argv) != 2 or not browser or not shutil.which("curl"):
        sys.exit("usage: curl_and_browser.py PROGRAM, where curl and Chromium are installed")
    program, tenant, pages = sys.argv[1], f"page-{secrets.token_hex(8)}", Pages()
    port, health_port = free_ports(2, HOSTS)
    servers, envoy = [], None
    # A browser that was killed may still be writing.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            key, access = grant(program, folder, tenant)
            servers = [Server(program, host, port, health_port, RAPPORT_ACCESS_FILE=access) for host in HOSTS]
            envoy, address, admin = start_envoy(program, folder, port, health_port, pages.origin)
            until(lambda: all_are_healthy(admin), "Envoy finds both servers")
            converse(program, browser, folder, address, key, tenant, pages)
            for server in servers:
                server.process.kill()
            check("without servers that is said in JSON", refusal(Curl(address)("/v1/persons/ada/connections")), (503, 14, None, None, []))
        finally:
            for process in [server.process for server in servers] + [envoy] * bool(envoy):
                process.kill()
                process.wait()
    print(f"{passed} checks passed with curl and a browser")


if __name__ == "__main__":
    main()
