//! Steps that several findings share. The lines of a source are those of [`crate::text::sources`].

use super::facts::ManagerFacts;
use super::{Check, Finding};
use crate::text::sources::{self, LOG_PATH, LOG_STREAM, LOG_STREAMER};
use medic_core::model::Source;

impl Finding {
    pub(super) fn hides(self, source: Source) -> Self {
        self.risks(sources::text(source).without)
    }

    /// Lines for GARM's own configuration.
    pub(super) fn with_garm_lines(self, lines: &[&str]) -> Self {
        self.step("in GARM's config.toml, then restart GARM:", lines)
    }

    /// What makes GARM write a log file that names sessions.
    pub(super) fn with_garm_log_file(self, path: &str) -> Self {
        let file = format!("log_file = \"{}\"", absolute(path));
        let lines = sources::text(Source::Log).garm.iter();
        let lines: Vec<_> = lines.map(|line| if line.starts_with("log_file") { &*file } else { *line }).collect();
        self.with_garm_lines(&lines)
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
            "where GARM runs in a pod: share the folder, and run both containers as one user, because GARM may give \
             the file to its own user only (the medic may also be one of initContainers, with restartPolicy: Always):",
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

    /// Keys of the medic's own table of a manager.
    pub(super) fn with_medic_lines(self, lines: &[&str]) -> Self {
        self.step("in the medic's [[manager]] table:", lines)
    }

    /// Both ways to enable the log.
    pub(super) fn log_not_configured(manager: &ManagerFacts) -> Self {
        Check::Log
            .warn(manager, "not configured: neither log_file nor log_stream")
            .hides(Source::Log)
            .with_garm_log_file(LOG_PATH)
            .with_shared_volume(LOG_PATH)
            .with_medic_lines(sources::text(Source::Log).medic)
            .step(
                format!(
                    "where no file can be shared, use the websocket: {LOG_STREAMER} under [logging] in GARM's \
                     config.toml, and in the medic's [[manager]] table:"
                ),
                &[LOG_STREAM.1],
            )
    }
}

/// What is configured may be a relative path, which means nothing to another container.
fn absolute(path: &str) -> &str {
    if path.starts_with('/') { path } else { LOG_PATH }
}
