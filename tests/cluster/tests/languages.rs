//! Records that name their languages, on separate services.

use std::path::{Path, PathBuf};

use baton_cluster_tests::{Process, Worker, command};
use serde_json::json;

use crate::bundle::write_nllb;
use crate::jobs::Job;

fn imported(directory: &Path) -> PathBuf {
    let (model, bundle) = (directory.join("model"), directory.join("bundle"));
    write_nllb(&model, 3);
    let mut import = command("baton");
    import.args(["bundle", "import-slm", "--source-language", "eng_Latn", "--target-language", "fra_Latn"]);
    import.arg("--from").arg(&model).arg("--out").arg(&bundle);
    let ended = Process::start(import).wait();
    assert_eq!(ended.code, Some(0), "{:#?}", ended.log);
    bundle
}

/// Few texts in many languages, so that equal texts meet in a shard.
fn corpus() -> String {
    const CODES: [&str; 5] = ["por_Latn", "deu_Latn", "", "eng_Latn", "xx"];
    let record = |number: usize| {
        let text = ["uma cor e outra", "small tools", "1,234 lines of mail"][number % 3];
        let (lang, to) = (CODES[number % 4], CODES[number / 4 % 5]);
        format!("{}\n", json!({ "id": number, "text": text, "lang": lang, "to": to }))
    };
    (0..60).map(record).collect()
}

#[test]
fn records_of_many_languages_come_out_of_separate_services_as_out_of_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = imported(directory.path());
    let languages = ["--source-language-field", "lang", "--target-language-field", "to"];
    let others = ["--max-new-tokens", "8", "--records-per-shard", "16", "--accept-failed-records"];
    let job = Job::of(&bundle, &corpus(), &[&languages[..], &others].concat());
    let expected = job.run_in_one_process();
    let errors = String::from_utf8(expected["errors/part-000001.jsonl"].clone()).unwrap();
    assert!(errors.contains("unknown_language"), "{errors}");
    let encoders = [["--encode-batch-tokens", "1"], ["--encode-batch-tokens", "64"]]
        .map(|flags| Worker::start("baton-encoder", &bundle, &flags));
    let decoder = Worker::start("baton-decoder", &bundle, &["--decode-slots", "4"]);
    let endpoints: Vec<_> = encoders.iter().map(Worker::endpoint).collect();
    let ended = job.coordinate("cluster", &endpoints, &[decoder.endpoint()], &[]).wait();
    job.check("cluster", &ended, &expected);
}
