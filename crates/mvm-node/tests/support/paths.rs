//! Paths of routes, which have words in braces for what they say.

// Each test file uses a part of this.
#![allow(dead_code)]

/// A path with `word` in the place of each of its words in braces.
pub(crate) fn filled(path: &str, word: &str) -> String {
    let pieces = path.split('/').map(|piece| match piece.starts_with('{') {
        true => word,
        false => piece,
    });
    pieces.collect::<Vec<_>>().join("/")
}

/// Whether a path is one of those that a route's path describes.
pub(crate) fn fits(route: &str, path: &str) -> bool {
    let (route, path) = (route.split('/'), path.split('/'));
    let same = |(told, given): (&str, &str)| match told.starts_with('{') {
        true => !given.is_empty(),
        false => told == given,
    };
    route.clone().count() == path.clone().count() && route.zip(path).all(same)
}
