//! How much memory a new machine could get: what the kernel calls available, or less inside a limited control group.

use std::fs;
use std::path::{Path, PathBuf};

/// The files that tell a control group's limit and use, which differ between the two hierarchies.
struct Hierarchy {
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    reclaimable: &'static str,
}

const UNIFIED: Hierarchy = Hierarchy {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    reclaimable: "inactive_file",
};
const LEGACY: Hierarchy = Hierarchy {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

/// The memory that can be taken without swapping, in bytes, on the host whose `/` is `root`.
///
/// `None` where the kernel does not say, which is unheard of since Linux 3.14.
#[must_use]
pub fn memory_available_bytes(root: &Path) -> Option<u64> {
    let host = available_in_meminfo(&fs::read_to_string(root.join("proc/meminfo")).ok()?)?;
    let membership = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    Some(control_groups(root, &membership).fold(host, u64::min))
}

fn available_in_meminfo(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    value
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// The room left in each limited control group from ours up to the root.
fn control_groups<'a>(root: &'a Path, membership: &'a str) -> impl Iterator<Item = u64> + 'a {
    membership.lines().flat_map(move |line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or_default();
        let group = fields.next().unwrap_or_default().trim_start_matches('/');
        let hierarchy = match controllers {
            "" => Some(&UNIFIED),
            _ if controllers.split(',').any(|name| name == "memory") => Some(&LEGACY),
            _ => None,
        };
        // In a container our own group may be mounted as the hierarchy's root: look at every ancestor that exists.
        let folders: Vec<PathBuf> = Path::new(group)
            .ancestors()
            .map(Path::to_path_buf)
            .collect();
        hierarchy.into_iter().flat_map(move |hierarchy| {
            folders
                .clone()
                .into_iter()
                .filter_map(move |folder| room(&root.join(hierarchy.mount).join(folder), hierarchy))
        })
    })
}

fn room(folder: &Path, hierarchy: &Hierarchy) -> Option<u64> {
    let number = |file: &str| {
        fs::read_to_string(folder.join(file))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    // An unlimited group says `max`, which is no number.
    let limit = number(hierarchy.limit)?;
    let used = number(hierarchy.used)?;
    let statistics = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let reclaimable = statistics
        .lines()
        .find_map(|line| {
            line.strip_prefix(hierarchy.reclaimable)?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::memory_available_bytes;

    const MIB: u64 = 1 << 20;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Option<u64>) {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), files);
        assert_eq!(memory_available_bytes(root.path()), expected);
    }

    #[test]
    fn the_kernel_says() {
        check(
            &[(
                "proc/meminfo",
                "MemTotal:  16000 kB\nMemAvailable:    2048 kB\n",
            )],
            Some(2 * MIB),
        );
    }

    #[test]
    fn a_unified_group_lowers_it_and_page_cache_does_not_count() {
        check(
            &[
                ("proc/meminfo", "MemAvailable: 1048576 kB\n"),
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
                ("sys/fs/cgroup/a/b/memory.current", "1\n"),
                ("sys/fs/cgroup/a/memory.max", "104857600\n"),
                ("sys/fs/cgroup/a/memory.current", "52428800\n"),
                (
                    "sys/fs/cgroup/a/memory.stat",
                    "anon 1\ninactive_file 10485760\n",
                ),
            ],
            Some(60 * MIB),
        );
    }

    #[test]
    fn a_legacy_group_mounted_as_root_lowers_it() {
        check(
            &[
                ("proc/meminfo", "MemAvailable: 1048576 kB\n"),
                ("proc/self/cgroup", "4:memory:/docker/x\n1:cpu:/\n0::/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "10485760\n"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "20971520\n"),
            ],
            Some(0),
        );
    }

    #[test]
    fn garbage_is_unknown_not_a_panic() {
        check(&[], None);
        check(&[("proc/meminfo", "MemAvailable: many kB\n")], None);
        check(
            &[("proc/meminfo", "MemAvailable: 18446744073709551615 kB\n")],
            None,
        );
        check(
            &[
                ("proc/meminfo", "MemAvailable: 4 kB\n"),
                ("proc/self/cgroup", ":::\n\u{fffd}"),
            ],
            Some(4096),
        );
    }
}
