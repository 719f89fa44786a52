{{/* What the endpoint's pods have beside what all Ray pods have. */}}

{{/* Serve's proxies read it where they start: clients see one request id, the one in the database. */}}
{{- define "espalier.serving.env" -}}
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH: {value: "espalier_serving.proxying:middlewares"}
{{- end }}

{{/* The one container that gets the administrator's key, beside the helm test. */}}
{{- define "espalier.env.adminKey" -}}
ESPALIER_ADMIN_KEY:
  valueFrom: {secretKeyRef: {name: {{ include "espalier.secret.keys" . }}, key: admin}}
{{- end }}

{{/* Waits for the database, makes its schema, keeps the administrator's key and proposes the demo. */}}
{{- define "espalier.serving.prepare" -}}
{{- $image := include "espalier.image.torch" . }}
- name: prepare
  image: {{ $image }}
  imagePullPolicy: {{ .Values.images.torch.pullPolicy }}
  command: [python, -m, espalier_serving.prepare{{ if .Values.demo.enabled }}, --demo, /opt/espalier/demo{{ end }}]
  env: {{ include "espalier.env" (dict "root" . "image" $image "more" (include "espalier.env.adminKey" . | fromYaml)) | nindent 4 }}
  securityContext: {{ include "espalier.securityContext" . | nindent 4 }}
  resources: {{ toYaml .Values.serving.head.resources | nindent 4 }}
  volumeMounts: {{ include "espalier.volumeMounts" . | nindent 4 }}
{{- end }}
