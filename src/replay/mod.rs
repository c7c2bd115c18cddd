//! A recorded scene, decided again by the core of today: where does it decide otherwise? Pure.
//!
//! A scene that was kept whole is diagnosed again too, from the sweep and the memory of then. What was remembered before
//! a sweep was made by the rules of then; each scene stands for itself, and none knows what would have come of another
//! decision in an earlier one.

use crate::text::decision::label;
pub mod snapshot;

use crate::replay::snapshot::{Body, Look, SCENE_KIND, SCENE_SCHEMA, Scene};
use medic_core::decide::recorded::Recorded;
use medic_core::decide::{self, decide};
use medic_core::diagnose::{self, Context, Fleet, diagnose};
use medic_core::model::{
    Confidence, Decision, Diagnosis, Finding, ManagerName, Remedy, ScaleSet, ScaleSetId, SetDecision, Wall,
};
use medic_core::policy::{Mode, Policy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Why a line gives no scene.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON, or not whole.
    #[error("it is no JSON: {0}")]
    NoJson(String),
    /// JSON that no history has.
    #[error("it is JSON, but no line of a history")]
    NoHistory,
    /// A scene of a later form.
    #[error(
        "it is a scene of version {theirs}, recorded by scaleset-medic {medic}; this one ({ours}) knows versions up to \
         {SCENE_SCHEMA}. Use that release, or a newer one",
        ours = env!("CARGO_PKG_VERSION")
    )]
    Newer { theirs: u32, medic: String },
    /// Something in it is not what a scene has there.
    #[error("it is a damaged scene: {0}")]
    Damaged(String),
}

/// The scene of one line of a history; `None` where the line is another event.
///
/// # Errors
/// When the line is none of a history, or its scene cannot be read.
pub fn parse(line: &str) -> Result<Option<Scene>, Unreadable> {
    #[derive(Deserialize)]
    struct Head {
        kind: Option<String>,
        schema: Option<u32>,
        medic: Option<String>,
    }
    let head: Head = serde_json::from_str(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => Unreadable::NoJson(format!("it ends in the middle, cut off? ({error})")),
        serde_json::error::Category::Data => Unreadable::NoHistory,
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => Unreadable::NoJson(error.to_string()),
    })?;
    match (head.kind.as_deref(), head.schema) {
        (None, _) => return Err(Unreadable::NoHistory),
        (Some(SCENE_KIND), Some(theirs)) if theirs > SCENE_SCHEMA => {
            return Err(Unreadable::Newer {
                theirs,
                medic: head.medic.unwrap_or_else(|| "of unknown version".to_owned()),
            });
        }
        (Some(SCENE_KIND), Some(_)) => {}
        (Some(SCENE_KIND), None) => return Err(Unreadable::Damaged("its version is missing".to_owned())),
        (Some(_), _) => return Ok(None),
    }
    serde_json::from_str(line).map(Some).map_err(|error| Unreadable::Damaged(error.to_string()))
}

/// The configuration under which scenes are decided again; what is absent is as recorded.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub policy: Option<Policy>,
    /// Whether writes are allowed.
    pub mode: Option<Mode>,
}

/// What became of one scene.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replayed {
    /// When it was decided.
    pub at: Wall,
    pub manager: ManagerName,
    /// By which version of the medic.
    pub medic: String,
    /// How much of it could be replayed.
    pub extent: Extent,
    /// The sets that were decided again.
    pub sets: usize,
    /// Those that are decided otherwise.
    pub differences: Vec<Difference>,
    /// Those that are decided alike, but diagnosed otherwise.
    pub renamed: Vec<Renamed>,
}

/// How much of a scene could be replayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "extent", rename_all = "snake_case")]
pub enum Extent {
    /// The diagnosis and the decision.
    Core,
    /// The decision, from the diagnosis of then.
    Decision {
        why: String,
    },
    Nothing {
        why: String,
    },
}

/// One set that is decided otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub set: ScaleSetId,
    pub name: String,
    /// As recorded; absent where there was no such set.
    pub then: Option<Judgement>,
    /// Today; absent where there is no such set.
    pub now: Option<Judgement>,
}

/// What is found and decided about a set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// The diagnosis and its evidence.
    pub finding: Option<Finding>,
    /// The decision, with all guards that hold it.
    pub decision: Decision,
}

/// One set that is called otherwise, and decided alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renamed {
    pub set: ScaleSetId,
    pub then: (Diagnosis, Confidence),
    pub now: (Diagnosis, Confidence),
}

/// Decides a scene again.
#[must_use]
pub fn replay(scene: &Scene, rules: &Rules) -> Replayed {
    let nothing = |why: String| Replayed {
        at: scene.at,
        manager: scene.manager.clone(),
        medic: scene.medic.clone(),
        extent: Extent::Nothing { why },
        sets: 0,
        differences: Vec::new(),
        renamed: Vec::new(),
    };
    let (recorded, look) = match &scene.body {
        Body::Whole { input, look } => {
            let look = serde_json::from_str::<Look>(look.get());
            (input, look.map_err(|error| format!("its sweep cannot be read by this version: {error}")))
        }
        Body::Decision { input } => (input, Err("it was too long to be kept with its sweep".to_owned())),
        Body::Part { input, well } => {
            (input, Err(format!("it was too long to be kept with its sweep and its {well} sets that were well")))
        }
        Body::Nothing { sets } => return nothing(format!("it was too long to be kept ({sets} sets)")),
    };
    let policy = rules.policy.as_ref().unwrap_or(&recorded.policy);
    let input = decide::Input { policy, mode: rules.mode.unwrap_or(recorded.mode), ..recorded.input() };
    let (extent, now) = match look {
        Ok(look) => {
            let fleet = diagnosed(look, recorded, policy);
            (Extent::Core, judged(&seen(&fleet, input)))
        }
        Err(why) => (Extent::Decision { why }, judged(&input)),
    };
    let mut then = BTreeMap::new();
    for SetDecision { set, decision } in &scene.decisions {
        let finding = recorded.findings.get(set).cloned();
        then.insert(*set, Judgement { finding, decision: decision.clone() });
    }
    let sets = now.len();
    let (differences, renamed) = compare(then, now, &recorded.sets);
    Replayed { extent, sets, differences, renamed, ..nothing(String::new()) }
}

fn diagnosed(mut look: Look, recorded: &Recorded, policy: &Policy) -> Fleet {
    let context = Context { treatments: &look.treatments, probes: &look.probes, ledger: &recorded.ledger };
    diagnose(&mut look.memory, &look.sweep, &context, policy)
}

/// The input with what is found today.
fn seen<'a>(fleet: &'a Fleet, rest: decide::Input<'a>) -> decide::Input<'a> {
    decide::Input {
        findings: &fleet.findings,
        sets: &fleet.sets,
        manager: fleet.manager,
        incarnation: fleet.incarnation,
        crash_loop: fleet.restarts >= diagnose::CRASH_LOOP,
        conflict_behaviour: fleet.conflict_behaviour,
        endpoints: &fleet.endpoints,
        blind: fleet.blind,
        fault_at_github: fleet.fault_at_github,
        owner: fleet.owner.as_ref(),
        ..rest
    }
}

fn judged(input: &decide::Input<'_>) -> BTreeMap<ScaleSetId, Judgement> {
    let judgement = |SetDecision { set, decision }| {
        let finding = input.findings.get(&set).cloned();
        (set, Judgement { finding, decision })
    };
    decide(input).into_iter().map(judgement).collect()
}

fn compare(
    mut then: BTreeMap<ScaleSetId, Judgement>,
    mut now: BTreeMap<ScaleSetId, Judgement>,
    sets: &BTreeMap<ScaleSetId, ScaleSet>,
) -> (Vec<Difference>, Vec<Renamed>) {
    let (mut differences, mut renamed) = (Vec::new(), Vec::new());
    let all: BTreeSet<ScaleSetId> = then.keys().chain(now.keys()).copied().collect();
    for set in all {
        let (then, now) = (then.remove(&set), now.remove(&set));
        match (&then, &now) {
            (Some(a), Some(b)) if alike(&a.decision, &b.decision) => {
                let name = |judgement: &Judgement| {
                    judgement.finding.as_ref().map(|finding| (finding.diagnosis, finding.confidence))
                };
                if let (Some(then), Some(now)) = (name(a), name(b))
                    && then != now
                {
                    renamed.push(Renamed { set, then, now });
                }
            }
            _ => {
                let name = sets.get(&set).map_or_else(String::new, |set| set.name.clone());
                differences.push(Difference { set, name, then, now });
            }
        }
    }
    (differences, renamed)
}

/// Whether two decisions come to the same; how long is to be waited is no difference.
fn alike(a: &Decision, b: &Decision) -> bool {
    label(a) == label(b) && remedy(a) == remedy(b)
}

const fn remedy(decision: &Decision) -> Option<&Remedy> {
    match decision {
        Decision::Blocked { remedy, .. } | Decision::Treat { remedy, .. } => Some(remedy),
        Decision::Leave | Decision::Watch { .. } | Decision::Escalate { .. } | Decision::Treating { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::snapshot::testing::{line, line_within};
    use medic_core::decide::testing::recorded;
    use medic_core::model::{Guard, Span};

    fn scene(line: &str) -> Scene {
        parse(line).unwrap().unwrap()
    }

    fn under(policy: Policy) -> Rules {
        Rules { policy: Some(policy), mode: None }
    }

    #[test]
    fn a_scene_agrees_with_itself() {
        let replayed = replay(&scene(&line(&recorded())), &Rules::default());
        assert_eq!((replayed.differences, replayed.renamed, replayed.sets), (vec![], vec![], 2));
        assert!(matches!(replayed.extent, Extent::Decision { .. }));
    }

    #[test]
    fn another_policy_or_mode_differs_where_it_matters_and_names_its_guards() {
        let scene = scene(&line(&recorded()));
        let strict = Policy { max_in_flight: 0, ..recorded().policy };
        for (rules, guard) in
            [(under(strict), Guard::InFlight), (Rules { policy: None, mode: Some(Mode::Observe) }, Guard::DryRun)]
        {
            let replayed = replay(&scene, &rules);
            let [difference] = replayed.differences.as_slice() else { panic!("{replayed:?}") };
            assert_eq!((difference.set, difference.name.as_str()), (ScaleSetId(1), "set-1"));
            let decision = |judgement: &Option<Judgement>| judgement.as_ref().unwrap().decision.clone();
            assert!(matches!(decision(&difference.then), Decision::Treat { .. }));
            let Decision::Blocked { guards, .. } = decision(&difference.now) else { panic!("{difference:?}") };
            assert_eq!(guards.iter().map(|held| held.guard).collect::<Vec<_>>(), [guard]);
        }
    }

    #[test]
    fn how_long_is_waited_is_no_difference() {
        let mut waits = recorded();
        waits.incarnation = Some(medic_core::model::Incarnation(waits.now.wall.minus(Span::secs(1))));
        waits.findings.get_mut(&ScaleSetId(1)).unwrap().confidence = Confidence::Strong;
        let longer = under(Policy { settle: Span::mins(5), ..waits.policy.clone() });
        assert_eq!(replay(&scene(&line(&waits)), &longer).differences, []);
        let shorter = under(Policy { settle: Span::ZERO, ..waits.policy.clone() });
        assert_eq!(replay(&scene(&line(&waits)), &shorter).differences.len(), 1);
    }

    #[test]
    fn a_whole_scene_is_diagnosed_again() {
        // Its findings are made up, and nothing in its sweep would lead to them.
        let replayed = replay(&scene(&line_within(&recorded(), usize::MAX, 0)), &Rules::default());
        assert_eq!(replayed.extent, Extent::Core);
        let now = replayed.differences[0].now.as_ref().unwrap();
        assert_eq!(now.finding.as_ref().unwrap().diagnosis, Diagnosis::Unknown);
    }

    #[test]
    fn a_sweep_of_another_form_costs_only_the_diagnosis() {
        let line = line_within(&recorded(), usize::MAX, 0).replace("\"scale_sets\"", "\"scalesets\"");
        let replayed = replay(&scene(&line), &Rules::default());
        assert!(matches!(&replayed.extent, Extent::Decision { why } if why.contains("scale_sets")), "{replayed:?}");
        assert_eq!((replayed.differences, replayed.sets), (vec![], 2));
    }

    #[test]
    fn a_set_that_is_called_otherwise_and_decided_alike_is_told_and_is_no_difference() {
        let judgement = |diagnosis| Judgement {
            finding: Some(decide::testing::finding(1, diagnosis, Confidence::Weak)),
            decision: Decision::Leave,
        };
        let of = |diagnosis| BTreeMap::from([(ScaleSetId(1), judgement(diagnosis))]);
        let (differences, renamed) = compare(of(Diagnosis::Listening), of(Diagnosis::Disabled), &BTreeMap::new());
        assert_eq!((differences.len(), renamed.len()), (0, 1));
        let (differences, renamed) = compare(of(Diagnosis::Listening), BTreeMap::new(), &BTreeMap::new());
        assert_eq!((differences.len(), renamed.len()), (1, 0), "a set that is gone differs");
    }

    #[test]
    fn what_is_no_scene_says_what_it_is_instead() {
        let good = line(&recorded());
        let read = |text: &str| parse(text).map(|scene| scene.is_some());
        assert_eq!(read(r#"{"kind":"diagnosis","at":1,"manager":"garm"}"#), Ok(false), "another event");
        assert!(matches!(read("garbage"), Err(Unreadable::NoJson(_))));
        assert!(matches!(read(&good[..good.len() / 2]), Err(Unreadable::NoJson(why)) if why.contains("cut off")));
        for other in ["[]", "1", "{}", r#"{"kind":7}"#] {
            assert_eq!(read(other), Err(Unreadable::NoHistory), "{other}");
        }
        let newer = good.replace("\"schema\":1", "\"schema\":2");
        let told = read(&newer).unwrap_err().to_string();
        assert!(told.contains("version 2") && told.contains("newer"), "{told}");
        let unnumbered = good.replace("\"schema\":1,", "");
        assert!(matches!(read(&unnumbered), Err(Unreadable::Damaged(_))));
        let damaged = good.replace("\"manager\":\"up\"", "\"manager\":\"asleep\"");
        assert!(matches!(read(&damaged), Err(Unreadable::Damaged(why)) if why.contains("asleep")), "{damaged}");
        assert_eq!(read(&good), Ok(true));
    }

    #[test]
    fn a_scene_that_was_not_kept_says_so() {
        let replayed = replay(&scene(&line_within(&recorded(), 0, 0)), &Rules::default());
        assert!(matches!(&replayed.extent, Extent::Nothing { why } if why.contains("2 sets")), "{replayed:?}");
    }
}
