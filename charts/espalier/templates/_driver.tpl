{{/* The pod template of the driver, which `espalier submit` completes with a command. */}}

{{- define "espalier.driver.env" -}}
RAY_AUTH_MODE: {value: token}
RAY_AUTH_TOKEN:
  valueFrom: {secretKeyRef: {name: {{ include "espalier.secret.rayToken" . }}, key: auth_token}}
{{- end }}

{{- define "espalier.driver.template" -}}
{{- $driver := .Values.driver }}
{{- $image := include "espalier.image.core" . }}
metadata:
  labels:
    {{- with $driver.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "espalier.selectorLabels" (dict "root" . "component" "driver") | nindent 4 }}
    app.kubernetes.io/part-of: espalier
    {{- include "espalier.store.labels" . | nindent 4 }}
  {{- with $driver.annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "espalier.fullname" . }}-driver
  automountServiceAccountToken: true
  {{- include "espalier.imagePullSecrets" . | nindent 2 }}
  securityContext: {{ include "espalier.podSecurityContext" . | nindent 4 }}
  {{- include "espalier.scheduling" (dict "root" . "at" $driver "store" true "priority" (include "espalier.priority.training" .)) | nindent 2 }}
  containers:
    - name: driver
      image: {{ $image }}
      imagePullPolicy: {{ .Values.images.core.pullPolicy }}
      env: {{ include "espalier.env" (dict "root" . "image" $image "more" (include "espalier.driver.env" . | fromYaml)) | nindent 8 }}
      securityContext: {{ include "espalier.securityContext" . | nindent 8 }}
      resources: {{ toYaml $driver.resources | nindent 8 }}
      volumeMounts:
        {{- include "espalier.volumeMounts" . | nindent 8 }}
        - name: pools
          mountPath: /etc/espalier
          readOnly: true
  volumes:
    {{- include "espalier.volumes" . | nindent 4 }}
    - name: pools
      configMap:
        name: {{ include "espalier.fullname" . }}-pools
{{- end }}
