//! The peer: Restate's server, and a service of the same workflows.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{
    asked::Asked,
    caller::{Caller, STEPS},
    http::Http,
    processes::{folder, free_ports, wait_until_ready},
};

/// The folder where npm installed what `peer/package.json` names, beside the service.
const INSTALLED: &str = "MVM_CI_BENCH_PEER";

/// Both processes are killed when this is dropped, and the data goes.
pub(crate) struct Restate {
    /// Where workflows are called.
    pub(crate) port: u16,
    _processes: [Child; 2],
    _folder: TempDir,
}

impl Restate {
    /// Nothing if it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let Some(installed) = env::var_os(INSTALLED) else {
            eprintln!("no peer: {INSTALLED} is not set; cargo xtask bench flow installs it");
            return None;
        };
        let installed = Path::new(&installed);
        let folder = folder("restate");
        let ports = free_ports(4);
        let [port, admin, node, service] = ports[..] else {
            unreachable!("four ports were asked for");
        };
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut server = Command::new(server(installed))
            .env("RESTATE_BASE_DIR", folder.path())
            .env("RESTATE_NODE_NAME", "bench")
            .env("RESTATE_DISABLE_TELEMETRY", "true")
            .env("RESTATE_LOG_FILTER", "error,octocrab=off")
            .env("RESTATE_BIND_ADDRESS", address(node))
            .env(
                "RESTATE_ADVERTISED_ADDRESS",
                format!("http://{}", address(node)),
            )
            .env("RESTATE_INGRESS__BIND_ADDRESS", address(port))
            .env("RESTATE_ADMIN__BIND_ADDRESS", address(admin))
            // The lines of standard output are this program's.
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut workflows = Command::new("node")
            .arg(installed.join("service.mjs"))
            .arg(service.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        wait_until_ready(&mut server, admin, "/health").await;
        let mut says = BufReader::new(workflows.stdout.take().unwrap()).lines();
        assert_eq!(says.next_line().await.unwrap().as_deref(), Some("ready"));
        let mut http = Http::connect(admin).await.unwrap();
        let uri = format!("http://{}", address(service));
        http.post("/deployments", &json!({ "uri": uri })).await;
        Some(Self {
            port,
            _processes: [server, workflows],
            _folder: folder,
        })
    }
}

/// The program that the package's own script starts, which would outlive the script.
fn server(installed: &Path) -> PathBuf {
    let processor = match env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => panic!("npm has no Restate for {other}"),
    };
    let package = format!("restate-server-linux-{processor}");
    installed
        .join("node_modules/@restatedev")
        .join(package)
        .join("bin/restate-server")
}

/// The workflow of ten requests.
pub(crate) fn steps(asked: &Asked) -> Caller {
    Caller {
        path: "/bench/steps",
        body: json!({ "url": asked.url(), "steps": STEPS }),
        is_good: |answer| answer["succeeded"] == STEPS,
    }
}

/// The workflow that answers with its input.
pub(crate) fn echo() -> Caller {
    Caller {
        path: "/bench/echo",
        body: json!(17),
        is_good: |answer| *answer == 17,
    }
}
