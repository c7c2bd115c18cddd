//! Scenes: whenever the core decides otherwise than in the pass before, everything that it was given goes into the
//! history with what it decided, so that [`replay`](crate::replay) can decide it again, years later or elsewhere.
//!
//! The rule: **a pass that decides what the last one did costs no more than a comparison.** Waiting times and other
//! figures within a decision do not count; a restart of ours does not either, the newest scene says where we were. Only
//! the medic that holds the lease records. A scene that cannot be written is lost, told, and never tried again: the next
//! one is whole by itself.
//!
//! Edge cases: a scene of a large fleet is long. In order of length, the first that fits is kept: with the sweep, from
//! which the diagnosis can be replayed too; with what was decided from; the same without the sets that are well, if the
//! core then decides the same; or that there was one.

use crate::text::decision::label;
use medic_core::decide::recorded::Recorded;
use medic_core::decide::{self, decide};
use medic_core::diagnose::{CheckAnswer, Memory};
use medic_core::model::{Decision, ManagerName, ScaleSetId, SetDecision, Sweep, Treatment, Wall};
use medic_store::{ManagerStore, SCENE_LONGEST, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io;

/// The version of a scene's form; raised when a field changes its meaning.
pub const SCENE_SCHEMA: u32 = 1;

/// What tells a scene from the other lines of a history.
pub const SCENE_KIND: &str = "scene";

/// The longest scene that is kept with its sweep, in bytes.
const WITH_SWEEP: usize = SCENE_LONGEST / 2;

/// A scene, as it is read.
#[derive(Debug, Deserialize)]
pub struct Scene {
    /// The version of the medic that recorded it.
    pub medic: String,
    /// When it was decided.
    pub at: Wall,
    pub manager: ManagerName,
    pub decisions: Vec<SetDecision>,
    pub body: Body,
}

/// What was kept of what the core was given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Whole {
        /// What was decided from.
        input: Box<Recorded>,
        /// What was diagnosed from: a [`Look`], which is read only when it is needed.
        look: Box<RawValue>,
    },
    /// Without what was diagnosed from.
    Decision {
        /// What was decided from.
        input: Box<Recorded>,
    },
    /// The same without sets that are well and do not matter to the others.
    Part {
        /// What was decided from.
        input: Box<Recorded>,
        /// How many sets are left out.
        well: usize,
    },
    /// Nothing: it was too long.
    Nothing {
        /// How many sets the manager had.
        sets: usize,
    },
}

/// What one diagnosis was made from, besides the ledger.
#[derive(Debug, Deserialize)]
pub struct Look {
    /// What was remembered before.
    pub memory: Memory,
    /// What the sources said.
    pub sweep: Sweep,
    pub treatments: Vec<Treatment>,
    /// Answers of session probes.
    pub probes: BTreeMap<ScaleSetId, (Wall, CheckAnswer)>,
}

/// A [`Look`] to be written, without the memory.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Looked<'a> {
    /// What the sources said.
    pub sweep: &'a Sweep,
    pub treatments: &'a [Treatment],
    /// Answers of session probes.
    pub probes: &'a BTreeMap<ScaleSetId, (Wall, CheckAnswer)>,
}

/// Records the scenes of one manager.
#[derive(Debug, Default)]
pub struct Recorder {
    /// What was decided last, of the sets that are not simply left alone; absent until the first pass.
    last: Option<Gist>,
}

/// Decisions without their figures.
type Gist = BTreeMap<ScaleSetId, String>;

impl Recorder {
    /// Records a scene if something is decided otherwise than last time. `memory` is what was remembered before the sweep,
    /// as it was saved.
    ///
    /// # Errors
    /// When the store cannot keep it.
    pub fn note(
        &mut self,
        store: &ManagerStore,
        input: &decide::Input<'_>,
        decisions: &[SetDecision],
        memory: &str,
        looked: Looked<'_>,
    ) -> Result<(), StoreError> {
        let gist = gist(decisions);
        if self.last.is_none() {
            self.last = Some(recorded_last(store)?);
        }
        if self.last.as_ref() == Some(&gist) {
            return Ok(());
        }
        self.last = Some(gist);
        store.append_scene(input.now.wall, &write(input, decisions, (memory, looked), Limits::default()))
    }
}

fn gist(decisions: &[SetDecision]) -> Gist {
    let told = decisions.iter().filter(|decided| decided.decision != Decision::Leave);
    told.map(|decided| (decided.set, label(&decided.decision))).collect()
}

/// What the newest scene of an earlier process decided; nothing, where there is none that can be read.
fn recorded_last(store: &ManagerStore) -> Result<Gist, StoreError> {
    #[derive(Deserialize)]
    struct Last {
        decisions: Vec<SetDecision>,
    }
    let newest = store.newest_scene()?;
    let last = newest.and_then(|json| serde_json::from_str::<Last>(&json).ok());
    Ok(last.map(|last| gist(&last.decisions)).unwrap_or_default())
}

/// How long a scene may be, in bytes.
#[derive(Debug, Clone, Copy)]
struct Limits {
    with_sweep: usize,
    without: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { with_sweep: WITH_SWEEP, without: SCENE_LONGEST }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    kind: &'static str,
    schema: u32,
    medic: &'static str,
    at: Wall,
    manager: &'a ManagerName,
    decisions: &'a [SetDecision],
    body: WrittenBody<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum WrittenBody<'a> {
    Whole { input: &'a decide::Input<'a>, look: WrittenLook<'a> },
    Decision { input: &'a decide::Input<'a> },
    Part { input: &'a Recorded, well: usize },
    Nothing { sets: usize },
}

#[derive(Serialize)]
struct WrittenLook<'a> {
    memory: &'a RawValue,
    #[serde(flatten)]
    looked: Looked<'a>,
}

fn write(
    input: &decide::Input<'_>,
    decisions: &[SetDecision],
    (memory, looked): (&str, Looked<'_>),
    limits: Limits,
) -> String {
    let with_sweep = || {
        let look = WrittenLook { memory: serde_json::from_str(memory).ok()?, looked };
        scene(input, decisions, WrittenBody::Whole { input, look }, limits.with_sweep)
    };
    let without_the_well = || {
        let mut short = Recorded::of(input);
        let well = short.forget_the_well(decisions);
        let is_left = |decided: &&SetDecision| short.findings.contains_key(&decided.set);
        let left: Vec<_> = decisions.iter().filter(is_left).cloned().collect();
        let same = well > 0 && decide(&short.input()) == left;
        same.then(|| scene(input, &left, WrittenBody::Part { input: &short, well }, limits.without)).flatten()
    };
    with_sweep()
        .or_else(|| scene(input, decisions, WrittenBody::Decision { input }, limits.without))
        .or_else(without_the_well)
        .or_else(|| scene(input, &[], WrittenBody::Nothing { sets: input.sets.len() }, usize::MAX))
        .unwrap_or_default()
}

/// The JSON of a scene, if it is not longer than `limit`.
fn scene(input: &decide::Input<'_>, decisions: &[SetDecision], body: WrittenBody<'_>, limit: usize) -> Option<String> {
    let (medic, at, manager) = (env!("CARGO_PKG_VERSION"), input.now.wall, input.name);
    bounded(&Written { kind: SCENE_KIND, schema: SCENE_SCHEMA, medic, at, manager, decisions, body }, limit)
}

/// JSON of at most so many bytes. What is longer is given up as soon as it is.
fn bounded<T: Serialize>(value: &T, limit: usize) -> Option<String> {
    struct Bounded {
        bytes: Vec<u8>,
        limit: usize,
    }
    impl io::Write for Bounded {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            if self.bytes.len().saturating_add(part.len()) > self.limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.bytes.extend_from_slice(part);
            Ok(part.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut to = Bounded { bytes: Vec::new(), limit };
    serde_json::to_writer(&mut to, value).ok()?;
    String::from_utf8(to.bytes).ok()
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use medic_core::model::Seen;

    pub(crate) fn sweep_of(recorded: &Recorded) -> Sweep {
        Sweep {
            at: recorded.now,
            controller: Seen::NotAsked,
            scale_sets: Seen::Known(recorded.sets.values().cloned().collect()),
            lingering: Seen::NotAsked,
            metrics: Seen::NotAsked,
            goroutines: Seen::NotAsked,
            log: Seen::NotAsked,
            broker: recorded.sets.values().filter_map(|set| Some((set.entity_ref()?, Seen::NotAsked))).collect(),
        }
    }

    /// The line of a scene without its sweep.
    pub(crate) fn line(recorded: &Recorded) -> String {
        line_within(recorded, 0, SCENE_LONGEST)
    }

    /// The line of a scene that may be so long.
    pub(crate) fn line_within(recorded: &Recorded, with_sweep: usize, without: usize) -> String {
        let (input, sweep, probes) = (recorded.input(), sweep_of(recorded), BTreeMap::new());
        let looked = Looked { sweep: &sweep, treatments: &[], probes: &probes };
        write(&input, &decide(&input), ("{}", looked), Limits { with_sweep, without })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{line_within, sweep_of};
    use super::*;
    use crate::replay::parse;
    use medic_core::decide::testing::{recorded, scale_set};
    use medic_core::model::Span;
    use medic_core::policy::Mode;
    use medic_store::Store;

    fn memory() -> ManagerStore {
        Store::in_memory().unwrap().for_manager(&ManagerName::new("garm"))
    }

    fn note(recorder: &mut Recorder, store: &ManagerStore, recorded: &Recorded) -> usize {
        let (input, sweep, probes) = (recorded.input(), sweep_of(recorded), BTreeMap::new());
        let looked = Looked { sweep: &sweep, treatments: &[], probes: &probes };
        recorder.note(store, &input, &decide(&input), "{}", looked).unwrap();
        store.scenes(Wall(0)).unwrap().len()
    }

    #[test]
    fn a_scene_is_recorded_when_something_is_decided_otherwise_and_only_then() {
        let (store, mut recorder) = (memory(), Recorder::default());
        let mut now = Recorded { mode: Mode::Observe, ..recorded() };
        assert_eq!(note(&mut recorder, &store, &now), 1);
        assert_eq!(note(&mut recorder, &store, &now), 1, "the same again");
        now.now.wall = now.now.wall.plus(Span::secs(2));
        assert_eq!(note(&mut recorder, &store, &now), 1, "only the figures change");
        assert_eq!(note(&mut Recorder::default(), &store, &now), 1, "another process, and nothing new");
        let acts = Recorded { mode: Mode::Heal, ..now.clone() };
        assert_eq!(note(&mut recorder, &store, &acts), 2);
        assert_eq!(note(&mut recorder, &store, &now), 3, "back again");
        now.findings.clear();
        assert_eq!(note(&mut recorder, &store, &now), 4, "all are left alone");
    }

    #[test]
    fn a_fleet_that_is_well_from_the_start_is_not_recorded() {
        let (store, mut recorder, mut now) = (memory(), Recorder::default(), recorded());
        now.findings.remove(&ScaleSetId(1));
        assert_eq!(note(&mut recorder, &store, &now), 0);
    }

    #[test]
    fn what_is_kept_shrinks_with_the_room_and_says_so() {
        let mut fleet = recorded();
        let well = fleet.findings[&ScaleSetId(2)].clone();
        for id in 3..20 {
            fleet.sets.insert(ScaleSetId(id), scale_set(id));
            fleet.findings.insert(ScaleSetId(id), medic_core::model::Finding { set: ScaleSetId(id), ..well.clone() });
        }
        let whole = line_within(&fleet, usize::MAX, usize::MAX);
        let scene = |with_sweep, without| parse(&line_within(&fleet, with_sweep, without)).unwrap().unwrap();
        assert!(matches!(scene(whole.len(), 0).body, Body::Whole { .. }));
        let decision = scene(whole.len() - 1, whole.len());
        assert!(matches!(&decision.body, Body::Decision { input } if **input == fleet), "{decision:?}");
        assert_eq!(decision.decisions, decide(&fleet.input()));
        let part = scene(0, 6_000);
        assert!(matches!(part.body, Body::Part { well: 18, .. }), "{part:?}");
        assert_eq!(part.decisions.len(), 1);
        let nothing = scene(0, 100);
        assert!(matches!(nothing.body, Body::Nothing { sets: 19 }), "{nothing:?}");
    }

    #[cfg(feature = "lab")]
    #[test]
    fn a_scene_that_cannot_be_written_is_an_error_once() {
        struct Full;
        impl medic_store::fault_injection::Gate for Full {
            fn before(&self) -> bool {
                false
            }
            fn after(&self, _: &'static str) {}
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_gated(dir.path(), std::sync::Arc::new(Full)).unwrap();
        let store = store.for_manager(&ManagerName::new("garm"));
        let (recorded, probes, mut recorder) = (recorded(), BTreeMap::new(), Recorder::default());
        let (input, sweep) = (recorded.input(), sweep_of(&recorded));
        let looked = Looked { sweep: &sweep, treatments: &[], probes: &probes };
        recorder.note(&store, &input, &decide(&input), "{}", looked).unwrap_err();
        recorder.note(&store, &input, &decide(&input), "{}", looked).unwrap();
        assert_eq!(store.scenes(Wall(0)).unwrap(), [0_u64; 0]);
    }
}
