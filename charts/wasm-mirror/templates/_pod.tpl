{{/* Parts of the mirror's pod. */}}

{{/* The sources of the volume with all its secrets, at /run/secrets/wasm-mirror. */}}
{{- define "wasm-mirror.secretSources" -}}
{{- include "wasm-mirror.secretSource" (dict "name" (include "wasm-mirror.adminSecretName" .) "items" (dict .Values.admin.secretKey "admin-token")) }}
{{- if include "wasm-mirror.replicated" . }}
{{- include "wasm-mirror.secretSource" (dict "name" (include "wasm-mirror.clusterSecretName" .) "items" (dict .Values.cluster.secretKey "cluster-secret")) }}
{{- end }}
{{- with .Values.redis }}
{{- if or .bundled.enabled .existingSecret }}
{{- $items := dict .passwordKey "redis/password" }}
{{- with .usernameKey }}{{ $_ := set $items . "redis/username" }}{{ end }}
{{- include "wasm-mirror.secretSource" (dict "name" (include "wasm-mirror.redisSecretName" $) "items" $items) }}
{{- end }}
{{- if .tls.existingSecret }}
{{- $items := dict .tls.caKey "redis/ca.crt" }}
{{- if .tls.certificateKey }}
{{- $_ := set $items .tls.certificateKey "redis/tls.crt" }}
{{- $_ := set $items .tls.privateKeyKey "redis/tls.key" }}
{{- end }}
{{- include "wasm-mirror.secretSource" (dict "name" .tls.existingSecret "items" $items) }}
{{- end }}
{{- end }}
{{- if or .Values.auth.existingSecret .Values.auth.users }}
{{- include "wasm-mirror.secretSource" (dict "name" (include "wasm-mirror.htpasswdSecretName" .) "items" (dict .Values.auth.secretKey "htpasswd")) }}
{{- end }}
{{- if include "wasm-mirror.tls" . }}
{{- $items := dict "tls.crt" "tls/tls.crt" "tls.key" "tls/tls.key" }}
{{- include "wasm-mirror.secretSource" (dict "name" (include "wasm-mirror.tlsSecretName" .) "items" $items) }}
{{- with .Values.tls.caKey }}
{{- include "wasm-mirror.secretSource" (dict "name" (include "wasm-mirror.tlsSecretName" $) "items" (dict . "tls/ca.crt") "optional" true) }}
{{- end }}
{{- end }}
{{- $pulls := list }}
{{- range .Values.credentials }}{{ $pulls = append $pulls .existingSecret }}{{ end }}
{{- range uniq $pulls }}
{{- include "wasm-mirror.secretSource" (dict "name" . "items" (dict ".dockerconfigjson" (printf "pull/%s/config.json" .))) }}
{{- end }}
{{- end }}

{{/* One of them: (dict "name" … "items" (dict KEY PATH) ["optional" true]). */}}
{{- define "wasm-mirror.secretSource" }}
- secret:
    name: {{ .name }}
    {{- if .optional }}
    optional: true
    {{- end }}
    items:
      {{- range $key, $path := .items }}
      - key: {{ $key }}
        path: {{ $path }}
      {{- end }}
{{- end }}

{{/* Replicas beside one another, on nodes and in zones. */}}
{{- define "wasm-mirror.placement" -}}
{{- $selector := include "wasm-mirror.selectorLabels" (dict "root" $ "component" "mirror") -}}
{{- if .Values.affinity }}
affinity:
  {{- toYaml .Values.affinity | nindent 2 }}
{{- else if eq .Values.antiAffinity "hard" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- $selector | nindent 12 }}
{{- else if eq .Values.antiAffinity "soft" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
{{- end }}
topologySpreadConstraints:
{{- with .Values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  - topologyKey: topology.kubernetes.io/zone
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
{{- end }}
{{- end }}

{{/* Where the mirror is for a command in its own pod. */}}
{{- define "wasm-mirror.ownUrl" -}}
{{- $port := .Values.admin.port | int | default (include "wasm-mirror.port" . | int) -}}
{{- if include "wasm-mirror.tls" . -}}
https://{{ include "wasm-mirror.host" . }}.svc:{{ include "wasm-mirror.adminPort" . }}
{{- else -}}
http://localhost:{{ $port }}
{{- end -}}
{{- end }}
