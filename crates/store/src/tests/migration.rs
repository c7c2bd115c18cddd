//! Files of earlier schema versions, brought up to date.

use super::*;

/// A state file as schema version 3 had it, with an open treatment at each step.
const VERSION_3: &str = include_str!("../../fixtures/v3.sql");

impl Home {
    fn of_version_3() -> Self {
        let home = Self::new();
        std::fs::create_dir(home.dir()).unwrap();
        Connection::open(home.file()).unwrap().execute_batch(VERSION_3).unwrap();
        home
    }
}

#[test]
fn migration_keeps_treatments_of_version_3_at_their_steps() {
    let home = Home::of_version_3();
    let store = home.open();
    let (at, seen, ours) = (hours(2), Revision::new("r0"), Revision::new("r1"));
    let session = SessionId::new("s-1");
    let deletion = Remedy::DeleteThenToggle { session: session.clone() };
    let check = Remedy::SessionCheck;
    let deleting = Step::Deleting { session, seen: Some(seen.clone()), attempts: 1, not_before: at };
    let opened = Step::CheckOpened { session: SessionId::new("ours-10"), attempts: 1, not_before: at };
    let steps = [
        (deletion, deleting),
        (Remedy::Toggle, Step::Disabling { seen: seen.clone(), sent: None }),
        (Remedy::Toggle, Step::Disabling { seen: seen.clone(), sent: Some(at) }),
        (Remedy::Toggle, Step::DisableUnknown { seen, sent: at }),
        (Remedy::Toggle, Step::Disabled { ours: ours.clone(), again_until: None }),
        (Remedy::Toggle, Step::Disabled { ours: ours.clone(), again_until: Some(at.plus(Span::secs(30))) }),
        (Remedy::Toggle, Step::Enabling { ours, since: Some(at), attempts: 2, not_before: at }),
        (Remedy::Toggle, Step::Verifying),
        (check.clone(), Step::CheckOpening { owner: Owner::of_session_check(ScaleSetId(9), at) }),
        (check, opened),
    ];
    let row = |(n, (remedy, step))| Treatment { remedy, ..testing::open(n, n, at, step) };
    let mut wanted: Vec<Treatment> = (1..).zip(steps).map(row).collect();
    let text = |text: &str| Some(Note::Text { text: text.to_owned() });
    wanted[0].manual_heal = Some(ManualHealId(7));
    (wanted[6].refusal, wanted[7].worker_restarted) = (text("HTTP 500"), Some(at));
    assert_eq!(store.unfinished().unwrap(), wanted);
    let intents = store.store().intents_of_others(&[]).unwrap();
    assert_eq!(intents.len(), 9, "all but the one that verifies");
    let closed = |id| store.treatment(TreatmentId(id)).unwrap().unwrap();
    assert_eq!((closed(11).outcome(), closed(12).outcome()), (Some(Outcome::Aborted), Some(Outcome::Held)));
    assert_eq!(closed(12).why(), text("somebody holds a session").as_ref());
    assert_eq!((closed(12).remedy, closed(12).holder), (Remedy::SessionCheck, Some(Owner::new("garm-c1"))));
    let outcome = store.store.lock().query_row("SELECT outcome FROM treatments WHERE id = 11", [], |row| row.get(0));
    assert_eq!(outcome, Ok("aborted".to_owned()));
    store.record(&wanted[0]).unwrap();
    assert!(Journal::open(&store, verifying(5, 9)).is_err(), "one open treatment per set");
}

#[test]
fn migration_keeps_the_other_records_of_version_3() {
    let home = Home::of_version_3();
    assert_eq!(Store::open_read_only(&home.dir()).unwrap_err().kind, StoreErrorKind::OlderSchema);
    let store = home.open();
    let run = Incarnation(mins(50));
    let manager = ledger_session(1, "s-1", run, hours(1));
    let unknown = LedgerSession { opened_by: OpenedBy::UnknownIncarnation, ..ledger_session(2, "s-2", run, hours(1)) };
    let ours = LedgerSession { opened_by: OpenedBy::Medic, ..ledger_session(10, "ours-10", run, hours(2)) };
    assert_eq!(live(&store), [manager, unknown, ours]);
    let (position, evidence) = store.load_log_position("/garm.log").unwrap().unwrap();
    let of_set = evidence.about(ScaleSetId(1), Some("acme/app"), Some(GithubId(101))).unwrap();
    assert_eq!((position.offset, of_set.conflict_count), (u64::MAX, 3));
    assert_eq!((store.breaker_reset().unwrap(), store.load_state().unwrap()), (Some(Wall(9)), None));
    assert_eq!(store.store().pauses(Wall(2)).unwrap().len(), 1);
    let heals = store.manual_heals(hours(2)).unwrap();
    assert_eq!((heals.len(), heals[0].set, &heals[0].what), (1, ScaleSetId(3), &ManualAction::Heal));
    assert_eq!(store.manual_heal_answer(heals[0].id).unwrap(), None);
    let next = store.add_manual_heal(ScaleSetId(4), ManualAction::Heal, "bob", hours(2)).unwrap();
    assert_eq!(next.id.0, 8, "no number is used again");
    assert_eq!(store.newest_snapshot().unwrap(), None);
    let events = events(&store);
    let request = &events[0].detail;
    assert_eq!((events[0].kind.as_str(), &request["remedy"]), ("request", &"session_check".into()));
    assert_eq!((&request["step"], &request["note"]["text"]), (&"check_opened".into(), &"nobody held a session".into()));
    let blocked = &events[1].detail;
    assert_eq!((&blocked["decision"], &blocked["remedy"]["kind"]), (&"blocked".into(), &"session_check".into()));
    assert_eq!(blocked["guards"][0]["guard"], "manager_budget");
    assert_eq!(blocked["guards"][1]["guard"], "entity_limit");
    let found = Vec::<Evidence>::deserialize(&events[2].detail["evidence"]).unwrap();
    let fact = Fact::GithubUnseen { kind: FailureKind::Timeout };
    let evidence = |source, fact| Evidence { source, at: hours(2), fact };
    assert_eq!(found, [evidence(Source::ActionsService, fact), evidence(Source::Metrics, Fact::BuildRetries)]);
    assert_eq!(events[2].detail["evidence"][0]["source"], "actions_service");
    assert_eq!(events[2].detail["evidence"][1]["fact"]["fact"], "build_retries");
    let text = |text: &str| Note::Text { text: text.to_owned() };
    let step = Step::Closed { outcome: Outcome::Aborted, why: text("somebody else acted") };
    let treatment = Treatment {
        place: None,
        worker_restarted: Some(hours(2)),
        refusal: Some(text("HTTP 500")),
        manual_heal: Some(ManualHealId(7)),
        ..testing::open(13, 9, hours(2), step)
    };
    assert_eq!(events[3].detail, serde_json::to_value(treatment).unwrap());
}

#[test]
fn migrated_file_refuses_writes_of_version_3() {
    let home = Home::of_version_3();
    let old = Connection::open(home.file()).unwrap();
    let store = home.open();
    for write in [
        "UPDATE treatments SET closed = 1, outcome = 'failed', is_intent = 0, body = '{}' WHERE id = 5",
        "INSERT INTO treatments (manager, set_id, opened, is_intent, body) VALUES ('garm', 77, 1, 1, '{}')",
        "INSERT INTO sessions (manager, id, set_id, owner, opened_by, place, first_seen, last_seen)
             VALUES ('garm', 's', 1, 'o', 'unknown', '{}', 1, 1)",
    ] {
        assert!(old.execute(write, []).is_err(), "{write}");
    }
    assert_eq!((store.unfinished().unwrap().len(), live(&store).len()), (10, 3));
}

#[test]
fn migration_of_version_1_takes_a_disable_for_sent() {
    let home = Home::new();
    let step = Step::Disabling { seen: Revision::new("seen"), sent: Some(Wall(7_000)) };
    let mut treatment = serde_json::to_value(testing::open(1, 1, Wall(7_000), step.clone())).unwrap();
    treatment["step"]["sent"] = serde_json::Value::Null;
    std::fs::create_dir(home.dir()).unwrap();
    let mut connection = Connection::open(home.file()).unwrap();
    schema::migrate_to(&mut connection, 1).unwrap();
    let insert = "INSERT INTO treatments VALUES (1, 'garm', 1, 7000, NULL, NULL, 1, ?1)";
    connection.execute(insert, [treatment.to_string()]).unwrap();
    assert_eq!(home.open().unfinished().unwrap()[0].step, step);
}
