//! `rapport serve`: run a server until it is told to stop.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::App,
    config::{Config, Flags, process_environment},
    service::Clock,
};

use super::{Failure, Finished, print, sample};

#[derive(Args, Debug)]
#[command(after_help = "Environment: DATABASE_URL (a PostgreSQL 15 to 18 of your own, prepared by `rapport migrate`; \
                        it may hold a password, so there is no flag for it; --data-dir comes before it), \
                        RAPPORT_SYSTEM_POSTGRES (whether the private PostgreSQL may be one installed on this machine; \
                        default true), RAPPORT_MAX_CONNECTIONS (to the database; default 10), \
                        RAPPORT_TLS_CERTIFICATE, RAPPORT_TLS_KEY and RAPPORT_TLS_CLIENT_AUTHORITIES (files in PEM; default \
                        no TLS), RAPPORT_HEALTH_LISTEN (a port for probes, without TLS; default with the rest), \
                        RAPPORT_MAX_CLIENT_CONNECTIONS (default 10000), RAPPORT_CONNECTION_AGE_SECONDS (default 1800), \
                        RAPPORT_MAX_CALLS (at once; default 8192), RAPPORT_TENANT_CALLS (at once; default 6144), \
                        RAPPORT_TENANT_RATE (calls a second; default any number), \
                        RAPPORT_ANSWER_CACHE_MIB (memory for rankings that can be given again; default 32), \
                        RAPPORT_FUTURE_LIMIT_SECONDS (how far ahead of the clock an interaction may lie; default 300), \
                        RAPPORT_SHUTDOWN_DELAY_SECONDS (how long calls are taken in once it is said that the server is no longer \
                        ready; default 0), \
                        RAPPORT_DRAIN_LIMIT_SECONDS (how long calls may take to end at shutdown; default 20), \
                        RAPPORT_SLOW_STATEMENT_MS (from how long on a statement is logged, without its values; \
                        default 1000).\n\n\
                        Traces and metrics are sent by OTLP over gRPC when OTEL_EXPORTER_OTLP_ENDPOINT, or \
                        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, say where to; \
                        OpenTelemetry's other standard variables hold too: OTEL_SERVICE_NAME (default rapport), \
                        OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_TRACES_EXPORTER, \
                        OTEL_METRICS_EXPORTER, OTEL_SDK_DISABLED, OTEL_EXPORTER_OTLP_HEADERS, \
                        OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_METRIC_EXPORT_INTERVAL.")]
pub(super) struct Arguments {
    /// Where to listen [env: RAPPORT_LISTEN] [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where the private PostgreSQL keeps its data [env: RAPPORT_DATA_DIR] [default: rapport in the XDG data home, or
    /// /var/lib/rapport for root]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The folder with PostgreSQL's programs [env: RAPPORT_POSTGRES_BIN] [default: found on this machine, else fetched
    /// into the data folder]
    #[arg(long, value_name = "FOLDER")]
    postgres_bin: Option<PathBuf>,
    /// The file that says who may do what, as the README describes it [env: RAPPORT_ACCESS_FILE] [default: everybody may do
    /// everything]
    #[arg(long, value_name = "FILE")]
    access_file: Option<PathBuf>,
    /// Allow to listen beyond loopback although callers are not authenticated [env: RAPPORT_INSECURE]
    #[arg(long)]
    insecure: bool,
    /// Where Prometheus can read metrics, at /metrics over plain HTTP, loopback or not: nothing personal is in them
    /// [env: RAPPORT_METRICS_LISTEN] [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// Load a small real sample into the tenant `sample`, and say what to ask
    #[arg(long)]
    sample: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    let flags = Flags {
        listen: arguments.listen,
        data_dir: arguments.data_dir,
        postgres_bin: arguments.postgres_bin,
        insecure: arguments.insecure,
        access_file: arguments.access_file,
        metrics_listen: arguments.metrics_listen,
    };
    let config = Config::read(flags, &process_environment)?;
    if arguments.sample && (config.access_file.is_some() || config.tls.is_some()) {
        return Err("--sample is for trying out: it goes with neither an access file nor TLS".into());
    }
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
    if arguments.sample {
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
