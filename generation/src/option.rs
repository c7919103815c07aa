//! The facts about one option, apart from its value.

use crate::{Allowed, GenerationOptions, Method, OPTIONS};

/// One entry of the schema.
#[derive(Debug, Clone, Copy)]
pub struct OptionInfo {
    /// Name of the field, in job files and bundles too.
    pub name: &'static str,
    /// The meaning, in the schema's words; see [`OptionInfo::meaning`].
    pub(crate) help: &'static str,
    /// The default; in words if it is not a value.
    pub default: &'static str,
    /// The values that it may have.
    pub allowed: Allowed,
    /// The methods that use it; empty: all.
    pub(crate) used_by: &'static [Method],
    /// Whether setting it chooses the method.
    pub(crate) chooses_method: bool,
    /// The placeholder of the value in `--help`.
    pub value_name: &'static str,
    /// A value worth an example; empty: none.
    pub(crate) example: &'static str,
}

impl OptionInfo {
    pub(crate) const PLAIN: OptionInfo = OptionInfo {
        name: "",
        help: "",
        default: "",
        allowed: Allowed::Truth,
        used_by: &[],
        chooses_method: false,
        value_name: "",
        example: "",
    };

    /// The option of this name. A list is also known by the name of its flag (`stop_token`).
    #[must_use]
    pub fn named(name: &str) -> Option<&'static OptionInfo> {
        OPTIONS.iter().find(|option| option.name == name || option.flag().replace('-', "_") == name)
    }

    /// The option's effect: sentences in Markdown, on one line.
    #[must_use]
    pub fn meaning(&self) -> String {
        self.help.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The flag's name without its dashes. A list's flag is given once per item, so its name is the singular.
    #[must_use]
    pub fn flag(&self) -> String {
        let name = match self.allowed {
            Allowed::Texts => self.name.trim_end_matches('s'),
            _ => self.name,
        };
        name.replace('_', "-")
    }

    /// The environment variable for the flag.
    #[must_use]
    pub fn environment_variable(&self) -> String {
        format!("BATON_{}", self.flag().replace('-', "_").to_uppercase())
    }

    /// The text of `--help`: meaning, allowed values, default and example, in plain text.
    #[must_use]
    pub fn flag_help(&self) -> String {
        let mut help = self.meaning().replace('`', "");
        match self.allowed {
            Allowed::Texts => help += " May be given more than once.",
            Allowed::Truth => {}
            allowed => help += &format!(" Allowed: {allowed}."),
        }
        help += &format!(" Default: {}.", self.default);
        if !self.example.is_empty() {
            help += &format!(" Example: --{} {}", self.flag(), self.example);
        }
        help
    }

    /// Whether the method uses the option.
    #[must_use]
    pub fn is_used_by(&self, method: Method) -> bool {
        self.used_by.is_empty() || self.used_by.contains(&method)
    }

    /// The situation in which the option would be allowed, where the method of `options` does not use it.
    pub(crate) fn where_it_is_used(&self, options: &GenerationOptions) -> String {
        match (self.used_by, options.method()) {
            ([Method::Beam], _) => "only with `generation.beams` above 1".to_owned(),
            (_, Method::Beam) => format!("only without `generation.beams`, which is {}", options.beams),
            ([Method::Sample], _) => {
                "only with sampling: set `generation.temperature`, `top_k`, `top_p` or `min_p`".to_owned()
            }
            _ => format!("{} in greedy decoding; set `generation.beams` or `temperature`", self.default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Given;

    #[test]
    fn an_option_is_found_by_its_name_and_a_list_by_its_flag_too() {
        assert_eq!(OptionInfo::named("beams").unwrap().flag(), "beams");
        let list = OptionInfo::named("stop_strings").unwrap();
        assert_eq!(
            (list.flag(), list.environment_variable()),
            ("stop-string".into(), "BATON_STOP_STRING".into())
        );
        assert_eq!(OptionInfo::named("stop_string").unwrap().name, "stop_strings");
        assert!(OptionInfo::named("beam").is_none() && OptionInfo::named("").is_none());
    }

    #[test]
    fn every_entry_is_documented_with_its_true_default() {
        let defaults = GenerationOptions::default().given();
        for (option, default) in OPTIONS.iter().zip(&defaults) {
            assert!(option.meaning().ends_with('.') && !option.value_name.is_empty(), "{}", option.name);
            assert!(!option.default.is_empty() && option.chooses_method <= !option.used_by.is_empty());
            match default {
                Given::Null => {}
                Given::Texts(texts) => assert!(texts.is_empty()),
                given => {
                    assert_eq!(given.to_string().trim_matches('"'), option.default, "{}", option.name);
                    assert!(option.allowed.admits(given), "{}", option.name);
                }
            }
        }
    }

    #[test]
    fn help_has_the_meaning_the_allowed_values_the_default_and_an_example() {
        let help = OptionInfo::named("max_new_tokens").unwrap().flag_help();
        let expected = "Longest output, tokens, the end token included. The bundle's limit always holds. \
                        Allowed: 1 or more. Default: the bundle's limit. Example: --max-new-tokens 64";
        assert_eq!(help, expected);
    }
}
