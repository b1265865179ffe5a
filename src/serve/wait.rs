//! Waiting for one's own write: `Projector-After: TOPIC/PARTITION@OFFSET` with `Prefer: wait=SECONDS` (RFC 7240).

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode};
use sqlx::PgPool;

use super::Problem;
use crate::event::Place;
use crate::store::propagate;
use crate::store::read::{Reached, reached, source_of};

/// Nobody waits longer than this.
const LONGEST: Duration = Duration::from_secs(60);

fn problem(status: StatusCode, message: String, hint: Option<String>) -> Problem {
    Problem { status, code: format!("PROJ{}", status.as_u16()), message, hint }
}

/// Returns when every event that the reader names is applied.
///
/// # Errors
/// 409 at once when one is parked, with its error; 504 when the time is up; 400 for what cannot be waited for.
pub(super) async fn wait(pool: &PgPool, view: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let places = places(headers)?;
    if places.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + patience(headers)?;
    for place in places {
        let mut pause = Duration::from_millis(5);
        loop {
            // Readers may have been given another generation meanwhile. It had passed where the one before it was.
            let Some(projected) = source_of(pool, view).await? else {
                let message =
                    format!("{view} is not the view of one projection; nobody knows when an event has reached it");
                return Err(problem(StatusCode::BAD_REQUEST, message, None));
            };
            match reached(pool, projected.generation, &place).await? {
                Reached::Applied => match &projected.follows {
                    None => break,
                    Some(schema) => match follow(pool, schema, &place, view, deadline).await? {
                        Followed::Yes => break,
                        Followed::Gone => {}
                    },
                },
                Reached::Parked(code, message) => {
                    return Err(problem(
                        StatusCode::CONFLICT,
                        format!("{place} is parked, and not applied to {view}: {message} [{code}]"),
                        Some(format!("projector dead-letters show {place}")),
                    ));
                }
                Reached::Elsewhere => {
                    let message = format!("{view} is not made from {}/{}", place.topic, place.partition);
                    return Err(problem(StatusCode::BAD_REQUEST, message, None));
                }
                Reached::NotYet(next) if Instant::now() + pause > deadline => {
                    let message = format!("{place} is not applied to {view} yet; the next one to be applied is {next}");
                    let hint = "ask again, or wait longer: Prefer: wait=10".to_string();
                    return Err(problem(StatusCode::GATEWAY_TIMEOUT, message, Some(hint)));
                }
                Reached::NotYet(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
            }
        }
    }
    Ok(())
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
            return Err(problem(StatusCode::GATEWAY_TIMEOUT, message, Some(hint)));
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

fn places(headers: &HeaderMap) -> Result<Vec<Place>, Problem> {
    let values = headers.get_all("projector-after").iter();
    let texts = values.flat_map(|value| value.to_str().unwrap_or("?").split(','));
    texts.map(str::trim).filter(|text| !text.is_empty()).map(place).collect()
}

fn place(text: &str) -> Result<Place, Problem> {
    text.parse().map_err(|()| {
        let message = format!("Projector-After: `{text}` is no event's place");
        problem(StatusCode::BAD_REQUEST, message, Some("for example shop.orders/0@17".into()))
    })
}

/// How long the reader wants to wait; not at all, if nothing is said.
fn patience(headers: &HeaderMap) -> Result<Duration, Problem> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let Some(wait) = preferences.find_map(|preference| preference.strip_prefix("wait=")) else {
        return Ok(Duration::ZERO);
    };
    let seconds: u64 = wait.trim().parse().map_err(|_| {
        problem(
            StatusCode::BAD_REQUEST,
            format!("Prefer: wait={wait} is no number of seconds"),
            Some("Prefer: wait=5".into()),
        )
    })?;
    Ok(Duration::from_secs(seconds).min(LONGEST))
}
