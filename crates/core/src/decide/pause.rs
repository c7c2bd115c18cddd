//! Pauses: an operator or a file forbids new treatments, of everything, one manager or one set
//! (`docs/reference/design.md` §6).
//!
//! A pause never keeps us from undoing: a set that we disabled is enabled again whatever is paused. A pause without an
//! expiry lasts until it is resumed.

use crate::model::{BlockedBy, GuardFact, ManagerName, Pause, ScaleSetId, Wall};

/// One entry per pause that covers the set.
pub fn blocks<'a>(
    pauses: &'a [Pause],
    manager: &'a ManagerName,
    set: ScaleSetId,
    now: Wall,
) -> impl Iterator<Item = BlockedBy> + 'a {
    let lasts = move |pause: &&Pause| pause.expires.is_none_or(|end| now < end);
    pauses
        .iter()
        .filter(lasts)
        .filter(move |pause| pause.scope.covers(manager, set))
        .map(|pause| GuardFact::Paused { pause: pause.clone() }.until(pause.expires))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PauseId, PauseScope};

    fn pause(scope: PauseScope, expires: Option<Wall>) -> Pause {
        let (reason, author) = ("upgrade".into(), "alice".into());
        Pause { id: PauseId(1), scope, reason, author, created: Wall(0), expires }
    }

    #[test]
    fn pause_blocks_its_scope_until_it_expires() {
        let (one, two) = (ScaleSetId(1), ScaleSetId(2));
        let (here, there) = (ManagerName::new("garm"), ManagerName::new("other"));
        let pauses = [
            pause(PauseScope::Manager { manager: here.clone() }, Some(Wall(100))),
            pause(PauseScope::Set { manager: here.clone(), set: one }, None),
            pause(PauseScope::All, Some(Wall(50))),
        ];
        let count = |manager, set, now| blocks(&pauses, manager, set, Wall(now)).count();
        assert_eq!(count(&here, one, 49), 3);
        assert_eq!(count(&here, two, 99), 1);
        assert_eq!(count(&here, two, 100), 0);
        assert_eq!((count(&there, one, 49), count(&there, one, 50)), (1, 0));
        let left: Vec<_> = blocks(&pauses, &here, one, Wall(200)).collect();
        assert_eq!(left, [GuardFact::Paused { pause: pauses[1].clone() }.into()]);
    }
}
