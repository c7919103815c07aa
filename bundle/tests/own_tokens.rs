//! Small models that read tokens of their own: alone, or beside an LLM that they are aligned with by
//! characters.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

use baton_bundle::{
    Alignment, Bundle, BundleManifest, Fusion, Limits, ProjectorPart, PromptEmbeddingSource,
    arithmetic_of_mode, summarize, verify, write_manifest,
};
use baton_job::{GenerationLayer, Mode, ReaderContext, Setting};
use support::{TinyBundle, assert_says, manifest, vocabulary};

fn templates(template: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("default".to_owned(), template.to_owned())])
}

/// A small model alone.
fn alone() -> BundleManifest {
    let mut alone = manifest();
    alone.slm.as_mut().unwrap().templates = templates("1{text}</s>");
    BundleManifest {
        llm: None,
        projector: None,
        fusion: None,
        alignment: Alignment::Characters,
        modes: vec![Mode::Slm],
        templates: BTreeMap::new(),
        ..alone
    }
}

/// A small model beside an LLM.
fn aligned() -> BundleManifest {
    let projector =
        ProjectorPart { prompt_embedding: PromptEmbeddingSource::Slm, ..manifest().projector.unwrap() };
    BundleManifest {
        llm: manifest().llm,
        projector: Some(projector),
        fusion: Some(Fusion::Add),
        modes: vec![Mode::Hybrid, Mode::Slm, Mode::Llm],
        templates: manifest().templates,
        limits: Limits { max_slm_prompt_tokens: Some(20), ..manifest().limits },
        ..alone()
    }
}

fn tokens(ids: &[u32]) -> Vec<String> {
    ids.iter().map(|id| vocabulary()[*id as usize].clone()).collect()
}

#[test]
fn a_bundle_of_a_small_model_alone_has_and_needs_no_other_part() {
    let tiny = TinyBundle::unsealed();
    fs::remove_dir_all(tiny.file("llm")).unwrap();
    fs::remove_dir_all(tiny.file("projector")).unwrap();
    write_manifest(tiny.path(), alone()).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    let files: Vec<&str> = bundle.manifest().files.keys().map(String::as_str).collect();
    assert_eq!(files, ["slm/config.json", "slm/model.safetensors", "slm/tokenizer.json"]);
    assert_eq!(summarize(&bundle).unwrap().iter().map(|part| part.path).collect::<Vec<_>>(), ["slm"]);
    assert_says(&bundle.llm().unwrap_err(), &["there is no LLM", "only mode slm"]);
    let reading = bundle.prompt_reader(Mode::Slm, None).unwrap().read("12").unwrap();
    assert!(reading.llm_tokens.is_empty());
    assert_eq!(tokens(&reading.segments[0].tokens), ["1", "12", "</s>"]);
    assert_eq!((reading.num_tokens(), reading.prompt_lens()), (3, vec![3]));
    let (_, config) = bundle.small_model().unwrap();
    let parameters: usize =
        config.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    assert_eq!(arithmetic_of_mode(&bundle, Mode::Slm).unwrap().parameters, parameters as u64);
}

#[test]
fn each_model_reads_its_own_tokens_and_segments_take_the_states_of_their_characters() {
    let tiny = TinyBundle::unsealed();
    write_manifest(tiny.path(), aligned()).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    let reader = bundle.prompt_reader(Mode::Hybrid, None).unwrap();
    let text = "a 12 é";
    let segment =
        |range: Range<usize>| reader.record_segment(range.clone(), &text[range], |bytes| bytes).unwrap();
    let segments = vec![segment(0..2), segment(3..text.len())];
    let [reading] = &reader.read_record(text, segments, 20).unwrap()[..] else { panic!("one window") };
    let llm = ["<|im_start|>", "a", "Ġ1", "2", "Ġ", "Ã", "©", "<|im_end|>"];
    assert_eq!(tokens(&reading.llm_tokens), llm);
    let [first, second] = &reading.segments[..] else { panic!("two segments") };
    assert_eq!(tokens(&first.tokens), ["1", "a", "Ġ", "</s>"]);
    let of = |segment: &baton_bundle::SegmentPrompt| -> Vec<Vec<u32>> {
        (0..segment.tokens.len()).map(|token| segment.alignment.of_token(token).to_vec()).collect()
    };
    assert_eq!(of(first), [vec![], vec![1], vec![2], vec![]], "nothing for the template");
    // "1" of the template and "2" of the text are one token, which covers the 2 alone.
    assert_eq!(tokens(&second.tokens), ["12", "Ġ", "Ã", "©", "</s>"]);
    assert_eq!(of(second), [vec![3], vec![4], vec![5, 6], vec![5, 6], vec![]]);
    assert_eq!((reading.num_tokens(), reading.prompt_lens()), (8, vec![4, 5]));

    let alone = bundle.prompt_reader(Mode::Slm, None).unwrap().read(text).unwrap();
    assert!(alone.llm_tokens.is_empty() && alone.segments[0].alignment.num_tokens() == 0);
    let by_llm = bundle.prompt_reader(Mode::Llm, None).unwrap().read(text).unwrap();
    assert!(by_llm.segments.is_empty() && by_llm.llm_tokens == reading.llm_tokens);
}

#[test]
fn a_segment_may_lie_inside_the_one_before_it() {
    let tiny = TinyBundle::unsealed();
    write_manifest(tiny.path(), aligned()).unwrap();
    let bundle = verify(tiny.path()).unwrap();
    let reader = bundle.prompt_reader(Mode::Hybrid, None).unwrap();
    let text = "a (b) a a a b"; // the LLM has a token or two for each letter
    let segment =
        |range: Range<usize>| reader.record_segment(range.clone(), &text[range], |bytes| bytes).unwrap();
    let segments = || [0..7, 3..4, 8..text.len()].map(segment).to_vec();
    for limit in [32, 9, 6] {
        let readings = reader.read_record(text, segments(), limit).unwrap();
        let all: Vec<_> = readings.iter().flat_map(|reading| &reading.segments).collect();
        assert_eq!(all.len(), 3, "{limit}");
        for (segment, alone) in all.iter().zip(segments()) {
            assert_eq!(segment.tokens, alone.tokens.ids, "{limit}");
            let covered =
                (0..segment.tokens.len()).any(|token| !segment.alignment.of_token(token).is_empty());
            assert!(covered, "{limit}: each takes states");
        }
    }
}

#[test]
fn limits_count_each_models_own_tokens() {
    let tiny = TinyBundle::unsealed();
    write_manifest(tiny.path(), aligned()).unwrap();
    let bundle = Bundle::open(tiny.path()).unwrap();
    let limits = bundle.manifest().limits;
    let excess =
        |mode, text: &str| bundle.prompt_reader(mode, None).unwrap().read(text).unwrap().excess(limits);
    assert_eq!(excess(Mode::Hybrid, &"a".repeat(18)), None);
    let of_slm = "21 tokens of the small model; the bundle reads at most 20".to_owned();
    assert_eq!(excess(Mode::Hybrid, &"a".repeat(19)), Some(of_slm.clone()));
    assert_eq!(excess(Mode::Slm, &"a".repeat(19)), Some(of_slm));
    assert_eq!(excess(Mode::Llm, &"a".repeat(19)), None);
    let of_llm = "33 tokens; the bundle reads at most 32".to_owned();
    assert_eq!(excess(Mode::Llm, &"a".repeat(31)), Some(of_llm));
}

fn reads_records() -> GenerationLayer {
    GenerationLayer { reader_context: Setting::To(ReaderContext::Record), ..GenerationLayer::default() }
}

#[test]
fn a_bundle_can_propose_that_its_llm_reads_whole_records() {
    let tiny = TinyBundle::unsealed();
    let mut manifest = aligned();
    manifest.generation.insert(Mode::Hybrid, reads_records());
    write_manifest(tiny.path(), manifest).unwrap();
    let bundle = Bundle::open(tiny.path()).unwrap();
    assert_eq!(bundle.manifest().generation[&Mode::Hybrid].to_string(), "reader_context = \"record\"");
    let reads_records = |mode| bundle.prompt_reader(mode, None).unwrap().reads_records();
    assert_eq!([Mode::Hybrid, Mode::Slm, Mode::Llm].map(reads_records), [true, false, false]);
}

#[test]
fn a_manifest_that_mixes_up_the_two_alignments_is_refused() {
    type Make = fn() -> BundleManifest;
    type Spoil = fn(&mut BundleManifest);
    let cases: [(Make, Spoil, &str); 16] = [
        (alone, |m| m.slm = None, "there is no model"),
        (alone, |m| m.alignment = Alignment::Tokens, "a small model needs all of"),
        (alone, |m| m.projector = manifest().projector, "there is a `projector`, but no `llm`"),
        (alone, |m| m.templates = templates("<|im_start|>{text}"), "`templates` are the LLM's"),
        (alone, |m| m.slm.as_mut().unwrap().templates.clear(), "`slm.templates` has no `default`"),
        (
            alone,
            |m| m.slm.as_mut().unwrap().templates = templates("</s>"),
            "`slm.templates.default` has no {text}",
        ),
        (alone, |m| m.fusion = Some(Fusion::Add), "`fusion` must be `add`, and absent without a projector"),
        (aligned, |m| m.fusion = Some(Fusion::Replace), "`fusion` must be `add`"),
        (aligned, |m| m.projector = None, "`modes` has `hybrid`, but there is no `projector`"),
        (
            aligned,
            |m| m.projector.as_mut().unwrap().prompt_embedding = PromptEmbeddingSource::Llm,
            "`projector.prompt_embedding` must be `slm`",
        ),
        (
            aligned,
            |m| drop(m.templates.insert("formal".to_owned(), "<|im_start|>{text}".to_owned())),
            "`templates` and `slm.templates` have different names",
        ),
        (aligned, |m| m.modes.push(Mode::Verified), "drafts need the LLM's tokens"),
        (aligned, |m| m.limits.max_slm_prompt_tokens = Some(0), "a number in `limits` is 0"),
        (
            aligned,
            |m| drop(m.generation.insert(Mode::Slm, reads_records())),
            "`generation.slm` is not possible: the bundle cannot read whole records in mode slm",
        ),
        (
            aligned,
            |m| {
                let projector = m.projector.as_mut().unwrap();
                (projector.depth, projector.blocks) = (1, 2);
            },
            "`projector.blocks` is 2, so `projector.depth` must be at least 2",
        ),
        (
            manifest,
            |m| m.slm.as_mut().unwrap().templates = templates("{text}</s>"),
            "`slm.templates` belongs to `alignment` `characters`",
        ),
    ];
    for (made, spoil, problem) in cases {
        let tiny = TinyBundle::unsealed();
        let mut spoiled = made();
        spoil(&mut spoiled);
        assert_says(&write_manifest(tiny.path(), spoiled).unwrap_err(), &["bundle.json", problem]);
    }
}
