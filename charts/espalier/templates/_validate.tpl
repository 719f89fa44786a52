{{/* What cannot work, each in one sentence with a remedy. Included by the RayService, which every release has. */}}

{{- define "espalier.validate" -}}
{{- include "espalier.validate.release" . }}
{{- include "espalier.validate.images" . }}
{{- include "espalier.validate.database" . }}
{{- include "espalier.validate.storage" . }}
{{- include "espalier.validate.serving" . }}
{{- include "espalier.validate.pools" . }}
{{- end }}

{{- define "espalier.validate.release" -}}
{{- if not (.Capabilities.APIVersions.Has "ray.io/v1") }}
{{- fail "the cluster does not know ray.io/v1: install KubeRay first (helm install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm --version 1.6.2); where no cluster is asked, as in helm template, say --api-versions ray.io/v1" }}
{{- end }}
{{- $name := include "espalier.fullname" . }}
{{- if gt (len $name) 40 }}
{{- fail (printf "the name %s has %d characters and may have 40, since KubeRay adds to it: choose a shorter release name or set fullnameOverride" $name (len $name)) }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "the name %s cannot be that of a Service: begin with a letter and use only small letters, digits and hyphens in the release name or fullnameOverride" $name) }}
{{- end }}
{{- end }}

{{- define "espalier.validate.images" -}}
{{- range $key := list "core" "torch" }}
{{- if eq (get $.Values.images $key).tag "latest" }}
{{- fail (printf "images.%s.tag is latest, which names another image every day: give a version or a digest" $key) }}
{{- end }}
{{- end }}
{{- $images := dict }}
{{- if .Values.database.postgres.enabled }}
{{- $_ := set $images "database.postgres.image" .Values.database.postgres.image }}
{{- end }}
{{- range $name, $pool := .Values.pools }}
{{- with $pool.image }}
{{- $_ := set $images (printf "pools.%s.image" $name) . }}
{{- end }}
{{- end }}
{{- range $key, $image := $images }}
{{- if or (not (regexMatch "(:[^/]+|@sha256:[0-9a-f]{64})$" $image)) (hasSuffix ":latest" $image) }}
{{- fail (printf "%s is %s, which names no version: end it with a tag other than latest, or with @sha256:..." $key $image) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "espalier.validate.database" -}}
{{- with .Values.database }}
{{- $chosen := 0 }}
{{- if .postgres.enabled }}{{ $chosen = add1 $chosen }}{{ end }}
{{- if .existingSecret.name }}{{ $chosen = add1 $chosen }}{{ end }}
{{- if .sqlite }}{{ $chosen = add1 $chosen }}{{ end }}
{{- if ne (int $chosen) 1 }}
{{- fail (printf "%d databases are chosen and one is needed: set exactly one of database.postgres.enabled, database.existingSecret.name and database.sqlite" (int $chosen)) }}
{{- end }}
{{- end }}
{{- if .Values.database.sqlite }}
{{- if gt (int .Values.serving.gateways) 1 }}
{{- fail (printf "serving.gateways is %d and SQLite takes one: set it to 1, or use database.postgres.enabled" (int .Values.serving.gateways)) }}
{{- end }}
{{- if eq .Values.serving.upgrade "NewCluster" }}
{{- fail "serving.upgrade NewCluster runs two gateways for a while and SQLite takes one: set serving.upgrade to None, or use database.postgres.enabled" }}
{{- end }}
{{- if not (include "espalier.store.oneHost" .) }}
{{- fail "database.sqlite needs a claim that one host mounts, since SQLite's log is shared memory: set storage.claim.accessModes to [ReadWriteOnce], or use database.postgres.enabled" }}
{{- end }}
{{- end }}
{{- if and .Values.mlflow.enabled .Values.mlflow.uri }}
{{- fail "mlflow.uri names a server and mlflow.enabled runs another: set mlflow.enabled to false, or leave mlflow.uri empty" }}
{{- end }}
{{- if and .Values.storage.s3.enabled (not .Values.mlflow.enabled) (not .Values.mlflow.uri) }}
{{- fail "without a claim MLflow's file has no place: set mlflow.enabled to true, or mlflow.uri to a server of yours" }}
{{- end }}
{{- end }}

{{- define "espalier.validate.storage" -}}
{{- if and .Values.storage.s3.enabled (not .Values.storage.s3.bucket) }}
{{- fail "storage.s3.enabled names no bucket: set storage.s3.bucket to one that exists" }}
{{- end }}
{{- if include "espalier.store.oneHost" . }}
{{- $remedy := "use storage.s3, or a class of volumes that takes storage.claim.accessModes [ReadWriteMany]" }}
{{- $workers := .Values.serving.workers }}
{{- $most := int ($workers.autoscaling.enabled | ternary $workers.autoscaling.maxReplicas $workers.replicas) }}
{{- if gt $most 1 }}
{{- fail (printf "serving.workers may be %d and the claim can be mounted on one host only: %s" $most $remedy) }}
{{- end }}
{{- range $name, $_ := .Values.pools }}
{{- $pool := include "espalier.pool" (dict "root" $ "name" $name) | fromYaml }}
{{- if and $pool.enabled (or (gt (int $pool.gpus) 0) (gt (int $pool.workers) 0)) }}
{{- fail (printf "pools.%s has workers or GPUs and the claim can be mounted on one host only: %s" $name $remedy) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "espalier.validate.serving" -}}
{{- with .Values.serving }}
{{- if and .workers.autoscaling.enabled (gt (int .workers.autoscaling.minReplicas) (int .workers.autoscaling.maxReplicas)) }}
{{- fail (printf "serving.workers.autoscaling.minReplicas is %d, more than maxReplicas, %d: lower the one or raise the other" (int .workers.autoscaling.minReplicas) (int .workers.autoscaling.maxReplicas)) }}
{{- end }}
{{- if and (eq (int .workers.replicas) 0) (gt (int .workers.gpus) 0) (not .workers.autoscaling.enabled) }}
{{- fail "serving.workers.gpus asks for GPUs and serving.workers.replicas is 0, so that no pod has them: set replicas to 1 or more" }}
{{- end }}
{{- $before := 0 }}
{{- range $key := list "requestSeconds" "replicaSeconds" "podSeconds" "clusterSeconds" }}
{{- $seconds := int (get $.Values.serving.drain $key) }}
{{- if le $seconds $before }}
{{- fail (printf "serving.drain.%s is %d and must be above %d, or what it ends is cut off: raise it" $key $seconds $before) }}
{{- end }}
{{- $before = $seconds }}
{{- end }}
{{- if and .ingress.enabled (not .ingress.host) }}
{{- fail "serving.ingress.enabled names no host: set serving.ingress.host to the name that clients use" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "espalier.validate.pools" -}}
{{- range $name, $_ := .Values.pools }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$" $name) }}
{{- fail (printf "pools.%s cannot be part of a name: use up to 20 small letters, digits and hyphens, beginning with a letter" $name) }}
{{- end }}
{{- $pool := include "espalier.pool" (dict "root" $ "name" $name) | fromYaml }}
{{- if and $pool.enabled (gt (int $pool.gpus) 0) (eq (int $pool.workers) 0) }}
{{- fail (printf "pools.%s.gpus is %d and no worker has them: set pools.%s.workers to 1 or more" $name (int $pool.gpus) $name) }}
{{- end }}
{{- end }}
{{- $cpu := dict }}
{{- if hasKey .Values.pools "cpu" }}
{{- $cpu = include "espalier.pool" (dict "root" $ "name" "cpu") | fromYaml }}
{{- end }}
{{- if not $cpu.enabled }}
{{- fail "pools.cpu is not there and stages that name no pool need it: leave pools.cpu enabled" }}
{{- end }}
{{- end }}
