//! `rapport policy`: publish scoring policies, look at them, and go back to one that was in use before. Whether one ranks
//! well enough to be published is judged here, on a history that its user has; the server only checks that it is sound.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{evaluation::report::ModelScores, rpc::pb, scoring::Policy, service::MAX_DOCUMENT_BYTES};

use super::{
    Failure, Finished,
    client::{Server, ServerArguments},
    fit,
    history::{self, PlanArguments},
    import::ReadingArguments,
    print, report,
};

/// By what part of its NDCG a policy may fall behind the one in use and still be published: less than chance makes of it.
const TOLERATED: f64 = 0.005;

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
    #[command(mut_arg("version", |version| version.help("The version [default: the one in use]")))]
    Show(VersionArguments),
    /// Put a version to use that was published before
    #[command(mut_arg("version", |version| version.help("The version [default: the one that was in use before]")))]
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
    #[command(flatten)]
    judging: JudgingArguments,
}

/// What a policy is held against the one in use on.
#[derive(Args, Debug)]
#[command(
    next_help_heading = "Comparison with the policy in use",
    mut_group("ReadingArguments", |group| group.requires("history")),
    mut_group("PlanArguments", |group| group.requires("history"))
)]
struct JudgingArguments {
    /// Compare it with the policy in use first, on this file of interactions as `rapport backtest` takes it, and refuse it
    /// when its NDCG@10 is lower by more than 0.5 %; - reads standard input. Without a history nothing is compared
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingArguments,
    #[command(flatten)]
    plan: PlanArguments,
    /// Publish it however it compares
    #[arg(long, requires = "history")]
    force: bool,
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
    /// The version
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
    if arguments.judging.history.as_deref() == Some(Path::new("-")) && arguments.file == Path::new("-") {
        return Err("the policy and the history cannot both be read from standard input".into());
    }
    let server = arguments.server.server()?;
    let document = read(&arguments.file)?;
    let force = arguments.judging.force;
    let compared = arguments.judging.compare(&server, &document, &arguments.file).await?;
    if let Some(compared) = &compared {
        if !arguments.json {
            compared.print();
        }
        if let (Some(objection), false) = (compared.objection(), force) {
            return Err(format!("{objection}; --force publishes it all the same").into());
        }
    }
    let request = pb::PublishPolicyRequest {
        policy: Some(pb::Policy { document, ..pb::Policy::default() }),
        put_to_use: Some(!arguments.keep_aside),
        validate_only: arguments.validate_only,
    };
    let answer = send(&server, request).await?;
    if arguments.json {
        let mut json = json!({ "policy": answer.policy.as_ref().map(policy), "replayed": answer.replayed });
        if let Some(compared) = compared {
            json["comparison"] = json!(compared.models);
        }
        print::json(&json);
    } else {
        print::line(published(&answer, arguments.validate_only));
    }
    Ok(Finished::Well)
}

/// How the policy to publish and the one in use did on a history.
struct Compared {
    /// What the history is called.
    history: String,
    /// The one to publish, then the one in use; none when the history shows nothing about rankings.
    models: Vec<ModelScores>,
}

impl JudgingArguments {
    /// Holds the policy in a document against the one in use; nothing without a history.
    async fn compare(self, server: &Server, document: &str, file: &Path) -> Result<Option<Compared>, Failure> {
        let Some(history) = self.history else { return Ok(None) };
        let new = fit::parse_policy(document, &file.display().to_string())?;
        let used = get(server, String::new()).await?;
        let used = fit::parse_policy(&used.document, &format!("to this program, {}, the one in use,", used.version))?;
        // They may have the same name, and a report tells models apart by it.
        let used = Policy { version: format!("{}, in use", used.version).into(), ..used };
        let (title, history) = history::read_file(history, self.reading).await?;
        let plan = self.plan.plan(&history)?;
        let trial = history::cut(&history, plan, &new);
        let report = history::at_work("comparing with the policy in use", || trial.report(&title, &[&new, &used]));
        let names = [&new, &used].map(|policy| format!("Rapport {}", policy.version));
        let models = report.overall.into_iter().filter(|model| names.contains(&model.name)).collect();
        Ok(Some(Compared { history: title, models }))
    }
}

impl Compared {
    fn print(&self) {
        if let [new, used] = &self.models[..]
            && used.ndcg10 > 0.0
        {
            let compared = report::compared(new.ndcg10, used.ndcg10);
            print::line(format_args!("{} ranks {} {compared} {}.\n", new.name, self.history, used.name));
        }
        let known = |value: Option<f64>| value.map(|value| format!("{value:.3}")).unwrap_or_default();
        let row = |model: &ModelScores| {
            let numbers = [Some(model.ndcg10), model.brier, model.calibration_error].map(known);
            numbers.into_iter().chain([model.name.clone()]).collect()
        };
        print::table(&["NDCG@10", "Brier", "calibration", "model"], 0..3, self.models.iter().map(row).collect());
    }

    /// What speaks against publishing it.
    fn objection(&self) -> Option<String> {
        let Self { history, models } = self;
        let [new, used] = &models[..] else {
            return Some(format!(
                "{history} cannot tell them apart: at none of its reported cuts has anybody connections of both kinds, \
                 such as acted within the horizon and such as did not"
            ));
        };
        (new.ndcg10 < used.ndcg10 * (1.0 - TOLERATED)).then(|| {
            format!(
                "{} ranks {history} worse than {}: NDCG@10 of {:.4} against {:.4}",
                new.name, used.name, new.ndcg10, used.ndcg10
            )
        })
    }
}

async fn send(server: &Server, request: pb::PublishPolicyRequest) -> Result<pb::PublishPolicyResponse, Failure> {
    server.told(server.client.publish_policy(request).await).await
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
    let server = arguments.server.server()?;
    let policies = all(&server).await?;
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
async fn all(server: &Server) -> Result<Vec<pb::Policy>, Failure> {
    let mut policies = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListPoliciesRequest { page_size: 1000, page_token };
        let answer = server.told(server.client.list_policies(request).await).await?;
        policies.extend(answer.policies);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(policies);
        }
    }
}

async fn show(arguments: VersionArguments) -> Result<Finished, Failure> {
    let server = arguments.server.server()?;
    let found = get(&server, arguments.version.unwrap_or_default()).await?;
    if arguments.json {
        print::json(&json!({ "policy": policy(&found) }));
    } else {
        print::line(found.document.trim_end());
    }
    Ok(Finished::Well)
}

/// A version with its document; the one in use for the empty name.
async fn get(server: &Server, version: String) -> Result<pb::Policy, Failure> {
    let answer = server.client.policy(pb::GetPolicyRequest { version }).await;
    Ok(server.told(answer).await?.policy.unwrap_or_default())
}

async fn roll_back(arguments: VersionArguments) -> Result<Finished, Failure> {
    let server = arguments.server.server()?;
    let request = pb::RollbackPolicyRequest { version: arguments.version.unwrap_or_default() };
    let answer = server.told(server.client.roll_back_policy(request).await).await?;
    let used = answer.policy.unwrap_or_default();
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
