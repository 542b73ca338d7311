//! Addresses of pages: as much of RFC 3986 as following links takes. A crate that does all of it brings Unicode's tables,
//! which are larger than this module.

use std::fmt;

/// An address of http or https without a fragment, in a normal form: equal pages are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    scheme: &'static str,
    /// With the port, where there is one.
    host: String,
    /// Begins with a slash.
    path: String,
    /// Empty, or begins with a question mark.
    query: String,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scheme,
            host,
            path,
            query,
        } = self;
        write!(formatter, "{scheme}://{host}{path}{query}")
    }
}

impl Address {
    /// `None` unless the text is an absolute address of http or https.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(':')?;
        let scheme = ["http", "https"]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known))?;
        let rest = without_fragment(rest.strip_prefix("//")?);
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, rest) = rest.split_at(end);
        let (path, query) = split_query(rest);
        let fits = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '@');
        fits.then(|| Self {
            scheme,
            host: host.to_ascii_lowercase(),
            path: normal(path),
            query: query.to_owned(),
        })
    }

    /// Where a link on this page leads; `None` where that is no page of http or https, or this page.
    pub(crate) fn join(&self, link: &str) -> Option<Self> {
        let link = without_fragment(link.trim());
        if link.is_empty() {
            return None;
        }
        if has_scheme(link) {
            return Self::parse(link);
        }
        if link.starts_with("//") {
            return Self::parse(&format!("{}:{link}", self.scheme));
        }
        let (path, query) = split_query(link);
        let path = match path {
            "" => self.path.clone(),
            absolute if absolute.starts_with('/') => normal(absolute),
            relative => {
                let folder = self.path.rfind('/').map_or("", |slash| &self.path[..slash]);
                normal(&format!("{folder}/{relative}"))
            }
        };
        Some(Self {
            path,
            query: query.to_owned(),
            ..self.clone()
        })
    }

    /// Whether scheme, host and port are the same.
    pub(crate) fn is_on_host_of(&self, other: &Self) -> bool {
        (self.scheme, &self.host) == (other.scheme, &other.host)
    }
}

fn without_fragment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}

fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find('?').unwrap_or(text.len()))
}

fn has_scheme(link: &str) -> bool {
    let (before, colon) = link.split_at(link.find([':', '/', '?']).unwrap_or(link.len()));
    colon.starts_with(':') && before.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// A path that begins with a slash, without `.` and `..`, and without what no request line may have.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let mut is_folder = true;
    for part in path.split('/').skip(1) {
        is_folder = matches!(part, "" | "." | "..");
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            "" => {}
            part => parts.push(part),
        }
    }
    let end = if is_folder && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", parts.join("/")).replace(' ', "%20")
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[track_caller]
    fn check(link: &str, expected: Option<&str>) {
        let page = Address::parse("HTTP://Site:8000/a/b?q=1#top").expect("an address");
        assert_eq!(
            page.join(link)
                .map(|address| address.to_string())
                .as_deref(),
            expected
        );
    }

    #[test]
    fn links_lead_where_browsers_go() {
        check("c", Some("http://site:8000/a/c"));
        check("./c/", Some("http://site:8000/a/c/"));
        check("../c?x=/../y", Some("http://site:8000/c?x=/../y"));
        check("../../../c", Some("http://site:8000/c"));
        check("/", Some("http://site:8000/"));
        check("..", Some("http://site:8000/"));
        check("/x y#z", Some("http://site:8000/x%20y"));
        check("?q=2", Some("http://site:8000/a/b?q=2"));
        check("//other", Some("http://other/"));
        check("https://other?q", Some("https://other/?q"));
        check(" c:d ", None);
    }

    #[test]
    fn what_is_no_page_is_left_out() {
        for link in [
            "",
            "#top",
            "mailto:a@b",
            "javascript:void(0)",
            "http://",
            "http:c",
            "ftp://site/",
        ] {
            check(link, None);
        }
        for text in [
            "",
            "site/a",
            "/a",
            "file:///etc/passwd",
            "http://user@site/",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }

    #[test]
    fn another_port_is_another_host() {
        let page = Address::parse("http://site:8000").expect("an address");
        let other = |link| page.join(link).expect("an address");
        assert!(other("/b").is_on_host_of(&page));
        assert!(!other("//site/b").is_on_host_of(&page));
        assert!(!other("https://site:8000/b").is_on_host_of(&page));
    }
}
