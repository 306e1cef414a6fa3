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
{{- if .root.Values.shared.enabled }}
envFrom:
  - secretRef:
      name: {{ required "shared.secret is empty; name a secret with TOPBILL_LOG, PGPASSWORD and what the lake needs" .root.Values.shared.secret }}
env:
  - name: TOPBILL_LAKE
    value: {{ required "shared.lake is empty; name a place that all pods reach, such as s3://bucket/topbill" .root.Values.shared.lake }}
  {{- with .own.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- else }}
{{- with .own.env }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "topbill.mounts" -}}
- {name: data, mountPath: /var/lib/topbill}
- {name: experiments, mountPath: /etc/topbill/experiments, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: tmp, mountPath: /home/topbill, subPath: home}
{{- end -}}

{{- /* Of every pod: who it runs as, and where. */ -}}
{{- define "topbill.pod" -}}
serviceAccountName: {{ include "topbill.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.hashUnits }}
initContainers:
  # It is said in the data folder, where backups and restores take it along.
  - name: settings
    {{- include "topbill.container" (dict "root" . "own" .Values.service) | nindent 4 }}
    command: [sh, -c]
    args:
      - >-
        mkdir -p /var/lib/topbill/data &&
        echo 'hash_units: true' > /var/lib/topbill/data/settings.yaml
    volumeMounts:
      {{- include "topbill.mounts" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "topbill.serviceContainer" -}}
- name: service
  {{- include "topbill.container" (dict "root" . "own" .Values.service) | nindent 2 }}
  args:
    - serve
    - --experiments=/etc/topbill/experiments
    - --data=/var/lib/topbill/data
    - --host=0.0.0.0
    - --port=8600
    - --processes={{ .Values.service.processes }}
    - --keys=/etc/topbill/keys/{{ .Values.keys.key }}
    - --drain={{ .Values.service.drain }}
    - --log-format=json
    {{- range .Values.service.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  ports:
    - {name: http, containerPort: 8600}
  # A first start compiles, and a large log takes its time.
  startupProbe:
    httpGet: {path: /healthz, port: http}
    periodSeconds: 2
    failureThreshold: 90
  livenessProbe:
    httpGet: {path: /healthz, port: http}
    periodSeconds: 10
    timeoutSeconds: 3
  readinessProbe:
    httpGet: {path: /readyz, port: http}
    periodSeconds: 2
    timeoutSeconds: 2
    failureThreshold: 2
  volumeMounts:
    {{- include "topbill.mounts" . | nindent 4 }}
    - {name: keys, mountPath: /etc/topbill/keys, readOnly: true}
{{- end -}}

{{- define "topbill.workerContainer" -}}
# No probe: it has no port, and is started again whenever it ends. Whether it lives and keeps up is in /readyz and metrics.
- name: worker
  {{- include "topbill.container" (dict "root" . "own" .Values.worker) | nindent 2 }}
  args:
    - worker
    - --experiments=/etc/topbill/experiments
    - --data=/var/lib/topbill/data
    - --log-format=json
    {{- range .Values.worker.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  volumeMounts:
    {{- include "topbill.mounts" . | nindent 4 }}
{{- end -}}

{{- define "topbill.dashboardContainer" -}}
# Not part of the pod's readiness: viewers are decided for while nobody can look.
- name: dashboard
  {{- include "topbill.container" (dict "root" . "own" .Values.dashboard) | nindent 2 }}
  args:
    - dashboard
    - --experiments=/etc/topbill/experiments
    - --data=/var/lib/topbill/data
    - --host=0.0.0.0
    - --port=8601
  workingDir: /etc/topbill/dashboard
  ports:
    - {name: dashboard, containerPort: 8601}
  livenessProbe:
    httpGet: {path: /_stcore/health, port: dashboard}
    initialDelaySeconds: 30
    periodSeconds: 10
    timeoutSeconds: 3
  volumeMounts:
    {{- include "topbill.mounts" . | nindent 4 }}
    - {name: dashboard, mountPath: /etc/topbill/dashboard/.streamlit, readOnly: true}
{{- end -}}

{{- define "topbill.volumes" -}}
- name: experiments
  {{- if .Values.experiments.volume }}
  {{- toYaml .Values.experiments.volume | nindent 2 }}
  {{- else }}
  configMap:
    name: {{ include "topbill.name" . }}-experiments
  {{- end }}
- name: keys
  secret:
    secretName: {{ required "keys.existingSecret is empty; name a secret with the service's keys" .Values.keys.existingSecret }}
    defaultMode: 0440
{{- if .Values.dashboard.enabled }}
- name: dashboard
  secret:
    secretName: {{ required "dashboard.existingSecret is empty; name a secret with secrets.toml, or disable the dashboard" .Values.dashboard.existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.dashboard.key | quote }}, path: secrets.toml}
{{- end }}
- name: tmp
  emptyDir: {}
{{- end -}}
