//! Lists as tables.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::{Output, operation::progress};
use crate::{
    units,
    view::{Database, Instance, Operation},
};

impl Output {
    fn table(&self, head: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        match self.colour {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        table.set_header(head.iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }
}

/// Operations, one a line. `now` is for ages.
pub fn operations(output: &Output, operations: &[Operation], now: Timestamp) -> String {
    if operations.is_empty() {
        return "no operations".to_owned();
    }
    let mut table = output.table(&["ID", "KIND", "SOURCE", "DEST", "DATABASE", "STATUS", "DETAIL", "AGE"]);
    for operation in operations {
        table.add_row([
            Cell::new(&operation.id),
            Cell::new(&operation.kind),
            Cell::new(&operation.source),
            Cell::new(&operation.destination),
            Cell::new(&operation.database),
            Cell::new(&operation.status).fg(colour(&operation.state)),
            Cell::new(progress(operation)),
            Cell::new(operation.created.map_or_else(String::new, |created| age(created, now))),
        ]);
    }
    trimmed(&table)
}

/// Instances, one a line.
pub fn instances(output: &Output, instances: &[Instance]) -> String {
    if instances.is_empty() {
        return "no instances; make one known with `causeway instance register`".to_owned();
    }
    let mut table = output.table(&[
        "NAME",
        "ENGINE",
        "SOURCE AGENT",
        "DEST AGENT",
        "SUBSCRIPTION",
        "GROUP",
        "REGION",
        "FAILOVER GROUP",
    ]);
    for instance in instances {
        let transfer = match instance.transfer_address.as_str() {
            "" => String::new(),
            address => format!(" (transfer {address})"),
        };
        table.add_row([
            instance.name.clone(),
            instance.engine.clone(),
            or_dash(&instance.source_agent),
            format!("{}{transfer}", or_dash(&instance.dest_agent)),
            or_dash(&instance.subscription),
            or_dash(&instance.resource_group),
            or_dash(&instance.region),
            or_dash(&instance.failover_group),
        ]);
    }
    trimmed(&table)
}

/// Databases, one a line.
pub fn databases(output: &Output, databases: &[Database]) -> String {
    if databases.is_empty() {
        return "no databases".to_owned();
    }
    let mut table = output.table(&["NAME", "SIZE", "STATE", "OPERATION", "IN THE WAY OF A MOVE"]);
    for database in databases {
        let findings: Vec<&str> = database.findings.iter().map(|finding| finding.code.as_str()).collect();
        table.add_row([
            database.name.clone(),
            units::bytes(database.size_bytes),
            database.state.clone(),
            or_dash(&database.operation),
            or_dash(&findings.join(", ")),
        ]);
    }
    trimmed(&table)
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn age(created: Timestamp, now: Timestamp) -> String {
    let ms = now.as_millisecond().saturating_sub(created.as_millisecond());
    units::seconds(u64::try_from(ms / 1000).unwrap_or(0))
}

fn colour(state: &str) -> Color {
    match state {
        "succeeded" | "ready_for_completion" => Color::Green,
        "failed" => Color::Red,
        "cancelled" | "cancelling" => Color::Yellow,
        _ => Color::Reset,
    }
}

/// The padding after the last column is of no use to anybody.
fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
