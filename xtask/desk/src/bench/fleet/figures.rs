//! What is made of the figures: tables with the paper's beside ours, and curves.

use serde_json::Value;

use super::curves::{Line, Panel, svg};
use xtask::{Outcome, workspace};

/// The section of the tables.
pub const SECTION: &str = "bench-fleet";
/// That of two processes on PostgreSQL.
pub const POSTGRES_SECTION: &str = "bench-fleet-postgres";
/// The curves.
const PAGE: &str = "docs/fleet.svg";

/// Lists as they are named by `simulate`, and what they may take.
const LISTS: [(&str, f64); 20] = [
    ("first page", 100.0),
    ("middle page", 100.0),
    ("last page", 100.0),
    ("last page of the accepted", 100.0),
    ("all, sorted by serial number", 100.0),
    ("one system, sorted by serial number", 100.0),
    ("the same, middle page", 100.0),
    ("pattern over host names", 300.0),
    ("page: statistics", 200.0),
    ("page: devices by status", 200.0),
    ("page: groups", 200.0),
    ("page: attributes to filter by", 200.0),
    ("page: roll-outs that run", 200.0),
    ("page: releases", 200.0),
    ("page: one device", 200.0),
    ("page: its updates", 200.0),
    ("page: its alerts", 200.0),
    ("page: audit log", 200.0),
    ("page: devices of one group", 200.0),
    ("page: how many have one version", 200.0),
];

fn number(of: &Value, path: &str) -> Option<f64> {
    of.pointer(path).and_then(Value::as_f64)
}

fn told(of: &Value, path: &str, scale: f64, digits: usize, unit: &str) -> String {
    match number(of, path) {
        Some(number) => format!("{:.digits$}{unit}", number * scale),
        None => "not run".to_owned(),
    }
}

/// Half of the answers, and 95 of 100.
fn times(of: &Value, path: &str) -> String {
    match (number(of, &format!("{path}/p50_ms")), number(of, &format!("{path}/p95_ms"))) {
        (Some(p50), Some(p95)) => format!("{p50:.2} / {p95:.2} ms"),
        _ => "not run".to_owned(),
    }
}

fn runs(result: &Value) -> &[Value] {
    result["runs"].as_array().map_or(&[], Vec::as_slice)
}

/// `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Answers that no device expects, devices that lost something, and lists that were wrong: 0 is what there has to be.
fn wrong(run: &Value) -> f64 {
    let parts = [
        "/idle/polls",
        "/idle/inventories",
        "/browsing/polls",
        "/browsing/inventories",
        "/deployment/polls",
        "/deployment/inventories",
        "/deployment/roll_out",
        "/full/polls",
        "/herd/herd",
        "/herd_of_connections/herd",
        "/whole/roll_out",
    ];
    let failed: f64 = parts.iter().filter_map(|part| number(run, &format!("{part}/failed"))).sum();
    let lost: f64 = ["/deployment", "/whole"]
        .iter()
        .filter_map(|part| number(run, &format!("{part}/deployment/check/lost")))
        .sum();
    let lists = ["/browsing/browse", "/deployment/browse"].into_iter().filter_map(|path| run.pointer(path));
    let lists = lists.filter_map(Value::as_object).flat_map(|lists| lists.values());
    failed + lost + lists.filter_map(|list| list["wrong"].as_f64()).sum::<f64>()
}

/// How much of one processor the server needed, in hundredths.
fn share(run: &Value, part: &str) -> Option<f64> {
    let seconds = number(run, &format!("/{part}/polls/seconds")).filter(|seconds| *seconds > 0.0)?;
    Some(number(run, &format!("/{part}/server_cpu_seconds"))? / seconds * 100.0)
}

/// Microseconds of the server's processor time for each poll, as fast as it answers.
fn per_poll(run: &Value) -> Option<f64> {
    let polls = number(run, "/full/polls/count").filter(|polls| *polls > 0.0)?;
    Some(number(run, "/full/server_cpu_seconds")? / polls * 1e6)
}

fn or_not(number: Option<f64>, digits: usize, unit: &str) -> String {
    number.map_or("not run".to_owned(), |number| format!("{number:.digits$}{unit}"))
}

/// The tables of one process.
pub fn tables(result: &Value) -> String {
    let runs = runs(result);
    let mut head = "| | aim at 1,000,000 | paper: 3 nodes and a database, 1,000,000 |".to_owned();
    let mut rule = "| --- | --- | --- |".to_owned();
    for run in runs {
        head += &format!(" {} |", grouped(run["devices"].as_u64().unwrap_or(0)));
        rule += " --- |";
    }
    let first = runs.first().unwrap_or(&Value::Null);
    let mut text = format!(
        "One process with its embedded store, the load on the same machine, {}. Devices ask for {} s in each of the rows with times \
         of polls; the deployment to a tenth goes at the rate at which it would take {} s. p50 / p95 from when a question was \
         due.\n\n{head}\n{rule}\n",
        result["machine"].as_str().unwrap_or_default(),
        first["asked_seconds"],
        first["within"],
    );
    let mut row = |name: &str, aim: &str, paper: &str, figure: &dyn Fn(&Value) -> String| {
        text += &format!("| {name} | {aim} | {paper} |");
        for run in runs {
            text += &format!(" {} |", figure(run));
        }
        text.push('\n');
    };
    row("polls and inventories in a second", "556 and 35", "556 and 35", &|run| {
        let of = |part: &str| told(run, &format!("/idle/{part}/per_second"), 1.0, 0, "");
        format!("{} and {}", of("polls"), of("inventories"))
    });
    row("a poll", "1 / 10 ms", "", &|run| times(run, "/idle/polls"));
    row("an inventory", "1 / 10 ms", "", &|run| times(run, "/idle/inventories"));
    row("a poll while a person browses", "1 / 10 ms", "", &|run| times(run, "/browsing/polls"));
    row("a poll in a deployment to a tenth, browsed", "1 / 10 ms", "", &|run| {
        times(run, "/deployment/polls")
    });
    row("a question of a device with it", "1 / 10 ms", "", &|run| times(run, "/deployment/roll_out"));
    row("dry run of that deployment", "200 ms", "", &|run| {
        told(run, "/deployment/deployment/dry_run_ms", 1.0, 0, " ms")
    });
    row("making it", "200 ms", "", &|run| told(run, "/deployment/deployment/made_ms", 1.0, 0, " ms"));
    row("dry run of one to all", "200 ms", "", &|run| {
        told(run, "/whole/deployment/dry_run_ms", 1.0, 0, " ms")
    });
    row("making that", "200 ms", "", &|run| told(run, "/whole/deployment/made_ms", 1.0, 0, " ms"));
    row("processor while devices ask, of one core", "", "", &|run| or_not(share(run, "idle"), 1, " %"));
    row("and with browsing and the deployment", "", "", &|run| or_not(share(run, "deployment"), 1, " %"));
    row("polls in a second, as fast as it answers", "15,000", "", &|run| {
        told(run, "/full/polls/per_second", 1.0, 0, "")
    });
    row("processor time of such a poll, HTTP included", "", "", &|run| or_not(per_poll(run), 1, " µs"));
    for (part, how) in [("herd", ""), ("herd_of_connections", ", a connection each")] {
        row(
            &format!("all devices within a minute{how}, until all are answered"),
            "",
            "",
            &|run| match number(run, &format!("/{part}/herd/put_off")) {
                Some(later) => {
                    format!(
                        "{}, put off {later:.0}",
                        told(run, &format!("/{part}/herd/seconds"), 1.0, 1, " s")
                    )
                }
                None => "not run".to_owned(),
            },
        );
        row(&format!("their times{how}"), "", "", &|run| times(run, &format!("/{part}/herd")));
    }
    row("a deployment to all, five questions each", "60 min", "14 h", &|run| {
        told(run, "/whole/roll_out/seconds", 1.0 / 60.0, 1, " min")
    });
    row("its questions in a second", "", "", &|run| told(run, "/whole/roll_out/per_second", 1.0, 0, ""));
    let start = |run: &Value, after: &str| {
        let of = |what: &str| told(run, &format!("/start{what}{after}_ms"), 1.0, 0, " ms");
        format!("{} / {}", of(""), of("_to_list"))
    };
    row("start to first answer / to first list", "200 ms", "", &|run| start(run, ""));
    row("the same after SIGKILL among reports", "200 ms", "", &|run| start(run, "_after_kill"));
    row("stop after all that", "1 s", "", &|run| told(run, "/stop_ms", 1.0, 0, " ms"));
    row("allocated after the start", "256 MiB", "", &|run| told(run, "/start_mib", 1.0, 0, " MiB"));
    row("allocated, the most that was seen", "256 MiB", "", &|run| {
        told(run, "/most_allocated_mib", 1.0, 0, " MiB")
    });
    row("on the disk when it was filled", "", "", &|run| told(run, "/seed/bytes", 1e-6, 0, " MB"));
    row("filling it", "", "", &|run| told(run, "/seed/seconds", 1.0, 0, " s"));
    row("unexpected answers, lost reports, wrong lists", "0", "", &|run| format!("{:.0}", wrong(run)));

    text += &format!(
        "\nLists with 50 devices a page, and what the web page asks besides, while devices ask, p50 / p95:\n\n{head}\n{rule}\n"
    );
    for (list, aim) in LISTS {
        let paper = if list.starts_with("page:") { "" } else { "1 to 1.5 s" };
        text += &format!("| {list} | {aim:.0} ms | {paper} |");
        for run in runs {
            text += &format!(" {} |", times(run, &format!("/browsing/browse/{list}")));
        }
        text.push('\n');
    }
    text
}

/// The table of two processes.
pub fn two_processes(result: &Value) -> String {
    let mut text = format!(
        "Two processes on PostgreSQL on the same machine, {}; the first is ended by SIGKILL while a deployment to a tenth of the \
         devices goes as fast as it is answered.\n\n\
         | devices | a poll | a poll's p95 | last page, p95 | pattern, p95 | reports and questions | in a second | connections broken | acknowledged devices | of them not as far in the store | start | allocated |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        result["machine"].as_str().unwrap_or_default()
    );
    for run in runs(result) {
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            grouped(run["devices"].as_u64().unwrap_or(0)),
            told(run, "/idle/polls/p50_ms", 1.0, 2, " ms"),
            told(run, "/idle/polls/p95_ms", 1.0, 2, " ms"),
            told(run, "/idle/browse/last page/p95_ms", 1.0, 0, " ms"),
            told(run, "/idle/browse/pattern over host names/p95_ms", 1.0, 0, " ms"),
            told(run, "/killed/roll_out/count", 1.0, 0, ""),
            told(run, "/killed/roll_out/per_second", 1.0, 0, ""),
            told(run, "/killed/roll_out/broken", 1.0, 0, ""),
            told(run, "/killed/deployment/check/acknowledged", 1.0, 0, ""),
            told(run, "/killed/deployment/check/lost", 1.0, 0, ""),
            told(run, "/start_ms", 1.0, 0, " ms"),
            told(run, "/allocated_mib", 1.0, 0, " MiB"),
        );
    }
    text
}

/// Draws what grows with the number of devices.
pub fn write_curves(result: &Value) -> Outcome {
    workspace::write(&workspace::root().join(PAGE), svg(&panels(result)))
}

fn panels(result: &Value) -> Vec<Panel> {
    let line = |name: &str, figure: &dyn Fn(&Value) -> Option<f64>| Line {
        name: name.to_owned(),
        points: runs(result)
            .iter()
            .filter_map(|run| Some((run["devices"].as_f64()?, figure(run)?)))
            .collect(),
    };
    let at = |name: &str, path: &str| line(name, &|run| number(run, path));
    let panel =
        |title: &str, limit: Option<f64>, lines: Vec<Line>| Panel { title: title.to_owned(), lines, limit };
    let list = |name: &str, list: &str| at(name, &format!("/browsing/browse/{list}/p95_ms"));
    vec![
        panel(
            "Allocated, MiB",
            Some(256.0),
            vec![at("start", "/start_mib"), at("most", "/most_allocated_mib")],
        ),
        panel(
            "Start, ms",
            Some(200.0),
            vec![at("to first answer", "/start_ms"), at("to first list", "/start_to_list_ms")],
        ),
        panel(
            "Processor while devices ask, % of a core",
            None,
            vec![
                line("idle", &|run| share(run, "idle")),
                line("deployment", &|run| share(run, "deployment")),
            ],
        ),
        panel(
            "Poll, p95, ms",
            Some(10.0),
            vec![
                at("idle", "/idle/polls/p95_ms"),
                at("browsing", "/browsing/polls/p95_ms"),
                at("deployment", "/deployment/polls/p95_ms"),
            ],
        ),
        panel(
            "Lists, p95, ms",
            Some(100.0),
            vec![
                list("last page", "last page"),
                list("sorted", "one system, sorted by serial number"),
                list("pattern", "pattern over host names"),
            ],
        ),
        panel(
            "Deployment to all, minutes",
            Some(60.0),
            vec![line("", &|run| number(run, "/whole/roll_out/seconds").map(|seconds| seconds / 60.0))],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_a_column_for_each_size_and_says_what_was_not_run() {
        let idle = json!({ "polls": { "p50_ms": 0.5, "p95_ms": 1.0, "seconds": 10.0, "failed": 1 }, "server_cpu_seconds": 0.5 });
        let browse = json!({ "last page": { "p50_ms": 1.0, "p95_ms": 2.0, "wrong": 2 } });
        let run = |devices: u64| {
            json!({
                "devices": devices, "idle": idle, "browsing": { "browse": browse }, "asked_seconds": 10, "within": 1800
            })
        };
        let result = json!({ "machine": "M", "runs": [run(125_000), run(1_000_000)] });
        let text = tables(&result);
        for wanted in [
            "| 125,000 | 1,000,000 |",
            "| a poll | 1 / 10 ms |  | 0.50 / 1.00 ms | 0.50 / 1.00 ms |",
            "| processor while devices ask, of one core |  |  | 5.0 % | 5.0 % |",
            "| a deployment to all, five questions each | 60 min | 14 h | not run | not run |",
            "| unexpected answers, lost reports, wrong lists | 0 |  | 3 | 3 |",
            "| last page | 100 ms | 1 to 1.5 s | 1.00 / 2.00 ms | 1.00 / 2.00 ms |",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        assert_eq!(panels(&result)[3].lines[0].points, [(125_000.0, 1.0), (1_000_000.0, 1.0)]);
        assert!(panels(&result)[5].lines[0].points.is_empty());
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            [0, 999, 1000, 125_000, 1_000_000].map(grouped),
            ["0", "999", "1,000", "125,000", "1,000,000"]
        );
    }
}
