//! `mvm-ci cluster drain` and `resume`: one node's worker.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use mvm_client::{Client, ClientError, WorkerView};

use crate::{
    cli::DrainArgs,
    commands::{connect::InputError, output},
};

/// Between two looks at a node that still runs something.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn drain(
    client: &Client,
    arguments: &DrainArgs,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let node = find(client, arguments.node.node).await?;
    let mut worker = node.set(true).await?;
    while arguments.wait && worker.busy > 0 {
        tokio::time::sleep(LOOK).await;
        worker = node.look().await?;
    }
    tell(&worker, json)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn resume(client: &Client, node: u64, json: bool) -> anyhow::Result<ExitCode> {
    let worker = find(client, node).await?.set(false).await?;
    tell(&worker, json)?;
    Ok(ExitCode::SUCCESS)
}

/// One node, and nobody in its place.
struct Node {
    id: u64,
    client: Client,
}

/// A node by its number, where it answered, or else at the address that the cluster knows.
async fn find(client: &Client, id: u64) -> anyhow::Result<Node> {
    let cluster = client.cluster().await?;
    let Some(member) = cluster.members.iter().find(|member| member.id == id) else {
        let known = cluster.members.iter().map(|member| member.id).collect();
        return Err(InputError::Node { id, known }.into());
    };
    let server = match cluster.node == id {
        true => client.answered_last().clone(),
        false => client.answered_last().sibling(&member.http)?,
    };
    Ok(Node {
        id,
        client: client.only(server, client.deadline()),
    })
}

impl Node {
    async fn set(&self, draining: bool) -> Result<WorkerView, ClientError> {
        // Another one must not be drained instead.
        self.look().await?;
        self.client.drain(draining).await
    }

    async fn look(&self) -> Result<WorkerView, ClientError> {
        let worker = self.client.worker().await?;
        match worker.node == self.id {
            true => Ok(worker),
            false => Err(ClientError::Violation {
                server: self.client.servers()[0].clone(),
                detail: format!("node {} answers there, not node {}", worker.node, self.id),
            }),
        }
    }
}

fn tell(worker: &WorkerView, json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if json {
        return output::json_line(&mut output, worker);
    }
    let does = match worker.draining {
        true => "takes no more jobs",
        false => "takes jobs",
    };
    writeln!(
        output,
        "node {} {does}, and runs {} of {} at once",
        worker.node, worker.busy, worker.slots
    )
}
