#!/usr/bin/env bash
# Installs the KubeRay operator and its CRDs, pinned, in a namespace of its own; again is an upgrade.
#
#   infra/prerequisites/install.sh [FOLDER_OR_ARCHIVE_OF_THE_CHART]
#
# HELM and KUBECTL name other programs than those on the PATH. Without an argument the chart comes from its repository.
set -euo pipefail

VERSION=1.6.2 # tried with this one; the chart of Espalier asks for ray.io/v1
HELM=${HELM:-helm} KUBECTL=${KUBECTL:-kubectl}
NAMESPACE=kuberay-system

if [ $# -gt 0 ]; then
  chart=$1
else
  chart=$(mktemp -d)
  trap 'rm -rf "$chart"' EXIT
  "$HELM" pull kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ --version "$VERSION" \
    --untar --untardir "$chart"
  chart=$chart/kuberay-operator
fi

# Helm installs CRDs once and never upgrades them; server-side, because they are longer than an annotation may be.
"$KUBECTL" apply --server-side --force-conflicts -f "$chart/crds"

"$HELM" upgrade --install kuberay-operator "$chart" --namespace "$NAMESPACE" --create-namespace --skip-crds \
  --set podSecurityContext.runAsNonRoot=true \
  --set podSecurityContext.seccompProfile.type=RuntimeDefault \
  --wait --timeout 5m

until "$KUBECTL" get --raw /apis/ray.io/v1/rayclusters > /dev/null 2>&1; do sleep 1; done
echo "KubeRay $VERSION answers; next: helm install espalier charts/espalier -n espalier --create-namespace"
