//! What operators see of a server: spans and metrics at their collector, metrics for Prometheus, traces in log lines.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use rapport::{app::App, domain::Kind, rpc::pb, service::Clock, telemetry::names};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tonic::Request;

use crate::{
    collector::{Collector, number, text},
    harness::{Client, act, client_of, config, database, day, eventually, rank, ready, record, start, try_record},
    program::{Running, folder, program},
};

const RECORD: &str = "rapport.v1.RelationshipService/RecordInteraction";
const RANK: &str = "rapport.v1.RelationshipService/RankConnections";

/// A server's command, on a database, that exports often.
fn exporting(url: &str, collector: SocketAddr) -> Command {
    let mut command = program(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("DATABASE_URL", url).env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50").env("OTEL_METRIC_EXPORT_INTERVAL", "100");
    command
}

/// A span of a caller, by which the caller's trace is found again.
struct Above {
    trace: u128,
    span: u64,
    is_sampled: bool,
}

impl Above {
    fn new(number: u64) -> Self {
        Self { trace: u128::from(number) << 64 | 0xabc, span: number, is_sampled: true }
    }

    fn name<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let Self { trace, span, is_sampled } = self;
        let parent = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(*is_sampled));
        request.metadata_mut().insert("traceparent", parent.parse().unwrap());
        request
    }

    fn is_above(&self, span: &Span) -> bool {
        span.trace_id == self.trace.to_be_bytes() && span.parent_span_id == self.span.to_be_bytes()
    }
}

async fn record_below(client: &mut Client, above: &Above, interaction: pb::Interaction) -> Result<(), tonic::Status> {
    let request = pb::RecordInteractionRequest { interaction: Some(interaction), validate_only: false };
    client.record_interaction(above.name(request)).await.map(drop)
}

/// The one span that there comes to be of a kind.
async fn span(collector: &Collector, what: &str, is_wanted: impl Fn(&Span) -> bool) -> Span {
    eventually(what, async || collector.spans().iter().any(&is_wanted)).await;
    let mut found: Vec<_> = collector.spans().into_iter().filter(is_wanted).collect();
    assert_eq!(found.len(), 1, "{what}: {found:?}");
    found.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_stand_below_their_callers_and_batches_link_them() {
    let (collector, at) = Collector::start().await;
    let (server, address) = Running::serve(exporting(&database(true).await, at));
    ready(address).await;
    let mut client = client_of(address, "one");

    let (first, unsampled) = (Above::new(1), Above { is_sampled: false, ..Above::new(2) });
    record_below(&mut client, &unsampled, act(Kind::Help, "a", "b", day(0))).await.unwrap();
    record_below(&mut client, &first, act(Kind::Help, "a", "b", day(0))).await.unwrap();
    let call = span(&collector, "the call's span", |span| first.is_above(span)).await;
    assert_eq!((call.name.as_str(), call.kind), (RECORD, SpanKind::Server.into()));
    let said = |key| text(&call.attributes, key);
    assert_eq!(said(names::RPC_SYSTEM_NAME).as_deref(), Some("grpc"));
    assert_eq!(said(names::RPC_METHOD).as_deref(), Some(RECORD));
    assert_eq!(said(names::RPC_STATUS_CODE).as_deref(), Some("OK"));
    assert_eq!(said(names::ERROR_TYPE), None);
    let links_it = |span: &Span| span.links.iter().any(|link| link.span_id == call.span_id);
    let batch = span(&collector, "the batch's span", links_it).await;
    assert_eq!(batch.name, names::BATCH_SPAN);
    assert_eq!(batch.links[0].trace_id, call.trace_id);
    assert_eq!(
        [names::BATCH_SIZE, names::BATCH_ATTEMPTS].map(|key| number(&batch.attributes, key)),
        [Some(1), Some(1)]
    );

    let second = Above::new(3);
    let request = pb::RankConnectionsRequest { person: "b".to_owned(), ..pb::RankConnectionsRequest::default() };
    client.rank_connections(second.name(request)).await.unwrap();
    let call = span(&collector, "the ranking's span", |span| second.is_above(span)).await;
    assert_eq!(call.name, RANK);
    for name in [names::RANK_READ_SPAN, names::RANK_SCORE_SPAN] {
        let below = span(&collector, name, |span| span.name == name).await;
        assert_eq!((&below.trace_id, &below.parent_span_id), (&call.trace_id, &call.span_id));
    }

    let faulty = Above::new(4);
    record_below(&mut client, &faulty, act(Kind::Help, "a", "a", day(0))).await.unwrap_err();
    let call = span(&collector, "the refused call's span", |span| faulty.is_above(span)).await;
    assert_eq!(text(&call.attributes, names::RPC_STATUS_CODE).as_deref(), Some("INVALID_ARGUMENT"));
    assert_eq!(text(&call.attributes, names::ERROR_TYPE), None);

    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    // What the caller does not trace is not traced here, nor is what is done for it.
    let spans = collector.spans();
    assert!(!spans.iter().any(|span| span.trace_id == unsampled.trace.to_be_bytes()));
    assert_eq!(spans.iter().filter(|span| span.name == names::BATCH_SPAN).count(), 1);
    for resource in collector.resources() {
        assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("rapport"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_one_span_and_only_known_methods_are_named() {
    let (collector, at) = Collector::start().await;
    let mut command = exporting(&database(true).await, at);
    command.env("OTEL_SERVICE_NAME", "ours").env("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=people");
    let (server, address) = Running::serve(command);
    ready(address).await;
    let mut client = client_of(address, "one");
    let item =
        |sequence| pb::RecordInteractionsRequest { sequence, interaction: Some(act(Kind::Help, "a", "b", day(0))) };
    let items = tokio_stream::iter((1..=300).map(item).collect::<Vec<_>>());
    let streamed = Above::new(5);
    let mut answers = client.record_interactions(streamed.name(items)).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let call = span(&collector, "the stream's span", |span| streamed.is_above(span)).await;
    assert_eq!(text(&call.attributes, names::RPC_STATUS_CODE).as_deref(), Some("OK"));
    let batches = || collector.spans().into_iter().filter(|span| span.name == names::BATCH_SPAN).collect::<Vec<_>>();
    let entries = || batches().iter().filter_map(|span| number(&span.attributes, names::BATCH_SIZE)).sum::<i64>();
    eventually("every item is in a batch", async || entries() == 300).await;
    // However many items of a batch are of one stream, its span is linked once.
    assert!(batches().iter().all(|span| span.links.len() == 1 && span.links[0].span_id == call.span_id));

    let unknown = Above::new(6);
    let channel = crate::harness::channel(address);
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::GetPolicyRequest, pb::GetPolicyResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/rapport.v1.RelationshipService/SomethingElse");
    grpc.unary(unknown.name(pb::GetPolicyRequest::default()), path, codec).await.unwrap_err();
    let call = span(&collector, "the unknown method's span", |span| unknown.is_above(span)).await;
    assert_eq!((call.name.as_str(), text(&call.attributes, names::RPC_METHOD).as_deref()), ("grpc", Some("_OTHER")));
    assert_eq!(text(&call.attributes, names::ERROR_TYPE).as_deref(), Some("UNIMPLEMENTED"));
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    for resource in collector.resources() {
        let said = ["service.name", "service.namespace"].map(|key| text(&resource.attributes, key));
        assert_eq!(said, [Some("ours".to_owned()), Some("people".to_owned())]);
    }
}

/// The metrics that a server has after it has recorded and ranked something.
const METRICS: [names::Metric; 22] = [
    names::CALL_DURATION,
    names::OPERATION_DURATION,
    names::CONNECTION_COUNT,
    names::CONNECTION_MAX,
    names::CONNECTION_PENDING,
    names::CONNECTION_WAIT,
    names::BATCH_SIZES,
    names::QUEUE_LENGTH,
    names::FOLD_BACKLOG,
    names::TASKS,
    names::QUEUE_AGE,
    names::QUEUE_OLDEST,
    names::ENTRIES,
    names::ANSWER_LOOKUPS,
    names::VIEWS,
    names::READS,
    names::FALLBACKS,
    names::READY,
    names::POLICY,
    names::PROCESS_START,
    names::BATCH_RETRIES,
    names::CONNECTION_TIMEOUTS,
];

#[tokio::test(flavor = "multi_thread")]
async fn the_collector_is_sent_every_metric() {
    let (collector, at) = Collector::start().await;
    let (server, address) = Running::serve(exporting(&database(true).await, at));
    ready(address).await;
    let mut client = client_of(address, "one");
    record(&mut client, act(Kind::Help, "a", "b", day(0))).await;
    for _ in 0..2 {
        let request = pb::RankConnectionsRequest { person: "b".to_owned(), ..pb::RankConnectionsRequest::default() };
        client.rank_connections(request).await.unwrap();
    }
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let expected: BTreeSet<_> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(collector.metric_names().into_iter().collect::<BTreeSet<_>>(), expected);
}

/// What a server answers to a request over plain HTTP.
async fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The metrics there, as Prometheus reads them.
pub async fn scrape(address: SocketAddr) -> String {
    http(address, "GET /metrics HTTP/1.1\r\nHost: rapport\r\n\r\n").await
}

/// What a metric says; 0 when it is not there.
pub async fn metric(at: SocketAddr, line: &str) -> u64 {
    let said = scrape(at).await;
    let mut lines = said.lines().filter_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    lines.next().map_or(0, |number| number.parse().unwrap())
}

/// Fails unless every metric that a dashboard or alert is made of is among those served.
fn assert_knows(served: &str, file: &str) {
    let words: BTreeSet<_> = file.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    let is_metric = |word: &&str| {
        ["_total", "_count", "_bucket", "_seconds", "_length", "_ready", "_max", "_requests"].iter().any(|end| {
            // What tells of certificates is served where there are any.
            word.ends_with(end)
                && !word.starts_with("rapport_tls_")
                && ["rpc_", "db_", "rapport_", "process_"].iter().any(|start| word.starts_with(start))
        })
    };
    let metrics: Vec<_> = words.into_iter().filter(is_metric).collect();
    assert!(metrics.len() > 5, "{metrics:?}");
    for metric in metrics {
        assert!(served.contains(&format!("\n{metric}")), "{metric} is not served: {served}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_the_metrics_and_nothing_else() {
    let mut settings = config(database(true).await);
    settings.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    let app = start(settings, Clock::system()).await;
    let (address, metrics) = (app.address(), app.metrics_address().unwrap());
    let mut client = client_of(address, "one");
    let first = act(Kind::Help, "a", "b", day(0));
    record(&mut client, first.clone()).await;
    record(&mut client, first.clone()).await;
    try_record(&mut client, pb::Interaction { unprompted: true, ..first }).await.unwrap_err();
    let about_now = pb::RankConnectionsRequest { person: "b".to_owned(), ..pb::RankConnectionsRequest::default() };
    for _ in 0..2 {
        client.rank_connections(about_now.clone()).await.unwrap();
    }
    let said = scrape(metrics).await;
    assert!(
        said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("content-type: text/plain; version=0.0.4"),
        "{said}"
    );
    let grpc = format!(r#"rpc_method="{RECORD}",rpc_response_status_code="#);
    let conflict = format!(r#"rapport_error_reason="INTERACTION_CONFLICT",{grpc}"#);
    for line in [
        format!(r#"rpc_server_call_duration_seconds_count{{{grpc}"OK",rpc_system_name="grpc"}} 2"#),
        format!(r#"rpc_server_call_duration_seconds_count{{{conflict}"ALREADY_EXISTS",rpc_system_name="grpc"}} 1"#),
        r#"rapport_ledger_entries_total{rapport_entry_outcome="recorded"} 1"#.to_owned(),
        r#"rapport_ledger_entries_total{rapport_entry_outcome="replayed"} 1"#.to_owned(),
        r#"rapport_ledger_entries_total{rapport_entry_outcome="conflict"} 1"#.to_owned(),
        r#"db_client_operation_duration_seconds_count{db_operation_name="record",db_system_name="postgresql"} 3"#
            .to_owned(),
        r#"rapport_answers_lookups_total{rapport_lookup_result="hit"} 1"#.to_owned(),
        r#"db_client_connection_max{db_client_connection_pool_name="rapport"} 8"#.to_owned(),
        "rapport_writer_batch_size_count 3".to_owned(),
        "rapport_writer_queue_length 0".to_owned(),
        "rapport_writer_queue_age_seconds_count 3".to_owned(),
        "rapport_ready 1".to_owned(),
    ] {
        assert!(said.lines().any(|found| found == line), "{line} is not in {said}");
    }
    assert!(said.contains("\nprocess_start_time_seconds ") && said.contains("\ntarget_info{"), "{said}");
    assert_knows(&said, include_str!("../../deploy/observability/dashboard.json"));
    assert_knows(&said, include_str!("../../deploy/observability/alerts.yaml"));
    assert!(http(metrics, "GET / HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 404"));
    assert!(http(metrics, "POST /metrics HTTP/1.0\r\n\r\n").await.starts_with("HTTP/1.0 405"));
    app.stopper().cancel();
    app.ended().await.unwrap();
    eventually("the port is free again", async || TcpStream::connect(metrics).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_counted_as_the_servers_fault() {
    let mut settings = config("postgresql://rapport@127.0.0.1:1/nowhere".to_owned());
    settings.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    let app = App::start(settings, Clock::system()).await.unwrap();
    let mut client = client_of(app.address(), "one");
    try_record(&mut client, act(Kind::Help, "a", "b", day(0))).await.unwrap_err();
    let said = scrape(app.metrics_address().unwrap()).await;
    let counted = format!(
        r#"rpc_server_call_duration_seconds_count{{error_type="UNAVAILABLE",rapport_error_reason="DATABASE_UNAVAILABLE",rpc_method="{RECORD}",rpc_response_status_code="UNAVAILABLE",rpc_system_name="grpc"}} 1"#
    );
    assert!(said.contains(&counted) && said.contains("\nrapport_ready 0"), "{said}");
    app.stopper().cancel();
    app.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_does_not_keep_prometheus_out() {
    let mut settings = config(database(true).await);
    settings.metrics_listen = Some(([127, 0, 0, 1], 0).into());
    let app = start(settings, Clock::system()).await;
    let metrics = app.metrics_address().unwrap();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(metrics).await.unwrap());
    }
    let scraped = tokio::time::timeout(Duration::from_secs(25), scrape(metrics)).await.unwrap();
    assert!(scraped.contains("rapport_ready 1"), "{scraped}");
    app.stopper().cancel();
    app.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_name_the_trace_and_slow_statements_show_no_values() {
    let url = database(true).await;
    let place = folder();
    let log = place.path().join("log");
    let mut command = program(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("DATABASE_URL", &url).env("RAPPORT_LOG_FORMAT", "json").env("RAPPORT_SLOW_STATEMENT_MS", "100");
    command.stderr(File::create(&log).unwrap());
    let (server, address) = Running::serve(command);
    ready(address).await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    let refuse = "ALTER TABLE ledger ADD CONSTRAINT refused CHECK (interaction_id <> 'letter-4c')";
    sqlx::raw_sql(refuse).execute(&mut other).await.unwrap();
    let mut locked = other.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE ledger").execute(&mut *locked).await.unwrap();
    let above = Above::new(7);
    let mut client = client_of(address, "one");
    let letter = pb::Interaction { interaction_id: "letter-4c".to_owned(), ..act(Kind::Help, "zora-1f", "b", day(0)) };
    let (recorded, ()) = tokio::join!(record_below(&mut client, &above, letter), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        locked.rollback().await.unwrap();
    });
    recorded.unwrap_err();
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let said = fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with = |text: &str| {
        let mut lines = lines.iter();
        lines.find(|line| line["fields"]["message"].as_str().is_some_and(|message| message.contains(text))).unwrap()
    };
    let failed = with("a call failed");
    assert_eq!(failed["trace_id"], format!("{:032x}", above.trace), "{said}");
    assert_eq!(failed["span_id"].as_str().map(str::len), Some(16));
    assert_eq!(failed["span"][names::RPC_METHOD], RECORD);
    let slow = with("slow statement");
    assert!(slow["fields"]["db.statement"].as_str().is_some_and(|text| text.contains("INSERT INTO ledger")), "{said}");
    assert!(slow["trace_id"].is_string() && !said.contains("zora-1f") && !said.contains("letter-4c"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_silent_holds_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, address) = Running::serve(exporting(&database(true).await, silent.local_addr().unwrap()));
    ready(address).await;
    let mut client = client_of(address, "one");
    record(&mut client, act(Kind::Help, "a", "b", day(0))).await;
    assert_eq!(rank(&mut client, "b", day(1)).await.len(), 1);
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}
