//! Setting the clock over a channel that is slow at first, with a guest played by the test.

#![cfg(feature = "client")]
// Helpers of tests may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use mvm_agent::{
    client::Agent,
    protocol::{self, GuestInfo, HelloBack, Packet, Reply, Request, ToGuest, ToHost, VERSION},
    wire::Decoder,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// A clock that was set.
struct Setting {
    /// How far it then was behind the host's clock.
    behind: i128,
}

/// Answers every request, those that set the clock only after so long.
async fn play_guest(mut socket: UnixStream, delays: &[Duration]) -> Vec<Setting> {
    let mut delays = delays.iter();
    let mut settings = Vec::new();
    let (mut decoder, mut sequence) = (Decoder::new(), 0);
    let mut buffer = [0; 4096];
    loop {
        let count = match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return settings,
            Ok(count) => count,
        };
        let mut bytes = &buffer[..count];
        while let Some(content) = decoder.next(&mut bytes) {
            let mut answer = Vec::new();
            match protocol::read_packet::<ToGuest>(&content).unwrap() {
                Packet::Hello(hello) => {
                    let (kernel_release, boot_id) = (String::new(), String::new());
                    let guest = GuestInfo {
                        kernel_release,
                        boot_id,
                        is_init: true,
                    };
                    let back = HelloBack {
                        version: VERSION,
                        nonce: hello.nonce,
                        guest: Some(guest),
                    };
                    protocol::write_hello_back(&back, &mut answer);
                }
                Packet::Frame(frame) => {
                    let ToGuest::Open(request) = frame.message else {
                        continue;
                    };
                    if let Request::SetClock { since_epoch } = request {
                        let delay = delays.next().copied().unwrap_or_default();
                        tokio::time::sleep(delay).await;
                        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                        let behind =
                            now.unwrap().as_nanos() as i128 - since_epoch.as_nanos() as i128;
                        settings.push(Setting { behind });
                    }
                    let done = ToHost::Done(Reply::Nothing);
                    let (nonce, stream) = (frame.nonce, frame.stream);
                    protocol::write_frame(nonce, sequence, stream, &done, &[], &mut answer)
                        .unwrap();
                    sequence += 1;
                }
                Packet::HelloBack(_) | Packet::Gone(_) => {}
            }
            if socket.write_all(&answer).await.is_err() {
                return settings;
            }
        }
    }
}

async fn set_clock(delays: &'static [Duration]) -> (Duration, Vec<Setting>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = tokio::spawn(play_guest(theirs, delays));
    let agent = Agent::connect(ours, Duration::from_secs(20)).await.unwrap();
    let bound = agent.set_clock().await.unwrap();
    drop(agent);
    (bound, guest.await.unwrap())
}

const SLOW: Duration = Duration::from_millis(30);

#[tokio::test]
async fn a_slow_answer_is_not_the_last_word() {
    let (bound, settings) = set_clock(&[SLOW, SLOW]).await;
    // A loaded host may need more attempts.
    assert!((3..=10).contains(&settings.len()), "{}", settings.len());
    let last = settings.last().unwrap().behind.unsigned_abs();
    assert!(
        last <= bound.as_nanos(),
        "{last} ns off, {bound:?} promised"
    );
}

#[tokio::test]
async fn a_channel_that_stays_slow_is_told_by_the_bound() {
    let (bound, settings) = set_clock(&[SLOW; 20]).await;
    assert_eq!(settings.len(), 10);
    assert!(bound >= SLOW, "{bound:?}");
    let last = settings.last().unwrap().behind.unsigned_abs();
    assert!(
        last <= bound.as_nanos(),
        "{last} ns off, {bound:?} promised"
    );
}
