//! Events: faults of GARM, GitHub, network and disk, changes by operators, kills and starts of medics.

use super::network::NetworkFaults;
use super::plan::pick;
use super::process::KillAt;
use super::simulation::{Medic, Simulation};
use crate::bench::BUILDS;
use medic_core::model::{GithubId, ScaleSetId, Span};
use medic_lab::garm::ManagerFault;
use medic_lab::github::{Degraded, Fault, FaultKind, Lasts, Route, Takeover};
use rand::RngExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    // The manager.
    Crash,
    CleanStop,
    Start,
    ManagerHangs,
    ManagerFails,
    ManagerSendsGarbage,
    TokensExpire,
    /// The fault of a single recovery: killed, and started a second later.
    CrashOnce,
    // GitHub.
    GithubFails,
    GithubSendsGarbage,
    ActionsServiceFails,
    QuotaRunsOut,
    Evicted,
    PhantomConflict,
    ForeignOwner,
    Jobs,
    // Operators.
    OperatorDisables,
    OperatorEnables(ScaleSetId),
    OperatorEdits,
    /// An operator changes a set that a medic has just disabled.
    OperatorInterferes(ScaleSetId),
    Pause,
    Resume,
    DeployManager,
    DeployMedic,
    DeploySet,
    // Network and disk.
    NetworkFails,
    NetworkRecovers,
    DiskFills,
    DiskRecovers,
    // Medics.
    MedicKilled,
    MedicKilledSoon,
    MedicKilledAt(KillAt),
    MedicStops,
    SecondMedic,
    OneMedicStops,
    Retire(u64),
    Nothing,
}

impl Event {
    /// Events of a fault period. A repeated one is more frequent.
    pub(super) const ANY: [Self; 28] = [
        Self::Crash,
        Self::CleanStop,
        Self::ManagerHangs,
        Self::ManagerFails,
        Self::ManagerSendsGarbage,
        Self::TokensExpire,
        Self::GithubFails,
        Self::GithubSendsGarbage,
        Self::ActionsServiceFails,
        Self::QuotaRunsOut,
        Self::Evicted,
        Self::PhantomConflict,
        Self::ForeignOwner,
        Self::Jobs,
        Self::OperatorDisables,
        Self::OperatorDisables,
        Self::OperatorEdits,
        Self::Pause,
        Self::DeployManager,
        Self::DeployMedic,
        Self::DeploySet,
        Self::NetworkFails,
        Self::NetworkFails,
        Self::DiskFills,
        Self::MedicKilled,
        Self::MedicKilledSoon,
        Self::MedicStops,
        Self::SecondMedic,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Crash | Self::CrashOnce => "manager killed",
            Self::CleanStop => "manager stopped",
            Self::ManagerHangs | Self::ManagerFails | Self::TokensExpire => "manager fails",
            Self::ManagerSendsGarbage | Self::GithubSendsGarbage => "garbage answered",
            Self::GithubFails | Self::ActionsServiceFails | Self::QuotaRunsOut => "GitHub fails",
            Self::Evicted | Self::PhantomConflict | Self::ForeignOwner => "session taken",
            Self::Jobs => "jobs",
            Self::OperatorDisables | Self::OperatorEnables(_) => "operator toggles",
            Self::OperatorEdits | Self::OperatorInterferes(_) => "operator edits",
            Self::Pause => "operator pauses",
            Self::DeployManager | Self::DeployMedic | Self::DeploySet => "operator deploys",
            Self::NetworkFails => "network fails",
            Self::DiskFills => "disk full",
            Self::MedicKilled | Self::MedicKilledSoon | Self::MedicKilledAt(_) => "medic killed",
            Self::MedicStops | Self::OneMedicStops | Self::Retire(_) => "medic stopped",
            Self::SecondMedic => "second medic",
            Self::Start | Self::Resume | Self::NetworkRecovers | Self::DiskRecovers | Self::Nothing => "",
        }
    }

    /// Whether it excuses a delay.
    const fn disturbs(self) -> bool {
        !matches!(
            self,
            Self::Jobs
                | Self::OperatorDisables
                | Self::OperatorEnables(_)
                | Self::OperatorEdits
                | Self::OperatorInterferes(_)
                | Self::Pause
                | Self::Resume
                | Self::NetworkRecovers
                | Self::Nothing
        )
    }
}

impl Simulation {
    fn random_set(&mut self) -> (ScaleSetId, GithubId) {
        let sets: Vec<_> = self
            .context
            .hub
            .with(|world, _| world.garm(0).unwrap().scale_sets().map(|(set, _, id)| (set, id)).collect());
        pick(&mut self.dice, &sets)
    }

    pub(super) fn event(&mut self, event: Event) {
        let (set, github_id) = self.random_set();
        let span = Span::secs(self.dice.random_range(30..600));
        let until = self.now().plus(span);
        if event.disturbs() {
            self.note(&format!("{event:?} for {span}, set {set}"));
            self.disturb(span);
        }
        // Changes by operators are counted where they happen.
        if event.disturbs() && !event.name().is_empty() || matches!(event, Event::Jobs) {
            self.count(event.name());
        }
        let hub = Arc::clone(&self.context.hub);
        match event {
            Event::Crash | Event::CrashOnce => {
                hub.with(|world, now| world.kill(0, now));
                self.later(if event == Event::Crash { 1_000..90_000 } else { 1_000..1_001 }, Event::Start);
            }
            Event::CleanStop => {
                hub.with(|world, now| world.stop(0, now));
                self.later(3_000..90_000, Event::Start);
            }
            Event::Start => hub.with(|world, now| {
                if !world.garm(0).unwrap().is_running() {
                    world.start(0, now);
                }
            }),
            Event::ManagerHangs => hub.with(|world, _| world.garm_mut(0).unwrap().0.hang_until(until)),
            Event::ManagerFails => hub.with(|world, _| world.garm_mut(0).unwrap().0.fail_until(503, until)),
            Event::ManagerSendsGarbage => {
                let fault = ManagerFault::everywhere(self.garbage()).until(until);
                hub.with(|world, _| world.garm_mut(0).unwrap().0.inject(fault));
            }
            Event::TokensExpire => hub.with(|world, _| {
                world.garm_mut(0).unwrap().0.expire_tokens();
                world.github.expire_tokens();
            }),
            Event::GithubFails | Event::GithubSendsGarbage => {
                let routes = [
                    Route::RegistrationToken,
                    Route::RunnerRegistration,
                    Route::CreateSession,
                    Route::DeleteSession,
                    Route::ListSets,
                ];
                let route = pick(&mut self.dice, &routes);
                let kind = if event == Event::GithubFails {
                    FaultKind::status(pick(&mut self.dice, &[500, 502, 503, 429, 401]))
                } else {
                    self.garbage()
                };
                let fault = Fault { lasts: Lasts::Until(until), ..Fault::on(route, kind) };
                hub.with(|world, _| world.github.inject(fault));
            }
            Event::ActionsServiceFails => {
                let how = pick(&mut self.dice, &[Degraded::Poll500, Degraded::PollEmpty, Degraded::Poll401]);
                hub.with(|world, _| world.github.degrade_service(how, Lasts::Until(until)));
            }
            Event::QuotaRunsOut => {
                let whose = pick(&mut self.dice, &["medic", "garm"]);
                hub.with(|world, _| world.github.exhaust_quota(whose, until));
            }
            Event::Evicted => hub.with(|world, now| world.github.evict_session(github_id, now)),
            Event::PhantomConflict => hub.with(|world, _| world.github.phantom_conflict(github_id, until)),
            Event::ForeignOwner => hub.with(|world, now| {
                let owner = "garm-of-somebody-else";
                world.github.foreign_owner_takes(github_id, owner, Takeover::WhenFree, now, until);
            }),
            Event::Jobs => hub.with(|world, now| world.github.queue_jobs(github_id, 2, now)),
            Event::OperatorDisables => {
                if self.sets_enabled(set, false) && self.dice.random_range(0..10) < 8 {
                    self.later(61_000..3_000_000, Event::OperatorEnables(set));
                }
            }
            Event::OperatorEnables(set) => {
                if !self.sets_enabled(set, true) {
                    self.later(61_000..200_000, Event::OperatorEnables(set));
                }
            }
            Event::OperatorEdits => self.edits(set),
            Event::OperatorInterferes(set) => self.edits(set),
            Event::Pause => self.pauses(set, until),
            Event::Resume => self.resume(),
            Event::DeployManager => {
                let build = pick(&mut self.dice, &BUILDS);
                self.note(&format!("GARM is replaced by {build:?}"));
                hub.with(|world, now| {
                    world.stop(0, now);
                    world.garm_mut(0).unwrap().0.reconfigure(|garm| garm.build = build);
                });
                self.later(3_000..60_000, Event::Start);
            }
            Event::DeployMedic => {
                let old: Vec<u64> = self.medics.iter().map(|medic| medic.number).collect();
                self.start_medic();
                for number in old {
                    self.later(500..30_000, Event::Retire(number));
                }
            }
            Event::DeploySet => self.adds_a_set(),
            Event::NetworkFails => {
                let mut share = |most: u32| self.dice.random_range(0..most);
                let faults = NetworkFaults {
                    lost: share(30),
                    unanswered: share(30),
                    slow: share(30),
                    doubled: share(15),
                    cut: share(10),
                    late: share(20),
                    disk: share(15),
                };
                *self.context.faults.lock().unwrap() = faults;
                self.at(until, Event::NetworkRecovers);
            }
            Event::NetworkRecovers => *self.context.faults.lock().unwrap() = NetworkFaults::NONE,
            Event::DiskFills => {
                self.context.disk_full.store(true, Ordering::SeqCst);
                self.at(until, Event::DiskRecovers);
            }
            Event::DiskRecovers => self.context.disk_full.store(false, Ordering::SeqCst),
            Event::MedicKilled => self.with_medic(|medic, _| medic.process.kill()),
            Event::MedicKilledSoon => self.with_medic(|medic, dice| {
                let n = dice.random_range(1..120);
                medic.process.kill_at(if dice.random_range(0..2) == 0 { KillAt::Before(n) } else { KillAt::After(n) });
            }),
            Event::MedicKilledAt(kill_at) => self.medics.iter().for_each(|medic| medic.process.kill_at(kill_at)),
            Event::MedicStops | Event::OneMedicStops => self.with_medic(|medic, _| medic.stop()),
            Event::SecondMedic => {
                self.start_medic();
                self.at(until, Event::OneMedicStops);
            }
            Event::Retire(number) => {
                self.medics.iter_mut().filter(|medic| medic.number == number).for_each(Medic::stop);
            }
            Event::Nothing => {}
        }
    }

    /// Wrong answers that some servers give.
    fn garbage(&mut self) -> FaultKind {
        let answer = |status, content_type: &str, body: String| FaultKind::Answer {
            status,
            content_type: content_type.to_owned(),
            body,
        };
        match self.dice.random_range(0..10) {
            0 => FaultKind::HtmlPage(200),
            1 => FaultKind::HtmlPage(pick(&mut self.dice, &[502, 404])),
            2 => FaultKind::MalformedJson,
            3 => FaultKind::Reset,
            4 => FaultKind::Huge(10_000_000_000),
            5 => FaultKind::Truncated(self.dice.random_range(0..400)),
            6 => FaultKind::Bom,
            7 => FaultKind::Dripping(Span::millis(5)),
            8 => answer(200, "application/json", "[".repeat(100_000)),
            _ => answer(429, "text/plain", "slow down".to_owned()),
        }
    }
}
