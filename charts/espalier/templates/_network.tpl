{{/* Rules of NetworkPolicies. */}}

{{/* Pods of this release with a component, as a peer: dict "root" $ "component" "driver". */}}
{{- define "espalier.peer" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/instance: {{ .root.Release.Name }}
      app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Ways out: dict "root" $ "to" <list of dns, database, store, mlflow, api, sources, redis>; what is not used is left out. */}}
{{- define "espalier.egress" -}}
{{- $root := .root }}
{{- $policy := .root.Values.networkPolicy }}
{{- range .to }}
{{- if eq . "dns" }}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- else if and (eq . "database") $root.Values.database.postgres.enabled }}
- to: {{ include "espalier.peer" (dict "root" $root "component" "postgres") | nindent 4 }}
  ports:
    - port: 5432
{{- else if and (eq . "database") $root.Values.database.existingSecret.name }}
{{ toYaml $policy.database }}
{{- else if and (eq . "store") $root.Values.storage.s3.enabled }}
{{ toYaml $policy.store }}
{{- else if and (eq . "mlflow") $root.Values.mlflow.enabled }}
- to: {{ include "espalier.peer" (dict "root" $root "component" "mlflow") | nindent 4 }}
  ports:
    - port: 5000
{{- else if eq . "api" }}
{{ toYaml $policy.apiServer }}
{{- else if and (eq . "sources") $policy.sources }}
{{ toYaml $policy.sources }}
{{- else if and (eq . "redis") $root.Values.serving.redis.address }}
{{ toYaml $policy.redis }}
{{- end }}
{{- end }}
{{- end }}

{{/* What all Ray pods let in: each other on all ports, the operator and the driver at the head, Prometheus. */}}
{{- define "espalier.ray.ingress" -}}
- from: {{ include "espalier.peer" . | nindent 4 }}
- from:
    - {{ toYaml .root.Values.networkPolicy.operator | nindent 6 | trim }}
    {{- include "espalier.peer" (dict "root" .root "component" "driver") | nindent 4 }}
  ports:
    - port: 8265
{{- with .root.Values.networkPolicy.monitoring }}
- from: {{ toYaml . | nindent 4 }}
  ports:
    - port: 8080
{{- end }}
{{- end }}
