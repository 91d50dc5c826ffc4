//! `rapport serve`: run a server until it is told to stop.

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::App,
    config::{Config, process_environment},
    service::Clock,
};

use super::{
    Failure, Finished, print, sample,
    settings::{OfServer, SettingArguments},
};

#[derive(Args, Debug)]
#[command(
    after_help = "Flags come before the environment, the environment before the settings file, and that before defaults; \
                  everything that is wrong in any of them is told at once. DATABASE_URL (or database_url in the settings \
                  file) names a PostgreSQL 15 to 18 of your own, prepared by `rapport migrate`; it may hold a password, so \
                  there is no flag for it. Without it a private PostgreSQL is run. RAPPORT_READ_DATABASE_URL (or \
                  read_database_url) names a standby of it, which may answer whoever says how fresh an answer has to be.\n\n\
                  Traces and metrics are sent by OTLP over gRPC when OTEL_EXPORTER_OTLP_ENDPOINT, or \
                  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, say where to; \
                  OpenTelemetry's other standard variables hold too: OTEL_SERVICE_NAME (default rapport), \
                  OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_TRACES_EXPORTER, \
                  OTEL_METRICS_EXPORTER, OTEL_SDK_DISABLED, OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_TIMEOUT, \
                  OTEL_METRIC_EXPORT_INTERVAL. They are read from the environment alone."
)]
pub(super) struct Arguments {
    /// Load a small real sample into the tenant `sample`, and say what to ask
    #[arg(long)]
    sample: bool,
    #[command(flatten)]
    settings: SettingArguments<OfServer>,
}

impl Arguments {
    /// What the server is told.
    pub(super) fn config(self) -> Result<(Config, Sample), Failure> {
        let config = Config::read(self.settings.flags, &process_environment)?;
        if self.sample && (config.access_file.is_some() || config.tls.is_some()) {
            return Err("--sample is for trying out: it goes with neither an access file nor TLS".into());
        }
        Ok((config, Sample(self.sample)))
    }
}

/// Whether the sample is to be loaded.
pub(super) struct Sample(bool);

pub(super) async fn run(config: Config, Sample(has_sample): Sample) -> Result<Finished, Failure> {
    raise_open_files();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stopped = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    // A half-made start leaves nothing running.
    let app = tokio::select! {
        app = App::start(config, Clock::system()) => app?,
        () = stopped() => return Ok(Finished::Well),
    };
    if let Some(address) = app.metrics_address() {
        print::line(format_args!("Metrics are at http://{address}/metrics"));
    }
    print::line(format_args!("Rapport listens on {}", app.address()));
    let (address, stop) = (app.address(), app.stopper());
    let mut ended = std::pin::pin!(app.ended());
    if has_sample {
        let loaded = tokio::select! {
            loaded = sample::load(address) => loaded,
            () = stopped() => {
                stop.cancel();
                Ok(())
            }
        };
        if let Err(failure) = loaded {
            stop.cancel();
            ended.await?;
            return Err(failure);
        }
    }
    tokio::select! {
        result = &mut ended => return result.map(|()| Finished::Well).map_err(Into::into),
        () = stopped() => stop.cancel(),
    }
    // Whoever asks twice does not want to wait for calls to end.
    tokio::select! {
        result = &mut ended => result.map(|()| Finished::Well).map_err(Into::into),
        () = stopped() => Err("stopped before all calls had ended".into()),
    }
}

/// Allows as many open files, and so connections, as whoever started the process lets it have. Many containers begin with 1024 of
/// them, a tenth of the connections that are taken in unless somebody says otherwise.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "no more files may be open than before");
    }
}
