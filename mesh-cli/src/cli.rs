//! The command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use mesh_core::config::IssuerConfig;
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::policy::Protocol;

use crate::policy::{PolicyCommand, word};

const PROTOCOLS: [(&str, Protocol); 3] = [("http", Protocol::Http), ("grpc", Protocol::Grpc), ("tcp", Protocol::Tcp)];

#[derive(Debug, Parser)]
#[command(
    name = "mesh",
    version,
    about = "Checks and explains configurations and policies of a mesh, and judges SVIDs, tokens and audit trails",
    after_help = "Exit codes: 0 yes (valid, allowed, done), 1 no (invalid, denied, no SVID), 2 wrong command line, \
                  3 cannot read or write."
)]
pub(crate) struct Cli {
    /// Answers in JSON; its fields are stable.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks a configuration and its policies; every problem with file, line and field.
    Check(CheckArgs),
    /// Says which policy and rule decide one request, and why.
    Explain(ExplainArgs),
    /// Certificates of workloads.
    #[command(subcommand)]
    Svid(SvidCommand),
    /// Names of workloads.
    #[command(subcommand)]
    Id(IdCommand),
    /// Tokens that callers bring.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Audit trails.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Policies by themselves.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// A certificate authority on disk, for development.
    #[command(subcommand)]
    DevCa(DevCaCommand),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "MESH.YAML")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The configuration of the service that is called.
    #[arg(long, value_name = "MESH.YAML")]
    pub(crate) config: PathBuf,
    /// The caller's SPIFFE ID.
    #[arg(long, value_name = "ID", required_unless_present = "anonymous", conflicts_with = "anonymous")]
    pub(crate) principal: Option<SpiffeId>,
    /// A caller without a certificate.
    #[arg(long)]
    pub(crate) anonymous: bool,
    /// The method; default: GET, for gRPC POST.
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// The path as the caller wrote it; for gRPC `/package.Service/Method`. On raw TCP it is not looked at.
    #[arg(long)]
    pub(crate) path: String,
    /// The host as the caller wrote it; default: the workload's name.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The port that was connected to; default: that of the default listener.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// What it came as.
    #[arg(long, default_value = "http", value_parser = word(&PROTOCOLS))]
    pub(crate) protocol: Protocol,
    /// The route that matched, for example `/orders/{id}`, or the gRPC method.
    #[arg(long)]
    pub(crate) route: Option<String>,
    /// The caller's address.
    #[arg(long, value_name = "IP")]
    pub(crate) source_ip: Option<IpAddr>,
    /// The client's address behind trusted proxies; default: the caller's.
    #[arg(long, value_name = "IP")]
    pub(crate) remote_ip: Option<IpAddr>,
    /// The local address that was connected to.
    #[arg(long, value_name = "IP")]
    pub(crate) destination_ip: Option<IpAddr>,
    /// The server name of the handshake.
    #[arg(long)]
    pub(crate) sni: Option<String>,
    /// A request header; may be repeated. What a server takes out of each request is not seen here either.
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Claims of a JWT that is taken as verified, as a JSON object with at least `iss`, which `tokens` must name.
    #[arg(long, value_name = "JSON")]
    pub(crate) claims: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME:VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum SvidCommand {
    /// Shows a certificate chain and whether it is an X.509-SVID.
    Inspect(InspectArgs),
    /// Judges certificate chains as a peer would; a line of JSON for each.
    #[command(
        after_help = "Each line is {\"valid\",\"reason\",\"spiffe_id\"}, in the order of the arguments. `reason` is a stable \
        code, null where the chain is good in both roles, client and server. `spiffe_id` is what the leaf calls itself, \
        null where that cannot be read; where `valid` is false nobody vouches for it. `mesh svid inspect` says more.\n\n\
        Exit codes: 0 all are valid, 1 one is not, 3 a file cannot be read."
    )]
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// PEM authorities of one trust domain. Several domains: several pairs, or the option again.
    #[arg(long = "bundle", value_name = "TRUST_DOMAIN=PEM", required = true, value_parser = bundle)]
    pub(crate) bundles: Vec<(TrustDomain, PathBuf)>,
    /// When to judge, in seconds since 1970; default: now.
    #[arg(long, value_name = "UNIX_SECONDS")]
    pub(crate) at: Option<u64>,
    /// PEM certificates of one chain: leaf first, then intermediates.
    #[arg(value_name = "CERT.PEM", required = true)]
    pub(crate) chains: Vec<PathBuf>,
}

fn bundle(text: &str) -> Result<(TrustDomain, PathBuf), String> {
    let (domain, file) = text.split_once('=').ok_or("expected TRUST_DOMAIN=PEM")?;
    Ok((TrustDomain::parse(domain).map_err(|error| error.to_string())?, PathBuf::from(file)))
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Judges compact tokens, one a line, as a service that accepts this issuer would; a line of JSON for each.
    #[command(
        after_help = "Each line is {\"valid\",\"reason\",\"claims\"}, in the order of the input. `reason` is a stable code, null \
        where the token is good; `claims` is null where it is not. Line ends are \\n and nothing else.\n\n\
        With --signature-only the lines are JWSs over any payload, `claims` is null, and nothing but the signature counts; \
        the header must still name a known algorithm, and bring neither keys nor extensions.\n\n\
        Exit codes: 0 all are valid, 1 one is not, 3 the input or the keys cannot be used."
    )]
    Verify(TokenVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenVerifyArgs {
    /// The issuer's public keys, a JWK set.
    #[arg(long, value_name = "FILE", required_unless_present = "signature_only", conflicts_with = "signature_only")]
    pub(crate) jwks: Option<PathBuf>,
    /// The exact issuer.
    #[arg(long, value_name = "ISS", required_unless_present = "signature_only", conflicts_with = "signature_only")]
    pub(crate) issuer: Option<String>,
    /// An accepted audience; may be repeated.
    #[arg(long, value_name = "AUD", required_unless_present = "signature_only", conflicts_with = "signature_only")]
    pub(crate) audience: Vec<String>,
    /// Accepted algorithms; default: RS256, PS256, ES256, ES384, EdDSA.
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "signature_only",
          value_parser = clap::builder::PossibleValuesParser::new(IssuerConfig::ALGORITHMS))]
    pub(crate) algorithms: Vec<String>,
    /// When to judge, in seconds since 1970; default: now.
    #[arg(long, value_name = "UNIX_SECONDS", conflicts_with = "signature_only")]
    pub(crate) at: Option<u64>,
    /// An accepted `typ`, in any case; may be repeated. Default: JWT, which a missing one is too, and at+jwt.
    #[arg(long, value_name = "T", conflicts_with = "signature_only")]
    pub(crate) typ: Vec<String>,
    /// Judges signatures alone, over any payload.
    #[arg(long, requires = "key")]
    pub(crate) signature_only: bool,
    /// The key of the signatures, a JWK of any type.
    #[arg(long, value_name = "JWK_FILE", requires = "signature_only")]
    pub(crate) key: Option<PathBuf>,
    /// The payload of JWSs that have none of their own.
    #[arg(long, value_name = "FILE", requires = "signature_only")]
    pub(crate) payload: Option<PathBuf>,
    /// The tokens; `-` is the standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// The arguments, with `--bundle a=a.pem b=b.pem`, `--audience a b` and `--typ a b` spelled as the option twice.
///
/// What clap itself would do with many values swallows the files that follow them.
pub(crate) fn spelled_out(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let is_at = |at: usize, word: &str| arguments.get(at).is_some_and(|argument| argument == word);
    if (0..arguments.len()).any(|at| is_at(at, "token") && is_at(at + 1, "verify")) {
        return token_values(&arguments);
    }
    let mut spelled: Vec<OsString> = Vec::new();
    for argument in arguments {
        let pair = argument.to_str().is_some_and(|text| bundle(text).is_ok());
        let follows_pair = matches!(spelled.as_slice(), [.., option, _] if option == "--bundle");
        if pair && follows_pair {
            spelled.push("--bundle".into());
        }
        spelled.push(argument);
    }
    spelled
}

/// `token verify` takes one file. Of what follows the first value of a list, all are values where the file stands
/// elsewhere; else the very last of them is the file.
fn token_values(arguments: &[OsString]) -> Vec<OsString> {
    const LISTS: [&str; 2] = ["--audience", "--typ"];
    const SWITCHES: [&str; 2] = ["--signature-only", "--json"];
    // The values that an option still takes, and its name if it takes a list.
    let (mut open, mut list): (usize, Option<&OsString>) = (0, None);
    let (mut extras, mut files): (Vec<(usize, &OsString)>, usize) = (Vec::new(), 0);
    let begin = arguments.iter().position(|argument| argument == "verify").map_or(0, |at| at + 1);
    for (at, argument) in arguments.iter().enumerate().skip(begin) {
        let text = argument.to_string_lossy();
        if text.starts_with("--") {
            list = LISTS.contains(&&*text).then_some(argument);
            open = usize::from(!text.contains('=') && !SWITCHES.contains(&&*text));
        } else if open > 0 {
            open = 0;
        } else if let Some(name) = list {
            extras.push((at, name));
        } else {
            files += 1;
        }
    }
    if files == 0 {
        extras.pop();
    }
    let mut spelled = Vec::new();
    for (at, argument) in arguments.iter().enumerate() {
        if let Some((_, name)) = extras.iter().find(|(extra, _)| *extra == at) {
            spelled.push(OsString::clone(name));
        }
        spelled.push(argument.clone());
    }
    spelled
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdCommand {
    /// Reads SPIFFE IDs, one a line; a line of JSON for each.
    #[command(
        after_help = "Each line is {\"valid\",\"reason\",\"trust_domain\",\"path\"}, in the order of the input. A line ends with \
        \\n and with nothing else: spaces and \\r count, and an empty line is an empty name. `reason` is a stable code, null \
        where the line is a SPIFFE ID. A name without a path is that of a trust domain; no workload can have it.\n\n\
        Exit codes: 0 all are valid, 1 one is not, 3 the input cannot be read."
    )]
    Check(IdCheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IdCheckArgs {
    /// The names; `-` is the standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// PEM certificates, leaf first.
    #[arg(value_name = "CERT.PEM")]
    pub(crate) chain: PathBuf,
    /// PEM authorities of the leaf's own trust domain: judges the whole chain as a peer would.
    #[arg(long, value_name = "CA.PEM")]
    pub(crate) bundle: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Says whether a trail is whole: edits, deletions, order, cuts, forks, signatures.
    #[command(
        after_help = "Hashes alone show accidents: who can write the file can compute them anew. --key or --bundle make signatures \
        count, --anchor demands that records which were copied elsewhere (log target `mesh::audit::checkpoint`) are in the trail. \
        `reason` of each problem is a stable code: malformed, edited, deleted, reordered, fork, no_beginning, sequence, \
        unfinished, truncated, anchor_missing, unsigned, bad_signature, unknown_key, bad_certificate, untrusted_certificate, \
        other_identity.\n\n\
        Exit codes: 0 the trail is whole, 1 it is not, 2 wrong command line, 3 a file cannot be read."
    )]
    Verify(AuditVerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// A key that signs: PEM (`BEGIN PUBLIC KEY`) or JWK; may be repeated.
    #[arg(long = "key", value_name = "PEM|JWK")]
    pub(crate) keys: Vec<PathBuf>,
    /// PEM authorities of one trust domain, whose SVIDs sign. Several domains: several pairs, or the option again.
    #[arg(long = "bundle", value_name = "TRUST_DOMAIN=PEM", value_parser = bundle)]
    pub(crate) bundles: Vec<(TrustDomain, PathBuf)>,
    /// Signed records that must be in the trail, one a line; may be repeated. One before its first record is a beginning.
    #[arg(long = "anchor", value_name = "JSON")]
    pub(crate) anchors: Vec<PathBuf>,
    /// Takes a process without `audit.stop` for one that still runs, or crashed.
    #[arg(long)]
    pub(crate) unfinished: bool,
    /// The trail, oldest file first; `-` is the standard input.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevCaCommand {
    /// Makes the authority, or shows the one that is there.
    Init(AuthorityArgs),
    /// Issues a certificate for one workload.
    Issue(IssueArgs),
    /// Replaces the root: the new one is trusted at once and signs a minute later; the old one is trusted for a day more.
    Rotate(AuthorityArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityArgs {
    /// Where the authority lives.
    #[arg(long, value_name = "DIR", default_value = ".mesh")]
    pub(crate) dir: PathBuf,
    /// Its trust domain.
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: TrustDomain,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    pub(crate) authority: AuthorityArgs,
    /// The workload's namespace.
    #[arg(long)]
    pub(crate) namespace: String,
    /// The workload's service account.
    #[arg(long)]
    pub(crate) service_account: String,
    /// How long it is valid, in minutes.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=1440))]
    pub(crate) minutes: u64,
    /// Where svid.pem, svid.key and bundle.pem go; made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
