//! Compares what was found with the sweeps before: for how long, since when ill, and who recovered.

use super::evidence::Found;
use super::state::{SetState, State, Verdict};
use crate::model::diagnosis::conflicts_began;
use crate::model::fleet::{Fleet, Recovery};
use crate::model::{Class, Confidence, Diagnosis, Finding, Rule, ScaleSet, ScaleSetId, Wall};
use crate::policy::Policy;
use std::sync::Arc;

/// Makes the findings and keeps in the state what later sweeps need.
pub(super) fn record(state: &mut State, found: Vec<(ScaleSetId, Found)>, policy: &Policy, fleet: &mut Fleet) {
    let now = fleet.at.wall;
    let sets = Arc::clone(&fleet.sets);
    for (id, mut found) in found {
        let (Some(known), Some(set)) = (state.sets.get_mut(&id), sets.get(&id)) else { continue };
        note_conflict(known, &mut found, policy, now);
        let same = known.seen > 0 && known.diagnosis == found.diagnosis;
        known.seen = if same { known.seen.saturating_add(1) } else { 1 };
        if !same {
            known.since = now;
        }
        known.diagnosis = found.diagnosis;
        let well_for_now = found.diagnosis.is_well() && found.confidence == Confidence::Weak;
        match found.diagnosis.class() {
            // One weak sign ends no unhealthy period.
            Class::Well if well_for_now => {}
            Class::Well => {
                let ill_since = known.ill_since.take();
                fleet.recoveries.extend(ill_since.map(|ill_since| Recovery { set: id, ill_since, at: now }));
            }
            Class::Idle => known.ill_since = None,
            Class::Unseen => {}
            Class::Refused | Class::Broken => {
                known.ill_since.get_or_insert(first_ill(&found, now));
            }
        }
        note_verdict(known, &found, set, now);
        let hidden = well_for_now || found.diagnosis == Diagnosis::Settling;
        let finding = Finding {
            set: id,
            diagnosis: found.diagnosis,
            confidence: found.confidence,
            rule: found.rule,
            corrected: found.corrected,
            evidence: found.evidence,
            since: known.since,
            ill_since: known.ill_since.filter(|_| !hidden),
            seen: known.seen,
            worker: found.worker,
        };
        fleet.findings.insert(id, finding);
    }
}

/// Measures the unbroken series of conflicts; one that no stale session can explain has another holder. A sweep that
/// cannot see, or a manager within its grace period, does not end the series; every other answer does.
fn note_conflict(known: &mut SetState, found: &mut Found, policy: &Policy, now: Wall) {
    match (found.diagnosis, found.diagnosis.class()) {
        (Diagnosis::ConflictRetrying, _) if found.confidence > Confidence::Weak => {
            let first = conflicts_began(&found.evidence);
            let since = known.conflict_since.unwrap_or(now).min(first.unwrap_or(now)).min(now);
            known.conflict_since = Some(since);
            if now.since(since) > policy.stale_session_limit {
                found.correct(Rule::RefusedTooLong, Diagnosis::HeldElsewhere);
            }
        }
        (Diagnosis::HeldElsewhere, _) => {
            known.conflict_since.get_or_insert(first_ill(found, now));
        }
        (Diagnosis::ConflictRetrying, _) | (_, Class::Unseen) => {}
        (_, Class::Well | Class::Idle | Class::Refused | Class::Broken) => known.conflict_since = None,
    }
}

/// The date of the oldest proof, which may be older than our first sweep.
fn first_ill(found: &Found, now: Wall) -> Wall {
    match found.confidence {
        Confidence::Proof => found.evidence.iter().map(|evidence| evidence.at).min().unwrap_or(now).min(now),
        Confidence::Strong | Confidence::Weak => now,
    }
}

fn note_verdict(known: &mut SetState, found: &Found, set: &ScaleSet, now: Wall) {
    let lasting =
        matches!(found.diagnosis, Diagnosis::Listening | Diagnosis::ConflictAbandoned | Diagnosis::StartAbandoned);
    if lasting && found.confidence > Confidence::Weak {
        let kept = known.verdict.as_ref().filter(|v| v.diagnosis == found.diagnosis && v.revision == set.revision);
        if kept.is_none() {
            known.verdict = Some(Verdict { diagnosis: found.diagnosis, at: now, revision: set.revision.clone() });
        }
    } else if known.verdict.as_ref().is_some_and(|verdict| verdict.revision != set.revision) {
        known.verdict = None;
    }
}
