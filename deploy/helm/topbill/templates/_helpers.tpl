{{- define "topbill.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "topbill.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "topbill.labels" -}}
{{ include "topbill.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "topbill.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "topbill.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* What every container has; `own` are its own environment variables and `resources` its own. */ -}}
{{- define "topbill.container" -}}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext: {{- toYaml .root.Values.securityContext | nindent 2 }}
resources: {{- toYaml .own.resources | nindent 2 }}
{{- with .own.env }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "topbill.mounts" -}}
- {name: data, mountPath: /var/lib/topbill}
- {name: experiments, mountPath: /etc/topbill/experiments, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: tmp, mountPath: /home/topbill, subPath: home}
{{- end -}}
