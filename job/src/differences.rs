//! The differences between two definitions of a job's output, in words.

use crate::OutputDefinition;

impl OutputDefinition {
    /// Names each field in which `current` differs from this recorded definition, with both values.
    pub fn differences(&self, current: &OutputDefinition) -> Vec<String> {
        let mut differences = Vec::new();
        collect_differences("", &as_json(self), &as_json(current), &mut differences);
        differences
    }
}

fn as_json(definition: &OutputDefinition) -> serde_json::Value {
    serde_json::to_value(definition).expect("a definition was validated and has string keys")
}

fn collect_differences(
    field: &str,
    recorded: &serde_json::Value,
    current: &serde_json::Value,
    differences: &mut Vec<String>,
) {
    if let (Some(recorded), Some(current)) = (recorded.as_object(), current.as_object()) {
        for (name, value) in recorded {
            let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            collect_differences(&field, value, &current[name], differences);
        }
    } else if let (Some(recorded), Some(current)) = (recorded.as_array(), current.as_array())
        && recorded.len() == current.len()
        && recorded.iter().chain(current).all(serde_json::Value::is_object)
    {
        for (place, (recorded, current)) in recorded.iter().zip(current).enumerate() {
            collect_differences(&format!("{field}.{place}"), recorded, current, differences);
        }
    } else if recorded != current {
        differences.push(format!("`{field}` was {recorded}, now {current}"));
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::tests::valid;
    use crate::{GenerationOptions, JobSpec, Mode, Tier};

    #[test]
    fn a_cascade_differs_from_its_last_mode_and_from_one_with_another_threshold() {
        let recorded = valid();
        let tier = |threshold: Option<&str>| Tier {
            name: "hybrid".into(),
            mode: Mode::Hybrid,
            generation: GenerationOptions::default(),
            threshold: threshold.map(|threshold| threshold.parse().unwrap()),
        };
        let with = |threshold| JobSpec { tiers: vec![tier(Some(threshold)), tier(None)], ..valid() };
        let differences =
            |a: &JobSpec, b: &JobSpec| a.output_definition().differences(&b.output_definition());
        assert_eq!(differences(&recorded, &with("0.5")).len(), 1);
        assert_eq!(
            differences(&with("0.25"), &with("0.5")),
            ["`tiers.0.threshold` was \"0.25\", now \"0.5\""]
        );
    }

    #[test]
    fn differences_name_each_field_with_both_values() {
        let recorded = valid();
        let mut current = valid();
        current.output = "elsewhere".into(); // where output goes does not define its bytes
        current.mode = Mode::Slm;
        current.generation.max_new_tokens_per_prompt_token = Some(1.2);
        assert_eq!(
            recorded.output_definition().differences(&current.output_definition()),
            [
                "`mode` was \"hybrid\", now \"slm\"",
                "`generation.max_new_tokens_per_prompt_token` was null, now 1.2"
            ]
        );
        assert!(recorded.output_definition().differences(&recorded.output_definition()).is_empty());
    }
}
