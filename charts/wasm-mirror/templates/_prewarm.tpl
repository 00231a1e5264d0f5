{{/* Names of the Job that warms the mirror, and of its account. */}}
{{- define "wasm-mirror.prewarmName" -}}{{ include "wasm-mirror.fullname" . }}-prewarm{{- end }}
{{- define "wasm-mirror.prewarmAccount" -}}
{{- .Values.prewarm.hook.serviceAccountName | default (include "wasm-mirror.prewarmName" .) -}}
{{- end }}

{{/*
A pod that runs a command against the mirror, with its token:
(dict "root" $ "component" "prewarm" "args" (list …) "account" name "token" bool "resources" …).
*/}}
{{- define "wasm-mirror.commandPodSpec" -}}
{{- $ca := and (include "wasm-mirror.tls" .root) .root.Values.tls.caKey -}}
restartPolicy: Never
serviceAccountName: {{ .account }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
{{- with include "wasm-mirror.imagePullSecrets" .root | trim }}
{{ . }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
containers:
  - name: {{ .component }}
    image: {{ include "wasm-mirror.image" (dict "root" .root "image" .root.Values.image) }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
    env:
      - name: WASM_MIRROR_URL
        value: {{ include "wasm-mirror.adminUrl" .root }}
      - name: WASM_MIRROR_TOKEN_FILE
        value: /run/secrets/admin/token
      {{- if $ca }}
      - name: SSL_CERT_FILE
        value: /run/secrets/authority/ca.crt
      {{- end }}
    securityContext:
      {{- toYaml .root.Values.securityContext | nindent 6 }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    volumeMounts:
      - name: admin
        mountPath: /run/secrets/admin
        readOnly: true
      {{- if $ca }}
      - name: authority
        mountPath: /run/secrets/authority
        readOnly: true
      {{- end }}
volumes:
  - name: admin
    secret:
      secretName: {{ include "wasm-mirror.adminSecretName" .root }}
      defaultMode: 0440
      items:
        - key: {{ .root.Values.admin.secretKey }}
          path: token
  {{- if $ca }}
  - name: authority
    secret:
      secretName: {{ include "wasm-mirror.tlsSecretName" .root }}
      items:
        - key: {{ .root.Values.tls.caKey }}
          path: ca.crt
  {{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
