//! `mvm-ci schedule`.

use expect_test::expect;

use crate::node::Node;

#[test]
fn schedules_are_kept() {
    let node = Node::start();
    let add = |arguments: &[&str]| node.said(&[&["schedule", "add"], arguments].concat());
    let nightly = ["nightly", "--cron", "30 2 * * *", "--missed", "skip"];
    let work = ["--label", "linux", "--attempts", "2", "--", "make", "check"];
    let added = add(&[&nightly[..], &work].concat());
    assert!(added.ends_with("T02:30:00Z\nexit 0\n"), "{added}");
    let hourly = [
        "hourly",
        "--cron",
        "0 * * * *",
        "--kind",
        "report",
        "--json",
    ];
    let added = add(&hourly);
    assert!(
        added.contains("\"name\":\"hourly\",\"revision\":"),
        "{added}"
    );
    node.check(
        &["schedule", "list"],
        &[],
        expect![[r#"
            NAME     CRON        KIND     NEXT
            hourly   0 * * * *   report   TIME
            nightly  30 2 * * *  process  TIME
            exit 0
        "#]],
    );
    node.check(
        &["schedule", "show", "nightly"],
        &[],
        expect![[r#"
            name              nightly
            cron              30 2 * * *
            missed            skip
            next              TIME
            kind              process
            payload           {"command":["make","check"]}
            labels            linux
            attempts allowed  2
            exit 0
        "#]],
    );
    let shown = node.json(&["schedule", "show", "nightly", "--json"]);
    assert_eq!(shown["job"]["payload"]["command"][0], "make");
    let lines = node.said(&["schedule", "list", "--json"]);
    assert_eq!(lines.lines().count(), 3, "{lines}");

    assert_eq!(node.said(&["schedule", "remove", "nightly"]), "exit 0\n");
    node.check(
        &["schedule", "remove", "nightly"],
        &[],
        expect![[r#"
            ! mvm-ci: NODE refused: there is no such schedule (404): there is no schedule "nightly"
            ! hint: GET /api/v1/schedules shows the schedules there are
            exit 5
        "#]],
    );
    node.check(
        &["schedule", "show", "nightly"],
        &[],
        expect![[r#"
            ! mvm-ci: there is no schedule "nightly"; `mvm-ci schedule list` shows those there are
            exit 5
        "#]],
    );
    for (arguments, code, word) in [
        (
            &["never", "--cron", "0 0 30 2 *", "--kind", "k"][..],
            5,
            "(400)",
        ),
        (&["x", "--cron", "0 0 * * *"], 2, "--kind"),
        (&["x", "--kind", "k"], 2, "--cron"),
        (
            &[
                "x",
                "--cron",
                "0 0 * * *",
                "--kind",
                "k",
                "--missed",
                "maybe",
            ],
            2,
            "once, all or skip",
        ),
    ] {
        let text = add(arguments);
        assert!(
            text.contains(word) && text.ends_with(&format!("exit {code}\n")),
            "{text}"
        );
    }
}
