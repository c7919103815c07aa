//! The options as a table for people.

use crate::{Method, OPTIONS};

/// All options as a Markdown table, ending with a newline. `docs/reference/generation.md` has it.
#[must_use]
pub fn options_table() -> String {
    let mut table =
        String::from("| option | flag | allowed | default | with | meaning |\n|---|---|---|---|---|---|\n");
    for option in OPTIONS {
        let used_by: Vec<&str> = option.used_by.iter().map(|method| name(*method)).collect();
        let with = if used_by.is_empty() { "any method".to_owned() } else { used_by.join(", ") };
        table += &format!(
            "| `{}` | `--{}` | {} | {} | {with} | {} |\n",
            option.name,
            option.flag(),
            option.allowed,
            option.default,
            option.meaning()
        );
    }
    table
}

fn name(method: Method) -> &'static str {
    match method {
        Method::Greedy => "greedy",
        Method::Beam => "beam search",
        Method::Sample => "sampling",
    }
}
