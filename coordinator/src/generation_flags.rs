//! The flags of generation options, one for each option of the schema. Each overrules one field of the job
//! file's `[generation]`, and the same field of the bundle's proposal.

use std::sync::LazyLock;

use baton_generation::{Allowed, GenerationLayer, Given, OPTIONS, OptionError, OptionInfo};
use clap::builder::{StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// The flags' values for the generation options, not yet checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct GenerationArgs(Vec<(&'static OptionInfo, Given)>);

impl GenerationArgs {
    /// The options that flags set.
    ///
    /// # Errors
    /// An option may not have its value; the first such option is named.
    pub(crate) fn layer(&self) -> Result<GenerationLayer, OptionError> {
        let mut layer = GenerationLayer::default();
        self.0.iter().try_for_each(|(option, given)| layer.set(option, given))?;
        Ok(layer)
    }
}

impl clap::Args for GenerationArgs {
    fn augment_args(command: Command) -> Command {
        command.next_help_heading("Generation").args(OPTIONS.iter().zip(NAMES.iter()).map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for GenerationArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |option: &'static OptionInfo| match option.allowed {
            Allowed::Texts => matches.get_many::<String>(option.name).map(|texts| list_of(texts.cloned())),
            _ => matches.get_one::<Given>(option.name).cloned(),
        };
        Ok(Self(OPTIONS.iter().filter_map(|option| Some((option, given(option)?))).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// One empty text means an empty list, which takes back the list of lower layers.
fn list_of(texts: impl Iterator<Item = String>) -> Given {
    let texts: Vec<String> = texts.collect();
    Given::Texts(if texts == [""] { Vec::new() } else { texts })
}

/// The names of a flag. clap needs them to live long.
struct Names {
    flag: String,
    environment_variable: String,
    /// For a list, its name in job files, which the command line accepts too.
    in_job_files: String,
}

/// In the order of the options.
static NAMES: LazyLock<Vec<Names>> = LazyLock::new(|| {
    let names = |option: &OptionInfo| Names {
        flag: option.flag(),
        environment_variable: option.environment_variable(),
        in_job_files: option.name.replace('_', "-"),
    };
    OPTIONS.iter().map(names).collect()
});

fn flag((option, names): (&'static OptionInfo, &'static Names)) -> Arg {
    let arg = Arg::new(option.name)
        .long(names.flag.as_str())
        .env(names.environment_variable.as_str())
        .value_name(option.value_name)
        .help(option.flag_help());
    let parser = StringValueParser::new().map(|text| Given::of_flag(&text));
    match option.allowed {
        Allowed::Texts => {
            arg.alias(names.in_job_files.as_str()).action(ArgAction::Append).allow_hyphen_values(true)
        }
        Allowed::Text => arg.value_parser(StringValueParser::new().map(Given::Text)),
        Allowed::Truth => arg.num_args(0..=1).default_missing_value("true").value_parser(parser),
        // A number below zero is then refused as such, and not as an unknown flag.
        _ => arg.allow_hyphen_values(true).value_parser(parser),
    }
}

#[cfg(test)]
mod tests {
    use baton_job::GenerationOptions;
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        generation: GenerationArgs,
    }

    fn parse(flags: &str) -> Result<GenerationLayer, OptionError> {
        let command = Command::try_parse_from(["run"].into_iter().chain(flags.split_whitespace())).unwrap();
        command.generation.layer()
    }

    fn in_toml(toml: &str) -> GenerationLayer {
        let file = format!("[generation]\n{}", toml.replace(", ", "\n"));
        baton_job::JobFile::from_toml(&file, "job.toml").unwrap().generation
    }

    #[test]
    fn each_flag_sets_its_field() {
        for option in OPTIONS {
            let flag = option.flag();
            let (flags, given) = match option.allowed {
                Allowed::Truth => (format!("--{flag}"), Given::Truth(true)),
                Allowed::Integers(least, _) => (format!("--{flag} {least}"), Given::Integer(least.into())),
                Allowed::Numbers(least, _) => (format!("--{flag} {least}"), Given::Number(least)),
                Allowed::Names(names) => (format!("--{flag} {}", names[0]), Given::Text(names[0].into())),
                Allowed::Text => (format!("--{flag} 1e3"), Given::Text("1e3".into())),
                Allowed::Texts => {
                    let in_job_files = option.name.replace('_', "-");
                    let texts = vec!["-x".into(), "none".into()];
                    (format!("--{flag} -x --{in_job_files} none"), Given::Texts(texts))
                }
            };
            let mut expected = GenerationLayer::default();
            expected.set(option, &given).unwrap();
            assert_eq!(parse(&flags).unwrap(), expected, "{flags}");
        }
    }

    #[test]
    fn options_without_a_flag_are_not_set() {
        assert!(parse("").unwrap().is_empty());
        assert_eq!(
            parse("--beams 1 --by-sentence false").unwrap().to_string(),
            "beams = 1, by_sentence = false"
        );
    }

    #[test]
    fn a_forbidden_value_is_refused_by_name_with_the_allowed_ones() {
        for (flags, message) in [
            ("--beams -1", "`generation.beams` is -1; allowed: 1 to 64"),
            ("--beams four", "`generation.beams` is \"four\"; allowed: 1 to 64"),
            ("--temperature nan", "`generation.temperature` is nan; allowed: 0.000001 to 1000"),
            ("--temperature -inf", "`generation.temperature` is -inf; allowed: 0.000001 to 1000"),
            ("--repetition-penalty 1e-45", "`generation.repetition_penalty` is 1e-45; allowed: 0.01 to 100"),
            ("--length-penalty -inf", "`generation.length_penalty` is -inf; allowed: -8 to 8"),
            (
                "--early-stopping soon",
                "`generation.early_stopping` is \"soon\"; allowed: heuristic, at_once, never",
            ),
            ("--by-sentence=maybe", "`generation.by_sentence` is \"maybe\"; allowed: true or false"),
            ("--top-k --seed", "`generation.top_k` is \"--seed\"; allowed: 1 or more"),
            (
                "--stop-string a --stop-string=",
                "`generation.stop_strings` is [\"a\", \"\"]; allowed: non-empty strings",
            ),
        ] {
            assert_eq!(parse(flags).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn none_takes_back_a_job_files_option() {
        let in_file = in_toml("temperature = 0.7, top_k = 50, by_sentence = true, stop_strings = ['x']");
        let in_flags = parse("--top-k none --by-sentence=none --stop-string=").unwrap();
        let options = GenerationOptions::from_layers([&in_file, &in_flags]).unwrap();
        assert_eq!(options.said().to_string(), "temperature = 0.7");
    }
}
