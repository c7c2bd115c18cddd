//! The GARM simulator against recordings of two real builds (`tests/fixtures/recordings/README.md`): the same situations
//! are played on the simulator, and what it says is compared with what GARM said. Names, dates, ids and counts differ;
//! shapes must not. What differs on purpose is in [`WAIVED`], with its reason, and a waiver that is no longer needed
//! fails.

mod http;
mod logs;
mod metrics;
mod stage;

use std::collections::BTreeSet;

/// Which recording a waiver is for.
const PRE: &str = "garm-2026-04-pre-fix";
const POST: &str = "garm-2026-07-post-fix";

/// A difference that is meant.
struct Waiver {
    version: &'static str,
    /// The file or situation of the recording.
    at: &'static str,
    /// The difference, as the comparison words it.
    what: &'static str,
    #[expect(dead_code, reason = "read by people")]
    why: &'static str,
}

const fn waiver(version: &'static str, at: &'static str, what: &'static str, why: &'static str) -> Waiver {
    Waiver { version, at, what, why }
}

/// Every difference that is meant.
const WAIVED: &[Waiver] = &[];

/// Fails unless the differences found are exactly the ones that are waived.
fn settle(version: &str, at: &str, found: &BTreeSet<String>) {
    let waived: BTreeSet<String> = WAIVED
        .iter()
        .filter(|waiver| waiver.version == version && waiver.at == at)
        .map(|waiver| waiver.what.to_owned())
        .collect();
    let (new, gone): (Vec<_>, Vec<_>) =
        (found.difference(&waived).collect::<Vec<_>>(), waived.difference(found).collect::<Vec<_>>());
    assert!(new.is_empty() && gone.is_empty(), "{version} {at}: not waived: {new:#?}; waived in vain: {gone:#?}");
}
