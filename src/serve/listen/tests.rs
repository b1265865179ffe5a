//! Clients that behave, and clients that do not. The clock stands still while anything happens, and jumps to the
//! next deadline when nothing does. Where time is told, no kernel stands between the two sides: what is under way in
//! it would count as nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use http_body_util::StreamBody;
use hyper::body::Frame;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpSocket;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::config as settings;
use crate::serve::reread::EVERY;

struct Server {
    app: Router,
    limits: Limits,
    endpoint: Arc<Endpoint>,
    stop: CancellationToken,
    /// Lets one request of `/gate` through.
    gate: Arc<Notify>,
    /// Told by each request of `/gate` when it comes.
    entered: Arc<Notify>,
    /// Bytes that were taken from the answer of `/endless`.
    taken: Arc<AtomicUsize>,
    /// Told when the answer of `/endless` is dropped.
    dropped: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Bytes of the answer of `/large`.
const LARGE: usize = 4 << 20;

/// Bytes that stand between the two sides at most.
const BETWEEN: usize = 65_536;

impl Server {
    fn new(limits: Limits, tls: Option<Tls>) -> Server {
        let (gate, entered, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()), CancellationToken::new());
        let (drop_told, dropped) = oneshot::channel::<()>();
        let (drop_told, taken) = (Arc::new(Mutex::new(Some(drop_told))), Arc::new(AtomicUsize::new(0)));
        let gated = {
            let (gate, entered) = (gate.clone(), entered.clone());
            async move || {
                entered.notify_one();
                gate.notified().await;
                "through"
            }
        };
        let endless = {
            let taken = taken.clone();
            async move || {
                let told = drop_told.lock().unwrap().take();
                let frames = futures_util::stream::repeat_with(move || {
                    let _ = &told;
                    taken.fetch_add(65_536, Ordering::SeqCst);
                    Ok::<_, io::Error>(Frame::data(Bytes::from_static(&[b'x'; 65_536])))
                });
                Body::new(StreamBody::new(frames))
            }
        };
        let app = Router::new()
            .route("/", get(async || "here"))
            .route("/gate", get(gated))
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/endless", get(endless))
            .route("/echo", post(async |body: Bytes| body));
        let endpoint = Arc::new(Endpoint::new(app.clone(), &limits, tls, stop.clone()));
        Server { app, limits, endpoint, stop, gate, entered, taken, dropped: Mutex::new(Some(dropped)) }
    }

    /// A connection without a kernel.
    fn connect(&self) -> DuplexStream {
        let (client, stream) = tokio::io::duplex(BETWEEN);
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move { endpoint.served(stream).await });
        client
    }

    /// Asks on a connection of its own, and returns all of the answer.
    async fn asked(&self, request: &str) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).await.unwrap();
        to_end(&mut client).await
    }

    /// Listens, and serves until it is stopped.
    async fn listen(&self) -> (SocketAddr, JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = serve(listener, self.app.clone(), self.limits.clone(), None, self.stop.clone());
        (address, tokio::spawn(serving))
    }
}

fn get_of(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// All that comes until the other side closes.
async fn to_end(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // A connection that is cut may be reset; what came before it counts.
    let _ = client.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// What comes, up to this text.
async fn up_to(client: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut answer = String::new();
    while !answer.ends_with(end) {
        answer.push(char::from(client.read_u8().await.expect("the answer goes on")));
    }
    answer
}

async fn elapsed(doing: impl Future) -> Duration {
    let begun = Instant::now();
    doing.await;
    begun.elapsed()
}

/// Whether about so many seconds have passed: tokio's timers are true to a millisecond.
fn about(elapsed: Duration, seconds: u64) -> bool {
    let wanted = Duration::from_secs(seconds);
    elapsed >= wanted && elapsed < wanted + Duration::from_millis(100)
}

#[tokio::test(start_paused = true)]
async fn connections_stay_for_further_requests_and_idle_ones_end() {
    let server = Server::new(Limits::default(), None);
    let mut client = server.connect();
    for _ in 0..3 {
        client.write_all(get_of("/").as_bytes()).await.unwrap();
        assert!(up_to(&mut client, "here").await.starts_with("HTTP/1.1 200 OK"));
        tokio::time::sleep(Duration::from_secs(70)).await;
    }
    client.write_all(format!("{}{}", get_of("/"), get_of("/")).as_bytes()).await.unwrap();
    up_to(&mut client, "here").await;
    up_to(&mut client, "here").await;
    let took = elapsed(to_end(&mut client)).await;
    assert!(about(took, 75), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn slow_headers_are_cut() {
    let server = Server::new(Limits::default(), None);
    for sent in ["", "G", "GET / HTTP/1.1\r\nhost: a\r\nx:"] {
        let mut client = server.connect();
        client.write_all(sent.as_bytes()).await.unwrap();
        let took = elapsed(to_end(&mut client)).await;
        assert!(about(took, 10), "{sent:?} {took:?}");
    }
    // A byte now and then does not help.
    let mut client = server.connect();
    let begun = Instant::now();
    let mut ended = Box::pin(async {
        for byte in get_of("/").bytes().cycle() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if client.write_all(&[if byte == b'\r' { b'x' } else { byte }]).await.is_err() {
                return;
            }
        }
    });
    ended.as_mut().await;
    assert!(begun.elapsed() < Duration::from_secs(13), "{:?}", begun.elapsed());
    // The second request of a connection has as long, from its first byte.
    let mut client = server.connect();
    client.write_all(get_of("/").as_bytes()).await.unwrap();
    up_to(&mut client, "here").await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    client.write_all(b"GET").await.unwrap();
    let took = elapsed(to_end(&mut client)).await;
    assert!(about(took, 10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_its_time() {
    let server = Server::new(Limits::default(), None);
    let mut client = server.connect();
    client.write_all(get_of("/gate").as_bytes()).await.unwrap();
    server.entered.notified().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    server.gate.notify_one();
    up_to(&mut client, "through").await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut() {
    let server = Server::new(Limits::default(), None);
    let mut client = server.connect();
    client.write_all(get_of("/endless").as_bytes()).await.unwrap();
    let dropped = server.dropped.lock().unwrap().take().unwrap();
    let took = elapsed(dropped).await;
    assert!(about(took, 30), "{took:?}");
    assert!(to_end(&mut client).await.len() <= BETWEEN);
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_is_not_cut() {
    let server = Server::new(Limits::default(), None);
    let mut client = server.connect();
    client.write_all(get_of("/large").as_bytes()).await.unwrap();
    let (mut all, mut read) = (0, vec![0; BETWEEN / 2]);
    let begun = Instant::now();
    while all < LARGE {
        client.read_exact(&mut read).await.unwrap();
        all += read.len();
        tokio::time::sleep(Duration::from_secs(25)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(3_000));
    up_to(&mut client, "x").await;
}

/// Of an answer that nobody reads, the kernel holds little. By itself it takes megabytes.
#[tokio::test(start_paused = true)]
async fn the_kernel_holds_little_of_an_answer() {
    let server = Server::new(Limits::default(), None);
    let (address, _serving) = server.listen().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    let mut client = socket.connect(address).await.unwrap();
    client.write_all(get_of("/endless").as_bytes()).await.unwrap();
    let dropped = server.dropped.lock().unwrap().take().unwrap();
    let _ = dropped.await;
    let taken = server.taken.load(Ordering::SeqCst);
    assert!(taken > 0 && taken < 1 << 20, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn large_requests_are_refused() {
    let server = Server::new(Limits { max_url_bytes: 100, max_body_bytes: 10, ..Limits::default() }, None);
    let headers = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(16_384));
    assert!(server.asked(&headers).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(server.asked(&many).await.starts_with("HTTP/1.1 431 "));
    let line = server.asked(&get_of(&format!("/?{}", "x".repeat(98)))).await;
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    let line = server.asked(&get_of(&format!("/?{}", "x".repeat(99)))).await;
    assert!(
        line.starts_with("HTTP/1.1 414 ") && line.contains(r#"{"code":"PROJ414","message":"the path and"#),
        "{line}"
    );
    let fits = server.asked("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789").await;
    assert!(fits.starts_with("HTTP/1.1 200 ") && fits.ends_with("0123456789"), "{fits}");
    let body = server.asked("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n").await;
    assert!(body.starts_with("HTTP/1.1 413 ") && body.contains("PROJ413"), "{body}");
    let chunks = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n";
    let chunked = server.asked(chunks).await;
    assert!(chunked.starts_with("HTTP/1.1 413 "), "{chunked}");
    let begun = Instant::now();
    let late = server.asked("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc").await;
    assert!(late.starts_with("HTTP/1.1 408 ") && about(begun.elapsed(), 10), "{late}");
}

#[tokio::test]
async fn further_connections_wait_for_those_that_are_open() {
    let server = Server::new(Limits { max_connections_open: 2, ..Limits::default() }, None);
    let (address, _serving) = server.listen().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).await.unwrap();
        if clients.is_empty() {
            client.write_all(get_of("/").as_bytes()).await.unwrap();
            assert!(!up_to(&mut client, "here").await.contains("connection: close"), "one more has its place");
        }
        client.write_all(get_of("/gate").as_bytes()).await.unwrap();
        server.entered.notified().await;
        clients.push(client);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(get_of("/gate").as_bytes()).await.unwrap();
    server.gate.notify_one();
    let answer = to_end(&mut clients[0]).await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("through"), "{answer}");
    // Had it been let in before, there would have been three at once.
    server.entered.notified().await;
    for mut client in [clients.remove(1), third] {
        server.gate.notify_one();
        up_to(&mut client, "through").await;
    }
}

#[tokio::test]
async fn stopping_finishes_answers_and_closes_the_rest() {
    let server = Server::new(Limits::default(), None);
    let (address, serving) = server.listen().await;
    let [mut idle, mut silent, mut busy] = [
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    ];
    idle.write_all(get_of("/").as_bytes()).await.unwrap();
    up_to(&mut idle, "here").await;
    busy.write_all(get_of("/gate").as_bytes()).await.unwrap();
    server.entered.notified().await;
    server.stop.cancel();
    assert_eq!(to_end(&mut idle).await, "");
    assert_eq!(to_end(&mut silent).await, "");
    assert!(TcpStream::connect(address).await.is_err(), "nobody is let in");
    assert!(!serving.is_finished());
    server.gate.notify_one();
    assert!(to_end(&mut busy).await.ends_with("through"));
    serving.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn stopping_has_an_end() {
    let server = Server::new(Limits { stop_s: 7, ..Limits::default() }, None);
    let (address, serving) = server.listen().await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(get_of("/gate").as_bytes()).await.unwrap();
    server.entered.notified().await;
    server.stop.cancel();
    let took = elapsed(serving).await;
    assert!(about(took, 7), "{took:?}");
    assert_eq!(to_end(&mut busy).await, "");
}

/// The two files of a certificate, as one of the fixtures.
struct Files(tempfile::TempDir);

impl Files {
    fn new(name: &str) -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        files.write("cert", &fixture(&format!("{name}.cert")));
        files.write("key", &fixture(&format!("{name}.key")));
        files
    }

    fn write(&self, file: &str, content: &str) {
        std::fs::write(self.0.path().join(file), content).unwrap();
    }

    fn settings(&self) -> settings::Tls {
        let path = |file: &str| -> Option<PathBuf> { Some(self.0.path().join(file)) };
        settings::Tls { cert_file: path("cert"), key_file: path("key") }
    }

    fn read(&self) -> Result<Option<Tls>, crate::serve::reread::Unusable> {
        Tls::new(&self.settings())
    }
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("{}/src/serve/listen/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A connection of somebody who trusts one of the certificates only.
async fn shaken(server: &Server, trusted: &str) -> io::Result<TlsStream<DuplexStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(fixture(&format!("{trusted}.cert")).as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    connector.connect(ServerName::try_from("localhost").unwrap(), server.connect()).await
}

#[tokio::test(start_paused = true)]
async fn certificates_are_read_again_and_bad_ones_passed_over() {
    let files = Files::new("a");
    let server = Server::new(Limits::default(), files.read().unwrap());
    let mut before = shaken(&server, "a").await.unwrap();
    before.write_all(get_of("/").as_bytes()).await.unwrap();
    up_to(&mut before, "here").await;
    assert!(shaken(&server, "b").await.is_err());
    files.write("cert", &fixture("b.cert"));
    tokio::time::advance(EVERY).await;
    assert!(shaken(&server, "a").await.is_ok(), "the new key is not there yet");
    files.write("key", &fixture("b.key"));
    tokio::time::advance(EVERY).await;
    let mut after = shaken(&server, "b").await.unwrap();
    assert!(shaken(&server, "a").await.is_err());
    files.write("cert", "nothing");
    tokio::time::advance(EVERY).await;
    assert!(shaken(&server, "b").await.is_ok());
    for client in [&mut before, &mut after] {
        client.write_all(get_of("/").as_bytes()).await.unwrap();
        up_to(client, "here").await;
    }
}

#[tokio::test(start_paused = true)]
async fn tls_has_the_same_deadlines() {
    let server = Server::new(Limits::default(), Files::new("a").read().unwrap());
    let mut silent = server.connect();
    let took = elapsed(to_end(&mut silent)).await;
    assert!(about(took, 10), "{took:?}");
    let mut plain = server.connect();
    plain.write_all(get_of("/").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    let mut slow = shaken(&server, "a").await.unwrap();
    slow.write_all(b"GET").await.unwrap();
    let took = elapsed(to_end(&mut slow)).await;
    assert!(about(took, 10), "{took:?}");
    let mut unread = shaken(&server, "a").await.unwrap();
    unread.write_all(get_of("/endless").as_bytes()).await.unwrap();
    let dropped = server.dropped.lock().unwrap().take().unwrap();
    let took = elapsed(dropped).await;
    assert!(about(took, 30), "{took:?}");
    let mut busy = shaken(&server, "a").await.unwrap();
    busy.write_all(get_of("/gate").as_bytes()).await.unwrap();
    server.entered.notified().await;
    let mut unshaken = server.connect();
    server.stop.cancel();
    assert_eq!(to_end(&mut unshaken).await, "");
    server.gate.notify_one();
    up_to(&mut busy, "through").await;
    assert_eq!(busy.read(&mut [0]).await.unwrap(), 0, "closed in the way of TLS");
}

#[test]
fn certificates_that_cannot_be_used_are_told() {
    let told = |file: &str, content: &str| {
        let files = Files::new("a");
        files.write(file, content);
        files.read().err().unwrap().to_string()
    };
    assert!(told("cert", "").ends_with("cert cannot be used: there is no certificate in it"));
    assert!(told("key", "secret").ends_with("key cannot be used: there is no private key in it"));
    let cut = fixture("a.key").replace("-----END PRIVATE KEY-----", "");
    assert!(told("key", &cut).contains("no END line"), "{}", told("key", &cut));
    assert!(told("key", &fixture("b.key")).contains("key cannot be used: it does not go with the certificate"));
    let mut settings = Files::new("a").settings();
    settings.key_file = None;
    assert!(Tls::new(&settings).err().unwrap().to_string().contains("without serve.tls.key_file"));
    assert!(Tls::new(&settings::Tls::default()).unwrap().is_none());
}
