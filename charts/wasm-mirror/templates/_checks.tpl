{{/* What is wrong between values, which the schema cannot see. Prints nothing. */}}
{{- define "wasm-mirror.check" -}}
{{- $values := .Values -}}
{{- $hosted := ne (toString (dig "hosted" "enabled" true $values.config)) "false" -}}
{{- if and $values.redis.url $values.redis.bundled.enabled -}}
{{- fail "redis.url and redis.bundled.enabled are both set: replicas meet in one Redis; leave one of them out" -}}
{{- end -}}
{{- if regexMatch "[@?]" $values.redis.url -}}
{{- fail "redis.url holds a user, a password or a query, and it becomes a ConfigMap: name a Secret in redis.existingSecret" -}}
{{- end -}}
{{- if and (gt (int $values.replicas) 1) (not (include "wasm-mirror.replicated" .)) $hosted -}}
{{- fail (printf "replicas is %d, and they have no Redis to meet in: what is pushed to one of them would not be at the others. Set redis.url, or redis.bundled.enabled=true; or config.hosted.enabled=false, and each replica mirrors for itself" (int $values.replicas)) -}}
{{- end -}}
{{- if $values.persistence.existingClaim -}}
{{- if not $values.persistence.enabled -}}
{{- fail "persistence.existingClaim is set, and persistence.enabled is false" -}}
{{- end -}}
{{- if gt (int $values.replicas) 1 -}}
{{- fail "persistence.existingClaim is for one replica: each needs a volume of its own" -}}
{{- end -}}
{{- end -}}
{{- if and $values.auth.existingSecret $values.auth.users -}}
{{- fail "auth.existingSecret and auth.users are both set: users stand in that Secret, or are made by the chart" -}}
{{- end -}}
{{- if and $values.tls.existingSecret $values.tls.certManager.enabled -}}
{{- fail "tls.existingSecret and tls.certManager.enabled are both set: leave one of them out" -}}
{{- end -}}
{{- if and $values.tls.certManager.enabled (not $values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager.issuerRef.name is missing: it says which issuer signs the certificate" -}}
{{- end -}}
{{- if and $values.redis.usernameKey (or $values.redis.bundled.enabled (not $values.redis.existingSecret)) -}}
{{- fail "redis.usernameKey is a key of redis.existingSecret, for a Redis of redis.url; the bundled one has the default user" -}}
{{- end -}}
{{- if empty $values.redis.tls.certificateKey | ne (empty $values.redis.tls.privateKeyKey) -}}
{{- fail "redis.tls.certificateKey and redis.tls.privateKeyKey belong together; one of them is missing" -}}
{{- end -}}
{{- if has (int $values.admin.port) (list (int $values.service.port) (include "wasm-mirror.port" . | int)) -}}
{{- fail (printf "admin.port is %d, which is the registry's own: choose another, or 0 to have both at one" (int $values.admin.port)) -}}
{{- end -}}
{{- include "wasm-mirror.checkConfig" $values.config -}}
{{- range $values.extraEnv -}}
{{- if has .name (tuple "WASM_MIRROR_LISTEN" "WASM_MIRROR_ADMIN__LISTEN" "WASM_MIRROR_DATA_DIR" "WASM_MIRROR_DRAIN_FOR" "WASM_MIRROR_STOP_WITHIN") -}}
{{- fail (printf "extraEnv must not have %s: the pod follows from it, and would not know; there are values for it" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What must not stand in `config`: passwords, for it becomes a ConfigMap, and what has a value of its own. */}}
{{- define "wasm-mirror.checkConfig" -}}
{{- range $name, $upstream := .upstreams -}}
{{- $upstream = $upstream | default dict -}}
{{- range prepend ($upstream.endpoints | default list) $upstream -}}
{{- if and (kindIs "map" .) (kindIs "map" (.credentials | default "")) -}}
{{- if hasKey .credentials "password" -}}
{{- fail (printf "config.upstreams has a password, of %s, which everybody could read in the ConfigMap: use `credentials`, or password_file with extraVolumes" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if dig "admin" "listen" "" . -}}
{{- fail "config.admin.listen has a value of its own, from which Service and probes follow: set admin.port" -}}
{{- end -}}
{{- if dig "metadata" "url" "" . -}}
{{- fail "config.metadata.url has a value of its own, for replicas need more than that: set redis.url" -}}
{{- end -}}
{{- if .tls -}}
{{- fail "config.tls has values of its own, from which the Service and probes follow: set tls.existingSecret" -}}
{{- end -}}
{{- if hasKey . "data_dir" -}}
{{- fail "config.data_dir is where the volume is mounted; it cannot be changed" -}}
{{- end -}}
{{- end }}
