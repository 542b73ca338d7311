//! Who hears whom: every machine greets every other with one UDP datagram, and the lab collects who was heard.
//!
//! The greeting itself is a mode of the agent's program (`mvm_agent::daemon::greet`), one process per machine.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use mvm_agent::{
    boot::INIT_PATH,
    client::{Event, Running, Stdin},
};
use tokio::sync::Semaphore;

use crate::{
    lab::Lab,
    node::{Node, NodeError},
};

/// The discard port's neighbour; nothing of ours listens there.
const PORT: u16 = 10;
/// How many machines speak at a time.
const SPEAKERS_MAX: usize = 4;
/// Says that it has spoken.
const SAID: &str = "said\n";
/// Ends the report.
const END: &str = "end\n";
/// Starting a program takes milliseconds; a hundred at once on a loaded host take longer.
const START_ALLOWED: Duration = Duration::from_secs(60);

/// What each machine heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greetings {
    /// By listener, then by speaker: how many datagrams came.
    pub heard: BTreeMap<String, BTreeMap<String, u32>>,
    /// From the word to go to the last machine's report.
    pub took: Duration,
}

impl Greetings {
    /// Tells whether `listener` heard `speaker` at least once.
    pub fn hears(&self, listener: &str, speaker: &str) -> bool {
        let heard = self.heard.get(listener);
        heard.is_some_and(|heard| heard.contains_key(speaker))
    }

    /// Returns the pairs, listener first, whose greeting did not come exactly once, and how often it came.
    pub fn not_once(&self) -> Vec<(&str, &str, u32)> {
        let pairs = self.heard.iter().flat_map(|(listener, heard)| {
            let speakers = self
                .heard
                .keys()
                .filter(move |speaker| *speaker != listener);
            speakers.map(move |speaker| {
                let times = heard.get(speaker).copied().unwrap_or_default();
                (listener.as_str(), speaker.as_str(), times)
            })
        });
        pairs.filter(|(_, _, times)| *times != 1).collect()
    }
}

impl fmt::Display for Greetings {
    /// One line per machine with those it heard.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (listener, heard) in &self.heard {
            let speakers: Vec<_> = heard.keys().map(String::as_str).collect();
            writeln!(formatter, "{listener} hears {}", speakers.join(", "))?;
        }
        Ok(())
    }
}

impl Lab {
    /// Has every running machine greet every other machine once, and tells who was heard.
    ///
    /// A machine that hears everybody reports at once; one that does not listens for `allowed`.
    ///
    /// # Errors
    ///
    /// If a machine's agent does not run the greeting.
    pub async fn greet(&self, allowed: Duration) -> Result<Greetings, NodeError> {
        let mut running = Vec::new();
        for node in self.nodes() {
            if let Ok(agent) = node.agent() {
                running.push((node, agent));
            }
        }
        let ready = running.into_iter().map(|(node, agent)| async move {
            let command = agent
                .command(INIT_PATH)
                .args(["greet", &PORT.to_string(), &allowed.as_millis().to_string()])
                .stdin_piped()
                .timeout(START_ALLOWED + allowed);
            let failed = |source| node.agent_error(source);
            let mut running = command.spawn().await.map_err(failed)?;
            let orders = running.take_stdin();
            let mut greeter = Greeter {
                node,
                running,
                orders: orders.expect("its standard input is piped"),
                said: String::new(),
                complained: String::new(),
            };
            greeter.read_until(|said| said.contains('\n')).await?;
            Ok::<_, NodeError>(greeter)
        });
        let ready = try_join_all(ready).await?;
        let began = Instant::now();
        let turns = &Semaphore::new(SPEAKERS_MAX);
        let said = ready.into_iter().map(|greeter| greeter.go(turns));
        let said = try_join_all(said).await?;
        let heard = try_join_all(said.into_iter().map(Greeter::report)).await?;
        Ok(Greetings {
            heard: heard.into_iter().collect(),
            took: began.elapsed(),
        })
    }
}

/// The greeting process of one machine.
struct Greeter<'a> {
    node: &'a Node,
    running: Running,
    orders: Stdin,
    said: String,
    complained: String,
}

impl Greeter<'_> {
    /// Lets it speak when it is its turn.
    async fn go(mut self, turns: &Semaphore) -> Result<Self, NodeError> {
        let _turn = turns.acquire().await;
        self.order("go\n").await?;
        self.read_until(|said| said.contains(SAID)).await?;
        Ok(self)
    }

    /// Returns whom it heard.
    async fn report(mut self) -> Result<(String, BTreeMap<String, u32>), NodeError> {
        self.order("report\n").await?;
        self.read_until(|said| said.ends_with(END)).await?;
        let lines = self.said.lines();
        let counted = lines.filter_map(|line| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        Ok((self.node.name().to_owned(), counted.collect()))
    }

    async fn order(&mut self, line: &str) -> Result<(), NodeError> {
        let told = self.orders.write_all(line.as_bytes()).await;
        // One that has ended says why when it is read.
        told.map(drop)
            .map_err(|source| self.node.agent_error(source))
    }

    /// Takes what it says until `enough`; its end is an error where that never came, or where it did not end well.
    async fn read_until(&mut self, enough: impl Fn(&str) -> bool) -> Result<(), NodeError> {
        let mut how = None;
        while !enough(&self.said) {
            let event = self.running.next_event().await;
            match event.map_err(|source| self.node.agent_error(source))? {
                Some(Event::Stdout(bytes)) => self.said += &String::from_utf8_lossy(&bytes),
                Some(Event::Stderr(bytes)) => self.complained += &String::from_utf8_lossy(&bytes),
                Some(Event::StdoutClosed) => {}
                Some(Event::Exit(status)) => how = Some(status),
                None => {
                    return Err(NodeError::Command {
                        machine: self.node.name().to_owned(),
                        command: "greet".to_owned(),
                        how: how.map_or_else(|| "ended".to_owned(), |how| format!("ended: {how}")),
                        output: format!("\n  stderr: {}", self.complained.trim_end()),
                    });
                }
            }
        }
        Ok(())
    }
}
