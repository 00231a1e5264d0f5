{{/* The mirror's settings, in YAML: what follows from the values, and `config` over it. */}}
{{- define "wasm-mirror.settings" -}}
{{- $config := deepCopy .Values.config -}}
{{- $listen := $config.listen | default "0.0.0.0:8080" -}}
{{- $settings := dict
      "listen" $listen
      "data_dir" "/var/lib/wasm-mirror"
      "drain_for" .Values.drainFor
      "stop_within" .Values.stopWithin
      "cache" (dict "max_size" (include "wasm-mirror.maxSize" .))
      "admin" (dict "token_file" "/run/secrets/wasm-mirror/admin-token")
-}}
{{- with .Values.admin.port -}}
{{- $_ := set $settings.admin "listen" (printf "%s:%d" (regexReplaceAll ":[0-9]+$" $listen "") (int .)) -}}
{{- end -}}
{{- if include "wasm-mirror.replicated" . -}}
{{- $_ := set $settings "metadata" (include "wasm-mirror.redisSettings" . | fromYaml) -}}
{{- $cluster := dict "secret_file" "/run/secrets/wasm-mirror/cluster-secret" -}}
{{- if and (include "wasm-mirror.tls" .) .Values.tls.caKey -}}
{{- $_ := set $cluster "ca_file" "/run/secrets/wasm-mirror/tls/ca.crt" -}}
{{- end -}}
{{- $_ := set $settings "cluster" $cluster -}}
{{- end -}}
{{- if or .Values.auth.existingSecret .Values.auth.users -}}
{{- $_ := set $settings "auth" (dict "file" "/run/secrets/wasm-mirror/htpasswd") -}}
{{- end -}}
{{- if include "wasm-mirror.tls" . -}}
{{- $place := "/run/secrets/wasm-mirror/tls" -}}
{{- $_ := set $settings "tls" (dict "certificate" (printf "%s/tls.crt" $place) "key" (printf "%s/tls.key" $place)) -}}
{{- end -}}
{{- $prewarm := dict -}}
{{- with .Values.prewarm.references }}{{ $_ := set $prewarm "references" . }}{{ end -}}
{{- with .Values.prewarm.interval }}{{ $_ := set $prewarm "interval" . }}{{ end -}}
{{- if $prewarm }}{{ $_ := set $settings "prewarm" $prewarm }}{{ end -}}
{{- range $key, $value := omit $config "upstreams" "names" -}}
{{- if and (kindIs "map" $value) (hasKey $settings $key) -}}
{{- range $inner, $one := $value }}{{ $_ := set (get $settings $key) $inner $one }}{{ end -}}
{{- else -}}
{{- $_ := set $settings $key $value -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "names" (concat (include "wasm-mirror.ownNames" . | fromYamlArray) ($config.names | default list) | uniq) -}}
{{- $_ := set $settings "upstreams" (include "wasm-mirror.upstreams" . | fromYaml) -}}
{{- toYaml $settings -}}
{{- end }}

{{/* A list: the Service's hosts, as others in the cluster write them. */}}
{{- define "wasm-mirror.ownNames" -}}
{{- $port := .Values.service.port | int -}}
{{- $usual := include "wasm-mirror.tls" . | empty | ternary 80 443 -}}
{{- range include "wasm-mirror.hosts" (dict "root" . "name" (include "wasm-mirror.fullname" .)) | fromYamlArray }}
- {{ . }}:{{ $port }}
{{- if eq $port $usual }}
- {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* A list: what a Service, or a pod, is called: (dict "root" $ "name" …). */}}
{{- define "wasm-mirror.hosts" -}}
{{- $there := printf "%s.%s" .name .root.Release.Namespace -}}
- {{ .name | quote }}
- {{ $there | quote }}
- {{ printf "%s.svc" $there | quote }}
- {{ printf "%s.svc.%s" $there .root.Values.clusterDomain | quote }}
{{- end }}

{{/* Whether there is a Redis. */}}
{{- define "wasm-mirror.replicated" -}}{{ if or .Values.redis.url .Values.redis.bundled.enabled }}true{{ end }}{{- end }}

{{- define "wasm-mirror.redisSettings" -}}
{{- $place := "/run/secrets/wasm-mirror/redis" -}}
url: {{ .Values.redis.url | default (printf "redis://%s.%s.svc:6379" (include "wasm-mirror.redisName" .) .Release.Namespace) | quote }}
{{- if or .Values.redis.bundled.enabled .Values.redis.existingSecret }}
password_file: {{ $place }}/password
{{- if .Values.redis.usernameKey }}
username_file: {{ $place }}/username
{{- end }}
{{- end }}
{{- with .Values.redis.tls }}
{{- if .existingSecret }}
ca_file: {{ $place }}/ca.crt
{{- if .certificateKey }}
client_certificate: {{ $place }}/tls.crt
client_key: {{ $place }}/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The registries: those of `config`, or those that everybody knows, with their logins. */}}
{{- define "wasm-mirror.upstreams" -}}
{{- $upstreams := dict -}}
{{- if .Values.config.upstreams -}}
{{- range $name, $upstream := deepCopy .Values.config.upstreams }}{{ $_ := set $upstreams $name ($upstream | default dict) }}{{ end -}}
{{- else -}}
{{- range tuple "ghcr.io" "docker.io" "quay.io" "registry.k8s.io" "gcr.io" "mcr.microsoft.com" "public.ecr.aws" -}}
{{- $_ := set $upstreams . dict -}}
{{- end -}}
{{- end -}}
{{- range .Values.credentials -}}
{{- $login := dict "docker_config" (printf "/run/secrets/wasm-mirror/pull/%s/config.json" .existingSecret) -}}
{{- include "wasm-mirror.giveLogin" (dict "upstreams" $upstreams "name" .upstream "login" $login "key" "credentials") -}}
{{- end -}}
{{- range $helper := .Values.credentialHelpers -}}
{{- range .upstreams -}}
{{- $login := dict "helper" $helper.name -}}
{{- include "wasm-mirror.giveLogin" (dict "upstreams" $upstreams "name" . "login" $login "key" "credentialHelpers") -}}
{{- end -}}
{{- end -}}
{{- toYaml $upstreams -}}
{{- end }}

{{/* Writes a login to one of the upstreams; prints nothing. */}}
{{- define "wasm-mirror.giveLogin" -}}
{{- if not (or (hasKey .upstreams .name) (regexMatch "^[^.:]+(\\.[^.:]+)+$" .name)) -}}
{{- fail (printf "%s: %s is no host, and config.upstreams has no upstream of that name with its endpoints" .key .name) -}}
{{- end -}}
{{- $upstream := get .upstreams .name | default dict -}}
{{- if $upstream.credentials -}}
{{- fail (printf "%s: the upstream %s has credentials already; it can have one login" .key .name) -}}
{{- end -}}
{{- $_ := set .upstreams .name (set $upstream "credentials" .login) -}}
{{- end }}

{{/* What the pod needs to know of its own settings. */}}
{{- define "wasm-mirror.port" -}}
{{- regexFind "[0-9]+$" ((include "wasm-mirror.settings" . | fromYaml).listen) -}}
{{- end }}
{{- define "wasm-mirror.gracePeriod" -}}
{{- $settings := include "wasm-mirror.settings" . | fromYaml -}}
{{- $drain := include "wasm-mirror.seconds" (dict "value" $settings.drain_for "key" "drainFor") | int -}}
{{- add $drain (include "wasm-mirror.seconds" (dict "value" $settings.stop_within "key" "stopWithin") | int) 10 -}}
{{- end }}
