//! A copy of the workspace with all changes in it, and its test programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::list::Mutant;
use super::rewrite;
use super::trial::{Program, Suite};
use crate::run::cargo;

/// The switches, as a module of each changed crate.
const SWITCHES: &str = r#"//! Which change is on: `MUTANT=N`. With `MUTANTS_REACHED=FILE` none is, and those that are asked for are written there.

use std::fs::File;
use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static ACTIVE: LazyLock<Option<usize>> = LazyLock::new(|| std::env::var("MUTANT").ok()?.parse().ok());
static FILE: LazyLock<Option<File>> =
    LazyLock::new(|| File::options().append(true).create(true).open(std::env::var_os("MUTANTS_REACHED")?).ok());
static SEEN: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];

/// Allocates nothing after the first call.
#[allow(clippy::indexing_slicing)]
pub fn on(number: usize) -> bool {
    if !SEEN[number].load(Relaxed) && !SEEN[number].swap(true, Relaxed) {
        if let Some(mut file) = FILE.as_ref() {
            writeln!(file, "{number}").ok();
        }
    }
    *ACTIVE == Some(number)
}
"#;

/// Where the copy is.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    root: &'a Path,
    base: PathBuf,
    /// What is changed, as it was when the copy was made.
    originals: BTreeMap<String, String>,
}

impl<'a> Tree<'a> {
    /// Below the directory of temporary files: what cargo finds above a workspace must not be ours.
    pub(super) fn new(root: &'a Path) -> Self {
        Self { root, base: std::env::temp_dir().join("mesh-mutants"), originals: BTreeMap::new() }
    }

    /// A file beside the copy.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    fn copy(&self) -> PathBuf {
        self.path("tree")
    }

    /// Builds the tests with all of `sample` in them but those that do not compile so.
    pub(super) fn build(&mut self, sample: &[Mutant]) -> Result<(Suite, LeftOut), String> {
        self.copy_workspace(sample)?;
        let mut left_out = LeftOut::default();
        loop {
            self.write_changed(sample, |file, text| {
                let numbered = sample.iter().enumerate().filter(|(_, mutant)| mutant.file == file);
                let mutants: Vec<_> = numbered.filter(|(number, _)| !left_out.contains(*number)).collect();
                rewrite::rewrite(text, &mutants)
            })?;
            let errors = match self.compile(sample)? {
                Ok(suite) => return Ok((suite, left_out)),
                Err(errors) => errors,
            };
            let before = left_out.len();
            self.blame(&errors, &mut left_out);
            if left_out.len() == before {
                let said: String = errors.iter().filter_map(|error| error.get("rendered")?.as_str()).collect();
                return Err(format!("the tests do not compile, and no change is to blame:\n{said}"));
            }
        }
    }

    /// Builds the tests with one of `sample` alone and without a switch; `None` if it does not compile.
    pub(super) fn build_alone(&self, sample: &[Mutant], mutant: &Mutant) -> Result<Option<Suite>, String> {
        self.write_changed(sample, |file, text| {
            let whole =
                || Some([text.get(..mutant.span.start)?, &mutant.replacement, text.get(mutant.span.end..)?].concat());
            let changed = if mutant.file == file { whole() } else { Some(text.to_owned()) };
            changed.ok_or_else(|| format!("{}: not found", mutant.name))
        })?;
        Ok(self.compile(sample)?.ok())
    }

    /// The tests of all changed packages, or the compiler's errors.
    fn compile(&self, sample: &[Mutant]) -> Result<Result<Suite, Vec<Value>>, String> {
        let mut command = cargo(&self.copy(), &["test", "--no-run", "--all-features", "--tests"]);
        command.args(["--quiet", "--message-format", "json"]).env("CARGO_TARGET_DIR", self.path("target"));
        let packages: BTreeSet<&str> = sample.iter().map(|mutant| mutant.package.as_str()).collect();
        packages.iter().for_each(|package| {
            command.args(["--package", package]);
        });
        let output = command.output().map_err(|e| format!("cannot run cargo: {e}"))?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let messages: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if output.status.success() {
            return Ok(Ok(Suite { programs: programs(&messages), reached: self.path("reached") }));
        }
        let diagnostics = messages.iter().filter_map(|message| message.get("message"));
        let errors = diagnostics.filter(|message| message.get("level").and_then(Value::as_str) == Some("error"));
        let errors: Vec<Value> = errors.cloned().collect();
        let said = String::from_utf8_lossy(&output.stderr);
        if errors.is_empty() { Err(format!("cannot build the tests:\n{said}")) } else { Ok(Err(errors)) }
    }

    fn copy_workspace(&mut self, sample: &[Mutant]) -> Result<(), String> {
        let mut list = Command::new("git");
        list.current_dir(self.root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let output = list.output().map_err(|e| format!("cannot run git: {e}"))?;
        let changed: BTreeSet<&str> = sample.iter().map(|mutant| mutant.file.as_str()).collect();
        for file in String::from_utf8_lossy(&output.stdout).split_terminator('\0') {
            let from = self.root.join(file);
            if !from.is_file() {
                continue;
            }
            let bytes = fs::read(&from).map_err(|e| format!("cannot read {file}: {e}"))?;
            match String::from_utf8(bytes) {
                Ok(text) if changed.contains(file) || place_of_switches(file, &text).is_some() => {
                    self.originals.insert(file.to_owned(), text);
                }
                Ok(text) => write(&self.copy().join(file), text.as_bytes())?,
                Err(other) => write(&self.copy().join(file), other.as_bytes())?,
            }
        }
        Ok(())
    }

    /// Writes each file of `sample` as `change` makes it of its name and text, and the switches.
    fn write_changed(
        &self,
        sample: &[Mutant],
        change: impl Fn(&str, &str) -> Result<String, String>,
    ) -> Result<(), String> {
        let crates: BTreeSet<&str> =
            sample.iter().filter_map(|mutant| Some(mutant.file.split_once("/src/")?.0)).collect();
        let changed: BTreeSet<&str> = sample.iter().map(|mutant| mutant.file.as_str()).collect();
        for (file, text) in &self.originals {
            let mut text = match changed.contains(file.as_str()) {
                true => change(file, text).map_err(|e| format!("{file}: {e}"))?,
                false => text.clone(),
            };
            if let Some((krate, declaration)) = place_of_switches(file, &text)
                && crates.contains(krate)
            {
                text.push_str(declaration);
            }
            write(&self.copy().join(file), text.as_bytes())?;
        }
        let switches = SWITCHES.replace("COUNT", &sample.len().to_string());
        crates
            .iter()
            .try_for_each(|krate| write(&self.copy().join(krate).join("src/__mutants.rs"), switches.as_bytes()))
    }

    /// Leaves out the changes that errors are about: those whose code one points at, or else all in the function where it
    /// is.
    fn blame(&self, errors: &[Value], left_out: &mut LeftOut) {
        for error in errors {
            let spans = error.get("spans").and_then(Value::as_array).into_iter().flatten();
            let place = |span: &Value| {
                let text = fs::read_to_string(self.copy().join(span.get("file_name")?.as_str()?)).ok()?;
                Some((text, span.get("byte_start")?.as_u64()?.try_into().ok()?))
            };
            let marked = spans.clone().filter_map(place).filter_map(|(text, at)| rewrite::marked(&text, at));
            let marked: Vec<usize> = marked.collect();
            if marked.is_empty() {
                let primary = spans.filter(|span| span.get("is_primary").and_then(Value::as_bool) == Some(true));
                left_out
                    .doubtful
                    .extend(primary.filter_map(place).flat_map(|(text, at)| rewrite::in_function(&text, at)));
            } else if error.pointer("/code/code").and_then(Value::as_str).is_none_or(|code| SWITCHED.contains(&code)) {
                left_out.doubtful.extend(marked);
            } else {
                left_out.wrong.extend(marked);
            }
        }
        left_out.doubtful.retain(|number| !left_out.wrong.contains(number));
    }
}

/// The crate whose switches `file` declares, and how: a crate's root, or a test that has modules of that crate in it.
fn place_of_switches<'a>(file: &'a str, text: &str) -> Option<(&'a str, &'static str)> {
    if let Some(krate) = file.strip_suffix("/src/lib.rs") {
        return Some((krate, "\n#[doc(hidden)]\npub mod __mutants;\n"));
    }
    let (krate, _) = file.split_once("/tests/").filter(|(_, name)| name.ends_with(".rs") && !name.contains('/'))?;
    let includes = text.contains("#[path = \"../src/");
    includes.then_some((krate, "\n#[path = \"../src/__mutants.rs\"]\nmod __mutants;\n"))
}

/// The changes that are not in the build.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Of wrong types: they do not compile.
    pub(super) wrong: BTreeSet<usize>,
    /// Which may compile without a switch.
    pub(super) doubtful: BTreeSet<usize>,
}

impl LeftOut {
    pub(super) fn contains(&self, number: usize) -> bool {
        self.wrong.contains(&number) || self.doubtful.contains(&number)
    }

    fn len(&self) -> usize {
        self.wrong.len() + self.doubtful.len()
    }
}

/// Errors that a switch may make of good code: a call in a constant, and whatever is about moves and borrows, which are
/// those of both forms.
const SWITCHED: [&str; 10] = ["E0015", "E0373", "E0381", "E0382", "E0499", "E0502", "E0505", "E0506", "E0597", "E0716"];

/// Leaves a file alone that is as it should be, so that cargo builds nothing for it.
fn write(file: &Path, bytes: &[u8]) -> Result<(), String> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let failed = |e| format!("cannot write {}: {e}", file.display());
    file.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    fs::write(file, bytes).map_err(failed)
}

fn programs(messages: &[Value]) -> Vec<Program> {
    let program = |message: &Value| {
        let is_test = message.pointer("/profile/test")?.as_bool()?;
        let dir = Path::new(message.get("manifest_path")?.as_str()?).parent()?.to_path_buf();
        let executable = PathBuf::from(message.get("executable")?.as_str()?);
        is_test.then_some(Program { executable, dir })
    };
    // Cargo names them in the order in which they were ready, and tests are known by the place of their program.
    let mut programs: Vec<Program> = messages.iter().filter_map(program).collect();
    programs.sort_by(|a, b| a.executable.cmp(&b.executable));
    programs
}
