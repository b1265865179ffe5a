//! Waiting for one's own write: `Projector-After: TOPIC/PARTITION@OFFSET`, or the token of an answer, with
//! `Prefer: wait=SECONDS` (RFC 7240).

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use sqlx::PgPool;

use super::problem::Problem;
use crate::event::Place;
use crate::proof::{Sabotage, sabotaged};
use crate::store::propagate;
use crate::store::read::{Reached, reached, source_of};

/// Nobody waits longer than this.
const LONGEST: Duration = Duration::from_secs(60);

fn problem(status: StatusCode, message: String) -> Problem {
    Problem::new(status, &format!("PROJ{}", status.as_u16()), message)
}

/// An event that has to be in the answer.
struct Wanted {
    place: Place,
    /// A token says how far an answer was. It may name partitions that the view does not read, and an event that was parked
    /// was not in that answer's rows either.
    is_of_token: bool,
}

/// Who waits, and for what.
#[derive(Clone, Copy)]
struct Waiting<'w> {
    pool: &'w PgPool,
    role: &'w str,
    deadline: Instant,
}

/// Returns when every event that the reader names is applied to all of these views, at least one of which reads it.
///
/// # Errors
/// 409 at once when one is parked, with its error as far as the role may know it; 504 when the time is up; 400 for what
/// cannot be waited for.
pub(super) async fn wait(
    pool: &PgPool,
    role: &str,
    relation: &str,
    views: &[String],
    headers: &HeaderMap,
    wait_s: Option<u64>,
) -> Result<(), Problem> {
    let wanted = wanted(headers)?;
    if wanted.is_empty() {
        return Ok(());
    }
    if views.is_empty() {
        let message = format!("{relation} is made of no projection; nobody knows when an event has reached it");
        return Err(problem(StatusCode::BAD_REQUEST, message));
    }
    let deadline = Instant::now() + Duration::from_secs(wait_s.unwrap_or(0)).min(LONGEST);
    let waiting = Waiting { pool, role, deadline };
    for wanted in wanted {
        let mut is_read = wanted.is_of_token;
        for view in views {
            is_read |= is_applied(waiting, view, &wanted).await?;
        }
        if !is_read {
            let message = format!("{relation} is not made from {}/{}", wanted.place.topic, wanted.place.partition);
            return Err(problem(StatusCode::BAD_REQUEST, message));
        }
    }
    Ok(())
}

/// Waits until an event is applied to a view. False if the view does not read its partition.
async fn is_applied(waiting: Waiting<'_>, view: &str, wanted: &Wanted) -> Result<bool, Problem> {
    let (Waiting { pool, role, deadline }, place) = (waiting, &wanted.place);
    let mut pause = Duration::from_millis(5);
    loop {
        // Readers may have been given another generation meanwhile. It had passed where the one before it was.
        let Some(projected) = source_of(pool, view).await? else { return Ok(false) };
        let reached = match reached(pool, role, projected.generation, place).await? {
            Reached::Parked(..) if wanted.is_of_token => Reached::Applied,
            Reached::NotYet(_) if sabotaged(Sabotage::WaitApplied) => Reached::Applied,
            reached => reached,
        };
        match reached {
            Reached::Applied => match &projected.follows {
                None => return Ok(true),
                Some(_) if sabotaged(Sabotage::WaitFollowed) => return Ok(true),
                Some(schema) => match follow(pool, schema, place, view, deadline).await? {
                    Followed::Yes => return Ok(true),
                    Followed::Gone => {}
                },
            },
            Reached::Parked(code, message) => {
                let why = message.map(|message| format!(": {message}")).unwrap_or_default();
                let message = format!("{place} is parked, and not applied to {view}{why} [{code}]");
                return Err(problem(StatusCode::CONFLICT, message).hint(format!("projector dead-letters show {place}")));
            }
            Reached::Elsewhere => return Ok(false),
            Reached::NotYet(next) if Instant::now() + pause > deadline => {
                let message = format!("{place} is not applied to {view} yet; the next one to be applied is {next}");
                return Err(
                    problem(StatusCode::GATEWAY_TIMEOUT, message).hint("ask again, or wait longer: Prefer: wait=10")
                );
            }
            Reached::NotYet(_) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }
}

/// Returns when all that follows from what is applied has followed.
async fn follow(
    pool: &PgPool,
    schema: &str,
    place: &Place,
    view: &str,
    deadline: Instant,
) -> Result<Followed, Problem> {
    const PAUSE: Duration = Duration::from_millis(5);
    let horizon = match propagate::horizon(pool, schema).await {
        Ok(Some(horizon)) => horizon,
        Ok(None) => return Ok(Followed::Yes),
        Err(error) => return gone(error),
    };
    loop {
        match propagate::is_followed(pool, schema, horizon).await {
            Ok(true) => return Ok(Followed::Yes),
            Ok(false) => {}
            Err(error) => return gone(error),
        }
        if Instant::now() + PAUSE > deadline {
            let message = format!("{place} is applied, and has not reached all rows of {view} that follow from it yet");
            let hint = "ask again, or wait longer: Prefer: wait=10".to_string();
            return Err(problem(StatusCode::GATEWAY_TIMEOUT, message).hint(hint));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

enum Followed {
    Yes,
    /// The generation is not there any more; readers see another one.
    Gone,
}

fn gone(error: sqlx::Error) -> Result<Followed, Problem> {
    let code = error.as_database_error().and_then(|error| error.code());
    if code.as_deref() == Some("42P01") { Ok(Followed::Gone) } else { Err(error.into()) }
}

fn wanted(headers: &HeaderMap) -> Result<Vec<Wanted>, Problem> {
    let values = headers.get_all("projector-after").iter();
    let texts = values.flat_map(|value| value.to_str().unwrap_or("?").split([',', ';']));
    let mut wanted = Vec::new();
    for text in texts.map(str::trim).filter(|text| !text.is_empty()) {
        wanted.append(&mut of_text(text).ok_or_else(|| {
            problem(StatusCode::BAD_REQUEST, format!("Projector-After: `{text}` is no event's place"))
                .hint("for example shop.orders/0@17, or the Projector-Token of an answer")
        })?);
    }
    Ok(wanted)
}

/// `topic/partition@offset` is an event. A token, `topic/partition:next+partition:next`, names the offsets behind some.
fn of_text(text: &str) -> Option<Vec<Wanted>> {
    if let Ok(place) = text.parse() {
        return Some(vec![Wanted { place, is_of_token: false }]);
    }
    let (topic, partitions) = text.rsplit_once('/')?;
    let of_partition = |text: &str| {
        let (partition, next) = text.split_once(':')?;
        let place =
            Place { topic: topic.into(), partition: partition.parse().ok()?, offset: next.parse::<i64>().ok()? - 1 };
        Some(Wanted { place, is_of_token: true })
    };
    let wanted: Option<Vec<Wanted>> = partitions.split('+').map(of_partition).collect();
    // Before the first event there is nothing to wait for.
    wanted.map(|wanted| wanted.into_iter().filter(|wanted| wanted.place.offset >= 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_tokens_are_read() {
        let read = |text: &str| {
            let read = |wanted: Wanted| (wanted.place.to_string(), wanted.is_of_token);
            of_text(text).map(|wanted| wanted.into_iter().map(read).collect::<Vec<_>>())
        };
        assert_eq!(read("shop.orders/0@17"), Some(vec![("shop.orders/0@17".into(), false)]));
        let both = vec![("shop.orders/0@16".to_string(), true), ("shop.orders/2@4".to_string(), true)];
        assert_eq!(read("shop.orders/0:17+1:0+2:5"), Some(both));
        for bad in ["shop.orders", "shop.orders/x@1", "shop.orders/0:1+", "a/0:"] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
