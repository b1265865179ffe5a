//! Requests that nobody sends by mistake alone: whatever comes, the answer is rows that the role may see, or a refusal.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use super::super::world::Dice;
use super::{ask, served};

const RELATIONS: &[&str] = &[
    "ships",
    "owners",
    "ports",
    "crew",
    "samples",
    "letters",
    "voyages",
    "cargo",
    "routes",
    "numbers",
    "fleet",
    "who",
    "odd%20names",
    "select",
    "order",
    "empty_things",
    "port_traffic",
    "payroll",
    "nowhere",
    "one,%20(two).three",
];
const WORDS: &[&str] = &[
    "id",
    "name",
    "kind",
    "owner_id",
    "specs",
    "specs->engine",
    "specs->engine->>kw",
    "tags",
    "jb->b->c->0",
    "irange",
    "count",
    "count()",
    "id.sum()",
    "tonnage.avg()::int",
    "*",
    "owners(*)",
    "owners(name,ships(*))",
    "ports!inner(name)",
    "...owners(name)",
    "...crew(name)",
    "crew()",
    "ships(id,owners(ships(id)))",
    "id::text",
    "x:id",
    "\"a space\"",
    "größe",
    "日本",
    "ports!ships_home_port_fkey(id)",
    "boss:crew(name)",
    "tenant",
    "body",
    "papers(number)",
    "()",
    ",",
    "::",
    "id,id",
    "id::no_type",
    "and",
    "or(",
    "->",
    "\"",
    "\\",
    "%00",
    "%ff",
    "'",
    ";",
    "--",
    "$1",
    "{}",
];
const VALUES: &[&str] = &[
    "eq.1",
    "gt.0",
    "neq.x",
    "in.(1,2)",
    "in.()",
    "in.(\"a,b\",'c')",
    "is.null",
    "not.is.null",
    "is.unknown",
    "like.*a*",
    "ilike.%25",
    "match.^a",
    "match.(",
    "imatch.[",
    "cs.{1}",
    "cs.{\"a\":1}",
    "cd.[1,9)",
    "ov.{fast,slow}",
    "fts.fat",
    "fts(english).fat%20%26%20cat",
    "fts(nolang).x",
    "fts.%26",
    "plfts.x",
    "wfts.\"a",
    "eq(any).{1,2}",
    "like(all).{*a*,b}",
    "eq(any).{",
    "isdistinct.1",
    "sl.[1,2)",
    "adj.(1,2)",
    "eq.1);DROP TABLE served.ships;--",
    "eq.'",
    "eq.\\",
    "eq.%00",
    "eq.99999999999999999999",
    "eq.NaN",
    "not.not.eq.1",
    "eq",
    "",
    "in.(1,2",
    "gt.infinity",
    "eq.2024-02-30",
    "not.in.(a)",
];
const NAMES: &[&str] = &[
    "id",
    "name",
    "owners.name",
    "crew.id",
    "select",
    "order",
    "limit",
    "offset",
    "or",
    "and",
    "not.or",
    "crew.order",
    "crew.limit",
    "owners.or",
    "specs->>a",
    "specs->engine->kw",
    "\"a space\"",
    "tags",
    "jb",
    "irange",
    "tsv",
    "nope",
    "columns",
    "on_conflict",
    "projector.after",
    "rel.x.y.z",
    "crew",
    "tenant",
    "a'b",
    "a\"b",
    "%00",
    "",
];

fn some<'w>(dice: &mut Dice, words: &[&'w str]) -> &'w str {
    words[dice.roll(words.len() as u64) as usize]
}

/// A request's target, of parts that belong together more often than not.
fn target(dice: &mut Dice) -> String {
    let mut pairs = Vec::new();
    if dice.roll(3) > 0 {
        let items: Vec<&str> = (0..=dice.roll(3)).map(|_| some(dice, WORDS)).collect();
        pairs.push(format!("select={}", items.join(",")));
    }
    for _ in 0..dice.roll(4) {
        let pair = match dice.roll(6) {
            0 => format!(
                "order={}.{}",
                some(dice, WORDS),
                some(dice, &["asc", "desc", "desc.nullslast", "x", "nullsfirst"])
            ),
            1 => format!("limit={}", some(dice, &["0", "1", "5", "-1", "x", "99999999999999999999"])),
            2 => format!("offset={}", some(dice, &["0", "3", "-1", "9223372036854775808", "1e3"])),
            3 => {
                let parts: Vec<String> =
                    (0..=dice.roll(3)).map(|_| format!("{}.{}", some(dice, NAMES), some(dice, VALUES))).collect();
                format!("{}=({})", some(dice, &["or", "and", "not.or", "crew.or", "owners.and"]), parts.join(","))
            }
            _ => format!("{}={}", some(dice, NAMES), some(dice, VALUES)),
        };
        pairs.push(pair);
    }
    // What a target cannot hold at all would not come as far as the grammar.
    let escaped = |text: &str| -> String {
        let byte = |b: u8| {
            if b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b) {
                (b as char).to_string()
            } else {
                format!("%{b:02X}")
            }
        };
        text.bytes().map(byte).collect()
    };
    format!("/{}?{}", some(dice, RELATIONS), escaped(&pairs.join("&")))
}

#[test]
fn whatever_is_asked_is_answered_or_refused() {
    let seed = std::env::var("PROJECTOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    let requests = std::env::var("PROJECTOR_TEST_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    let (_world, _daemon, port) = served("hostile", "");
    let mut dice = Dice(seed);
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..requests {
        let target = target(&mut dice);
        let headers: Vec<(String, String)> = match dice.roll(8) {
            0 => vec![(
                "Prefer".into(),
                some(&mut dice, &["count=exact", "count=planned", "count=estimated", "wait=x"]).into(),
            )],
            1 => vec![(
                "Range".into(),
                some(&mut dice, &["0-3", "5-2", "9999-", "a-b", "0-18446744073709551616"]).into(),
            )],
            2 => vec![(
                "Accept".into(),
                some(&mut dice, &["text/csv", "application/vnd.pgrst.object+json", "x/y;q=2"]).into(),
            )],
            _ => Vec::new(),
        };
        let answer = ask(port, "GET", &target, &headers);
        assert!((200..500).contains(&answer.status), "{target} {headers:?}: {} {}", answer.status, answer.body);
        if answer.status < 300 {
            answered += 1;
            // Nobody's own letter is the only one that nobody may read; its body is of one letter, as the others'.
            let others = ["\"tenant\":\"north\"", "\"tenant\":\"east\"", "\"written_by\":\"boss\"", "\"pin\":"];
            assert!(others.iter().all(|other| !answer.body.contains(other)), "{target}: {}", answer.body);
        } else {
            refused += 1;
            for secret in ["SELECT", "LATERAL", "src/", "panicked"] {
                assert!(!answer.body.contains(secret), "{target}: {}", answer.body);
            }
        }
    }
    println!("{answered} answered, {refused} refused; PROJECTOR_TEST_SEED={seed}");
    assert!(answered * 10 > requests && refused * 10 > requests, "{answered} answered, {refused} refused");
    // Everything is there still, and nothing was left behind.
    let answer = ask(port, "GET", "/ships?select=id&order=id.desc&limit=1", &[]);
    assert_eq!(answer.body, "[{\"id\":8}]");
}

#[test]
fn who_goes_away_leaves_nothing_behind() {
    let (world, _daemon, port) = served("leavers", "");
    let boss = include_str!("cases/roles.http").lines().find(|line| line.starts_with("Authorization: ")).unwrap();
    for round in 0..3_000 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let target = if round % 3 == 0 { "/numbers?select=n,x:n::text&order=n.desc" } else { "/who" };
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n{boss}\r\n\r\n").unwrap();
        if round % 2 == 0 {
            // In the middle of it, sooner or later.
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_micros(1 + 37 * (round % 40))));
            let _ = stream.read(&mut [0]);
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
    for _ in 0..30 {
        let answer = ask(port, "GET", "/who", &[]);
        assert_eq!((answer.status, answer.body.as_str()), (200, "[{\"role\":\"anon\",\"tenant\":null}]"));
    }
    world.wait("all transactions to end", || {
        let open =
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
        match world.query(open)[0].as_str() {
            "{\"n\":0}" => Ok(()),
            some => Err(some.into()),
        }
    });
}
