//! `vde_switch`, and a QEMU that is connected to it whatever it is told.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

const QEMU: &str = "qemu-system-x86_64";
const SOCKET: &str = "MVM_BENCH_VDE";
const START_ALLOWED: Duration = Duration::from_secs(10);

/// A running `vde_switch`; dropping it ends it.
pub(crate) struct Switch {
    process: Child,
    folder: TempDir,
}

impl Switch {
    pub(crate) fn start() -> Switch {
        let folder = tempfile::tempdir().unwrap();
        let process = Command::new("vde_switch")
            .arg("-sock")
            .arg(folder.path().join("switch"))
            // Its console: it ends when that does, even if this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("vde_switch: as root, apt-get install --no-install-recommends vde2");
        let began = Instant::now();
        while !folder.path().join("switch/ctl").exists() {
            assert!(
                began.elapsed() < START_ALLOWED,
                "vde_switch does not come up"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Switch { process, folder }
    }

    /// Puts before the real QEMU one that takes each card to this switch.
    pub(crate) fn connect_by_it<'a>(&self, child: &'a mut Command) -> &'a mut Command {
        let path = std::env::var_os("PATH").unwrap();
        let real: PathBuf = std::env::split_paths(&path)
            .map(|folder| folder.join(QEMU))
            .find(|program| program.is_file())
            .unwrap();
        let bin = self.folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let script = format!(
            "#!/bin/bash\n\
             args=()\n\
             for arg in \"$@\"; do\n\
               if [[ $arg == stream,id=* ]]; then\n\
                 id=${{arg#stream,id=}}\n\
                 arg=vde,id=${{id%%,*}},sock=${SOCKET}\n\
               fi\n\
               args+=(\"$arg\")\n\
             done\n\
             exec {} \"${{args[@]}}\"\n",
            real.display()
        );
        let wrapper = bin.join(QEMU);
        std::fs::write(&wrapper, script).unwrap();
        std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
        let folders = std::iter::once(bin).chain(std::env::split_paths(&path));
        child
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env(SOCKET, self.folder.path().join("switch"))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
