//! Every name that telemetry uses, with its unit and its closed set of values, as OpenTelemetry's semantic conventions have
//! it where they have one; what is Rapport's own begins with `rapport.`. Nothing that callers write is ever among the
//! values: no ids, tenants, topics, goals or channels.

/// The span of one gRPC call. It is exported under the name of the method.
pub const CALL_SPAN: &str = "call";
/// The span of one transaction that records what many calls brought; it links the spans of those calls.
pub const BATCH_SPAN: &str = "record batch";
/// The span of what a ranking reads.
pub const RANK_READ_SPAN: &str = "rank read";
/// The span of what a ranking computes.
pub const RANK_SCORE_SPAN: &str = "rank score";

/// The RPC system: always `grpc`.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// The method called, with its service: a known one, or [`OTHER`].
pub const RPC_METHOD: &str = "rpc.method";
/// How a call ended: the name of a gRPC status code.
pub const RPC_STATUS_CODE: &str = "rpc.response.status_code";
/// What went wrong, of a closed set; absent when nothing did.
pub const ERROR_TYPE: &str = "error.type";
/// Why a call failed, as callers are told: the name of an `ErrorReason` of the contract; absent when that is not told.
pub const ERROR_REASON: &str = "rapport.error.reason";
/// What stands for any value outside a closed set.
pub const OTHER: &str = "_OTHER";
/// The database system: always `postgresql`.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// What was done with the database: an [`Operation`].
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// Which pool of connections: that to a [`DatabaseRole`].
pub const POOL_NAME: &str = "db.client.connection.pool.name";
/// The state of connections: `idle` or `used`.
pub const CONNECTION_STATE: &str = "db.client.connection.state";
/// How many entries a batch holds.
pub const BATCH_SIZE: &str = "rapport.batch.size";
/// How often a batch was tried, with its parts.
pub const BATCH_ATTEMPTS: &str = "rapport.batch.attempts";
/// What became of an entry: an [`EntryOutcome`].
pub const ENTRY_OUTCOME: &str = "rapport.entry.outcome";
/// The version of the policy that is built into the program, never of one that a tenant has published.
pub const POLICY_VERSION: &str = "rapport.policy.version";
/// What a look for a kept answer came to: `hit` or `miss`.
pub const LOOKUP_RESULT: &str = "rapport.lookup.result";
/// Where the connections came from that a ranking was made of: a [`ViewSource`].
pub const VIEW_SOURCE: &str = "rapport.view.source";
/// Which database answered: a [`DatabaseRole`].
pub const DATABASE_ROLE: &str = "rapport.database.role";
/// Why the replica did not answer: a [`Fallback`].
pub const FALLBACK_REASON: &str = "rapport.fallback.reason";

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is counted in, in the notation of UCUM.
    pub unit: &'static str,
    /// What it tells.
    pub about: &'static str,
}

const fn metric(name: &'static str, unit: &'static str, about: &'static str) -> Metric {
    Metric { name, unit, about }
}

/// A histogram by [`RPC_METHOD`], [`RPC_STATUS_CODE`], [`ERROR_TYPE`] and [`ERROR_REASON`].
pub const CALL_DURATION: Metric = metric("rpc.server.call.duration", "s", "How long calls took, streams to their end");
/// A histogram by [`DB_OPERATION_NAME`] and [`ERROR_TYPE`].
pub const OPERATION_DURATION: Metric = metric(
    "db.client.operation.duration",
    "s",
    "How long pieces of work on the database took, once they had a connection",
);
/// The connections, by [`CONNECTION_STATE`].
pub const CONNECTION_COUNT: Metric =
    metric("db.client.connection.count", "{connection}", "Connections to the database by state");
/// The most connections there may be.
pub const CONNECTION_MAX: Metric =
    metric("db.client.connection.max", "{connection}", "The most connections to the database");
/// How much work waits for a connection.
pub const CONNECTION_PENDING: Metric =
    metric("db.client.connection.pending_requests", "{request}", "Pieces of work that wait for a connection");
/// A counter.
pub const CONNECTION_TIMEOUTS: Metric =
    metric("db.client.connection.timeouts", "{timeout}", "Pieces of work that waited in vain for a connection");
/// A histogram.
pub const CONNECTION_WAIT: Metric =
    metric("db.client.connection.wait_time", "s", "How long pieces of work waited for a connection");
/// A histogram.
pub const BATCH_SIZES: Metric = metric("rapport.writer.batch.size", "{entry}", "Entries recorded in one transaction");
/// A counter.
pub const BATCH_RETRIES: Metric = metric("rapport.writer.retries", "{attempt}", "Batches that were tried again");
/// How many entries wait.
pub const QUEUE_LENGTH: Metric =
    metric("rapport.writer.queue.length", "{entry}", "Entries that wait for their batch to begin");
/// A histogram.
pub const QUEUE_AGE: Metric =
    metric("rapport.writer.queue.age", "s", "How long the entry of a batch had waited that waited longest");
/// How old the oldest entry is that waits; 0 when none does.
pub const QUEUE_OLDEST: Metric =
    metric("rapport.writer.queue.oldest", "s", "How long the entry has waited by now that waits longest");
/// How many acts are recorded and not folded yet.
pub const FOLD_BACKLOG: Metric = metric(
    "rapport.fold.backlog",
    "{act}",
    "Acts toward one recipient that this server recorded and that are not folded yet",
);
/// A counter by [`ENTRY_OUTCOME`].
pub const ENTRIES: Metric = metric("rapport.ledger.entries", "{entry}", "What became of entries for the ledger");
/// A counter by [`LOOKUP_RESULT`].
pub const ANSWER_LOOKUPS: Metric =
    metric("rapport.answers.lookups", "{lookup}", "Rankings looked for among the answers that are kept");
/// A counter by [`VIEW_SOURCE`].
pub const VIEWS: Metric =
    metric("rapport.views", "{view}", "Rankings made, by where the connections came from that they were made of");
/// Always 1, by [`POLICY_VERSION`]: of servers that differ in it, scores differ.
pub const POLICY: Metric =
    metric("rapport.policy.built_in", "", "The scoring policy of tenants that have published none, by its version");
/// A counter by [`DATABASE_ROLE`].
pub const READS: Metric =
    metric("rapport.reads", "{read}", "Rankings and connections by the database that they were read from");
/// A counter by [`FALLBACK_REASON`].
pub const FALLBACKS: Metric =
    metric("rapport.replica.fallbacks", "{read}", "Reads that the primary answered although the replica might have");
/// 1 when it can be read from, else 0. Not there without a replica.
pub const REPLICA_READY: Metric = metric("rapport.replica.ready", "", "Whether the replica can be read from");
/// How many tasks there are. It follows the calls; when it only grows, something never ends.
pub const TASKS: Metric = metric("rapport.runtime.tasks", "{task}", "Tasks that have begun and not ended");
/// 1 when ready, else 0.
pub const READY: Metric = metric("rapport.ready", "", "Whether calls can be served");
/// Seconds since 1970.
pub const PROCESS_START: Metric = metric("process.start_time", "s", "When the server started, in seconds since 1970");
/// Seconds since 1970.
pub const CERTIFICATE_END: Metric =
    metric("rapport.tls.certificate.end_time", "s", "When the TLS certificate ends, in seconds since 1970");

/// A piece of work on the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks whether the database is there and fits.
    Probe,
    /// Records a batch.
    Record,
    /// Folds what was recorded.
    Fold,
    /// Asks what would become of an entry.
    Check,
    /// Looks at what changed.
    Look,
    /// Reads an owner's connections.
    View,
    /// Reads again what changed of them.
    Refresh,
    /// Reads what explains connections.
    Explain,
    /// Finds the peers that filters admit.
    Filter,
    /// Reads a tenant's whole history.
    History,
    /// Reads policies, publishes them or puts them to use.
    Policy,
}

impl Operation {
    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Record => "record",
            Self::Fold => "fold",
            Self::Check => "check",
            Self::Look => "look",
            Self::View => "view",
            Self::Refresh => "refresh",
            Self::Explain => "explain",
            Self::Filter => "filter",
            Self::History => "history",
            Self::Policy => "policy",
        }
    }
}

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatabaseRole {
    /// The one that is written to.
    Primary,
    /// The one that may answer reads.
    Replica,
}

impl DatabaseRole {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Primary, Self::Replica];

    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }

    /// What the pool of connections to it is called.
    pub const fn pool(self) -> &'static str {
        match self {
            Self::Primary => "rapport",
            Self::Replica => "rapport-replica",
        }
    }
}

/// Where the connections came from that a ranking was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewSource {
    /// They were kept, and nothing had changed.
    Kept,
    /// They were kept, and what had changed was read.
    Refreshed,
    /// All were read.
    Read,
}

impl ViewSource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kept, Self::Refreshed, Self::Read];

    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Refreshed => "refreshed",
            Self::Read => "read",
        }
    }
}

/// Why the primary answered, and not the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It does not have yet what the caller has to see.
    Behind,
    /// It is known not to be usable.
    NotReady,
    /// It failed, or took too long.
    Failed,
}

impl Fallback {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Behind, Self::NotReady, Self::Failed];

    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::NotReady => "not_ready",
            Self::Failed => "failed",
        }
    }
}

/// What became of an entry for the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryOutcome {
    /// It is in the ledger now.
    Recorded,
    /// It had been before.
    Replayed,
    /// Its id stands for other content.
    Conflict,
    /// It was not recorded.
    Failed,
    /// It waited too long, or until nobody wanted it any more; it was not tried.
    Dropped,
}

impl EntryOutcome {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Recorded, Self::Replayed, Self::Conflict, Self::Failed, Self::Dropped];

    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Replayed => "replayed",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}
