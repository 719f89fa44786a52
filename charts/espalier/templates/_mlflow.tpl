{{/* What MLflow's server is told. */}}

{{/* The names under which it answers; it refuses any other Host, against DNS rebinding. */}}
{{- define "espalier.mlflow.hosts" -}}
{{- $service := printf "%s-mlflow" (include "espalier.fullname" .) }}
{{- $hosts := list "localhost" "localhost:*" "127.0.0.1:*" }}
{{- range $name := list $service (printf "%s.%s" $service .Release.Namespace) (printf "%s.%s.svc" $service .Release.Namespace) }}
{{- $hosts = concat $hosts (list $name (printf "%s:5000" $name)) }}
{{- end }}
{{- $hosts = append $hosts (printf "%s.%s.svc.*" $service .Release.Namespace) }}
{{- concat $hosts .Values.mlflow.allowedHosts | join "," }}
{{- end }}

{{/* Its database: another one beside Espalier's, or a file where all is files. */}}
{{- define "espalier.mlflow.env" -}}
{{- if .Values.database.sqlite }}
MLFLOW_BACKEND_STORE_URI: {value: "sqlite:////var/espalier/mlflow.db"}
{{- else }}
{{- $key := .Values.database.existingSecret.name | empty | ternary "mlflow-url" .Values.database.existingSecret.mlflowUrlKey }}
MLFLOW_BACKEND_STORE_URI:
  valueFrom: {secretKeyRef: {name: {{ include "espalier.database.secret" . }}, key: {{ $key }}}}
{{- end }}
MLFLOW_ARTIFACTS_DESTINATION: {value: {{ .Values.storage.s3.enabled | ternary (printf "%s/mlflow" (include "espalier.store.uri" .)) "/var/espalier/mlflow" }}}
MLFLOW_SERVER_ALLOWED_HOSTS: {value: {{ include "espalier.mlflow.hosts" . | quote }}}
MLFLOW_SERVER_ENABLE_JOB_EXECUTION: {value: "false"}
MLFLOW_DISABLE_TELEMETRY: {value: "true"}
HOME: {value: /tmp}
USER: {value: espalier}
{{ include "espalier.env.s3" . }}
{{- if .Values.storage.s3.endpoint }}
MLFLOW_S3_ENDPOINT_URL: {value: {{ .Values.storage.s3.endpoint | quote }}}
{{- end }}
{{- end }}
