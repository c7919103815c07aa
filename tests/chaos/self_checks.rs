//! Checks the suite itself: every violation must make a run fail.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::corpus;
use crate::link::{Link, Mode};
use crate::run::{Contents, check_each_record_once, check_same_bytes};
use crate::schedule::Plan;

/// Far longer than anything on the loopback interface takes, and short enough to wait for.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("a_schedule_is_a_function_of_its_seed", a_schedule_is_a_function_of_its_seed),
        Trial::test("a_record_that_is_lost_doubled_or_unknown_is_noticed", wrong_records_are_noticed),
        Trial::test("an_object_that_is_missing_surplus_or_different_is_noticed", wrong_objects_are_noticed),
        Trial::test("a_link_does_what_its_mode_says_and_counts_it", || on_runtime(links_disturb_and_count())),
    ]
}

fn a_schedule_is_a_function_of_its_seed() -> Result<(), Failed> {
    for seed in 1..=200 {
        let plan = Plan::of_seed(seed);
        holds(plan == Plan::of_seed(seed), format!("seed {seed} has two schedules"))?;
        let shares: Vec<f64> = plan.faults.iter().map(|planned| planned.after_share).collect();
        let is_usable = shares.is_sorted() && shares.iter().all(|share| (0.0..0.75).contains(share));
        holds(is_usable, format!("seed {seed} has faults out of order or too late: {shares:?}"))?;
    }
    holds(Plan::of_seed(1).faults != Plan::of_seed(4).faults, "two seeds have one schedule")
}

fn wrong_records_are_noticed() -> Result<(), Failed> {
    check_each_record_once(&right_contents())?;
    let wrong = |key: &str, change: fn(&str) -> String| {
        let mut contents = right_contents();
        let rows = String::from_utf8(contents[key].clone()).expect("rows are text");
        contents.insert(key.to_owned(), change(&rows).into_bytes());
        check_each_record_once(&contents).is_err()
    };
    holds(wrong("part-000000.jsonl", |rows| rows.replacen("\"r0\"", "\"r1\"", 1)), "lost and doubled")?;
    holds(wrong("part-000000.jsonl", |rows| rows.replacen("\"r0\"", "\"elsewhere\"", 1)), "unknown")?;
    holds(
        wrong("part-000000.jsonl", |rows| rows.to_owned() + rows.lines().next().unwrap_or_default()),
        "doubled",
    )?;
    holds(wrong("errors/part-000000.jsonl", |rows| rows.to_owned() + "{}\n"), "an error row too many")
}

fn wrong_objects_are_noticed() -> Result<(), Failed> {
    let mut right = right_contents();
    right.insert("_SUCCESS".to_owned(), br#"{"parts":1,"timings":{"seconds":1.0}}"#.to_vec());
    let mut slower = right.clone();
    slower.insert("_SUCCESS".to_owned(), br#"{"parts":1,"timings":{"seconds":2.0}}"#.to_vec());
    check_same_bytes(&slower, &right)?;
    let wrong = |change: fn(&mut Contents)| {
        let mut contents = right.clone();
        change(&mut contents);
        check_same_bytes(&contents, &right).is_err()
    };
    holds(wrong(|contents| drop(contents.remove("_SUCCESS"))), "a missing manifest")?;
    holds(
        wrong(|contents| drop(contents.insert("_SUCCESS".to_owned(), b"{\"parts\":2}".to_vec()))),
        "another manifest",
    )?;
    holds(
        wrong(|contents| drop(contents.insert("part-000001.jsonl".to_owned(), Vec::new()))),
        "a part too many",
    )?;
    holds(wrong(|contents| contents.values_mut().for_each(|bytes| bytes.push(b'\n'))), "other bytes")
}

/// The content of a complete output, in one part.
fn right_contents() -> Contents {
    let outputs: String = corpus::good_ids().map(|id| format!("{{\"id\":\"{id}\"}}\n")).collect();
    let errors = "{}\n".repeat(corpus::NUM_BAD);
    let objects = [("part-000000.jsonl", outputs), ("errors/part-000000.jsonl", errors)];
    objects.into_iter().map(|(key, rows)| (key.to_owned(), rows.into_bytes())).collect()
}

async fn links_disturb_and_count() -> Result<(), Failed> {
    let link = Link::open(echo_server().await?).await?;
    let mut connection = TcpStream::connect(link.address()).await?;
    holds(echoes(&mut connection).await, "an undisturbed link carries bytes")?;
    holds(link.num_disturbed() == 0, "and counts nothing")?;

    link.set(Mode::Slow);
    holds(
        echoes(&mut connection).await && link.num_disturbed() > 0,
        "a slow link carries bytes, and counts them",
    )?;

    link.set(Mode::Silence);
    let before = link.num_disturbed();
    connection.write_all(b"?").await?;
    wait_for(|| link.num_disturbed() > before).await?;
    link.set(Mode::Pass);
    let end = tokio::time::timeout(PATIENCE, connection.read_u8()).await?;
    holds(end.is_err(), "a connection that lived through silence is cut when it ends")?;

    let mut connection = TcpStream::connect(link.address()).await?;
    holds(echoes(&mut connection).await, "the next one is whole")?;
    link.set(Mode::Reset);
    let end = tokio::time::timeout(PATIENCE, connection.read_u8()).await?;
    let is_reset = end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    holds(is_reset, "a reset connection ends with a reset")?;

    link.set(Mode::Unavailable);
    let mut connection = TcpStream::connect(link.address()).await?;
    connection.write_all(b"PUT /key HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").await?;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, connection.read_to_string(&mut answer)).await??;
    holds(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("<Code>SlowDown</Code>"),
        "storage can be unavailable",
    )
}

async fn echo_server() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                let _ = tokio::io::copy(&mut from, &mut to).await; // until it is cut
            });
        }
    });
    Ok(address)
}

async fn echoes(connection: &mut TcpStream) -> bool {
    let echo = async {
        connection.write_all(b"!").await?;
        connection.read_u8().await
    };
    matches!(tokio::time::timeout(PATIENCE, echo).await, Ok(Ok(b'!')))
}

async fn wait_for(condition: impl Fn() -> bool) -> Result<(), Failed> {
    let polled = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, polled).await?)
}

fn on_runtime(work: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn holds(is_so: bool, what: impl Into<String>) -> Result<(), Failed> {
    if is_so { Ok(()) } else { Err(Failed::from(format!("not so: {}", what.into()))) }
}
