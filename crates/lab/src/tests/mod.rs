mod endpoint;

/// `Cargo.toml` keeps other crates out. It cannot keep the rules of `medic-core` out.
#[test]
fn simulators_use_no_rules_of_the_core() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for rest in text.split(concat!("medic_core", "::")).skip(1) {
                let allowed = ["model", "clock"].iter().any(|module| rest.starts_with(module));
                assert!(allowed, "{} uses {} of the core", path.display(), rest.lines().next().unwrap_or_default());
            }
        }
    }
}
