//! Commands that call the wrong address, or one over TLS, and are told how to call it; and commands that show a client certificate.

use std::{net::SocketAddr, path::Path};

use rapport::{app::App, service::Clock};
use rcgen::SanType;
use serde_json::json;
use tempfile::TempDir;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming};

use crate::{
    authority::{Authority, tls_files, write_tls},
    harness::{address, config, database, ready},
    process::free_address,
    program::{Ran, folder, program, run},
};

/// A server that speaks TLS and knows its administrator by certificate.
async fn guarded(folder: &Path, authority: &Authority) -> App {
    write_tls(folder, &authority.server());
    std::fs::write(folder.join("clients.crt"), authority.0.pem()).unwrap();
    let grants = json!([{"tenants": ["*"], "rights": ["admin"]}]);
    let administrator =
        json!({"name": "administrator", "certificates": ["spiffe://example.org/administrator"], "grants": grants});
    let file = folder.join("access.json");
    std::fs::write(&file, json!({"principals": [administrator]}).to_string()).unwrap();
    let mut config = config(database(true).await);
    (config.access_file, config.tls) = (Some(file), Some(tls_files(folder, true)));
    config.health_listen = Some(([127, 0, 0, 1], 0).into());
    let app = App::start(config, Clock::system()).await.unwrap();
    ready(app.health_address().unwrap()).await;
    app
}

/// The files `NAME.crt` and `NAME.key` of a caller.
fn write_identity(folder: &Path, name: &str, authority: &Authority) {
    let uri = format!("spiffe://example.org/{name}");
    let (certificate, key) = authority.issue(SanType::URI(uri.as_str().try_into().unwrap()));
    std::fs::write(folder.join(format!("{name}.crt")), certificate).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key).unwrap();
}

/// Runs a command in a folder, as a caller of a server over TLS.
fn call(folder: &Path, server: SocketAddr, arguments: &[&str]) -> Ran {
    let mut command = program(arguments);
    command.env("RAPPORT_SERVER", format!("https://localhost:{}", server.port()));
    command.env("RAPPORT_SERVER_AUTHORITIES", "clients.crt").current_dir(folder).output().unwrap().into()
}

const AS_ADMINISTRATOR: [&str; 4] = ["--client-certificate", "administrator.crt", "--client-key", "administrator.key"];

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_speaks_tls_and_one_that_does_not_are_told_apart() {
    let (place, authority) = (folder(), Authority::new());
    let app = guarded(place.path(), &authority).await;
    std::fs::write(place.path().join("a.tsv"), "actor\trecipients\ttime\tkind\na\tb\t1\tHELP\n").unwrap();
    let file = place.path().join("a.tsv");
    let (tls, plain) = (app.address(), address());
    let commands: [&[&str]; 3] = [&["rank", "ada"], &["policy", "list"], &["import", file.to_str().unwrap()]];
    for arguments in commands {
        let told = |server: &str| run(&[arguments, &["--server", server]].concat()).expect(1).err;
        assert_eq!(
            told(&format!("http://{tls}")),
            format!("rapport: the server at http://{tls} speaks TLS; --server https://{tls} reaches it\n")
        );
        assert_eq!(
            told(&format!("https://{plain}")),
            format!("rapport: the server at https://{plain} speaks no TLS; --server http://{plain} reaches it\n")
        );
    }
    let nobody = free_address();
    for scheme in ["http", "https"] {
        let told = run(&["rank", "ada", "--server", &format!("{scheme}://{nobody}")]).expect(1).err;
        let expected = format!("no Rapport server answers at {scheme}://{nobody}; `rapport serve` starts one");
        assert_eq!(told, format!("rapport: {expected}\n"));
    }
    let elsewhere = run(&["rank", "ada", "--server", "http://rapport.invalid:1"]).expect(1).err;
    let begin = "rapport: no Rapport server answers at http://rapport.invalid:1: ";
    assert!(elsewhere.starts_with(begin) && elsewhere.ends_with("; --server names another address\n"), "{elsewhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_known_by_a_certificate_that_commands_show() {
    let (place, authority) = (folder(), Authority::new());
    let app = guarded(place.path(), &authority).await;
    write_identity(place.path(), "administrator", &authority);
    write_identity(place.path(), "somebody", &authority);
    let call = |arguments: &[&str]| call(place.path(), app.address(), arguments);
    let list = ["policy", "list", "--tenant", "any"];
    let listed = call(&[&list[..], &AS_ADMINISTRATOR].concat()).expect(0).out;
    assert!(listed.contains("built in"), "{listed}");
    let mut by_environment = program(&list);
    let variables = [("RAPPORT_CLIENT_CERTIFICATE", "administrator.crt"), ("RAPPORT_CLIENT_KEY", "administrator.key")];
    by_environment.envs(variables).env("RAPPORT_SERVER_AUTHORITIES", "clients.crt").current_dir(place.path());
    by_environment.env("RAPPORT_SERVER", format!("https://localhost:{}", app.address().port()));
    assert_eq!(Ran::from(by_environment.output().unwrap()).expect(0).out, listed);

    let refused = "rapport: the server refused: the call carries no valid credentials; ";
    let told = call(&list).expect(1).err;
    assert_eq!(told, format!("{refused}--key-file shows a key or token, --client-certificate a certificate\n"));
    let somebody = ["--client-certificate", "somebody.crt", "--client-key", "somebody.key"];
    let told = call(&[&list[..], &somebody].concat()).expect(1).err;
    assert_eq!(told, format!("{refused}the certificate in --client-certificate is nobody's there\n"));
    let denied = "rapport: the server refused: the caller may not do this in this tenant; ";
    let told = call(&[&["rank", "ada", "--tenant", "any"], &AS_ADMINISTRATOR[..]].concat()).expect(1).err;
    assert_eq!(told, format!("{denied}the grants in the server's access file say who may\n"));
    let told = call(&[&["rank", "ada"], &AS_ADMINISTRATOR[..]].concat()).expect(1).err;
    assert_eq!(told, format!("{denied}--tenant names the one that is meant\n"));
}

#[test]
fn files_to_show_are_looked_at_before_any_call() {
    let (place, authority) = (folder(), Authority::new());
    write_identity(place.path(), "administrator", &authority);
    std::fs::write(place.path().join("empty"), "\n").unwrap();
    let told = |arguments: &[&str]| {
        let mut command = program(&[&["rank", "ada"], arguments].concat());
        Ran::from(command.current_dir(place.path()).output().unwrap()).expect(1).err
    };
    let with = |certificate: &str, key: &str| {
        told(&["--server", "https://127.0.0.1:1", "--client-certificate", certificate, "--client-key", key])
    };
    let (certificate, key) = ("administrator.crt", "administrator.key");
    assert_eq!(with(key, key), "rapport: --client-certificate: administrator.key holds no certificate in PEM\n");
    assert_eq!(
        with(certificate, certificate),
        "rapport: --client-key: administrator.crt holds no private key in PEM\n"
    );
    assert!(with("none", key).starts_with("rapport: --client-certificate: none: No such file"));
    write_identity(place.path(), "somebody", &authority);
    let other = with(certificate, "somebody.key");
    assert!(
        other.starts_with("rapport: TLS cannot be spoken with these authorities, certificate and key: keys"),
        "{other}"
    );
    let alone = told(&["--client-key", key]);
    assert!(alone.contains("--client-key (RAPPORT_CLIENT_KEY) must be given both or not at all"), "{alone}");
    let plain = told(&AS_ADMINISTRATOR);
    assert!(plain.contains("is shown over TLS only: --server must begin with https://"), "{plain}");
    assert_eq!(told(&["--key-file", "empty"]), "rapport: --key-file: empty is empty\n");
    let authorities = told(&["--server", "https://127.0.0.1:1", "--server-authorities", "empty"]);
    assert_eq!(authorities, "rapport: --server-authorities: empty holds no certificate in PEM\n");
}

/// A server that lets nobody in without a certificate of its authority, and knows no method.
fn strict(authority: &Authority) -> SocketAddr {
    let (certificate, key) = authority.server();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(authority.0.pem()));
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = incoming.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder().tls_config(tls).unwrap().add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_for_a_certificate_is_told_from_one_that_is_not_there() {
    let (authority, strangers) = (Authority::new(), Authority::new());
    let place: TempDir = folder();
    std::fs::write(place.path().join("clients.crt"), authority.0.pem()).unwrap();
    write_identity(place.path(), "administrator", &authority);
    write_identity(place.path(), "stranger", &strangers);
    let server = strict(&authority);
    let url = format!("https://localhost:{}", server.port());
    let told = |arguments: &[&str]| call(place.path(), server, &[&["rank", "ada"], arguments].concat()).expect(1).err;
    let expected = "asks for a client certificate, which --client-certificate and --client-key show";
    assert_eq!(told(&[]), format!("rapport: the server at {url} {expected}\n"));
    let stranger = ["--client-certificate", "stranger.crt", "--client-key", "stranger.key"];
    let expected = "asks for a client certificate, and does not let in whoever shows the one in --client-certificate";
    assert_eq!(told(&stranger), format!("rapport: the server at {url} {expected}\n"));
    let known = told(&AS_ADMINISTRATOR);
    assert!(known.starts_with(&format!("rapport: what answers at {url} is no Rapport server")), "{known}");
}
