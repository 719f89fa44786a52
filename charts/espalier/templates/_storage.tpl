{{/* Store and databases: where they are, what a pod mounts for them, and the environment that says so. */}}

{{- define "espalier.store.claim" -}}
{{- if not .Values.storage.s3.enabled }}
{{- .Values.storage.claim.existingClaim | default (printf "%s-store" (include "espalier.fullname" .)) }}
{{- end }}
{{- end }}

{{/* "true" where all pods that mount the claim must be on one host. */}}
{{- define "espalier.store.oneHost" -}}
{{- if and (not .Values.storage.s3.enabled) (not (has "ReadWriteMany" .Values.storage.claim.accessModes)) }}true{{ end }}
{{- end }}

{{/* The label by which pods that mount the claim find each other's host. */}}
{{- define "espalier.store.labels" -}}
{{- if not .Values.storage.s3.enabled }}
espalier.dev/store: mounted
{{- end }}
{{- end }}

{{- define "espalier.store.uri" -}}
{{- if .Values.storage.s3.enabled }}
{{- printf "s3://%s/%s" .Values.storage.s3.bucket (trimAll "/" .Values.storage.s3.prefix) | trimSuffix "/" }}
{{- else -}}
/var/espalier/store
{{- end }}
{{- end }}

{{/* Volumes of a pod of Espalier. */}}
{{- define "espalier.volumes" -}}
- name: tmp
  emptyDir: {}
{{- with include "espalier.store.claim" . }}
- name: store
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- if and .Values.storage.s3.enabled .Values.storage.s3.caBundle.configMap }}
- name: ca-bundle
  configMap:
    name: {{ .Values.storage.s3.caBundle.configMap }}
{{- end }}
{{- end }}

{{- define "espalier.volumeMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if include "espalier.store.claim" . }}
- name: store
  mountPath: /var/espalier
{{- end }}
{{- if and .Values.storage.s3.enabled .Values.storage.s3.caBundle.configMap }}
- name: ca-bundle
  mountPath: /etc/espalier-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "espalier.database.secret" -}}
{{- .Values.database.existingSecret.name | default (printf "%s-postgres" (include "espalier.fullname" .)) }}
{{- end }}

{{/* The variables of the object store, as a map from name to the rest of the entry. */}}
{{- define "espalier.env.s3" -}}
{{- with .Values.storage.s3 }}
{{- if .enabled }}
{{- with .endpoint }}
AWS_ENDPOINT_URL: {value: {{ . | quote }}}
{{- end }}
{{- with .region }}
AWS_REGION: {value: {{ . | quote }}}
{{- end }}
{{- if .existingSecret.name }}
AWS_ACCESS_KEY_ID:
  valueFrom: {secretKeyRef: {name: {{ .existingSecret.name }}, key: {{ .existingSecret.accessKeyIdKey }}}}
AWS_SECRET_ACCESS_KEY:
  valueFrom: {secretKeyRef: {name: {{ .existingSecret.name }}, key: {{ .existingSecret.secretAccessKeyKey }}}}
{{- end }}
{{- if .caBundle.configMap }}
AWS_CA_BUNDLE: {value: /etc/espalier-ca/{{ .caBundle.key }}}
SSL_CERT_FILE: {value: /etc/espalier-ca/{{ .caBundle.key }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "espalier.env.base" -}}
ESPALIER_STORE: {value: {{ include "espalier.store.uri" .root | quote }}}
ESPALIER_HOME: {value: {{ .root.Values.storage.s3.enabled | ternary "/tmp/espalier" "/var/espalier" }}}
ESPALIER_IMAGE: {value: {{ .image | quote }}}
{{- if .root.Values.database.sqlite }}
ESPALIER_DATABASE_URL: {value: "sqlite:////var/espalier/espalier.db"}
{{- else }}
ESPALIER_DATABASE_URL:
  valueFrom: {secretKeyRef: {name: {{ include "espalier.database.secret" .root }}, key: {{ include "espalier.database.urlKey" .root }}}}
{{- end }}
MLFLOW_TRACKING_URI: {value: {{ include "espalier.mlflow.uri" .root | quote }}}
MLFLOW_DISABLE_TELEMETRY: {value: "true"}
RAY_USAGE_STATS_ENABLED: {value: "0"}
HOME: {value: /tmp}
USER: {value: espalier} # any user id may run it, and Python asks for a name that /etc/passwd need not have
{{- with .root.Values.pluginsAllow }}
ESPALIER_PLUGINS_ALLOW: {value: {{ . | quote }}}
{{- end }}
{{ include "espalier.env.s3" .root }}
{{- end }}

{{- define "espalier.database.urlKey" -}}
{{- .Values.database.existingSecret.name | empty | ternary "url" .Values.database.existingSecret.urlKey }}
{{- end }}

{{- define "espalier.mlflow.uri" -}}
{{- if .Values.mlflow.enabled }}
{{- printf "http://%s-mlflow:5000" (include "espalier.fullname" .) }}
{{- else }}
{{- .Values.mlflow.uri | default "sqlite:////var/espalier/mlflow.db" }}
{{- end }}
{{- end }}

{{/*
The environment of a pod of Espalier: dict "root" $ "image" <its image> "more" <map of further variables> "env" <map of the
user's>.
*/}}
{{- define "espalier.env" -}}
{{- $ours := merge (deepCopy (.more | default dict)) (include "espalier.env.base" . | fromYaml) }}
{{- include "espalier.env.list" (dict "root" .root "ours" $ours "env" .env) }}
{{- end }}

{{/* Variables as a list, each name once, since Helm 4 refuses doubles. What comes later wins: ours, extraEnv, env. */}}
{{- define "espalier.env.list" -}}
{{- $all := .ours }}
{{- range $given := list .root.Values.extraEnv (.env | default dict) }}
{{- range $name, $value := $given }}
{{- $_ := set $all $name (kindIs "map" $value | ternary $value (dict "value" $value)) }}
{{- end }}
{{- end }}
{{- range $name, $rest := $all }}
- name: {{ $name }}
  {{- toYaml $rest | nindent 2 }}
{{- end }}
{{- end }}
