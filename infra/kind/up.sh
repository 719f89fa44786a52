#!/usr/bin/env bash
# Espalier on kind, from this checkout: cluster, images, operator, chart. Needs docker, kind, kubectl, helm, and 30 GB.
#
#   infra/kind/up.sh [VALUES_FILE]      default: charts/espalier/ci/minimal-values.yaml, for two cores
set -euo pipefail
cd "$(dirname "$0")/../.."

VERSION=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' charts/espalier/Chart.yaml)
VALUES=${1:-charts/espalier/ci/minimal-values.yaml}

kind get clusters | grep -qx espalier || kind create cluster --config infra/kind/kind.yaml
for image in core torch; do
  docker build -f infra/images/Dockerfile --target "$image" --build-arg "VERSION=$VERSION" \
    --build-arg "REVISION=$(git rev-parse HEAD)" -t "espalier/$image:$VERSION" .
  kind load docker-image --name espalier "espalier/$image:$VERSION"
done
infra/prerequisites/install.sh
kubectl create namespace espalier --dry-run=client -o yaml | kubectl apply -f -
kubectl label namespace espalier pod-security.kubernetes.io/enforce=restricted --overwrite
helm upgrade --install espalier charts/espalier -n espalier -f "$VALUES" --wait --timeout 10m
helm test espalier -n espalier --timeout 10m
