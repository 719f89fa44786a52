{{/* Ray clusters: of the endpoint and of the pools. */}}

{{- define "espalier.ray.version" -}}2.60.0{{- end }}

{{/*
The pod template of a group of Ray pods. Takes a dict:
  root, component ("serving" or "segment"), image, env (map of the user's variables), more (map of ours)
  at         map with resources, nodeSelector ... podSpec
  priority   class where `at` names none
  gpus, gpuResource
  token      whether the pod gets its service account's token
  init       init containers, as YAML
  seconds    terminationGracePeriodSeconds
  head       whether it is a head
*/}}
{{- define "espalier.ray.template" -}}
{{- $template := include "espalier.ray.template.plain" . | fromYaml }}
{{- include "espalier.merge" (list $template.spec (.at.podSpec | default dict)) }}
{{- toYaml $template }}
{{- end }}

{{- define "espalier.ray.template.plain" -}}
{{- $place := deepCopy .at }}
{{- if and .gpus (not $place.tolerations) }}
{{- $_ := set $place "tolerations" (list (dict "key" .gpuResource "operator" "Exists" "effect" "NoSchedule")) }}
{{- end }}
metadata:
  labels:
    {{- with .at.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    app.kubernetes.io/instance: {{ .root.Release.Name }}
    app.kubernetes.io/component: {{ .component }}
    app.kubernetes.io/part-of: espalier
    {{- include "espalier.store.labels" .root | nindent 4 }}
  {{- $annotations := deepCopy (.at.annotations | default dict) }}
  {{- if .head }}
  {{- $_ := set $annotations "cluster-autoscaler.kubernetes.io/safe-to-evict" "false" }}
  {{- end }}
  {{- with $annotations }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "espalier.serviceAccountName" .root }}
  automountServiceAccountToken: {{ .token | default false }}
  {{- include "espalier.imagePullSecrets" .root | nindent 2 }}
  {{- with .seconds }}
  terminationGracePeriodSeconds: {{ int . }}
  {{- end }}
  securityContext: {{ include "espalier.podSecurityContext" .root | nindent 4 }}
  {{- include "espalier.scheduling" (dict "root" .root "at" $place "store" true "priority" .priority) | nindent 2 }}
  {{- with .init }}
  initContainers: {{ . | nindent 4 }}
  {{- end }}
  containers:
    - name: ray
      image: {{ .image }}
      imagePullPolicy: {{ .root.Values.images.torch.pullPolicy }}
      env: {{ include "espalier.env" . | nindent 8 }}
      securityContext: {{ include "espalier.securityContext" .root | nindent 8 }}
      resources: {{ include "espalier.ray.resources" . | nindent 8 }}
      volumeMounts:
        {{- include "espalier.volumeMounts" .root | nindent 8 }}
        {{- if .root.Values.ray.shm.enabled }}
        - name: shm
          mountPath: /dev/shm
        {{- end }}
  volumes:
    {{- include "espalier.volumes" .root | nindent 4 }}
    {{- if .root.Values.ray.shm.enabled }}
    - name: shm
      emptyDir:
        medium: Memory
        sizeLimit: {{ .root.Values.ray.shm.sizeLimit }}
    {{- end }}
{{- end }}

{{/* What is asked for, with the GPUs among the limits. */}}
{{- define "espalier.ray.resources" -}}
{{- $resources := deepCopy .at.resources }}
{{- if .gpus }}
{{- $limits := get $resources "limits" | default dict }}
{{- $_ := set $limits .gpuResource (int .gpus) }}
{{- $_ := set $resources "limits" $limits }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* What every cluster of the release says about itself. Without a version KubeRay would not turn the token on. */}}
{{- define "espalier.ray.cluster" -}}
rayVersion: {{ include "espalier.ray.version" . | quote }}
authOptions:
  mode: token
  secretName: {{ include "espalier.secret.rayToken" . }}
{{- end }}

{{/* A pool with what it takes from poolDefaults: dict "root" $ "name" "cpu". */}}
{{- define "espalier.pool" -}}
{{- $pool := deepCopy .root.Values.poolDefaults }}
{{- include "espalier.merge" (list $pool (get .root.Values.pools .name | default dict)) }}
{{- toYaml $pool }}
{{- end }}

{{- define "espalier.pool.image" -}}
{{- .pool.image | default (include "espalier.image.torch" .root) }}
{{- end }}

{{/* The rayClusterSpec of a pool: the head alone, or a small head and workers that start all or wait all. */}}
{{- define "espalier.pool.cluster" -}}
{{- $pool := .pool }}
{{- $common := dict "root" .root "component" "segment" "image" (include "espalier.pool.image" .) "env" $pool.env "priority" (include "espalier.priority.training" .root) }}
{{- $workers := int $pool.workers }}
{{- $small := dict "resources" $pool.headResources "labels" $pool.labels "annotations" $pool.annotations "priorityClassName" $pool.priorityClassName }}
{{- include "espalier.ray.cluster" .root }}
headGroupSpec:
  rayStartParams:
    dashboard-host: 0.0.0.0
    {{- if $workers }}
    num-cpus: "0"
    {{- end }}
  template: {{ include "espalier.ray.template" (merge (dict "at" ($workers | empty | ternary $pool $small) "head" true) $common) | nindent 4 }}
{{- if $workers }}
workerGroupSpecs:
  - groupName: workers
    replicas: {{ $workers }}
    minReplicas: {{ $workers }}
    maxReplicas: {{ $workers }}
    rayStartParams: {}
    template: {{ include "espalier.ray.template" (merge (dict "at" $pool "gpus" $pool.gpus "gpuResource" $pool.gpuResource) $common) | nindent 6 }}
{{- end }}
{{- end }}
