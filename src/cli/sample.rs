//! The sample: five months of a real community, with attribution in `sample/ATTRIBUTION.md`.

use super::{
    Failure,
    client::ServerArguments,
    import::{Input, Totals, record_all},
    print,
};

/// Interactions, one JSON object a line.
const INTERACTIONS: &[u8] = include_bytes!("sample/interactions.jsonl.gz");
/// The tenant that the sample is loaded into, apart from everything else.
const TENANT: &str = "sample";
/// When the sample ends.
const END: &str = "2018-09-02T00:00:00Z";
/// Somebody with connections of every sort.
const PERSON: &str = "user-1837";

/// Loads the sample into a running server and prints what to ask it. Loading it again changes nothing.
pub(super) async fn load(address: std::net::SocketAddr) -> Result<(), Failure> {
    let server = ServerArguments::new(format!("http://{address}"), TENANT).server()?;
    let totals: Totals = record_all(&server, Input::sample(INTERACTIONS)?).await?;
    print::line(format_args!(
        "\nThe sample is loaded: {} interactions recorded, {} had been before. Ask whom {PERSON} can count on:\n",
        totals.recorded, totals.replayed
    ));
    print::line(format_args!(
        "  grpcurl -plaintext -rpc-header 'rapport-tenant: {TENANT}' -d '{{\"person\": \"{PERSON}\", \
         \"as_of_time\": \"{END}\", \"page_size\": 3}}' \\\n    {address} \
         rapport.v1.RelationshipService/RankConnections\n"
    ));
    print::line(format_args!(
        "or without grpcurl:\n\n  rapport rank {PERSON} --server http://{address} --tenant {TENANT} --as-of {END}\n"
    ));
    Ok(())
}
