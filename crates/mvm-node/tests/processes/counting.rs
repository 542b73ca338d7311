//! A web server that counts what it is asked for, and keeps those waiting who ask for certain things.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

#[derive(Default)]
struct State {
    seen: Mutex<(BTreeMap<String, usize>, Option<&'static str>)>,
    changed: Condvar,
}

/// The server. Its threads end with the process.
pub(crate) struct Counting {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

impl Counting {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || answer(&state, &stream));
            }
        });
        Self { address, state }
    }

    /// From now on those wait who ask for what ends so; those who wait for something else get their answers.
    pub(crate) fn hold(&self, end: Option<&'static str>) {
        self.state.seen.lock().unwrap().1 = end;
        self.state.changed.notify_all();
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        self.state
            .seen
            .lock()
            .unwrap()
            .0
            .get(path)
            .copied()
            .unwrap_or(0)
    }
}

fn answer(state: &State, mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    let Some(Ok(line)) = lines.next() else { return };
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let mut seen = state.seen.lock().unwrap();
    *seen.0.entry(path.clone()).or_default() += 1;
    let held = seen.1;
    while held.is_some() && seen.1 == held && held.is_some_and(|end| path.ends_with(end)) {
        seen = state.changed.wait(seen).unwrap();
    }
    drop(seen);
    // Whoever asked may be dead.
    let _ =
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n");
}
