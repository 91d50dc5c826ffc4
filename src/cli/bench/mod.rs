//! `rapport bench`: put a deployment under load, and tell what it does next to the same work in SQL written by hand.

mod load;
mod report;
mod run;
mod suite;
mod target;

use std::{sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use uuid::Uuid;

use crate::{domain::TenantId, service::Clock, store::Baseline};

use super::{Failure, Finished, client::ServerArguments, database::DatabaseArguments, print};

use load::{Act, Crowd, Load, Shape};
use run::{Measured, Pace};
use target::{Stream, Target};

/// How many acts of a stream may wait for their acknowledgement.
const WINDOW: usize = 4096;

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// RecordInteraction
    Unary,
    /// RecordInteractions, a stream for each caller
    Stream,
    /// RankConnections, the best 20
    Rank,
    /// Both, as --ranks says
    Mixed,
    /// All of these in turn, and a hub, one tie and one caller too
    Suite,
}

/// What the load is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Against {
    /// The same work in SQL written by hand, over as many connections as there are callers, to the same database
    Sql,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Latency is in milliseconds. With --rate, calls are due at that rate whether or not earlier ones are \
                        answered, and each is measured from when it was due; without, every caller calls again as soon as \
                        it is answered. All acts go to a tenant of their own, `bench` unless --tenant names another; they \
                        stay there. `–` says that no call ended while it was measured.\n\nEnvironment: DATABASE_URL (for \
                        --baseline sql, which keeps its tables in the schema rapport_baseline, to be dropped by hand; it \
                        may hold a password, so there is no flag for it).\n\nExample: rapport bench unary --callers 64 \
                        --baseline sql --data-dir ./data --runs 5"
)]
pub(super) struct Arguments {
    /// What to do
    #[arg(value_enum)]
    work: Work,
    #[command(flatten)]
    server: ServerArguments,
    /// How many call at once, or how many streams there are
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    callers: u16,
    /// How many calls are due in a second, together [default: as many as it takes]
    #[arg(long, value_name = "COUNT")]
    rate: Option<f64>,
    /// How long each run is measured, in seconds
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    seconds: u32,
    /// How long each run goes on before it is measured, in seconds
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    warm_up: u32,
    /// How many runs; of each number, the median is told
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    runs: u16,
    /// How many persons act
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    persons: u32,
    /// How unevenly they do: the one at place n in proportion to 1/n^SKEW
    #[arg(long, value_name = "SKEW", default_value_t = 0.5)]
    skew: f64,
    /// All acts are of one person toward one other
    #[arg(long, conflicts_with = "toward_one")]
    one_tie: bool,
    /// All acts are toward the first of those whose connections are ranked
    #[arg(long)]
    toward_one: bool,
    /// How many persons' connections are ranked
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    owners: u32,
    /// How many connections each of them has
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    connections: u32,
    /// How many calls of a hundred are rankings when the work is mixed
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    ranks: u8,
    /// Over how many connections to the server
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    channels: u16,
    /// What the load is drawn from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Alternate with something else to compare with
    #[arg(long, value_enum)]
    baseline: Option<Against>,
    #[command(flatten)]
    database: DatabaseArguments,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One kind of load, at one pace.
#[derive(Clone, Debug)]
struct Scenario {
    name: String,
    work: Work,
    shape: Shape,
    callers: usize,
    rate: Option<f64>,
    owners: u32,
    connections: u32,
    ranks_percent: usize,
}

/// Where scenarios are played.
struct Stage {
    rapport: Target,
    baseline: Option<Target>,
    crowd: Crowd,
    pace: Pace,
    runs: u16,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let scenario = arguments.scenario();
    let (json, work) = (arguments.json, arguments.work);
    let (stage, opened) = arguments.stage().await?;
    let played = if work == Work::Suite {
        suite::play(&stage).await
    } else {
        stage.play(&scenario).await.map(|played| vec![played])
    };
    if let Some(opened) = opened {
        opened.close().await;
    }
    let played = played?;
    if json {
        report::json(&played);
    } else {
        report::table(&played);
    }
    let wrong = played.iter().any(report::Played::has_errors);
    Ok(if wrong { Finished::WithFindings } else { Finished::Well })
}

impl Arguments {
    fn scenario(&self) -> Scenario {
        let shape = match (self.one_tie, self.toward_one) {
            (true, _) => Shape::OneTie,
            (_, true) => Shape::TowardOne,
            _ => Shape::Spread,
        };
        let ranks_percent = match self.work {
            Work::Rank => 100,
            Work::Mixed => self.ranks.into(),
            _ => 0,
        };
        Scenario {
            name: self.work.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default(),
            work: self.work,
            shape,
            callers: self.callers.into(),
            rate: self.rate,
            owners: self.owners,
            connections: self.connections,
            ranks_percent,
        }
    }

    async fn stage(self) -> Result<(Stage, Option<super::database::Opened>), Failure> {
        let pace = Pace {
            callers: self.callers.into(),
            rate: self.rate,
            warm_up: Duration::from_secs(self.warm_up.into()),
            measured: Duration::from_secs(self.seconds.into()),
            seed: self.seed,
        };
        let (tenant, clock) = (self.server.tenant_or("bench")?, Clock::system());
        let tenant = TenantId::parse_metadata(&tenant).map_err(|error| format!("--tenant {error}"))?;
        let server = self.server.clone();
        let servers: Result<Vec<_>, Failure> =
            (0..self.channels).map(|_| server.clone().of_tenant(tenant.as_str()).server()).collect();
        let rapport = Target::Rapport(servers?.into(), clock.clone());
        let mut opened = None;
        let baseline = match self.baseline {
            None => None,
            Some(Against::Sql) => {
                let connections = if self.work == Work::Suite { 64 } else { self.callers.into() };
                let database = opened.insert(self.database.open().await?);
                let baseline = Baseline::open(&database.store, &tenant, connections).await;
                Some(Target::Sql(baseline?, clock))
            }
        };
        let crowd = Crowd::new(self.persons, self.skew);
        Ok((Stage { rapport, baseline, crowd, pace, runs: self.runs.max(1) }, opened))
    }
}

impl Stage {
    /// Plays a scenario as often as asked, in turn with what it is compared with.
    async fn play(&self, scenario: &Scenario) -> Result<report::Played, Failure> {
        let owners: Vec<String> =
            (0..scenario.owners).map(|number| format!("owner-{}-{number}", scenario.connections)).collect();
        if scenario.ranks_percent > 0 || scenario.shape == Shape::TowardOne {
            self.connect(&owners, scenario.connections).await?;
        }
        let mut played = report::Played::new(scenario.name.clone(), scenario.rate);
        for _ in 0..self.runs {
            let load = Arc::new(Load {
                crowd: self.crowd.clone(),
                shape: scenario.shape,
                owners: owners.clone(),
                ranks_percent: scenario.ranks_percent,
                run: Uuid::now_v7().simple().to_string(),
            });
            let pace = Pace { callers: scenario.callers, rate: scenario.rate, ..self.pace };
            for target in [Some(&self.rapport), self.baseline.as_ref()].into_iter().flatten() {
                print::progress(format_args!("{}: {} …", scenario.name, target.name()));
                played.add(target.name(), measure(target, scenario, &load, pace).await?);
            }
        }
        Ok(played)
    }

    /// Records what these persons' connections are made of, unless it is recorded already.
    async fn connect(&self, owners: &[String], connections: u32) -> Result<(), Failure> {
        let Target::Rapport(servers, _) = &self.rapport else { return Ok(()) };
        let server = &servers[0];
        let failed = |wrong: target::Wrong| Failure::from(format!("connections could not be made: {wrong}"));
        let mut stream = Stream::open(server, WINDOW).await?;
        print::progress(format_args!("connecting {} with {connections} each …", owners.len()));
        for act in owners.iter().flat_map(|owner| load::connecting(owner, connections)) {
            let time = long_ago(&act)?;
            stream.send(act, time).await.map_err(failed)?;
            while stream.waiting() >= WINDOW {
                stream.acknowledged().await.map_err(failed)?;
            }
        }
        while stream.waiting() > 0 {
            stream.acknowledged().await.map_err(failed)?;
        }
        Ok(())
    }
}

/// A time of 2025 that depends on the act alone.
fn long_ago(act: &Act) -> Result<crate::domain::Timestamp, Failure> {
    let spread = act.id.bytes().fold(7_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 31_000_000);
    crate::domain::Timestamp::from_seconds(1_735_689_600 + spread, 0).ok_or_else(|| "a time out of bounds".into())
}

/// What a stream is compared with is as many single acts as the other way takes.
async fn measure(target: &Target, scenario: &Scenario, load: &Arc<Load>, pace: Pace) -> Result<Measured, Failure> {
    match (scenario.work, target) {
        (Work::Stream, Target::Rapport(..)) => run::streams(target, load, pace, WINDOW).await,
        (Work::Stream, Target::Sql(..)) => run::calls(target, load, Pace { callers: 64, ..pace }).await,
        _ => run::calls(target, load, pace).await,
    }
}
