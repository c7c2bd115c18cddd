//! The GARM simulator against recordings of two real builds (`tests/fixtures/recordings/README.md`): the same situations
//! are played on the simulator, and what it says is compared with what GARM said. Names, dates, ids and counts differ;
//! shapes must not. What differs on purpose is in [`WAIVED`], with its reason, and a waiver that is no longer needed
//! fails.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test helper that cannot go on fails its test")]

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

const OTHER_WORKER: &str = "recorded of the entity's worker alone, which has the same message and is not simulated";
const ENTITY_UPDATE: &str = "DEBUG `got update operation` is missing";

/// Every difference that is meant.
const WAIVED: &[Waiver] = &[
    waiver(PRE, "01", ENTITY_UPDATE, OTHER_WORKER),
    waiver(PRE, "04", ENTITY_UPDATE, OTHER_WORKER),
    waiver(PRE, "10", ENTITY_UPDATE, OTHER_WORKER),
    waiver(POST, "01", ENTITY_UPDATE, OTHER_WORKER),
    waiver(POST, "04", ENTITY_UPDATE, OTHER_WORKER),
    waiver(POST, "10", ENTITY_UPDATE, OTHER_WORKER),
    waiver(
        POST,
        "01",
        "DEBUG `desired runner count reached` [\"current_runners\", \"target_runners\", \"worker\", \"entity\", \
         \"endpoint\"] is not GARM's",
        "written at the first look of each worker; in the recording that look came two seconds after the file ends",
    ),
    waiver(
        POST,
        "09",
        "ERROR `getting message` is missing",
        "a race between the poll and its cancellation; one of three listeners lost it in this recording, none in the other",
    ),
];

/// The differences of one situation that are not waived, and waivers without a difference; empty: as agreed.
fn judge(version: &str, at: &str, found: &BTreeSet<String>) -> Vec<String> {
    let of_situation = WAIVED.iter().filter(|waiver| waiver.version == version && waiver.at == at);
    let waived: BTreeSet<String> = of_situation.map(|waiver| waiver.what.to_owned()).collect();
    let new = found.difference(&waived).map(|what| format!("{version} {at}: {what}"));
    let gone = waived.difference(found).map(|what| format!("{version} {at}: waived in vain: {what}"));
    new.chain(gone).collect()
}
