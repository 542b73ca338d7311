//! One node of the cluster, as configuration writes it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::Deserialize;

const HTTP_PORT: u16 = 3020;
const RAFT_PORT: u16 = 9000;
const STORE_PORT: u16 = 9001;

/// One node of the cluster, as every node's configuration lists it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number, from 1. Number 1 founds the cluster.
    pub id: u64,
    /// A name or address under which the others reach it.
    pub host: String,
    /// The port of its HTTP interface.
    #[serde(default = "http_port")]
    pub http_port: u16,
    /// The port for Raft messages.
    #[serde(default = "raft_port")]
    pub raft_port: u16,
    /// The port for joining the cluster.
    #[serde(default = "store_port")]
    pub store_port: u16,
}

const fn http_port() -> u16 {
    HTTP_PORT
}

const fn raft_port() -> u16 {
    RAFT_PORT
}

const fn store_port() -> u16 {
    STORE_PORT
}

impl Member {
    /// Host and HTTP port.
    pub fn http(&self) -> String {
        self.at(self.http_port)
    }

    /// Host and Raft port.
    pub fn raft(&self) -> String {
        self.at(self.raft_port)
    }

    /// Host and store port.
    pub fn store(&self) -> String {
        self.at(self.store_port)
    }

    fn at(&self, port: u16) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{}:{port}", self.host),
        }
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

/// Text that is no [`Member`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a member is written ID=HOST or ID=HOST:HTTP:RAFT:STORE")]
pub struct MemberSyntax;

/// Reads `ID=HOST` or `ID=HOST:HTTP:RAFT:STORE`.
impl FromStr for Member {
    type Err = MemberSyntax;

    fn from_str(text: &str) -> Result<Self, MemberSyntax> {
        let (id, rest) = text.trim().split_once('=').ok_or(MemberSyntax)?;
        let id = id.trim().parse().map_err(|_| MemberSyntax)?;
        let rest = rest.trim();
        let is_bare = rest.parse::<IpAddr>().is_ok() || !rest.contains(':');
        let (host, [http_port, raft_port, store_port]) = if is_bare {
            (rest, [HTTP_PORT, RAFT_PORT, STORE_PORT])
        } else {
            let mut parts = rest.rsplitn(4, ':');
            let mut port = || parts.next()?.parse::<u16>().ok();
            let ports = [port(), port(), port()];
            let [Some(store), Some(raft), Some(http)] = ports else {
                return Err(MemberSyntax);
            };
            (parts.next().ok_or(MemberSyntax)?, [http, raft, store])
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let is_address = host.parse::<IpAddr>().is_ok();
        if host.is_empty() || (host.contains([':', '[', ']']) && !is_address) {
            return Err(MemberSyntax);
        }
        Ok(Self {
            id,
            host: host.into(),
            http_port,
            raft_port,
            store_port,
        })
    }
}

/// The only member of a cluster that nobody configured.
pub(super) fn alone(id: u64) -> Member {
    Member {
        id,
        host: Ipv4Addr::LOCALHOST.to_string(),
        http_port: HTTP_PORT,
        raft_port: RAFT_PORT,
        store_port: STORE_PORT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_or_refused_as_a_whole() {
        let http = |text: &str| text.parse::<Member>().map(|member| member.http());
        for (text, expected) in [
            ("1=node1", "node1:3020"),
            ("1=node1:1:2:3", "node1:1"),
            ("1=::1", "[::1]:3020"),
            ("1=2001:db8:0:1:2:3:4:5", "[2001:db8:0:1:2:3:4:5]:3020"),
            ("1=[2001:db8::3]:1:2:3", "[2001:db8::3]:1"),
        ] {
            assert_eq!(http(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "1",
            "1=",
            "x=node1",
            "1=node1:1",
            "1=node1:1:2:99999",
            "1=a:b:1:2:3",
            "1=:1:2:3",
        ] {
            assert_eq!(http(text), Err(MemberSyntax), "{text}");
        }
    }
}
