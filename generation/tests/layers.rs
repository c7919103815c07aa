//! The combination of a bundle's proposal, a job file and flags, and refusals.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use baton_generation::{
    Allowed, EarlyStopping, GenerationLayer, GenerationOptions, Given, Method, OPTIONS, OptionError,
    OptionInfo, Setting,
};

fn layer(toml: &str) -> GenerationLayer {
    toml::from_str(toml).unwrap()
}

fn options(layers: &[&str]) -> Result<GenerationOptions, OptionError> {
    let layers: Vec<GenerationLayer> = layers.iter().map(|toml| layer(toml)).collect();
    GenerationOptions::from_layers(&layers)
}

fn resolved(layers: &[&str]) -> GenerationOptions {
    options(layers).unwrap()
}

#[test]
fn nothing_said_leaves_the_defaults() {
    assert_eq!(resolved(&["", ""]), GenerationOptions::default());
    assert!(layer("").is_empty() && GenerationOptions::default().said().is_empty());
}

#[test]
fn the_options_that_are_set_decide_the_method() {
    let method = |toml: &str| resolved(&[toml]).method();
    assert_eq!(method(""), Method::Greedy);
    assert_eq!(method("repetition_penalty = 1.2\nno_repeat_ngram = 3"), Method::Greedy);
    assert_eq!(method("beams = 4\nlength_penalty = 0.6\nearly_stopping = 'at_once'"), Method::Beam);
    for choice in ["temperature = 1", "top_k = 5", "top_p = 0.9", "min_p = 0.1"] {
        assert_eq!(method(choice), Method::Sample, "{choice}");
    }
}

#[test]
fn each_sequence_counts() {
    let sequences = |toml: &str| resolved(&[toml]).sequences_per_record();
    assert_eq!(sequences(""), 1);
    assert_eq!(sequences("beams = 4\nn_best = 2"), 4);
    assert_eq!(sequences("temperature = 0.7\nn_best = 3"), 3);
}

#[test]
fn a_later_layer_overrules_field_by_field() {
    let options = resolved(&[
        "beams = 4\ncopy_bias = 6.0\nstop_strings = ['x']",
        "copy_bias = 0.5",
        "length_penalty = 0.5\nearly_stopping = 'never'\nstop_strings = ['y', 'z']",
    ]);
    let expected = GenerationOptions {
        beams: 4,
        copy_bias: 0.5,
        length_penalty: 0.5,
        early_stopping: EarlyStopping::Never,
        stop_strings: vec!["y".into(), "z".into()],
        ..Default::default()
    };
    assert_eq!(options, expected);
    assert_eq!(
        options.said().to_string(),
        "beams = 4, length_penalty = 0.5, early_stopping = \"never\", copy_bias = 0.5, \
         stop_strings = [\"y\", \"z\"]"
    );
}

#[test]
fn a_method_that_a_later_layer_chooses_takes_the_place_of_an_earlier_one() {
    let beams = "beams = 4\nlength_penalty = 0.5\nearly_stopping = 'never'\nn_best = 2\ncopy_bias = 6.0";
    let sampled = resolved(&[beams, "temperature = 0.7"]);
    assert_eq!(sampled, resolved(&["n_best = 2\ncopy_bias = 6.0\ntemperature = 0.7"]));

    assert_eq!(resolved(&[beams, "beams = 1"]), resolved(&["copy_bias = 6.0"]));
    assert_eq!(resolved(&[beams, "beams = 8"]).length_penalty, 0.5);

    let sampling = "temperature = 0.7\ntop_p = 0.9\nseed = 3";
    assert_eq!(resolved(&[sampling, "beams = 2"]), resolved(&["beams = 2"]));
    assert_eq!(resolved(&[sampling, "beams = 1"]), GenerationOptions::default());
    assert!(options(&["beams = 4\ntemperature = 0.7"]).is_err(), "one layer that chooses two");
}

#[test]
fn none_resets_an_option_of_lower_layers() {
    let below = "temperature = 0.7\ntop_k = 50\nmax_new_tokens = 9\nstop_strings = ['x']";
    let taken_back = resolved(&[below, "top_k = 'none'\nmax_new_tokens = 'none'\nstop_strings = []"]);
    assert_eq!(taken_back, resolved(&["temperature = 0.7"]));
    assert_eq!(resolved(&[below, "top_k = 'none'", "top_k = 3"]).top_k, Some(3), "but not what is above");
    assert_eq!(resolved(&["copy_bias = 6.0", "copy_bias = 'none'"]), GenerationOptions::default());
    assert_eq!(layer("top_k = 'none'").top_k, Setting::Cleared);
    assert_eq!(layer("top_k = 'none'\nbeams = 2").to_string(), "beams = 2, top_k = none");
}

#[test]
fn a_choice_taken_back_takes_the_options_of_its_method_with_it() {
    let beams = "beams = 4\nlength_penalty = 0.5\nn_best = 2\ncopy_bias = 6.0";
    assert_eq!(resolved(&[beams, "beams = 'none'"]), resolved(&["copy_bias = 6.0"]));
    let sampling = "top_k = 50\nseed = 3\nn_best = 2";
    assert_eq!(resolved(&[sampling, "top_k = 'none'"]), GenerationOptions::default());
    assert_eq!(
        resolved(&[sampling, "top_k = 'none'\ntop_p = 0.5"]),
        resolved(&["seed = 3\nn_best = 2\ntop_p = 0.5"])
    );
    assert_eq!(resolved(&["temperature = 0.7", "beams = 'none'"]), resolved(&["temperature = 0.7"]));
}

#[test]
fn values_out_of_range_are_refused_by_name_wherever_they_come_from() {
    let cases = [
        ("max_new_tokens", "0"),
        ("max_new_tokens", "-1"),
        ("max_new_tokens", "4294967296"),
        ("max_new_tokens", "1.5"),
        ("max_new_tokens_per_prompt_token", "-1.0"),
        ("min_new_tokens_per_prompt_token", "0.0"),
        ("min_new_tokens_per_prompt_token", "inf"),
        ("beams", "0"),
        ("beams", "65"),
        ("beams", "-1"),
        ("length_penalty", "inf"),
        ("length_penalty", "-inf"),
        ("length_penalty", "nan"),
        ("length_penalty", "1e300"),
        ("early_stopping", "soon"),
        ("temperature", "0.0"),
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("temperature", "1e-40"),
        ("top_k", "0"),
        ("top_p", "1.5"),
        ("top_p", "nan"),
        ("min_p", "0.0"),
        ("seed", "-1"),
        ("repetition_penalty", "0.0"),
        ("repetition_penalty", "inf"),
        ("repetition_penalty", "1e-45"),
        ("copy_bias", "-1.0"),
        ("copy_bias", "nan"),
        ("name_bias", "inf"),
        ("by_sentence", "1"),
        ("n_best", "0"),
    ];
    for (name, value) in cases {
        let option = OptionInfo::named(name).unwrap();
        let mut of_flag = GenerationLayer::default();
        let refused = of_flag.set(option, &Given::of_flag(value)).unwrap_err();
        assert_eq!((refused.option, refused.allowed), (name, option.allowed.to_string()), "{value}");
        assert!(of_flag.is_empty(), "nothing is set");

        let quoted = if value == "soon" { "'soon'" } else { value };
        let error = toml::from_str::<GenerationLayer>(&format!("\n{name} = {quoted}\n")).unwrap_err();
        assert!(error.message().starts_with(&format!("`generation.{name}` is ")), "{value}: {error}");
        assert_eq!(error.span().map(|span| span.start), Some(name.len() + 4), "the value's place: {error}");
    }
    assert!(toml::from_str::<GenerationLayer>("stop_tokens = ['']").is_err());
    assert!(toml::from_str::<GenerationLayer>("stop_strings = 'x'").is_err(), "a list is a list");
}

#[test]
fn options_that_nothing_uses_or_that_contradict_each_other_are_refused_by_name() {
    let cases = [
        ("max_new_tokens = 4\nmin_new_tokens = 5", "min_new_tokens", "0 to 4"),
        ("beams = 4\ntemperature = 0.7", "temperature", "only without `generation.beams`, which is 4"),
        ("beams = 4\ntop_k = 5", "top_k", "only without"),
        ("beams = 4\ntop_p = 0.5", "top_p", "only without"),
        ("beams = 4\nmin_p = 0.5", "min_p", "only without"),
        ("beams = 4\nseed = 1", "seed", "only without"),
        ("beams = 4\nn_best = 5", "n_best", "1 to 4"),
        ("temperature = 0.7\nlength_penalty = 1.0", "length_penalty", "only with `generation.beams` above 1"),
        ("temperature = 0.7\nearly_stopping = 'never'", "early_stopping", "only with"),
        ("length_penalty = 1.0", "length_penalty", "only with"),
        ("early_stopping = 'never'", "early_stopping", "only with"),
        ("seed = 1", "seed", "only with sampling: set `generation.temperature`"),
        ("n_best = 2", "n_best", "1 in greedy decoding"),
    ];
    for (toml, option, allowed) in cases {
        let error = options(&[toml]).unwrap_err();
        assert_eq!(error.option, option, "{toml}");
        assert!(error.allowed.starts_with(allowed), "{toml}: {error}");
    }
}

#[test]
fn options_that_go_together_are_accepted() {
    for toml in [
        "beams = 64\nn_best = 64\nlength_penalty = -1.0\nearly_stopping = 'never'\nrepetition_penalty = 0.9",
        "temperature = 0.7\ntop_k = 50\ntop_p = 1.0\nmin_p = 0.05\nseed = 1\nn_best = 8\nstop_strings = \
         ['q']",
        "min_new_tokens = 9\nmin_new_tokens_per_prompt_token = 0.5\nno_repeat_ngram = 3\nstop_tokens = ['.']",
        "beams = 1\nn_best = 1\ntop_k = 1",
    ] {
        resolved(&[toml]).validate().unwrap();
    }
}

#[test]
fn an_option_that_there_is_not_or_that_is_set_twice_is_named() {
    let error = toml::from_str::<GenerationLayer>("beam = 4").unwrap_err();
    assert!(error.message().starts_with("unknown field `beam`"), "{error}");
    let error = toml::from_str::<GenerationLayer>("stop_token = ['a']\nstop_tokens = ['b']").unwrap_err();
    assert!(error.message().starts_with("duplicate field `stop_tokens`"), "{error}");
    assert_eq!(layer("stop_string = ['a']").to_string(), "stop_strings = [\"a\"]");
}

/// A value of an option that is not its default.
fn some_value(option: &OptionInfo) -> Given {
    match option.allowed {
        Allowed::Truth => Given::Truth(option.default != "true"),
        Allowed::Integers(_, most) if most == u64::MAX => Given::Integer(most.into()),
        Allowed::Integers(least, _) => Given::Integer(i128::from(least) + 2),
        Allowed::Numbers(least, _) => Given::Number(least + 0.7),
        Allowed::Names(names) => Given::Text(names[names.len() - 1].to_owned()),
        // The values are names of kinds.
        Allowed::Text => Given::Text("eng_Latn".into()),
        Allowed::Texts if option.name == "unprotected" => Given::Texts(vec!["emoji".into()]),
        Allowed::Texts => Given::Texts(vec!["</s>".into(), "none".into()]),
    }
}

#[test]
fn every_option_survives_the_wire() {
    for method in [Method::Greedy, Method::Beam, Method::Sample] {
        let mut layer = GenerationLayer::default();
        for option in OPTIONS.iter().filter(|option| option.is_used_by(method)) {
            layer.set(option, &some_value(option)).unwrap();
        }
        let options = GenerationOptions::from_layers([&layer]).unwrap();
        assert_eq!((options.method(), options.said()), (method, layer.clone()));
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<GenerationOptions>(&json).unwrap(), options);
        let json = serde_json::to_string(&layer).unwrap();
        assert_eq!(serde_json::from_str::<GenerationLayer>(&json).unwrap(), layer);
    }
    let defaults = serde_json::to_string(&GenerationOptions::default()).unwrap();
    assert_eq!(serde_json::from_str::<GenerationOptions>(&defaults).unwrap(), GenerationOptions::default());
}

#[test]
fn options_from_the_wire_are_checked() {
    for (json, piece) in [
        (r#"{"beams":65}"#, "`generation.beams` is 65; allowed: 1 to 64"),
        (r#"{"beams":4,"temperature":0.5}"#, "only without `generation.beams`"),
        (r#"{"beam":4}"#, "unknown field `beam`"),
        (r#"{"beams":4"#, "EOF"),
        ("[]", "generation options by name"),
    ] {
        let error = serde_json::from_str::<GenerationOptions>(json).unwrap_err().to_string();
        assert!(error.contains(piece), "{json}: {error}");
    }
}

#[test]
fn a_number_that_is_not_finite_is_neither_written_nor_swallowed() {
    let options = GenerationOptions { temperature: Some(f64::NAN), ..Default::default() };
    assert_eq!(options.validate().unwrap_err().option, "temperature");
    assert!(serde_json::to_string(&options).unwrap_err().to_string().contains("not a finite number"));
    let options = GenerationOptions { repetition_penalty: f64::INFINITY, ..Default::default() };
    assert_eq!(options.validate().unwrap_err().option, "repetition_penalty");
    assert!(serde_json::to_string(&options).is_err());
}
