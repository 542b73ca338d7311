//! The decision of a node without data: found, join, or wait. No I/O.

use super::Phase;

/// The node that founds the cluster; hiqlite has it so.
const FOUNDER: u64 = 1;

/// What is known of another node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// It did not answer; why.
    Silent(String),
    /// It answered, and no linearizable read could be made through it.
    Says(Phase),
    /// A linearizable read was made through it, just now and without us.
    Commits,
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// There is no cluster and never was one.
    Found,
    /// There is one that does without us.
    Join,
    /// Neither is known; whom to wait for.
    Wait(String),
}

/// Decides for node `node`, which has no data, by what it heard of all others.
pub(super) fn decide(node: u64, others: &[(u64, Heard)]) -> Step {
    let all = |fits: fn(&Heard) -> bool| others.iter().all(|(_, heard)| fits(heard));
    if others.iter().any(|(_, heard)| *heard == Heard::Commits) {
        return Step::Join;
    }
    if node == FOUNDER && all(|heard| *heard == Heard::Says(Phase::New)) {
        return Step::Found;
    }
    let is_founded_now = others
        .iter()
        .any(|(peer, heard)| *peer == FOUNDER && is_founding(heard));
    if is_founded_now && all(|heard| is_founding(heard) || has_nothing(heard)) {
        return Step::Join;
    }
    let reasons: Vec<_> = others
        .iter()
        .map(|(peer, heard)| format!("node {peer} {}", reason(*peer, heard)))
        .collect();
    Step::Wait(reasons.join("; "))
}

/// Only node 1 is ever in these phases.
fn is_founding(heard: &Heard) -> bool {
    matches!(heard, Heard::Says(Phase::Founding | Phase::Restoring))
}

fn has_nothing(heard: &Heard) -> bool {
    matches!(heard, Heard::Says(Phase::New | Phase::Joining))
}

fn reason(peer: u64, heard: &Heard) -> String {
    match heard {
        Heard::Silent(detail) => format!("does not answer ({detail})"),
        Heard::Says(Phase::New) if peer == FOUNDER => "has not founded the cluster".into(),
        Heard::Says(Phase::New) => "is new as well".into(),
        Heard::Says(Phase::Founding | Phase::Restoring) => "is founding the cluster".into(),
        Heard::Says(Phase::Joining) => "was joining a cluster".into(),
        Heard::Says(Phase::Member) => {
            "is a member of a cluster, and leads no majority that can do without this node".into()
        }
        Heard::Commits => "has a majority".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(word: &str) -> Heard {
        match word {
            "silent" => Heard::Silent("refused".into()),
            "new" => Heard::Says(Phase::New),
            "founding" => Heard::Says(Phase::Founding),
            "restoring" => Heard::Says(Phase::Restoring),
            "joining" => Heard::Says(Phase::Joining),
            "member" => Heard::Says(Phase::Member),
            "commits" => Heard::Commits,
            other => panic!("{other}"),
        }
    }

    /// `others` in the order of their numbers.
    #[track_caller]
    fn check(node: u64, others: &str, expected: &str) {
        let numbers = (1..).filter(|peer| *peer != node);
        let others: Vec<_> = numbers.zip(others.split_whitespace().map(heard)).collect();
        let step = match decide(node, &others) {
            Step::Found => "found",
            Step::Join => "join",
            Step::Wait(_) => "wait",
        };
        assert_eq!(step, expected, "node {node} among {others:?}");
    }

    #[test]
    fn node_1_founds_only_when_all_others_say_that_they_are_new() {
        check(1, "", "found");
        check(1, "new", "found");
        check(1, "new new", "found");
        check(1, "new silent", "wait");
        check(1, "silent silent", "wait");
        check(1, "new joining", "wait");
        check(1, "new member", "wait");
        check(1, "new new new silent", "wait");
    }

    #[test]
    fn a_lost_node_joins_only_what_commits_without_it() {
        check(1, "commits member", "join");
        check(1, "member commits", "join");
        check(1, "commits silent", "join");
        check(1, "member silent", "wait");
        check(1, "member member", "wait");
        check(2, "member member", "wait");
        check(2, "silent commits", "join");
        check(2, "founding member", "wait");
        check(2, "founding silent", "wait");
    }

    #[test]
    fn new_nodes_follow_node_1_and_nobody_else() {
        check(2, "new new", "wait");
        check(2, "founding new", "join");
        check(3, "founding joining", "join");
        check(3, "restoring new", "join");
        check(2, "new joining", "wait");
        check(2, "new", "wait");
        check(2, "founding", "join");
    }

    /// Whatever the others are, only node 1 founds, and not while anybody may have data.
    #[test]
    fn no_combination_of_others_makes_a_second_cluster() {
        let words = [
            "silent",
            "new",
            "founding",
            "restoring",
            "joining",
            "member",
            "commits",
        ];
        for node in 1..=3 {
            for one in words {
                for two in words {
                    let numbers = (1..=3).filter(|peer| *peer != node);
                    let others: Vec<_> = numbers.zip([heard(one), heard(two)]).collect();
                    let founds = decide(node, &others) == Step::Found;
                    assert_eq!(
                        founds,
                        node == 1 && (one, two) == ("new", "new"),
                        "{others:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_wait_names_whom_it_waits_for() {
        let others = [(2, heard("member")), (3, heard("silent"))];
        let Step::Wait(reason) = decide(1, &others) else {
            panic!("no wait");
        };
        expect_test::expect![[
            r#"node 2 is a member of a cluster, and leads no majority that can do without this node; node 3 does not answer (refused)"#
        ]]
        .assert_eq(&reason);
    }
}
