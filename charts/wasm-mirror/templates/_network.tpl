{{/* Peers of a NetworkPolicy: the release's pods of these components, (dict "root" $ "components" (list …)). */}}
{{- define "wasm-mirror.ownPods" -}}
- podSelector:
    matchLabels:
      app.kubernetes.io/name: {{ include "wasm-mirror.name" .root }}
      app.kubernetes.io/instance: {{ .root.Release.Name }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: {{ toJson .components }}}
{{- end }}

{{/* Ports of a NetworkPolicy, over TCP, in order and once each: a list of numbers. */}}
{{- define "wasm-mirror.tcp" -}}
{{- range . | uniq | sortAlpha }}
- {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end }}

{{/* The rule that lets a pod ask for names. */}}
{{- define "wasm-mirror.nameServers" -}}
- ports:
    {{- range .Values.networkPolicy.nameServerPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.nameServers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* The port of a URL, or of HOST:PORT, which is then one of https: (dict "at" …). */}}
{{- define "wasm-mirror.portOf" -}}
{{- $url := urlParse (contains "://" .at | ternary .at (printf "https://%s" .at)) -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (eq $url.scheme "http" | ternary "80" "443") -}}
{{- end }}

{{/* A list: the ports of upstreams, as the settings write them, and those of proxies; 443 is that of token services and
     redirects, too. */}}
{{- define "wasm-mirror.upstreamPorts" -}}
{{- $settings := include "wasm-mirror.settings" . | fromYaml -}}
{{- $ports := list "443" -}}
{{- range $settings.upstreams -}}
{{- range .endpoints -}}
{{- $endpoint := kindIs "map" . | ternary . (dict "url" .) -}}
{{- range concat (list $endpoint.url) ($endpoint.auth_hosts | default list) ($endpoint.redirect_hosts | default list) -}}
{{- $ports = append $ports (include "wasm-mirror.portOf" (dict "at" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $settings.tracing -}}
{{- with .endpoint }}{{ $ports = append $ports (include "wasm-mirror.portOf" (dict "at" .)) }}{{ end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if and .value (has (upper .name) (list "HTTP_PROXY" "HTTPS_PROXY")) -}}
{{- $ports = append $ports (include "wasm-mirror.portOf" (dict "at" .value)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end }}

{{/* A list: the ports in the URL of a Redis; Sentinels name a master at its own. */}}
{{- define "wasm-mirror.redisPorts" -}}
{{- $scheme := regexFind "^[a-z+]+" . -}}
{{- $usual := contains "sentinel" $scheme | ternary "26379" "6379" -}}
{{- $ports := contains "sentinel" $scheme | ternary (list "6379") list -}}
{{- range splitList "," (regexReplaceAll "^[a-z+]+://([^/]*).*$" . "${1}") -}}
{{- $ports = append $ports (trimPrefix ":" (regexFind ":[0-9]+$" .) | default $usual) -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end }}
