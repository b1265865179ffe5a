//! Random requests of random relations: what the endpoint says is what Postgres says to the same question in SQL that was
//! written for it here.

mod asked;
mod drawn;
mod kinds;
mod oracle;
mod relations;
mod said;

use std::net::TcpStream;

use sqlx::{AssertSqlSafe, ConnectOptions, Executor, PgConnection, Row};

use self::asked::Level;
use self::drawn::Drawing;
use self::oracle::Oracle;
use self::relations::Relations;
use self::said::{Json, Shape};
use super::super::world::{Daemon, Dice, World, free_port};
use super::{Answer, ask};

fn some<T: Clone>(dice: &mut Dice, all: &[T]) -> T {
    all[dice.roll(all.len() as u64) as usize].clone()
}

/// What Postgres says.
enum Expected {
    /// Each row with its rank: rows of the same rank come in any order. And how many there are without limits.
    Rows(Vec<(i64, String)>, i64),
    /// The code of what is wrong.
    Wrong(String),
}

struct Asker {
    world: World,
    connection: PgConnection,
    _daemon: Daemon,
    port: u16,
}

impl Asker {
    /// The endpoint, over random relations in some schemas.
    fn new(all: &[Relations]) -> Asker {
        let world = World::new("random");
        world.create_topic("events", 1, &[]);
        world.projection("projected.yaml", super::NUMBERS);
        let connection = world.runtime.block_on(async {
            let options = world.options().extra_float_digits(None);
            let mut connection = options.disable_statement_logging().connect().await.unwrap();
            for relations in all {
                connection.execute(sqlx::raw_sql(AssertSqlSafe(relations.sql()))).await.unwrap();
            }
            // As the endpoint answers.
            let settings = "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'iso_8601'; SET jit = off";
            connection.execute(sqlx::raw_sql(settings)).await.unwrap();
            connection
        });
        let port = free_port();
        let names: Vec<&str> = all.iter().map(|relations| relations.schema.as_str()).collect();
        let file = world.projections().parent().unwrap().join("settings.yaml");
        std::fs::write(&file, format!("serve:\n  more_schemas: [{}]\n", names.join(", "))).unwrap();
        let listen = format!("127.0.0.1:{port}");
        let environment = [("PROJECTOR__SERVE__LISTEN", listen.as_str())];
        let daemon = world.start_verb(&["run", "--apply", "--config", file.to_str().unwrap()], &environment);
        world.wait("the endpoint", || match TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        });
        Asker { world, connection, _daemon: daemon, port }
    }

    fn expected(&mut self, relations: &Relations, level: &Level) -> (String, Expected) {
        let (rows, count) = match Oracle::new(relations).answer(level) {
            Ok(statements) => statements,
            Err(code) => return (String::new(), Expected::Wrong(code.into())),
        };
        let connection = &mut self.connection;
        let found = self.world.runtime.block_on(async {
            let path = format!("SET search_path = {}, public", relations.schema);
            connection.execute(AssertSqlSafe(path)).await?;
            let found = connection.fetch_all(AssertSqlSafe(rows.clone())).await?;
            let total: i64 = connection.fetch_one(AssertSqlSafe(count)).await?.get(0);
            Ok(Expected::Rows(found.iter().map(|row| (row.get(0), row.get(1))).collect(), total))
        });
        let wrong = |error: sqlx::Error| match error.as_database_error().and_then(|error| error.code()) {
            Some(code) => Expected::Wrong(code.into_owned()),
            None => panic!("{error}: {rows}"),
        };
        let expected = found.unwrap_or_else(wrong);
        (rows, expected)
    }

    /// Asks one request in all ways. Returns whether there was an answer, or else what is wrong with it.
    fn compare(&mut self, dice: &mut Dice, relations: &Relations, mut level: Level) -> Result<bool, String> {
        let (sql, expected) = self.expected(relations, &level);
        let window = (level.limit, level.offset);
        let mut headers = vec![("Accept-Profile".to_string(), relations.schema.clone())];
        let is_counted = dice.roll(3) == 0;
        if is_counted {
            headers.push(("Prefer".into(), "count=exact".into()));
        }
        if let (Some(limit @ 1..), 0) = (level.limit, dice.roll(6)) {
            headers.push(("Range".into(), format!("{}-{}", level.offset, level.offset + limit - 1)));
            (level.limit, level.offset) = (None, 0);
        }
        let target = level.target(relations);
        (level.limit, level.offset) = window;
        let answer = ask(self.port, "GET", &target, &headers);
        let told = |what: String| {
            format!("{what}\n  GET {target}\n  {headers:?}\n  {}: {}\n  {sql}", answer.status, answer.body)
        };
        let (rows, total) = match expected {
            Expected::Wrong(code) => {
                let said = said::code(&answer.body).unwrap_or_default();
                let is_same = code == said || !code.starts_with("PGRST") && said.get(..2) == code.get(..2);
                return if is_same { Ok(false) } else { Err(told(format!("{said:?} instead of {code}"))) };
            }
            Expected::Rows(rows, total) => (rows, total),
        };
        let total = is_counted.then_some(total);
        self.check(&answer, &level, relations, &rows, total).map_err(told)?;
        // The next page begins where this one ended.
        if let Some(link) = answer.headers.get("link") {
            let next = link.trim_start_matches('<').split('>').next().unwrap_or_default();
            level.offset += level.limit.unwrap_or_default();
            let (sql, expected) = self.expected(relations, &level);
            let Expected::Rows(rows, _) = expected else { return Err(told("no next page".into())) };
            let answer = ask(self.port, "GET", next, &headers[..1]);
            let told = |what| format!("{what}\n  GET {next}\n  {}: {}\n  {sql}", answer.status, answer.body);
            level.offset = 0;
            self.check(&answer, &level, relations, &rows, None).map_err(told)?;
        }
        Ok(true)
    }

    fn check(
        &self,
        answer: &Answer,
        level: &Level,
        relations: &Relations,
        rows: &[(i64, String)],
        total: Option<i64>,
    ) -> Result<(), String> {
        let (count, offset) = (rows.len() as i64, level.offset as i64);
        let status = match total {
            Some(total) if offset > total => 416,
            Some(total) if count < total => 206,
            _ => 200,
        };
        if answer.status != status {
            return Err(format!("status {} instead of {status}", answer.status));
        }
        let of = total.map_or_else(|| "*".to_string(), |total| total.to_string());
        let range = match count {
            0 => format!("*/{of}"),
            _ => format!("{offset}-{}/{of}", offset + count - 1),
        };
        let found = answer.headers.get("content-range").map(String::as_str);
        if found != Some(range.as_str()) {
            return Err(format!("Content-Range: {found:?} instead of {range}"));
        }
        if status == 416 {
            return Ok(());
        }
        let shapes = Shape::of(level, relations);
        let Some(Json::Array(found)) = Json::read(&answer.body) else { return Err("no list of rows".into()) };
        if found.len() != rows.len() {
            return Err(format!("{} rows instead of {}", found.len(), rows.len()));
        }
        let found: Vec<String> = found.into_iter().map(|row| said::settled(row, &shapes)).collect();
        let mut at = 0;
        for same in rows.chunk_by(|a, b| a.0 == b.0) {
            let mut expected: Vec<String> =
                same.iter().map(|(_, row)| said::settled(Json::read(row).unwrap(), &shapes)).collect();
            let mut found = found[at..at + same.len()].to_vec();
            expected.sort();
            found.sort();
            if let Some((expected, found)) = std::iter::zip(&expected, &found).find(|(a, b)| a != b) {
                return Err(format!("row {at} and those of its rank:\n    {found}\n  instead of\n    {expected}"));
            }
            at += same.len();
        }
        Ok(())
    }
}

/// `PROJECTOR_TEST_REQUESTS` requests: half of a seed that is always the same, half of a fresh one.
#[test]
fn answers_are_those_of_the_same_question_in_sql() {
    let requests = std::env::var("PROJECTOR_TEST_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_500);
    let chosen = std::env::var("PROJECTOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seeds: Vec<u64> = chosen.map_or_else(|| vec![1, now() % 1_000_000], |seed| vec![seed]);
    println!("seeds {seeds:?}");
    let mut dice: Vec<Dice> = seeds.iter().map(|seed| Dice(*seed)).collect();
    // Three schemas for each seed.
    let all: Vec<Relations> =
        (0..3 * dice.len()).map(|at| Relations::random(&mut dice[at / 3], &format!("random{at}"))).collect();
    let mut asker = Asker::new(&all);
    let (mut answered, mut wrong) = (0, Vec::new());
    for at in 0..requests {
        let which = at % seeds.len();
        let dice = &mut dice[which];
        let relations = &all[3 * which + dice.roll(3) as usize];
        let level = Drawing { dice, relations }.request();
        match asker.compare(dice, relations, level) {
            Ok(is_answer) => answered += usize::from(is_answer),
            Err(told) => wrong.push(format!("PROJECTOR_TEST_SEED={}: {told}", seeds[which])),
        }
    }
    // The shortest tell most.
    wrong.sort_by_key(String::len);
    let shown = wrong.len().min(20);
    assert!(wrong.is_empty(), "{} of {requests}, of which {shown}:\n{}", wrong.len(), wrong[..shown].join("\n"));
    println!("{answered} of {requests} answered");
    assert!(answered * 10 > requests * 6, "{answered} of {requests} answered");
}
