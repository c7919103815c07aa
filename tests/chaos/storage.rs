//! Where a run's corpus and output are, seen behind Baton's back.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;

use crate::corpus::{Files, half};
use crate::seaweed::{ACCESS_KEY, SECRET_KEY, Seaweed};

const BUCKET: &str = "chaos";
/// Half of the corpus, as JSONL.
const HALF: &str = "half-of-the-corpus";
/// Variables of the developer's own that must not reach the processes.
const FOREIGN_VARIABLES: [&str; 4] =
    ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3"];

/// A place for corpora and outputs.
pub(crate) enum Storage {
    /// Below a directory.
    Local(PathBuf),
    /// In a bucket of a real S3 server.
    S3(Arc<Seaweed>),
}

impl Storage {
    /// A directory with the corpus, in one subdirectory for each format.
    pub(crate) fn local(directory: &Path) -> anyhow::Result<Storage> {
        for files in Files::ALL {
            let corpus = directory.join(corpus_directory(files));
            fs::create_dir_all(&corpus)?;
            fs::write(corpus.join(format!("corpus.{}", files.name())), files.corpus())?;
        }
        fs::create_dir_all(directory.join(HALF))?;
        fs::write(directory.join(HALF).join("corpus.jsonl"), half())?;
        Ok(Storage::Local(directory.to_owned()))
    }

    /// A new S3 server, with the corpus in it.
    pub(crate) fn s3() -> Storage {
        let server = Seaweed::shared();
        server.create_bucket(BUCKET);
        for files in Files::ALL {
            let key = format!("{}/corpus.{}", corpus_directory(files), files.name());
            server.put_file(&format!("{BUCKET}/{key}"), &files.corpus());
        }
        server.put_file(&format!("{BUCKET}/{HALF}/corpus.jsonl"), half().as_bytes());
        Storage::S3(server)
    }

    /// The location of the corpus, in the form for a process.
    pub(crate) fn corpus(&self, files: Files) -> String {
        self.location(&corpus_directory(files))
    }

    /// The location of half of the corpus.
    pub(crate) fn half_of_corpus(&self) -> String {
        self.location(HALF)
    }

    /// The location `name`, as a process is told it.
    pub(crate) fn location(&self, name: &str) -> String {
        match self {
            Storage::Local(directory) => directory.join(name).display().to_string(),
            Storage::S3(_) => format!("s3://{BUCKET}/{name}"),
        }
    }

    /// The address of the S3 server, if this is one.
    pub(crate) fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Storage::Local(_) => None,
            Storage::S3(server) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, server.s3_port()))),
        }
    }

    /// The environment of a process that reaches S3 at `endpoint`: variables to set, and variables to remove.
    pub(crate) fn environment(
        &self,
        endpoint: Option<SocketAddr>,
    ) -> (Vec<(&'static str, String)>, &'static [&'static str]) {
        let variables = match endpoint {
            None => Vec::new(),
            Some(endpoint) => vec![
                ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
                ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
                ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
                ("AWS_ENDPOINT_URL", format!("http://{endpoint}")),
                ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ],
        };
        (variables, &FOREIGN_VARIABLES)
    }

    /// How many parts the output `name` has.
    pub(crate) fn num_parts(&self, name: &str) -> anyhow::Result<usize> {
        let entries = self.list(name)?;
        Ok(entries.iter().filter(|entry| entry.name.starts_with("part-")).count())
    }

    /// Every visible object of the output `name`, by its key.
    pub(crate) fn contents(&self, name: &str) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        let mut contents = BTreeMap::new();
        self.collect(name, "", &mut contents)?;
        Ok(contents)
    }

    fn collect(
        &self,
        name: &str,
        prefix: &str,
        contents: &mut BTreeMap<String, Vec<u8>>,
    ) -> anyhow::Result<()> {
        for entry in self.list(&format!("{name}/{prefix}"))? {
            let key = format!("{prefix}{}", entry.name);
            if entry.name.starts_with('.') {
                continue; // unfinished objects of processes that died, which the store removes in time
            }
            if entry.is_directory {
                self.collect(name, &format!("{key}/"), contents)?;
            } else {
                let bytes = self.read(&format!("{name}/{key}"))?;
                contents.insert(key, bytes);
            }
        }
        Ok(())
    }

    fn read(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        match self {
            Storage::Local(directory) => Ok(fs::read(directory.join(path))?),
            Storage::S3(server) => {
                server.get_file(&format!("{BUCKET}/{path}")).with_context(|| format!("{path} is gone"))
            }
        }
    }

    fn list(&self, path: &str) -> anyhow::Result<Vec<Entry>> {
        match self {
            Storage::Local(directory) => {
                let Ok(entries) = fs::read_dir(directory.join(path)) else { return Ok(Vec::new()) };
                let entry = |entry: std::io::Result<fs::DirEntry>| {
                    let entry = entry?;
                    let name = entry.file_name().to_string_lossy().into_owned();
                    Ok(Entry { name, is_directory: entry.file_type()?.is_dir() })
                };
                entries.map(entry).collect()
            }
            Storage::S3(server) => {
                let path = path.trim_end_matches('/');
                let Some(listing) = server.get_file(&format!("{BUCKET}/{path}/?limit=100000")) else {
                    return Ok(Vec::new());
                };
                let listing: Value = serde_json::from_slice(&listing).context("the S3 server's listing")?;
                let entries = listing["Entries"].as_array().into_iter().flatten();
                Ok(entries.filter_map(Entry::of_seaweed).collect())
            }
        }
    }
}

fn corpus_directory(files: Files) -> String {
    format!("corpus-{}", files.name())
}

struct Entry {
    name: String,
    is_directory: bool,
}

impl Entry {
    fn of_seaweed(entry: &Value) -> Option<Entry> {
        const DIRECTORY_BIT: u64 = 1 << 31; // Go's file mode
        let (_, name) = entry["FullPath"].as_str()?.rsplit_once('/')?;
        Some(Entry { name: name.to_owned(), is_directory: entry["Mode"].as_u64()? & DIRECTORY_BIT != 0 })
    }
}
