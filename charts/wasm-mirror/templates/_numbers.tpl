{{/* Bytes of a quantity of Kubernetes, such as 20Gi, 1.5T or 500: (dict "value" … "key" "persistence.size"). */}}
{{- define "wasm-mirror.bytes" -}}
{{- $text := toString .value -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- $lengths := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000 -}}
{{- $lengths = merge $lengths (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624) -}}
{{- if or (empty $number) (not (hasKey $lengths $unit)) -}}
{{- fail (printf "%s must be a size such as 20Gi, 500Mi or 1T, not %q: the mirror's cache.max_size follows from it" .key $text) -}}
{{- end -}}
{{- printf "%.0f" (mulf $number (get $lengths $unit)) -}}
{{- end }}

{{/* What the mirror may take of the disk, from its size: 85 % of a volume, for its file system and the database need some;
     75 % of an emptyDir, for a pod that oversteps its limit is evicted. */}}
{{- define "wasm-mirror.maxSize" -}}
{{- $where := .Values.persistence.enabled | ternary "persistence.size" "emptyDir.sizeLimit" -}}
{{- $value := .Values.persistence.enabled | ternary .Values.persistence.size .Values.emptyDir.sizeLimit -}}
{{- $share := .Values.persistence.enabled | ternary 0.85 0.75 -}}
{{- $mebibytes := divf (mulf (include "wasm-mirror.bytes" (dict "value" $value "key" $where)) $share) 1048576 | floor -}}
{{- if lt $mebibytes 64.0 -}}
{{- fail (printf "%s is %s, which is too little for a mirror: a module alone may have 256Mi" $where $value) -}}
{{- end -}}
{{- printf "%.0fMiB" $mebibytes -}}
{{- end }}

{{/* Whole seconds, rounded up, of a duration as the mirror reads it: (dict "value" "1m30s" "key" "drainFor"). */}}
{{- define "wasm-mirror.seconds" -}}
{{- $text := toString .value -}}
{{- $parts := regexFindAll "[0-9]+(\\.[0-9]+)?(ms|s|m|h|d)" $text -1 -}}
{{- if and (ne $text "0") (or (empty $parts) (ne (join "" $parts) $text)) -}}
{{- fail (printf "%s must be a duration such as 500ms, 15s or 1m30s, not %q: terminationGracePeriodSeconds follows from it" .key $text) -}}
{{- end -}}
{{- $sum := 0.0 -}}
{{- range $parts -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- $sum = addf $sum (mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (trimPrefix $number .))) -}}
{{- end -}}
{{- printf "%.0f" (ceil $sum) -}}
{{- end }}
