//! Takes secrets out of output before anything of it is kept, wherever reads cut it. Pure; who reads is in `job`.
//!
//! An Aho–Corasick automaton finds all secrets at once, in time linear in the output. A byte is decided once no secret that
//! begins at or before it can still be under way; the others are held back.

use std::collections::VecDeque;
use std::sync::Arc;

/// A secret of fewer bytes is not looked for: it would be found in everything.
pub const SECRET_BYTES_MIN: usize = 4;

/// What is written for secrets that touch one another.
const MASK: &[u8] = b"***";

/// What is to be found: a trie of the secrets, with the links of Aho and Corasick.
#[derive(Debug)]
pub(crate) struct Secrets {
    nodes: Vec<Node>,
    /// The root's edges: where most bytes lead nowhere.
    root: [u32; 256],
}

#[derive(Debug, Default)]
struct Node {
    edges: Vec<(u8, u32)>,
    /// The longest proper suffix that is in the trie.
    fallback: u32,
    depth: usize,
    /// The longest secret that ends here; 0 if none does.
    found: usize,
}

impl Secrets {
    /// Looks for each line of these values, without the blanks around it; nothing if all of them are too short.
    pub(crate) fn of(values: &[Vec<u8>]) -> Option<Self> {
        let lines = values
            .iter()
            .flat_map(|value| value.split(|byte| *byte == b'\n'))
            .map(<[u8]>::trim_ascii)
            .filter(|line| line.len() >= SECRET_BYTES_MIN);
        let mut secrets = Self {
            nodes: vec![Node::default()],
            root: [0; 256],
        };
        for line in lines {
            secrets.insert(line);
        }
        if secrets.nodes.len() == 1 {
            return None;
        }
        for (byte, node) in &secrets.nodes[0].edges {
            secrets.root[usize::from(*byte)] = *node;
        }
        secrets.link();
        Some(secrets)
    }

    fn insert(&mut self, line: &[u8]) {
        let mut at = 0;
        for (depth, byte) in (1..).zip(line) {
            at = match self.edge(at, *byte) {
                Some(next) => next,
                None => {
                    // A job's payload is far from having so many bytes.
                    let next = u32::try_from(self.nodes.len()).expect("fewer than 2^32 bytes");
                    self.nodes.push(Node {
                        depth,
                        ..Node::default()
                    });
                    self.nodes[at as usize].edges.push((*byte, next));
                    next
                }
            };
        }
        self.nodes[at as usize].found = line.len();
    }

    /// Sets the fallbacks, breadth first: each is nearer to the root.
    fn link(&mut self) {
        let mut queue: VecDeque<u32> = self.nodes[0].edges.iter().map(|edge| edge.1).collect();
        while let Some(at) = queue.pop_front() {
            for (byte, next) in self.nodes[at as usize].edges.clone() {
                let fallback = self.step(self.nodes[at as usize].fallback, byte);
                let found = self.nodes[fallback as usize].found;
                let node = &mut self.nodes[next as usize];
                node.fallback = fallback;
                node.found = node.found.max(found);
                queue.push_back(next);
            }
        }
    }

    fn edge(&self, at: u32, byte: u8) -> Option<u32> {
        let edges = &self.nodes[at as usize].edges;
        let edge = edges.iter().find(|(of, _)| *of == byte);
        edge.map(|(_, next)| *next)
    }

    fn step(&self, mut at: u32, byte: u8) -> u32 {
        while at != 0 {
            if let Some(next) = self.edge(at, byte) {
                return next;
            }
            at = self.nodes[at as usize].fallback;
        }
        self.root[usize::from(byte)]
    }
}

/// Masks one stream.
#[derive(Debug)]
pub(crate) struct Mask {
    secrets: Arc<Secrets>,
    at: u32,
    /// Bytes taken so far.
    taken: usize,
    /// The last of them, which are not decided.
    held: Vec<u8>,
    /// Where secrets are in what is held: runs that do not touch, in order.
    runs: VecDeque<(usize, usize)>,
    /// The end of the latest run that was written.
    masked_to: Option<usize>,
}

impl Mask {
    pub(crate) fn new(secrets: &Arc<Secrets>) -> Self {
        Self {
            secrets: Arc::clone(secrets),
            at: 0,
            taken: 0,
            held: Vec::new(),
            runs: VecDeque::new(),
            masked_to: None,
        }
    }

    /// Takes what was read and returns what is decided.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            self.at = self.secrets.step(self.at, *byte);
            self.taken += 1;
            let found = self.secrets.nodes[self.at as usize].found;
            if found > 0 {
                self.cover(self.taken - found);
            }
        }
        self.held.extend(bytes);
        self.decide(self.taken - self.secrets.nodes[self.at as usize].depth)
    }

    /// Returns the rest: there is no more to come.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.at = 0;
        self.decide(self.taken)
    }

    /// Notes a secret that begins there and ends here.
    fn cover(&mut self, mut begin: usize) {
        while let Some((earlier, _)) = self.runs.pop_back_if(|run| run.1 >= begin) {
            begin = begin.min(earlier);
        }
        self.runs.push_back((begin, self.taken));
    }

    /// Lets go of what is held up to a place.
    fn decide(&mut self, to: usize) -> Vec<u8> {
        let start = self.taken - self.held.len();
        let mut decided = Vec::with_capacity(to - start);
        let mut from = start;
        while from < to {
            match self.runs.front_mut() {
                Some((begin, end)) if *begin == from => {
                    // Part of the run may have been written, or of one that ends where this begins.
                    if self.masked_to != Some(from) {
                        decided.extend(MASK);
                    }
                    from = to.min(*end);
                    self.masked_to = Some(from);
                    *begin = from;
                    if from == *end {
                        self.runs.pop_front();
                    }
                }
                run => {
                    let plain_to = run.map_or(to, |run| to.min(run.0));
                    decided.extend(&self.held[from - start..plain_to - start]);
                    from = plain_to;
                }
            }
        }
        self.held.drain(..to - start);
        decided
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> Vec<u8> {
        let values: Vec<Vec<u8>> = secrets
            .iter()
            .map(|value| value.as_bytes().into())
            .collect();
        let Some(secrets) = Secrets::of(&values) else {
            return pieces.concat();
        };
        let mut mask = Mask::new(&Arc::new(secrets));
        let mut all = Vec::new();
        for piece in pieces {
            all.extend(mask.push(piece));
        }
        all.extend(mask.finish());
        all
    }

    #[track_caller]
    fn check(secrets: &[&str], pieces: &[&str], expected: &str) {
        let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
        let found = masked(secrets, &pieces);
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }

    #[test]
    fn secrets_are_found_wherever_they_are_cut() {
        check(&["hush"], &["say hush now"], "say *** now");
        check(&["hush"], &["say hu", "sh now"], "say *** now");
        check(&["hush"], &["h", "u", "s", "h"], "***");
        check(&["hush"], &["hu", "shhu", "s"], "***hus");
        check(&["hush"], &["hus"], "hus");
        check(&["hush"], &["hushhush", "hush"], "***");
        check(
            &["hush", "hushed up"],
            &["hushed down, hushed up"],
            "***ed down, ***",
        );
        check(&["abcdef", "defghi"], &["-abcde", "fghi-"], "-***-");
        check(&["aaaa"], &["aaaaaaaaa b aaa"], "*** b aaa");
        check(&["abcd", "bcde"], &["abc", "abcd", "e"], "abc***");
    }

    #[test]
    fn lines_count_and_short_ones_do_not() {
        check(&["abc", ""], &["abc"], "abc");
        check(&["  hush\r\n  "], &["hush"], "***");
        check(&["first\nno\nsecond\n"], &["second no first"], "*** no ***");
    }

    /// What a mask must do, said in the plainest way.
    fn reference(secrets: &[String], text: &[u8]) -> Vec<u8> {
        let mut covered = vec![false; text.len()];
        for secret in secrets
            .iter()
            .filter(|secret| secret.len() >= SECRET_BYTES_MIN)
        {
            for place in 0..text.len() {
                if text[place..].starts_with(secret.as_bytes()) {
                    covered[place..place + secret.len()].fill(true);
                }
            }
        }
        let mut all = Vec::new();
        for (place, byte) in text.iter().enumerate() {
            match covered[place] {
                false => all.push(*byte),
                true if place == 0 || !covered[place - 1] => all.extend(MASK),
                true => {}
            }
        }
        all
    }

    proptest! {
        #[test]
        fn how_output_is_cut_does_not_matter(
            secrets in prop::collection::vec("[ab]{0,7}", 1..5),
            text in "[abc]{0,60}",
            cuts in prop::collection::vec(0usize..60, 0..8),
        ) {
            let words: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|to| {
                let piece = &text.as_bytes()[from..*to];
                from = *to;
                piece
            }).collect();
            prop_assert_eq!(masked(&words, &pieces), reference(&secrets, text.as_bytes()));
        }
    }
}
