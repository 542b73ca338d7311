//! Whole configurations, from text to result.

use super::{member::alone, *};

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn load(file: &str, pairs: &[(&str, &str)], flags: Settings) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mvm-ci.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources {
        file: Some(path.clone()),
        environment: environment(pairs),
        flags,
    };
    let shown = |error: ConfigError| {
        error
            .to_string()
            .replace(&path.display().to_string(), "FILE")
    };
    Config::load(sources).map_err(shown)
}

#[track_caller]
fn check_error(file: &str, expected: &str) {
    assert_eq!(load(file, &[], Settings::default()).unwrap_err(), expected);
}

const THREE: &str = r#"
auth = "none"
secret_raft = "0123456789abcdef"
secret_store = "fedcba9876543210"
[[members]]
id = 1
host = "node1"
[[members]]
id = 2
host = "192.168.1.2"
http_port = 4020
[[members]]
id = 3
host = "2001:db8::3"
"#;

#[test]
fn without_configuration_a_node_is_alone_on_loopback() {
    let config = load("", &[("HOME", "/home/ann")], Settings::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:3020");
    assert_eq!(config.cluster_listen.to_string(), "127.0.0.1");
    assert_eq!(config.data_dir, Path::new("/home/ann/.local/state/mvm-ci"));
    assert_eq!(config.members, [alone(1)]);
    assert_ne!(config.secret_raft, config.secret_store);
}

#[test]
fn a_cluster_listens_where_the_others_reach_it() {
    let config = load(THREE, &[("MVM_CI_NODE_ID", "2")], Settings::default()).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:4020");
    assert_eq!(config.this_member().raft(), "192.168.1.2:9000");
    assert_eq!(config.members[2].store(), "[2001:db8::3]:9001");
}

#[test]
fn flags_beat_environment_beats_file() {
    let file = "node_id = 1\nheartbeat_ms = 100\ndata_dir = \"/f\"";
    let variables = [("MVM_CI_HEARTBEAT_MS", "110"), ("MVM_CI_DATA_DIR", "/e")];
    let flags = Settings {
        data_dir: Some("/flag".into()),
        ..Settings::default()
    };
    let config = load(file, &variables, flags).unwrap();
    assert_eq!(config.heartbeat, Duration::from_millis(110));
    assert_eq!(config.data_dir, Path::new("/flag"));
}

#[test]
fn members_are_read_from_one_variable() {
    let variables = [
        ("MVM_CI_MEMBERS", "1=node1, 2=127.0.0.1:1:2:3"),
        ("MVM_CI_SECRET_RAFT", "0123456789abcdef"),
        ("MVM_CI_SECRET_STORE", "0123456789abcdef"),
        ("MVM_CI_AUTH", "none"),
    ];
    let config = load("", &variables, Settings::default()).unwrap();
    let found: Vec<_> = config
        .members
        .iter()
        .map(|member| (member.http(), member.store()))
        .collect();
    let expected = [("node1:3020", "node1:9001"), ("127.0.0.1:1", "127.0.0.1:3")];
    assert_eq!(
        found,
        expected.map(|(http, store)| (http.into(), store.into()))
    );
}

#[test]
fn a_malformed_file_names_line_and_key() {
    check_error(
        "node_id = 1\ndata_dri = \"/x\"\n",
        r#"FILE, line 2: unknown key "data_dri"; did you mean "data_dir"?"#,
    );
    check_error(
        "[[members]]\nid = 1\nhots = \"a\"\n",
        r#"FILE, line 3: unknown key "hots"; did you mean "host"?"#,
    );
    check_error(
        "\nzzz = 1\n[members]\n",
        r#"FILE, line 2: unknown key "zzz"; known keys are node_id, data_dir, listen, cluster_listen, members, secret_raft, secret_store, heartbeat_ms, election_min_ms, election_max_ms, lease_ms, backup_keep_days, slots, labels, flow_listen, flow_slots, flow_secrets, flow_limits, stop_grace_ms, retain_jobs, retain_days, auth, tokens, tls_cert, tls_key, tls_ca, cluster_tls, rate_limit_per_s, connections_max"#,
    );
    check_error(
        "node_id = \"one\"\n",
        r#"FILE, line 1, key "node_id": invalid type: string "one", expected u64"#,
    );
    check_error(
        "node_id = 1\nlisten = \"localhost\"\n",
        r#"FILE, line 2, key "listen": invalid socket address syntax"#,
    );
    check_error(
        "[[members]]\nid = 1\nhost = \"a\"\n\nhttp_port = 70000\n",
        r#"FILE, line 5, key "http_port": invalid value: integer `70000`, expected u16"#,
    );
    check_error(
        "[[members]]\nid = 1\n",
        r#"FILE, line 1, key "members": missing field `host`"#,
    );
    check_error(
        "node_id = 1\nnode_id = 2\n",
        r#"FILE, line 2, key "node_id": duplicate key"#,
    );
    check_error(
        "node_id\n",
        r#"FILE, line 1, key "node_id": key with no value, expected `=`"#,
    );
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    check_error(
        "node_id = 0",
        r#"setting "node_id": 0 is not between 1 and 65535"#,
    );
    check_error(
        "node_id = 2",
        r#"setting "members": no member has id 1, which founds the cluster"#,
    );
    check_error(
        "[[members]]\nid=1\nhost=\"a\"\n[[members]]\nid=1\nhost=\"b\"",
        r#"setting "members": id 1 is given twice"#,
    );
    check_error(
        "auth=\"none\"\n[[members]]\nid=1\nhost=\"a\"\n[[members]]\nid=2\nhost=\"b\"",
        r#"setting "secret_raft": is missing; nodes of a cluster prove by it that they belong together"#,
    );
    check_error(
        "secret_raft = \"short\"",
        r#"setting "secret_raft": has 5 characters; at least 16 are needed"#,
    );
    check_error(
        "heartbeat_ms = 500",
        r#"setting "election_min_ms": 800 ms is less than two heartbeats of 500 ms"#,
    );
    let error = load("", &[("MVM_CI_LISTEN", "3020")], Settings::default()).unwrap_err();
    assert_eq!(
        error,
        r#"environment variable MVM_CI_LISTEN: "3020" is not a value for listen"#
    );
}

#[test]
fn a_named_file_must_exist() {
    let sources = Sources {
        file: Some("/nonexistent/x.toml".into()),
        ..Sources::default()
    };
    let error = Config::load(sources).unwrap_err().to_string();
    assert!(
        error.starts_with("could not read /nonexistent/x.toml"),
        "{error}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let variables = [
        ("MVM_CI_SECRET_RAFT", "a-secret-of-raft"),
        ("MVM_CI_NODE_ID", "1"),
    ];
    let config = load(
        "secret_store = \"a-secret-of-store\"",
        &variables,
        Settings::default(),
    );
    let config = config.unwrap();
    assert_eq!(config.secret_raft.expose(), "a-secret-of-raft");
    assert_eq!(config.secret_store.expose(), "a-secret-of-store");
    let shown = format!("{config:?}");
    assert!(!shown.contains("a-secret"), "{shown}");
    check_error(
        "secret_raft = 1234567890123456",
        r#"FILE, line 1, key "secret_raft": a secret is text in quotes"#,
    );
}
