{{/* Names, labels, images, and the parts that every pod has. */}}

{{- define "espalier.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Not cut: `espalier.validate` refuses what is too long, since a cut name could be another release's. */}}
{{- define "espalier.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride }}
{{- else if contains (include "espalier.name" .) .Release.Name }}
{{- .Release.Name }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "espalier.name" .) }}
{{- end }}
{{- end }}

{{- define "espalier.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "espalier.fullname" .) "default") }}
{{- end }}

{{/* Labels of an object: dict "root" $ "component" "serving". */}}
{{- define "espalier.labels" -}}
{{ include "espalier.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: espalier
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "espalier.selectorLabels" -}}
app.kubernetes.io/name: {{ include "espalier.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* What selects Ray's pods. Their app.kubernetes.io/name is left to KubeRay, whose services select by it. */}}
{{- define "espalier.ray.selectorLabels" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
ray.io/is-ray-node: "yes"
{{- end }}

{{/* An image as one word: dict "root" $ "image" .Values.images.core. */}}
{{- define "espalier.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry }}
{{- $name := .image.repository }}
{{- if $registry }}
{{- $name = printf "%s/%s" $registry $name }}
{{- end }}
{{- if .image.digest }}
{{- printf "%s@%s" $name .image.digest }}
{{- else }}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "espalier.image.core" -}}
{{- include "espalier.image" (dict "root" . "image" .Values.images.core) }}
{{- end }}

{{- define "espalier.image.torch" -}}
{{- include "espalier.image" (dict "root" . "image" .Values.images.torch) }}
{{- end }}

{{- define "espalier.image.postgres" -}}
{{- with .Values.global.imageRegistry }}{{ . }}/{{ end }}{{ .Values.database.postgres.image }}
{{- end }}

{{/* Sets what a map says into another one, level by level. Unlike mergeOverwrite, `false` and 0 count as said. */}}
{{- define "espalier.merge" -}}
{{- $onto := index . 0 }}
{{- range $key, $value := index . 1 }}
{{- if and (kindIs "map" $value) (kindIs "map" (get $onto $key)) }}
{{- include "espalier.merge" (list (get $onto $key) $value) }}
{{- else }}
{{- $_ := set $onto $key $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* The `restricted` profile, for a pod and for a container. */}}
{{- define "espalier.podSecurityContext" -}}
{{- include "espalier.podSecurityContext.with" .Values.podSecurityContext }}
{{- end }}

{{- define "espalier.podSecurityContext.with" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ dict $key $value | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{- define "espalier.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end }}

{{/* Where a pod may run: dict "root" $ "at" <map with nodeSelector, tolerations ...> "store" <whether it mounts the claim>. */}}
{{- define "espalier.scheduling" -}}
{{- with .at.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .at.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with include "espalier.affinity" . }}
affinity: {{ . | nindent 2 }}
{{- end }}
{{- with .at.topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .at.priorityClassName | default .priority }}
priorityClassName: {{ . }}
{{- end }}
{{- with .at.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}

{{/* What is asked for, and for pods that mount a claim of one host: the host of those that have it. */}}
{{- define "espalier.affinity" -}}
{{- $affinity := deepCopy (.at.affinity | default dict) }}
{{- if and .store (include "espalier.store.oneHost" .root) }}
{{- $labels := include "espalier.store.labels" .root | fromYaml }}
{{- $_ := set $labels "app.kubernetes.io/instance" .root.Release.Name }}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) }}
{{- $pods := get $affinity "podAffinity" | default dict }}
{{- $key := "requiredDuringSchedulingIgnoredDuringExecution" }}
{{- $_ := set $pods $key (append (get $pods $key | default list) $term) }}
{{- $_ := set $affinity "podAffinity" $pods }}
{{- end }}
{{- with $affinity }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- define "espalier.priority.serving" -}}
{{- if .Values.priorityClasses.create }}{{ include "espalier.fullname" . }}-serving{{ end }}
{{- end }}

{{- define "espalier.priority.training" -}}
{{- if .Values.priorityClasses.create }}{{ include "espalier.fullname" . }}-training{{ end }}
{{- end }}

{{- define "espalier.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A value that stays over upgrades: what the Secret has under the key, else the given one. */}}
{{- define "espalier.kept" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .secret | default dict }}
{{- $data := get $found "data" | default dict }}
{{- if get $data .key }}
{{- get $data .key | b64dec }}
{{- else }}
{{- .value }}
{{- end }}
{{- end }}

{{/* As many hexadecimal digits as asked for, at most 64; alphanumeric randomness through a hash. */}}
{{- define "espalier.hex" -}}
{{- randAlphaNum 64 | sha256sum | trunc (int .) }}
{{- end }}

{{/* Names of Secrets that may be the user's own. */}}
{{- define "espalier.secret.keys" -}}
{{- .Values.keys.existingSecret | default (printf "%s-keys" (include "espalier.fullname" .)) }}
{{- end }}

{{- define "espalier.secret.rayToken" -}}
{{- .Values.ray.existingTokenSecret | default (printf "%s-ray-token" (include "espalier.fullname" .)) }}
{{- end }}
