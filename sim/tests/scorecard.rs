//! Every row, with five seeds, beside its control arm; runs are shorter here than those of `cargo xtask scorecard`.

use mesh_sim::scorecard::{Control, Seen, chosen, play, rows, summary, to_json, to_text};

macro_rules! rows {
    ($($test:ident $row:literal)*) => {
        $(
            #[test]
            fn $test() {
                let row = chosen(rows(), &[$row.to_owned()]).unwrap();
                let verdicts = play(&row, 1..6, |_| {});
                let text: String = verdicts.iter().map(to_text).collect();
                println!("{text}");
                assert!(verdicts.iter().all(|verdict| verdict.holds() && verdict.seeds == 5), "{text}");
            }
        )*

        const TESTED: &[&str] = &[$($row),*];
    };
}

rows! {
    crash "crash"
    hang "hang"
    slow_endpoint "slow-endpoint"
    slow_endpoint_ten_clients "slow-endpoint-ten-clients"
    fast_error_sink "fast-error-sink"
    flapping "flapping"
    flapping_crash "flapping-crash"
    flapping_hang "flapping-hang"
    mostly_sick "mostly-sick"
    partly_broken "partly-broken"
    retry_amplification "retry-amplification"
    retry_amplification_tiers "retry-amplification-tiers"
    metastable "metastable"
    metastable_long_queues "metastable-long-queues"
    determinism "determinism"
    discovery_outage "discovery-outage"
    cold_start "cold-start"
    mutated_updates "mutated-updates"
    churn "churn"
}

/// Those of the other tier have tests of their own.
#[test]
fn no_row_is_forgotten_and_none_is_there_twice() {
    let mut names: Vec<&str> = rows().iter().map(|row| row.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, names);
    assert!(chosen(rows(), &["chrun".to_owned()]).unwrap_err().contains("did you mean `churn`?"));
}

/// A row that misses its target, or whose control arm does not, is told and counted.
#[test]
fn what_does_not_hold_is_told() {
    let [mut missed, mut idle] = [rows()[0]; 2];
    missed.name = "missed";
    (idle.name, idle.mesh) = ("idle", WELL.run);
    const BAD: Control = Control { without: "it", run: |_| Seen { met: false, text: "bad".into(), badness: 1.0 } };
    const WELL: Control =
        Control { without: "nothing", run: |_| Seen { met: true, text: "well".into(), badness: 0.0 } };
    (idle.controls, missed.controls) = (&[BAD, WELL], &[BAD]);
    missed.mesh = BAD.run;
    let verdicts = play(&[missed, idle], 7..9, |_| {});
    assert!(to_text(&verdicts[0]).starts_with("missed                     MISSED"), "{}", to_text(&verdicts[0]));
    assert!(to_text(&verdicts[1]).contains("PROVES NOTHING"));
    assert_eq!(summary(&verdicts), "0 rows hold, 2 do not: missed, idle");
    let json = to_json(&verdicts);
    assert_eq!((&json["holds"], &json["rows"][0]["mesh"]["seed"]), (&false.into(), &7.into()));
    assert_eq!(json["rows"][1]["controls"][1]["without"], "nothing");
}
