//! The scorecard for people and for tools.

use serde_json::{Value, json};

use super::{Arm, Control, Verdict};

/// One row: target, what the worst seed of the mesh and the best one of each control arm showed.
pub fn to_text(verdict: &Verdict) -> String {
    let Verdict { row, seeds, mesh, controls } = verdict;
    let word = match (verdict.mesh_holds(), verdict.controls_fail()) {
        (true, true) => "holds",
        (false, _) => "MISSED",
        (true, false) => "PROVES NOTHING",
    };
    let arm = |name: &str, arm: &Arm| {
        format!("    {name:<8} {}  (seed {}; met with {} of {seeds})\n", arm.seen.text, arm.seed, arm.met)
    };
    let mut text = format!("{:<26} {word}\n    target   {}\n{}", row.name, row.target, arm("seen", mesh));
    for (Control { without, .. }, seen) in row.controls.iter().zip(controls) {
        text += &format!("{}             ({without})\n", arm("control", seen));
    }
    text
}

/// The last line.
pub fn summary(verdicts: &[Verdict]) -> String {
    let held = verdicts.iter().filter(|verdict| verdict.holds()).count();
    let failed: Vec<&str> =
        verdicts.iter().filter(|verdict| !verdict.holds()).map(|verdict| verdict.row.name).collect();
    let names = if failed.is_empty() { String::new() } else { format!(": {}", failed.join(", ")) };
    format!("{held} rows hold, {} do not{names}", failed.len())
}

/// All rows as one JSON object.
pub fn to_json(verdicts: &[Verdict]) -> Value {
    let arm =
        |arm: &Arm| json!({ "met": arm.met, "seen": arm.seen.text, "badness": arm.seen.badness, "seed": arm.seed });
    let control = |(Control { without, .. }, seen): (&Control, &Arm)| {
        json!({
            "met": seen.met, "seen": seen.seen.text, "badness": seen.seen.badness, "seed": seen.seed,
            "without": without,
        })
    };
    let rows = verdicts.iter().map(|verdict| {
        json!({
            "row": verdict.row.name,
            "target": verdict.row.target,
            "holds": verdict.holds(),
            "seeds": verdict.seeds,
            "mesh": arm(&verdict.mesh),
            "controls": verdict.row.controls.iter().zip(&verdict.controls).map(control).collect::<Vec<_>>(),
        })
    });
    json!({ "holds": verdicts.iter().all(Verdict::holds), "rows": rows.collect::<Vec<_>>() })
}
