//! `dagwright dlq list|show|replay`: what Kafka ingress could not take on, and sending it again.
//!
//! It works on the topic itself, with the settings of `serve`, whether or not a service runs. Content comes from anybody:
//! a terminal gets it with everything invisible made visible, and only `--raw` writes it as it is, to no terminal.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use clap::{Args, Subcommand};
use dagwright_bus::kafka::{Address, DeadLetter, DeadLetters, Head, Listing, Producer, Replayed, Selection, Topics};
use dagwright_model::{code::Code, task::Problem};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    cli::Common,
    config::{BusKind, Config},
    exit::Exit,
    kafka,
    output::Output,
    refusal::{self, Refusal},
    render,
};

/// The most that one call lists or sends.
const LIMIT_MAX: i64 = 10_000;

/// Arguments of `dagwright dlq`.
#[derive(Debug, Args)]
pub(crate) struct Dlq {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List dead letters, the newest first
    #[command(after_help = "Example:\n  dagwright dlq list --code DW0806 --limit 100")]
    List(Which),
    /// Show one with its headers, the reason and its content, everything invisible made visible
    #[command(after_help = "Example:\n  dagwright dlq show 0/17")]
    Show(Show),
    /// Send dead letters again as they came, to the topic where they came from; sent twice, each is one request
    #[command(after_help = "Example:\n  dagwright dlq replay --code DW0806")]
    Replay(Replay),
}

/// Which dead letters.
#[derive(Debug, Args)]
struct Which {
    /// Those with this error code
    #[arg(long, value_name = "CODE", value_parser = code)]
    code: Option<Code>,
    /// Those that came from this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Those before this one, as the end of an earlier list says; again for other partitions
    #[arg(long, value_name = "PARTITION/OFFSET")]
    before: Vec<Address>,
    /// How many at most, the newest of them
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=LIMIT_MAX))]
    limit: u16,
}

/// Arguments of `dagwright dlq show`.
#[derive(Debug, Args)]
struct Show {
    /// The dead letter, as `list` shows it
    #[arg(value_name = "PARTITION/OFFSET")]
    letter: Address,
    /// Write its content to standard output, byte for byte and nothing else; not to a terminal
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

/// Arguments of `dagwright dlq replay`.
#[derive(Debug, Args)]
struct Replay {
    /// The dead letters, as `list` shows them
    #[arg(value_name = "PARTITION/OFFSET", required_unless_present_any = ["code", "topic"],
          conflicts_with_all = ["code", "topic", "before", "limit"])]
    letters: Vec<Address>,
    #[command(flatten)]
    which: Which,
}

/// A dead letter for machines.
#[derive(Debug, Serialize)]
struct Letter<'a> {
    letter: String,
    at: Option<String>,
    code: Option<&'a str>,
    error: Option<&'a str>,
    attempts: u32,
    origin: Option<String>,
    replay_of: Option<String>,
    key: Option<Bytes<'a>>,
    bytes: Option<usize>,
    /// How many bytes it had, of a letter that holds only the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_from: Option<u64>,
}

/// Bytes for machines: as text where they are text, else in base64.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Bytes<'a> {
    Text(&'a str),
    Other { base64: String },
}

/// Does what was asked.
pub(crate) async fn execute(arguments: &Dlq, common: &Common, output: Output) -> Result<Exit> {
    let config = Config::load(common.config.as_deref())?;
    if config.bus.kind != BusKind::Kafka {
        return Err(Refusal::Problem(Problem {
            code: Code::ConfigInvalid,
            subject: "bus.kind".into(),
            message: "there are dead letters only where requests come from Kafka, and bus.kind is in_process".into(),
            hint: "give the settings of the service: --config FILE, or DAGWRIGHT__BUS__KIND=kafka and \
                   DAGWRIGHT__KAFKA__BROKERS"
                .into(),
        })
        .into());
    }
    let settings = kafka::settings(&config);
    let topics = Topics::named(&settings);
    let letters = DeadLetters::new(settings.clone(), topics.clone());
    match &arguments.what {
        What::List(which) => {
            let listing = letters.list(&which.selection()).await?;
            output.text(&render::dead_letter::listing(&listing))?;
            let older: Vec<_> = older(&listing);
            output.json(
                &json!({ "letters": listing.letters.iter().map(Letter::of).collect::<Vec<_>>(), "older": older }),
            )?;
            Ok(Exit::Done)
        }
        What::Show(show) => shown(&letters.show(show.letter).await?, show.raw, output),
        What::Replay(replay) => {
            let producer = Producer::new(&settings, topics).await?;
            replayed(replay, &letters, &producer, output).await
        }
    }
}

fn shown(letter: &DeadLetter, raw: bool, output: Output) -> Result<Exit> {
    if raw {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            return Err(Refusal::Problem(Problem {
                code: Code::RequestInvalid,
                subject: "--raw".into(),
                message: "content that nobody could read is not written to a terminal as it is".into(),
                hint: "send it to a file or a program, as in `… --raw | xxd`; without --raw it is shown safely".into(),
            })
            .into());
        }
        out.write_all(letter.value.as_deref().unwrap_or_default())?;
        out.flush()?;
        return Ok(Exit::Done);
    }
    output.text(&render::dead_letter::letter(letter))?;
    let mut told = serde_json::to_value(Letter::of(&letter.head))?;
    let header = |(name, value): &(String, Option<Vec<u8>>)| json!([name, value.as_deref().map(Bytes::of)]);
    told["headers"] = letter.headers.iter().map(header).collect();
    told["value"] = serde_json::to_value(letter.value.as_deref().map(Bytes::of))?;
    output.json(&told)?;
    Ok(Exit::Done)
}

async fn replayed(replay: &Replay, letters: &DeadLetters, producer: &Producer, output: Output) -> Result<Exit> {
    let (addresses, older) = if replay.letters.is_empty() {
        let listing = letters.list(&replay.which.selection()).await?;
        let older = older(&listing);
        // In the order in which they came.
        (listing.newest_of_each().iter().rev().map(|head| head.address).collect(), older)
    } else {
        (replay.letters.clone(), Vec::new())
    };
    let (mut sent, mut failed) = (Vec::new(), None);
    for address in addresses {
        match letters.replay(producer, address).await {
            Ok(replayed) => {
                output.text(&render::dead_letter::replayed(&replayed))?;
                sent.push(told(&replayed));
            }
            // The others would meet the same, or are better sent by somebody who knows of this one.
            Err(error) => {
                let mut problem = refusal::problem(&error.into());
                problem.subject = address.to_string();
                failed = Some(problem);
                break;
            }
        }
    }
    if sent.is_empty() && failed.is_none() {
        output.text("no dead letter is like that\n")?;
    }
    if !older.is_empty() && failed.is_none() {
        output.text(&render::dead_letter::older(&older, "there may be older ones"))?;
    }
    if let Some(problem) = &failed {
        output.error(&render::problem::problem(problem));
    }
    let exit = failed.as_ref().map_or(Exit::Done, |problem| Exit::of(problem.code));
    let problems: Vec<_> = failed.into_iter().collect();
    output.json(&json!({ "sent": sent, "problems": problems, "older": older }))?;
    Ok(exit)
}

fn told(Replayed { address, place, attempt }: &Replayed) -> Value {
    json!({
        "letter": address.to_string(),
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "attempt": attempt,
    })
}

fn older(listing: &Listing) -> Vec<String> {
    listing.older.iter().map(|(partition, offset)| format!("{partition}/{offset}")).collect()
}

fn code(text: &str) -> Result<Code, String> {
    Code::try_from(text.to_owned())
}

// === impl Which ===

impl Which {
    fn selection(&self) -> Selection {
        Selection {
            code: self.code.map(|code| code.to_string()),
            topic: self.topic.clone(),
            before: self.before.iter().map(|before| (before.partition, before.offset)).collect(),
            limit: self.limit.into(),
        }
    }
}

// === impl Letter ===

impl<'a> Letter<'a> {
    fn of(head: &'a Head) -> Self {
        Self {
            letter: head.address.to_string(),
            at: head.at.and_then(render::dead_letter::time),
            code: head.code.as_deref(),
            error: head.error.as_deref(),
            attempts: head.attempts,
            origin: head.origin.as_ref().map(ToString::to_string),
            replay_of: head.replay_of.as_ref().map(ToString::to_string),
            key: head.key.as_deref().map(Bytes::of),
            bytes: head.bytes,
            cut_from: head.cut_from,
        }
    }
}

// === impl Bytes ===

impl<'a> Bytes<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(_) => Self::Other { base64: BASE64.encode(bytes) },
        }
    }
}
