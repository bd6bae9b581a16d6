//! A table of options for a page of the documentation.

use crate::help::spelled;
use crate::{Command, Program, Shown};

/// The options of a command, in the order of its help: how each is written, and what it does.
pub fn options(program: &Program, command: &Command) -> String {
    let mut table = "| option | |\n| --- | --- |\n".to_owned();
    for flag in program.taken_by(command).iter().filter(|flag| flag.shown == Shown::Everywhere) {
        // A bar would end the cell, also between backquotes.
        let cell = |text: &str| text.replace('\n', " ").replace('|', "\\|");
        table += &format!("| `{}` | {} |\n", cell(&spelled(flag)), cell(&flag.explained()));
    }
    table
}

#[cfg(test)]
mod tests {
    use crate::rust_ota_server::PROGRAM;

    #[test]
    fn a_table_has_a_row_for_each_option_with_its_value_and_its_default() {
        let serve = PROGRAM.command("serve").unwrap();
        let table = super::options(&PROGRAM, serve);
        for row in [
            "| `--threads N` | threads that serve (2) |\n",
            "| `--log-format text\\|json` | how a line of the log is written (text) |\n",
            "| `--user NAME:PASSWORD` | let this person log in; read from the environment variable RUST_OTA_SERVER_USER when \
             the option is not there |\n",
        ] {
            assert!(table.contains(row), "{row} is not in\n{table}");
        }
        assert_eq!(table.lines().count(), PROGRAM.taken_by(serve).len() + 2);
    }
}
