{{/* Names. A StatefulSet's name, `-` and a hash of 10 characters are a label's value: 50 leaves room for suffixes. */}}
{{- define "wasm-mirror.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "wasm-mirror.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "wasm-mirror.headlessName" -}}{{ include "wasm-mirror.fullname" . }}-peers{{- end }}
{{- define "wasm-mirror.redisName" -}}{{ include "wasm-mirror.fullname" . }}-redis{{- end }}

{{- define "wasm-mirror.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "wasm-mirror.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* Labels and annotations. `component` is mirror, redis, …: (dict "root" $ "component" "mirror"). */}}
{{- define "wasm-mirror.selectorLabels" -}}
app.kubernetes.io/name: {{ include "wasm-mirror.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Those of an object; `labels` are its own. What selects it is never overridden. */}}
{{- define "wasm-mirror.labels" -}}
{{- $usual := dict
      "app.kubernetes.io/version" .root.Chart.AppVersion
      "app.kubernetes.io/managed-by" .root.Release.Service
      "app.kubernetes.io/part-of" (include "wasm-mirror.name" .root)
      "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
-}}
{{- $selector := include "wasm-mirror.selectorLabels" . | fromYaml -}}
{{- toYaml (merge $selector (.labels | default dict) .root.Values.commonLabels $usual) -}}
{{- end }}

{{/* Those of a pod of this component, `labels` of its own too; without the version, so that only what matters rolls it. */}}
{{- define "wasm-mirror.podLabels" -}}
{{- $selector := include "wasm-mirror.selectorLabels" . | fromYaml -}}
{{- $meshless := include "wasm-mirror.meshlessLabels" .root | fromYaml -}}
{{- toYaml (merge $selector (.labels | default dict) .root.Values.commonLabels $meshless) -}}
{{- end }}
{{- define "wasm-mirror.podAnnotations" -}}
{{- $meshless := include "wasm-mirror.meshlessAnnotations" .root | fromYaml -}}
{{- toYaml (merge (dict) (.annotations | default dict) .root.Values.commonAnnotations $meshless) -}}
{{- end }}

{{/* The metadata of an object: (dict "root" $ "component" "mirror" "name" … ["annotations" (dict …)] ["labels" (dict …)]). */}}
{{- define "wasm-mirror.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
{{- include "wasm-mirror.unscoped" . }}
{{- end }}

{{/* The same without name and namespace, for what belongs to no namespace. */}}
{{- define "wasm-mirror.unscoped" }}
labels:
  {{- include "wasm-mirror.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The reference of an image: (dict "root" $ "image" .Values.image). */}}
{{- define "wasm-mirror.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry -}}
{{- $name := empty $registry | ternary .image.repository (printf "%s/%s" $registry .image.repository) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{- define "wasm-mirror.imagePullSecrets" -}}
{{- $secrets := .Values.imagePullSecrets -}}
{{- range .Values.global.imagePullSecrets }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end }}
{{- with $secrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels and annotations of every pod that keep proxies of a mesh away from it: agents start before them, and need it. */}}
{{- define "wasm-mirror.meshlessLabels" -}}
sidecar.istio.io/inject: "false"
istio.io/dataplane-mode: none
{{- end }}
{{- define "wasm-mirror.meshlessAnnotations" -}}
sidecar.istio.io/inject: "false"
linkerd.io/inject: disabled
{{- end }}

{{/* Where the mirror is found. */}}
{{- define "wasm-mirror.tls" -}}{{ if or .Values.tls.existingSecret .Values.tls.certManager.enabled }}true{{ end }}{{- end }}
{{- define "wasm-mirror.scheme" -}}{{ include "wasm-mirror.tls" . | empty | ternary "http" "https" }}{{- end }}
{{- define "wasm-mirror.tlsSecretName" -}}
{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "wasm-mirror.fullname" .)) }}
{{- end }}

{{/* The Service's name in the cluster, with its namespace, as others write it. */}}
{{- define "wasm-mirror.host" -}}{{ include "wasm-mirror.fullname" . }}.{{ .Release.Namespace }}{{- end }}

{{/* The port, by its name, at which pods and Services have /metrics and /api/v1; and the Service's number of it. */}}
{{- define "wasm-mirror.adminPortName" -}}{{ empty .Values.admin.port | ternary (include "wasm-mirror.scheme" .) "admin" }}{{- end }}
{{- define "wasm-mirror.adminPort" -}}{{ .Values.admin.port | int | default (.Values.service.port | int) }}{{- end }}
{{- define "wasm-mirror.adminUrl" -}}
{{ include "wasm-mirror.scheme" . }}://{{ include "wasm-mirror.host" . }}.svc:{{ include "wasm-mirror.adminPort" . }}
{{- end }}

{{/* Secrets, those that exist or the chart's own. */}}
{{- define "wasm-mirror.adminSecretName" -}}
{{ .Values.admin.existingSecret | default (printf "%s-admin" (include "wasm-mirror.fullname" .)) }}
{{- end }}
{{- define "wasm-mirror.clusterSecretName" -}}
{{ .Values.cluster.existingSecret | default (printf "%s-cluster" (include "wasm-mirror.fullname" .)) }}
{{- end }}
{{- define "wasm-mirror.htpasswdSecretName" -}}
{{ .Values.auth.existingSecret | default (printf "%s-htpasswd" (include "wasm-mirror.fullname" .)) }}
{{- end }}
{{- define "wasm-mirror.redisSecretName" -}}
{{ .Values.redis.existingSecret | default (include "wasm-mirror.redisName" .) }}
{{- end }}
