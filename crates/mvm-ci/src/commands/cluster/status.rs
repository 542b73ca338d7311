//! `mvm-ci cluster status`: every node is asked itself.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use futures_util::future::join_all;
use mvm_client::{Client, ClientError, ClusterView};
use serde::Serialize;

use crate::{
    commands::output::{self, Cell, Meaning},
    exit_codes,
};

/// A node that takes longer to say how it is, is not well.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn status(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let report = Report::of(ask(client).await?);
    let mut output = io::stdout().lock();
    if json {
        output::json_line(&mut output, &report)?;
    } else {
        output::table(&mut output, &report.rows())?;
        writeln!(output, "{}", report.sentence())?;
    }
    Ok(ExitCode::from(match report.healthy {
        true => 0,
        false => exit_codes::FAILED,
    }))
}

/// What is known of one node.
#[derive(Debug, Serialize)]
struct Node {
    id: u64,
    address: String,
    voter: bool,
    /// What it says itself.
    status: Option<ClusterView>,
    /// Why it says nothing.
    error: Option<String>,
}

/// Asks the nodes that were named, then those that they name.
async fn ask(client: &Client) -> Result<Vec<Node>, ClientError> {
    let patience = |client: &Client, server| client.only(server, PATIENCE);
    // Goes around all servers; one of them must answer, or there is nothing to tell.
    let first = client.cluster().await?;
    let named = client.servers().iter().cloned();
    let named =
        join_all(named.map(|server| async { patience(client, server).cluster().await })).await;
    let mut views: BTreeMap<u64, ClusterView> = BTreeMap::new();
    for view in named.into_iter().flatten().chain([first.clone()]) {
        views.entry(view.node).or_insert(view);
    }
    let nodes = first.members.into_iter().map(|member| {
        let known = views.remove(&member.id);
        async move {
            let (status, error) = match known {
                Some(view) => (Some(view), None),
                None => match client.servers()[0].sibling(&member.http) {
                    Err(error) => (None, Some(error.to_string())),
                    Ok(server) => match patience(client, server).cluster().await {
                        Ok(view) if view.node == member.id => (Some(view), None),
                        Ok(view) => (None, Some(format!("node {} answers there", view.node))),
                        Err(error) => (None, Some(error.to_string())),
                    },
                },
            };
            Node {
                id: member.id,
                address: member.http,
                voter: member.voter,
                status,
                error,
            }
        }
    });
    Ok(join_all(nodes).await)
}

/// The cluster as a whole.
#[derive(Debug, Serialize)]
struct Report {
    healthy: bool,
    /// As those in the newest term have it.
    leader: Option<u64>,
    term: u64,
    last_log_index: u64,
    nodes: Vec<Node>,
}

impl Report {
    fn of(nodes: Vec<Node>) -> Self {
        let views = || nodes.iter().filter_map(|node| node.status.as_ref());
        let term = views().map(|view| view.term).max().unwrap_or(0);
        let leader = views()
            .filter(|view| view.term == term)
            .find_map(|view| view.leader);
        let last_log_index = views().map(|view| view.last_log_index).max().unwrap_or(0);
        let well = |node: &Node| {
            let status = node.status.as_ref();
            node.voter && status.is_some_and(|view| view.quorum && view.leader == leader)
        };
        Self {
            healthy: leader.is_some() && nodes.iter().all(well),
            leader,
            term,
            last_log_index,
            nodes,
        }
    }

    fn rows(&self) -> Vec<Vec<Cell>> {
        let titles = [
            "NODE", "ADDRESS", "ROLE", "READY", "TERM", "APPLIED", "LAG", "ABOUT",
        ];
        let mut rows = vec![titles.map(Cell::plain).to_vec()];
        rows.extend(self.nodes.iter().map(|node| self.row(node)));
        rows
    }

    fn row(&self, node: &Node) -> Vec<Cell> {
        let role = match (self.leader == Some(node.id), node.voter) {
            (true, _) => "leader",
            (false, true) => "follower",
            (false, false) => "not joined",
        };
        let head = [node.id.to_string(), node.address.clone(), role.to_owned()];
        let mut row: Vec<_> = head.map(Cell::plain).into();
        match &node.status {
            Some(view) => {
                let ready = match view.quorum {
                    true => Cell::new("yes", Meaning::Good),
                    false => Cell::new("no", Meaning::Bad),
                };
                let lag = self.last_log_index.saturating_sub(view.applied_index);
                let numbers = [view.term, view.applied_index, lag];
                row.push(ready);
                row.extend(numbers.map(|number| Cell::plain(number.to_string())));
                row.push(Cell::plain(view.reason.as_deref().unwrap_or_default()));
            }
            None => {
                row.push(Cell::new("no", Meaning::Bad));
                row.extend(["-", "-", "-"].map(Cell::plain));
                row.push(Cell::plain(node.error.as_deref().unwrap_or_default()));
            }
        }
        row
    }

    fn sentence(&self) -> String {
        let ready = self.nodes.iter().filter(|node| {
            let status = node.status.as_ref();
            status.is_some_and(|view| view.quorum)
        });
        let word = match self.healthy {
            true => "healthy",
            false => "degraded",
        };
        let leader = match self.leader {
            Some(leader) => format!("node {leader} leads"),
            None => "nobody leads".to_owned(),
        };
        format!(
            "{word}: {leader}, {} of {} nodes are ready",
            ready.count(),
            self.nodes.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(node: u64, leader: Option<u64>, term: u64, applied_index: u64) -> ClusterView {
        ClusterView {
            node,
            leader,
            term,
            last_log_index: applied_index + 1,
            applied_index,
            quorum: leader.is_some(),
            reason: leader.is_none().then(|| "knows no leader".into()),
            members: Vec::new(),
        }
    }

    fn node(id: u64, status: Option<ClusterView>) -> Node {
        Node {
            id,
            address: format!("n{id}:3020"),
            voter: true,
            error: status.is_none().then(|| "was lost".into()),
            status,
        }
    }

    #[track_caller]
    fn check(nodes: Vec<Node>, healthy: bool, expected: &str) {
        let report = Report::of(nodes);
        let mut table = Vec::new();
        output::table(&mut table, &report.rows()).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert_eq!(format!("{table}{}\n", report.sentence()), expected);
        assert_eq!(report.healthy, healthy);
    }

    #[test]
    fn all_well() {
        check(
            vec![
                node(1, Some(view(1, Some(2), 3, 9))),
                node(2, Some(view(2, Some(2), 3, 10))),
            ],
            true,
            "\
NODE  ADDRESS  ROLE      READY  TERM  APPLIED  LAG  ABOUT
1     n1:3020  follower  yes    3     9        2
2     n2:3020  leader    yes    3     10       1
healthy: node 2 leads, 2 of 2 nodes are ready
",
        );
    }

    #[test]
    fn a_node_that_is_cut_off_or_gone_makes_it_degraded() {
        check(
            vec![
                node(1, Some(view(1, Some(2), 3, 9))),
                node(2, Some(view(2, Some(2), 3, 9))),
                node(3, None),
            ],
            false,
            "\
NODE  ADDRESS  ROLE      READY  TERM  APPLIED  LAG  ABOUT
1     n1:3020  follower  yes    3     9        1
2     n2:3020  leader    yes    3     9        1
3     n3:3020  follower  no     -     -        -    was lost
degraded: node 2 leads, 2 of 3 nodes are ready
",
        );
        check(
            vec![
                node(1, Some(view(1, None, 4, 9))),
                node(2, Some(view(2, Some(1), 3, 9))),
            ],
            false,
            "\
NODE  ADDRESS  ROLE      READY  TERM  APPLIED  LAG  ABOUT
1     n1:3020  follower  no     4     9        1    knows no leader
2     n2:3020  follower  yes    3     9        1
degraded: nobody leads, 1 of 2 nodes are ready
",
        );
    }

    #[test]
    fn two_leaders_are_not_healthy() {
        let nodes = vec![
            node(1, Some(view(1, Some(1), 3, 9))),
            node(2, Some(view(2, Some(2), 4, 9))),
        ];
        let report = Report::of(nodes);
        assert_eq!((report.healthy, report.leader), (false, Some(2)));
    }
}
