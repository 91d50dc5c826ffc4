//! The sample: five months of a real community, with attribution in `sample/ATTRIBUTION.md`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{ClientConfig, Flags, process_environment};

use super::{
    Failure, called,
    client::ServerArguments,
    import::{Input, Totals, record_all},
    print,
};

/// Interactions, one JSON object a line.
const INTERACTIONS: &[u8] = include_bytes!("sample/interactions.jsonl.gz");
/// The tenant that the sample is loaded into, apart from everything else.
const TENANT: &str = "sample";
/// The day after the sample's last interaction.
const END: &str = "2018-09-02";
/// Somebody with connections of every sort.
const PERSON: &str = "user-1837";

/// Loads the sample into a running server and prints what to ask it. Loading it again changes nothing.
pub(super) async fn load(address: SocketAddr) -> Result<(), Failure> {
    let url = format!("http://{}", reachable(address));
    let server = ServerArguments::new(url.clone(), TENANT).server()?;
    let totals: Totals = record_all(&server, Input::sample(INTERACTIONS)?).await?;
    print::line(format_args!(
        "\nThe sample is loaded: {} interactions recorded, {} had been before. Ask whom {PERSON} can count on:\n",
        totals.recorded, totals.replayed
    ));
    let usual = ClientConfig::read(Flags::default(), &process_environment)?;
    print::line(format_args!("  {}\n\nor with grpcurl:\n", command(&called::name(), &url, &usual)));
    print::line(format_args!(
        "  grpcurl -plaintext -rpc-header 'rapport-tenant: {TENANT}' -d '{{\"person\": \"{PERSON}\", \
         \"as_of_time\": \"{END}T00:00:00Z\", \"page_size\": 3}}' \\\n    {} \
         rapport.v1.RelationshipService/RankConnections\n",
        reachable(address)
    ));
    Ok(())
}

/// What to type to ask about the sample, with no more flags than it takes.
fn command(name: &str, url: &str, usual: &ClientConfig) -> String {
    let server = if usual.server == url { String::new() } else { format!(" --server {url}") };
    let tenant = if usual.tenant.as_deref() == Some(TENANT) { String::new() } else { format!(" --tenant {TENANT}") };
    format!("{name} rank {PERSON}{server}{tenant} --as-of {END}")
}

/// An address by which a server on this machine is reached that listens there.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_what_differs_from_what_is_usual() {
        let usual = |variables: &[(&str, &str)]| {
            let environment =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            ClientConfig::read(Flags::default(), &environment).unwrap()
        };
        let (here, elsewhere) = ("http://127.0.0.1:50051", "http://127.0.0.1:50052");
        let expected = "rapport rank user-1837 --tenant sample --as-of 2018-09-02";
        assert_eq!(command("rapport", here, &usual(&[])), expected);
        let expected =
            "target/debug/rapport rank user-1837 --server http://127.0.0.1:50052 --tenant sample --as-of 2018-09-02";
        assert_eq!(command("target/debug/rapport", elsewhere, &usual(&[])), expected);
        let set = usual(&[("RAPPORT_SERVER", elsewhere), ("RAPPORT_TENANT", "sample")]);
        assert_eq!(command("rapport", elsewhere, &set), "rapport rank user-1837 --as-of 2018-09-02");
        assert!(command("rapport", here, &set).contains(" --server http://127.0.0.1:50051 "));
    }

    #[test]
    fn a_server_that_listens_everywhere_is_reached_here() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(reached("[::]:1"), "[::1]:1");
        assert_eq!(reached("10.0.0.1:1"), "10.0.0.1:1");
    }
}
