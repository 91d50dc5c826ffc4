//! What no generated client does: bytes of one's own choice, and a look at everything an error says.

use prost::bytes::{Buf as _, BufMut as _};
use std::net::SocketAddr;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_types::StatusExt as _;

use crate::harness::{channel, error_metadata, reason, violations};

/// Messages as the bytes they are.
#[derive(Clone, Copy, Default)]
pub struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

/// A method of the service.
pub fn method(name: &str) -> String {
    format!("/rapport.v1.RelationshipService/{name}")
}

/// Calls any path with any bytes.
pub async fn call(address: SocketAddr, path: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel(address));
    grpc.ready().await.unwrap();
    grpc.unary(Request::new(bytes), path.parse().unwrap(), Bytes).await.map(tonic::Response::into_inner)
}

/// Sends any messages to a method of streams; how many answers there were, and the error that ended them.
pub async fn stream(address: SocketAddr, path: &str, messages: Vec<Vec<u8>>) -> (Vec<Vec<u8>>, Option<Status>) {
    let mut grpc = Grpc::new(channel(address));
    grpc.ready().await.unwrap();
    let messages = Request::new(tokio_stream::iter(messages));
    let mut stream = match grpc.streaming(messages, path.parse().unwrap(), Bytes).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return (Vec::new(), Some(status)),
    };
    let mut answers = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(answer)) => answers.push(answer),
            Ok(None) => return (answers, None),
            Err(status) => return (answers, Some(status)),
        }
    }
}

/// Words of what lies behind the contract, and of how that is built.
const INTERNAL_WORDS: [&str; 34] = [
    "sqlx",
    "postgres",
    "relation ",
    "pool",
    "select",
    "insert",
    "update ",
    "delete",
    "statement",
    "sqlstate",
    "column",
    "table",
    "ledger",
    "row",
    "tie ",
    "rhythm",
    "constraint",
    "transaction",
    "socket",
    "os error",
    "refused",
    "src/",
    ".rs",
    "/tmp",
    "/home",
    "/root",
    "localhost",
    "127.0.0.1",
    "tokio",
    "tonic",
    "prost",
    "hyper",
    "panic",
    "h2 ",
];

/// The keys in the metadata of errors, by reason and code: an error has one of those of its reason, or none for other reasons.
pub const KEYS: [(&str, Code, &[&str]); 5] = [
    ("HISTORY_TOO_LARGE", Code::ResourceExhausted, &["limit"]),
    ("TOO_MANY_POLICIES", Code::ResourceExhausted, &["limit"]),
    (
        "TENANT_LIMITED",
        Code::ResourceExhausted,
        &["limit_calls", "limit_streams", "limit_answer_bytes", "limit_calls_per_second"],
    ),
    ("CALL_NOT_UNDERSTOOD", Code::ResourceExhausted, &["limit_bytes"]),
    ("PERMISSION_DENIED", Code::PermissionDenied, &["right"]),
];

fn assert_metadata(status: &Status, reason: &str) {
    let keys = KEYS.iter().find(|(of, code, _)| *of == reason && *code == status.code()).map(|(_, _, keys)| *keys);
    match &error_metadata(status)[..] {
        [] => assert_eq!(keys, None, "{status:?}"),
        [(key, value)] => {
            assert!(keys.is_some_and(|keys| keys.contains(&key.as_str())), "{status:?}");
            assert!(key == "right" || value.parse::<u64>().is_ok_and(|limit| limit > 0), "{status:?}");
        }
        _ => panic!("{status:?}"),
    }
}

/// Asserts that an error is one of the catalogue: its code, reason and metadata, a retry delay exactly where coming back can
/// help, violations exactly where fields are faulty, and nothing that callers must not see: no internals, and none of `given`.
pub fn assert_refused(status: &Status, code: Code, expected: &str, given: &[&str]) {
    assert_eq!((status.code(), reason(status).as_str()), (code, expected), "{status:?}");
    let details = status.get_error_details();
    let helps = ["OVERLOADED", "TENANT_LIMITED", "DATABASE_UNAVAILABLE", "SHUTTING_DOWN"].contains(&expected);
    let delay = details.retry_info().and_then(|info| info.retry_delay);
    assert_eq!(delay.is_some_and(|delay| !delay.is_zero()), helps, "{status:?}");
    // The same for the retries built into gRPC clients.
    let pushback = status.metadata().get("grpc-retry-pushback-ms").map(|millis| millis.to_str().unwrap());
    assert_eq!(pushback, delay.map(|delay| delay.as_millis().to_string()).as_deref(), "{status:?}");
    assert_eq!(details.bad_request().is_some(), expected == "FIELDS_INVALID", "{status:?}");
    assert_metadata(status, expected);
    assert!(!status.message().is_empty());
    let said = format!("{}\n{}", status.message(), String::from_utf8_lossy(status.details()));
    let lower = said.to_lowercase();
    for word in INTERNAL_WORDS {
        assert!(!lower.contains(word), "{word:?} in {said:?}");
    }
    for word in given {
        assert!(!said.contains(word), "{word:?} in {said:?}");
    }
}

/// Asserts that a request is refused for exactly these fields, each named once.
pub fn assert_faulty(status: &Status, fields: &[&str], given: &[&str]) {
    assert_refused(status, Code::InvalidArgument, "FIELDS_INVALID", given);
    let named = status.get_error_details().bad_request().map_or(0, |bad| bad.field_violations.len());
    let violations = violations(status);
    assert_eq!(named, violations.len(), "a field is named twice: {status:?}");
    assert!(violations.values().all(|description| !description.is_empty()));
    let mut found: Vec<&str> = violations.keys().map(String::as_str).collect();
    let mut expected = fields.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{status:?}");
}
