//! `rapport policy`: publish scoring policies, look at them, and go back to one that was in use before.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{rpc::pb, service::MAX_DOCUMENT_BYTES};

use super::{
    Failure, Finished,
    client::{Server, ServerArguments},
    print,
};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Publish a policy, and put it to use
    Publish(PublishArguments),
    /// List the versions, newest first; an asterisk marks the one in use
    List(ListArguments),
    /// Print a policy's document, as it can be changed and published
    Show(VersionArguments),
    /// Put a version to use that was published before
    Rollback(VersionArguments),
}

#[derive(Args, Debug)]
struct PublishArguments {
    /// The document, JSON that names its version; - reads standard input
    file: PathBuf,
    /// Publish it without putting it to use; `rapport policy rollback VERSION` does that later
    #[arg(long)]
    keep_aside: bool,
    /// Only check it; change nothing
    #[arg(long)]
    validate_only: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Args, Debug)]
struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Args, Debug)]
struct VersionArguments {
    /// The version [default: for show the one in use, for rollback the one in use before it]
    version: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

pub(super) async fn run(arguments: Arguments) -> Result<Finished, Failure> {
    match arguments.action {
        Action::Publish(arguments) => publish(arguments).await,
        Action::List(arguments) => list(arguments).await,
        Action::Show(arguments) => show(arguments).await,
        Action::Rollback(arguments) => roll_back(arguments).await,
    }
}

async fn publish(arguments: PublishArguments) -> Result<Finished, Failure> {
    let mut server = arguments.server.server()?;
    let request = pb::PublishPolicyRequest {
        policy: Some(pb::Policy { document: read(&arguments.file)?, ..pb::Policy::default() }),
        put_to_use: Some(!arguments.keep_aside),
        validate_only: arguments.validate_only,
    };
    let answer = send(&mut server, request).await?;
    if arguments.json {
        let policy = answer.policy.as_ref().map(policy);
        print::json(&json!({ "policy": policy, "replayed": answer.replayed }));
    } else {
        print::line(published(&answer, arguments.validate_only));
    }
    Ok(Finished::Well)
}

async fn send(server: &mut Server, request: pb::PublishPolicyRequest) -> Result<pb::PublishPolicyResponse, Failure> {
    let answer = server.policies.publish_policy(server.request(request)).await;
    Ok(answer.map_err(|status| server.failure(&status))?.into_inner())
}

/// The document in a file, or on standard input; no more of it than shows that it is too long.
fn read(file: &Path) -> Result<String, Failure> {
    let unreadable = |error: io::Error| format!("cannot read {}: {error}", file.display());
    let input: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(file).map_err(unreadable)?) };
    let most = u64::try_from(MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    input.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(format!("{} is longer than {MAX_DOCUMENT_BYTES} bytes", file.display()).into());
    }
    String::from_utf8(bytes).map_err(|_| format!("{} is not in UTF-8", file.display()).into())
}

fn published(answer: &pb::PublishPolicyResponse, validate_only: bool) -> String {
    let policy = answer.policy.clone().unwrap_or_default();
    let (would_be, is) = if validate_only { ("would be ", "would be") } else { ("", "is") };
    let published = if answer.replayed { "was published before".to_owned() } else { format!("{would_be}published") };
    let used = if policy.in_use { "in use" } else { "not in use" };
    format!("{} {published}, and {is} {used}.", policy.version)
}

async fn list(arguments: ListArguments) -> Result<Finished, Failure> {
    let mut server = arguments.server.server()?;
    let policies = all(&mut server).await?;
    if arguments.json {
        print::json(&json!({ "policies": policies.iter().map(policy).collect::<Vec<_>>() }));
        return Ok(Finished::Well);
    }
    let row = |policy: &pb::Policy| {
        let published = if policy.built_in { "built in".to_owned() } else { print::date(policy.publish_time) };
        vec![if policy.in_use { "*".to_owned() } else { String::new() }, published, policy.version.clone()]
    };
    print::table(&["", "published", "version"], 0..0, policies.iter().map(row).collect());
    Ok(Finished::Well)
}

/// All versions, page by page.
async fn all(server: &mut Server) -> Result<Vec<pb::Policy>, Failure> {
    let mut policies = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = server.request(pb::ListPoliciesRequest { page_size: 1000, page_token });
        let answer = server.policies.list_policies(request).await;
        let answer = answer.map_err(|status| server.failure(&status))?.into_inner();
        policies.extend(answer.policies);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(policies);
        }
    }
}

async fn show(arguments: VersionArguments) -> Result<Finished, Failure> {
    let mut server = arguments.server.server()?;
    let request = server.request(pb::GetPolicyRequest { version: arguments.version.unwrap_or_default() });
    let answer = server.policies.get_policy(request).await;
    let found = answer.map_err(|status| server.failure(&status))?.into_inner().policy.unwrap_or_default();
    if arguments.json {
        print::json(&json!({ "policy": policy(&found) }));
    } else {
        print::line(found.document.trim_end());
    }
    Ok(Finished::Well)
}

async fn roll_back(arguments: VersionArguments) -> Result<Finished, Failure> {
    let mut server = arguments.server.server()?;
    let request = server.request(pb::RollbackPolicyRequest { version: arguments.version.unwrap_or_default() });
    let answer = server.policies.rollback_policy(request).await;
    let used = answer.map_err(|status| server.failure(&status))?.into_inner().policy.unwrap_or_default();
    if arguments.json {
        print::json(&json!({ "policy": policy(&used) }));
    } else {
        print::line(format_args!("{} is in use.", used.version));
    }
    Ok(Finished::Well)
}

/// A policy as the proto's JSON mapping has it.
fn policy(policy: &pb::Policy) -> Value {
    json!({
        "version": policy.version,
        "document": policy.document,
        "publishTime": policy.publish_time.map(|time| time.to_string()),
        "inUse": policy.in_use,
        "builtIn": policy.built_in,
    })
}
