//! Tokens of an issuer: which count, and where the issuer's keys come from.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tonic::Code;

use crate::{
    guarded::{Guarded, client, rank},
    harness::{channel, eventually, unix_now},
};

/// An issuer of tokens with one key, which goes by `id`.
pub struct Issuer {
    key: EcdsaKeyPair,
    id: &'static str,
}

impl Issuer {
    pub fn new(id: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let private = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { key: EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random).unwrap(), id }
    }

    pub fn keys(&self) -> Value {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": self.id, "x": encoded(x), "y": encoded(y)}]})
    }

    pub fn token(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({"alg": "ES256", "kid": self.id});
        let mut claims = json!({
            "iss": "https://issuer.example", "aud": "rapport", "sub": "crm-service", "exp": unix_now() + 300
        });
        change(&mut header, &mut claims);
        let signed = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", encoded(signature))
    }
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn token_rules(source: &str, place: &str) -> Value {
    json!({
        "principals": [{"name": "crm", "subjects": ["crm-service"],
            "grants": [{"tenants": ["crm"], "rights": ["rank", "record"]}]}],
        "tokens": {"issuer": "https://issuer.example", "audience": "rapport", "algorithms": ["ES256"], source: place},
    })
}

#[tokio::test]
async fn a_token_counts_when_everything_about_it_is_right() {
    let (issuer, forger) = (Issuer::new("1"), Issuer::new("1"));
    let keys = issuer.keys().to_string();
    let server = Guarded::start(&token_rules("keys_file", "keys.json"), move |folder, _| {
        std::fs::write(folder.join("keys.json"), keys).unwrap();
    })
    .await;
    let try_token = async |token: String| rank(&mut client(channel(server.address()), token, None)).await;
    let good = issuer.token(|_, _| {});
    try_token(good.clone()).await.unwrap();
    try_token(good.clone()).await.expect("a second time, too");
    let (head, rest) = good.split_once('.').unwrap();
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", rest.split_once('.').unwrap().0);
    for (why, bad) in [
        ("forged", forger.token(|_, _| {})),
        ("expired", issuer.token(|_, claims| claims["exp"] = (unix_now() - 60).into())),
        ("early", issuer.token(|_, claims| claims["nbf"] = (unix_now() + 120).into())),
        ("other issuer", issuer.token(|_, claims| claims["iss"] = "https://other.example".into())),
        ("other audience", issuer.token(|_, claims| claims["aud"] = "other".into())),
        ("nobody", issuer.token(|_, claims| claims["sub"] = "nobody".into())),
        ("no end", issuer.token(|_, claims| drop(claims.as_object_mut().unwrap().remove("exp")))),
        ("unknown key", issuer.token(|header, _| header["kid"] = "2".into())),
        ("an extension", issuer.token(|header, _| header["crit"] = json!(["b64"]))),
        ("an extension that is known to few", issuer.token(|header, _| header["crit"] = json!(["urn:example"]))),
        ("no extensions", issuer.token(|header, _| header["crit"] = json!([]))),
        ("no list of extensions", issuer.token(|header, _| header["crit"] = Value::Null)),
        ("unsigned", unsigned),
        ("cut", head.to_owned()),
        ("long", "a.".repeat(5000)),
    ] {
        assert_eq!(try_token(bad).await.unwrap_err().code(), Code::Unauthenticated, "{why}");
    }
}

#[tokio::test]
async fn the_issuers_keys_are_fetched() {
    let issuer = Issuer::new("1");
    let keys = issuer.keys().to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}", keys.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let server = Guarded::start(&token_rules("keys_url", &url), |_, _| {}).await;
    let mut client = client(channel(server.address()), issuer.token(|_, _| {}), None);
    eventually("the token is taken", async || rank(&mut client).await.is_ok()).await;
}
