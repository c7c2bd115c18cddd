//! Pauses: a person (or a file) says "not now", for everything, one manager or one set (`docs/reference/design.md` §6).
//!
//! A pause holds back acts, never the settling of an open intent: a set that we disabled is enabled again whatever is
//! paused. A pause without an expiry lasts until it is resumed.

use crate::model::{BlockedBy, Guard, ManagerName, Pause, PauseScope, ScaleSetId, Wall, told};

/// One entry per pause that covers the set.
pub fn held<'a>(
    pauses: &'a [Pause],
    manager: &'a ManagerName,
    set: ScaleSetId,
    now: Wall,
) -> impl Iterator<Item = BlockedBy> + 'a {
    let lasts = move |pause: &&Pause| pause.expires.is_none_or(|end| now < end);
    pauses.iter().filter(lasts).filter(move |pause| pause.scope.covers(manager, set)).map(|pause| {
        let what = match pause.scope {
            PauseScope::All => "everything",
            PauseScope::Manager { .. } => "this manager",
            PauseScope::Set { .. } => "this set",
        };
        BlockedBy {
            guard: Guard::Paused,
            value: format!("{what} paused by {}: {}", pause.author, pause.reason).into(),
            limit: pause
                .expires
                .map_or_else(|| told!("resumed"), |until| format!("resumed, or {}", until.full()).into()),
            until: pause.expires,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PauseId;

    fn pause(scope: PauseScope, expires: Option<Wall>) -> Pause {
        let (reason, author) = ("upgrade".into(), "alice".into());
        Pause { id: PauseId(1), scope, reason, author, created: Wall(0), expires }
    }

    #[test]
    fn a_pause_covers_its_scope_until_its_end() {
        let (one, two) = (ScaleSetId(1), ScaleSetId(2));
        let (here, there) = (ManagerName::new("garm"), ManagerName::new("other"));
        let pauses = [
            pause(PauseScope::Manager { manager: here.clone() }, Some(Wall(100))),
            pause(PauseScope::Set { manager: here.clone(), set: one }, None),
            pause(PauseScope::All, Some(Wall(50))),
        ];
        let count = |manager, set, now| held(&pauses, manager, set, Wall(now)).count();
        assert_eq!(count(&here, one, 49), 3);
        assert_eq!(count(&here, two, 99), 1);
        assert_eq!(count(&here, two, 100), 0);
        assert_eq!((count(&there, one, 49), count(&there, one, 50)), (1, 0));
        let held = held(&pauses, &here, one, Wall(200)).next().unwrap();
        assert_eq!(held.value, "this set paused by alice: upgrade");
        assert_eq!((&*held.limit.to_string(), held.until), ("resumed", None));
    }
}
