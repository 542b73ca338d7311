//! A crawler: fetches a page and follows its links on the same host, each page once. Where a link leads is told by
//! `address`, which links a page has by `links`.

mod address;
mod links;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use flawless::idempotent::Idempotence;
use flawless::workflow;
use flawless::workflow::{Input, Response};
use flawless_http::{Error, get};
use serde::{Deserialize, Serialize};

use crate::address::Address;

flawless::module! { name = "crawler", version = "1.0.0" }

/// Pages in one crawl, whatever its input says: all of them stay in the execution's journal.
const PAGES_MAX: usize = 1000;
const PAGE_BYTES_MAX: u64 = 1 << 20;
const PAGE_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Start {
    url: String,
    /// How many links away from the first page.
    #[serde(default = "default_depth")]
    depth: u32,
    #[serde(default = "default_pages_max")]
    pages_max: usize,
}

fn default_depth() -> u32 {
    2
}

fn default_pages_max() -> usize {
    100
}

#[derive(Default, Serialize)]
struct Report {
    pages: Vec<Page>,
    broken: Vec<Broken>,
    /// Pages that were seen and not fetched, because there were too many.
    left_out: usize,
}

#[derive(Serialize)]
struct Page {
    url: String,
    status: u16,
    depth: u32,
    links: usize,
}

#[derive(Serialize)]
struct Broken {
    url: String,
    /// The page with the link.
    found_on: Option<String>,
    why: String,
}

/// What waits to be fetched.
struct Visit {
    address: Address,
    depth: u32,
    found_on: Option<String>,
}

/// Crawls from a page to a depth; logs each page, responds with a report.
#[workflow("crawl")]
fn crawl(input: Input<Start>, response: Response) {
    let report = match Address::parse(&input.url) {
        Some(address) => Crawl::new(&input).run(address),
        None => Report {
            broken: vec![Broken {
                url: input.url.clone(),
                found_on: None,
                why: "not an address of http or https".to_owned(),
            }],
            ..Report::default()
        },
    };
    log::info!(
        "{} pages, {} broken links, {} left out",
        report.pages.len(),
        report.broken.len(),
        report.left_out
    );
    // As a job nobody waits for the response.
    let _ = response.send(report);
}

struct Crawl {
    depth: u32,
    pages_max: usize,
    seen: BTreeSet<Address>,
    waiting: VecDeque<Visit>,
    report: Report,
}

impl Crawl {
    fn new(start: &Start) -> Self {
        Self {
            depth: start.depth,
            pages_max: start.pages_max.min(PAGES_MAX),
            seen: BTreeSet::new(),
            waiting: VecDeque::new(),
            report: Report::default(),
        }
    }

    fn run(mut self, first: Address) -> Report {
        self.seen.insert(first.clone());
        self.waiting.push_back(Visit {
            address: first,
            depth: 0,
            found_on: None,
        });
        for _ in 0..self.pages_max {
            let Some(visit) = self.waiting.pop_front() else {
                break;
            };
            self.visit(&visit);
        }
        self.report.left_out = self.waiting.len();
        self.report
    }

    fn visit(&mut self, visit: &Visit) {
        let url = visit.address.to_string();
        // A crawl changes nothing, so a page may be asked for again after a crash.
        let fetched = get(&url)
            .timeout(PAGE_TIME_MAX)
            .response_body_limit(PAGE_BYTES_MAX)
            .idempotent()
            .send();
        match fetched {
            Ok(page) => self.read(visit, page),
            Err(error) => {
                let why = reason(&error);
                log::warn!("{url}: {why}");
                self.report.broken.push(Broken {
                    url,
                    found_on: visit.found_on.clone(),
                    why,
                });
            }
        }
    }

    fn read(&mut self, visit: &Visit, page: flawless_http::Response) {
        let url = visit.address.to_string();
        let status = page.status_code();
        // After redirects, links are relative to where they led; another host's links are not followed.
        let base = Address::parse(page.url()).unwrap_or_else(|| visit.address.clone());
        let links = if is_html(&page) {
            linked(&base, &page.body())
        } else {
            BTreeSet::new()
        };
        log::info!(
            "{url}: {status}, {} links, depth {}",
            links.len(),
            visit.depth
        );
        let page = Page {
            url: url.clone(),
            status,
            depth: visit.depth,
            links: links.len(),
        };
        self.report.pages.push(page);
        if visit.depth == self.depth || !base.is_on_host_of(&visit.address) {
            return;
        }
        let inside = links
            .into_iter()
            .filter(|address| address.is_on_host_of(&base));
        for address in inside {
            if self.seen.insert(address.clone()) {
                let found_on = Some(url.clone());
                self.waiting.push_back(Visit {
                    address,
                    depth: visit.depth + 1,
                    found_on,
                });
            }
        }
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Status(code, _) => code.to_string(),
        Error::Transport(error) => match error.message() {
            Some(message) => format!("{:?}: {message}", error.kind()),
            None => format!("{:?}", error.kind()),
        },
    }
}

/// A page that does not say what it is may be HTML.
fn is_html(page: &flawless_http::Response) -> bool {
    let kind = page
        .header("content-type")
        .or_else(|| page.header("Content-Type"));
    kind.is_none_or(|kind| kind.contains("html"))
}

fn linked(base: &Address, body: &[u8]) -> BTreeSet<Address> {
    let text = String::from_utf8_lossy(body);
    links::links(&text)
        .iter()
        .filter_map(|link| base.join(link))
        .collect()
}
