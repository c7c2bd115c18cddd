//! `once`.

use super::args::{Color, OnceArgs, Output};
use super::output::{data, diagnostic};
use super::render::{self, Style};
use super::status::ends;
use super::{Failure, medic, nagios};
use crate::config::Config;
use crate::engine::assemble::{engines, real_carrier};
use crate::engine::once::once;
use crate::exit::{ExitCode, nagios_of_run, of_run};
use crate::status::Status;
use crate::text::exit::meaning;
use crate::text::treatment::detail;
use medic_core::model::{ManagerName, Span, Treatment};
use medic_store::LeaseState;
use serde_json::{Value, json};
use std::sync::Arc;

/// How long an unhealthy or unclear fleet is watched before the result: the grace period and a few sweeps.
const OBSERVE: Span = Span::secs(30);

pub(super) fn run(args: &OnceArgs, config: &Config, color: Color) -> Result<ExitCode, Failure> {
    let shared = medic::shared(config)?;
    if let LeaseState::HeldByOther { holder, until } = shared.lease.hold().map_err(Failure::internal)? {
        diagnostic(&format!(
            "another medic ({holder}) holds the lease on {} until {until} at least; it heals, and this one did \
             nothing\n",
            config.run.state_dir.display()
        ));
        if args.nagios {
            nagios::say(ExitCode::LeaseHeld, &format!("another medic ({holder}) is running; use status --nagios"))?;
        }
        return Ok(ExitCode::LeaseHeld);
    }
    let engines = engines(config, &shared, &real_carrier)?;
    let clock = Arc::clone(&shared.clock);
    let ended = medic::runtime()?.block_on(async {
        tokio::select! {
            summary = once(engines, clock.as_ref(), args.observe.unwrap_or(OBSERVE)) => Ok(summary),
            signal = medic::signal() => Err(signal),
        }
    })?;
    let summary = match ended {
        Ok(summary) => summary,
        Err(signal) => {
            // The dropped reconciles left their treatments in the journal: finish them.
            let engines = crate::engine::assemble::engines(config, &shared, &real_carrier)?;
            medic::runtime()?.block_on(medic::finish(engines, clock.as_ref()))?;
            shared.lease.release();
            if args.nagios {
                nagios::say(signal, "interrupted before there was a result")?;
            }
            return Ok(signal);
        }
    };
    shared.lease.release();
    let ends = ends(&summary.managers, &summary.closed);
    let code = of_run(&ends);
    let document = |managers| Status::new(config.run.mode, clock.now().wall, managers, Vec::new());
    match args.output {
        Output::Text if args.nagios => {
            let nagios = nagios_of_run(&ends);
            data(&nagios::line(&document(summary.managers), nagios))?;
            return Ok(nagios.code());
        }
        Output::Text => data(&render::summary(&summary, code, clock.now().wall, Style::of_stdout(color)))?,
        Output::Json => {
            let document = json!({
                "exit_code": code.code(),
                "meaning": meaning(code),
                "status": document(summary.managers),
                "treatments": treatments(&summary.closed),
            });
            data(&format!("{document:#}\n"))?;
        }
    }
    Ok(code)
}

/// Ended treatments with their notes as text.
fn treatments(closed: &[(ManagerName, Treatment)]) -> Value {
    closed.iter().map(|(manager, treatment)| json!([manager, detail(json!(treatment))])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use medic_core::model::{Failed, FailureKind, Note, Outcome, Step};
    use medic_core::treat::testing;

    #[test]
    fn treatments_in_json_show_notes_as_text() {
        let failure = testing::failure(FailureKind::Timeout);
        let closed = Step::Closed { outcome: Outcome::Aborted, why: Note::ChangedByOthers };
        let treatment =
            Treatment { refusal: Some(Note::Failed { what: Failed::Enable, failure }), ..testing::treatment(closed) };
        let shown = treatments(&[(ManagerName::new("garm"), treatment)]);
        assert_eq!(shown[0][0], "garm");
        assert_eq!(shown[0][1]["step"]["why"], "somebody else changed the scale set");
        assert!(shown[0][1]["refusal"].as_str().unwrap().starts_with("the enable is retried: "), "{shown}");
    }
}
