//! Finds the links of a page. It is no parser of HTML: it knows as much as it takes to tell the links that a reader can
//! follow from text that only looks like one. Pages are untrusted: nothing here fails, or takes more than one pass.

/// What the `href`s of a page's `<a>` and `<area>` say, in their order.
pub(crate) fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = after(comment, "-->");
            continue;
        }
        let name_end = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let (name, inside) = rest.split_at(name_end);
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let (href, behind) = href(inside);
        rest = behind;
        if is("a") || is("area") {
            found.extend(href.map(|href| href.replace("&amp;", "&")));
        } else if let Some(raw) = ["script", "style"].into_iter().find(|raw| is(raw)) {
            rest = after_raw_text(rest, raw);
        }
    }
    found
}

/// The `href` among a tag's attributes, and what is behind the tag.
fn href(mut rest: &str) -> (Option<&str>, &str) {
    let mut href = None;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        if rest.is_empty() {
            return (href, rest);
        }
        if let Some(behind) = rest.strip_prefix('>') {
            return (href, behind);
        }
        let name_end = ends_name(rest);
        let (name, behind) = rest.split_at(name_end);
        rest = behind.trim_start();
        let Some(assigned) = rest.strip_prefix('=') else {
            continue;
        };
        let (value, behind) = value(assigned.trim_start());
        rest = behind;
        if name.eq_ignore_ascii_case("href") && href.is_none() {
            href = Some(value);
        }
    }
}

/// At least one character, so that each step of a tag's reading gets on.
fn ends_name(rest: &str) -> usize {
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let ends = |c: char| c.is_whitespace() || matches!(c, '=' | '>' | '/');
    rest[first..]
        .find(ends)
        .map_or(rest.len(), |end| first + end)
}

fn value(rest: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(quoted) = rest.strip_prefix(quote) {
            return quoted.split_once(quote).unwrap_or((quoted, ""));
        }
    }
    let end = rest.find(|c: char| c.is_whitespace() || c == '>');
    rest.split_at(end.unwrap_or(rest.len()))
}

fn after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).map_or("", |(_, behind)| behind)
}

/// Behind the end tag of an element whose content is not HTML.
fn after_raw_text<'a>(mut rest: &'a str, name: &str) -> &'a str {
    while !rest.is_empty() {
        rest = after(rest, "</");
        let tag = rest.get(..name.len());
        if tag.is_some_and(|tag| tag.eq_ignore_ascii_case(name)) {
            break;
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::links;

    #[track_caller]
    fn check(page: &str, expected: &[&str]) {
        assert_eq!(links(page), expected);
    }

    #[test]
    fn links_are_found_however_they_are_written() {
        check(
            r#"<p><a href="/a">a</a> <A class=x HREF='/b'>b</A> <a href=/c>c</a>"#,
            &["/a", "/b", "/c"],
        );
        check(
            "<a\n  title='>'\n  href = \"?x=1&amp;y=2\"\n>",
            &["?x=1&y=2"],
        );
        check("<map><area shape=rect href=x.html /></map>", &["x.html"]);
        check("<a href=1 href=2>", &["1"]);
    }

    #[test]
    fn what_only_looks_like_a_link_is_not_followed() {
        check("<!-- <a href=x> --><a href=y>", &["y"]);
        check(
            "<script>'<a href=x></b>'</SCRIPT><style>a</style><a href=y>",
            &["y"],
        );
        check(
            "<link href=x><abbr href=x><a name=x><a data-href=x> a < b href=x",
            &[],
        );
    }

    #[test]
    fn broken_pages_end() {
        for page in [
            "<",
            "<a",
            "<a href",
            "<a href=",
            "<a href='x",
            "<!--",
            "<script>",
            "<script></",
            "<a =>",
            "<é<a é='",
        ] {
            links(page);
        }
    }
}
