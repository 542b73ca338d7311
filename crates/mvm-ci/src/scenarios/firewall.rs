//! `firewall`: each machine lets in nothing but the ports of mvm-ci, by iptables and ip6tables in the guest; in the end
//! the nodes let in nobody without a token.
//!
//! What a green run does not prove: that no other port would be of use; only that none is needed.

use std::{path::Path, time::Duration};

use mvm_lab::{
    ensure,
    node::Node,
    scenario::{Failure, Outcome, Run, Scenario, ScenarioFuture},
    service::{ServiceSpec, ServiceStart},
    wait,
};

use super::{
    api,
    cluster_nodes::{AGREE_ALLOWED, Cluster, FORM_ALLOWED, PROGRAM, SERVICE, topology},
    writes,
};

/// A cluster that can form has done so in half of this.
const BLOCKED: Duration = Duration::from_secs(40);
/// Each way of the link that is slow in the end.
const SLOW: Duration = Duration::from_millis(50);
/// How long clients write over it.
const SLOW_LASTS: Duration = Duration::from_secs(5);
/// Its own processes may talk to a node however they like.
const OWN: &str = "-A INPUT -i lo -j ACCEPT";
/// What a node has asked others for comes back; without this nothing that it begins ever does.
const ANSWERS: &str = "-I INPUT 1 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
/// HTTP, Raft and the store; nothing else.
const PORTS: [&str; 3] = [
    "-A INPUT -p tcp --dport 3020 -j ACCEPT",
    "-A INPUT -p tcp --dport 9000:9001 -j ACCEPT",
    "-A INPUT -j DROP",
];

/// A port on which nodes listen and which no rule opens: that of their workflows.
const OTHER_PORT: u16 = api::FLOW_PORT;

/// The same node, which lets in nobody without a token.
const BY_TOKENS: &str = "mvm-ci-by-tokens";
/// The tokens it knows.
const TOKENS: &str = "/data/tokens.toml";

pub(super) fn scenario(program: &Path) -> Scenario {
    let mut topology = topology(program, &["node1", "node2", "node3"]);
    topology.image = topology.image.firewall();
    for machine in &mut topology.machines {
        for service in &mut machine.services {
            service.start = ServiceStart::WhenAsked;
        }
        let by_tokens: Vec<_> = machine.services.iter().map(by_tokens).collect();
        machine.services.extend(by_tokens);
    }
    Scenario {
        name: "firewall".into(),
        about: "only the ports of mvm-ci are open: the cluster forms, if answers come in".into(),
        topology,
        prepare: None,
        run: Box::new(|run| -> ScenarioFuture<'_> { Box::pin(steps(run)) }),
    }
}

async fn steps(run: &Run) -> Outcome {
    let cluster = &Cluster::new(&run.lab);
    let names = cluster.names();
    run.step("the machines boot, and filter what comes in", async {
        run.lab.start_all().await?;
        for node in run.lab.nodes() {
            filter(node, &[OWN]).await?;
            filter(node, &PORTS).await?;
        }
        Ok(())
    })
    .await?;
    run.step("no answers come in: no cluster forms", async {
        start(run).await?;
        let condition = "they form a cluster that cannot be";
        let formed = wait::until(condition, BLOCKED, || cluster.look_at_agreement(&names));
        match formed.await {
            Ok(view) => Err(Failure::broken(format!("they formed a cluster: {view:?}"))),
            Err(_waited) => Ok(()),
        }
    })
    .await?;
    run.step(
        "answers come in: the cluster forms and accepts jobs",
        async {
            for node in run.lab.nodes() {
                node.kill_service(SERVICE).await?;
                node.succeed("rm -rf /data/mvm-ci").await?;
                filter(node, &[ANSWERS]).await?;
            }
            start(run).await?;
            cluster.agree(&names, FORM_ALLOWED).await?;
            for (name, number) in names.iter().zip(1..) {
                let url = format!("https://example.org/filtered/{number}");
                cluster.accept_soon(name, &url, AGREE_ALLOWED).await?;
            }
            cluster.all_list_the_same(&names).await
        },
    )
    .await?;
    run.step(
        "the node's ports are open to others, another is not",
        async {
            let (node1, node2) = (run.lab.node("node1"), run.lab.node("node2"));
            for port in [api::PORT, 9000, 9001] {
                let connect = format!("nc -w 5 node1 {port} < /dev/null");
                node2.succeed(&connect).await?;
            }
            node1.wait_for_open_port(OTHER_PORT, AGREE_ALLOWED).await?;
            node2
                .fail(&format!("nc -w 2 node1 {OTHER_PORT} < /dev/null"))
                .await?;
            let filtered = node1.succeed("iptables -L INPUT -n -v -x").await?;
            let dropped = filtered.lines().rfind(|line| line.contains("DROP"));
            let packets =
                dropped.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            ensure!(
                packets.is_some_and(|packets| packets > 0),
                "nothing was dropped: {filtered}"
            );
            Ok(())
        },
    )
    .await?;
    run.step("tc delays what node1 sends: the cluster goes on", async {
        let delay = format!(
            "tc qdisc add dev eth1 root netem delay {}ms",
            SLOW.as_millis()
        );
        run.lab.node("node1").succeed(&delay).await?;
        let writing = async {
            tokio::time::sleep(SLOW_LASTS).await;
            Ok(())
        };
        let ((), writes) = writes::during(cluster, "slow", writing).await?;
        run.note(writes.to_string());
        ensure!(writes.accepted() > 0, "no write was accepted: {writes}");
        cluster.all_list_the_same(&names).await
    })
    .await?;
    run.step(
        "who has no token gets nowhere, who has one submits",
        tokens(run),
    )
    .await
}

fn by_tokens(service: &ServiceSpec) -> ServiceSpec {
    let mut service = service.clone();
    service.name = BY_TOKENS.to_owned();
    service.environment.remove("MVM_CI_AUTH");
    let tokens = ("MVM_CI_TOKENS".to_owned(), TOKENS.to_owned());
    service.environment.extend([tokens]);
    service
}

async fn tokens(run: &Run) -> Outcome {
    let (node1, node2) = (run.lab.node("node1"), run.lab.node("node2"));
    let make = format!("{PROGRAM} token new lab --scope submit --file {TOKENS}");
    let token = node1.succeed(&make).await?;
    let file = node1.succeed(&format!("cat {TOKENS}")).await?;
    for node in run.lab.nodes() {
        node.kill_service(SERVICE).await?;
        node.succeed(&format!("printf %s '{file}' > {TOKENS}"))
            .await?;
        node.start_service(BY_TOKENS).await?;
    }
    // What load balancers ask needs no token.
    let ready = "timeout 20 wget -q -O - http://node1:3020/ready";
    node2.wait_until_succeeds(ready, FORM_ALLOWED).await?;
    let authorization = format!("--header 'Authorization: Bearer {}'", token.trim());
    let submit = "--post-data url=http://example.org/by-token http://node1:3020/new-job";
    let claim = "--header 'Content-Type: application/json' --post-data '{\"worker\":\"w\"}' http://node1:3020/queue/claim";
    let ask = |options: &str, what: &str| format!("timeout 20 wget -q -O - {options} {what} 2>&1");
    for (command, status) in [
        (ask("", submit), "401"),
        (ask("", "http://node1:3020/queue/list"), "401"),
        (ask(&authorization, claim), "403"),
    ] {
        let answer = node2.fail(&command).await?;
        ensure!(answer.contains(status), "not {status} but {answer:?}");
    }
    node2.succeed(&ask(&authorization, submit)).await?;
    let list = ask(&authorization, "http://node1:3020/queue/list?limit=500");
    let listed = node2.succeed(&list).await?;
    ensure!(
        listed.contains("http://example.org/by-token"),
        "the job is not listed: {listed:?}"
    );
    Ok(())
}

async fn start(run: &Run) -> Outcome {
    for node in run.lab.nodes() {
        node.start_service(SERVICE).await?;
    }
    Ok(())
}

/// Adds rules for both families.
async fn filter(node: &Node, rules: &[&str]) -> Outcome {
    for tool in ["iptables", "ip6tables"] {
        for rule in rules {
            node.succeed(&format!("{tool} {rule}")).await?;
        }
    }
    Ok(())
}
