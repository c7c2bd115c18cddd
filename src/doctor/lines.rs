//! The lines that a person is told to put somewhere. One place, so that two findings never tell two spellings; the
//! keys of GARM's `config.toml` are those of `docs/reference/garm-api.md` §13.

use super::Finding;

/// Where GARM writes its log, in what we tell people who have no such file yet.
pub(super) const LOG_PATH: &str = "/var/log/garm/garm.log";

impl Finding {
    /// What makes GARM write a log that names sessions.
    pub(super) fn with_garm_log_file(self, path: &str) -> Self {
        let file = format!("log_file = \"{}\"", absolute(path));
        let lines = ["[logging]", &file, "log_format = \"json\"", "log_level = \"debug\""];
        self.step("in GARM's config.toml, then restart GARM:", &lines)
    }

    /// What makes GARM's log, wherever it goes, name sessions.
    pub(super) fn with_garm_log_level(self) -> Self {
        let lines = ["[logging]", "log_level = \"debug\"", "log_format = \"json\""];
        self.step("in GARM's config.toml, then restart GARM (the default level is info):", &lines)
    }

    /// What makes GARM offer its log over a websocket.
    pub(super) fn with_garm_log_streamer(self) -> Self {
        let lines = ["[logging]", "enable_log_streamer = true", "log_level = \"debug\"", "log_format = \"json\""];
        self.step("in GARM's config.toml, then restart GARM:", &lines)
    }

    /// What makes GARM export its counters.
    pub(super) fn with_garm_metrics(self) -> Self {
        let lines = ["[metrics]", "enable = true", "disable_auth = true", "period = \"60s\""];
        let what = "in GARM's config.toml, then restart GARM (with disable_auth = false the medic fetches a metrics \
                    token by itself; keep metrics_auth = true in its own table then):";
        self.step(what, &lines)
    }

    /// The volume through which a sidecar reads GARM's log file. GARM rotates at 500 MB and keeps three packed ones;
    /// some builds make the file readable by their own user only.
    pub(super) fn with_shared_volume(self, path: &str) -> Self {
        let folder = match absolute(path).rsplit_once('/') {
            Some((folder, _)) if !folder.is_empty() => folder,
            Some(_) | None => "/",
        };
        let garm = format!("    volumeMounts: [{{ name: garm-log, mountPath: {folder} }}]");
        let medic = format!("    volumeMounts: [{{ name: garm-log, mountPath: {folder}, readOnly: true }}]");
        self.step(
            "where GARM runs in a pod: share the folder, and run both containers as one user, because GARM may give the \
             file to its own user only (the medic may also stand under initContainers, with restartPolicy: Always):",
            &[
                "spec:",
                "  securityContext: { runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532 }",
                "  volumes: [{ name: garm-log, emptyDir: { sizeLimit: 2Gi } }]",
                "  containers:",
                "  - name: garm",
                &garm,
                "  - name: scaleset-medic",
                &medic,
            ],
        )
    }

    /// One key of the medic's own table of a manager.
    pub(super) fn with_medic_line(self, line: &str) -> Self {
        self.step("in the medic's [[manager]] table:", &[line])
    }
}

/// What is configured may be a relative path, which means nothing to another container.
fn absolute(path: &str) -> &str {
    if path.starts_with('/') { path } else { LOG_PATH }
}
