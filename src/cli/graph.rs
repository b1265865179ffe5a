//! `projector validate --graph`: what flows into what, as a Mermaid flowchart (<https://mermaid.js.org/syntax/flowchart.html>).

use crate::plan::derived::Via;
use crate::plan::{Plan, Table};

/// Draws projections: topics, the tables that they feed, and the columns that follow from other tables.
pub fn graph(plans: &[Plan]) -> String {
    let mut lines = vec!["flowchart LR".to_string()];
    for plan in plans {
        lines.push(format!("    subgraph {}", plan.name));
        for table in &plan.tables {
            let shape = if table.served { ("[[", "]]") } else { ("[", "]") };
            lines.push(format!("        {}{}{}{}", node(plan, table), shape.0, table.name, shape.1));
        }
        for edge in &plan.edges {
            let (from, to) = (&plan.tables[edge.from], &plan.tables[edge.to]);
            let (columns, arrow): (Vec<u16>, &str) = match edge.via {
                Via::Join(at) => (to.joins[at].fill.iter().map(|(column, _)| *column).collect(), "-->"),
                Via::Rollup(at) => (to.rollups[at].fills(), "==>"),
            };
            let names: Vec<&str> = columns
                .iter()
                .map(|at| to.columns[usize::from(*at)].name.as_str())
                .filter(|name| !name.starts_with("projector_"))
                .collect();
            lines.push(format!("        {} {arrow}|{}| {}", node(plan, from), names.join(", "), node(plan, to)));
        }
        lines.push("    end".to_string());
        for (at, source) in plan.sources.iter().enumerate() {
            let fed = |table: &&Table| table.handlers.iter().any(|handler| handler.source == at);
            for table in plan.tables.iter().filter(fed) {
                let topic = source.topics.to_string().replace('"', "'");
                lines.push(format!("    {}_{}([\"{topic}\"]) --> {}", plan.name, source.name, node(plan, table)));
            }
        }
    }
    lines.join("\n") + "\n"
}

fn node(plan: &Plan, table: &Table) -> String {
    format!("{}.{}", plan.name, table.name)
}
