//! Glossaries: fifty terms with a real translator, and terms of a record's own with a model that writes
//! noise.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{Ended, Job, baton, imported_small_model};

/// Terms that the student would often write otherwise: nouns of a library, and what they are to be called.
const TERMS: [(&str, &str); 50] = [
    ("library", "biblioteca pública"),
    ("reader", "usuário"),
    ("book", "obra"),
    ("page", "folha"),
    ("shelf", "estante"),
    ("room", "salão"),
    ("window", "vidraça"),
    ("table", "mesa de leitura"),
    ("lamp", "luminária"),
    ("door", "portão"),
    ("key", "chave-mestra"),
    ("garden", "pátio"),
    ("tree", "árvore"),
    ("river", "ribeirão"),
    ("bridge", "viaduto"),
    ("street", "alameda"),
    ("city", "município"),
    ("school", "colégio"),
    ("teacher", "docente"),
    ("student", "aluno"),
    ("lesson", "aula"),
    ("question", "pergunta"),
    ("answer", "resposta"),
    ("letter", "missiva"),
    ("word", "vocábulo"),
    ("language", "idioma"),
    ("story", "conto"),
    ("author", "escritor"),
    ("writer", "redator"),
    ("newspaper", "periódico"),
    ("picture", "gravura"),
    ("map", "carta geográfica"),
    ("ship", "navio"),
    ("train", "comboio"),
    ("station", "terminal"),
    ("ticket", "bilhete"),
    ("price", "preço"),
    ("money", "dinheiro"),
    ("bank", "instituição bancária"),
    ("market", "feira"),
    ("bread", "pão"),
    ("water", "água"),
    ("wine", "vinho"),
    ("kitchen", "copa"),
    ("house", "residência"),
    ("roof", "telhado"),
    ("wall", "parede"),
    ("floor", "piso"),
    ("clock", "relógio"),
    ("bell", "sino"),
];

/// Two terms each.
const SENTENCES: [&str; 4] = [
    "The # is near the #, as everybody here knows.",
    "Nobody has seen the # since the # was painted last summer.",
    "We talked about the # and the old # for a while.",
    "Is the # older than the #?",
];

/// The Firefox student for English to Portuguese as a bundle.
fn student(directory: &Path) -> PathBuf {
    let students = std::env::var_os("BATON_STUDENTS_DIR").map(PathBuf::from);
    let files = students.map(|students| students.join("enpt")).filter(|files| files.exists());
    let files = files.expect("BATON_STUDENTS_DIR must name the Firefox students: run `make test`");
    let bundle = directory.join("student");
    let mut import = baton();
    import.args(["bundle", "import-slm", "--source-language", "en", "--target-language", "pt_BR", "--from"]);
    let imported = Ended::from(import.arg(files).arg("--out").arg(&bundle).output().unwrap());
    assert_eq!(imported.code, Some(0), "{}", imported.stderr);
    bundle
}

fn manifest(job: &Job) -> Value {
    serde_json::from_slice(&job.contents()["_SUCCESS"]).unwrap()
}

#[test]
fn a_translator_obeys_a_glossary_of_fifty_terms() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = student(directory.path());
    let glossary = directory.path().join("terms.tsv");
    let lines: Vec<String> = TERMS.iter().map(|(source, target)| format!("{source}\t{target}\n")).collect();
    fs::write(&glossary, lines.concat()).unwrap();
    let corpus: String = (0..200)
        .map(|number| {
            let (first, second) = (&TERMS[number % 50], &TERMS[(number * 7 + 11) % 50]);
            let text = SENTENCES[number % 4].replacen('#', first.0, 1).replacen('#', second.0, 1);
            json!({ "id": format!("{number}"), "text": text, "first": first.1, "second": second.1 })
                .to_string()
                + "\n"
        })
        .collect();
    let flags = ["--glossary", glossary.to_str().unwrap(), "--keep-fields"];
    let job = Job::new().with_input("a.jsonl", &corpus).with_bundle(&bundle).with_flags(&flags);
    let ended = job.run_expecting(0);
    let has = |row: &Value, term: &str| {
        let output = row["output"].as_str().unwrap().to_lowercase();
        output.contains(&row["fields"][term].as_str().unwrap().to_lowercase())
    };
    let rows = job.outputs();
    let num_found: usize =
        rows.iter().map(|row| ["first", "second"].into_iter().filter(|term| has(row, term)).count()).sum();
    assert!(num_found >= 392, "{num_found} of 400 terms, wanted 98 %");
    let placed = rows.iter().filter(|row| row["warnings"].to_string().contains("term_placed")).count();
    assert!(placed <= 20, "the model writes terms itself; a rule placed those of {placed} rows");

    let terms = manifest(&job)["totals"]["terms"].clone();
    assert_eq!(terms["occurrences"], 400);
    let missed = terms["missed"].as_u64().unwrap_or_default();
    assert!(missed <= 8, "{terms}");
    let report: Value =
        serde_json::from_slice(&fs::read(job.output().join("_REPORT.json")).unwrap()).unwrap();
    assert_eq!(report["totals"]["terms"], terms);
    assert!(ended.stderr.contains(" of 400 ("), "{}", ended.stderr);
}

#[test]
fn a_records_own_terms_precede_the_jobs_in_every_format() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported_small_model(directory.path());

    let text = "The hard disk reads the mail of a host.";
    let lines: String = [
        json!({ "id": "none", "text": text }),
        json!({ "id": "list", "text": text, "own": ["hard disk=disco fisso", "mail=posta"] }),
        json!({ "id": "map", "text": text, "own": { "hard disk": "disco fisso", "mail": "posta" } }),
        json!({ "id": "wrong", "text": text, "own": 7 }),
    ]
    .into_iter()
    .map(|line| line.to_string() + "\n")
    .collect();
    let table = format!("id,text,own\ncell,{text},hard disk=disco fisso; mail=posta\nempty,{text},\n");
    let flags = ["--term", "hard disk=disco rigido", "--glossary-field", "own", "--accept-failed-records"];
    let job = Job::new()
        .with_input("a.jsonl", lines)
        .with_input("b.csv", table)
        .with_bundle(&bundle)
        .with_flags(&flags);
    job.run_expecting(0);
    let rows = job.outputs();
    let output = |id: &str| {
        let row = rows.iter().find(|row| row["id"] == id).unwrap();
        row["output"].as_str().unwrap().to_lowercase()
    };
    for id in ["list", "map", "cell"] {
        let output = output(id);
        assert!(output.contains("disco fisso") && output.contains("posta"), "{id}: {output}");
        assert!(!output.contains("rigido"), "{id}: {output}");
    }
    for id in ["none", "empty"] {
        let output = output(id);
        assert!(output.contains("disco rigido") && !output.contains("posta"), "{id}: {output}");
    }
    let errors = job.errors();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!((&errors[0]["id"], &errors[0]["code"]), (&json!("wrong"), &json!("wrong_type")));
    assert_eq!(manifest(&job)["totals"]["terms"]["occurrences"], 8);
}
