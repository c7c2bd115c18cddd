//! What happens to managers, to GitHub, to networks, to disks and to medics.

use super::life::Life;
use super::mortal::Doom;
use super::plan::pick;
use super::weather::Climate;
use medic_core::model::{GithubId, ScaleSetId, Span, Wall};
use medic_lab::garm::{Build, ManagerFault};
use medic_lab::github::{Degraded, Fault, FaultKind, Lasts, Leaving, Route, Takeover};
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
    ManagerTalksNonsense,
    TokensExpire,
    /// The one trouble of a single recovery: killed, and started a second later.
    Break,
    // GitHub.
    GithubFails,
    GithubTalksNonsense,
    BrokerDegrades,
    QuotaRunsOut,
    Evicted,
    PhantomConflict,
    ForeignOwner,
    Jobs,
    // People.
    PersonDisables,
    PersonEnables(ScaleSetId),
    PersonEdits,
    /// A person meddles with a set that a medic has just disabled.
    PersonMeddles(ScaleSetId),
    Pause,
    Resume,
    DeployManager,
    DeployMedic,
    DeploySet,
    // Networks and disks.
    Storm,
    Calm,
    DiskFills,
    DiskEmpties,
    // Medics.
    MedicDies,
    MedicDoomed,
    Doomed(Doom),
    MedicStops,
    SecondMedic,
    OneMedicLess,
    Retire(u64),
    Nothing,
}

impl Event {
    /// What a trouble consists of, by its frequency.
    pub(super) const ANY: [Self; 28] = [
        Self::Crash,
        Self::CleanStop,
        Self::ManagerHangs,
        Self::ManagerFails,
        Self::ManagerTalksNonsense,
        Self::TokensExpire,
        Self::GithubFails,
        Self::GithubTalksNonsense,
        Self::BrokerDegrades,
        Self::QuotaRunsOut,
        Self::Evicted,
        Self::PhantomConflict,
        Self::ForeignOwner,
        Self::Jobs,
        Self::PersonDisables,
        Self::PersonDisables,
        Self::PersonEdits,
        Self::Pause,
        Self::DeployManager,
        Self::DeployMedic,
        Self::DeploySet,
        Self::Storm,
        Self::Storm,
        Self::DiskFills,
        Self::MedicDies,
        Self::MedicDoomed,
        Self::MedicStops,
        Self::SecondMedic,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Crash | Self::Break => "manager killed",
            Self::CleanStop => "manager stopped",
            Self::ManagerHangs | Self::ManagerFails | Self::TokensExpire => "manager fails",
            Self::ManagerTalksNonsense | Self::GithubTalksNonsense => "nonsense answered",
            Self::GithubFails | Self::BrokerDegrades | Self::QuotaRunsOut => "GitHub fails",
            Self::Evicted | Self::PhantomConflict | Self::ForeignOwner => "session taken",
            Self::Jobs => "jobs",
            Self::PersonDisables | Self::PersonEnables(_) => "person toggles",
            Self::PersonEdits | Self::PersonMeddles(_) => "person edits",
            Self::Pause => "person pauses",
            Self::DeployManager | Self::DeployMedic | Self::DeploySet => "person deploys",
            Self::Storm => "network storm",
            Self::DiskFills => "disk full",
            Self::MedicDies | Self::MedicDoomed | Self::Doomed(_) => "medic killed",
            Self::MedicStops | Self::OneMedicLess | Self::Retire(_) => "medic stopped",
            Self::SecondMedic => "second medic",
            Self::Start | Self::Resume | Self::Calm | Self::DiskEmpties | Self::Nothing => "",
        }
    }

    /// Whether somebody may be late because of it.
    const fn disturbs(self) -> bool {
        !matches!(
            self,
            Self::Jobs
                | Self::PersonDisables
                | Self::PersonEnables(_)
                | Self::PersonEdits
                | Self::PersonMeddles(_)
                | Self::Pause
                | Self::Resume
                | Self::Calm
                | Self::Nothing
        )
    }
}

impl Life {
    fn random_set(&mut self) -> (ScaleSetId, GithubId) {
        let sets: Vec<_> = self
            .scene
            .hub
            .with(|world, _| world.garm(0).unwrap().scale_sets().map(|(id, _, forge)| (id, forge)).collect());
        pick(&mut self.dice, &sets)
    }

    pub(super) fn event(&mut self, event: Event) {
        let (set, forge) = self.random_set();
        let span = Span::secs(self.dice.random_range(30..600));
        let until = self.now().plus(span);
        if event.disturbs() {
            self.tell(&format!("{event:?} for {span}, set {set}"));
            self.disturb(span);
        }
        // People count what they really did.
        if event.disturbs() && !event.name().is_empty() || matches!(event, Event::Jobs) {
            self.count(event.name());
        }
        match event {
            Event::Crash
            | Event::Break
            | Event::CleanStop
            | Event::Start
            | Event::ManagerHangs
            | Event::ManagerFails
            | Event::ManagerTalksNonsense
            | Event::TokensExpire => self.manager(event, until),
            Event::GithubFails
            | Event::GithubTalksNonsense
            | Event::BrokerDegrades
            | Event::QuotaRunsOut
            | Event::Evicted
            | Event::PhantomConflict
            | Event::ForeignOwner
            | Event::Jobs => self.github(event, forge, until),
            Event::PersonDisables
            | Event::PersonEnables(_)
            | Event::PersonEdits
            | Event::PersonMeddles(_)
            | Event::Pause
            | Event::Resume
            | Event::DeployManager
            | Event::DeployMedic
            | Event::DeploySet => self.people(event, set, until),
            Event::Storm | Event::Calm | Event::DiskFills | Event::DiskEmpties => self.elements(event, until),
            Event::MedicDies
            | Event::MedicDoomed
            | Event::Doomed(_)
            | Event::MedicStops
            | Event::SecondMedic
            | Event::OneMedicLess
            | Event::Retire(_) => self.medics(event, until),
            Event::Nothing => {}
        }
    }

    fn manager(&mut self, event: Event, until: Wall) {
        let hub = Arc::clone(&self.scene.hub);
        match event {
            Event::Crash => {
                hub.with(|world, now| world.kill(0, now));
                self.later(1_000..90_000, Event::Start);
            }
            Event::Break => {
                hub.with(|world, now| world.kill(0, now));
                self.later(1_000..1_001, Event::Start);
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
            Event::ManagerTalksNonsense => {
                let fault = ManagerFault::everywhere(self.nonsense()).until(until);
                hub.with(|world, _| world.garm_mut(0).unwrap().0.inject(fault));
            }
            _ => hub.with(|world, _| {
                world.garm_mut(0).unwrap().0.expire_tokens();
                world.github.expire_tokens();
            }),
        }
    }

    /// What no server should answer, and some do.
    fn nonsense(&mut self) -> FaultKind {
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

    fn github(&mut self, event: Event, forge: GithubId, until: Wall) {
        let hub = Arc::clone(&self.scene.hub);
        let routes = [
            Route::RegistrationToken,
            Route::RunnerRegistration,
            Route::CreateSession,
            Route::DeleteSession,
            Route::ListSets,
        ];
        match event {
            Event::GithubFails | Event::GithubTalksNonsense => {
                let route = pick(&mut self.dice, &routes);
                let kind = if event == Event::GithubFails {
                    FaultKind::status(pick(&mut self.dice, &[500, 502, 503, 429, 401]))
                } else {
                    self.nonsense()
                };
                hub.with(|world, _| {
                    world.github.inject(Fault { lasts: Lasts::Until(until), ..Fault::on(route, kind) });
                });
            }
            Event::BrokerDegrades => {
                let how = pick(&mut self.dice, &[Degraded::Poll500, Degraded::PollEmpty, Degraded::Poll401]);
                hub.with(|world, _| world.github.degrade_service(how, Lasts::Until(until)));
            }
            Event::QuotaRunsOut => {
                let whose = pick(&mut self.dice, &["medic", "garm"]);
                hub.with(|world, _| world.github.exhaust_quota(whose, until));
            }
            Event::Evicted => hub.with(|world, now| world.github.evict_session(forge, now)),
            Event::PhantomConflict => hub.with(|world, _| world.github.phantom_conflict(forge, until)),
            Event::ForeignOwner => hub.with(|world, now| {
                let how = (Takeover::WhenFree, Leaving::Deletes);
                world.github.foreign_owner_takes(forge, "garm-of-somebody-else", how, now, until);
            }),
            _ => hub.with(|world, now| world.github.queue_jobs(forge, 2, now)),
        }
    }

    fn elements(&mut self, event: Event, until: Wall) {
        match event {
            Event::Storm => {
                let mut share = |most: u32| self.dice.random_range(0..most);
                let climate = Climate {
                    lost: share(30),
                    unanswered: share(30),
                    slow: share(30),
                    doubled: share(15),
                    cut: share(10),
                    late: share(20),
                    disk: share(15),
                };
                *self.scene.climate.lock().unwrap() = climate;
                self.at(until, Event::Calm);
            }
            Event::Calm => *self.scene.climate.lock().unwrap() = Climate::CALM,
            Event::DiskFills => {
                self.scene.disk_full.store(true, Ordering::SeqCst);
                self.at(until, Event::DiskEmpties);
            }
            _ => self.scene.disk_full.store(false, Ordering::SeqCst),
        }
    }

    fn medics(&mut self, event: Event, until: Wall) {
        match event {
            Event::MedicDies => self.with_medic(|medic, _| medic.mortal.kill()),
            Event::MedicDoomed => self.with_medic(|medic, dice| {
                let n = dice.random_range(1..120);
                medic.mortal.doom(if dice.random_range(0..2) == 0 { Doom::Before(n) } else { Doom::After(n) });
            }),
            Event::Doomed(doom) => self.doom_all(doom),
            Event::SecondMedic => {
                self.medic_comes();
                self.at(until, Event::OneMedicLess);
            }
            Event::Retire(number) => {
                for medic in self.medics.iter_mut().filter(|medic| medic.number == number) {
                    if let Some(stop) = medic.stop.take() {
                        let _ = stop.send(());
                    }
                }
            }
            _ => self.with_medic(|medic, _| {
                if let Some(stop) = medic.stop.take() {
                    let _ = stop.send(());
                }
            }),
        }
    }
}

/// Generations that a deployment may bring.
pub(super) const GENERATIONS: [Build; 3] = [Build::PreFix, Build::PostFix, Build::ListenerMetrics];
