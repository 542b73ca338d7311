//! One engine with a journal in one file.

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::processes::{folder, free_ports, wait_until_ready};

/// It is killed when this is dropped, and its data goes.
pub(crate) struct Engine {
    pub(crate) port: u16,
    pub(crate) process: Child,
    _folder: TempDir,
}

impl Engine {
    pub(crate) async fn start() -> Self {
        let folder = folder("engine");
        let port = free_ports(1)[0];
        let mut process = Command::new(env!("CARGO_BIN_EXE_mvm-ci"))
            .args(["flow", "up", "--bind", &format!("127.0.0.1:{port}")])
            .arg("--working-dir")
            .arg(folder.path())
            .env("MVM_CI_LOG", "warn")
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        wait_until_ready(&mut process, port, "/health").await;
        Self {
            port,
            process,
            _folder: folder,
        }
    }
}
