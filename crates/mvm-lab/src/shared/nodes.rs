//! What a machine's kernel knows of the folder: numbers of nodes, and where each was found.
//!
//! A node is a place, not an open file, so that what a machine looks at costs the host no descriptors. Others change the
//! folder meanwhile: what lies at a place is compared with what was found there, see [`Identity`].

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};

use super::fuse::Name;

/// The folder itself.
pub(super) const ROOT: u64 = 1;

/// How many nodes a machine may know at once. Its kernel forgets one as soon as nobody uses it.
const NODES_MAX: usize = 64 * 1024;

/// What tells one file from another at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    /// Numbers of inodes are used again.
    file_type: FileType,
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            file_type: FileType::from_raw_mode(stat.st_mode),
        }
    }
}

#[derive(Debug)]
struct Node {
    /// The folder it is in and its name there; none once it was removed or replaced.
    place: Option<(u64, OsString)>,
    identity: Identity,
    /// How often the kernel was told of it, and has not forgotten.
    known: u64,
}

/// The nodes that a kernel was told of.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: HashMap<u64, Node>,
    places: HashMap<(u64, OsString), u64>,
    last: u64,
}

/// Where the numbers of a session begin, be it of nodes or of open files. The mount outlives sessions, and a number that an
/// earlier one told must lead to nothing, rather than to something else: these begin far apart, unless by a chance of one
/// in a billion.
pub(super) fn first_number(session: u64) -> u64 {
    // Above it there is room for four billions.
    (session >> 1 | 1 << 32) & !0xffff_ffff
}

impl Nodes {
    pub(super) fn of(session: u64) -> Self {
        Self {
            nodes: HashMap::new(),
            places: HashMap::new(),
            last: first_number(session),
        }
    }

    /// Returns where a node is, seen from the folder.
    pub(super) fn path(&self, node: u64) -> Result<PathBuf, Errno> {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            let (folder, name) = self.place(at)?;
            names.push(name);
            // Only a kernel that lies goes as deep.
            if names.len() > self.nodes.len() {
                return Err(Errno::STALE);
            }
            at = folder;
        }
        names.push(OsStr::new("."));
        Ok(names.into_iter().rev().collect())
    }

    /// Returns the folder that a node is in, and its name there.
    pub(super) fn place(&self, node: u64) -> Result<(u64, &OsStr), Errno> {
        let place = self.nodes.get(&node).and_then(|node| node.place.as_ref());
        let (folder, name) = place.ok_or(Errno::STALE)?;
        Ok((*folder, name))
    }

    /// Returns what was found where a node is; `None` for the folder itself.
    pub(super) fn identity(&self, node: u64) -> Option<Identity> {
        self.nodes.get(&node).map(|node| node.identity)
    }

    /// Notes that the kernel is told what a name leads to; returns the number it is told.
    pub(super) fn found(&mut self, folder: u64, name: Name<'_>, stat: &Stat) -> Result<u64, Errno> {
        let place = (folder, name.get().to_owned());
        let identity = Identity::of(stat);
        if let Some(number) = self.places.get(&place)
            && let Some(node) = self.nodes.get_mut(number)
            && node.identity == identity
        {
            node.known = node.known.saturating_add(1);
            return Ok(*number);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(Errno::NFILE);
        }
        self.leave(&place);
        self.last += 1;
        self.places.insert(place.clone(), self.last);
        let node = Node {
            place: Some(place),
            identity,
            known: 1,
        };
        self.nodes.insert(self.last, node);
        Ok(self.last)
    }

    /// Notes that the kernel has forgotten what it was told so many times.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        node.known = node.known.saturating_sub(times);
        if node.known == 0
            && let Some(Node {
                place: Some(place), ..
            }) = self.nodes.remove(&number)
        {
            self.places.remove(&place);
        }
    }

    /// Notes that a name leads nowhere any more.
    pub(super) fn removed(&mut self, folder: u64, name: Name<'_>) {
        self.leave(&(folder, name.get().to_owned()));
    }

    /// Notes that what was under one name is under another, whatever was there.
    pub(super) fn moved(&mut self, from: (u64, Name<'_>), to: (u64, Name<'_>)) {
        let to = (to.0, to.1.get().to_owned());
        let from = (from.0, from.1.get().to_owned());
        if from == to {
            return;
        }
        self.leave(&to);
        if let Some(number) = self.places.remove(&from)
            && let Some(node) = self.nodes.get_mut(&number)
        {
            node.place = Some(to.clone());
            self.places.insert(to, number);
        }
    }

    fn leave(&mut self, place: &(u64, OsString)) {
        if let Some(number) = self.places.remove(place)
            && let Some(node) = self.nodes.get_mut(&number)
        {
            node.place = None;
        }
    }
}
