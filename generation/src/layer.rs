//! How layers add up: a bundle proposes options, a job file overrules it, flags overrule both.

use std::fmt;

use crate::{Allowed, GenerationLayer, GenerationOptions, Given, Method, OPTIONS, OptionError, OptionInfo};

/// Takes an option back where a value is expected; of a list, the empty list does.
const NONE: &str = "none";

impl GenerationLayer {
    /// Sets an option to the given value. `none` and null take back the values of lower layers.
    ///
    /// # Errors
    /// The value is of another type or out of range; nothing changes.
    ///
    /// # Panics
    /// `option` is not of [`OPTIONS`].
    pub fn set(&mut self, option: &OptionInfo, given: &Given) -> Result<(), OptionError> {
        let place = OPTIONS.iter().position(|known| known.name == option.name);
        let setting = &mut self.settings_mut()[place.expect("an option is one of the schema's")];
        let is_list = option.allowed == Allowed::Texts;
        if *given == Given::Null || (!is_list && *given == Given::Text(NONE.to_owned())) {
            setting.clear();
            return Ok(());
        }
        check_value(option, given)?;
        assert!(setting.set(given), "`{}` is allowed to be what its type cannot hold", option.name);
        Ok(())
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.settings().iter().all(|setting| setting.is_unset())
    }

    /// Whether it says something of an option.
    #[must_use]
    pub fn says(&self, option: &OptionInfo) -> bool {
        self.said().any(|(said, _)| said.name == option.name)
    }

    /// This layer on top of another one, as one layer: it overrules the other field by field. If it chooses a
    /// method, the other layer's options for other methods are discarded. If it takes a choice back, options
    /// that the remaining method does not use are discarded.
    #[must_use]
    pub fn over(&self, below: &GenerationLayer) -> GenerationLayer {
        let mut merged = below.clone();
        if self.settings_of_choice().any(|setting| setting.is_some()) {
            merged.keep_options_of(self.with_defaults().method());
        }
        for (setting, upper) in merged.settings_mut().into_iter().zip(self.settings()) {
            if upper.is_cleared() {
                setting.unset();
            }
        }
        let takes_a_choice_back =
            OPTIONS.iter().zip(self.settings()).any(|(option, s)| option.chooses_method && s.is_cleared());
        if takes_a_choice_back {
            let mut left = merged.clone();
            left.overlay(self);
            merged.keep_options_of(left.with_defaults().method());
        }
        merged.overlay(self);
        merged
    }

    /// Checks each value, whether the method uses it, and whether the values go together.
    pub(crate) fn check(&self) -> Result<(), OptionError> {
        for (option, setting) in OPTIONS.iter().zip(self.settings()) {
            if let Some(given) = setting.given() {
                check_value(option, &given)?;
            }
        }
        let options = self.with_defaults();
        let method = options.method();
        for (option, setting) in OPTIONS.iter().zip(self.settings()) {
            let Some(given) = setting.given().filter(|_| !option.is_used_by(method)) else { continue };
            // Every method has one beam and one output.
            let is_one = ["beams", "n_best"].contains(&option.name) && given == Given::Integer(1);
            if !is_one {
                return Err(refused(option.name, &given, option.where_it_is_used(&options)));
            }
        }
        if let Some(limit) = options.max_new_tokens {
            at_most("min_new_tokens", options.min_new_tokens, 0, limit)?;
        }
        options.text_rules(crate::TextTask::default())?;
        match method {
            Method::Beam => at_most("n_best", options.n_best, 1, options.beams),
            Method::Greedy | Method::Sample => Ok(()),
        }
    }

    /// The set options that choose a method.
    fn settings_of_choice(&self) -> impl Iterator<Item = Option<Given>> {
        let all = OPTIONS.iter().zip(self.settings());
        all.filter(|(option, _)| option.chooses_method).map(|(_, setting)| setting.given())
    }

    fn keep_options_of(&mut self, method: Method) {
        for (option, setting) in OPTIONS.iter().zip(self.settings_mut()) {
            if !option.is_used_by(method) {
                setting.unset();
            }
        }
    }

    /// Takes over the values that `upper` sets.
    fn overlay(&mut self, upper: &GenerationLayer) {
        for (setting, upper) in self.settings_mut().into_iter().zip(upper.settings()) {
            if let Some(given) = upper.given() {
                setting.set(&given);
            }
        }
    }

    /// The layer's values, option by option; null: it takes the option back.
    pub(crate) fn said(&self) -> impl Iterator<Item = (&'static OptionInfo, Given)> {
        let all = OPTIONS.iter().zip(self.settings()).filter(|(_, setting)| !setting.is_unset());
        all.map(|(option, setting)| (option, setting.given().unwrap_or(Given::Null)))
    }
}

/// As in `beams = 4, copy_bias = 6`.
impl fmt::Display for GenerationLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (option, given)) in self.said().enumerate() {
            f.write_str(if place > 0 { ", " } else { "" })?;
            match given {
                Given::Null => write!(f, "{} = {NONE}", option.name)?,
                given => write!(f, "{} = {given}", option.name)?,
            }
        }
        Ok(())
    }
}

impl GenerationOptions {
    /// The result of layers, the lowest first. It is checked: all its options can be used.
    ///
    /// # Errors
    /// A value out of range, an option that the method does not use, or options that contradict each other;
    /// the first is named.
    pub fn from_layers<'a>(
        layers: impl IntoIterator<Item = &'a GenerationLayer>,
    ) -> Result<Self, OptionError> {
        let merged = layers.into_iter().fold(GenerationLayer::default(), |below, layer| layer.over(&below));
        merged.check()?;
        Ok(merged.with_defaults())
    }
}

fn check_value(option: &OptionInfo, given: &Given) -> Result<(), OptionError> {
    match option.allowed.admits(given) {
        true => Ok(()),
        false => Err(refused(option.name, given, option.allowed.to_string())),
    }
}

fn refused(option: &'static str, given: &Given, allowed: String) -> OptionError {
    OptionError { option, value: given.to_string(), allowed }
}

pub(crate) fn at_most(option: &'static str, value: u32, least: u32, most: u32) -> Result<(), OptionError> {
    match value <= most {
        true => Ok(()),
        false => Err(refused(option, &Given::Integer(value.into()), format!("{least} to {most}"))),
    }
}
