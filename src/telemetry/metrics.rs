//! What is counted and measured. There is one set of instruments, whoever reads them: a collector by OTLP, Prometheus by
//! its endpoint, both or nobody. It is handed to those who measure; there is no global one.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider as _, NoopMeterProvider},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::{
    Export, TelemetryError,
    names::{self, DatabaseRole, EntryOutcome, Fallback, Metric, Operation, ViewSource},
    otlp,
};

/// Bounds of histograms of durations, in seconds: those of the semantic conventions, and some below for what is quick here.
const SECONDS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Bounds of the histogram of batch sizes, up to the largest batch.
const ENTRIES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// How long the last export may take.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// The instruments of a server. Cloning is cheap, and clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    /// Not there when nobody reads.
    provider: Option<SdkMeterProvider>,
    registry: Option<Registry>,
    meter: Meter,
    call_duration: Histogram<f64>,
    operation_duration: Histogram<f64>,
    connection_wait: Histogram<f64>,
    connection_timeouts: Counter<u64>,
    batch_sizes: Histogram<u64>,
    batch_retries: Counter<u64>,
    queue_age: Histogram<f64>,
    entries: Counter<u64>,
    answer_lookups: Counter<u64>,
    views: Counter<u64>,
    reads: Counter<u64>,
    fallbacks: Counter<u64>,
    ready: Gauge<u64>,
    /// Up and down with every entry: an atomic is read when somebody asks.
    queued: Arc<AtomicI64>,
    unfolded: Arc<AtomicI64>,
    oldest: Oldest,
    pending: Arc<AtomicI64>,
}

/// Since when the entry waits that waits longest.
type Oldest = Arc<Mutex<Option<Instant>>>;

impl Drop for Instruments {
    /// Ended by us, the provider has nothing to log about; what has been ended already stays so.
    fn drop(&mut self) {
        let _ = self.provider.as_ref().map(SdkMeterProvider::shutdown);
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The name of its status code.
    pub code: &'static str,
    /// Whether that counts as an error of the server.
    pub is_error: bool,
    /// Why it failed, if that was told.
    pub reason: Option<&'static str>,
}

impl Metrics {
    /// Instruments that nobody reads.
    pub fn off() -> Self {
        Self::on(None, None)
    }

    /// Instruments for a collector, when `export` names one, and for the Prometheus endpoint, when there is to be one. Must
    /// be called within a runtime, which carries the exports.
    pub fn start(export: &Export, for_prometheus: bool) -> Result<Self, TelemetryError> {
        if export.metrics.is_none() && !for_prometheus {
            return Ok(Self::off());
        }
        let mut builder = SdkMeterProvider::builder().with_resource(otlp::resource(export));
        if let Some(endpoint) = &export.metrics {
            builder = builder.with_reader(otlp::metric_reader(endpoint)?);
        }
        let registry = for_prometheus.then(Registry::new);
        if let Some(registry) = &registry {
            let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
            builder = builder.with_reader(exporter.scope_info_enabled(false).build().map_err(TelemetryError::new)?);
        }
        Ok(Self::on(Some(builder.build()), registry))
    }

    fn on(provider: Option<SdkMeterProvider>, registry: Option<Registry>) -> Self {
        let meter = match &provider {
            Some(provider) => provider.meter("rapport"),
            // A provider without readers would complain of every instrument.
            None => NoopMeterProvider::new().meter("rapport"),
        };
        let (queued, unfolded, pending) = (Arc::default(), Arc::default(), Arc::default());
        observe(&meter, names::QUEUE_LENGTH, &queued);
        observe(&meter, names::FOLD_BACKLOG, &unfolded);
        observe(&meter, names::CONNECTION_PENDING, &pending);
        let oldest = age(&meter, names::QUEUE_OLDEST);
        let metrics = Self(Arc::new(Instruments {
            call_duration: seconds(&meter, names::CALL_DURATION),
            operation_duration: seconds(&meter, names::OPERATION_DURATION),
            connection_wait: seconds(&meter, names::CONNECTION_WAIT),
            connection_timeouts: counter(&meter, names::CONNECTION_TIMEOUTS),
            batch_sizes: sizes(&meter, names::BATCH_SIZES),
            batch_retries: counter(&meter, names::BATCH_RETRIES),
            queue_age: seconds(&meter, names::QUEUE_AGE),
            entries: counter(&meter, names::ENTRIES),
            answer_lookups: counter(&meter, names::ANSWER_LOOKUPS),
            views: counter(&meter, names::VIEWS),
            reads: counter(&meter, names::READS),
            fallbacks: counter(&meter, names::FALLBACKS),
            ready: gauge(&meter, names::READY),
            queued,
            unfolded,
            oldest,
            pending,
            provider,
            registry,
            meter,
        }));
        metrics.begin();
        metrics
    }

    /// Counters begin at zero, so that their first step is seen as one.
    fn begin(&self) {
        self.0.connection_timeouts.add(0, &[pool(DatabaseRole::Primary)]);
        self.0.batch_retries.add(0, &[]);
        for outcome in EntryOutcome::ALL {
            self.0.entries.add(0, &[KeyValue::new(names::ENTRY_OUTCOME, outcome.as_str())]);
        }
        for result in ["hit", "miss"] {
            self.0.answer_lookups.add(0, &[KeyValue::new(names::LOOKUP_RESULT, result)]);
        }
        for source in ViewSource::ALL {
            self.0.views.add(0, &[KeyValue::new(names::VIEW_SOURCE, source.as_str())]);
        }
        for role in DatabaseRole::ALL {
            self.0.reads.add(0, &[KeyValue::new(names::DATABASE_ROLE, role.as_str())]);
        }
        for reason in Fallback::ALL {
            self.0.fallbacks.add(0, &[KeyValue::new(names::FALLBACK_REASON, reason.as_str())]);
        }
    }

    /// A call to a method ended after that time.
    pub fn call(&self, method: &'static str, ended: Ended, took: Duration) {
        // What there is not always is at the ends.
        let attributes = [
            KeyValue::new(names::ERROR_TYPE, ended.code),
            KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
            KeyValue::new(names::RPC_METHOD, method),
            KeyValue::new(names::RPC_STATUS_CODE, ended.code),
            KeyValue::new(names::ERROR_REASON, ended.reason.unwrap_or_default()),
        ];
        let known = usize::from(!ended.is_error)..4 + usize::from(ended.reason.is_some());
        self.0.call_duration.record(took.as_secs_f64(), &attributes[known]);
    }

    /// A piece of work on the database took that long, and went wrong as `error` says.
    pub fn operation(&self, operation: Operation, error: Option<&'static str>, took: Duration) {
        let attributes = [
            KeyValue::new(names::DB_SYSTEM_NAME, "postgresql"),
            KeyValue::new(names::DB_OPERATION_NAME, operation.as_str()),
            KeyValue::new(names::ERROR_TYPE, error.unwrap_or_default()),
        ];
        let known = if error.is_some() { &attributes[..] } else { &attributes[..2] };
        self.0.operation_duration.record(took.as_secs_f64(), known);
    }

    /// Somebody waits for a connection, until what this returns is dropped.
    pub fn connection_awaited(&self, role: DatabaseRole) -> Waiting {
        self.0.pending.fetch_add(1, Ordering::Relaxed);
        Waiting { metrics: self.clone(), role, since: Instant::now() }
    }

    /// Somebody waited in vain for a connection.
    pub fn connection_timed_out(&self, role: DatabaseRole) {
        self.0.connection_timeouts.add(1, &[pool(role)]);
    }

    /// Shows how many connections there are, used and idle, as `count` tells whenever somebody asks, and may be at most.
    pub fn connections(&self, role: DatabaseRole, most: u32, count: impl Fn() -> (i64, i64) + Send + Sync + 'static) {
        let Metric { name, unit, about } = names::CONNECTION_COUNT;
        let instrument = self.0.meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(about);
        let state = move |state| [pool(role), KeyValue::new(names::CONNECTION_STATE, state)];
        instrument
            .with_callback(move |observer| {
                let (used, idle) = count();
                observer.observe(used, &state("used"));
                observer.observe(idle, &state("idle"));
            })
            .build();
        let Metric { name, unit, about } = names::CONNECTION_MAX;
        let instrument = self.0.meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(about);
        instrument.with_callback(move |observer| observer.observe(most.into(), &[pool(role)])).build();
    }

    /// Shows how many tasks there are, as `count` tells whenever somebody asks.
    pub fn tasks(&self, count: impl Fn() -> usize + Send + Sync + 'static) {
        let Metric { name, unit, about } = names::TASKS;
        let instrument = self.0.meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(about);
        let count = move || i64::try_from(count()).unwrap_or(i64::MAX);
        instrument.with_callback(move |observer| observer.observe(count(), &[])).build();
    }

    /// An entry waits for its batch.
    pub fn queued(&self) {
        self.0.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// Since when the entry waits that waits longest; `None` when none waits.
    pub fn waits_since(&self, oldest: Option<Instant>) {
        *self.0.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    /// A batch begins with so many entries, of which one waited that long, and none longer.
    pub fn batch_begun(&self, entries: usize, longest_wait: Duration) {
        self.0.queued.fetch_sub(i64::try_from(entries).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.0.batch_sizes.record(u64::try_from(entries).unwrap_or(u64::MAX), &[]);
        self.0.queue_age.record(longest_wait.as_secs_f64(), &[]);
    }

    /// So many acts more are to be folded.
    pub fn to_fold(&self, acts: usize) {
        self.0.unfolded.fetch_add(i64::try_from(acts).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// So many acts are folded.
    pub fn folded(&self, acts: usize) {
        self.0.unfolded.fetch_sub(i64::try_from(acts).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// A batch is tried again.
    pub fn batch_retried(&self) {
        self.0.batch_retries.add(1, &[]);
    }

    /// So many entries came out like that.
    pub fn entries(&self, outcome: EntryOutcome, count: u64) {
        if count > 0 {
            self.0.entries.add(count, &[KeyValue::new(names::ENTRY_OUTCOME, outcome.as_str())]);
        }
    }

    /// An answer was looked for among those that are kept.
    pub fn answer_looked_up(&self, is_hit: bool) {
        let result = if is_hit { "hit" } else { "miss" };
        self.0.answer_lookups.add(1, &[KeyValue::new(names::LOOKUP_RESULT, result)]);
    }

    /// A ranking was made of connections from there.
    pub fn view_made(&self, source: ViewSource) {
        self.0.views.add(1, &[KeyValue::new(names::VIEW_SOURCE, source.as_str())]);
    }

    /// A ranking or a connection was read from there.
    pub fn read(&self, role: DatabaseRole) {
        self.0.reads.add(1, &[KeyValue::new(names::DATABASE_ROLE, role.as_str())]);
    }

    /// The replica might have answered, and did not.
    pub fn fell_back(&self, reason: Fallback) {
        self.0.fallbacks.add(1, &[KeyValue::new(names::FALLBACK_REASON, reason.as_str())]);
    }

    /// Whether the replica can be read from.
    pub fn set_replica_ready(&self, ready: bool) {
        gauge(&self.0.meter, names::REPLICA_READY).record(u64::from(ready), &[]);
    }

    /// Whether calls can be served.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.record(u64::from(ready), &[]);
    }

    /// This version of the policy is built in.
    pub fn policy_built_in(&self, version: &'static str) {
        gauge(&self.0.meter, names::POLICY).record(1, &[KeyValue::new(names::POLICY_VERSION, version)]);
    }

    /// The server started then, in seconds since 1970.
    pub fn started(&self, unix_seconds: i64) {
        self.time(names::PROCESS_START, unix_seconds);
    }

    /// The certificate that is shown ends then, in seconds since 1970.
    pub fn certificate_ends(&self, unix_seconds: i64) {
        self.time(names::CERTIFICATE_END, unix_seconds);
    }

    fn time(&self, Metric { name, unit, about }: Metric, unix_seconds: i64) {
        let gauge = self.0.meter.i64_gauge(name).with_unit(unit).with_description(about).build();
        gauge.record(unix_seconds, &[]);
    }

    /// Everything in Prometheus's text format; empty unless there is an endpoint for it.
    pub(super) fn text(&self) -> Result<Vec<u8>, TelemetryError> {
        let mut text = Vec::new();
        let families = self.0.registry.as_ref().map(Registry::gather).unwrap_or_default();
        TextEncoder::new().encode(&families, &mut text).map_err(TelemetryError::new)?;
        Ok(text)
    }

    /// Exports what was measured last, within a bounded time.
    pub async fn end(self) {
        let Some(provider) = self.0.provider.clone() else { return };
        let ending = tokio::task::spawn_blocking(move || provider.shutdown());
        if let Ok(Ok(Err(error))) = tokio::time::timeout(SHUTDOWN_LIMIT, ending).await {
            tracing::warn!("the last metrics may be lost: {error}");
        }
    }
}

/// Somebody waits for a connection.
#[derive(Debug)]
pub struct Waiting {
    metrics: Metrics,
    role: DatabaseRole,
    since: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.0.pending.fetch_sub(1, Ordering::Relaxed);
        self.metrics.0.connection_wait.record(self.since.elapsed().as_secs_f64(), &[pool(self.role)]);
    }
}

fn pool(role: DatabaseRole) -> KeyValue {
    KeyValue::new(names::POOL_NAME, role.pool())
}

/// Shows a number that goes up and down.
fn observe(meter: &Meter, Metric { name, unit, about }: Metric, number: &Arc<AtomicI64>) {
    let number = Arc::clone(number);
    let instrument = meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(about);
    // Those who count down may come before those who count up.
    instrument.with_callback(move |observer| observer.observe(number.load(Ordering::Relaxed).max(0), &[])).build();
}

/// Shows how long ago something was.
fn age(meter: &Meter, Metric { name, unit, about }: Metric) -> Oldest {
    let oldest = Oldest::default();
    let seen = Arc::clone(&oldest);
    let instrument = meter.f64_observable_gauge(name).with_unit(unit).with_description(about);
    instrument
        .with_callback(move |observer| {
            let oldest = *seen.lock().unwrap_or_else(PoisonError::into_inner);
            observer.observe(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()), &[]);
        })
        .build();
    oldest
}

fn seconds(meter: &Meter, Metric { name, unit, about }: Metric) -> Histogram<f64> {
    let histogram = meter.f64_histogram(name).with_unit(unit).with_description(about);
    histogram.with_boundaries(SECONDS.to_vec()).build()
}

fn sizes(meter: &Meter, Metric { name, unit, about }: Metric) -> Histogram<u64> {
    let histogram = meter.u64_histogram(name).with_unit(unit).with_description(about);
    histogram.with_boundaries(ENTRIES.to_vec()).build()
}

fn counter(meter: &Meter, Metric { name, unit, about }: Metric) -> Counter<u64> {
    meter.u64_counter(name).with_unit(unit).with_description(about).build()
}

fn gauge(meter: &Meter, Metric { name, unit, about }: Metric) -> Gauge<u64> {
    meter.u64_gauge(name).with_unit(unit).with_description(about).build()
}
