//! One medic and ten managers. The tenth is swept, healed and exported as if it were alone, whatever the others do.
//! Limits, breaker and pauses apply to each manager separately.

use crate::bench::{self, ConfigText, GITHUB, START, Spawned};
use medic_clock::ScaledClock;
use medic_core::clock::Clock;
use medic_core::model::pause::PauseScope;
use medic_core::model::{Guard, ManagerName, Span, Wall};
use medic_http::Transport;
use medic_lab::backend::ServerId;
use medic_lab::endpoint_inproc::InprocTransport;
use medic_lab::garm::Build;
use medic_lab::hub::{Hub, Pump};
use medic_lab::world::{Fleet, World};
use medic_store::{NewPause, Store};
use scaleset_medic::engine::service::Publisher;
use scaleset_medic::status::{ManagerStatus, Status};
use scaleset_medic::web::page;
use std::sync::Arc;

const SETS: u32 = 4;
const ALL: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// A running medic and its managers.
struct Service {
    hub: Arc<Hub<World>>,
    clock: Arc<dyn Clock>,
    store: Store,
    publisher: Arc<Publisher>,
    running: Spawned,
    _pump: Pump,
    _dir: tempfile::TempDir,
}

fn name(manager: usize) -> ManagerName {
    ManagerName::new(format!("garm-{manager}"))
}

impl Service {
    /// Ten running managers, of which `watched` are configured. `before` happens before the first sweep.
    async fn start(watched: &[usize], policy: &str, before: impl FnOnce(&mut World, Wall)) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(START, 1.0));
        let fleet = Fleet::new(Build::PreFix, SETS, "http://github.test").managers(10);
        let mut world = World::new(&fleet, START);
        for manager in 0..10 {
            world.start(manager, START);
        }
        before(&mut world, START);
        let hub = Hub::new(world, Arc::clone(&clock));
        let pump = Pump::start(&hub);
        clock.sleep(Span::secs(5)).await;
        let dir = tempfile::tempdir().unwrap();
        let managers: Vec<_> =
            watched.iter().map(|n| (name(*n).to_string(), format!("http://garm-{n}.test"))).collect();
        let managers: Vec<_> = managers.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
        let run = "interval = \"15s\"";
        let text =
            ConfigText { mode: "heal", run, managers: &managers, github: Some(""), policy, ..ConfigText::default() };
        let config = text.check(dir.path());
        let store = Store::in_memory().unwrap();
        let transport: Arc<dyn Transport> =
            Arc::new((0..10).fold(InprocTransport::new(&hub).at(GITHUB, ServerId::Github), |transport, manager| {
                transport.at(&format!("garm-{manager}.test:80"), ServerId::Manager(manager))
            }));
        let metrics = bench::metrics(&config);
        let service = bench::Service::new(&config, &store, &clock, "medic", &transport, &metrics);
        let publisher = Arc::clone(&service.publisher);
        Self { hub, clock, store, publisher, running: service.spawn(), _pump: pump, _dir: dir }
    }

    fn status(&self) -> Option<Arc<Status>> {
        self.publisher.board.status()
    }

    fn manager(&self, manager: usize) -> Option<ManagerStatus> {
        self.status()?.managers.iter().find(|status| status.name == name(manager)).cloned()
    }

    fn metric(&self, line: &str) -> Option<f64> {
        let text = self.publisher.metrics.text().unwrap();
        text.lines().find_map(|each| each.strip_prefix(line)?.trim().parse().ok())
    }

    fn crash_and_restart(&self, manager: usize) {
        self.hub.with(|world, now| world.kill(manager, now));
        let (hub, clock) = (Arc::clone(&self.hub), Arc::clone(&self.clock));
        tokio::spawn(async move {
            clock.sleep(Span::secs(2)).await;
            hub.with(|world, now| world.start(manager, now));
        });
    }

    fn listens(&self, manager: usize) -> bool {
        self.hub.with(|world, _| world.listening(manager)) == (SETS as usize, SETS as usize)
    }

    /// Waits until `condition` holds, at most `limit`; returns how long that took.
    async fn until(&self, limit: Span, what: &str, condition: impl Fn(&Self) -> bool) -> Span {
        let began = self.clock.now().wall;
        while !condition(self) {
            let passed = self.clock.now().wall.since(began);
            assert!(passed < limit, "not within {limit}: {what}\n{:#?}", self.status());
            self.clock.sleep(Span::millis(100)).await;
        }
        self.clock.now().wall.since(began)
    }

    async fn end(self) -> Span {
        let began = self.clock.now().wall;
        self.running.stop().await;
        self.clock.now().wall.since(began)
    }
}

/// The dates of a manager's sweeps that the board shows during `span`.
async fn sweeps_shown(service: &Service, manager: usize, span: Span) -> Vec<Wall> {
    let mut dates = Vec::new();
    let end = service.clock.now().wall.plus(span);
    while service.clock.now().wall < end {
        if let Some(status) = service.manager(manager)
            && dates.last() != Some(&status.at)
        {
            dates.push(status.at);
        }
        service.clock.sleep(Span::millis(100)).await;
    }
    dates
}

/// Of the tenth manager: its sweeps in two calm minutes, and its recovery after a crash.
#[derive(Debug, PartialEq)]
struct Measured {
    sweeps: usize,
    longest_gap: Span,
    recovery: Span,
    exported: Span,
    end: Span,
}

async fn measure_the_tenth(service: Service) -> Measured {
    service.clock.sleep(Span::mins(1)).await;
    let shown = sweeps_shown(&service, 9, Span::mins(2)).await;
    let longest_gap = shown.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap();
    service.crash_and_restart(9);
    let recovery = service.until(Span::mins(5), "the tenth listens again", |service| service.listens(9)).await;
    let exported = |service: &Service| {
        let listens = |set: u32| {
            let labels = format!("manager=\"garm-9\",scale_set=\"{set}\",state=\"listening\"");
            service.metric(&format!("scaleset_medic_scale_set_state{{{labels}}}")) == Some(1.0)
        };
        (1..=SETS).all(listens)
    };
    let exported = service.until(Span::mins(1), "the recovery is exported", exported).await;
    let end = service.end().await;
    Measured { sweeps: shown.len(), longest_gap, recovery, exported, end }
}

#[tokio::test(start_paused = true)]
async fn nine_hanging_managers_do_not_slow_the_tenth() {
    let alone = measure_the_tenth(Service::start(&[9], "", |_, _| {}).await).await;

    let service = Service::start(&ALL, "", |world, now| {
        for manager in 0..9 {
            world.garm_mut(manager).unwrap().0.hang_until(now.plus(Span::hours(2)));
        }
    })
    .await;
    let _ = service.until(Span::secs(2), "the tenth is shown at once", |service| service.manager(9).is_some()).await;
    let status = service.status().unwrap();
    let waiting: Vec<_> = (0..9).map(name).collect();
    assert_eq!((status.managers.len(), &status.not_swept_yet), (1, &waiting));
    let page = page::render(Some(&status), service.clock.now().wall);
    assert!(page.contains("9 of 10 GARMs are not swept yet"), "{page}");
    assert!(page.contains("garm-0 <small><span class=\"odd\">? not swept yet</span>"), "{page}");
    assert_eq!(service.metric("scaleset_medic_manager_up{manager=\"garm-9\"}"), Some(1.0));

    let _ = service
        .until(Span::mins(1), "the sweep of a hanging manager ends", |s| s.status().unwrap().managers.len() == 10)
        .await;
    assert_eq!(service.status().unwrap().not_swept_yet, []);
    assert_eq!(service.metric("scaleset_medic_manager_up{manager=\"garm-0\"}"), Some(0.0));

    let beside_nine = measure_the_tenth(service).await;
    assert!(beside_nine.longest_gap <= Span::secs(16), "{beside_nine:?}");
    assert!(beside_nine.sweeps + 1 >= alone.sweeps, "{beside_nine:?} {alone:?}");
    let late = beside_nine.recovery.minus(alone.recovery);
    assert!(late <= Span::secs(2), "{beside_nine:?} {alone:?}");
    assert!(beside_nine.exported <= Span::secs(16), "{beside_nine:?}");
    assert!(beside_nine.end <= Span::secs(10), "{beside_nine:?}");
}

#[tokio::test(start_paused = true)]
async fn managers_hanging_mid_treatment_do_not_block_another() {
    let alone = {
        let service = Service::start(&[9], "", |_, _| {}).await;
        service.clock.sleep(Span::mins(2)).await;
        service.crash_and_restart(9);
        service.until(Span::mins(5), "the tenth listens again", |service| service.listens(9)).await
    };
    let service = Service::start(&ALL, "", |_, _| {}).await;
    service.clock.sleep(Span::mins(2)).await;
    for manager in 0..10 {
        service.crash_and_restart(manager);
    }
    let treated =
        |service: &Service| (0..9).all(|manager| service.manager(manager).is_some_and(|m| m.open_intents > 0));
    let began = service.until(Span::mins(2), "all are treated", treated).await;
    service.hub.with(|world, now| {
        for manager in 0..9 {
            world.garm_mut(manager).unwrap().0.hang_until(now.plus(Span::hours(2)));
        }
    });
    let rest = service.until(Span::mins(5), "the tenth listens again", |service| service.listens(9)).await;
    let together = began.plus(rest);
    assert!(together <= alone.plus(Span::secs(2)), "alone {alone}, beside nine that hang {together}");
    let done = |service: &Service| service.manager(9).is_some_and(|m| m.open_intents == 0 && m.incident.is_none());
    let _ = service.until(Span::mins(3), "the medic is done with it", done).await;

    // The nine are healed as soon as they answer again.
    service.hub.with(|world, _| (0..9).for_each(|manager| world.garm_mut(manager).unwrap().0.clear_faults()));
    let healed = |service: &Service| (0..9).all(|manager| service.listens(manager));
    let _ = service.until(Span::mins(5), "the nine listen again", healed).await;
}

#[tokio::test(start_paused = true)]
async fn each_manager_has_its_own_budget_pauses_and_breaker() {
    let service = Service::start(&ALL, "heals_per_hour = 4", |_, _| {}).await;
    service.clock.sleep(Span::mins(2)).await;
    service
        .store
        .add_pause(NewPause {
            scope: PauseScope::Manager { manager: name(2) },
            reason: "maintenance".to_owned(),
            author: "alice".to_owned(),
            created: service.clock.now().wall,
            expires: None,
        })
        .unwrap();
    // Toggles do not help manager 3: GitHub always refuses its sets.
    service.hub.with(|world, now| {
        let sets: Vec<_> = world.garm(3).unwrap().scale_sets().map(|(_, _, id)| id).collect();
        for set in sets {
            world.github.phantom_conflict(set, now.plus(Span::hours(3)));
        }
    });
    for manager in [0, 2, 3] {
        service.crash_and_restart(manager);
    }
    let _ = service.until(Span::mins(4), "manager 0 is healed", |service| service.listens(0)).await;
    let spent = |service: &Service| service.manager(0).is_some_and(|m| m.budget_remaining == 0);
    let _ = service.until(Span::mins(1), "its budget is spent", spent).await;
    let broken = |service: &Service| service.manager(3).is_some_and(|m| m.breaker_open.is_some());
    let _ = service.until(Span::mins(50), "manager 3's breaker opens", broken).await;

    // A second crash of manager 0 finds no budget; manager 1 has all of its own.
    for manager in [0, 1] {
        service.crash_and_restart(manager);
    }
    let _ = service.until(Span::mins(5), "manager 1 is healed", |service| service.listens(1)).await;
    let status = service.status().unwrap();
    let of = |manager: usize| status.managers.iter().find(|status| status.name == name(manager)).unwrap();
    let guarded =
        |manager: usize, guard| of(manager).sets.iter().any(|set| set.guards().any(|blocked| blocked == guard));
    assert!(guarded(0, Guard::ManagerBudget) && !guarded(1, Guard::ManagerBudget));
    assert!(guarded(2, Guard::Paused) && !service.listens(2));
    for manager in 0..10 {
        assert_eq!(of(manager).breaker_open.is_some(), manager == 3, "{manager}");
        assert_eq!((manager != 2) || !guarded(manager, Guard::Paused), manager != 2, "{manager}");
        let left = if [0, 1].contains(&manager) { 0 } else { 4 };
        assert!(of(manager).budget_remaining == left || manager == 3, "{manager}: {}", of(manager).budget_remaining);
    }
    assert_eq!(service.hub.with(|world, _| world.garm(2).unwrap().writes().len()), 0);
}
