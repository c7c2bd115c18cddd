//! What is shipped for Kubernetes is a configuration that the medic takes.

use scaleset_medic::config::raw::Raw;
use scaleset_medic::config::source::{FileText, Sources};
use scaleset_medic::config::{Depth, check};
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_shipped_configuration_has_no_mistake() {
    for path in [
        "manifests/base/config.toml",
        "manifests/overlays/oneshot/config.toml",
        "manifests/overlays/standalone/config.toml",
    ] {
        let file = Some(FileText { name: path.to_owned(), text: read(path) });
        let checked = check(&Raw::read(&Sources { file, ..Sources::default() }), Depth::Values);
        assert!(checked.is_ok(), "{path}: {}", checked.unwrap_err());
    }
}

#[test]
fn only_the_sidecar_takes_garm_for_a_neighbour_in_its_pod() {
    assert!(read("manifests/base/config.toml").contains("127.0.0.1"));
    for overlay in ["oneshot", "standalone"] {
        let config = read(&format!("manifests/overlays/{overlay}/config.toml"));
        assert!(!config.contains("127.0.0.1") && !config.contains("log_file"), "{overlay}");
    }
}
