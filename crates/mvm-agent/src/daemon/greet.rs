//! The `greet` mode: who hears whom, asked with one UDP datagram per pair of machines.
//!
//! Run in all machines at once, one process in each. It binds its port and says so; told to go, it sends one datagram
//! to every other name of the hosts file; told to report, it listens until everybody was heard or its time is up. In
//! between the lab waits for the others, so that nobody speaks before all listen, and few speak at a time: questions
//! for addresses go to all, and a hundred machines that ask at once drown one another.
//!
//! ```text
//!   lab ─ starts ─▶ binds ─ "ready" ─▶ lab ─ "go" ─▶ greets ─ "said" ─▶ lab ─ "report" ─▶ listens ─ who, how often ─▶ lab
//! ```

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    net::{Ipv4Addr, UdpSocket},
    time::{Duration, Instant},
};

/// Says that the port is bound.
const READY: &str = "ready";
/// The word that lets it speak.
const GO: &str = "go";
/// Says that it has spoken.
const SAID: &str = "said";
/// The word that asks what it heard.
const REPORT: &str = "report";
/// Ends the report.
const END: &str = "end";
/// What greetings begin with; the sender's name follows.
const GREETING: &str = "mvm-ci greets: ";
/// A host name and the greeting fit well.
const DATAGRAM_BYTES_MAX: usize = 512;

/// Greets everybody of `/etc/hosts` on `port` and tells on `output` who was heard and how often, one per line. It
/// speaks and listens as `orders` say, a word per line, and listens at most `allowed` long.
///
/// # Errors
///
/// When the port cannot be bound, a greeting cannot be sent, or other words come.
pub fn greet(
    port: u16,
    allowed: Duration,
    orders: &mut impl BufRead,
    output: &mut impl Write,
) -> io::Result<()> {
    let own = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let others = others(&std::fs::read_to_string("/etc/hosts")?, &own);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    say(output, READY)?;
    await_order(orders, GO)?;
    for address in others.values() {
        match socket.send_to(format!("{GREETING}{own}").as_bytes(), (*address, port)) {
            // What the kernel heard about an earlier greeting, or a firewall of the machine's own: whoever was not
            // reached will say so.
            Ok(_) => {}
            Err(error) if is_about_the_way(&error) => {}
            Err(error) => return Err(error),
        }
    }
    say(output, SAID)?;
    await_order(orders, REPORT)?;
    for (name, count) in listen(&socket, &others, Instant::now() + allowed)? {
        writeln!(output, "{name} {count}")?;
    }
    say(output, END)
}

fn say(output: &mut impl Write, word: &str) -> io::Result<()> {
    writeln!(output, "{word}")?;
    output.flush()
}

fn await_order(orders: &mut impl BufRead, word: &str) -> io::Result<()> {
    let mut order = String::new();
    orders.read_line(&mut order)?;
    if order.trim() == word {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "not told to {word} but {:?}",
        order.trim()
    )))
}

/// Counts greetings by sender until each of `others` was heard or the time is up.
fn listen(
    socket: &UdpSocket,
    others: &BTreeMap<String, Ipv4Addr>,
    deadline: Instant,
) -> io::Result<BTreeMap<String, u32>> {
    let mut heard = BTreeMap::new();
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    while !others.keys().all(|name| heard.contains_key(name)) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let (bytes, from) = match socket.recv_from(&mut datagram) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_about_the_way(&error) => continue,
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&datagram[..bytes]);
        // A name counts only from its own address.
        if let Some(name) = text.strip_prefix(GREETING)
            && others
                .get(name)
                .is_some_and(|address| from.ip() == *address)
        {
            *heard.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(heard)
}

fn is_about_the_way(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable | PermissionDenied
    )
}

/// The names of a hosts file with an IPv4 address beyond the machine's own.
fn others(hosts: &str, own: &str) -> BTreeMap<String, Ipv4Addr> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let address: Ipv4Addr = words.next()?.parse().ok()?;
        let name = words.next()?;
        (!address.is_loopback() && name != own).then(|| (name.to_owned(), address))
    };
    hosts.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_but_oneself_is_greeted() {
        let hosts = "127.0.0.1 localhost\n::1 localhost\n192.168.1.1 a\n2001:db8:1::1 a\n192.168.1.2 b\n# c\n";
        let others = others(hosts, "a");
        let expected = ("b".to_owned(), Ipv4Addr::new(192, 168, 1, 2));
        assert_eq!(others.into_iter().collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn who_is_heard_twice_is_counted_twice_and_a_borrowed_name_not_at_all() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = socket.local_addr().unwrap();
        let others = BTreeMap::from([
            ("a".to_owned(), Ipv4Addr::LOCALHOST),
            ("b".to_owned(), Ipv4Addr::new(127, 0, 0, 2)),
            ("c".to_owned(), Ipv4Addr::new(127, 0, 0, 3)),
        ]);
        let say = |from: &str, words: &str| {
            let sender = UdpSocket::bind((from, 0)).unwrap();
            sender.send_to(words.as_bytes(), target).unwrap();
        };
        say("127.0.0.1", "mvm-ci greets: a");
        say("127.0.0.1", "mvm-ci greets: a");
        say("127.0.0.1", "mvm-ci greets: c");
        say("127.0.0.1", "good morning");
        say("127.0.0.2", "mvm-ci greets: b");
        let deadline = Instant::now() + Duration::from_millis(200);
        let heard = listen(&socket, &others, deadline).unwrap();
        let expected = [("a".to_owned(), 2), ("b".to_owned(), 1)];
        assert_eq!(heard.into_iter().collect::<Vec<_>>(), expected);
    }
}
