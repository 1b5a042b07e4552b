//! `grus quickstart`: a file goes through a real broker that is killed half way, and comes out of another
//! process byte for byte.

mod check;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use grus_client::{Message, PendingReceipt, Producer, ProducerConfig, Receipt};
use grus_protocol::ids::QueueId;
use grus_protocol::message::TopicSettings;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;

use crate::args::{Common, QuickstartArgs};
use crate::failure::Failure;
use crate::message::{line_end_header, push_json};
use crate::output::Output;
use crate::own_broker::{Broker, Place, new_folder};
use crate::{input, units};
use check::{Summing, Sums};

const TOPIC: &str = "quickstart";
/// Longest that a message may wait for its receipt, the broker's restart included.
const STORED_LIMIT: Duration = Duration::from_mins(1);
/// Most messages under way.
const OUTSTANDING_MAX: usize = 4_096;

/// Runs the command.
///
/// # Errors
/// Told: what went wrong, above all text that did not come out as it went in.
pub async fn run(common: &Common, args: &QuickstartArgs) -> Result<(), Failure> {
    let folder = new_folder(args.data.as_deref(), "grus-quickstart")?;
    let result = show(common, args, &folder).await;
    if !args.keep {
        let removed = fs::remove_dir_all(&folder);
        removed.map_err(|error| Failure::because(folder.display(), error)).or_else(|failure| {
            if result.is_ok() { Err(failure) } else { Ok(()) } // the first failure is told
        })?;
    }
    result
}

async fn show(common: &Common, args: &QuickstartArgs, folder: &Path) -> Result<(), Failure> {
    let mut told = Told { json: common.json, output: Output::standard() };
    let file = match &args.file {
        Some(file) => file.clone(),
        None => builtin(folder)?,
    };
    let (lines, bytes, sha256) = measure(&file)?;
    let name =
        args.file.as_ref().map_or("the built-in text".into(), |file| file.display().to_string());
    told.say(
        &format!(
            "{name}: {} lines, {}, SHA-256 {sha256}",
            units::grouped(lines),
            units::readable(bytes)
        ),
        &json!({ "step": "file", "file": name, "lines": lines, "bytes": bytes, "sha256": sha256 }),
    )?;

    let (place, broker) = Broker::start_in(folder).await?;
    told.say(
        &format!(
            "broker: process {}, {} (new folder {})",
            broker.pid(),
            place.listen,
            folder.display()
        ),
        &json!({ "step": "broker", "pid": broker.pid(), "listen": place.listen.to_string(),
            "http": place.http.to_string(), "folder": folder }),
    )?;
    let mut run = Run { place, broker: Some(broker), told, lines, bytes };
    let sent = run.send(&file).await?;
    run.read_back(&sent, &sha256).await?;
    run.end(folder, args.keep).await
}

/// A run under way.
struct Run {
    place: Place,
    broker: Option<Broker>,
    told: Told,
    lines: u64,
    bytes: u64,
}

impl Run {
    /// Sends the file, with a kill in the middle; the sums of what the receipts promised.
    async fn send(&mut self, file: &Path) -> Result<Sums, Failure> {
        let mut config = grus_client::ClientConfig::new([self.place.listen.to_string().as_str()]);
        config.connect_wait_max = Some(STORED_LIMIT);
        let failed = |error: &dyn std::fmt::Display| Failure::because(TOPIC, error);
        let client = grus_client::Client::connect(config).await.map_err(|error| failed(&error))?;
        let settings = TopicSettings { queues: 1, ..TopicSettings::default() };
        client.create_topic(TOPIC, settings).await.map_err(|error| failed(&error))?;

        let mut config = ProducerConfig::new(TOPIC).map_err(|error| failed(&error))?;
        config.send_timeout = STORED_LIMIT / (config.retries + 1);
        // Small enough that many batches are under way when the broker dies.
        let batch_bytes = (self.bytes / 256).clamp(16 << 10, 1 << 20);
        config.batch_bytes_max = u32::try_from(batch_bytes).expect("at most 1 MiB");
        let producer = client.producer(config).map_err(|error| failed(&error))?;
        let message_bytes_max =
            usize::try_from(client.limits().message_bytes_max).unwrap_or(usize::MAX);
        let lines = input::lines(Some(file), message_bytes_max)?;
        let (sender, outstanding) = channel(OUTSTANDING_MAX);
        let started = Instant::now();
        let sending = async { Ok(send(lines, &producer, sender).await) };
        let (sent, sums) = tokio::try_join!(sending, self.receive(outstanding, started))?;
        sent?;
        client.close().await;
        Ok(sums)
    }

    /// Takes the receipts; kills the broker when half of them are here.
    async fn receive(
        &mut self,
        mut outstanding: Receiver<PendingReceipt>,
        started: Instant,
    ) -> Result<Sums, Failure> {
        let half = self.lines.div_ceil(2);
        let mut sums = Summing::default();
        let mut killed: Option<Instant> = None;
        let mut down = Duration::ZERO;
        let mut received = 0;
        while let Some(receipt) = outstanding.recv().await {
            let receipt = receipt.await.map_err(|error| Failure::because("no receipt", error))?;
            received += 1;
            sums.id(receipt.offset.0, &receipt.id.to_string());
            if received == 1 || received == half || received == half + 1 || received == self.lines {
                self.receipt(received, &receipt)?;
            }
            if let Some(since) = killed.take() {
                down = since.elapsed();
            }
            if received == half {
                killed = Some(Instant::now());
                self.kill_and_restart().await?;
            }
        }
        self.rate(started.elapsed(), down)?;
        Ok(sums.finish())
    }

    async fn kill_and_restart(&mut self) -> Result<(), Failure> {
        let broker = self.broker.take().expect("the broker runs");
        let pid = broker.pid();
        let status = broker.kill().await?;
        let broker = Broker::start(&self.place).await?;
        let again = broker.pid();
        self.told.say(
            &format!("kill -9 {pid}: {status}; started again as process {again}"),
            &json!({ "step": "kill", "killed": pid, "started": again }),
        )?;
        self.broker = Some(broker);
        Ok(())
    }

    fn receipt(&mut self, number: u64, receipt: &Receipt) -> Result<(), Failure> {
        let (id, queue, offset) = (receipt.id.to_string(), receipt.queue.0, receipt.offset.0);
        self.told.say(
            &format!("receipt {}: id {id}, queue {queue}, offset {offset}", units::grouped(number)),
            &json!({ "step": "receipt", "line": number, "id": id, "queue": queue, "offset": offset }),
        )
    }

    fn rate(&mut self, took: Duration, down: Duration) -> Result<(), Failure> {
        let serving_ms = took.saturating_sub(down).as_millis().max(1);
        let rate = |amount: u64| {
            u64::try_from(u128::from(amount) * 1_000 / serving_ms).unwrap_or(u64::MAX)
        };
        let (messages, bytes) = (rate(self.lines), rate(self.bytes));
        let down_ms = down.as_millis();
        self.told.say(
            &format!(
                "{} receipts in {} ms, {down_ms} ms of them without a broker: {} messages/s, {}/s while it served",
                units::grouped(self.lines),
                took.as_millis(),
                units::grouped(messages),
                units::readable(bytes),
            ),
            &json!({ "step": "rate", "took_ms": took.as_millis(), "down_ms": down_ms,
                "messages_per_second": messages, "bytes_per_second": bytes }),
        )
    }

    async fn read_back(&mut self, sent: &Sums, sha256: &str) -> Result<(), Failure> {
        let (listen, lines) = (self.place.listen, self.lines);
        let reading = tokio::task::spawn_blocking(move || check::read_back(listen, TOPIC, lines));
        let read = reading.await.map_err(|error| Failure::because("grus consume", error))??;
        if read.messages != lines {
            let why = format!("{} of {lines} messages came back", read.messages);
            return Err(Failure::because("lost", why));
        }
        if read.ids != sent.ids {
            return Err(Failure::Told(
                "what came back has other ids or offsets than the receipts".to_owned(),
            ));
        }
        if read.text != sha256 {
            let why = format!("SHA-256 {}, it was {sha256}", read.text);
            return Err(Failure::because("what came back differs", why));
        }
        self.told.say(
            &format!("read back by another process: SHA-256 {}: the same, byte for byte", read.text),
            &json!({ "step": "read", "messages": read.messages, "sha256": read.text, "same": true }),
        )
    }

    async fn end(&mut self, folder: &Path, keep: bool) -> Result<(), Failure> {
        let place = self.place.clone();
        let asked = tokio::task::spawn_blocking(move || {
            Ok::<_, Failure>((
                place.get("/health")?,
                place.get("/metrics")?,
                place.get("/queue/list")?,
            ))
        });
        let (_, metrics, queues) =
            asked.await.map_err(|error| Failure::because("HTTP", error))??;
        let metrics = metrics.lines().filter(|line| !line.starts_with('#')).count();
        let http = self.place.http;
        if let Some(broker) = self.broker.take() {
            broker.end().await?;
        }
        let kept = keep.then(|| self.place.data.display().to_string());
        let again = match &kept {
            Some(data) => format!("kept: start it again with grus broker --data {data}"),
            None => {
                format!("the broker is ended and {} removed; --keep keeps it", folder.display())
            }
        };
        let text = format!(
            "page    http://{http}/             {}\n\
             metrics http://{http}/metrics      {metrics} values\n\
             actors  http://{http}/actors\n\
             docs    docs/README.md\n\
             {again}; grus broker alone listens on 127.0.0.1:6086 and serves http://127.0.0.1:7654/",
            queues.trim(),
        );
        let object = json!({ "step": "end", "queues": serde_json::from_str::<Value>(&queues).ok(),
            "metrics": metrics, "page": format!("http://{http}/"), "docs": "docs/README.md", "kept": kept });
        self.told.say(&text, &object)
    }
}

/// Hands the lines to the client, as fast as it has room for them.
async fn send(
    mut lines: input::Lines,
    producer: &Producer,
    outstanding: Sender<PendingReceipt>,
) -> Result<(), Failure> {
    while let Some(some) = lines.recv().await {
        for line in some? {
            let number = line.number;
            let mark = line_end_header(&line);
            let mut message = Message::new(line.body).queue(QueueId(0));
            if let Some((name, value)) = mark {
                message = message.header(name, value);
            }
            let failed = |error| Failure::because(format!("line {number}"), error);
            let receipt = producer.enqueue(message).await.map_err(failed)?;
            if outstanding.send(receipt).await.is_err() {
                return Ok(()); // a receipt did not come: that is what is told
            }
        }
    }
    Ok(())
}

/// What is shown, as it happens.
struct Told {
    json: bool,
    output: Output<std::io::Stdout>,
}

impl Told {
    fn say(&mut self, text: &str, object: &Value) -> Result<(), Failure> {
        if self.json {
            self.output.add(|out| push_json(object, out))?;
        } else {
            self.output.line(text)?;
        }
        match self.output.flush() {
            Err(Failure::OutputClosed) => Ok(()), // the check goes on without its reader
            other => other,
        }
    }
}

fn builtin(folder: &Path) -> Result<PathBuf, Failure> {
    let file = folder.join("input.txt");
    fs::write(&file, text::builtin()).map_err(|error| Failure::because(file.display(), error))?;
    Ok(file)
}

/// Lines, bytes and SHA-256 of a file.
fn measure(file: &Path) -> Result<(u64, u64, String), Failure> {
    use std::io::Read;
    let failed = |error| Failure::because(file.display(), error);
    let mut from = fs::File::open(file).map_err(failed)?;
    let mut chunk = vec![0; 1 << 18];
    let (mut lines, mut bytes, mut last) = (0, 0, b'\n');
    let mut sums = Summing::default();
    loop {
        let length = from.read(&mut chunk).map_err(failed)?;
        let Some(end) = chunk[..length].last() else { break };
        last = *end;
        bytes += length as u64;
        lines += chunk[..length].iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        sums.text(&chunk[..length]);
    }
    lines += u64::from(last != b'\n');
    if lines == 0 {
        return Err(Failure::because(file.display(), "it is empty, there is nothing to send"));
    }
    Ok((lines, bytes, sums.finish().text))
}
