//! The guest's side: the daemon that the `mvm-agent` binary is.
//!
//! One thread and one `poll` loop ([`server`]) serve the channel. A conversation has streams
//! ([`conversation`]); what a stream does is a [`work::Work`]: a command, a terminal, a transfer, a connection. Services
//! ([`services`]) belong to no conversation. The folder in common ([`share`]) has a port and a thread of its own. As PID 1 the daemon first makes the system usable ([`init`])
//! and at the end stops it ([`shutdown`]).
//!
//! Two more modes: [`greet`] is a command that a lab runs in all machines to see who hears whom; [`watch`] has
//! nothing to do with guests, it runs on the host and cleans up after a killed runner.
//!
//! Uploads, downloads and the identity are done within the loop: while a disk hangs, a transfer to it holds
//! up everything else. Commands do not.

mod announce;
mod at_hand;
mod backlog;
mod command;
mod conversation;
mod follow;
mod greet;
mod identity;
mod init;
mod layers;
mod mounts;
mod netlink;
mod network;
mod new_root;
mod outbox;
mod port;
mod release;
mod server;
mod services;
mod share;
mod shutdown;
mod sys;
mod tcp;
mod terminal;
mod transfer;
mod watcher;
mod work;

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::ioctl_fionbio;

pub use self::greet::greet;
pub use self::watcher::watch;

/// Serves as the machine's PID 1; never returns.
pub fn run_as_init() -> ! {
    let at_hand = init::prepare();
    init::console("mvm-agent: waiting for the agent port");
    let port = port::wait_for_virtio();
    init::console("mvm-agent: ready");
    let failure = match server::Server::new(port, server::Authority::Init) {
        Ok(server) => match server.with_at_hand(at_hand).run() {
            Ok(server::Outcome::EndMachine(end)) => shutdown::end_machine(end),
            Ok(server::Outcome::HungUp | server::Outcome::Stopped) => {
                "the port was closed".to_owned()
            }
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    // PID 1 must not exit, or the kernel panics; without a channel nobody can use this machine any more.
    init::console(&format!("mvm-agent: could not serve: {failure}"));
    shutdown::end_machine(crate::protocol::MachineEnd::PowerOff)
}

/// Serves the machine's virtio port as an ordinary service, until SIGTERM or until the machine is to end, which is asked
/// of the machine's systemd then.
///
/// # Errors
///
/// When the port or the loop fails, or there is no systemd.
pub fn run_as_service() -> io::Result<()> {
    let at_hand = init::at_hand(None);
    let port = port::wait_for_virtio();
    let server = server::Server::new(port, server::Authority::Service)?.with_at_hand(at_hand);
    match server.run()? {
        server::Outcome::EndMachine(end) => shutdown::ask_systemd(end),
        server::Outcome::HungUp | server::Outcome::Stopped => Ok(()),
    }
}

/// Serves an inherited descriptor until its other end hangs up or SIGTERM. It runs commands like a machine's
/// agent, but refuses to configure or end the machine, which is not its own: this is for tests on the host.
///
/// # Errors
///
/// When the descriptor is not open or the loop fails.
pub fn run_on_descriptor(number: i32) -> io::Result<()> {
    let descriptor: OwnedFd = sys::adopt(number)?;
    ioctl_fionbio(&descriptor, true)?;
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    server::Server::new(descriptor, server::Authority::Hosted)?
        .run()
        .map(drop)
}
