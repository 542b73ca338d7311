//! The cache under failure and company.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const SHELF: Shelf = Shelf {
    name: "things",
    unused_max: Some(Duration::from_secs(60)),
};

fn cache() -> (tempfile::TempDir, Cache) {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::at(directory.path().join("cache")).unwrap();
    (directory, cache)
}

fn key(text: &str) -> ContentKey {
    ContentKey::of("test").text(text).finish()
}

fn names(cache: &Cache) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(cache.shelf(SHELF))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_entry_is_made_once() {
    let (_directory, cache) = cache();
    let make = |text: &'static str| {
        cache
            .entry::<FileError>(SHELF, &key("a"), |place| {
                files::write(&place.join("f"), text.as_bytes())
            })
            .unwrap()
    };
    assert_eq!(fs::read(make("first").join("f")).unwrap(), b"first");
    assert_eq!(fs::read(make("second").join("f")).unwrap(), b"first");
    assert_eq!(fs::read_dir(cache.root().join("locks")).unwrap().count(), 0);
}

#[test]
fn a_failure_leaves_nothing() {
    let (_directory, cache) = cache();
    let result = cache.entry::<FileError>(SHELF, &key("a"), |place| {
        files::write(&place.join("half"), b"...")?;
        Err(io::Error::from(io::ErrorKind::StorageFull)).naming("write", Path::new("half"))
    });
    let message = result.unwrap_err().to_string();
    assert!(message.contains("MVM_CI_CACHE"), "{message}");
    assert!(names(&cache).is_empty());
    assert!(cache.find(SHELF, &key("a")).is_none());
}

#[test]
fn what_a_dead_process_left_is_removed() {
    for begun in ["same", "other"] {
        let (_directory, cache) = cache();
        // No process has this number.
        let left = format!("{UNFINISHED}{}-{}", key(begun), u32::MAX);
        let left = cache.shelf(SHELF).join(left);
        files::write(&left.join("half"), b"...").unwrap();
        let made = cache.entry::<FileError>(SHELF, &key("same"), |_| Ok(()));
        made.unwrap();
        assert_eq!(names(&cache), [key("same").as_str()], "{begun}");
    }
}

#[test]
fn what_a_living_process_makes_stays() {
    let (_directory, cache) = cache();
    let (living, other) = (key("living"), key("other"));
    cache
        .entry::<FileError>(SHELF, &living, |place| {
            cache.entry::<FileError>(SHELF, &other, |_| Ok(()))?;
            assert!(place.is_dir());
            Ok(())
        })
        .unwrap();
    assert_eq!(names(&cache).len(), 2);
}

#[test]
fn what_is_published_cannot_be_removed_before_its_maker_has_seen_it() {
    let (_directory, cache) = cache();
    let workspace = cache.workspace(SHELF, &key("a")).unwrap();
    files::write(&workspace.path().join("f"), b"whole").unwrap();
    let lease = cache.publish(SHELF, &key("a"), workspace).unwrap();
    assert!(!cache.remove(SHELF, &key("a")));
    assert_eq!(cache.shrink(&[SHELF], 0).entries, 0);
    assert_eq!(fs::read(lease.path().join("f")).unwrap(), b"whole");
    drop(lease);
    assert!(cache.remove(SHELF, &key("a")));
    assert!(names(&cache).is_empty());
}

#[test]
fn entries_unused_for_long_go() {
    let (_directory, cache) = cache();
    let old = cache
        .entry::<FileError>(SHELF, &key("old"), |_| Ok(()))
        .unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::open(&old)
        .unwrap()
        .set_times(FileTimes::new().set_modified(long_ago))
        .unwrap();
    cache
        .entry::<FileError>(SHELF, &key("new"), |_| Ok(()))
        .unwrap();
    assert_eq!(names(&cache), [key("new").as_str()]);
}

#[test]
fn many_makers_make_one_entry() {
    let (_directory, cache) = cache();
    let (made, start) = (AtomicU32::new(0), Barrier::new(8));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                let place = cache
                    .entry::<FileError>(SHELF, &key("a"), |place| {
                        made.fetch_add(1, Ordering::SeqCst);
                        files::write(&place.join("f"), b"whole")
                    })
                    .unwrap();
                assert_eq!(fs::read(place.join("f")).unwrap(), b"whole");
            });
        }
    });
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[test]
fn a_place_that_is_a_file_is_a_clear_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let message = Cache::at(file.path()).unwrap_err().to_string();
    assert!(
        message.starts_with("could not create the directory /"),
        "{message}"
    );
}

#[test]
fn borders_between_inputs_count() {
    let left = ContentKey::of("s").text("ab").text("c").finish();
    assert_ne!(left, ContentKey::of("s").text("a").text("bc").finish());
    assert_ne!(left, ContentKey::of("t").text("ab").text("c").finish());
}

#[test]
fn a_big_file_s_key_follows_its_content() {
    let (directory, cache) = cache();
    let path = directory.path().join("big");
    let settled = SystemTime::now() - Duration::from_secs(3600);
    let mut seen = Vec::new();
    for byte in [1_u8, 2, 2] {
        fs::write(&path, vec![byte; 2 << 20]).unwrap();
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .set_modified(settled)
            .unwrap();
        seen.push(cache.file_key(&path).unwrap());
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
    assert_eq!(
        fs::read_dir(cache.root().join("hashes")).unwrap().count(),
        1
    );
}

#[test]
fn the_lock_of_a_dead_process_goes_with_the_next_entry_and_one_that_is_held_stays() {
    let (_directory, cache) = cache();
    let held = cache.workspace(SHELF, &key("held")).unwrap();
    let dead = cache.lock_path(SHELF, key("dead").as_str());
    let other = cache.root().join("locks/things-that-are-no-key");
    for path in [&dead, &other] {
        fs::write(path, b"").unwrap();
    }
    drop(cache.workspace(SHELF, &key("next")).unwrap());
    assert!(!dead.exists() && other.exists());
    assert!(cache.lock_path(SHELF, key("held").as_str()).exists());
    drop(held);
}
