//! Keys behind an address, and their rotation.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;

use super::*;
use signers::named_token;

/// An address of keys, answering what it is told to.
#[derive(Default)]
struct Address {
    answer: Mutex<(u16, String)>,
    asked: AtomicUsize,
    /// Answers wait for it, if there is one.
    held: Mutex<Option<Arc<Notify>>>,
}

impl Address {
    async fn open(keys: &[(&str, &str)]) -> (Arc<Address>, String) {
        let address = Arc::new(Address::default());
        address.holds(keys);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let app = Router::new().route("/keys", get(answer)).with_state(address.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (address, url)
    }

    /// Keys as (name, algorithm).
    fn holds(&self, keys: &[(&str, &str)]) {
        let named = |(kid, algorithm): &(&str, &str)| {
            let mut key = jwk(algorithm);
            key["kid"] = (*kid).into();
            key
        };
        self.answers(200, json!({ "keys": keys.iter().map(named).collect::<Vec<_>>() }).to_string());
    }

    fn answers(&self, status: u16, text: String) {
        *self.answer.lock().unwrap() = (status, text);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(address): State<Arc<Address>>) -> impl IntoResponse {
    address.asked.fetch_add(1, Ordering::SeqCst);
    let (status, text) = address.answer.lock().unwrap().clone();
    let held = address.held.lock().unwrap().clone();
    if let Some(held) = held {
        held.notified().await;
    }
    (StatusCode::from_u16(status).unwrap(), [("location", "/keys")], text)
}

fn of(url: String) -> Auth {
    Auth::new(&settings::Auth { jwks_url: Some(url), ..settings::Auth::default() }).unwrap()
}

/// While it is there, time passes by [`pass`] alone. Without it a clock that is paused would jump whenever all tasks wait,
/// be it for the kernel; while a blocking task runs it does not.
struct Still(#[expect(dead_code, reason = "the blocking task ends when it is dropped")] std::sync::mpsc::Sender<()>);

impl Still {
    fn new() -> Still {
        let (sender, receiver) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || receiver.recv());
        Still(sender)
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

fn web() -> Value {
    json!({ "role": "web" })
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_when_the_first_token_comes_and_kept() {
    let _still = Still::new();
    let (address, url) = Address::open(&[("a", "ES256"), ("b", "EdDSA"), ("c", "RS256")]).await;
    let auth = of(url);
    assert_eq!(address.asked(), 0);
    for (kid, algorithm) in [("a", "ES256"), ("b", "EdDSA"), ("c", "RS256")] {
        assert_eq!(asked(&auth, &named_token(algorithm, kid, &web())).await.unwrap().role, "web");
        assert!(asked(&auth, &token(algorithm, &web())).await.is_ok(), "{algorithm}, without a name");
    }
    assert_eq!(told(&auth, &named_token("ES256", "b", &web())).await, NO_KEY, "b is another key");
    assert_eq!(address.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_name_is_looked_for_at_once_but_no_more_often_than_every_ten_seconds() {
    let _still = Still::new();
    let (address, url) = Address::open(&[("old", "ES256")]).await;
    let auth = of(url);
    let (old, new) = (named_token("ES256", "old", &web()), named_token("EdDSA", "new", &web()));
    assert!(asked(&auth, &old).await.is_ok());
    address.holds(&[("new", "EdDSA")]);
    assert_eq!(told(&auth, &new).await, NO_KEY, "the address was asked a moment ago");
    pass(9).await;
    assert_eq!(told(&auth, &new).await, NO_KEY);
    assert_eq!(address.asked(), 1);
    pass(1).await;
    assert!(asked(&auth, &new).await.is_ok());
    assert_eq!(address.asked(), 2);
    assert_eq!(told(&auth, &old).await, NO_KEY, "its key is gone, though it was verified before");
    pass(10).await;
    for number in 0..100 {
        assert_eq!(told(&auth, &named_token("EdDSA", &number.to_string(), &web())).await, NO_KEY);
    }
    assert_eq!(address.asked(), 3, "many unknown names are one question");
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_for_the_keys_ask_once() {
    let _still = Still::new();
    let (address, url) = Address::open(&[("a", "ES256")]).await;
    let auth = Arc::new(of(url));
    let token = named_token("ES256", "a", &web());
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (auth, token) = (auth.clone(), token.clone());
        asking.spawn(async move { asked(&auth, &token).await.is_ok() });
    }
    assert_eq!(asking.join_all().await, vec![true; 50]);
    assert_eq!(address.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_are_refreshed_beside_and_waited_for_when_very_old() {
    let _still = Still::new();
    let (address, url) = Address::open(&[("a", "ES256")]).await;
    let auth = of(url);
    let token = named_token("ES256", "a", &web());
    assert!(asked(&auth, &token).await.is_ok());
    pass(299).await;
    assert!(asked(&auth, &token).await.is_ok());
    assert_eq!(address.asked(), 1);
    pass(1).await;
    let gate = Arc::new(Notify::new());
    *address.held.lock().unwrap() = Some(gate.clone());
    address.holds(&[("b", "EdDSA")]);
    assert!(asked(&auth, &token).await.is_ok(), "nobody waits");
    gate.notify_one();
    *address.held.lock().unwrap() = None;
    // Whoever asks for an unknown name waits for what is under way.
    assert!(asked(&auth, &named_token("EdDSA", "b", &web())).await.is_ok());
    assert_eq!(address.asked(), 2);
    assert_eq!(told(&auth, &token).await, NO_KEY);
    pass(600).await;
    address.holds(&[("c", "RS256")]);
    assert!(asked(&auth, &named_token("RS256", "c", &web())).await.is_ok());
    assert_eq!(address.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_keys_stay_while_the_address_is_bad() {
    let _still = Still::new();
    let (address, url) = Address::open(&[("a", "ES256")]).await;
    let auth = of(url);
    let good = named_token("ES256", "a", &web());
    let fetch = named_token("ES256", "unknown", &web());
    assert!(asked(&auth, &good).await.is_ok());
    let huge = format!("{{\"keys\":[],\"more\":\"{}\"}}", "x".repeat(300_000));
    let bad = [(500, String::new()), (302, String::new()), (200, "{".into()), (200, "{}".into()), (200, huge)];
    for (number, (status, text)) in bad.into_iter().enumerate() {
        address.answers(status, text);
        pass(10).await;
        assert_eq!(told(&auth, &fetch).await, NO_KEY);
        assert_eq!(address.asked(), 2 + number, "asked once, and not sent elsewhere");
        assert!(asked(&auth, &good).await.is_ok(), "{status}");
    }
    pass(700).await;
    assert!(asked(&auth, &good).await.is_ok(), "however old");
    address.answers(200, json!({ "keys": [] }).to_string());
    pass(10).await;
    assert_eq!(told(&auth, &good).await, NO_KEY, "an empty set is an answer");
}

#[tokio::test(start_paused = true)]
async fn without_any_keys_the_asker_is_not_at_fault() {
    let _still = Still::new();
    // Bound, so that nobody else listens there.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = socket.local_addr().unwrap();
    let auth = of(format!("http://{closed}/keys"));
    for _ in 0..2 {
        let refused = asked(&auth, &named_token("ES256", "a", &web())).await.unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code, refused.challenge()), (503, "PROJ503", None));
    }
    let keys = Scratch::new(signers::P256_PEM);
    let both = settings::Auth { jwks_url: Some(format!("http://{closed}/keys")), ..settings(&keys) };
    let auth = Auth::new(&both).unwrap();
    assert!(asked(&auth, &token("ES256", &web())).await.is_ok(), "the file's keys do without");
}

#[tokio::test(start_paused = true)]
async fn whoever_hangs_up_does_not_keep_new_keys_away() {
    let _still = Still::new();
    let (address, url) = Address::open(&[("a", "ES256")]).await;
    let auth = Arc::new(of(url));
    let gate = Arc::new(Notify::new());
    *address.held.lock().unwrap() = Some(gate.clone());
    let token = named_token("ES256", "a", &web());
    let asking = tokio::spawn({
        let (auth, token) = (auth.clone(), token.clone());
        async move { asked(&auth, &token).await.is_ok() }
    });
    while address.asked() == 0 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    gate.notify_one();
    assert!(asked(&auth, &token).await.is_ok());
    assert_eq!(address.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_published_secret_is_none() {
    let _still = Still::new();
    let (_, url) = Address::open(&[("a", "HS256"), ("b", "ES256")]).await;
    let auth = of(url);
    assert_eq!(told(&auth, &named_token("HS256", "a", &web())).await, NO_KEY);
    assert!(asked(&auth, &named_token("ES256", "b", &web())).await.is_ok());
}
